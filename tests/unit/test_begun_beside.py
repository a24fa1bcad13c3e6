"""What becomes of executions that are begun, or lost elsewhere, while an attempt at them goes on in the same engine."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from engine.limits import EngineLimits
from engine.routing import Loaded, Route, make_routes
from engine.steady import Steady
from engine.steps import outcomes
from engine.steps.executors import Executors
from engine.steps.going import Going
from engine.steps.making import Making
from engine.steps.pulse import Pulse
from engine.steps.result import StepResult
from engine.steps.steps import Steps
from engine.store.values import BegunExecution
from statemachines import Call, Context, Event, Pipeline
from statemachines.machine import compile_pipeline
from statemachines.memory import Execution
from tests.yard import Yard, executors_of, hauling

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FIRST = BegunExecution(7, 1, "o1", 0, 3, 1, 0, 2, 0, "charge", 1, "", b"{}", began=NOW)
SECOND = FIRST._replace(attempt=2)
OVER = NOW - timedelta(minutes=2)


class Placed(Event, type="order.placed", key="order"):
    order: str


class Order(Context): ...


def route() -> Route:
    flow = Pipeline("beside", Order, topics=["beside"])

    @flow.step(within=timedelta(minutes=1))
    async def charge(order: Order, call: Call) -> str:
        raise AssertionError("no other attempt begins")

    @charge.compensate
    async def refund(order: Order, made: str | None, call: Call) -> None: ...

    @flow.step
    def pack(order: Order, call: Call) -> str:
        PACKED.wait(timeout=60)
        return "packed"

    charging = flow.state("charging", run=charge, initial=True)
    packing = flow.state("packing", run=pack)
    flow.start(Placed, lambda _: Order())
    charging.on(charge.done, to=packing)
    packing.on(pack.done, to=flow.state("ok", final=True))
    [topic] = make_routes([Loaded(compile_pipeline(flow), 1, 1)], {}).values()
    return topic.routes[0]


PACKED = threading.Event()
"""Once it is set, what is packed is."""


def making() -> Making:
    made = Making(EngineLimits(), lambda: NOW, Executors())
    made.outcomes.load([route()])
    return made


def goes_on(made: Making, *, told: bool, begun: BegunExecution = FIRST) -> Going:
    _, step = made.outcomes.meant(begun)
    attempt: Any = SimpleNamespace(has_had_its_time=False)
    going = Going(begun, step, attempt, Pulse(), step.takes_thread)
    made.going.add(going)
    if told:
        made.going.tell(going)
    return going


NOTHING_TO_BE_DONE = [
    (SECOND._replace(stopping=True), "stopped.step.charge"),
    (SECOND._replace(began=OVER), "failed.step.charge.timed_out"),
    (SECOND._replace(token="t"), "tried.step.charge"),
]


@pytest.mark.parametrize(("begun", "told"), NOTHING_TO_BE_DONE)
def test_what_there_is_only_to_tell_is_told_though_an_attempt_goes_on_that_was_told_of(
    begun: BegunExecution, told: str
) -> None:
    made = making()
    goes_on(made, told=True)
    assert made.begin_all([begun])
    [result] = made.results
    assert (result.event_type, result.data["attempt"]) == (told, 2)


@pytest.mark.parametrize(("begun", "_told"), NOTHING_TO_BE_DONE)
def test_it_waits_while_it_is_not_known_what_becomes_of_the_attempt(
    begun: BegunExecution, _told: str
) -> None:
    made = making()
    goes_on(made, told=False)
    assert not made.begin_all([begun])
    assert not len(made.results)


@pytest.mark.parametrize(("begun", "told"), NOTHING_TO_BE_DONE)
def test_it_does_not_where_nobody_waits_for_that_and_it_had_its_time(
    begun: BegunExecution, told: str
) -> None:
    made = making()
    attempt: Any = goes_on(made, told=False).attempt
    attempt.has_had_its_time = True
    assert made.begin_all([begun])
    assert [one.event_type for one in made.results] == [told]


def test_the_next_attempt_waits_until_nothing_of_it_goes_on() -> None:
    made = making()
    goes_on(made, told=True)
    assert not made.begin_all([SECOND])
    assert not len(made.results)


@pytest.mark.parametrize(("begun", "_told"), NOTHING_TO_BE_DONE)
def test_what_it_has_done_after_all_is_told_first(begun: BegunExecution, _told: str) -> None:
    made = making()
    late = made.outcomes.success(FIRST, "made")._replace(is_late=True)
    made.results.keep(late)
    assert not made.begin_all([begun])
    made.results.drop(FIRST.id)
    # Nor is what was done in time, while it was asked what is to be told.
    made.results.keep(made.outcomes.success(FIRST, "made"))
    assert not made.begin_all([begun])
    assert [one.event_type for one in made.results] == ["done.step.charge"]


def test_who_is_late_is_waited_for_no_more_where_the_store_takes_nothing_of_it() -> None:
    made = making()
    made.results.keep(made.outcomes.success(FIRST, "made")._replace(is_late=True))
    [late] = made.results.take(1, ())
    made.results.give_back([late])
    made.refuse(late)
    [failed] = made.results.take(1, ())
    assert (failed.event_type, failed.is_refused) == ("failed.step.charge", True)
    assert not made.begin_all([SECOND]), "its run is to hear of the first"
    made.results.settle([failed])
    assert (len(made.results), made.results.late) == (0, set())


async def test_what_cannot_begin_yet_is_not_asked_for_until_it_can() -> None:
    made = making()
    going = goes_on(made, told=False)
    assert not made.begin_all([SECOND])
    assert made.kept_waiting() == [SECOND.id]
    made.going.release(going)
    assert made.kept_waiting() == []


class Losing:
    """A store in which another engine has lost an attempt, and whose answer takes its time."""

    def __init__(self, meanwhile: Any) -> None:
        self._meanwhile = meanwhile

    async def begun_by_others(self, *_asked: Any) -> list[BegunExecution]:
        self._meanwhile()
        return [SECOND]


@pytest.mark.parametrize("is_done", [False, True])
async def test_what_another_engine_has_lost_is_told_unless_the_execution_was_done_here_meanwhile(
    *, is_done: bool
) -> None:
    steps = Steps(EngineLimits(), Steady(lambda: NOW))
    own = steps._making
    own.outcomes.load([route()])
    going = goes_on(own, told=True)

    def end() -> None:
        if is_done:
            own.going.release(going)
            own.results.keep(own.outcomes.success(FIRST, "made")._replace(is_late=True))

    store: Any = Losing(end)
    await steps._take_over_lost(store, [1])
    [result] = own.results
    expected = ("done.step.charge", 1) if is_done else ("tried.step.charge", 2)
    assert (result.event_type, result.begun.attempt) == expected
    assert own.results.late == ({FIRST.address} if is_done else set())


KEPT = FIRST._replace(step="haul")
KEPT_AGAIN = KEPT._replace(attempt=2)


class Silent:
    """A store in which the next attempt at what is kept is that of an engine of which nothing is heard any more."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    async def begun_by_others(self, *_asked: Any) -> list[BegunExecution]:
        return [KEPT_AGAIN]

    async def struck_attempts(self) -> dict[int, int]:
        return {}

    async def take_executions(self, numbers: list[int], *_asked: Any) -> list[BegunExecution]:
        self.taken += numbers
        return [KEPT_AGAIN]


