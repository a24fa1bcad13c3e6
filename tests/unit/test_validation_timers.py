"""Mistakes with timers: each with what it is, its place, and its cure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from statemachines import After
from statemachines.limits import DELAY_DAYS_MAX
from statemachines.validation import find_mistakes
from tests.unit.charted import nested, note, parallel, with_histories
from tests.unit.mistaken import (
    Flow,
    awaited,
    line_of,
    right,
    state_of,
    the_mistake,
    yes,
)

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("delay", "message", "cure"),
    [
        (-HOUR, f"the delay {-HOUR} is negative", "A timer falls due after its state is entered"),
        (
            timedelta.max,
            f"the delay of {timedelta.max.days} days is longer than a run is kept",
            "Wait for at most",
        ),
        (
            timedelta(days=DELAY_DAYS_MAX, microseconds=1),
            "is longer than a run is kept",
            f"{DELAY_DAYS_MAX} days",
        ),
        (
            300,
            "the delay 300 is neither a timedelta nor a function of the context",
            "Write timedelta(minutes=5)",
        ),
        ("5 min", "the delay '5 min' is neither", "name a function that returns one, or a time"),
        (datetime(9999, 12, 31), "is neither a timedelta nor a function", "Write timedelta(minutes=5)"),  # noqa: DTZ001 - the mistake
        (awaited, "async", ""),
        (yes, "cannot be called with (context)", ""),
        (lambda: HOUR, "cannot be called with (context)", ""),
    ],
)
def test_a_delay_is_one(delay: Any, message: str, cure: str) -> None:
    flow = right()
    state_of(flow, "open").after(delay, to="done")
    mistake = the_mistake(flow)
    assert message in mistake.message
    assert cure in mistake.cure
    assert (mistake.state, mistake.place) == ("open", flow.moves[-1].place)


def test_a_delay_of_nothing_and_one_as_long_as_may_be_are_fine() -> None:
    flow = right()
    state_of(flow, "open").after(timedelta(0), to="done")
    state_of(flow, "open").after(timedelta(days=DELAY_DAYS_MAX), to="done")
    flow.after(lambda _context: None, to="done")
    assert find_mistakes(flow) == []


def test_timers_that_are_due_at_once_and_set_one_another_are_told_of() -> None:
    flow = right()
    state_of(flow, "open").after(timedelta(0), to="open", reenter=True)
    mistake = the_mistake(flow, "warning")
    assert mistake.message == "timers that are due at once and have no guard lead in a circle: open -> open"
    assert mistake.cure == (
        "Give one of them a delay or a guard: until an event leads out, each is a row of the log"
    )
    assert (mistake.state, mistake.place) == ("open", flow.moves[-1].place)
    flow = right()
    state_of(flow, "open").after(timedelta(0), to=flow.state("on", initial=False))
    state_of(flow, "on").after(timedelta(0), to="open")
    assert the_mistake(flow, "warning").message.endswith("in a circle: open -> on -> open")


@pytest.mark.parametrize(
    "timer",
    [
        {"delay": timedelta(microseconds=1), "reenter": True},
        {"delay": timedelta(0), "reenter": True, "when": yes},
        {"delay": timedelta(0)},
    ],
)
def test_a_timer_that_may_rest_is_fine(timer: dict[str, Any]) -> None:
    flow = right()
    state_of(flow, "open").after(timer.pop("delay"), to="open", **timer)
    assert not any("in a circle" in one.message for one in find_mistakes(flow))


def test_a_state_that_may_be_left_before_its_timer_is_due_again_is_fine() -> None:
    flow = right()
    state_of(flow, "open").after(timedelta(0), to="open", reenter=True)
    state_of(flow, "open").always(to="done", when=yes)
    assert find_mistakes(flow) == []


def test_a_final_state_has_no_timer() -> None:
    flow = right()
    state_of(flow, "done").after(HOUR, to="open")
    mistake = the_mistake(flow)
    assert mistake.message == "a transition leads out of the final state 'done', where runs have ended"
    assert mistake.event == "after.done.0"


def test_a_timer_that_leads_to_its_own_state_without_leaving_it_comes_once_and_is_warned_of() -> None:
    def escalating(**more: Any) -> Flow:
        flow = nested()
        state_of(flow, "first").after(HOUR, to="first", do=note, **more)
        return flow

    mistake = the_mistake(escalating(), "warning")
    assert (
        mistake.message
        == "the timer of 'first' leads to 'first' itself without leaving it, so that it comes once"
    )
    assert mistake.cure == "reenter=True sets it again each time; leave to= out where once is meant"
    assert (mistake.state, mistake.place.line) == ("first", line_of(escalating, ".after("))
    assert find_mistakes(escalating(reenter=True)) == []
    once, begun_anew = nested(), nested()
    state_of(once, "first").after(HOUR, do=note)
    state_of(begun_anew, "box").after(HOUR, to="box")
    assert find_mistakes(once) == find_mistakes(begun_anew) == []


def test_a_history_has_no_timer() -> None:
    flow = with_histories()
    state_of(flow, "last").after(HOUR, to="left-off")
    assert "leads out of the history 'last', which is never active" in the_mistake(flow).message


def test_a_timer_of_another_region_is_a_transition_into_it() -> None:
    flow = parallel()
    state_of(flow, "left-on").after(HOUR, to="right-off")
    assert "which is in another region" in the_mistake(flow).message


def test_timers_are_taken_where_they_are_set_only() -> None:
    flow = right()
    state_of(flow, "open").on(After, to="done")
    found = [one.message for one in find_mistakes(flow)]
    assert "After comes from timers only, and this one is of none" in found
