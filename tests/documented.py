"""The fields of `--json` as `engine/cli/README.md` has them, to be held beside what a command really says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import engine.cli

PAGE = Path(engine.cli.__file__).with_name("README.md")
ANY, BY_NAME = "**any JSON**", "**by name**"
NAME = "NAME"
"""Stands for every name of an object whose names are not fixed."""


@dataclass(frozen=True, slots=True)
class Section:
    """What one heading says."""

    fields: dict[str, str]
    """Of an object: name, and what is said of it."""
    items: str | None
    """Of a list: the anchor of what is in it."""
    base: str | None
    """The anchor of what it has all fields of, too."""


@dataclass(slots=True)
class Page:
    """All of it, and which parts of it were held beside something."""

    commands: dict[str, Section]
    parts: dict[str, Section]
    seen: set[str] = field(default_factory=set)

    @classmethod
    def read(cls) -> Self:
        """As it is in the repository."""
        _, commands, parts = re.split(r"^## (?:JSON|Parts)$", PAGE.read_text("utf-8"), flags=re.MULTILINE)
        by_command = {name: section for title, section in _sections(commands) for name in title.split(", ")}
        by_anchor = {title.replace(" ", "-"): section for title, section in _sections(parts)}
        return cls(by_command, by_anchor)

    def check(self, command: str, answer: Any) -> None:
        """Fail unless an answer has exactly the fields that are documented, in everything that it contains."""
        self._check(command, self.commands[command], answer)

    def unseen(self) -> set[str]:
        """Parts that nothing was held beside yet."""
        return self.parts.keys() - self.seen

    def _check(self, where: str, section: Section, value: Any) -> None:
        if section.items is not None:
            assert isinstance(value, list), where
            self._check_linked(f"{where}[]", section.items, value)
            return
        assert isinstance(value, dict), where
        known = self._fields(section)
        if known.keys() == {NAME}:
            known = dict.fromkeys(value, known[NAME])
        assert value.keys() == known.keys(), where
        for name, said in known.items():
            self._check_field(f"{where}.{name}", said, value[name])

    def _check_field(self, where: str, said: str, value: Any) -> None:
        if said.startswith(ANY):
            return
        if said.startswith(BY_NAME):
            assert isinstance(value, dict), where
            assert not any(isinstance(one, dict | list) for one in value.values()), where
        elif linked := re.search(r"\]\(#([\w-]+)\)", said):
            self._check_linked(where, linked[1], value)
        else:
            plain = value if isinstance(value, list) else [value]
            assert not any(isinstance(one, dict | list) for one in plain), f"{where} has undocumented fields"

    def _check_linked(self, where: str, anchor: str, value: Any) -> None:
        section = self.parts.get(anchor) or self.commands[anchor]
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                self.seen.add(anchor)
                self._check(where, section, one)

    def _fields(self, section: Section) -> dict[str, str]:
        if section.base is None:
            return section.fields
        self.seen.add(section.base)
        return self._fields(self.parts[section.base]) | section.fields


def _sections(text: str) -> list[tuple[str, Section]]:
    found = []
    for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        fields = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", body, re.MULTILINE))
        items = re.search(r"^A list of .*\(#([\w-]+)\)", body, re.MULTILINE)
        base = re.search(r"^All of .*\(#([\w-]+)\), and:$", body, re.MULTILINE)
        assert bool(fields) != bool(items), title
        found.append((title, Section(fields, items and items[1], base and base[1])))
    return found
