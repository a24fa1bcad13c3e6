"""What is settled is not undone any more."""

from __future__ import annotations

from typing import Any

import pytest

from statemachines import Compensate, Event, Pipeline, Settle
from statemachines.effects import Asked
from statemachines.outcome import Reason
from statemachines.testkit import given
from tests.unit.scoped import Arrived, Dropped, Journey, asking
from tests.unit.undoing import Again, Cancelled, Order, Placed


def test_what_is_settled_is_not_undone_any_more() -> None:
    made = Journey()
    done = Event.named("trip.done")
    made.trip.on(done, to=made.abroad, do=asking(Settle()))
    case = made.booked().when(done()).then(state="wide travel abroad papers stamped").then_owes(made.visa)
    assert case.sent == [
        Asked("settle", "room", id="1.0", number=0),
        Asked("settle", "seat", id="2.0", number=1),
    ]
    case.when(Cancelled()).undone(made.return_visa).then(ended=True)


@pytest.mark.parametrize(("scope", "owed"), [("wide", []), ("trip", ["visa"]), ("papers", ["seat", "room"])])
def test_what_a_state_owes_is_settled_wherever_that_is_said(scope: str, owed: list[str]) -> None:
    made = Journey()
    made.stamped.on(Event.named("settled"), do=asking(Settle(scope)))
    case = made.booked().when(Event.named("settled")())
    case.then_owes(*(one for one in (made.visa, made.seat, made.room) if one.name in owed))


def test_of_the_pipeline_it_settles_all_that_the_run_owes() -> None:
    made = Journey()
    made.flow.on(Event.named("settled"), do=asking(Settle()))
    made.booked().when(Arrived()).when(Event.named("settled")()).then_owes().when(Cancelled()).then(
        ended=True
    )


def test_a_transition_or_an_entry_of_a_state_may_name_the_run() -> None:
    made = Journey()
    made.resting.on(Event.named("settled"), to=made.abroad, do=asking(Settle(made.flow)))
    made.booked().when(Event.named("settled")()).then_owes().when(Cancelled()).then(ended=True)
    made = Journey()
    made.abroad.entry(asking(Settle(made.flow)))
    made.booked().when(Arrived()).then_owes().when(Cancelled()).then(ended=True)


@pytest.mark.parametrize("effect", [Settle, Compensate])
def test_another_pipeline_does_not_stand_for_the_run(effect: Any) -> None:
    made = Journey()
    other: Pipeline[Any] = Pipeline("voyage", Order, topics=["voyages"])
    made.resting.on(Event.named("settled"), to=made.abroad, do=asking(effect(other)))
    message = f"returned {effect.__name__}(the pipeline 'voyage'), and the run is of the pipeline 'journey'"
    made.booked().when(Event.named("settled")()).then_refused(Reason.ACTION_FAILED, saying=message)


def test_what_a_step_has_just_done_is_settled_with_the_rest_and_what_goes_on_is_not() -> None:
    made = Journey()
    made.flow.moves[:] = [one for one in made.flow.moves if one.event is not made.seat.done]
    made.flying.on(made.seat.done, to=made.resting, do=asking(Settle(made.wide)))
    case = made.begun().step_done(made.room, 1).step_done(made.seat, 2).then_owes()
    case.step_done(made.visa, 3).then_owes(made.visa)


def test_what_was_stopped_is_settled_too_and_not_heard_of() -> None:
    made = Journey()
    made.flying.on(Again, to=made.abroad, do=asking(Settle("travel")))
    case = made.begun().when(Arrived())
    assert [one.step for one in case.stopping] == ["room"]
    made.abroad.on(Again, do=asking(Settle("wide")))
    case = given(made.flow, Placed()).when(Arrived()).when(Again())
    assert (case.stopping, case.sent) == ((), [Asked("settle", "room", id="1.0", number=0)])


def test_an_entry_says_of_which_state() -> None:
    made = Journey()
    made.abroad.entry(asking(Settle(made.travel)))
    made.booked().when(Arrived()).then_owes(made.visa)
    made = Journey()
    made.abroad.entry(asking(Settle()))
    message = "returned Settle() without a state, which only the action of a transition may: name one"
    made.booked().when(Arrived()).then_refused(Reason.ACTION_FAILED, saying=message)


def test_what_is_being_undone_is_not_settled() -> None:
    made = Journey()
    made.flow.on(Event.named("settled"), do=asking(Settle()))
    case = made.booked().when(Dropped()).when(Event.named("settled")()).then_owes(made.seat, made.room)
    case.undone(made.leave_seat).undone(made.leave_room).then(state="wide travel at-home papers stamped")


def test_what_is_settled_and_then_undone_is_settled() -> None:
    made = Journey()
    made.wide.on(Event.named("both"), to=made.after, do=asking(Compensate(), Settle(made.trip)))
    case = made.booked().when(Event.named("both")()).then_owes(made.visa).then_runs(made.return_visa)
    case.undone(made.return_visa).then(state="after")


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ("tirp", "returned Settle('tirp'), and the pipeline has no such state. Did you mean 'trip'?"),
        ("resting", "and 'resting' runs no step, nor does a state inside it, that has a compensation"),
        (b"trip", "Settle takes a state, its name, or the pipeline, not bytes"),
        ("", "returned Settle(''), and the pipeline has no such state"),
    ],
)
def test_what_may_not_be_settled(scope: Any, message: str) -> None:
    made = Journey()
    made.trip.on(Event.named("settled"), do=asking(Settle(scope)))
    made.booked().when(Event.named("settled")()).then_refused(Reason.ACTION_FAILED, saying=message)
