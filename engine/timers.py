"""Timers: what has fallen due for the runs whose homes are served here, found in time and handed to the batch.

Nothing of it is kept in memory: the store finds the runs for which something is due by an index that holds only those
that wait for a time. Who loses its homes meanwhile does no harm, since whatever it steps is compared with the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from engine.backlog import Backlog
from engine.limits import EngineLimits
from engine.routing import Route
from engine.store.contract import Store

Due = tuple[Route, str]
"""A run for which something has fallen due, by its key."""


class Timers:
    """Finds what is due."""

    def __init__(
        self,
        store: Store,
        routes: Sequence[Route],
        backlog: Backlog,
        limits: EngineLimits,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._routes = {route.pipeline: route for route in routes}
        self._backlog = backlog
        self._limits = limits
        self._clock = clock
        self._looked_at = 0.0
        self._looking: asyncio.Task[list[Due]] | None = None
        self.homes: list[int] = []
        """The homes that are served here."""

    async def due(self, *, wait: bool) -> list[Due]:
        """Runs for which something has fallen due, and may happen now.

        It is looked now and then, beside all else; the answer is there when it is asked for the next time. ``wait``:
        there is nothing else to do, so it is waited for.
        """
        if self._looking is None:
            now = time.monotonic()
            if not self.homes or now - self._looked_at < self._limits.timer_poll_seconds:
                return []
            self._looked_at = now
            self._looking = asyncio.create_task(self._look(list(self.homes)), name="what has fallen due")
        looking = self._looking
        if wait:
            await asyncio.wait({looking})
        if not looking.done():
            return []
        self._looking = None
        return looking.result()

    async def _look(self, homes: Sequence[int]) -> list[Due]:
        found = await self._store.due_runs(
            homes, list(self._routes), self._clock(), self._limits.timer_runs_max
        )
        if not found:
            return []
        latest: dict[Route, datetime] = {}
        for one in found:
            route = self._routes[one.pipeline]
            latest[route] = max(latest.get(route, one.wake_at), one.wake_at)
        passed = await self._backlog.passed(latest)
        return [
            (route, one.key) for one in found if one.wake_at <= passed[(route := self._routes[one.pipeline])]
        ]

    async def close(self) -> None:
        """Give up what is being asked."""
        self._backlog.close()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
            self._looking = None
