"""What was checked, and what was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FINDINGS_MAX = 1_000
"""More are counted and not kept: a store that is broken all over is told in bounded memory."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be."""

    sentence: str
    pipeline: str | None = None
    key: str | None = None
    generation: int | None = None
    sequence: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "pipeline": self.pipeline,
            "key": self.key,
            "generation": self.generation,
            "sequence": self.sequence,
            "finding": self.sentence,
        }


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The outcome of a check."""

    namespace: str
    runs: int
    rows: int
    """Rows of the log whose hash was computed again."""
    dropped: int
    """Runs among them whose rows were dropped, and cannot be checked."""
    published: int
    """Records that wait in the outbox and could be read."""
    findings: tuple[Finding, ...]
    more: int
    """Findings beyond those that are kept."""

    @property
    def is_clean(self) -> bool:
        """Whether everything is as it must be."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "namespace": self.namespace,
            "clean": self.is_clean,
            "runs": self.runs,
            "rows": self.rows,
            "dropped": self.dropped,
            "published": self.published,
            "findings": [one.as_json() for one in self.findings],
            "more": self.more,
        }


@dataclass(slots=True)
class Findings:
    """Gathers them."""

    kept: list[Finding] = field(default_factory=list)
    more: int = 0

    def add(self, finding: Finding) -> None:
        """Keep it, or count it."""
        if len(self.kept) < FINDINGS_MAX:
            self.kept.append(finding)
        else:
            self.more += 1
