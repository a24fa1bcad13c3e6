"""Tables for people (Markdown), and the same for programs (JSON)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that has a goal."""

    name: str
    value: float
    direction: Literal["at least", "at most"]
    goal: float
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.goal if self.direction == "at least" else self.value <= self.goal

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": round(self.value, 4),
            "unit": self.unit,
            "goal": f"{self.direction} {self.goal:g}",
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Section:
    """What one case comes to."""

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    detail: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        parts = [f"## {self.name}: {self.title}", "", *table(self.header, self.rows)]
        parts += [f"\n{note}" for note in self.notes]
        return "\n".join(parts) + "\n"

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "figures": [one.as_json() for one in self.figures],
            "table": [dict(zip(self.header, map(str, row), strict=True)) for row in self.rows],
            "notes": list(self.notes),
            **self.detail,
        }


def goals(sections: Iterable[Section]) -> str:
    """All figures that have a goal, in one table."""
    rows = [
        (section.name, one.name, shown(one.value, one.unit), f"{one.direction} {shown(one.goal, one.unit)}",
         "met" if one.met else "missed")
        for section in sections
        for one in section.figures
    ]  # fmt: skip
    return "\n".join(["## Goals", "", *table(("case", "figure", "measured", "goal", ""), rows)])


def shown(value: float, unit: str = "") -> str:
    """A number as people read it."""
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table; all columns but the first are numbers, and stand to the right."""
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (lines[0], rule, *lines[1:])
    ]
