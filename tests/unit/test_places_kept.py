"""Limits for all engines, and attempts that go on once their runs wait for them no more.

Real engines in virtual time, over a store in memory.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from engine.store.contract import LostRunsError
from engine.store.values import Commit
from statemachines import Call, Context, Event, Limit, Pipeline, Retry
from statemachines.machine import compile_pipeline
from statemachines.run import Status
from tests.fakes.store import FakeStore
from tests.feeding import event
from tests.simulated import Simulated, check_alive

TOPIC = "kept"
ORDERS = [f"o{number}" for number in range(5)]


class Placed(Event, type="order.placed", key="order"):
    order: str
    owner: str = "ana"


class Off(Event, type="order.off", key="order"):
    order: str


class Order(Context):
    order: str
    owner: str


@dataclass
class Outside:
    """Where the work is done: attempts that heed nothing, and how many go on at once for whom."""

    takes: float
    begun: list[tuple[float, str, int]] = field(default_factory=list)
    going: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)

    async def charge(self, order: Order, call: Call) -> str:
        loop = asyncio.get_running_loop()
        self.begun.append((round(loop.time() - 1_000, 1), order.order, call.attempt))
        self.going[order.owner] += 1
        self.most[order.owner] = max(self.most[order.owner], self.going[order.owner])
        try:
            await self._heed_nothing(loop.time() + self.takes)
        finally:
            self.going[order.owner] -= 1
        return "made"

    async def _heed_nothing(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            try:
                await asyncio.sleep(until - loop.time())
            except asyncio.CancelledError:
                check_alive()


def limited(outside: Outside, **bounds: Any) -> Pipeline[Order]:
    """Charged, one at a time for each owner; or over, where that takes too long or the order is called off."""
    flow = Pipeline("kept", Order, topics=[TOPIC], closed="ignore")

    @flow.step(limit=Limit("owner", at_once=1), **bounds)
    async def charge(order: Order, call: Call) -> str:
        return await outside.charge(order, call)

    charging = flow.state("charging", run=charge, initial=True)
    ok, over = flow.state("ok", final=True), flow.state("over", final=True)

    def begin(event: Placed) -> Order:
        return Order(order=event.order, owner=event.owner)

    flow.start(Placed, begin)
    charging.on(charge.done, to=ok)
    flow.on(Off, to=over)
    flow.on_failure(to=over)
    return flow


def world_of(flow: Pipeline[Order], **more: Any) -> Simulated:
    world = Simulated(compile_pipeline(flow), TOPIC, **more)
    for order in ORDERS:
        world.source.append(event("order.placed", {"order": order}, topic=TOPIC))
    return world


def ends(world: Simulated) -> list[str]:
    return sorted(
        run.configuration for _, run in world.tables.runs.values() if run.status == Status.COMPLETED
    )


def is_over(world: Simulated) -> bool:
    """Whether all have ended, and no place is kept any more."""
    return len(ends(world)) == len(ORDERS) and not world.tables.executions.places


def test_what_goes_on_once_its_time_is_over_keeps_its_place_in_the_limit() -> None:
    outside = Outside(10.0)
    bounds = {"timeout": timedelta(seconds=1), "retry": Retry(attempts=1)}
    world = world_of(limited(outside, **bounds))
    world.live(lambda: is_over(world))
    assert ends(world) == ["over"] * len(ORDERS)
    assert outside.most == {"ana": 1}
    # The next one begins as soon as nothing of the one before it goes on any more.
    assert [(at, order) for at, order, _ in outside.begun] == [
        (10.0 * number, order) for number, order in enumerate(ORDERS)
    ]


def test_it_is_so_for_one_that_is_tried_again() -> None:
    outside = Outside(10.0)
    bounds = {"timeout": timedelta(seconds=1), "retry": Retry(attempts=3)}
    world = world_of(limited(outside, **bounds))
    world.live(lambda: is_over(world))
    # Each is done late by its first attempt, which counts.
    assert ends(world) == ["ok"] * len(ORDERS)
    assert outside.most == {"ana": 1}
    assert [(order, attempt) for _, order, attempt in outside.begun] == [(order, 1) for order in ORDERS]


def test_it_is_so_for_one_whose_state_was_left() -> None:
    outside = Outside(10.0)
    world = world_of(limited(outside))
    world.source.append(event("order.off", {"order": "o0"}, topic=TOPIC), after=3.0)
    world.live(lambda: is_over(world))
    assert ends(world) == ["ok"] * 4 + ["over"]
    assert outside.most == {"ana": 1}
    assert [at for at, _, _ in outside.begun] == [10.0 * number for number in range(len(ORDERS))]


def test_others_are_not_kept_waiting() -> None:
    outside = Outside(10.0)
    world = world_of(limited(outside))
    world.source.append(event("order.off", {"order": "o0"}, topic=TOPIC), after=3.0)
    placed = {"order": "other", "owner": "ben"}
    world.source.append(event("order.placed", placed, topic=TOPIC), after=5.0)
    world.live(lambda: len(ends(world)) == len(ORDERS) + 1)
    [at] = [at for at, order, _ in outside.begun if order == "other"]
    assert at < 6.0
    assert outside.most == {"ana": 1, "ben": 1}


@pytest.mark.parametrize("instance", [None, "one"])
def test_who_has_crashed_keeps_no_place(instance: str | None) -> None:
    outside = Outside(40.0)
    bounds = {"timeout": timedelta(seconds=1), "retry": Retry(attempts=1)}
    world = world_of(limited(outside, **bounds), instance=instance)
    world.crash_after(5.0)
    world.live(lambda: len(outside.begun) == 2)
    # Of the same name it is known at once that the one before is gone; else it is silent for ten seconds first.
    assert outside.begun[1][0] < (6.0 if instance else 20.0)


def test_what_was_taken_for_lost_keeps_its_place_once_its_engine_is_heard_of_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside = Outside(40.0)
    world = world_of(limited(outside), engines=2)
    hold, first = FakeStore.hold, list[int]()

    async def heard(store: FakeStore, holder: int, *more: Any) -> datetime:
        first[:] = first or [holder]
        holders = store.tables.executions.holders
        before = holders.get(holder)
        said = await hold(store, holder, *more)
        if before is not None and holder in first and 1_002 < world.seconds() < 1_014:
            holders[holder] = before
        return said

    monkeypatch.setattr(FakeStore, "hold", heard)
    world.call_later(2.0, world.move)
    # The others take less.
    world.call_later(5.0, lambda: setattr(outside, "takes", 5.0))
    world.live(lambda: is_over(world))
    assert [row.type for row in world.tables.rows.values()].count("tried.step.charge") == 1
    # One begins while nothing is heard of it, and no other one while it goes on and is heard of again.
    assert [at for at, _, _ in outside.begun if 14.0 < at < 40.0] == []
    assert outside.most == {"ana": 2}
    assert len(outside.begun) == len(ORDERS)


def test_what_ends_before_its_run_is_told_so_never_keeps_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(limited(Outside(0.1)))
    commit, kept = FakeStore.commit, list[int]()

    async def count(store: FakeStore, one: Commit) -> int | None:
        ticket = await commit(store, one)
        kept.append(len(store.tables.executions.places))
        return ticket

    monkeypatch.setattr(FakeStore, "commit", count)
    world.live(lambda: is_over(world))
    assert ends(world) == ["ok"] * len(ORDERS)
    assert set(kept) == {0}


def test_what_has_ended_keeps_no_place_where_its_commit_is_computed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside = Outside(0.1)
    world = world_of(limited(outside))
    commit, lost = FakeStore.commit, set[tuple[int, int, int]]()

    async def lose(store: FakeStore, one: Commit) -> int | None:
        ended = {*one.executions_over} - lost
        if ended:
            lost.update(ended)
            raise LostRunsError("another engine moved a run first")
        return await commit(store, one)

    monkeypatch.setattr(FakeStore, "commit", lose)
    world.live(lambda: is_over(world))
    assert lost
    assert all(after - before < 0.5 for before, after in itertools.pairwise(at for at, _, _ in outside.begun))


@pytest.mark.parametrize("after", [0.11, 0.112_5, 0.113, 0.115])
def test_nor_does_what_ends_while_its_run_is_moved_on_by_another_event(after: float) -> None:
    outside = Outside(0.1)
    world = world_of(limited(outside))
    # Before it has ended, between its end and the commit that has it, and behind that.
    world.source.append(event("order.off", {"order": "o0"}, topic=TOPIC), after=after)
    world.live(lambda: is_over(world))
    assert outside.begun[1][0] < 0.5
