"""What a run sends to itself, to others, and later, through the core."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from statemachines import Cancel, Event, Pipeline, Publish, Send
from statemachines.effects import Asked, Out
from statemachines.limits import DELAY_DAYS_MAX, DELAYED_MAX, MEMORY_BYTES_MAX
from statemachines.outcome import Ignored, Reason
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
    timed,
)


def test_what_a_run_sends_to_itself_is_a_row_of_its_own_before_newer_events() -> None:
    def send(log: Log, _event: Go) -> Out:
        log.words.append("sent")
        return [Send(Said(word="one")), Send(Said(word="two"))]

    case = given(acting(send), Begun()).when(Go(), Said(word="newer"))
    case.then(context={"words": ["sent", "one", "two", "newer"]})
    assert case.run is not None
    assert (case.run.sequence, due(case)) == (5, [])


def test_what_is_sent_to_the_run_by_its_own_key_is_sent_to_itself() -> None:
    def send(_log: Log, _event: Go) -> Out:
        return [Send(Said(word="a"), to="test"), Send(Said(word="b"), to="test", pipeline="acting")]

    case = given(acting(send), Begun()).when(Go(), Said(word="newer"))
    case.then(context={"words": ["a", "b", "newer"]})


def test_what_waits_is_taken_before_what_a_run_sends_to_itself() -> None:
    flow = timed()
    away = flow.states[1]
    away.entry(lambda _log, _event: Send(Said(word="sent")))
    case = given(flow, Begun()).when(Back()).then_deferred()
    # It is there and back again before it is told what it sent.
    case.when(Go()).then(state="here", context={"words": ["sent"]})
    assert [one for one, _ in case.followed] == ["back", "said"]


def test_what_nothing_takes_of_it_is_noted_and_gone() -> None:
    case = given(acting(lambda _log, _event: Send(Touched())), Begun()).when(Go()).then(state="open")
    assert [(one, type(outcome)) for one, outcome in case.followed] == [("touched", Ignored)]
    assert (case.deferred, due(case)) == ([], [])


def test_what_is_sent_to_another_run_leaves_at_once_or_later() -> None:
    def send(_log: Log, _event: Event) -> Out:
        return [
            Send(Said(word="now"), to="other"),
            Send(Said(word="later"), to="all", pipeline="ledger", after=MINUTE),
            Publish("letters", Said(word="hi"), after=2 * MINUTE),
        ]

    case = given(acting(send), Begun()).when(Go())
    assert [(one.what, one.key, one.pipeline) for one in case.sent] == [
        ("send", "other", ""),
        ("send", "all", "ledger"),
        ("publish", "test", ""),
    ]
    assert case.published == []
    case.later(MINUTE).then(state="open", context={"words": []})
    assert case.sent == [Asked("send", "said", b'{"word":"later"}', "", "ledger", "all")]
    case.later(MINUTE).then(publishes=[Publish("letters", Said(word="hi"))])
    assert case.later(timedelta(days=9)).published == []


def test_what_was_to_come_is_called_off_by_its_id() -> None:
    def send(log: Log, _event: Go) -> Out:
        if log.words:
            return [Cancel("x"), Cancel("nothing")]
        return [
            Send(Said(word="a"), after=MINUTE, id="x"),
            Publish("letters", Said(), after=MINUTE, id="x"),
            Send(Said(word="b"), after=MINUTE, id="y"),
            Send(Said(word="c"), after=MINUTE),
            Send(Said(word="d"), to="other", after=MINUTE, id="x"),
        ]

    flow = acting(send)
    case = given(flow, Begun(), Go(), Said(word="heard"), Go()).later(timedelta(days=1))
    assert case.context.words == ["heard", "b", "c"]
    assert (case.published, case.sent) == ([], [])
    both = given(acting(lambda _log, _event: [Send(Said(), id="x"), Cancel("x"), Cancel("")]), Begun(), Go())
    assert both.followed == []


def test_of_a_run_that_has_ended_nothing_comes_any_more() -> None:
    def send(_log: Log, _event: Event) -> Out:
        return [
            Send(Said(word="self")),
            Send(Said(word="later"), after=MINUTE),
            Send(Said(word="other"), to="other"),
            Send(Said(word="other later"), to="other", after=MINUTE),
            Publish("letters", Said()),
            Publish("letters", Said(), after=MINUTE),
        ]

    case = given(acting(send), Begun(), Go()).when(Back()).then(ended=True)
    assert [(one.what, one.key, one.due) for one in case.sent] == [("send", "other", 0)]
    assert (len(case.published), due(case), case.followed) == (1, [], [])
    assert case.later(timedelta(days=9)).followed == []


def test_a_run_that_sends_to_itself_for_ever_is_found_by_the_test_kit() -> None:
    endless = Pipeline("endless", Log, topics=["times"])
    endless.state("open", initial=True).on(Go, do=lambda _log, _event: Send(Go()))
    endless.start(Begun, lambda _event: Log())
    with pytest.raises(AssertionError, match="goes on by itself again and again"):
        given(endless, Begun()).when(Go())


def test_so_many_timers_and_delayed_events_a_run_may_have() -> None:
    many = [Send(Said(), after=MINUTE)] * (DELAYED_MAX - 1)
    case = given(acting(lambda _log, _event: many), Begun()).when(Go()).when(Go())
    case.then_refused(Reason.ACTION_FAILED, saying=f"has {DELAYED_MAX} timers and delayed events", holds=True)
    assert len(due(case)) == DELAYED_MAX - 1


def test_what_falls_due_later_may_take_so_much_room() -> None:
    def say_much(_log: Log, _event: Go) -> Send:
        return Send(Said(word="x" * 500_000), after=MINUTE)

    case = given(acting(say_much), Begun()).when(Go()).then().when(Go())
    case.then_refused(
        Reason.ACTION_FAILED,
        saying=f"of {MEMORY_BYTES_MAX} allowed; what is to come as {Said.event_type()!r} grew most, from 500",
        holds=True,
    )
    case.then_refused(Reason.ACTION_FAILED, saying=" bytes, by test_what")


def test_what_a_run_says_at_its_end_may_take_so_much_room() -> None:
    def say_all(_log: Log, _event: Go) -> str:
        return "x" * MEMORY_BYTES_MAX

    flow = Pipeline("talking", Log, topics=["times"])
    flow.start(Begun, lambda _event: Log())
    flow.state("open", initial=True).on(Go, to=flow.state("over", final=True, output=say_all))
    case = given(flow, Begun()).when(Go())
    size = MEMORY_BYTES_MAX + 2
    grown = f"its output grew most, from 0 to {size} bytes, by test_what"
    case.then_refused(Reason.ACTION_FAILED, saying=grown, holds=True)
    case.then_refused(Reason.ACTION_FAILED, saying="say_all of 'over'")


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        (Send(Said(), after=MINUTE, at=NOW), "Send takes after= or at=, not both"),
        (Send(Said(), after=5), "Send takes after= as a timedelta, not int"),  # type: ignore[arg-type]  # the mistake
        (Send(Said(), at=datetime(2030, 1, 1)), "as a datetime with a zone"),  # noqa: DTZ001 - the mistake
        (Send(Said(), after=timedelta.max), f"in more than {DELAY_DAYS_MAX} days"),
        (Send(Said(), pipeline="ledger"), "needs the key of a run"),
        (Send(Said(), to=""), "which is empty"),
        (Send(Said(), to=7), "takes to as text, not int"),  # type: ignore[arg-type]  # the mistake
        (Send(Said), "needs an event whose class names a type, not the class Said itself"),  # type: ignore[arg-type]  # the mistake
        (Publish("letters", Said(), after=5), "Publish takes after= as a timedelta, not int"),  # type: ignore[arg-type]  # the mistake
        (Cancel(None), "Cancel takes id as text, not NoneType"),  # type: ignore[arg-type]  # the mistake
    ],
)
def test_effects_that_make_no_sense_are_refused(effect: Any, said: str) -> None:
    case = given(acting(lambda _log, _event: effect), Begun()).when(Go())
    case.then_refused(Reason.ACTION_FAILED, saying=said, holds=True)


def test_a_delay_that_is_negative_comes_at_once_behind_what_is_due() -> None:
    case = given(acting(lambda _log, _event: Send(Said(word="x"), after=-MINUTE)), Begun(), Go())
    assert due(case) == [("said", 0)]
    case.later(timedelta(0)).then(context={"words": ["x"]})
