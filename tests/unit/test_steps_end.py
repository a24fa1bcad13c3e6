"""What an engine that ends says of executions, though commits work on their rows just then.

A real engine in virtual time, over a store in memory.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.store.values import BegunExecution
from statemachines import Call, Context, Event, Pipeline, Retry
from statemachines.machine import compile_pipeline
from statemachines.run import Status
from tests.fakes.store import FakeStore
from tests.feeding import event
from tests.simulated import Fate, Simulated, is_stopping

TOPIC = "ending"
TIMES = 5
"""So often a row is passed over."""


class Placed(Event, type="order.placed", key="order"):
    order: str


class Order(Context):
    order: str


def world_of(fates: dict[int, Fate], seen: list[object]) -> Simulated:
    """One order is charged, by an attempt that says how far it has come, and raises at first."""
    flow = Pipeline("ending", Order, topics=[TOPIC])

    @flow.step(retry=Retry(attempts=5))
    async def charge(order: Order, call: Call) -> str:
        seen.append(call.progress)
        call.heartbeat(call.attempt)
        if call.attempt == 1:
            raise RuntimeError("away")
        return order.order

    charging = flow.state("charging", run=charge, initial=True)
    flow.start(Placed, lambda event: Order(order=event.order))
    charging.on(charge.done, to=flow.state("ok", final=True))
    world = Simulated(compile_pipeline(flow), TOPIC, fates)
    world.source.append(event("order.placed", {"order": "o1"}, topic=TOPIC))
    return world


def is_over(world: Simulated) -> bool:
    return any(run.status == Status.COMPLETED for _, run in world.tables.runs.values())


def stopped_at_each(name: str) -> Iterator[tuple[Simulated, list[object]]]:
    """What was lived, and what attempts have seen of the progress of those before them."""
    usual = world_of({}, [])
    usual.live(lambda: is_over(usual))
    for point in (number for number, one in enumerate(usual.passed, 1) if one == name):
        seen: list[object] = []
        world = world_of({point: Fate.STOP}, seen)
        world.live(lambda world=world: is_over(world))  # type: ignore[misc]
        yield world, seen


def passed_over(monkeypatch: pytest.MonkeyPatch, name: str, answer: Callable[..., Any], times: float) -> None:
    """Have all that an engine asks so, which is to end, be passed over so often in a row."""
    real, asked = getattr(FakeStore, name), Counter[int]()

    async def ask(store: FakeStore, holder: int, given: Any) -> Any:
        if is_stopping() and asked[holder] < times:
            asked[holder] += 1
            return answer(given)
        return await real(store, holder, given)

    monkeypatch.setattr(FakeStore, name, ask)


def tries(world: Simulated) -> int:
    return [row.type for row in world.tables.rows.values()].count("tried.step.charge")


def test_what_it_was_given_and_has_not_begun_is_not_lost_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = FakeStore.begin_executions

    async def begin_slowly(store: FakeStore, *asked: Any) -> list[BegunExecution]:
        begun = await begin(store, *asked)
        if begun:
            # So that it is to end by then.
            await asyncio.sleep(1.0)
        return begun

    monkeypatch.setattr(FakeStore, "begin_executions", begin_slowly)
    passed_over(monkeypatch, "put_back", lambda _: False, TIMES)
    for world, seen in stopped_at_each("begin_executions is asked"):
        assert (tries(world), len(seen)) == (1, 2), world.passed


def test_the_next_attempt_sees_how_far_one_came_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    passed_over(monkeypatch, "note_progress", lambda notes: [one.id for one in notes], TIMES)
    for world, seen in stopped_at_each("commit has answered"):
        assert (tries(world), seen) == (1, [None, 1]), world.passed


def test_that_one_failed_is_told_though_it_is_not_stored_how_far_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed_over(monkeypatch, "note_progress", lambda notes: [one.id for one in notes], math.inf)
    for world, seen in stopped_at_each("commit has answered"):
        assert (tries(world), len(seen)) == (1, 2), world.passed
