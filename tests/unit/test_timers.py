"""Timers of states and of the run, through the core."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from statemachines import After, Defer, Event, Failed, Pipeline, Send
from statemachines.effects import Out
from statemachines.limits import DELAY_DAYS_MAX
from statemachines.outcome import DUPLICATE, WAITS, Ignored, Moved, Reason
from statemachines.testkit import given
from tests.unit.spoken import (
    MINUTE,
    NOW,
    Back,
    Begun,
    Go,
    Log,
    Said,
    Touched,
    acting,
    due,
    heard,
    micros,
    say,
    timed,
)


def test_a_timer_falls_due_once_so_long_after_its_state_was_entered() -> None:
    case = given(timed(), Begun())
    assert due(case) == [("after.here.0", micros(5 * MINUTE))]
    case.later(5 * MINUTE - timedelta(microseconds=1))
    assert (case.state, case.followed) == ("here", [])
    case.later(timedelta(microseconds=1)).then(state="late", context={"words": ["late"]})
    assert [one for one, _ in case.followed] == ["after.here.0"]
    assert due(case) == []
    case.later(timedelta(days=9)).then(context={"words": ["late"]})
    assert case.followed == []


def test_a_memory_is_written_where_it_changes_and_not_else() -> None:
    def written() -> bytes | None:
        assert isinstance(case.outcome, Moved)
        return case.outcome.memory

    case = given(timed(), Begun()).when(Go())
    assert written() == b"{}", "the timer is called off"
    case.when(Said(word="still away"))
    assert written() is None, "nothing was there, and nothing is"
    case = given(timed(), Begun()).later(5 * MINUTE)
    assert written() == b"{}", "the timer has fallen due"
    case.when(Said(word="late"))
    assert written() is None


def test_it_is_not_when_its_state_was_left_and_begins_anew_when_it_is_entered_again() -> None:
    case = given(timed(), Begun()).later(4 * MINUTE).when(Go())
    assert due(case) == []
    case.later(2 * MINUTE).when(Back())
    assert due(case) == [("after.here.0", micros(11 * MINUTE))]
    case.later(5 * MINUTE).then(state="late")


def test_a_transition_that_does_not_leave_the_state_leaves_its_timer_alone() -> None:
    case = given(timed(), Begun()).later(4 * MINUTE).when(Touched())
    assert due(case) == [("after.here.0", micros(5 * MINUTE))]


@pytest.mark.parametrize(("reenter", "falls"), [(True, 9), (False, 5)])
def test_reenter_sets_a_timer_again(reenter: bool, falls: int) -> None:
    flow = timed()
    flow.states[0].on(Said, to="here", reenter=reenter)
    case = given(flow, Begun()).later(4 * MINUTE).when(Said())
    assert due(case) == [("after.here.0", micros(falls * MINUTE))]


def test_a_timer_that_enters_its_state_again_comes_again_and_again() -> None:
    flow = timed()
    flow.states[0].after(MINUTE, to="here", reenter=True, do=say("tick"))
    case = given(flow, Begun()).later(10 * MINUTE).then(state="here")
    assert case.context.words == ["tick"] * 10
    once = timed()
    once.states[0].after(MINUTE, do=say("tick"))
    assert given(once, Begun()).later(4 * MINUTE).context.words == ["tick"]


def test_a_state_that_is_entered_and_left_in_one_macrostep_sets_nothing() -> None:
    asked = []

    def when(log: Log) -> timedelta:
        asked.append(log)
        return MINUTE

    flow = timed(when)
    flow.states[0].always(to="away", when=lambda log, _event: bool(log.words))
    flow.start(Said, lambda event: Log(words=[event.word]))
    case = given(flow, Said(word="a"))
    assert (case.state, due(case), asked) == ("away", [], [])


def test_a_function_says_how_long_or_when_or_never_from_the_context_at_the_end_of_the_macrostep() -> None:
    flow = timed(lambda log: log.at)
    flow.states[0].entry(lambda log, _event: setattr(log, "at", next(answers)))
    for answer, falls in (
        (7 * MINUTE, micros(7 * MINUTE)),
        (timedelta(0), 0),
        (-MINUTE, 0),
        (NOW + 8 * MINUTE, micros(8 * MINUTE)),
        ((NOW + 8 * MINUTE).astimezone(tz=None), micros(8 * MINUTE)),
        (NOW - timedelta(days=9), 0),
    ):
        answers = iter([answer] * 9)
        machine_flow = timed(lambda _log, answer=answer: answer)
        assert due(given(machine_flow, Begun())) == [("after.here.0", falls)]
    assert due(given(timed(lambda _log: None), Begun())) == []
    ends = timed(lambda log: MINUTE * len(log.words))
    ends.states[0].entry(say("one"))
    ends.states[0].entry(say("two"))
    assert due(given(ends, Begun())) == [("after.here.0", micros(2 * MINUTE))]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (5, "returned int; it says when by a timedelta, a datetime with a zone, or None"),
        ("5 min", "returned str; it says when by"),
        (datetime(2030, 1, 1), "returned a time without a zone"),  # noqa: DTZ001 - the mistake
        (timedelta.max, f"is to fall due in more than {DELAY_DAYS_MAX} days"),
        (timedelta(days=DELAY_DAYS_MAX, microseconds=1), f"in more than {DELAY_DAYS_MAX} days"),
        (datetime(9999, 12, 31, 23, 59, tzinfo=UTC), f"in more than {DELAY_DAYS_MAX} days"),
    ],
)
def test_a_function_that_answers_nonsense_refuses_the_event_that_entered_the_state(
    answer: Any, said: str
) -> None:
    def when(log: Log) -> Any:
        return answer if log.words else MINUTE

    flow = timed(when)
    flow.states[1].on(Said, to="here", do=heard)
    case = given(flow, Begun(), Go()).when(Said(word="x"))
    case.then_refused(Reason.ACTION_FAILED, saying=said, holds=True)
    assert "when" in getattr(case.outcome, "error", "")
    assert case.state == "away"


@pytest.mark.parametrize("on_error", ["refuse", "ignore"])
def test_one_that_raises_does_too_and_nobody_takes_that_failure(on_error: Any) -> None:
    def when(_log: Log) -> timedelta:
        raise LookupError("no clock")

    flow = timed(when, on_error=on_error)
    flow.on(Failed, to="away")
    given(flow).when(Begun()).then_refused(Reason.ACTION_FAILED, saying="when raised LookupError: no clock")


def test_what_falls_due_comes_in_the_order_of_due_times_then_of_creation() -> None:
    def send(_log: Log, _event: Go) -> Out:
        return [
            Send(Said(word="c"), after=3 * MINUTE),
            Send(Said(word="a"), after=MINUTE),
            Send(Said(word="d"), after=3 * MINUTE),
            Send(Said(word="b"), at=NOW + 2 * MINUTE),
        ]

    def send_more(_log: Log, _event: Touched) -> Out:
        return [Send(Said(word="e"), at=NOW + 3 * MINUTE), Send(Said(word="0"), at=NOW)]

    flow = acting(send)
    flow.states[0].on(Touched, do=send_more)
    case = given(flow, Begun(), Go()).later(timedelta(seconds=1)).when(Touched()).later(5 * MINUTE)
    assert case.context.words == ["0", "a", "b", "c", "d", "e"]
    assert [type(outcome) for _, outcome in case.followed] == [Moved] * 6
    assert case.run is not None
    assert case.run.sequence == 3 + 6  # each is a row of its own


def test_what_is_due_at_once_after_a_downtime_comes_in_the_same_order() -> None:
    def send(_log: Log, _event: Go) -> Out:
        return [Send(Said(word=str(minutes)), after=minutes * MINUTE) for minutes in (9, 3, 7, 1)]

    flow = acting(send)
    flow.states[0].policy(Touched, unexpected=Defer(5 * MINUTE))
    flow.states[0].on(Touched, when=lambda log, _event: len(log.words) > 9)
    case = given(flow, Begun()).when(Go(), Touched())
    case.now += timedelta(hours=1)
    case.later(timedelta(0))
    assert case.context.words == ["1", "3", "7", "9"]
    assert [one for one, _ in case.followed] == ["said", "said", "touched", "said", "said"]


def test_a_time_to_live_that_ends_takes_its_turn_among_timers() -> None:
    flow = timed(5 * MINUTE)
    flow.states[0].policy(Back, unexpected="defer")
    flow.policy(Back, unexpected="ignore")
    case = given(flow, Begun()).when(Back()).later(5 * MINUTE).then(state="late")
    assert case.deferred == ["back"]
    case.later(timedelta(days=1)).then_refused(Reason.EXPIRED)


@pytest.mark.parametrize(
    ("events", "first"),
    [([Begun(), Begun()], "after.here.0"), ([Begun(), Go(), Begun(), Back()], "begun")],
    ids=["the timer", "the time to live"],
)
def test_of_a_timer_and_a_time_to_live_that_end_together_the_one_that_began_earlier_goes_first(
    events: list[Event], first: str
) -> None:
    case = given(timed(5 * MINUTE, unexpected=Defer(5 * MINUTE))).when(*events)
    assert case.deferred == ["begun"]
    case.later(5 * MINUTE)
    assert (len(case.followed), case.followed[0][0], case.state) == (2, first, "late")


def test_the_run_s_own_timer_counts_from_its_beginning_whatever_its_state() -> None:
    flow = timed(timedelta(days=9))
    flow.after(10 * MINUTE, to=flow.state("ended", final=True), do=say("over"))
    case = given(flow, Begun(), Go()).later(6 * MINUTE).when(Back(), Touched())
    assert due(case)[0] == ("after.0", micros(10 * MINUTE))
    case.later(4 * MINUTE).then(state="ended", ended=True, context={"words": ["touched", "over"]})
    assert due(case) == []


def test_a_timer_that_nothing_takes_by_then_is_noted_and_gone() -> None:
    flow = timed()
    flow.states[0].after(MINUTE, to="away", when=lambda log, _event: bool(log.words))
    case = given(flow, Begun()).later(MINUTE).then_ignored(Reason.UNEXPECTED)
    assert isinstance(case.outcome, Ignored)
    assert len(case.outcome.tried) == 1
    assert [one for one, _ in due(case)] == ["after.here.0"]
    assert case.deferred == []


def test_timers_of_one_state_are_several_and_the_first_that_leaves_it_stops_the_others() -> None:
    flow = timed()
    flow.states[0].after(MINUTE, do=say("soon"))
    flow.states[0].after(2 * MINUTE, to="away", do=say("leaves"))
    case = given(flow, Begun()).later(timedelta(days=1)).then(state="away")
    assert case.context.words == ["soon", "leaves"]


def test_a_handler_of_a_timer_is_given_what_it_is() -> None:
    seen = []

    def look(_log: Log, event: After) -> None:
        seen.append((event.meta.type, event.meta.time, event.meta.now))

    flow = timed()
    flow.states[0].after(MINUTE, do=look)
    given(flow, Begun()).later(MINUTE)
    assert set(seen) == {("after.here.1", NOW + MINUTE, NOW + MINUTE)}


def regions() -> Pipeline[Log]:
    flow = Pipeline("regions", Log, topics=["times"])
    both, away = flow.state("both", initial=True), flow.state("away")
    left, right = both.region("left"), both.region("right")
    slow, fast = left.state("slow", initial=True), left.state("fast")
    calm, loud = right.state("calm", initial=True), right.state("loud")
    flow.start(Begun, lambda _event: Log())
    slow.after(5 * MINUTE, to=fast)
    fast.after(MINUTE, to=slow)
    calm.after(3 * MINUTE, to=loud)
    both.on(Go, to=away)
    away.on(Back, to=both.history("before", deep=True))
    slow.on(Touched, to=fast)
    return flow


def test_timers_of_regions_run_side_by_side() -> None:
    case = given(regions(), Begun()).later(3 * MINUTE).then(state="both left slow right loud")
    assert due(case) == [("after.slow.0", micros(5 * MINUTE))]
    case.later(2 * MINUTE).then(state="both left fast right loud")
    case.later(MINUTE).then(state="both left slow right loud")


def test_a_region_that_is_left_stops_no_timer_of_another_one() -> None:
    case = given(regions(), Begun()).later(2 * MINUTE).when(Touched())
    assert due(case) == [("after.calm.0", micros(3 * MINUTE)), ("after.fast.0", micros(3 * MINUTE))]


def test_what_a_history_leads_back_to_begins_its_timers_anew() -> None:
    case = given(regions(), Begun()).later(2 * MINUTE).when(Touched(), Go())
    assert due(case) == []
    case.later(MINUTE).when(Back()).then(state="both left fast right calm")
    assert sorted(due(case)) == [("after.calm.0", micros(6 * MINUTE)), ("after.fast.0", micros(4 * MINUTE))]


def test_a_run_that_begins_anew_has_nothing_of_the_one_before() -> None:
    flow = timed(closed="restart")
    flow.on(Failed, to=flow.state("ended", final=True))
    flow.states[0].on(Said, to="ended")
    case = given(flow, Begun(), Said(), Begun())
    assert case.run is not None
    assert case.run.generation == 1
    assert due(case) == [("after.here.0", micros(5 * MINUTE))]


def test_a_timer_whose_handler_fails_holds_the_run_and_what_else_is_due_waits() -> None:
    def fail(_log: Log, _event: Event) -> None:
        raise LookupError("broken")

    flow = timed()
    flow.states[0].after(MINUTE, do=fail)
    case = given(flow, Begun()).later(MINUTE)
    case.then_refused(Reason.ACTION_FAILED, saying="broken", holds=True)
    assert case.when(Touched()).outcome == WAITS
    assert case.later(timedelta(days=1)).state == "here"
    assert case.followed == []


def test_the_test_kit_says_that_what_a_run_took_by_itself_holds_it() -> None:
    def fail(_log: Log, _event: Event) -> None:
        raise LookupError("broken")

    flow = acting(lambda _log, _event: Send(Touched()))
    flow.states[0].on(Touched, do=fail)
    case = given(flow, Begun()).when(Go())
    with pytest.raises(
        AssertionError, match="the run is held by touched, which it took by itself: 'action raised'"
    ):
        case.then()


def test_what_the_run_says_at_its_end_is_kept() -> None:
    flow = Pipeline("ending", Log, topics=["times"])
    open_ = flow.state("open", initial=True)
    flow.start(Begun, lambda _event: Log())
    open_.on(
        Said, to=flow.state("over", final=True, output=lambda log, event: [*log.words, event.word]), do=heard
    )
    case = given(flow, Begun())
    before = case.output
    case.when(Said(word="bye")).then(ended=True)
    assert (before, case.output) == (None, ["bye", "bye"])
    assert case.when_again().outcome == DUPLICATE


def test_what_it_said_is_not_said_by_the_next_generation() -> None:
    flow = Pipeline("ending", Log, topics=["times"], closed="restart")
    open_ = flow.state("open", initial=True)
    flow.start(Begun, lambda _event: Log())
    open_.on(Said, to=flow.state("over", final=True, output=lambda _log, _event: "bye"))
    flow.policy(Said, order_by="word")
    flow.policy(Begun, order_by="number")
    case = given(flow, Begun(number=1), Said(word="1"))
    assert case.output == "bye"
    assert case.when(Begun(number=2)).output is None
