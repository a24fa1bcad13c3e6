"""What has fallen due is looked for beside all else, and handed out once while it is on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from engine.backlog import Backlog
from engine.limits import EngineLimits
from engine.routing import Route
from engine.store.contract import DueRun, Store
from engine.timers import HANDED_MAX, Timers
from tests.unit.test_batch import route, sums

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = EngineLimits(timer_poll_seconds=0.0, timer_runs_max=2)


class Due:
    """A store in which these runs are due, however often it is asked; it answers when it may."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.limits: list[int] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def due_runs(
        self, homes: Sequence[int], pipelines: Sequence[int], at: datetime, limit: int
    ) -> list[DueRun]:
        self.limits.append(limit)
        await self.may_answer.wait()
        return [DueRun(1, key, number, at) for number, key in enumerate(self.keys[:limit])]


class Passed:
    """A backlog that holds nothing back."""

    async def passed(self, due: Mapping[Route, datetime]) -> Mapping[Route, datetime]:
        return due

    def close(self) -> None:
        pass


def timers_of(store: Due) -> Timers:
    routes = route(sums()).routes
    found = Timers(cast("Store", store), routes, cast("Backlog", Passed()), LIMITS, lambda: NOW)
    found.homes = [0]
    return found


def keys(due: Sequence[tuple[Any, str]]) -> list[str]:
    return [key for _, key in due]


async def test_what_is_on_its_way_is_not_handed_out_again_and_does_not_hide_what_is_behind_it() -> None:
    store = Due("a", "b", "c", "d", "e")
    timers = timers_of(store)
    before = timers.are_due
    first = await timers.due(wait=True)
    second = await timers.due(wait=True)
    assert (keys(first), keys(second)) == (["a", "b"], ["c", "d"])
    assert store.limits == [2, 2 + 2]
    assert len(first) + len(second) == HANDED_MAX * LIMITS.timer_runs_max
    assert await timers.due(wait=True) == [], "no more than that is on its way"
    assert len(store.limits) == 2
    assert (before, timers.are_due) == (False, True)
    store.keys = ("b", "c", "d", "e")
    timers.settle(first)
    assert keys(await timers.due(wait=True)) == ["b", "e"], "what was settled and is still due is found anew"
    await timers.close()


async def test_it_is_waited_for_only_where_there_is_nothing_else_to_do() -> None:
    store = Due("a")
    store.may_answer.clear()
    timers = timers_of(store)
    assert await timers.due(wait=False) == []
    await asyncio.sleep(0)
    assert len(store.limits) == 1
    assert await timers.due(wait=False) == []
    store.may_answer.set()
    assert keys(await timers.due(wait=True)) == ["a"]
    assert len(store.limits) == 1, "the same look has answered"
    store.may_answer.clear()
    await asyncio.sleep(0)
    assert len(store.limits) == 2, "where something was due, the next look begins at once"
    assert await timers.due(wait=False) == []
    await timers.close()
