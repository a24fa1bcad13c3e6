"""What becomes of attempts that go on once they were stopped, or their time is over: when it is told, and what then.

Real engines in virtual time, over a store in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from engine.dispositions import Disposition
from engine.steps.late import LateSuccesses
from engine.steps.result import StepResult
from engine.store.values import BegunExecution
from statemachines import Call, Pipeline, Retry, StepFailed
from statemachines.machine import compile_pipeline
from tests.called_off import Off, Order, Placed
from tests.feeding import event
from tests.simulated import LIMITS, Simulated

TOPIC = "late"
GRACE = LIMITS.step_cancel_seconds


@dataclass
class Outside:
    """Where the work is done: what begins and is done, and when."""

    goes_on: float = 5.0
    """How many seconds an attempt takes, whatever it is told."""
    says: list[tuple[float, str, Any]] = field(default_factory=list)
    result: Any = "made"

    def say(self, what: str, of: Any) -> None:
        self.says.append((round(asyncio.get_running_loop().time() - 1_000.0, 1), what, of))

    async def charge(self, call: Call) -> Any:
        loop = asyncio.get_running_loop()
        self.say("begins", call.attempt)
        until = loop.time() + self.goes_on
        while loop.time() < until:
            try:
                await asyncio.sleep(until - loop.time())
            except asyncio.CancelledError:
                continue
        self.say("charged", call.attempt)
        return self.result


def saga(
    outside: Outside, *, attempts: int = 3, can_be_undone: bool = True, **bounds: Any
) -> Pipeline[Order]:
    """Charged; and where it is called off, or that fails, ended, with the charge undone if it can be."""
    flow = Pipeline("late", Order, topics=[TOPIC], closed="ignore")

    @flow.step(retry=Retry(attempts=attempts), **bounds)
    async def charge(order: Order, call: Call) -> str:
        del order
        made: str = await outside.charge(call)
        return made

    if can_be_undone:

        @charge.compensate
        async def refund(order: Order, made: str | None, call: Call) -> None:
            del order, call
            outside.say("refund", made)

    charging = flow.state("charging", run=charge, initial=True)
    ok, over = flow.state("ok", final=True), flow.state("over")

    def begin(event: Placed) -> Order:
        return Order(order=event.order)

    flow.start(Placed, begin)
    charging.on(charge.done, to=ok)
    flow.on(Off, to=over, compensate=can_be_undone)
    flow.on(StepFailed, to=over, compensate=can_be_undone)
    return flow


def lived(flow: Pipeline[Order], *, off_after: float | None = None) -> Simulated:
    """One order, placed and perhaps called off, after so long that nothing more happens."""
    world = Simulated(compile_pipeline(flow), TOPIC)
    world.source.append(event("order.placed", {"order": "o1"}, topic=TOPIC))
    if off_after is not None:
        world.source.append(event("order.off", {"order": "o1"}, topic=TOPIC), after=off_after)
    world.live(lambda: world.seconds() > 1_060)
    return world


def rows(world: Simulated) -> list[tuple[str, str]]:
    found = sorted(world.tables.rows.items())
    return [(row.type, row.configuration) for _, row in found]


def noted(world: Simulated) -> list[tuple[str, int]]:
    return [(one.type, one.disposition) for one in world.tables.noted]


VOID = [("done.step.charge", int(Disposition.VOID))]


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [one for one in caplog.records if "was done after" in one.getMessage()]


def test_what_is_done_late_is_what_became_of_the_step_and_it_is_not_begun_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outside = Outside()
    world = lived(saga(outside, timeout=timedelta(seconds=1)))
    assert outside.says == [(0.0, "begins", 1), (5.0, "charged", 1)]
    assert rows(world) == [
        ("order.placed", "charging"),
        ("tried.step.charge", "charging"),
        ("done.step.charge", "ok"),
    ]
    assert noted(world) == []
    assert not warnings(caplog)
    assert not world.tables.executions.rows


def test_what_is_done_late_counts_also_where_it_was_silent_for_too_long() -> None:
    outside = Outside()
    world = lived(saga(outside, heartbeat=timedelta(seconds=1), can_be_undone=False))
    assert outside.says == [(0.0, "begins", 1), (5.0, "charged", 1)]
    assert rows(world)[-1] == ("done.step.charge", "ok")


def test_what_is_done_once_the_step_has_failed_is_void_and_somebody_is_to_look_at_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outside = Outside()
    world = lived(saga(outside, timeout=timedelta(seconds=1), attempts=1))
    # What goes on for longer than its time and the grace is undone beside that.
    assert outside.says == [(0.0, "begins", 1), (1 + GRACE, "refund", None), (5.0, "charged", 1)]
    assert rows(world)[1:] == [
        ("failed.step.charge.timed_out", "$compensating"),
        ("done.step.refund", "over"),
    ]
    assert noted(world) == VOID
    [warning] = warnings(caplog)
    assert warning.levelno == logging.WARNING
    said: Any = warning
    [made] = [key for key in (one.event_id for one in world.tables.noted) if key]
    assert (said.pipeline, said.run, said.step, said.attempt) == ("late", "o1", "charge", 1)
    assert said.idempotency_key == made.partition("/")[0]


def test_what_was_stopped_has_what_is_left_of_its_time_before_it_is_undone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outside = Outside()
    world = lived(saga(outside, timeout=timedelta(seconds=30)), off_after=1.0)
    assert outside.says == [(0.0, "begins", 1), (5.0, "charged", 1), (5.0, "refund", "made")]
    assert [type_ for type_, _ in rows(world)] == [
        "order.placed",
        "order.off",
        "stopped.step.charge",
        "done.step.refund",
    ]
    assert noted(world) == []
    assert not warnings(caplog)


def test_what_was_stopped_has_no_more_than_is_left_for_all_attempts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outside, within = Outside(goes_on=20.0), timedelta(seconds=10)
    world = lived(saga(outside, timeout=timedelta(seconds=30), within=within), off_after=1.0)
    assert outside.says == [(0.0, "begins", 1), (10 + GRACE, "refund", None), (20.0, "charged", 1)]
    assert noted(world) == VOID
    assert len(warnings(caplog)) == 1


def test_what_comes_of_a_step_whose_state_was_left_is_void(caplog: pytest.LogCaptureFixture) -> None:
    outside = Outside()
    world = lived(saga(outside, can_be_undone=False), off_after=1.0)
    assert rows(world) == [("order.placed", "charging"), ("order.off", "over")]
    assert noted(world) == VOID
    assert not warnings(caplog), "it has neither failed nor was it undone"


def test_what_cannot_be_kept_and_comes_late_is_told_and_the_step_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outside = Outside(result="\ud800")
    world = lived(saga(outside, timeout=timedelta(seconds=1), attempts=2))
    assert [one for one in outside.says if one[1] == "begins"] == [
        (0.0, "begins", 1),
        (outside.says[2][0], "begins", 2),
    ]
    assert outside.says[2][0] >= 5.0
    assert [type_ for type_, _ in rows(world)][1:3] == ["tried.step.charge", "failed.step.charge.timed_out"]
    assert noted(world) == []
    assert "its run was told by then that it was not done" in caplog.text


class Answering:
    """A store that takes its time, in which more is heard of."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.asked: list[list[tuple[int, str]]] = []
        self._meanwhile = meanwhile

    async def said_last(self, asked: list[tuple[int, str]]) -> list[str]:
        self.asked.append(asked)
        self._meanwhile()
        return ["failed.step.charge"] * len(asked)


def result(number: int, *, is_late: bool = True) -> StepResult:
    route: Any = SimpleNamespace(name="late")
    made = BegunExecution(number, 1, f"k{number}", 0, number, 1, 0, 3, 0, "charge", 1, "", b"{}")
    event_id = f"key{number}/1/done"
    return StepResult(made, route, event_id, "done.step.charge", {}, is_late=is_late)


async def test_what_is_heard_of_while_it_is_asked_is_asked_for_the_next_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    late = LateSuccesses()
    more = [[result(2)], []]
    store: Any = Answering(lambda: late.settle(more.pop(0)))
    late.settle([result(1), result(3, is_late=False)])
    for _ in range(3):
        await late.tell(store)
    assert store.asked == [[(1, "key1")], [(2, "key2")]]
    assert [one.__dict__["run"] for one in warnings(caplog)] == ["k1", "k2"]
