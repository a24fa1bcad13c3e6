"""Which runs the engine takes up because something has fallen due for them, and which have to wait for their events."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from engine.limits import EngineLimits
from engine.routing import Loaded, Route, make_routes
from engine.session.backlog import Backlog
from engine.session.timers import HANDED_MAX, Due, Timers
from engine.store.contract import Store
from engine.store.values import DueRun
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
        self,
        homes: Sequence[int],
        until: Mapping[int, datetime],
        definitions: Sequence[int],
        limit: int,
        but: Collection[int] = (),
        each: int | None = None,
    ) -> list[DueRun]:
        del homes, definitions, limit, but, each
        self.asked.append(until)
        return [
            DueRun(pipeline, at, 1, f"{pipeline} at {at.minute}", 0, 1)
            for at in (EARLY, LATE)
            for pipeline, time in sorted(until.items())
            if at <= time
        ]


class Come:
    """Says how far the events of a pipeline have come."""

    def __init__(self, far: Mapping[str, datetime]) -> None:
        self.far = dict(far)
        self.asked: list[str] = []

    def foresee(self) -> None:
        pass

    def nothing_waits(self) -> None:
        pass

    def close(self) -> None:
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
    due = await timers.due(wait=True)
    timers.settle(due)
    return [one.key for one in due]


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


async def test_what_is_handed_out_says_until_when_it_may_happen() -> None:
    timers, _ = serving(Come({"a": EARLY}), *routes(a="after_backlog", b="on_time", c="after_backlog"))
    found = [(one.key, one.until) for one in await timers.due(wait=True)]
    assert found == [
        ("1 at 58", EARLY),
        ("2 at 58", NOW),
        ("3 at 58", NOW),
        ("2 at 59", NOW),
        ("3 at 59", NOW),
    ]


async def test_of_a_paused_pipeline_nothing_is_asked_for() -> None:
    timers, rows = serving(Come({}), *routes(a="on_time", b="after_backlog"))
    timers.paused = {1: "paused"}
    assert await keys(timers) == ["2 at 58", "2 at 59"]
    assert [set(until) for until in rows.asked] == [{2}]
    timers.paused = {}
    assert await keys(timers) == ["1 at 58", "2 at 58", "1 at 59", "2 at 59"]


async def test_without_homes_nothing_is_asked_for() -> None:
    timers, rows = serving(Come({}), *routes(a="after_backlog"))
    timers.homes = []
    assert (await keys(timers), rows.asked) == ([], [])


class Slow:
    """A store in which these runs are due, however often it is asked; it answers when it may."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.limits: list[int] = []
        self.each: list[int | None] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def due_runs(
        self,
        homes: Sequence[int],
        until: Mapping[int, datetime],
        definitions: Sequence[int],
        limit: int,
        but: Collection[int] = (),
        each: int | None = None,
    ) -> list[DueRun]:
        del homes, definitions
        self.limits.append(limit)
        self.each.append(each)
        await self.may_answer.wait()
        wanted = [(ord(key), key) for key in self.keys if ord(key) not in but]
        return [DueRun(1, until[1], number, key, 0, 1) for number, key in wanted[:limit]]


def of(store: Slow) -> Timers:
    limits = EngineLimits(timer_poll_seconds=0.0, timer_runs_max=2)
    found = Timers(cast("Store", store), routes(a="on_time"), cast("Backlog", Come({})), limits, lambda: NOW)
    found.homes = [0]
    return found


def names(due: Sequence[Due]) -> list[str]:
    return [one.key for one in due]


async def test_what_is_on_its_way_is_not_handed_out_again_and_does_not_hide_what_is_behind_it() -> None:
    store = Slow("a", "b", "c", "d", "e")
    timers = of(store)
    before = timers.are_due
    first = await timers.due(wait=True)
    second = await timers.due(wait=True)
    assert (names(first), names(second)) == (["a", "b"], ["c", "d"])
    assert store.limits == [2, 2]
    assert len(first) + len(second) == HANDED_MAX * 2
    assert await timers.due(wait=True) == [], "no more than that is on its way"
    assert len(store.limits) == 2
    assert (before, timers.are_due) == (False, True)
    store.keys = ("b", "c", "d", "e")
    timers.settle(first)
    assert names(await timers.due(wait=True)) == ["b", "e"], "what was settled and is still due is found anew"
    await timers.close()


async def test_it_is_waited_for_only_where_there_is_nothing_else_to_do() -> None:
    store = Slow("a")
    store.may_answer.clear()
    timers = of(store)
    assert await timers.due(wait=False) == []
    await asyncio.sleep(0)
    assert len(store.limits) == 1
    assert await timers.due(wait=False) == []
    store.may_answer.set()
    assert names(await timers.due(wait=True)) == ["a"]
    assert len(store.limits) == 1, "the same look has answered"
    store.may_answer.clear()
    await asyncio.sleep(0)
    assert len(store.limits) == 2, "where something was due, the next look begins at once"
    assert await timers.due(wait=False) == []
    await timers.close()


async def test_of_each_home_twice_its_share_is_looked_at_beside_what_is_left_alone() -> None:
    store = Slow()
    timers = of(store)
    await timers.due(wait=True)
    timers.homes = [*range(16)]
    await timers.due(wait=True)
    timers = Timers(cast("Store", store), routes(a="on_time"), cast("Backlog", Come({})), LIMITS, lambda: NOW)
    timers.homes = [*range(16)]
    await timers.due(wait=True)
    [route] = routes(a="on_time")
    timers.left_alone = {(route, key): Due(route, key, 0, 1, NOW) for key in "abc"}
    await timers.due(wait=True)
    assert list(zip(store.limits, store.each, strict=True)) == [(2, 2), (2, 1), (1_000, 125), (1_003, 128)]
    await timers.close()


async def test_what_is_left_alone_is_not_handed_out_until_its_run_has_moved() -> None:
    [route] = routes(a="on_time")
    timers, _ = serving(Come({}), route)
    first = Due(route, "1 at 58", 0, 1, NOW)
    timers.left_alone = {
        (route, "1 at 58"): first,
        (route, "1 at 59"): replace(first, key="1 at 59", sequence=0),
    }
    assert await keys(timers) == ["1 at 59"]
