"""A clock that does not jump, and is the same for all engines, for all that is to take so long.

A machine's clock is set now and then: by an operator, or by a time server that was away. Events are stamped by it as it
is. Steps go by another one: when the next attempt begins, how long all of them may take together, and until when it is
waited for what goes on outside are durations, and they hold whatever happens to that clock. They are dates in rows that
other engines look at, so it is Postgres whose clock counts; between its answers this machine counts the seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta


class Steady:
    """What the store's clock said last, and the time that has passed since; until it has said something, another's."""

    __slots__ = ("_zero",)

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._zero = clock() - timedelta(seconds=time.monotonic())
        """What time it was where ``time.monotonic`` was 0."""

    def __call__(self) -> datetime:
        """What time it is."""
        return self._zero + timedelta(seconds=time.monotonic())

    def hear(self, said: datetime, asked: float) -> None:
        """The store's clock said this some time between now and ``asked``, which is of ``time.monotonic``.

        No more is changed than has to be, so that an answer that took long sets nothing wrong.
        """
        earliest = said - timedelta(seconds=time.monotonic())
        latest = said - timedelta(seconds=asked)
        self._zero = min(max(self._zero, earliest), latest)
