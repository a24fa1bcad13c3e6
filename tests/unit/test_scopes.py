"""States that are undone: what belongs to them, what goes on meanwhile, and where the run goes then."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from statemachines import Compensate, Event, Publish, Raise
from statemachines.effects import Asked
from statemachines.memory import Execution, Memory
from statemachines.outcome import WAITS, Reason
from statemachines.testkit import given
from tests.unit.scoped import Arrived, Dropped, Journey, asking, scopes_of
from tests.unit.undoing import (
    Again,
    Cancelled,
    Gone,
    Noted,
    Placed,
    Returned,
    doing,
    memory_of,
    note_type,
)

UNDOING_TRIP = "wide travel trip $compensating papers stamped"


def test_a_state_is_undone_while_its_siblings_go_on() -> None:
    made = Journey()
    case = made.begun().step_done(made.room, 1).step_done(made.seat, 2)
    case.when(Dropped()).then(state="wide travel trip $compensating papers asking")
    assert case.sent == [Asked("step", "leave_seat", id="2.0", number=0)]
    assert memory_of(case).scopes == {"trip": 4}
    case.then_runs(made.leave_seat, made.visa).when(Noted())
    case.step_done(made.visa, 3).then(state=UNDOING_TRIP, context={"said": ["trip.dropped", "order.noted"]})
    case.undone(made.leave_seat).then_runs(made.leave_room).undone(made.leave_room)
    case.then(state="wide travel at-home papers stamped").then_owes(made.visa).then_runs_nothing()
    assert scopes_of(case) == {"visa": "papers"}
    assert memory_of(case).scopes == {}


def test_what_belongs_to_which_state() -> None:
    made = Journey()
    case = made.begun().step_done(made.room, 1)
    assert scopes_of(case) == {"room": "trip"}
    case.step_done(made.visa, 3).step_done(made.seat, 2)
    assert scopes_of(case) == {"room": "trip", "visa": "papers", "seat": "trip"}
    case.when(Dropped())
    assert scopes_of(case) == {"room": "trip*", "visa": "papers", "seat": "trip*"}


def test_a_state_that_is_left_hands_on_what_it_owes() -> None:
    made = Journey()
    case = made.booked().when(Arrived())
    assert scopes_of(case) == {"room": "travel", "visa": "papers", "seat": "travel"}
    case.when(Gone())
    assert scopes_of(case) == {"room": "", "visa": "", "seat": ""}
    case.when(Cancelled()).undone(made.return_visa).undone(made.leave_seat).undone(made.leave_room)
    case.then(ended=True)


def test_a_state_that_is_entered_again_owes_nothing_of_before() -> None:
    made = Journey()
    made.abroad.on(Again, to=made.trip)
    case = made.booked().when(Arrived()).when(Again()).step_done(made.room, 4).when(Dropped())
    case.then_owes(made.room, made.visa, made.seat, made.room).then_runs_nothing()
    case.step_stopped(made.seat, "never").undone(made.leave_room)
    case.then(state="wide travel at-home papers stamped").then_owes(made.visa, made.seat, made.room)


def test_a_loop_is_undone_as_often_as_it_was_done() -> None:
    made = Journey()
    case = made.booked().when(Again()).step_done(made.room, 4).step_done(made.seat, 5).when(Dropped())
    undone = []
    while "$compensating" in case.state:
        undone.append((doing(case).of, doing(case).made))
        case.undone(made.leave_seat if doing(case).step == "leave_seat" else made.leave_room)
    assert undone == [("6.0", 7), ("5.0", 6), ("2.0", 3), ("1.0", 2)]
    case.then_owes(made.visa)


def test_a_step_that_goes_on_in_the_state_is_stopped_and_heard_of_first() -> None:
    made = Journey()
    case = made.begun().step_done(made.room, 1).when(Dropped())
    assert case.sent == [Asked("stop", "seat", id="2.0", number=0)]
    case.then_runs(made.visa).then_owes(made.room)
    [stopping] = case.stopping
    assert (stopping.stopping, stopping.scope) == (2, "trip")
    case.step_stopped(made.seat, "unknown").then_runs(made.visa, made.leave_seat)
    assert memory_of(case).executions[-1] == Execution(
        4, 0, "leave_seat", "$compensating", of="2.0", scope="trip"
    )
    case.undone(made.leave_seat).undone(made.leave_room).then(state="wide travel at-home papers asking")


def test_what_the_siblings_owe_is_not_waited_for() -> None:
    made = Journey()
    made.asking.on(Again, to=made.stamped)
    case = made.begun().step_done(made.room, 1).when(Again())
    [stopping] = case.stopping
    assert (stopping.step, stopping.stopping, stopping.scope) == ("visa", 1, "papers")
    case.when(Dropped()).step_stopped(made.seat, "never").then_runs(made.leave_room)
    case.step_stopped(made.visa, "ended", 3).then_owes(made.visa, made.room)
    assert scopes_of(case) == {"room": "trip*", "visa": "papers"}
    case.undone(made.leave_room).then(state="wide travel at-home papers stamped").then_owes(made.visa)


def test_a_failure_may_undo_a_state_around_it() -> None:
    made = Journey()
    case = made.begun().step_done(made.room, 1).step_failed(made.seat, KeyError())
    case.then(state="wide travel trip $compensating papers asking").undone(made.leave_room)
    case.then(state="wide travel at-home papers asking").then_runs(made.visa)


def test_where_nothing_is_owed_the_target_is_entered_at_once() -> None:
    made = Journey()
    case = made.begun().when(Dropped()).step_stopped(made.room, "never")
    case.then(state="wide travel at-home papers asking")
    made.at_home.on(Again, to=made.resting)
    case = (
        given(made.flow, Placed()).when(Dropped()).step_stopped(made.room, "never").when(Again(), Dropped())
    )
    case.then(state="wide travel at-home papers asking").then_runs(made.visa)


def test_a_state_without_others_inside_may_be_undone() -> None:
    made = Journey()
    made.lodging.on(made.room.failed, to=made.at_home, compensate=True)
    made.lodging.on(Noted, to=made.resting, compensate=True)
    case = made.begun().when(Noted()).then(state="wide travel trip lodging $compensating papers asking")
    case.step_stopped(made.room, "ended", 1).undone(made.leave_room)
    case.then(state="wide travel trip resting papers asking")
    made.begun().step_timed_out(made.room).then_runs(made.visa, made.leave_room)


def test_a_state_with_regions_may_be_undone() -> None:
    made = Journey()
    case = made.booked().when(Returned()).then(state="wide $compensating")
    assert case.sent == [Asked("step", "return_visa", id="1.1", number=0)]
    case.undone(made.return_visa).undone(made.leave_seat).undone(made.leave_room).then(state="after")
    assert memory_of(case) == Memory()


def test_the_target_may_be_inside_the_state() -> None:
    made = Journey()
    for state, event in ((made.trip, "trip.rests"), (made.wide, "all.rests")):
        state.on(Event.named(event), to=made.resting, compensate=True)
        state.exit(note_type)
        state.entry(note_type)
    case = made.booked().when(Event.named("trip.rests")()).undone(made.leave_seat).undone(made.leave_room)
    case.then(state="wide travel trip resting papers stamped", context={"said": ["order.placed"] * 2})
    case = made.booked().when(Event.named("all.rests")()).then(state="wide $compensating")
    case.undone(made.return_visa).undone(made.leave_seat).undone(made.leave_room)
    case.then(state="wide travel trip resting papers asking").then_runs(made.visa)


def test_the_target_may_be_the_state_itself_which_begins_anew() -> None:
    made = Journey()
    again = Event.named("trip.anew")
    made.trip.on(again, to=made.trip, compensate=True)
    case = made.booked().when(again()).undone(made.leave_seat).undone(made.leave_room)
    case.then(state="wide travel trip lodging papers stamped").then_runs(made.room)


def test_states_are_left_and_entered_as_always() -> None:
    made = Journey()
    for state in (made.resting, made.trip, made.stamped):
        state.exit(lambda order, event: order.said.append(f"left by {event.meta.type}"))
    made.at_home.entry(lambda order, event: order.said.append(f"home: {event.meta.is_in('$compensating')}"))
    made.stamped.on(Again, do=lambda order, event: order.said.append(str(event.meta.is_in("$compensating"))))
    case = made.booked().when(Dropped()).then(context={"said": ["left by trip.dropped", "trip.dropped"]})
    case.when(Again()).undone(made.leave_seat).undone(made.leave_room)
    case.then(
        context={
            "said": [
                "left by trip.dropped",
                "trip.dropped",
                "True",
                "left by done.compensation",
                "home: False",
            ]
        }
    )


# What comes meanwhile.


def test_what_is_undone_takes_no_events_and_what_is_around_it_does() -> None:
    made = Journey()
    made.resting.on(Event.named("rested"), to=made.abroad)
    made.travel.on(Event.named("seen"), do=note_type)
    case = made.booked().when(Dropped())
    for event in (Arrived(), Again(), Event.named("rested")()):
        case.when(event).then_deferred()
    case.when(Event.named("seen")()).then(state=UNDOING_TRIP, context={"said": ["trip.dropped", "seen"]})
    case.undone(made.leave_seat).undone(made.leave_room).then(state="wide travel at-home papers stamped")


def test_a_second_one_that_would_undo_the_state_changes_nothing() -> None:
    made = Journey()
    made.wide.on(Again, to=made.after, do=note_type, compensate=made.trip)
    case = made.booked().when(Dropped())
    for event in (Dropped(), Again()):
        case.when(event).then_ignored(Reason.UNDOING)
    case.undone(made.leave_seat).undone(made.leave_room)
    case.then(state="wide travel at-home papers stamped", context={"said": ["trip.dropped"]})


def test_a_timer_of_the_state_that_falls_due_is_gone() -> None:
    made = Journey()
    made.trip.after(timedelta(hours=1), to=made.abroad)
    made.resting.after(timedelta(hours=1), to=made.lodging)
    made.papers.after(timedelta(hours=2), to=made.after)
    case = made.booked().when(Dropped())
    assert [one.state for one in memory_of(case).delayed] == ["trip", "papers"]
    case.later(timedelta(hours=1)).then_ignored(Reason.UNEXPECTED)
    case.undone(made.leave_seat).undone(made.leave_room).then(state="wide travel at-home papers stamped")
    case.later(timedelta(hours=2)).then(state="after")


def test_where_the_run_goes_elsewhere_what_is_undone_is_undone_to_its_end_before() -> None:
    made = Journey()
    case = made.booked().when(Dropped()).when(Gone()).then(state="$compensating")
    assert scopes_of(case) == {"room": "*", "seat": "*", "visa": ""}
    assert case.sent == []
    case.then_runs(made.leave_seat).when(Cancelled()).then_deferred()
    case.undone(made.leave_seat).then_runs(made.leave_room).undone(made.leave_room)
    # Deferred until then: it undoes the run.
    case.then(state="$compensating").then_owes(made.visa).undone(made.return_visa).then(ended=True)


def test_a_state_around_may_be_undone_meanwhile_and_nothing_is_undone_twice() -> None:
    made = Journey()
    case = made.booked().when(Dropped()).when(Returned()).then(state="wide $compensating")
    assert case.sent == []
    case.then_runs(made.leave_seat).undone(made.leave_seat).undone(made.return_visa)
    case.undone(made.leave_room).then(state="after").then_owes()


def test_the_run_may_be_undone_meanwhile_and_nothing_is_undone_twice() -> None:
    made = Journey()
    case = made.booked().when(Dropped()).undone(made.leave_seat).when(Cancelled())
    case.then(state="$compensating").then_runs(made.leave_room).then_owes(made.visa, made.room)
    assert memory_of(case).scopes == {}
    case.undone(made.leave_room).undone(made.return_visa).then(state="ended", ended=True)


def test_an_operator_may_cancel_meanwhile() -> None:
    made = Journey()
    made.flow.on_cancel(to=made.ended, compensate=True)
    case = made.booked().when(Dropped()).when_cancelled().then(state="$compensating")
    case.undone(made.leave_seat).undone(made.return_visa).undone(made.leave_room).then(ended=True)


def test_a_sibling_that_fails_meanwhile_is_taken_and_cuts_nothing_short() -> None:
    made = Journey()
    made.papers.on(made.visa.failed, to=made.after)
    case = made.begun().step_done(made.room, 1).step_done(made.seat, 2).when(Dropped())
    case.step_failed(made.visa, KeyError()).then(state="$compensating").then_runs(made.leave_seat)
    case.undone(made.leave_seat).undone(made.leave_room).then(state="after").then_owes()


def test_a_sibling_that_fails_may_undo_the_same_state_and_says_where_the_run_goes_then() -> None:
    made = Journey()
    made.wide.on(made.visa.failed, to=made.after, compensate=made.trip)
    case = made.begun().step_done(made.room, 1).step_done(made.seat, 2).when(Dropped())
    case.step_failed(made.visa, KeyError()).then(state="wide travel trip $compensating papers asking")
    case.then_runs(made.leave_seat).undone(made.leave_seat).undone(made.leave_room).then(state="after")


def test_two_regions_are_undone_at_once() -> None:
    made = Journey()
    made.papers.on(Dropped, to=made.stamped, do=note_type, compensate=True)
    case = made.booked().when(Dropped()).then(state="wide travel trip $compensating papers $compensating")
    assert case.sent == [
        Asked("step", "return_visa", id="1.1", number=0),
        Asked("step", "leave_seat", id="2.0", number=1),
    ]
    case.then_runs(made.return_visa, made.leave_seat)
    case.undone(made.return_visa).then(state="wide travel trip $compensating papers stamped")
    case.undone(made.leave_seat).undone(made.leave_room).then(state="wide travel at-home papers stamped")
    assert memory_of(case) == Memory()


def test_a_state_inside_one_that_is_undone_goes_on_with_it() -> None:
    made = Journey()
    made.lodging.on(Again, to=made.resting, compensate=True)
    case = made.begun().when(Again()).step_stopped(made.room, "ended", 1)
    case.then(state="wide travel trip lodging $compensating papers asking").then_runs(
        made.leave_room, made.visa
    )
    case.when(Dropped()).then(state="wide travel trip $compensating papers asking")
    assert scopes_of(case) == {"room": "trip*"}
    case.undone(made.leave_room).then(state="wide travel at-home papers asking").then_owes()


def test_one_that_is_heard_of_after_a_state_around_was_undone_belongs_to_that() -> None:
    made = Journey()
    case = made.begun().when(Dropped()).when(Returned())
    case.then(state="wide $compensating").then_runs_nothing()
    case.step_stopped(made.room, "ended", 1).then_runs_nothing()
    case.step_stopped(made.visa, "unknown").then_runs(made.return_visa)
    case.undone(made.return_visa).undone(made.leave_room).then(state="after")


def test_a_compensation_that_fails_for_good_holds_the_run() -> None:
    made = Journey()
    case = made.booked().when(Dropped()).undoing_failed(made.leave_seat, OSError("no network"))
    case.then_refused(
        Reason.STEP_FAILED, saying="so that seat (2.0) is not undone: OSError: no network", holds=True
    )
    assert case.when(Noted()).outcome is WAITS


# What an action asks for.


def test_an_action_may_ask_for_the_state_of_its_transition() -> None:
    made = Journey()
    made.trip.on(Again, to=made.at_home, do=asking(Publish("out", Noted()), Compensate()))
    made.resting.on(Noted, to=made.lodging, do=asking(Compensate(made.trip)))
    case = made.begun().step_done(made.room, 1).when(Again()).then(publishes=[Noted()])
    # What the transition leaves was left when its action was asked.
    case.then(state="wide travel $compensating papers asking")
    case.step_stopped(made.seat, "never").undone(made.leave_room)
    case.then(state="wide travel at-home papers asking")
    case = made.booked().when(Noted()).then(state=UNDOING_TRIP)
    case.undone(made.leave_seat).undone(made.leave_room)
    case.then(state="wide travel trip lodging papers stamped").then_runs(made.room)


def test_only_what_the_state_owes_is_undone_where_more_was_left() -> None:
    made = Journey()
    made.trip.on(Gone, to=made.after, do=asking(Compensate()))
    case = made.booked().when(Gone()).then(state="$compensating")
    assert scopes_of(case) == {"room": "*", "seat": "*", "visa": ""}
    case.undone(made.leave_seat).undone(made.leave_room).then(state="after").then_owes(made.visa)


def test_where_an_action_asks_for_more_than_was_left_the_rest_is_left_then() -> None:
    made = Journey()
    for state in (made.resting, made.trip, made.stamped, made.papers):
        state.exit(lambda order, _event: order.said.append("left"))
    made.resting.on(Gone, to=made.lodging, do=asking(Compensate("wide"), Raise(Noted())))
    made.stamped.on(Gone, to=made.asking, do=asking())
    case = made.booked().when(Gone()).then(state="wide $compensating")
    assert case.context.said == ["left", "left", "order.gone", "order.gone", "left", "left"]
    case.undone(made.return_visa).undone(made.leave_seat).undone(made.leave_room)
    case.then(state="wide travel trip lodging papers asking").then_runs(made.room, made.visa)


def test_an_action_of_a_state_may_ask_for_the_run() -> None:
    made = Journey()
    made.resting.on(Gone, to=made.lodging, do=asking(Compensate(made.flow)))
    case = made.booked().when(Gone()).then(state="$compensating")
    case.undone(made.return_visa).undone(made.leave_seat).undone(made.leave_room)
    case.then(state="wide travel trip lodging papers asking").then_owes().then_runs(made.room, made.visa)


def test_a_transition_that_undoes_may_ask_for_more() -> None:
    made = Journey()
    made.trip.on(Gone, to=made.at_home, do=asking(Compensate(made.wide)), compensate=True)
    case = made.booked().when(Gone()).then(state="wide $compensating")
    case.then_owes(made.visa, made.seat, made.room)
    made.trip.on(Again, to=made.at_home, do=asking(Compensate(made.trip)), compensate=True)
    made = Journey()
    made.trip.on(Gone, to=made.at_home, do=asking(Compensate()), compensate=True)
    made.booked().when(Gone()).then(state=UNDOING_TRIP)


def test_a_state_that_was_left_has_nothing_to_undo() -> None:
    made = Journey()
    asks, says = Event.named("asks"), Event.named("says")
    made.travel.on(asks, to=made.at_home, do=asking(Compensate(made.trip)))
    made.travel.on(says, to=made.at_home, compensate=made.trip)
    for event in (asks(), says()):
        case = made.booked().when(Arrived()).when(event)
        case.then(state="wide travel at-home papers stamped").then_owes(made.visa, made.seat, made.room)


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        (
            "tirp",
            "returned Compensate('tirp'), and the pipeline has no such state. Did you mean 'trip'?",
        ),
        (
            "papers",
            "is not for a transition out of 'trip': it may undo that state, one around it or one inside",
        ),
        ("resting", "and 'resting' runs no step, nor does a state inside it, that has a compensation"),
        (5, "Compensate takes a state, its name, or the pipeline, not int"),
        ("", "returned Compensate(''), and the pipeline has no such state"),
    ],
)
def test_what_an_action_may_not_ask_for(scope: Any, message: str) -> None:
    made = Journey()
    made.trip.on(Gone, to=made.at_home, do=asking(Compensate(scope)))
    made.booked().when(Gone()).then_refused(Reason.ACTION_FAILED, saying=message, holds=True)


def test_two_states_beside_each_other_are_not_undone_by_one_transition() -> None:
    made = Journey()
    asks = Event.named("asks")
    made.wide.on(asks, to=made.after, do=asking(Compensate("trip"), Compensate("papers")))
    message = "and 'trip' is undone already: name a state around both"
    made.booked().when(asks()).then_refused(Reason.ACTION_FAILED, saying=message)


# Histories.


def test_undoing_a_state_clears_its_histories_and_no_others() -> None:
    made = Journey()
    back, deep = made.trip.history("back"), made.wide.history("deep", deep=True)
    made.at_home.on(Again, to=back)
    made.abroad.on(Again, to=back)
    made.after.on(Again, to=deep)
    case = made.booked().when(Arrived()).when(Again()).then(state="wide travel trip resting papers stamped")
    case = made.booked().when(Dropped()).undone(made.leave_seat).undone(made.leave_room).when(Again())
    case.then(state="wide travel trip lodging papers stamped")
    case = made.booked().when(Gone()).when(Again()).then(state="wide travel trip resting papers stamped")


def test_histories_further_inside_are_cleared_too() -> None:
    made = Journey()
    back, anew = made.trip.history("back"), Event.named("anew")
    made.travel.on(anew, to=made.at_home, compensate=True)
    made.at_home.on(Again, to=back)
    case = made.booked().when(anew()).then(state="wide travel $compensating papers stamped")
    assert case.run is not None
    assert "back" not in case.run.configuration
    case.undone(made.leave_seat).undone(made.leave_room).when(Again())
    case.then(state="wide travel trip lodging papers stamped")


def test_what_leaves_it_at_the_same_time_has_it_undone_around_all_that_is_left() -> None:
    made, missed = Journey(), Event.named("missed")
    made.flying.on(missed, to=made.flying, do=asking(Compensate()))
    made.flow.on(missed, to=made.after)
    case = made.begun().step_done(made.room, 1).step_done(made.visa, 3).when(missed())
    case.then(state="$compensating").then_owes(made.visa, made.room)
    case.step_stopped(made.seat, "ended", 2).then_runs(made.leave_seat).undone(made.leave_seat)
    case.then(state="wide travel trip flying papers asking").then_runs(made.seat, made.visa)
