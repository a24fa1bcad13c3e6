"""What became of a consumed event for a pipeline."""

from __future__ import annotations

import enum


class Disposition(enum.IntEnum):
    """The numbers are stored; the words are what people see."""

    STARTED = 1
    APPLIED = 2
    IGNORED = 3
    DUPLICATE = 4
    LATE = 5
    HELD = 6
    DEAD_LETTERED = 7
    DEFERRED = 8
    STALE = 9
    VOID = 10
    """Of the result of a step: nothing waits for it any more."""

    @property
    def word(self) -> str:
        """As in ``dead-lettered``."""
        return self.name.lower().replace("_", "-")
