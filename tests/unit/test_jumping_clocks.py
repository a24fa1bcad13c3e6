"""Steps where clocks of engines' machines are wrong by an hour: what is to take so long takes so long.

Real engines in virtual time, over a store in memory.
"""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import pytest

from statemachines import (
    Call,
    Complete,
    Context,
    Event,
    Later,
    Limit,
    Pipeline,
    Retry,
    StepFailed,
    exponential,
)
from statemachines.machine import compile_pipeline
from tests.feeding import event
from tests.simulated import BEGINS_SECONDS, Simulated

TOPIC = "charges"
HOUR = timedelta(hours=1)
BOTH_WAYS = pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["forward", "back"])


class Placed(Event, type="order.placed", key="order"):
    order: str
    script: list[str]


class Off(Event, type="order.off", key="order"):
    order: str


class Refused(Event, type="order.refused", key="order"):
    order: str


class Order(Context):
    order: str
    script: list[str]
    """What becomes of each attempt at charging: ``raises``, ``later``, ``done``."""
    undone: bool = False


class Outside:
    """When attempts began, in seconds since the world did."""

    def __init__(self) -> None:
        self.began: list[tuple[str, float]] = []

    def note(self, what: str) -> None:
        self.began.append((what, asyncio.get_running_loop().time() - BEGINS_SECONDS))


def charges(outside: Outside, **bounds: Any) -> Pipeline[Order]:
    flow = Pipeline("charges", Order, topics=[TOPIC])
    retry = Retry(wait=exponential(1, 1))

    @flow.step(retry=retry, within=HOUR / 2, **(bounds or {"at_once": 1}))
    async def charge(order: Order, call: Call) -> str | Later:
        outside.note(order.order)
        match order.script[call.attempt - 1]:
            case "raises":
                raise OSError("no network")
            case "later":
                return Later(order.order, within=timedelta(seconds=10))
            case "slow":
                await asyncio.sleep(2)
        return "charged"

    @charge.compensate(retry=retry)
    async def refund(order: Order, made: str | None, call: Call) -> None:
        del order, made
        outside.note("refund")
        if call.attempt == 1:
            raise OSError("no network")

    charging = flow.state("charging", run=charge, initial=True)
    charged, off, failed = flow.state("charged"), flow.state("off", final=True), flow.state("failed")
    flow.start(Placed, lambda event: Order(order=event.order, script=event.script))
    charging.on(charge.done, to=charged)

    def refuse(order: Order, event: Refused) -> Complete[str]:
        del event
        return Complete(charge, order.order, error="the bank says no")

    charging.on(Refused, do=refuse)
    flow.on(Off, to=off, compensate=True)
    flow.on(StepFailed, to=failed)
    return flow


def placed(world: Simulated, order: str, *script: str, after: float = 0.0) -> None:
    data = {"order": order, "script": script}
    world.source.append(event("order.placed", data, topic=TOPIC), after=after)


def jump(world: Simulated, by: timedelta, after: float) -> None:
    world.call_later(after, lambda: setattr(world, "ahead", by))


def states(world: Simulated) -> dict[str, str]:
    return {run.key: run.configuration for _, run in world.tables.runs.values()}


@BOTH_WAYS
def test_the_next_attempt_begins_when_it_is_to(by: timedelta) -> None:
    outside = Outside()
    world = Simulated(compile_pipeline(charges(outside)), TOPIC)
    placed(world, "o1", "raises", "done")
    jump(world, by, 0.5)
    world.live(lambda: world.seconds() > BEGINS_SECONDS + 30)
    [(_, first), (_, second)] = outside.began
    assert 1 <= second - first < 2
    assert states(world) == {"o1": "charged"}


@BOTH_WAYS
def test_so_does_what_is_undone(by: timedelta) -> None:
    outside = Outside()
    world = Simulated(compile_pipeline(charges(outside)), TOPIC)
    placed(world, "o1", "done")
    world.source.append(event("order.off", {"order": "o1"}, topic=TOPIC), after=1)
    jump(world, by, 1.5)
    world.live(lambda: world.seconds() > BEGINS_SECONDS + 30)
    [_, (_, first), (_, second)] = outside.began
    assert 1 <= second - first < 2
    assert states(world) == {"o1": "off"}


@BOTH_WAYS
def test_what_goes_on_outside_has_its_time(by: timedelta) -> None:
    outside = Outside()
    world = Simulated(compile_pipeline(charges(outside)), TOPIC)
    placed(world, "o1", "later", "done")
    jump(world, by, 2)
    world.live(lambda: world.seconds() > BEGINS_SECONDS + 60)
    [(_, first), (_, second)] = outside.began
    assert 11 <= second - first < 13
    assert states(world) == {"o1": "charged"}


