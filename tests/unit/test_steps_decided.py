"""What operators decide of steps that have failed for good, through the core."""

from __future__ import annotations

from typing import Any

import pytest

from engine.steps.executions import given_up
from statemachines.events import STEP_RETRIED, STEP_SKIPPED
from statemachines.memory import Execution, Memory, Owed, read_memory, write_memory
from statemachines.outcome import Ignored, Moved, Reason
from statemachines.outcome import Refused as DeadLetter
from statemachines.results import (
    ResultError,
    decided_event,
    done_event,
    event_id,
    failed_event,
    resolved_event,
)
from statemachines.testkit import Case, given
from tests.unit.scoped import Dropped, Journey
from tests.unit.undoing import OK, Placed, Returned, Trade, doing, memory_of, packing
from tests.unit.working import ends

SAID = {"error": "KeyError", "message": "no", "attempts": 3}


def stuck(case: Case[Any], *, unknown: bool = False) -> Execution:
    """The one execution that goes on has failed for good, as an engine notes it."""
    assert case.run is not None
    third = memory_of(case).instead(doing(case)._replace(attempt=3))
    memory = given_up(write_memory(third), doing(case), unknown=unknown)
    case.run = case.run._replace(memory=memory)
    return doing(case)


def undoing() -> tuple[Trade, Case[Any]]:
    """A run whose charge is being undone."""
    made = Trade()
    case = packing(made).when(Returned())
    case.step_stopped(made.pack, "never")
    case.then_runs(made.refund)
    return made, case


def left(outcome: object) -> Memory:
    assert isinstance(outcome, Ignored | Moved)
    return read_memory(outcome.memory or b"")


def test_it_begins_anew_and_its_attempts_count_from_there() -> None:
    case = given(Trade().flow, Placed())
    one = stuck(case, unknown=True)
    outcome = ends(case, *decided_event(STEP_RETRIED, one, "ana", SAID))
    assert isinstance(outcome, Ignored)
    assert outcome.reason is Reason.RETRYING
    again = Execution(1, 0, "charge", "charging", 4, 0, "KeyError: no", unknown=1, since=3)
    assert left(outcome).executions == (again,)


def test_its_failure_that_is_offered_again_has_it_begin_anew_unless_it_is_taken_now() -> None:
    made = Trade()
    case = given(made.flow, Placed())
    failed = failed_event(made.charge, stuck(case), KeyError("no"), attempts=3)
    assert left(ends(case, *failed)).executions[0].since == 3
    takes = Trade()
    takes.flow.on_failure(to=takes.open)
    case = given(takes.flow, Placed())
    failed = failed_event(takes.charge, stuck(case), KeyError("no"), attempts=3)
    assert isinstance(ends(case, *failed), Moved)


@pytest.mark.parametrize("begins", [STEP_RETRIED, STEP_SKIPPED])
def test_nothing_is_decided_of_what_goes_on_or_is_over(begins: str) -> None:
    case = given(Trade().flow, Placed())
    assert ends(case, *decided_event(begins, doing(case), "ana", SAID)) == Ignored(Reason.VOID)
    one = stuck(case)
    before = one._replace(attempt=2)
    assert ends(case, *decided_event(begins, before, "ana", SAID)) == Ignored(Reason.VOID)
    other = one._replace(number=7)
    assert ends(case, *decided_event(begins, other, "ana", SAID)) == Ignored(Reason.VOID)


@pytest.mark.parametrize("unknown", [False, True])
def test_a_run_goes_on_without_a_step_and_owes_what_nobody_knows(*, unknown: bool) -> None:
    case = given(Trade().flow, Placed())
    outcome = ends(case, *decided_event(STEP_SKIPPED, stuck(case, unknown=unknown), "ana", SAID))
    assert isinstance(outcome, Ignored)
    assert outcome.reason is Reason.SKIPPED
    assert left(outcome).executions == ()
    assert left(outcome).owed == ((Owed(1, 0, "charge", 0, "charging"),) if unknown else ())


