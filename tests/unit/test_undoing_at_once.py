"""States, and runs, that say that what they owe is undone all at once."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest

from statemachines.canonical import canonical_bytes
from statemachines.effects import Asked
from statemachines.memory import Memory
from statemachines.outcome import Reason
from statemachines.validation import find_mistakes
from tests.unit.scoped import Dropped, Journey
from tests.unit.undoing import Again, Cancelled, Returned, memory_of


def at_once(*states: str, **settings: object) -> Journey:
    made = Journey(**settings)
    for state in made.flow.states:
        state.undo = "parallel" if state.name in states else "in_order"
    return made


def test_what_a_state_owes_is_undone_at_once_and_the_target_entered_after_the_last() -> None:
    made = at_once("trip")
    case = made.booked().when(Dropped())
    assert case.sent == [
        Asked("step", "leave_seat", id="2.0", number=0),
        Asked("step", "leave_room", id="1.0", number=1),
    ]
    case.then_runs(made.leave_seat, made.leave_room).undone(made.leave_room)
    case.then(state="wide travel trip $compensating papers stamped").then_runs(made.leave_seat)
    case.undone(made.leave_seat).then(state="wide travel at-home papers stamped").then_owes(made.visa)


def test_it_waits_for_what_was_stopped() -> None:
    made = at_once("trip")
    case = made.begun().step_done(made.room, 1).when(Dropped()).then_runs(made.visa)
    case.step_stopped(made.seat, "unknown").then_runs(made.visa, made.leave_seat, made.leave_room)


def test_each_time_that_a_step_was_done_is_undone() -> None:
    made = at_once("trip")
    case = made.booked().when(Again()).step_done(made.room, 4).when(Dropped())
    case.step_stopped(made.seat, "never").then_runs(made.leave_seat, made.leave_room, made.leave_room)
    case.undone(made.leave_room).undone(made.leave_room).undone(made.leave_seat)
    case.then(state="wide travel at-home papers stamped")


def test_the_pipeline_says_it_of_the_run() -> None:
    made = at_once(undo="parallel")
    case = made.booked().when(Cancelled())
    case.then_runs(made.return_visa, made.leave_seat, made.leave_room)
    case.undone(made.leave_seat).undone(made.leave_room).undone(made.return_visa).then(ended=True)
    made.booked().when(Returned()).then_runs(made.return_visa)


def test_where_a_state_around_is_undone_meanwhile_that_says_how() -> None:
    made = at_once("wide")
    case = made.booked().when(Dropped()).then_runs(made.leave_seat).when(Returned())
    case.then_runs(made.leave_seat, made.leave_room, made.return_visa)
    made = at_once("trip")
    case = made.booked().when(Dropped()).when(Returned()).then_runs(made.leave_seat, made.leave_room)
    case.undone(made.leave_room).then_runs(made.leave_seat).undone(made.leave_seat)
    case.then_runs(made.return_visa).undone(made.return_visa).then(state="after")
    assert memory_of(case) == Memory()


def test_one_that_fails_for_good_holds_the_run() -> None:
    made = at_once("trip")
    case = made.booked().when(Dropped()).undone(made.leave_room)
    case.undoing_failed(made.leave_seat, KeyError()).then_refused(Reason.STEP_FAILED, holds=True)


def test_not_more_begin_than_a_run_may_have() -> None:
    made = at_once(undo="parallel")
    case = made.booked()
    with patch("statemachines.chart.agenda.EXECUTIONS_MAX", 2):
        case.when(Cancelled()).then_runs(made.return_visa, made.leave_seat)
        case.undone(made.leave_seat).then_runs(made.return_visa, made.leave_room)
        case.undone(made.leave_room).undone(made.return_visa).then(ended=True)


def test_it_is_part_of_the_definition() -> None:
    forms = {canonical_bytes(one.flow) for one in (Journey(), at_once("trip"), at_once(undo="parallel"))}
    assert len(forms) == 3
    assert canonical_bytes(at_once("wide").flow).count(b'"undo":"parallel"') == 1


@pytest.mark.parametrize(
    ("state", "undo", "message"),
    [
        ("trip", "paralel", "undo='paralel' of the state 'trip' is no order"),
        ("abroad", "parallel", "undo='parallel' is never asked: 'abroad' owes nothing, nor does a state in"),
    ],
)
def test_mistakes(state: str, undo: str, message: str) -> None:
    made = Journey()
    [found] = [one for one in made.flow.states if one.name == state]
    found.undo = undo  # type: ignore[assignment]  # that is the mistake
    assert message in " ".join(one.message for one in find_mistakes(made.flow))


def test_a_mistake_of_the_pipeline() -> None:
    wrong = replace(Journey().flow, undo="never")  # type: ignore[arg-type]  # that is the mistake
    assert any("undo='never' is no policy" in one.message for one in find_mistakes(wrong))
