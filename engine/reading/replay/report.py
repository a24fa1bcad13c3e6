"""How rows came out, recorded beside recomputed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

MISMATCHES_MAX = 1_000
"""More are counted and not kept."""


class HoldReason(NamedTuple):
    """Why an event that holds a run failed, as recorded."""

    reason: str
    error: str
    event_id: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of a row that came out otherwise."""

    field: str
    recorded: Any
    recomputed: Any

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {"field": self.field, "recorded": self.recorded, "recomputed": self.recomputed}


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first row of a run that came out otherwise."""

    pipeline: str
    key: str
    generation: int
    sequence: int
    event_id: str
    event_type: str
    sentence: str
    differences: tuple[Difference, ...]

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "pipeline": self.pipeline,
            "key": self.key,
            "generation": self.generation,
            "sequence": self.sequence,
            "event_id": self.event_id,
            "event_type": self.event_type,
            "sentence": self.sentence,
            "differences": [one.as_json() for one in self.differences],
        }


@dataclass(frozen=True, slots=True)
class RunReplayed:
    """One run: how many of its rows came out equal, and the first that did not."""

    rows: int
    equal: int
    mismatch: Mismatch | None


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The outcome of a replay. Behind the first row that differs a run is not replayed further."""

    namespace: str
    pipelines: tuple[str, ...]
    runs: int
    equal_runs: int
    rows: int
    equal_rows: int
    mismatches: tuple[Mismatch, ...]
    more: int
    """Runs that differ beyond those that are kept."""
    notes: tuple[str, ...]
    """Where the given definition is another one than the recorded one, and where rows were dropped."""

    @property
    def is_equal(self) -> bool:
        """Whether every row came out equal."""
        return not self.mismatches

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "namespace": self.namespace,
            "pipelines": list(self.pipelines),
            "equal": self.is_equal,
            "runs": self.runs,
            "equal_runs": self.equal_runs,
            "rows": self.rows,
            "equal_rows": self.equal_rows,
            "mismatches": [one.as_json() for one in self.mismatches],
            "more": self.more,
            "notes": list(self.notes),
        }
