"""When a run asks for steps and stops them, through the core; and what it remembers of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest

from statemachines import Call, Event, Pipeline, Send
from statemachines.effects import Asked
from statemachines.following import wakes_at
from statemachines.limits import EXECUTIONS_MAX, MEMORY_BYTES_MAX
from statemachines.machine import compile_pipeline
from statemachines.memory import (
    EMPTY,
    Delayed,
    Execution,
    Memory,
    lasting,
    read_memory,
    too_much,
    write_memory,
)
from statemachines.outcome import Reason
from statemachines.testkit import Case, given
from tests.unit.machines import account_pipeline
from tests.unit.working import (
    Again,
    Cancelled,
    Charge,
    Noted,
    Order,
    Placed,
    Shop,
    going_on,
    keep,
    note_type,
    shop,
)

MINUTE = timedelta(minutes=1)


def pack(_order: Order, _call: Call) -> int:
    return 1


def asked(case: Case[Any]) -> list[tuple[str, str, str, int]]:
    return [(one.what, one.type, one.id, one.number) for one in case.sent]


def test_a_state_that_is_entered_asks_for_its_step() -> None:
    case = given(shop().flow, Placed())
    assert asked(case) == [("step", "charge", "", 0)]
    assert case.run is not None
    assert read_memory(case.run.memory).executions == (Execution(1, 0, "charge", "charging"),)
    assert orjson.loads(case.run.memory) == {"executions": [[1, 0, "charge", "charging"]]}


def test_a_state_that_is_left_stops_it() -> None:
    case = given(shop().flow, Placed(), Cancelled())
    assert asked(case) == [("stop", "charge", "1.0", 0)]
    assert case.run is not None
    assert case.run.memory == b"{}"


def test_what_does_not_leave_the_state_leaves_the_step_alone() -> None:
    case = given(shop().flow, Placed()).when(Noted())
    assert (asked(case), going_on(case)) == ([], [("charge", "charging", 1)])


def test_entering_it_again_stops_one_and_asks_for_another() -> None:
    case = given(shop().flow, Placed(), Again())
    assert asked(case) == [("stop", "charge", "1.0", 0), ("step", "charge", "", 1)]
    assert case.run is not None
    assert read_memory(case.run.memory).executions == (Execution(2, 1, "charge", "charging"),)


def test_a_state_that_is_entered_and_left_in_one_macrostep_asks_for_nothing() -> None:
    made = Shop()
    made.charging.always(to=made.cancelled, when=lambda *_: True)
    case = given(made.flow, Placed())
    assert (asked(case), case.state) == ([], "cancelled")


def test_a_run_that_ends_stops_all() -> None:
    made = Shop()
    around = made.flow.state("around")
    for name in ("one", "two"):
        around.region(name).state(f"in {name}".replace(" ", "-"), initial=True, run=made.charge)
    made.charging.on(made.charge.done, to=around)
    around.on(Event.named("end"), to=made.paid)
    case = given(made.flow, Placed()).step_done(made.charge, charged())
    assert going_on(case) == [("charge", "in-one", 1), ("charge", "in-two", 1)]
    assert asked(case) == [("step", "charge", "", 0), ("step", "charge", "", 1)]
    case.when(Event.named("end")()).then(ended=True)
    assert asked(case) == [("stop", "charge", "2.0", 0), ("stop", "charge", "2.1", 1)]
    assert case.run is not None
    assert case.run.memory == b"{}"


def test_steps_and_timers_are_asked_for_in_document_order_and_numbered_together() -> None:
    made = Shop()
    packing = made.flow.step()(pack)
    outer = made.flow.state("outer", run=made.charge)
    inner = outer.state("inner", initial=True, run=packing)
    outer.after(MINUTE, to=made.paid)
    inner.after(2 * MINUTE, to=made.paid)
    made.charging.entry(lambda _order, _event: Send(Noted()))
    made.charging.on(Noted, to=outer)
    case = given(made.flow, Placed())
    assert [one[:2] for one in asked(case)] == [
        ("step", "charge"),
        ("send", "order.noted"),
        ("stop", "charge"),
        ("timer", "after.outer.0"),
        ("step", "charge"),
        ("timer", "after.inner.0"),
        ("step", "pack"),
    ]
    assert [number for *_, number in asked(case)] == [0, 1, 0, 1, 2, 3, 4]
    assert case.run is not None
    assert [one.id for one in read_memory(case.run.memory).executions] == ["2.2", "2.4"]
    assert wakes_at(case.run) == due_first(case)


def due_first(case: Case[Any]) -> int | None:
    assert case.run is not None
    return min(one.due for one in read_memory(case.run.memory).delayed)


def test_a_run_is_not_woken_by_its_steps() -> None:
    case = given(shop().flow, Placed())
    assert case.run is not None
    assert wakes_at(case.run) is None
    waiting = read_memory(case.run.memory).executions[0]._replace(again=5, attempt=2, error="E: no")
    assert wakes_at(case.run._replace(memory=write_memory(Memory(executions=(waiting,))))) is None


def test_a_history_asks_again() -> None:
    made = Shop()
    outer = made.flow.state("outer")
    outer.state("first", initial=True).on(Noted, to="second")
    outer.state("second", run=made.charge)
    back = outer.history("back")
    made.charging.on(made.charge.done, to=outer)
    made.cancelled.on(Noted, to=back)
    case = given(made.flow, Placed()).step_done(made.charge, charged()).when(Noted())
    case.when(Cancelled()).then_runs_nothing()
    case.when(Noted()).then(state="outer second").then_runs(made.charge)


def test_a_step_that_fails_to_be_entered_is_not_asked_for() -> None:
    made = Shop()

    def fail(_order: Order, _event: Event) -> None:
        raise LookupError

    made.cancelled.on(Noted, to=made.charging, do=fail)
    case = given(made.flow, Placed(), Cancelled()).when(Noted()).then_refused(Reason.ACTION_FAILED)
    assert (asked(case), going_on(case)) == ([], [])


def test_a_run_may_have_so_many_steps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EXECUTIONS_MAX == 1_000
    monkeypatch.setattr("statemachines.chart.agenda.EXECUTIONS_MAX", 2)
    made = Shop()
    wide = made.flow.state("wide")
    for number in range(3):
        wide.region(f"r{number}").state(f"s{number}", initial=True, run=made.charge)
    made.charging.on(Noted, to=wide)
    case = given(made.flow, Placed()).when(Noted())
    case.then_refused(Reason.ACTION_FAILED, saying="the run has 2 steps going on already", holds=True)
    assert going_on(case) == [("charge", "charging", 1)]


def test_a_pipeline_is_flat_as_long_as_no_state_runs_a_step() -> None:
    assert not compile_pipeline(shop().flow).flat
    plain: Pipeline[Any] = account_pipeline()
    assert compile_pipeline(plain).flat
    plain.step()(pack)
    assert compile_pipeline(plain).flat
    assert compile_pipeline(plain).microsteps.chart.asking == 0


def test_the_context_that_entry_actions_leave_is_what_the_step_is_asked_with() -> None:
    made = shop()
    made.charging.entry(note_type)
    case = given(made.flow, Placed())
    assert case.context.said == ["order.placed"]
    assert going_on(case) == [("charge", "charging", 1)]


def test_a_new_generation_begins_with_its_own_steps() -> None:
    made = Shop(closed="restart")
    made.charging.on(made.charge.done, to=made.paid, do=keep)
    case = given(made.flow, Placed()).step_done(made.charge, charged()).then(ended=True)
    case.when(Placed()).then(state="charging").then_runs(made.charge)
    assert case.run is not None
    assert (case.run.generation, case.executions) == (1, (Execution(1, 0, "charge", "charging"),))


def charged() -> Charge:
    return Charge(id="c-1")


# What is remembered.

RETRIED = Execution(3, 1, "charge", "charging", 2, 99, "CardRefused: no")
PLAIN = Execution(2, 0, "pack", "packing")


def test_memory_is_read_as_it_was_written() -> None:
    memory = Memory((Delayed(5, 1, 0, "t", None, "s"),), {"a": 1}, {"b": 2}, {"said": 1}, (RETRIED, PLAIN))
    written = write_memory(memory)
    assert read_memory(written) == memory
    assert orjson.loads(written)["executions"] == [
        [3, 1, "charge", "charging", 2, 99, "CardRefused: no"],
        [2, 0, "pack", "packing"],
    ]
    assert write_memory(Memory(executions=())) == b"{}"
    assert "executions" not in orjson.loads(write_memory(memory._replace(executions=())))


def test_steps_end_with_their_generation() -> None:
    assert lasting(write_memory(Memory(marks={"a": 1}, executions=(PLAIN,)))) == b'{"marks":{"a":1}}'
    assert lasting(write_memory(Memory(executions=(PLAIN,)))) == b""


def test_an_execution_is_found_replaced_and_forgotten_by_its_id() -> None:
    timer = Delayed(5, 1, 0, "t", None, "s")
    memory = Memory((timer,), executions=(RETRIED, PLAIN))
    assert (PLAIN.id, RETRIED.id) == ("2.0", "3.1")
    assert memory.execution("3.1") is RETRIED
    assert memory.execution("1.0") is None
    again = PLAIN._replace(attempt=4)
    assert memory.instead(again).executions == (RETRIED, again)
    assert memory.without(again) == Memory((timer,), executions=(RETRIED,))
    assert memory.without(timer) == Memory((), executions=(RETRIED, PLAIN))
    assert memory.without(timer).without(PLAIN).without(RETRIED) == EMPTY


def test_a_memory_that_is_too_large_tells_of_its_steps() -> None:
    failed = PLAIN._replace(error="x" * 500)
    told = too_much(Memory(executions=(PLAIN,)), Memory(executions=(failed,)), MEMORY_BYTES_MAX + 1, {})
    assert f"what is known of the step {PLAIN.step!r} grew most, from " in told


def test_what_is_asked_for_is_told_apart() -> None:
    case = given(shop().flow, Placed())
    assert case.sent == [Asked("step", "charge", number=0)]
    case.when(Cancelled())
    assert case.sent == [Asked("stop", "charge", id="1.0", number=0)]
