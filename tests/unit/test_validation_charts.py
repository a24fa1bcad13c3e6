"""Mistakes in how a chart is built: what is inside of states, where they begin, what transitions name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from statemachines import Done, Event, Failed, in_state
from statemachines.limits import STATE_DEPTH_MAX
from statemachines.machine import compile_pipeline
from statemachines.testkit import given
from statemachines.validation import find_mistakes
from tests.unit import charted
from tests.unit.charted import (
    Said,
    beginning_further_inside,
    nested,
    note,
    parallel,
    with_guards_and_eventless,
    with_histories,
)
from tests.unit.mistaken import (
    Asked,
    Begun,
    Ended,
    Flow,
    awaited,
    line_of,
    state_of,
    the_mistake,
    yes,
)


@pytest.mark.parametrize(
    "make", [nested, parallel, with_histories, with_guards_and_eventless, beginning_further_inside]
)
def test_right_charts_have_no_mistakes(make: Callable[[], Flow]) -> None:
    flow = make()
    assert [str(one) for one in find_mistakes(flow)] == []
    compile_pipeline(flow)


def test_a_state_with_states_begins_in_one_of_them() -> None:
    flow = nested()
    state_of(flow, "first").initial = False
    mistake = the_mistake(flow)
    assert mistake.message == "'box' has no initial state"
    assert mistake.cure == "Mark the state inside it that it begins in with initial=True"
    assert (mistake.state, mistake.place) == ("box", state_of(flow, "box").place)
    assert mistake.place == (charted.__file__, line_of(nested, 'flow.state("box")'))


def test_a_region_begins_in_one_of_its_states() -> None:
    flow = parallel()
    state_of(flow, "left-on").initial = False
    mistake = the_mistake(flow)
    assert (mistake.message, mistake.state) == ("'left' has no initial state", "left")
    assert mistake.place.line == line_of(parallel, "both.region(side)")


def test_a_region_without_states_is_a_warning() -> None:
    flow = parallel()
    state_of(flow, "both").region("empty")
    flow.moves.pop()  # with an empty region, the state around it is never done
    state_of(flow, "both").on(Ended, to="done")
    mistake = the_mistake(flow, "warning")
    assert mistake.message == "the region 'empty' has no states, so that nothing ever changes in it"
    assert mistake.cure == "Add some with .state(name), one of them initial=True"


def test_only_one_state_inside_another_may_be_initial() -> None:
    flow = nested()
    state_of(flow, "box").state("other", initial=True).on(Asked, to="second")
    mistake = the_mistake(flow)
    assert mistake.message == "the state 'other' is initial, and so is 'first'"
    assert mistake.cure == "Keep initial=True at one state of 'box'"
    assert mistake.state == "other"
    assert mistake.place.line == line_of(test_only_one_state_inside_another_may_be_initial, '"other"')


def test_where_a_state_begins_is_said_once() -> None:
    flow = nested()
    state_of(flow, "box").initially("second")
    mistake = the_mistake(flow)
    assert mistake.message == "'box' says twice where it begins: here, and by initial=True of 'first'"
    assert mistake.place.line == line_of(test_where_a_state_begins_is_said_once, "initially")


@pytest.mark.parametrize(
    ("to", "message", "cure"),
    [
        ("secnod", "'box' begins in 'secnod', which there is not", "Did you mean 'second'?"),
        ("done", "'box' begins in 'done', which is not inside it", "Name a state inside it"),
        ("box", "'box' begins in 'box', which is not inside it", "Name a state inside it"),
        (None, "'box' begins in nothing", "Name a state inside it"),
        (
            ["first", "second"],
            "'box' begins in 'first' and 'second', which cannot both be active",
            "Name one target, or one in each of several regions of a parallel state",
        ),
    ],
)
def test_a_state_begins_inside_of_itself(to: Any, message: str, cure: str) -> None:
    flow = nested()
    state_of(flow, "first").initial = False
    state_of(flow, "box").initially(to)
    mistake = the_mistake(flow)
    assert (mistake.message, mistake.cure, mistake.state) == (message, cure, "box")
    assert mistake.place.line == line_of(test_a_state_begins_inside_of_itself, "initially")


def test_a_parallel_state_begins_in_all_its_regions() -> None:
    flow = parallel()
    state_of(flow, "both").initially("left-on")
    mistake = the_mistake(flow)
    assert mistake.message == "'both' is parallel: it begins in all its regions"
    assert mistake.cure == "Say of each region where it begins"


def test_a_state_has_states_or_regions() -> None:
    flow = parallel()
    state_of(flow, "both").state("stray", initial=True)
    messages = [mistake.message for mistake in find_mistakes(flow)]
    assert "'both' has both states and regions" in messages
    assert "the state 'stray' is initial, but 'both' begins in all its regions" in messages


def test_a_final_state_has_nothing_inside() -> None:
    flow = nested()
    state_of(flow, "finished").state("more", initial=True)
    message = "the final state 'finished' has states inside, where nothing goes on"
    assert message in [mistake.message for mistake in find_mistakes(flow)]


def test_a_history_has_nothing_inside_and_something_to_remember() -> None:
    flow = nested()
    past = state_of(flow, "box").history("past")
    state_of(flow, "open").on(Said, to=past)
    past.state("more")
    state_of(flow, "first").history("none")
    state_of(flow, "open").on(Said, to="none", when=yes)
    messages = [mistake.message for mistake in find_mistakes(flow)]
    assert "the history 'past' has states inside, but is none itself" in messages
    assert "'first' has a history, but no states to remember" in messages


@pytest.mark.parametrize(
    ("default", "message", "cure"),
    [
        ("fisrt", "the history 'past' leads to 'fisrt', which there is not", "Did you mean 'first'?"),
        (
            "open",
            "the history 'past' leads to 'open', which is not inside the state around it",
            "Name a state inside it",
        ),
        ("past", "the history 'past' leads to 'past', which is a history itself", "Name a state as default"),
        (
            ["first", "second"],
            "the history 'past' leads to 'first' and 'second', which cannot both be active",
            "Name one target, or one in each of several regions of a parallel state",
        ),
    ],
)
def test_a_history_leads_into_the_state_around_it(default: Any, message: str, cure: str) -> None:
    flow = nested()
    past = state_of(flow, "box").history("past", default=default)
    state_of(flow, "open").on(Said, to=past)
    state_of(flow, "box").on(Said, to="open")
    mistake = the_mistake(flow)
    assert (mistake.message, mistake.cure, mistake.state) == (message, cure, "past")
    assert mistake.place.line == line_of(test_a_history_leads_into_the_state_around_it, "history(")


def test_a_state_that_begins_in_its_history_needs_a_default_there() -> None:
    flow = nested()
    state_of(flow, "first").initial = False
    box = state_of(flow, "box")
    box.initially(box.history("past"))
    mistake = the_mistake(flow)
    assert mistake.message == (
        "'box' begins in the history 'past', which has no default, and so leads to where 'box' begins"
    )
    assert mistake.cure == "Give the history a default"


def test_nothing_is_done_in_a_history_and_nothing_leads_out() -> None:
    flow = nested()
    past = state_of(flow, "box").history("past", default="first")
    state_of(flow, "open").on(Said, to=past)
    state_of(flow, "box").on(Said, to="open")
    past.entry(note)
    past.exit(note)
    past.on(Asked, to="done")
    assert [mistake.message for mistake in find_mistakes(flow)] == [
        "the history 'past' is never entered itself, so that this is never done",
        "the history 'past' is never left itself, so that this is never done",
        "a transition leads out of the history 'past', which is never active itself",
    ]


def test_only_a_final_state_has_an_output() -> None:
    flow = nested()
    state_of(flow, "box").state("odd", output=lambda _context, _event: 1).on(Asked, to="first")
    state_of(flow, "first").on(Said, to="odd")
    mistake = the_mistake(flow)
    assert mistake.message == "'odd' has an output, but is not final"
    assert mistake.cure == "Mark it with final=True, or remove the output"


def test_functions_of_a_chart_are_plain_functions_of_two() -> None:
    flow = nested()
    box = state_of(flow, "box")
    box.entry(3)
    box.exit(awaited)
    state_of(flow, "finished").output = lambda: 1
    state_of(flow, "open").on(Said, to=box.history("past", default="first", do=lambda _one: None))
    box.on(Said, to="open")
    messages = sorted(mistake.message for mistake in find_mistakes(flow))
    assert len(messages) == 4
    assert "the entry action is not a function but 3" in messages
    assert "the exit action awaited is async, but nothing awaits it" in messages
    assert any(one.startswith("the output ") and "(context, event)" in one for one in messages)
    assert any(one.startswith("the action ") and "(context, event)" in one for one in messages)


def test_states_are_not_too_deep_in_each_other() -> None:
    flow = nested()
    state = state_of(flow, "first")
    for depth in range(STATE_DEPTH_MAX - 1):
        state = state.state(f"deep-{depth}", initial=True)
    mistake = the_mistake(flow)
    assert mistake.message == f"the state {state.name!r} is 101 states deep, of 100 allowed"
    flow.states.pop()
    assert find_mistakes(flow) == []
    compile_pipeline(flow)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        (["left-off", "left-on"], "the targets 'left-off' and 'left-on' cannot both be active"),
        (["left-off", "both"], "the targets 'left-off' and 'both' cannot both be active"),
        (["left-off", "left-off"], "the target 'left-off' is named twice"),
        (["done", "open"], "the targets 'done' and 'open' cannot both be active"),
    ],
)
def test_several_targets_lie_in_several_regions(to: list[str], message: str) -> None:
    flow = parallel()
    state_of(flow, "open").on(Said, to=to)
    mistake = the_mistake(flow)
    assert mistake.message == message
    assert mistake.cure == "Name one target, or one in each of several regions of a parallel state"
    assert (mistake.state, mistake.event) == ("open", "said")
    assert mistake.place.line == line_of(test_several_targets_lie_in_several_regions, "Said, to=to")


def test_the_history_of_a_parallel_state_is_no_target_beside_one_in_a_region() -> None:
    flow = parallel()
    all_of_it = state_of(flow, "both").history("all", default=["left-on", "right-on"])
    state_of(flow, "open").on(Said, to=[all_of_it, "left-off"])
    state_of(flow, "both").on(Said, to="open")
    assert the_mistake(flow).message == "the targets 'all' and 'left-off' cannot both be active"


@pytest.mark.parametrize(
    ("source", "to"),
    [
        ("left-on", "right-off"),
        ("left-on", "right"),
        ("left", "right-on"),
        ("left-on", ["right-off", "more-on"]),
    ],
)
def test_a_transition_does_not_lead_into_a_sibling_region(source: str, to: Any) -> None:
    flow = parallel()
    state_of(flow, "both").region("more").state("more-on", initial=True).on(Asked, to="more-off")
    state_of(flow, "more").state("more-off", final=True)
    state_of(flow, source).on(Said, to=to)
    mistake = the_mistake(flow)
    target = to if isinstance(to, str) else to[0]
    assert (
        mistake.message == f"the transition leads from {source!r} to {target!r}, which is in another region"
    )
    assert mistake.cure == (
        "Put it on the state with the regions, or raise an event that the other region takes"
    )
    assert (mistake.state, mistake.event, mistake.severity) == (source, "said", "error")
    assert mistake.place.line == line_of(test_a_transition_does_not_lead_into_a_sibling_region, "Said, to=to")


def test_a_transition_that_names_its_own_region_too_may_enter_all_anew() -> None:
    flow = parallel()
    state_of(flow, "left-on").on(Said, to=["left-on", "right-on"])
    state_of(flow, "right-on").on(Said, to="both")
    assert find_mistakes(flow) == []


def test_an_unknown_one_of_several_targets_is_named_with_what_was_meant() -> None:
    flow = parallel()
    state_of(flow, "open").on(Said, to=["left-of", "right-off"])
    mistake = the_mistake(flow)
    assert (mistake.message, mistake.cure) == (
        "there is no state 'left-of' to go to",
        "Did you mean 'left-off'?",
    )


@pytest.mark.parametrize(
    ("source", "to", "reenter"),
    [
        ("left", "left", True),
        ("left", "left-off", True),
        ("left-on", "left", False),
        ("left-on", "left", True),
    ],
)
def test_a_transition_that_names_its_region_and_leaves_all_is_a_warning(
    source: str, to: str, *, reenter: bool
) -> None:
    flow = parallel()
    state_of(flow, source).on(Said, to=to, reenter=reenter)
    mistake = the_mistake(flow, "warning")
    assert mistake.message == "the transition leaves and enters all regions of 'both', and not 'left' alone"
    assert mistake.cure == (
        "Have 'left' take it, without reenter, to begin anew what is inside; or 'both', if all are meant"
    )
    assert (mistake.state, mistake.event) == (source, "said")
    entered: list[str] = []
    state_of(flow, "right").entry(lambda _context, _event: entered.append("right"))
    case = given(flow, Begun(name="test"), Asked())
    entered.clear()
    case.when(Said())
    assert entered


@pytest.mark.parametrize(
    ("source", "to", "reenter"),
    [
        ("left", "left", False),
        ("left", "left-off", False),
        ("left-on", "left-on", True),
        ("left-on", "left-off", False),
        ("left-on", ["left-off", "right-off"], False),
        ("both", "left", False),
        ("both", "both", True),
    ],
)
def test_a_transition_within_its_region_or_of_the_state_around_all_is_no_mistake(
    source: str, to: Any, *, reenter: bool
) -> None:
    flow = parallel()
    state_of(flow, source).on(Said, to=to, reenter=reenter)
    assert [str(one) for one in find_mistakes(flow)] == []


def test_reenter_without_a_target_is_a_warning() -> None:
    flow = nested()
    state_of(flow, "first").on(Said, reenter=True)
    mistake = the_mistake(flow, "warning")
    assert mistake.message == "reenter=True does nothing without a target"
    assert mistake.cure == "Name the state itself as target, or leave reenter out"


@pytest.mark.parametrize(
    ("asked", "message", "cure"),
    [
        ("left-of", "the guard asks for the state 'left-of', which there is not", "Did you mean 'left-off'?"),
        ("all", "the guard asks for 'all', which is a history and never active itself", "Ask for a state"),
        (
            "right-off",
            "the guard asks for 'right-off', which is never active while 'right-on' is",
            "Ask for a state inside it, or in another region",
        ),
    ],
)
def test_a_guard_asks_for_a_state_that_may_be_active(asked: str, message: str, cure: str) -> None:
    flow = with_histories()
    state_of(flow, "right-on").on(Said, to="right-off", when=in_state(asked))
    mistake = the_mistake(flow)
    assert (mistake.message, mistake.cure) == (message, cure)
    assert (mistake.state, mistake.event) == ("right-on", "said")


def test_the_done_of_another_pipeline_is_no_event_of_this_one() -> None:
    flow = nested()
    state_of(flow, "box").on(state_of(parallel(), "both").done, to="done")
    mistake = the_mistake(flow)
    assert mistake.message == "the event 'done.state.both' is of no state of pipeline 'right'"


def test_done_itself_is_the_event_of_no_state() -> None:
    flow = nested()
    flow.on(Done, to="done")
    assert the_mistake(flow).message == "the event 'Done' is of no state of pipeline 'right'"


@pytest.mark.parametrize(
    ("whose", "message"),
    [
        ("first", "'first' is never done: it has no states inside"),
        ("plain", "'plain' is never done: no state directly inside it is final"),
        ("both", "'both' is never done: not all its regions can be"),
    ],
)
def test_a_state_that_is_never_done_is_found_where_its_done_is_taken(whose: str, message: str) -> None:
    flow = nested()
    plain, both = flow.state("plain"), flow.state("both")
    plain.state("inner", initial=True).on(Asked, to=both)
    both.region("left").state("left-on", initial=True).on(Asked, to="left-off")
    state_of(flow, "left").state("left-off", final=True)
    both.region("other").state("other-on", initial=True).on(Ended, to="done")
    state_of(flow, "open").on(Said, to=plain)
    flow.on(state_of(flow, whose).done, to="done")
    mistake = the_mistake(flow)
    assert (mistake.message, mistake.event) == (message, f"done.state.{whose}")


def test_a_done_that_comes_when_its_taker_is_not_active_is_a_warning() -> None:
    flow = nested()
    state_of(flow, "open").on(state_of(flow, "box").done, to="done")
    mistake = the_mistake(flow, "warning")
    assert mistake.message == "'open' is not active when 'box' is done"
    assert mistake.cure == "Put the transition on 'box' or on a state around it"


@pytest.mark.parametrize("event_type", ["done.state.box", "done.state.other", "error.execution"])
def test_no_event_from_outside_has_the_type_of_one_from_inside(event_type: str) -> None:
    flow = nested()
    flow.on(Event.named(event_type), to="done")
    found = [one.message for one in find_mistakes(flow) if one.event == event_type]
    assert any(one.endswith("is one that only runs themselves raise") for one in found)


def test_a_subclass_of_failed_is_never_raised() -> None:
    class Worse(Failed, type="worse"):
        pass

    flow = nested()
    flow.on(Worse, to="done")
    assert the_mistake(flow).message == "Worse is a subclass of Failed, and no such event is ever raised"


def test_no_event_from_inside_starts_a_run() -> None:
    flow = nested()
    flow.start(state_of(flow, "box").done, lambda _event: None)
    assert (
        the_mistake(flow).message
        == "the event 'done.state.box' comes from inside of a run, and cannot start one"
    )


def test_states_of_another_pipeline_are_no_beginnings_defaults_or_guards() -> None:
    other = nested()
    stranger = state_of(other, "second")
    flow = nested()
    box = state_of(flow, "box")
    for state in box.states:
        state.initial = False
    box.initially(stranger)
    named = f"'box' names a state of pipeline {other.name!r}"
    assert named in [one.message for one in find_mistakes(flow)]
    flow = nested()
    state_of(flow, "first").on(Asked, to="second", when=in_state(stranger))
    messages = [one.message for one in find_mistakes(flow)]
    assert f"the guard asks for 'second', a state of pipeline {other.name!r}" in messages


def test_what_a_history_does_needs_a_default_to_be_done_on_the_way_to() -> None:
    flow = nested()
    back = state_of(flow, "box").history("back", do=lambda _context, _event: None)
    flow.on(Asked, to=back)
    assert any("'back'" in one.message and "nothing" in one.message for one in find_mistakes(flow))
