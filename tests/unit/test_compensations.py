"""What a run owes, through the core: which of its steps are to be undone if it is."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from statemachines import Call
from statemachines.limits import MEMORY_BYTES_MAX
from statemachines.memory import (
    Execution,
    Memory,
    Owed,
    lasting,
    read_memory,
    too_much,
    write_memory,
)
from statemachines.outcome import Ignored, Moved, Reason
from statemachines.outcome import Refused as DeadLetter
from statemachines.results import done_event, failed_event, tried_event
from statemachines.testkit import Case, given
from tests.unit.undoing import (
    OK,
    Gone,
    Noted,
    Order,
    Placed,
    Trade,
    doing,
    memory_of,
    packing,
    sent,
)
from tests.unit.working import ends

# The definition.


def test_a_compensation_is_called_like_its_function() -> None:
    made, order = Trade(), Order()
    call = Call("key", 1, "k", "refund", undone=Call("charged", 1, "k", "charge"))
    assert asyncio.run(made.refund(order, OK, call)) is None  # type: ignore[arg-type]
    made.unpack(order, None, Call("key", 1, "k", "unpack"))
    assert order.said == ["refund of id='c-1'", "unpack of None"]


def test_a_compensation_has_what_a_step_has_and_its_step_knows_it() -> None:
    made = Trade(on_error=True)
    assert (made.charge.compensation, made.refund.of) == (made.refund, made.charge)
    assert (made.refund.name, made.refund.timeout) == ("refund", timedelta(seconds=9))
    assert (made.refund.retry.attempts, made.refund.at_once, made.refund.on_error) == (10, 3, True)
    assert (made.refund.is_async, made.unpack.is_async) == (True, False)
    assert (made.unpack.retry.attempts, made.unpack.timeout, made.unpack.on_error) == (5, None, False)
    assert made.tell.compensation is None
    assert str(made.refund) == "refund"
    assert made.refund.place.file == __file__.replace("test_compensations", "undoing")


def test_a_pipeline_knows_its_steps_and_all_that_works() -> None:
    made = Trade()
    assert made.flow.steps == [made.charge, made.pack, made.tell]
    assert made.flow.works == [made.charge, made.pack, made.tell, made.refund, made.unpack]


# The memory.


def test_what_is_owed_is_stored_trimmed_and_read_back() -> None:
    memory = Memory(
        executions=(Execution(5, 0, "refund", "$compensating", of="1.0", made=2),),
        owed=(Owed(1, 0, "charge", 2), Owed(3, 1, "pack")),
        undoing=0,
    )
    written = write_memory(memory)
    assert written == (
        b'{"executions":[[5,0,"refund","$compensating",1,0,"","1.0",2]],'
        b'"owed":[[1,0,"charge",2],[3,1,"pack"]],"undoing":0}'
    )
    assert read_memory(written) == memory
    assert memory.owed[1].id == "3.1"


def test_what_is_owed_does_not_outlive_the_run_and_is_told_where_it_is_too_much() -> None:
    memory = Memory(marks={"s": 1}, owed=(Owed(1, 0, "charge", 2),), undoing=1)
    assert lasting(write_memory(memory)) == write_memory(Memory(marks={"s": 1}))
    told = too_much(Memory(), memory, MEMORY_BYTES_MAX + 1, {})
    assert told.endswith("what is owed of the step 'charge' grew most, from 0 to 16 bytes")


# What is owed.


def test_what_was_done_is_owed_in_the_order_in_which_it_was_done() -> None:
    made = Trade()
    case = packing(made)
    assert memory_of(case).owed == (Owed(1, 0, "charge", 2),)
    case.step_done(made.pack, 3).step_done(made.tell, None)
    case.then(state="over", ended=True)
    made = Trade()
    case = sent(made).then_owes(made.pack, made.charge)
    assert memory_of(case).owed == (Owed(1, 0, "charge", 2), Owed(2, 0, "pack", 3))


def test_the_number_of_what_was_made_is_that_of_the_row_that_takes_it() -> None:
    made = Trade()
    case = given(made.flow, Placed(), Noted(), Noted()).step_done(made.charge, OK)
    assert memory_of(case).owed == (Owed(1, 0, "charge", 4),)


def test_what_no_transition_takes_is_owed_too() -> None:
    made = Trade()
    made.open.run = made.pack
    made.flow.on(Gone, to=made.open)
    case = sent(made).when(Gone()).step_done(made.pack, 4).then_ignored(Reason.UNEXPECTED)
    assert memory_of(case).owed[-1] == Owed(4, 1, "pack", 5, "open")


def test_a_result_that_holds_the_run_is_owed_once_it_is_taken() -> None:
    made = Trade()
    case = given(made.flow, Placed())
    event_type, data = done_event(made.charge, doing(case), 1, OK)
    assert isinstance(ends(case, event_type, {**data, "data": {"name": "x"}}), DeadLetter)
    assert memory_of(case).owed == ()
    assert case.run is not None
    case.run = case.run._replace(sequence=7)
    case.step_done(made.charge, OK)
    assert memory_of(case).owed == (Owed(1, 0, "charge", 8),)


def test_a_run_that_ends_owes_nothing() -> None:
    made = Trade()
    case = sent(made).step_done(made.tell, None).then(state="over", ended=True).then_owes()
    assert memory_of(case) == Memory()


def test_steps_without_a_compensation_are_never_owed() -> None:
    made = Trade()
    made.sent.run = made.tell
    case = sent(made)
    assert isinstance(ends(case, *done_event(made.tell, doing(case), 1, None)), Moved)
    assert [one.step for one in memory_of(case).owed] == ["charge", "pack"]


def failed(case: Case[Any], made: Trade, error: BaseException | str, **more: Any) -> Memory:
    outcome = ends(case, *failed_event(made.charge, doing(case), error, attempts=1, **more))
    assert isinstance(outcome, Moved)
    return read_memory(outcome.memory or b"")


@pytest.mark.parametrize(
    ("error", "more", "on_error", "is_owed"),
    [
        (KeyError("no"), {}, False, False),
        (KeyError("no"), {}, True, True),
        ("30 s are over", {"timed_out": True}, False, True),
        (KeyError("no"), {"lost": True}, False, True),
    ],
)
def test_a_failure_is_owed_where_nobody_knows_what_was_done(
    error: Any, more: Any, *, on_error: bool, is_owed: bool
) -> None:
    made = Trade(on_error=on_error)
    made.flow.on_failure(to=made.open)
    owed = failed(given(made.flow, Placed()), made, error, **more).owed
    assert owed == ((Owed(1, 0, "charge", 0),) if is_owed else ())


@pytest.mark.parametrize(("more", "unknown"), [({}, 0), ({"lost": True}, 1), ({"timed_out": True}, 1)])
def test_an_attempt_of_which_nobody_knows_is_remembered(more: Any, unknown: int) -> None:
    made = Trade()
    made.flow.on_failure(to=made.open)
    case = given(made.flow, Placed())
    outcome = ends(case, *tried_event(made.charge, doing(case), KeyError("k"), again=7, **more))
    assert isinstance(outcome, Ignored)
    assert outcome.reason is Reason.RETRYING
    assert case.run is not None
    case.run = case.run._replace(memory=outcome.memory or b"")
    assert doing(case) == Execution(1, 0, "charge", "charging", 2, 7, "KeyError: 'k'", unknown=unknown)
    again = ends(case, *tried_event(made.charge, doing(case), KeyError("k"), again=8))
    assert isinstance(again, Ignored)
    assert read_memory(again.memory or b"").executions[0].unknown == unknown
    assert failed(case, made, KeyError()).owed == ((Owed(1, 0, "charge", 0),) if unknown else ())


def test_nothing_of_that_is_remembered_of_steps_without_a_compensation() -> None:
    made = Trade()
    case = sent(made)
    event_type, data = tried_event(made.tell, doing(case), "late", timed_out=True, again=7)
    assert "lost" not in data
    outcome = ends(case, event_type, {**data, "lost": True})
    assert isinstance(outcome, Ignored)
    assert read_memory(outcome.memory or b"").executions[0].unknown == 0


def test_the_call_of_a_step_undoes_nothing_and_says_so() -> None:
    call = Call("key", 1, "k", "charge")
    assert call.undone is None
    with pytest.raises(LookupError, match=r"charge is no compensation.*: call\.undone is None there"):
        _ = call.of