async def test_a_kept_one_is_neither_lost_nor_taken_over_while_an_attempt_before_it_goes_on_here() -> None:
    steps = Steps(EngineLimits(), Steady(lambda: NOW), executors=Executors(executors_of(Yard())))
    own, silent = steps._making, Silent()
    [topic] = make_routes([Loaded(compile_pipeline(hauling()), 1, 1)], {}).values()
    own.outcomes.load(topic.routes)
    going = goes_on(own, told=True, begun=KEPT)
    store: Any = silent
    await steps._take_over_lost(store, [1])
    assert (silent.taken, len(own.results), own.going.at(KEPT.address)) == ([], 0, going)
    own.going.release(going)
    await steps._take_over_lost(store, [1])
    assert (silent.taken, len(own.results)) == ([KEPT.id], 0)
    assert [one.begun for one in own.going] == [KEPT_AGAIN]
    await own._executors.close()


def test_what_is_made_without_being_checked_has_all_its_fields() -> None:
    result = making().outcomes.success(FIRST, "made")
    assert len(result) == len(StepResult._fields)
    assert result == StepResult(*result[:5])
    assert outcomes._execution(FIRST) == Execution(
        FIRST.sequence, FIRST.number, FIRST.step, "", FIRST.attempt, of=FIRST.of
    )


async def test_an_attempt_of_a_plain_function_takes_a_thread_until_it_is_over() -> None:
    made = making()
    assert made.begin_all([FIRST._replace(step="pack")])
    assert made.going.threads == 1
    PACKED.set()
    await made.arrived.wait()
    assert (made.going.threads, len(made.going)) == (0, 0)
