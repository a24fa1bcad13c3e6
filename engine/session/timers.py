"""Timers: what has fallen due for the runs whose homes are served here, found in time and handed to the batch.

Nothing of it is kept in memory: the store finds the runs for which something is due by an index that holds only those
that wait for a time. Who loses its homes meanwhile does no harm, since whatever it steps is compared with the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from engine.limits import EngineLimits
from engine.routing import Route
from engine.session.backlog import Backlog
from engine.store.contract import Store
from engine.store.values import DueRun
from statemachines.run import Run

HANDED_MAX = 2
"""So many times ``timer_runs_max`` are on their way at most: in a commit in flight, and in the draft behind it."""
DUE_OF_LATE_SECONDS = 1.0
WAIT_SECONDS = 0.02
"""So long an answer is waited for where there is nothing else to do, before there may be again."""


@dataclass(slots=True)
class Due:
    """A run for which something has fallen due, and which version of it was found; never changed.

    Not frozen, so without a hash: one is made for every timer, and that would take three times as long.
    """

    route: Route
    key: str
    generation: int
    sequence: int
    until: datetime = field(compare=False)
    """What has fallen due until then may happen; what did so later could still be overtaken by an event."""
    run: Run | None = field(default=None, compare=False)
    """As it was found; None where it has to be loaded."""
    id: int = field(default=0, compare=False)
    """The number of the run."""


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
        self.paused: Mapping[int, object] = {}
        """Pipelines of which nothing falls due."""
        self._looked_at = 0.0
        self._definitions = [number for route in routes for number in route.machines]
        self._behind: dict[Route, tuple[datetime, datetime]] = {}
        """Pipelines whose events have yet to come so far: how far they have come, and how far they must."""
        self._found_at = -DUE_OF_LATE_SECONDS
        self._looking: asyncio.Task[list[Due]] | None = None
        self._handed: set[int] = set()
        """Runs that were handed to a batch that is not durable yet, so that the store would still find them due."""
        self.homes: list[int] = []
        """The homes that are served here."""
        self.left_alone: Mapping[tuple[Route, str], Due] = {}
        """By run: what the store takes in no way (``Committer.left_alone``)."""

    @property
    def are_due(self) -> bool:
        """Whether something has fallen due of late, so that more of it is likely, of the homes that are served here."""
        return bool(self.homes) and time.monotonic() - self._found_at < DUE_OF_LATE_SECONDS

    def seconds_until_look(self) -> float:
        """In how many seconds it is to be looked again."""
        return max(0.0, self._looked_at + self._limits.timer_poll_seconds - time.monotonic())

    async def due(self, *, wait: bool) -> list[Due]:
        """Runs for which something has fallen due, and may happen now.

        It is looked now and then, beside all else; the answer is there when it is asked for the next time. ``wait``:
        there is nothing else to do, so it is waited for, though not for long.
        """
        self._begin_to_look()
        if self._looking is None:
            return []
        if wait:
            await asyncio.wait({self._looking}, timeout=WAIT_SECONDS)
        if not self._looking.done():
            return []
        looking, self._looking = self._looking, None
        due = looking.result()
        if self.left_alone:
            due = [one for one in due if self.left_alone.get((one.route, one.key)) != one]
        if due:
            self._found_at = time.monotonic()
            self._handed.update(one.id for one in due)
            self._begin_to_look()
        return due

    def settle(self, due: Iterable[Due]) -> None:
        """What was handed out is durable, or is to be found anew."""
        self._handed.difference_update(one.id for one in due)

    async def close(self) -> None:
        """Give up what is being asked."""
        self._backlog.close()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
            self._looking = None

    def _begin_to_look(self) -> None:
        now, limits = time.monotonic(), self._limits
        if self._looking is not None or not self.homes or now - self._looked_at < limits.timer_poll_seconds:
            return
        if len(self._handed) < HANDED_MAX * limits.timer_runs_max:
            self._looked_at = now
            self._looking = asyncio.create_task(self._look(list(self.homes)), name="what has fallen due")

    async def _look(self, homes: Sequence[int]) -> list[Due]:
        now = self._clock()
        self._backlog.foresee()
        await self._follow_backlog()
        until = {
            number: self._behind[route][0] if route in self._behind else now
            for number, route in self._routes.items()
            if number not in self.paused
        }
        # Those that are on their way are not asked for; those that are left alone are found, and as many more.
        most, left_alone = self._limits.timer_runs_max, len(self.left_alone)
        # Keys are spread over the homes, so that twice the share of each is likely to be enough.
        each = min(most, -(-2 * most // len(homes))) + left_alone
        asked = homes, until, self._definitions, most + left_alone, list(self._handed), each
        found = await self._store.due_runs(*asked)
        may = await self._that_may_happen(found, until)
        if not self._behind:
            self._backlog.nothing_waits()
        return may

    async def _follow_backlog(self) -> None:
        """See how far the events have come of pipelines that were behind."""
        if self._behind:
            wanted = {route: must for route, (_, must) in self._behind.items()}
            passed = await self._backlog.passed(wanted)
            self._behind = {
                route: (passed[route], must) for route, must in wanted.items() if passed[route] < must
            }

    async def _that_may_happen(self, found: Sequence[DueRun], until: Mapping[int, datetime]) -> list[Due]:
        """Those that no event could still overtake; pipelines of which there are others are behind.

        ``until`` says by pipeline until when was asked for.
        """
        # The longest due come first, so that the last of each pipeline are the latest.
        last = {one.pipeline: one.wake_at for one in found}
        latest = {
            route: wake_at
            for route, wake_at in ((self._routes[number], at) for number, at in last.items())
            if route not in self._behind and route.newest.pipeline.timers == "after_backlog"
        }
        passed = await self._backlog.passed(latest) if latest else {}
        self._behind |= {
            route: (passed[route], must) for route, must in latest.items() if passed[route] < must
        }
        # Of those that were behind, only what may happen was asked for.
        routes = {number: self._routes[number] for number in until}
        may_until = {number: passed.get(route, until[number]) for number, route in routes.items()}
        return [
            Due(routes[pipeline], key, generation, sequence, may_until[pipeline], run, number)
            for pipeline, wake_at, number, key, generation, sequence, run in found
            if wake_at <= may_until[pipeline]
        ]
