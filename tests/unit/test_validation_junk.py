"""A chart with many mistakes, with junk in it, or made at random: the validator finds them, and never raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from statemachines import in_state
from statemachines.chart.microsteps import Microsteps, Plan, Spot
from statemachines.chart.tree import Arc
from statemachines.run import Status
from statemachines.validation import find_mistakes
from tests.scxml.charts import scenarios
from tests.scxml.document import Document
from tests.scxml.translated import Driven, Translation, UntranslatableError
from tests.unit.charted import (
    Said,
    nested,
    parallel,
)
from tests.unit.mistaken import (
    Asked,
    Ended,
    Flow,
    right,
    state_of,
    the_mistake,
    yes,
)


def test_all_mistakes_of_a_chart_come_at_once() -> None:
    flow = parallel()
    both = state_of(flow, "both")
    state_of(flow, "left-on").initial = False
    state_of(flow, "right").state("other", initial=True).on(Asked, to="left-on")
    state_of(flow, "open").always(to=["open"])
    state_of(flow, "open").on(Said, to=["left-on", "rigth-off"], when=in_state("nowhere"))
    both.history("past", default="open")
    both.entry("text")
    messages = " | ".join(mistake.message for mistake in find_mistakes(flow))
    for part in (
        "'left' has no initial state",
        "the state 'other' is initial, and so is 'right-on'",
        "from 'other' to 'left-on', which is in another region",
        "lead in a circle: open -> open",
        "there is no state 'rigth-off' to go to",
        "the guard asks for the state 'nowhere', which there is not",
        "the history 'past' leads to 'open', which is not inside",
        "the entry action is not a function but 'text'",
        "no transition leads to the history 'past'",
    ):
        assert part in messages


JUNK: list[Any] = [5, "", "text", [], [[]], [None], {}, object(), b"x", Ended, [5, "box"], float("nan")]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: type(junk).__name__)
@pytest.mark.parametrize(
    "add",
    [
        lambda flow, junk: state_of(flow, "box").initially(junk),
        lambda flow, junk: state_of(flow, "box").initially("first", do=junk),
        lambda flow, junk: state_of(flow, "box").history("past", default=junk),
        lambda flow, junk: state_of(flow, "box").history("past", deep=junk),
        lambda flow, junk: state_of(flow, "box").history(junk),
        lambda flow, junk: state_of(flow, "box").region(junk),
        lambda flow, junk: state_of(flow, "box").state(junk),
        lambda flow, junk: state_of(flow, "box").state("more", initial=junk, final=junk, output=junk),
        lambda flow, junk: state_of(flow, "box").entry(junk),
        lambda flow, junk: state_of(flow, "box").exit(junk),
        lambda flow, junk: state_of(flow, "box").always(to=junk),
        lambda flow, junk: state_of(flow, "box").always(when=junk, do=junk),
        lambda flow, junk: state_of(flow, "box").always(to="open", when=yes, reenter=junk),
        lambda flow, junk: state_of(flow, "box").on(junk, to=["open", junk]),
        lambda flow, junk: state_of(flow, "box").on(Said, to="open", when=in_state(junk)),
        lambda flow, junk: setattr(state_of(flow, "first"), "parent", junk),
        lambda flow, junk: setattr(state_of(flow, "first"), "kind", junk),
    ],
)
def test_junk_in_a_chart_is_always_a_mistake_and_never_raises(
    add: Callable[[Flow, Any], None], junk: Any
) -> None:
    flow = nested()
    add(flow, junk)
    found = find_mistakes(flow)
    assert found
    assert all(mistake.message and mistake.cure and str(mistake) for mistake in found)


def test_states_around_each_other_are_in_no_tree() -> None:
    flow = nested()
    first, second = state_of(flow, "first"), state_of(flow, "second")
    first.parent, second.parent = second, first
    assert [mistake.message for mistake in find_mistakes(flow)] == [
        "the state 'first' is inside 'second', which is not in the tree of states itself",
        "the state 'second' is inside 'first', which is not in the tree of states itself",
    ]


def test_a_state_inside_one_of_another_pipeline_is_a_mistake() -> None:
    flow, other = nested(), right("other")
    state_of(flow, "second").parent = state_of(other, "open")
    assert the_mistake(flow).message == (
        "the state 'second' is inside 'open', which is a state of pipeline 'other'"
    )


def test_a_target_among_several_that_is_of_another_pipeline_is_a_mistake() -> None:
    flow = parallel()
    state_of(flow, "open").on(Said, to=["left-off", state_of(parallel(), "right-off")])
    assert "is a state of pipeline 'right'" in the_mistake(flow).message


@pytest.mark.parametrize("name", ["first", "box"])
def test_a_name_that_is_used_twice_is_one_mistake(name: str) -> None:
    flow = nested()
    flow.state(name)
    assert the_mistake(flow).message.startswith(f"the state {name!r} was already made at ")


def test_a_long_row_of_states_inside_another_has_no_mistakes() -> None:
    flow = nested()
    before, box = state_of(flow, "first"), state_of(flow, "box")
    for number in range(500):
        following = box.state(f"s{number}")
        before.on(Said, to=following)
        before = following
    before.on(Said, to="finished")
    assert find_mistakes(flow) == []


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(scenarios())
def test_what_is_said_of_a_random_chart_holds_for_its_runs(scenario: tuple[Document, list[str]]) -> None:
    document, events = scenario
    try:
        translation = Translation(document)
    except UntranslatableError:
        return
    found = find_mistakes(translation.flow)
    unreached = {one.state for one in found if one.message.startswith("no run ever reaches")}
    idle = {(one.place, one.state, one.event) for one in found if " never fires: " in one.message}
    taken: list[Arc] = []
    plan = Microsteps.plan

    def noting(steps: Microsteps, spot: Spot, arcs: tuple[Arc, ...]) -> Plan:
        taken.extend(arcs)
        return plan(steps, spot, arcs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Microsteps, "plan", noting)
        driven = Driven(translation)
        active = set(driven.start().active)
        for event in events:
            if driven.run is not None and driven.run.status == Status.RUNNING:
                active |= driven.send(event).active
    assert active.isdisjoint(unreached)
    fired = {(arc.move.place, arc.move.source, arc.move.event_type) for arc in taken if arc.move is not None}
    assert len(idle) == 0 or fired.isdisjoint(unambiguous(translation.flow, idle))


def unambiguous(flow: Flow, lines: set[Any]) -> set[Any]:
    """Those of these that only one transition stands for: a translation writes all in one line."""
    keys = [(move.place, move.source, move.event_type) for move in flow.moves]
    return {line for line in lines if keys.count(line) == 1}
