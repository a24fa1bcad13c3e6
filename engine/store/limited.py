"""Limits that are for all engines together: what they leave to begin. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

CLOCKS_APART = timedelta(minutes=1)
"""The clocks of steps are not further apart, unless that of Postgres was set."""

LATE = timedelta(seconds=0.2)
"""So much later than it may an attempt begins, since engines look only so often; that is made up for."""


class LimitedRoom(NamedTuple):
    """How many attempts may begin of a step with a limit that is for all engines."""

    pipeline: int
    step: str
    room: int
    """For so many there is room in this engine."""
    at_once: int | None
    """So many may go on of each ``limited_by``, in all engines; None: as many as there are."""
    interval: timedelta | None
    """From the beginning of one to that of the next of the same ``limited_by``, on an average; None: as it comes."""
    burst: int = 1
    """So many of them may begin at a time, where none has for long."""

    def due(self, known: datetime | None, now: datetime) -> datetime:
        """When the next would begin if each kept its distance; ``known`` is what is stored of that.

        What is further ahead than can be was that of a clock that was wrong, or another rate's.
        """
        if known is None or self.interval is None or known > now + self.interval * self.burst + CLOCKS_APART:
            return now
        # All but the first of those that may begin at a time make up for some of it already.
        return max(now - max(timedelta(), LATE - (self.burst - 1) * self.interval), known)

    def leaves(self, going: int, due: datetime, now: datetime) -> int:
        """How many may begin of one value, of which so many go on."""
        many = self.room if self.at_once is None else min(self.room, self.at_once - going)
        if self.interval is not None:
            many = min(many, self.burst + (now - due) // self.interval)
        return max(0, many)
