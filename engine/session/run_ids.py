"""Ids for new runs, which the store gives out in blocks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from engine.store.contract import Store

RUN_IDS_SECONDS_MAX = 180.0
"""Older ids are thrown away: an id has the time in it, decides in which partition of the log its run lies, and must be
of about the time at which the run is started."""


class RunIds(Iterator[int]):
    """Gives them out one by one, without waiting, of those that were asked for ahead."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers: deque[int] = deque()
        self._asked_at = 0.0
        """When the oldest of them were asked for."""

    def __next__(self) -> int:
        return self._numbers.popleft()

    async def have(self, needed: int) -> None:
        """Ask for as many as are missing to so many."""
        numbers = self._numbers
        if time.monotonic() - self._asked_at >= RUN_IDS_SECONDS_MAX:
            self._asked_at = time.monotonic()
            fresh: list[int] = []
            while len(fresh) < needed:
                fresh.extend(await self._store.run_ids())
            # Not before others are there: events are stepped meanwhile.
            numbers.clear()
            numbers.extend(fresh)
        while len(numbers) < needed:
            numbers.extend(await self._store.run_ids())
