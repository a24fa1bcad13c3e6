"""Which runs the engine takes up because something has fallen due for them, and which have to wait for their events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from engine.backlog import Backlog
from engine.limits import EngineLimits
from engine.routing import Loaded, Route, make_routes
from engine.store.contract import DueRun, Store
from engine.timers import Timers
from statemachines.definition import Pipeline
from statemachines.machine import compile_pipeline
from tests.unit.machines import Account, Opened, open_account

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EARLY, LATE = NOW - timedelta(minutes=2), NOW - timedelta(minutes=1)
LIMITS = EngineLimits(timer_poll_seconds=0)


class Rows:
    """Has one due run of each pipeline at each of two times."""

    def __init__(self) -> None:
        self.asked: list[Mapping[int, datetime]] = []

    async def due_runs(
        self, homes: Sequence[int], until: Mapping[int, datetime], definitions: Sequence[int], limit: int
    ) -> list[DueRun]:
        del homes, definitions, limit
        self.asked.append(until)
        return [
            DueRun(pipeline, f"{pipeline} at {at.minute}", 1, at, 0, 1)
            for at in (EARLY, LATE)
            for pipeline, time in sorted(until.items())
            if at <= time
        ]


class Come:
    """Says how far the events of a pipeline have come."""

    def __init__(self, far: Mapping[str, datetime]) -> None:
        self.far = dict(far)
        self.asked: list[str] = []

    def nothing_waits(self) -> None:
        pass

    async def passed(self, due: Mapping[Route, datetime]) -> dict[Route, datetime]:
        self.asked.extend(route.name for route in due)
        return {route: self.far.get(route.name, NOW) for route in due}


def routes(**timers: str) -> list[Route]:
    loaded = []
    for number, (name, when) in enumerate(timers.items(), 1):
        flow = Pipeline(name, Account, topics=[name], timers=cast("Any", when))
        flow.state("only", initial=True)
        flow.start(Opened, open_account)
        loaded.append(Loaded(compile_pipeline(flow), number, number))
    made = make_routes(loaded, {})
    return [made[name].routes[0] for name in timers]


def serving(come: Come, *found: Route) -> tuple[Timers, Rows]:
    rows = Rows()
    timers = Timers(cast("Store", rows), found, cast("Backlog", come), LIMITS, lambda: NOW)
    timers.homes = [3]
    return timers, rows


async def keys(timers: Timers) -> list[str]:
    return [one.key for one in await timers.due()]


async def test_what_is_due_waits_until_the_events_of_its_pipeline_have_come_so_far() -> None:
    come = Come({"a": EARLY})
    timers, rows = serving(come, *routes(a="after_backlog", b="after_backlog"))
    assert await keys(timers) == ["1 at 58", "2 at 58", "2 at 59"]
    # From now on only what may happen is asked for, so that one pipeline keeps no other waiting.
    assert await keys(timers) == ["1 at 58", "2 at 58", "2 at 59"]
    assert [until[1] for until in rows.asked] == [NOW, EARLY]
    come.far["a"] = LATE
    assert await keys(timers) == ["1 at 58", "2 at 58", "1 at 59", "2 at 59"]
    assert rows.asked[-1][1] == NOW


async def test_a_pipeline_whose_timers_fire_on_time_waits_for_nothing() -> None:
    come = Come({"a": EARLY, "b": EARLY})
    timers, _ = serving(come, *routes(a="on_time", b="after_backlog"))
    assert await keys(timers) == ["1 at 58", "2 at 58", "1 at 59"]
    assert set(come.asked) == {"b"}


async def test_without_homes_nothing_is_asked_for() -> None:
    timers, rows = serving(Come({}), *routes(a="after_backlog"))
    timers.homes = []
    assert (await keys(timers), rows.asked) == ([], [])
