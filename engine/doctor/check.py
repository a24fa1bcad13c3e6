"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How it stands."""

    OK = "ok"
    WARN = "warn"
    """It works, and could hurt one day."""
    FAIL = "fail"
    """An engine would not run, or would break a promise."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was found, and what to do."""

    area: str
    """settings, postgres, kafka, pipelines or relay."""
    name: str
    verdict: Verdict
    sentence: str
    cure: str = ""
    unreachable: bool = False
    """Whether it is that a service does not answer."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "area": self.area,
            "name": self.name,
            "verdict": self.verdict.value,
            "sentence": self.sentence,
            "cure": self.cure,
        }


class Report:
    """Gathers the checks of one area."""

    def __init__(self, area: str) -> None:
        self._area = area
        self.checks: list[Check] = []

    def ok(self, name: str, sentence: str) -> None:
        """It is as it should be."""
        self.checks.append(Check(self._area, name, Verdict.OK, sentence))

    def warn(self, name: str, sentence: str, cure: str) -> None:
        """It could hurt one day."""
        self.checks.append(Check(self._area, name, Verdict.WARN, sentence, cure))

    def fail(self, name: str, sentence: str, cure: str = "", *, unreachable: bool = False) -> None:
        """It is not as it must be."""
        self.checks.append(Check(self._area, name, Verdict.FAIL, sentence, cure, unreachable))
