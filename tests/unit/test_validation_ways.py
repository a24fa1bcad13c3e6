"""Mistakes that show when a chart is walked: circles, states nobody reaches, transitions that never fire, traps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from statemachines import Event, Pipeline, in_state
from statemachines.outcome import Reason
from statemachines.testkit import given
from statemachines.validation import find_mistakes
from tests.unit.charted import (
    Said,
    nested,
    note,
    parallel,
)
from tests.unit.mistaken import (
    Asked,
    Begun,
    Empty,
    Ended,
    Flow,
    build,
    line_of,
    no,
    state_of,
    the_mistake,
    yes,
)


def looping(*ways: tuple[str, str | list[str] | None]) -> Flow:
    """``nested`` or ``parallel``, with eventless transitions without a guard."""
    flow = parallel() if any("left" in way[0] for way in ways) else nested()
    for source, to in ways:
        state_of(flow, source).always(to=to)
    return flow


@pytest.mark.parametrize(
    ("ways", "circle"),
    [
        ([("first", None)], "first -> first"),
        ([("box", None)], "box -> box"),
        ([("first", "first")], "first -> first"),
        ([("box", "second")], "box -> box"),
        ([("box", "box")], "box -> box"),
        ([("first", "second"), ("second", "first")], "first -> second -> first"),
        ([("first", "open"), ("open", "box")], "first -> open -> first"),
        ([("first", "second"), ("box", "first")], "first -> box -> first"),
        ([("left-on", "left")], "left-on -> left-on"),
        ([("left-on", "both")], "left-on -> left-on"),
        ([("left-on", "open"), ("open", ["right-off", "left-on"])], "left-on -> open -> left-on"),
        ([("left-on", "left"), ("both", "done")], "left-on -> left-on"),
    ],
)
def test_a_circle_without_a_guard_is_found_through_states_parents_and_regions(
    ways: list[tuple[str, Any]], circle: str
) -> None:
    flow = looping(*ways)
    [mistake] = [one for one in find_mistakes(flow) if "in a circle" in one.message]
    assert mistake.message == (
        f"transitions that wait for no event and have no guard lead in a circle: {circle}"
    )
    assert mistake.cure == "Give one of them a guard, or let it wait for an event"
    assert (mistake.state, mistake.severity) == (circle.split(" ", maxsplit=1)[0], "error")
    assert mistake.place == (__file__, line_of(looping, ".always(to=to)"))


def test_each_circle_is_one_mistake() -> None:
    flow = looping(("open", None), ("first", "second"), ("second", "first"))
    circles = [one.state for one in find_mistakes(flow) if "in a circle" in one.message]
    assert sorted(map(str, circles)) == ["first", "open"]


def test_a_guard_that_cannot_fail_breaks_no_circle() -> None:
    flow = nested()
    state_of(flow, "first").always(to="first", when=in_state("box"))
    assert any("in a circle" in one.message for one in find_mistakes(flow))


def finishing(again: str = "box") -> Flow:
    """``nested``, where ``box`` is done at once, and begins anew then."""
    flow = nested()
    box = state_of(flow, "box")
    flow.moves[:] = [move for move in flow.moves if move.source not in ("first", "second", "box")]
    state_of(flow, "first").always(to="second")
    state_of(flow, "second").always(to="finished")
    box.on(box.done, to=again, reenter=True)
    return flow


def test_a_circle_by_way_of_a_state_that_is_done_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    [mistake] = [one for one in find_mistakes(finishing()) if "in a circle" in one.message]
    assert mistake.message == (
        "transitions that wait for no event, or until a state is done, and have no guard lead in a circle: "
        "first -> second -> box -> first"
    )
    assert mistake.severity == "error"
    monkeypatch.setattr("statemachines.machine.check", lambda _pipeline: None)
    given(finishing(), Begun(name="a")).when(Asked()).then_refused(Reason.NEVER_SETTLES)


def test_a_circle_by_way_of_a_state_that_is_done_may_end() -> None:
    assert not any("in a circle" in one.message for one in find_mistakes(finishing("done")))
    raised, guarded, waiting = finishing(), finishing(), finishing()
    # An event that was raised before comes before it.
    state_of(raised, "box").on(Said, to="done")
    box = state_of(guarded, "box")
    guarded.moves.pop()
    box.on(box.done, to=box, reenter=True, when=yes)
    waiting.moves.pop(-2)
    state_of(waiting, "second").on(Asked, to="finished")
    for flow in (raised, guarded, waiting):
        assert not any("in a circle" in one.message for one in find_mistakes(flow))


def guarded_first(flow: Flow) -> None:
    state_of(flow, "first").always(to="done", when=yes)
    state_of(flow, "first").always(to="second")
    state_of(flow, "second").always(to="first")


def counting(flow: Flow) -> None:
    """Stays until what it counts lets the one before it hold."""
    state_of(flow, "first").always(to="done", when=yes)
    state_of(flow, "first").always(do=note)


def guarded(flow: Flow) -> None:
    state_of(flow, "first").always(to="second")
    state_of(flow, "second").always(to="first", when=no)


def through_a_history(flow: Flow) -> None:
    """What it remembers may be another state."""
    box = state_of(flow, "box")
    state_of(flow, "first").always(to="open", when=yes)
    state_of(flow, "open").always(to=box.history("past", default="second"))
    state_of(flow, "second").always(to="open", when=yes)


def guarded_in_the_state_inside(flow: Flow) -> None:
    state_of(flow, "first").always(to="done", when=yes)
    state_of(flow, "box").always(to="first")


def into_another_region(flow: Flow) -> None:
    """The region before it leads out, at some time."""
    both = flow.state("two")
    early, late = both.region("early"), both.region("late")
    early.state("early-on", initial=True).always(to="done", when=yes)
    late.state("late-on", initial=True).always(to="late-on", do=note)
    state_of(flow, "open").on(Said, to=both)


def straight(flow: Flow) -> None:
    state_of(flow, "first").always(to="second")


@pytest.mark.parametrize(
    "add",
    [
        guarded_first,
        counting,
        guarded,
        through_a_history,
        guarded_in_the_state_inside,
        into_another_region,
        straight,
    ],
)
def test_circles_that_may_end_are_no_mistake(add: Callable[[Flow], None]) -> None:
    flow = nested()
    add(flow)
    assert not any("in a circle" in one.message for one in find_mistakes(flow))


def test_states_inside_that_no_run_reaches_are_mistakes() -> None:
    flow = parallel()
    state_of(flow, "left").state("island").on(Asked, to="beach")
    state_of(flow, "left").state("beach", final=True)
    state_of(flow, "both").history("past")
    assert [mistake.message for mistake in find_mistakes(flow)] == [
        "no run ever reaches the state 'island'",
        "no run ever reaches the state 'beach'",
        "no transition leads to the history 'past'",
    ]


def test_an_initial_state_that_every_way_leads_past_is_never_reached() -> None:
    flow = nested()
    flow.moves = [move for move in flow.moves if move.targets != ("box",)]
    state_of(flow, "open").on(Asked, to="second")
    mistake = the_mistake(flow)
    assert (mistake.message, mistake.state) == ("no run ever reaches the state 'first'", "first")


def suspended(*, regions: bool = False) -> Flow:
    """``away`` leads back to a history without a default, from where ``open`` leads there only by way of its state."""
    flow = parallel() if regions else nested()
    box, away = state_of(flow, "both" if regions else "box"), flow.state("away")
    past = state_of(flow, "right" if regions else "box").history("past")
    box.on(Said, to=away)
    away.on(Said, to=past)
    return flow


@pytest.mark.parametrize("regions", [False, True])
def test_a_history_without_a_default_that_is_asked_first_is_told_of(regions: bool) -> None:
    flow = suspended(regions=regions)
    assert find_mistakes(flow) == [], "where it leads is remembered by then"
    around = "right" if regions else "box"
    state_of(flow, "open").on(Said, to="away")
    mistake = the_mistake(flow, "warning")
    there = f"{__file__}:{line_of(suspended, 'away.on(Said')}"
    assert mistake.message == (
        f"the history 'past' has no default, and may be asked before {around!r} was ever left, by what is said at "
        f"{there}: it leads to where {around!r} begins then"
    )
    assert mistake.cure == "Say with default= where it is to lead then"
    assert (mistake.state, mistake.place.line) == ("past", line_of(suspended, ".history("))


def test_a_history_without_a_default_may_be_asked_first_from_inside_and_by_a_start_event() -> None:
    inside = suspended()
    state_of(inside, "second").on(Said, to="past")
    assert "may be asked before 'box' was ever left" in the_mistake(inside, "warning").message
    begun = suspended()
    begun.start(Ended, build, to="past")
    assert "may be asked before 'box' was ever left" in the_mistake(begun, "warning").message


def paused_inside(default: str | None = None) -> Flow:
    """``paused`` lies inside the region that it leads back into, by its history."""
    flow = parallel()
    left = state_of(flow, "left")
    paused, midway = left.state("paused"), left.state("midway")
    state_of(flow, "left-on").on(Ended, to=midway)
    midway.on(Asked, to="left-off")
    left.on(Said, to=paused)
    paused.on(Said, to=left.history("past", deep=True, default=default))
    return flow


@pytest.mark.parametrize("default", [None, "left-on"])
def test_a_history_whose_state_is_left_on_no_way_to_it_is_told_of(default: str | None) -> None:
    flow = paused_inside(default)
    mistake = the_mistake(flow, "warning")
    assert mistake.message == (
        "the history 'past' never has anything to remember: no way to it leaves 'left', as 'paused', from where it is "
        "asked, lies inside"
    )
    assert mistake.cure == (
        "Have a state in 'left' around what is to be remembered, with the history in it and 'paused' beside it"
    )
    assert (mistake.state, mistake.place.line) == ("past", line_of(paused_inside, ".history("))
    case = given(flow, Begun(name="a"), Asked(), Ended(name="a"))
    assert "left midway" in case.state
    assert "left left-on" in case.when(Said(), Said()).state, "it leads to nothing that was remembered"


def test_a_history_is_told_of_that_is_only_asked_before_its_state_is_entered() -> None:
    flow = nested()
    state_of(flow, "open").on(Said, to=state_of(flow, "box").history("past", default="second"))
    mistake = the_mistake(flow, "warning")
    assert mistake.message == "the history 'past' never has anything to remember: no way to it leaves 'box'"
    assert (
        mistake.cure == "Have the history in a state that is left on the way to it, or lead to 'box' instead"
    )


def test_a_history_that_its_own_state_asks_for_without_being_left_is_cured_by_reentering() -> None:
    def asked(**options: Any) -> Flow:
        flow = nested()
        box = state_of(flow, "box")
        box.on(Said, to=box.history("past", default="first"), **options)
        return flow

    flow = asked()
    mistake = the_mistake(flow, "warning")
    assert mistake.message == (
        "the history 'past' never has anything to remember: no way to it leaves 'box', which asks for it itself and "
        "stays active"
    )
    assert mistake.cure == f"Say reenter=True at {flow.moves[-1].place}, so that 'box' is left on the way"
    case = given(asked(reenter=True), Begun(name="a"), Asked(), Asked())
    assert find_mistakes(asked(reenter=True)) == []
    assert case.when(Said()).state == "box second", "it leads to what was left on the way"


def left_within_its_region() -> Flow:
    """What is beside it in its region leads to it, and from it."""
    flow = parallel()
    wrapper = state_of(flow, "left").state("wrapper")
    wrapper.state("within", initial=True)
    state_of(flow, "left-on").on(Said, to=wrapper)
    wrapper.on(Said, to="left-on")
    state_of(flow, "left-on").on(Ended, to=wrapper.history("past", default="within"))
    return flow


def left_by_what_leads_to_it() -> Flow:
    """The second time that it is asked it has what was left the first time."""
    flow = parallel()
    flow.on(Said, to=state_of(flow, "left").history("past", default="left-on"))
    return flow


def left_where_another_history_leads_back() -> Flow:
    """Of what is active after that, only the other history leads to the state that asks."""
    flow = nested()
    box, group = state_of(flow, "box"), flow.state("group")
    asking = group.state("asking", initial=True)
    state_of(flow, "open").on(Said, to=group)
    group.on(Ended, to=box)
    box.on(Said, to=group.history("before"))
    asking.on(Asked, to=box.history("past", default="second"))
    return flow


def left_beside_what_asks() -> Flow:
    """The state that asks goes on in a region beside the one in which it is left."""
    flow = nested()
    both = flow.state("both")
    left, right = both.region("left"), both.region("right")
    wrapper = left.state("wrapper", initial=True)
    wrapper.state("within", initial=True)
    wrapper.on(Said, to=left.state("out"))
    asking = right.state("asking", initial=True)
    asking.on(Ended, to=[wrapper.history("past", default="within"), asking], reenter=True)
    state_of(flow, "open").on(Said, to=both)
    return flow


@pytest.mark.parametrize(
    "make",
    [
        left_within_its_region,
        left_by_what_leads_to_it,
        left_where_another_history_leads_back,
        left_beside_what_asks,
    ],
)
def test_a_history_whose_state_may_be_left_before_has_something_to_remember(make: Callable[[], Flow]) -> None:
    assert not any("never has anything" in one.message for one in find_mistakes(make()))


def test_a_shallow_history_enters_what_it_remembers_by_default() -> None:
    flow = nested()
    box, away = state_of(flow, "box"), flow.state("away")
    group = box.state("group")
    group.state("one", initial=True).on(Asked, to="second")
    group.state("two").on(Asked, to="second")
    box.on(Said, to=away)
    state_of(flow, "open").on(Said, to="two")
    away.on(Asked, to="done")
    assert the_mistake(flow).message == "no run ever reaches the state 'one'"
    away.on(Said, to=box.history("deeply", deep=True))
    assert the_mistake(flow).message == "no run ever reaches the state 'one'"
    away.on(Ended, to=box.history("past"))
    assert find_mistakes(flow) == []


def test_a_transition_that_every_state_inside_takes_itself_never_fires() -> None:
    flow = nested()
    box = state_of(flow, "box")
    box.on(Said, to="done")
    state_of(flow, "first").on(Said, to="second")
    state_of(flow, "second").on(Said, to="first")
    assert find_mistakes(flow) == []  # it fires in the final state
    state_of(flow, "finished").final = False
    state_of(flow, "finished").output = None
    state_of(flow, "finished").on(Said, to="first")
    flow.moves = [move for move in flow.moves if move.event is not box.done]
    mistake = the_mistake(flow)
    first = next(move for move in flow.moves if move.source == "first" and move.event is Said)
    assert mistake.message == (
        f"this transition on 'said' in 'box' never fires: the one at {first.place} comes first and has no guard"
    )
    assert mistake.cure == "Put it first, give the other one a guard, or remove it"
    assert mistake.place.line == line_of(
        test_a_transition_that_every_state_inside_takes_itself_never_fires, "box.on(Said"
    )


def test_a_guard_inside_lets_the_transition_around_it_fire() -> None:
    flow = nested()
    state_of(flow, "box").on(Said, to="done")
    for name in ("first", "second"):
        state_of(flow, name).on(Said, when=yes)
    assert find_mistakes(flow) == []


def test_a_region_that_always_leads_somewhere_overrules_the_state_around_it() -> None:
    flow = parallel()
    region = state_of(flow, "both").region("more")
    region.state("more-on", initial=True).on(Asked, to=region.state("more-off", final=True))
    region.on(Said, to="more-on")
    state_of(flow, "both").on(Said, to="done")
    mistake = the_mistake(flow)
    assert mistake.message.endswith("comes first and is further inside, in the region 'more'")
    assert (mistake.state, mistake.event) == ("both", "said")


def test_a_region_that_stays_overrules_nothing() -> None:
    flow = parallel()
    state_of(flow, "left").on(Said, do=note)
    state_of(flow, "both").on(Said, to="done")
    assert find_mistakes(flow) == []


def test_a_state_that_is_left_at_once_takes_no_events() -> None:
    flow = nested()
    state_of(flow, "first").always(to="second")
    mistake = the_mistake(flow)
    always = flow.moves[-1]
    assert mistake.message == (
        f"this transition on 'asked' in 'first' never fires: the one at {always.place} comes first and waits for "
        "no event"
    )
    assert (
        mistake.cure
        == "Give the other one a guard, or remove this one: the state is left as soon as it is entered"
    )


def test_a_chart_whose_final_states_are_all_inside_never_ends() -> None:
    flow = nested()
    state_of(flow, "done").final = False
    mistake = the_mistake(flow, "warning")
    assert mistake.message == "pipeline 'right' has no final state: its runs never end"
    assert mistake.cure == "Add one beside the outermost states: those inside others only make these done"


def test_a_trap_inside_is_named_and_of_nested_ones_the_outermost() -> None:
    flow = nested()
    trap = state_of(flow, "box").state("trap")
    trap.state("trapped", initial=True).on(Said, to="trap")
    state_of(flow, "first").on(Said, to=trap)
    mistake = the_mistake(flow, "warning")
    assert mistake.message == "a run that is in 'trap' never ends: no way leads from it to a final state"
    assert mistake.cure == "Add the transitions that lead on, from it or from a state around it"
    state_of(flow, "box").on(Ended, to="done")
    assert find_mistakes(flow) == []


@pytest.mark.parametrize("order", [["placed", "trap", "island"], ["trap", "placed", "island"]])
def test_islands_and_traps_are_told_also_where_nothing_says_in_what_runs_begin(order: list[str]) -> None:
    flow: Flow = Pipeline("lost", Empty, topics=["things"])
    for name in order:
        flow.state(name)
    flow.state("done", final=True)
    state_of(flow, "placed").on(Ended, to="done")
    state_of(flow, "placed").on(Asked, to="trap")
    assert sorted(mistake.message for mistake in find_mistakes(flow)) == [
        "a run that is in 'trap' never ends: no way leads from it to a final state",
        "no run ever reaches the state 'island'",
        "pipeline 'lost' has no initial state",
        "pipeline 'lost' has no start event: no run ever begins",
    ]


def test_a_trap_is_none_if_the_pipeline_leads_out_of_it() -> None:
    flow = nested()
    trap = state_of(flow, "box").state("trap")
    state_of(flow, "first").on(Said, to=trap)
    flow.on(Event.named("stop"), to="done")
    assert find_mistakes(flow) == []


def test_a_region_may_rest_while_another_one_leads_out() -> None:
    flow = parallel()
    state_of(flow, "left-on").on(Said, to=state_of(flow, "left").state("waiting"))
    state_of(flow, "right-on").on(Ended, to="done")
    assert find_mistakes(flow) == []
