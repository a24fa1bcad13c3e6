"""What becomes of runs whose attempts go on for ever, or nearly so, once it was told that they took too long.

Real engines in virtual time, over a store in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from engine.dispositions import Disposition
from engine.limits import SILENT_SECONDS
from engine.store.contract import StoreUnavailableError
from engine.store.values import BegunExecution
from statemachines import Call, Limit, Pipeline, Retry
from statemachines.machine import compile_pipeline
from statemachines.run import Run
from statemachines.step import exponential
from tests.called_off import Off, Order, Placed
from tests.fakes.store import FakeStore
from tests.feeding import event
from tests.simulated import LIMITS, Life, Simulated, check_alive

TOPIC = "hanging"
GRACE = LIMITS.step_cancel_seconds
POLL = LIMITS.step_poll_seconds
FOR_EVER = 500.0
SECOND, WITHIN = timedelta(seconds=1), timedelta(seconds=5)
TAKES_TOO_LONG = [{"timeout": SECOND}, {"heartbeat": SECOND}]


@dataclass
class Outside:
    """Where the work is done: attempts that heed nothing, what is said of them, and how many go on at once."""

    takes: dict[str, float] = field(default_factory=dict)
    """How many seconds the first attempt for an order takes; the next ones take none."""
    fails: bool = False
    hang_again: bool = False
    """Whether the next ones take as long."""
    says: list[tuple[float, str, str, Any]] = field(default_factory=list)
    going: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)

    def say(self, what: str, order: str, of: Any) -> None:
        self.says.append((round(asyncio.get_running_loop().time() - 1_000.0, 1), what, order, of))

    def said(self, what: str) -> list[tuple[float, str, Any]]:
        return [(at, order, of) for at, said, order, of in self.says if said == what]

    async def charge(self, order: str, attempt: int) -> str:
        self.say("begins", order, attempt)
        for whose in (order, "all"):
            self.going[whose] += 1
            self.most[whose] = max(self.most[whose], self.going[whose])
        try:
            await _heed_nothing(self.takes.get(order, 0.0) if attempt == 1 or self.hang_again else 0.0)
        finally:
            self.going[order] -= 1
            self.going["all"] -= 1
        self.say("ends", order, attempt)
        if self.fails and attempt == 1:
            raise RuntimeError("no")
        return "made"


async def _heed_nothing(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        try:
            await asyncio.sleep(until - loop.time())
        except asyncio.CancelledError:
            check_alive()


def charging(
    outside: Outside, *, can_be_undone: bool = False, attempts: int = 9, **bounds: Any
) -> Pipeline[Order]:
    """Charged; or over, with that undone if it can be, where it fails or is called off."""
    flow = Pipeline("hanging", Order, topics=[TOPIC], closed="ignore")

    @flow.step(retry=Retry(attempts=attempts, wait=exponential(0.1, 1)), **bounds)
    async def charge(order: Order, call: Call) -> str:
        return await outside.charge(order.order, call.attempt)

    if can_be_undone:

        @charge.compensate
        async def refund(order: Order, made: str | None, call: Call) -> None:
            del call
            outside.say("refund", order.order, made)

    charging = flow.state("charging", run=charge, initial=True)
    ok, over = flow.state("ok", final=True), flow.state("over", final=True)
    flow.start(Placed, lambda event: Order(order=event.order))
    charging.on(charge.done, to=ok)
    flow.on(Off, to=over, compensate=can_be_undone)
    flow.on_failure(to=over, compensate=can_be_undone)
    return flow


def world_of(flow: Pipeline[Order], *orders: str, **more: Any) -> Simulated:
    world = Simulated(compile_pipeline(flow), TOPIC, **more)
    for order in orders:
        world.source.append(event("order.placed", {"order": order}, topic=TOPIC))
    return world


def live(world: Simulated, seconds: float) -> None:
    world.live(lambda: world.seconds() >= 1_000 + seconds)


def runs(world: Simulated) -> dict[str, Run]:
    return {run.key: run for _, run in world.tables.runs.values()}


def types(world: Simulated) -> list[str]:
    return [row.type for _, row in sorted(world.tables.rows.items())]


@pytest.mark.parametrize("can_be_undone", [False, True])
@pytest.mark.parametrize("bounds", TAKES_TOO_LONG)
def test_there_is_no_more_time_than_within_though_an_attempt_goes_on(
    bounds: dict[str, Any], *, can_be_undone: bool
) -> None:
    outside = Outside({"o1": FOR_EVER})
    world = world_of(charging(outside, can_be_undone=can_be_undone, within=WITHIN, **bounds), "o1")
    live(world, 30)
    assert runs(world)["o1"].configuration == "over"
    assert types(world)[:3] == ["order.placed", "tried.step.charge", "failed.step.charge.timed_out"]
    assert outside.said("begins") == [(0.0, "o1", 1)]
    refunds = outside.said("refund")
    assert len(refunds) == can_be_undone
    for at, _, made in refunds:
        assert 5.0 <= at <= 5.0 + POLL + 0.1
        assert made is None
    assert not world.tables.executions.rows


@pytest.mark.parametrize("bounds", TAKES_TOO_LONG)
def test_what_is_called_off_is_undone_though_an_attempt_goes_on_that_took_too_long(
    bounds: dict[str, Any],
) -> None:
    outside = Outside({"o1": FOR_EVER})
    world = world_of(charging(outside, can_be_undone=True, **bounds), "o1")
    world.source.append(event("order.off", {"order": "o1"}, topic=TOPIC), after=10.0)
    live(world, 30)
    assert runs(world)["o1"].configuration == "over"
    assert types(world) == [
        "order.placed",
        "tried.step.charge",
        "order.off",
        "stopped.step.charge",
        "done.step.refund",
    ]
    [(at, _, made)] = outside.said("refund")
    assert 10.0 <= at <= 10.0 + POLL + 0.1
    assert made is None
    assert outside.said("begins") == [(0.0, "o1", 1)]


@pytest.mark.parametrize("off_after", [0.5, 1.2])
def test_it_is_not_undone_while_the_attempt_has_time_or_grace(off_after: float) -> None:
    outside = Outside({"o1": FOR_EVER})
    world = world_of(charging(outside, can_be_undone=True, timeout=SECOND * 3), "o1")
    world.source.append(event("order.off", {"order": "o1"}, topic=TOPIC), after=3 * off_after)
    live(world, 30)
    assert runs(world)["o1"].configuration == "over"
    [(at, _, _)] = outside.said("refund")
    assert 3 + GRACE <= at <= 3 + GRACE + POLL + 0.1 + max(0.0, 3 * off_after - 3 - GRACE)


def test_the_next_attempt_waits_until_nothing_goes_on_of_the_one_that_took_too_long() -> None:
    outside = Outside({"o1": 20.0}, fails=True)
    world = world_of(charging(outside, can_be_undone=True, timeout=SECOND, within=10 * WITHIN), "o1")
    live(world, 60)
    assert runs(world)["o1"].configuration == "ok"
    [first, second] = outside.said("begins")
    assert first == (0.0, "o1", 1)
    assert 20.0 <= second[0] <= 20.0 + POLL + 0.1
    assert outside.most["o1"] == 1


def test_what_goes_on_keeps_its_place_though_its_run_has_ended() -> None:
    outside = Outside({"o1": 20.0})
    flow = charging(outside, can_be_undone=True, timeout=SECOND, within=WITHIN, at_once=1)
    world = world_of(flow, "o1", "o2")
    live(world, 60)
    assert {key: run.configuration for key, run in runs(world).items()} == {"o1": "over", "o2": "ok"}
    [_, (at, order, _)] = outside.said("begins")
    assert (order, 20.0 <= at <= 20.0 + POLL + 0.1) == ("o2", True)
    assert outside.most["all"] == 1


@pytest.mark.parametrize("at_once", [1, 2])
def test_it_keeps_one_place_in_a_limit_too(at_once: int) -> None:
    outside = Outside({"o1": 20.0, "o2": 2.0, "o3": 2.0})
    flow = charging(outside, timeout=4 * SECOND, within=WITHIN, limit=Limit(at_once=at_once))
    world = world_of(flow, "o1", "o2", "o3")
    live(world, 60)
    ends = {key: run.configuration for key, run in runs(world).items()}
    assert ends == {"o1": "over", "o2": "ok", "o3": "ok"}
    begun = {order: at for at, order, _ in outside.said("begins")}
    assert outside.most["all"] == at_once
    # Beside it one after the other begins, or none at all.
    assert [begun[order] >= 20.0 for order in ("o2", "o3")] == [at_once == 1] * 2
    assert not world.tables.executions.places


def test_what_it_has_done_before_its_time_was_over_is_what_became_of_the_step() -> None:
    outside = Outside({"o1": 4.0})
    world = world_of(charging(outside, can_be_undone=True, timeout=SECOND, within=WITHIN), "o1")
    live(world, 30)
    assert types(world) == ["order.placed", "tried.step.charge", "done.step.charge"]
    assert outside.said("refund") == []


@pytest.mark.parametrize("off_after", [None, 3.0])
def test_what_it_has_done_later_is_void_and_somebody_is_to_look_at_it(
    caplog: pytest.LogCaptureFixture, off_after: float | None
) -> None:
    outside = Outside({"o1": 20.0})
    world = world_of(charging(outside, can_be_undone=True, timeout=SECOND, within=WITHIN), "o1")
    if off_after is not None:
        world.source.append(event("order.off", {"order": "o1"}, topic=TOPIC), after=off_after)
    live(world, 60)
    assert runs(world)["o1"].configuration == "over"
    assert [(one.type, one.disposition) for one in world.tables.noted] == [
        ("done.step.charge", int(Disposition.VOID))
    ]
    [warning] = [one for one in caplog.records if "was done after" in one.getMessage()]
    assert warning.levelno == logging.WARNING
    assert warning.__dict__["attempt"] == 1


def taken_over(outside: Outside) -> Simulated:
    """A world in which another engine has begun the second attempt, and crashes after 25 seconds."""
    outside.hang_again = True
    flow = charging(outside, can_be_undone=True, attempts=2, timeout=20 * SECOND)
    world = world_of(flow, "o1", engines=2)

    def crash_others() -> None:
        # Whoever comes in its place does not live for long enough to take anybody for gone.
        [first] = [one for one in world._lives if _has(one, 1)]
        for other in world._lives:
            if other is not first:
                other.end()
        if world.seconds() < 1_040:
            world.call_later(5.0, crash_others)

    world.call_later(25.0, crash_others)
    return world


def test_what_another_engine_has_begun_since_and_lost_is_told_where_an_attempt_goes_on() -> None:
    outside = Outside({"o1": FOR_EVER})
    world = taken_over(outside)
    live(world, 60)
    assert [(order, attempt) for _, order, attempt in outside.said("begins")] == [("o1", 1), ("o1", 2)]
    assert types(world) == [
        "order.placed",
        "tried.step.charge",
        "failed.step.charge",
        "done.step.refund",
    ]
    [(at, _, made)] = outside.said("refund")
    assert 25.0 + SILENT_SECONDS - 2 <= at <= 25.0 + SILENT_SECONDS + 5
    assert made is None


def _has(life: Life, attempt: int) -> bool:
    assert life.engine is not None, "it has begun"
    return attempt in [one.begun.attempt for one in life.engine.steps._going]


def test_it_is_told_though_it_was_not_heard_that_it_was_given_to_be_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside = Outside({"o1": FOR_EVER})
    world = world_of(charging(outside, can_be_undone=True, timeout=SECOND, within=WITHIN), "o1")
    begin, lost = FakeStore.begin_untried, list[BegunExecution]()

    async def break_away(store: FakeStore, *asked: Any) -> list[BegunExecution]:
        begun = await begin(store, *asked)
        if begun and not lost:
            lost.extend(begun)
            raise StoreUnavailableError("the connection broke")
        return begun

    monkeypatch.setattr(FakeStore, "begin_untried", break_away)
    live(world, 30)
    assert len(lost) == 1
    assert runs(world)["o1"].configuration == "over"
    assert len(outside.said("refund")) == 1