@BOTH_WAYS
def test_what_has_failed_outside_is_tried_again_when_it_is_to(by: timedelta) -> None:
    outside = Outside()
    world = Simulated(compile_pipeline(charges(outside)), TOPIC)
    placed(world, "o1", "later", "done")
    world.source.append(event("order.refused", {"order": "o1"}, topic=TOPIC), after=3)
    jump(world, by, 2)
    world.live(lambda: world.seconds() > BEGINS_SECONDS + 30)
    [(_, first), (_, second)] = outside.began
    assert 4 <= second - first < 8
    assert states(world) == {"o1": "charged"}


@BOTH_WAYS
def test_what_is_asked_for_after_it_has_jumped_has_its_turn(by: timedelta) -> None:
    outside = Outside()
    world = Simulated(compile_pipeline(charges(outside)), TOPIC)
    placed(world, "o1", "slow")
    jump(world, by, 0.5)
    for order in ("o2", "o3"):
        placed(world, order, "slow", after=1)
    world.live(lambda: world.seconds() > BEGINS_SECONDS + 30)
    began = [at for _, at in outside.began]
    assert len(began) == 3
    assert began[-1] < 8
    assert set(states(world).values()) == {"charged"}


def wrong_for_a_while(flow: Pipeline[Order], by: timedelta) -> Simulated:
    """A world whose engine has a clock that is right again long before anything happens."""
    world = Simulated(compile_pipeline(flow), TOPIC, ahead=by)
    jump(world, timedelta(), 5)
    return world


@BOTH_WAYS
def test_a_clock_that_was_wrong_leaves_no_pause_to_the_next_engine(by: timedelta) -> None:
    outside = Outside()
    world = wrong_for_a_while(charges(outside), by)
    placed(world, "o1", "raises", "done", after=20)
    world.crash_after(20.5)
    world.live(lambda: world.seconds() > BEGINS_SECONDS + 60)
    assert world.deaths == 1
    [(_, first), (_, second)] = outside.began
    assert first < 20.5 < second < first + 5
    assert states(world) == {"o1": "charged"}


@BOTH_WAYS
def test_nor_is_the_time_of_all_attempts_over_before_it_is(by: timedelta) -> None:
    outside = Outside()
    world = wrong_for_a_while(charges(outside), by)
    placed(world, "o1", "slow", "done", after=20)
    world.crash_after(21)
    world.live(lambda: world.seconds() > BEGINS_SECONDS + 100)
    assert world.deaths == 1
    assert len(outside.began) == 2
    assert states(world) == {"o1": "charged"}


@BOTH_WAYS
def test_nor_is_it_waited_longer_for_what_goes_on_outside(by: timedelta) -> None:
    outside = Outside()
    world = wrong_for_a_while(charges(outside), by)
    placed(world, "o1", "later", "done", after=20)
    world.crash_after(24)
    world.live(lambda: world.seconds() > BEGINS_SECONDS + 100)
    assert world.deaths == 1
    [(_, first), (_, second)] = outside.began
    assert 11 <= second - first < 13
    assert states(world) == {"o1": "charged"}


MANY = [f"o{number}" for number in range(20)]


def apart(flow: Pipeline[Order], by: timedelta) -> Simulated:
    """A world with two engines, whose clocks differ by so much."""
    return Simulated(compile_pipeline(flow), TOPIC, engines=2, apart=by)


@BOTH_WAYS
@pytest.mark.parametrize(("script", "least", "most"), [("raises", 1, 5), ("later", 11, 15)])
def test_engines_whose_clocks_are_apart_agree(script: str, least: int, most: int, by: timedelta) -> None:
    outside = Outside()
    world = apart(charges(outside, at_once=None), by)
    for order in MANY:
        placed(world, order, script, "done")
    world.live(lambda: world.seconds() > BEGINS_SECONDS + 60)
    assert states(world) == dict.fromkeys(MANY, "charged")
    for order in MANY:
        [first, second] = [at for one, at in outside.began if one == order]
        assert first < 3
        assert least <= second - first < most


@BOTH_WAYS
def test_of_rates_too(by: timedelta) -> None:
    outside = Outside()
    world = apart(charges(outside, limit=Limit(rate=1 / 60)), by)
    for order in MANY:
        placed(world, order, "done")
    world.live(lambda: world.seconds() > BEGINS_SECONDS + 130)
    began = sorted(at for _, at in outside.began)
    assert len(began) == 3
    assert all(59 < later - sooner < 63 for sooner, later in itertools.pairwise(began))