def test_a_compensation_that_is_skipped_leads_on_and_nothing_is_owed_for_it() -> None:
    _, case = undoing()
    one = stuck(case)
    assert one.of
    outcome = ends(case, *decided_event(STEP_SKIPPED, one, "ana", SAID))
    assert isinstance(outcome, Moved)
    assert outcome.configuration == "open"
    assert (left(outcome).owed, left(outcome).executions, left(outcome).undoing) == ((), (), -1)


def test_a_compensation_begins_anew_and_stays_owed() -> None:
    _, case = undoing()
    one = stuck(case)
    after = left(ends(case, *decided_event(STEP_RETRIED, one, "ana", SAID)))
    assert [(each.attempt, each.again, each.since) for each in after.executions] == [(4, 0, 3)]
    assert after.owed == memory_of(case).owed


def test_what_counts_as_done_is_the_step_s_done_with_who_says_so() -> None:
    made = Trade()
    case = given(made.flow, Placed())
    one = stuck(case)
    event_type, said = resolved_event(made.charge, one, b'{"id": "by hand"}', "ana")
    assert (event_type, said) == (
        "done.step.charge",
        {"execution": "1.0", "attempt": 3, "data": {"id": "by hand"}, "by": "ana"},
    )
    outcome = ends(case, event_type, said)
    assert isinstance(outcome, Moved)
    assert outcome.configuration == "packing"
    assert left(outcome).owed == (Owed(1, 0, "charge", 2),)


@pytest.mark.parametrize("result", [b"7", b"null", b'{"id": 7}', b"{", b"", b"\xff"])
def test_what_the_step_could_not_have_returned_is_no_result(result: bytes) -> None:
    made = Trade()
    with pytest.raises(ResultError, match="charge does not return that: "):
        resolved_event(made.charge, stuck(given(made.flow, Placed())), result, "ana")


def test_each_decision_has_an_id_of_its_own() -> None:
    made = Trade()
    case = given(made.flow, Placed())
    assert case.run is not None
    one = doing(case)
    kinds = ("failed", "done", "stopped", "retried", "skipped", "resolved")
    ids = {event_id(case.machine, case.run, one, 1, kind) for kind in kinds}
    assert len(ids) == len(kinds)


def test_a_late_success_counts_until_something_is_decided() -> None:
    made = Trade()
    case = given(made.flow, Placed())
    one = stuck(case, unknown=True)
    done = done_event(made.charge, one, 2, OK)
    assert isinstance(ends(case, *done), Moved)
    assert case.run is not None
    skipped = ends(case, *decided_event(STEP_SKIPPED, one, "ana", SAID))
    case.run = case.run._replace(memory=write_memory(left(skipped)))
    assert ends(case, *done) == Ignored(Reason.VOID)


def test_a_failure_after_it_began_anew_is_one_again() -> None:
    made = Trade()
    case = given(made.flow, Placed())
    one = stuck(case)
    again = left(ends(case, *decided_event(STEP_RETRIED, one, "ana", SAID)))
    assert case.run is not None
    case.run = case.run._replace(memory=write_memory(again))
    failed = failed_event(made.charge, doing(case), KeyError("no"), attempts=4)
    outcome = ends(case, *failed)
    assert isinstance(outcome, DeadLetter)
    assert outcome.reason is Reason.STEP_FAILED


def test_a_state_is_undone_on_without_the_compensation_that_is_skipped() -> None:
    journey = Journey()
    case = journey.begun().step_done(journey.room, 1).step_done(journey.seat, 2).when(Dropped())
    [undoes] = [one for one in memory_of(case).executions if one.of]
    assert case.run is not None
    memory = given_up(case.run.memory, undoes, unknown=False)
    case.run = case.run._replace(memory=memory)
    [given] = [one for one in read_memory(memory).executions if one.of]
    assert given.is_given_up
    outcome = ends(case, *decided_event(STEP_SKIPPED, given, "ana", SAID))
    assert isinstance(outcome, Moved)
    assert outcome.configuration == "wide travel trip $compensating papers asking"
    assert [(one.step, one.undoing) for one in left(outcome).owed] == [("room", 1)]
    assert [(one.step, one.scope) for one in left(outcome).executions if one.of] == [("leave_room", "trip")]
