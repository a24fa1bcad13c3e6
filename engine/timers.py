"""Timers: what has fallen due for the runs whose homes are served here, found in time and handed to the batch.

Nothing of it is kept in memory: the store finds the runs for which something is due by an index that holds only those
that wait for a time. Who loses its homes meanwhile does no harm, since whatever it steps is compared with the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime

from engine.backlog import Backlog
from engine.committer import Due
from engine.limits import EngineLimits
from engine.routing import Route
from engine.store.contract import DueRun, Store


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
        self._definitions = [number for route in routes for number in route.machines]
        self._behind: dict[Route, tuple[datetime, datetime]] = {}
        """Pipelines whose events have yet to come so far: how far they have come, and how far they must."""
        self.homes: list[int] = []
        """The homes that are served here."""

    async def due(self) -> list[Due]:
        """Runs for which something has fallen due, and may happen now; looks now and then."""
        if not self.homes or time.monotonic() - self._looked_at < self._limits.timer_poll_seconds:
            return []
        self._looked_at = time.monotonic()
        await self._follow_backlog()
        now = self._clock()
        until = {
            number: self._behind[route][0] if route in self._behind else now
            for number, route in self._routes.items()
        }
        found = await self._store.due_runs(self.homes, until, self._definitions, self._limits.timer_runs_max)
        may = await self._that_may_happen(found)
        if not self._behind:
            self._backlog.nothing_waits()
        return may

    def close(self) -> None:
        """Give up what is being asked."""
        self._backlog.close()

    async def _follow_backlog(self) -> None:
        """See how far the events have come of pipelines that were behind."""
        if self._behind:
            wanted = {route: must for route, (_, must) in self._behind.items()}
            passed = await self._backlog.passed(wanted)
            self._behind = {
                route: (passed[route], must) for route, must in wanted.items() if passed[route] < must
            }

    async def _that_may_happen(self, found: Sequence[DueRun]) -> list[Due]:
        """Those that no event could still overtake; pipelines of which there are others are behind."""
        latest: dict[Route, datetime] = {}
        for one in found:
            route = self._routes[one.pipeline]
            if route not in self._behind and route.newest.pipeline.timers == "after_backlog":
                latest[route] = max(latest.get(route, one.wake_at), one.wake_at)
        passed = await self._backlog.passed(latest) if latest else {}
        self._behind |= {
            route: (passed[route], must) for route, must in latest.items() if passed[route] < must
        }
        may = [(self._routes[one.pipeline], one) for one in found]
        # Of those that were behind, only what may happen was asked for.
        return [
            Due(route, one.key, one.generation, one.sequence)
            for route, one in may
            if route not in passed or one.wake_at <= passed[route]
        ]
