"""The errors of the definition side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachines.places import Place


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong with a definition: what, where, and what to do."""

    message: str
    cure: str
    place: Place
    state: str | None = None
    event: str | None = None
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """One line."""
        return f"{self.place}: {self.severity}: {self.message}. {self.cure}"


class DefinitionError(Exception):
    """A pipeline that cannot be run; ``mistakes`` has all that was found."""

    def __init__(self, pipeline: str, mistakes: Sequence[Mistake]) -> None:
        self.pipeline = pipeline
        self.mistakes = tuple(mistakes)
        lines = "\n".join(f"  {mistake}" for mistake in self.mistakes)
        super().__init__(f"pipeline {pipeline!r} has {len(self.mistakes)} mistake(s):\n{lines}")
