"""States that are undone, as diagrams and ways have them."""

from __future__ import annotations

from statemachines import Compensate, Event
from statemachines.chart.spots import told_apart
from statemachines.diagram import Marks, to_mermaid
from statemachines.testkit import given
from statemachines.way import Passage, find_way
from tests.unit.scoped import Journey, asking
from tests.unit.test_way import row, told

TRIP = "wide travel trip $compensating papers stamped"
HOME = "wide travel at-home papers stamped"
ALL = "wide travel trip resting papers stamped"


def way(made: Journey, *passages: tuple[str, str, str]) -> dict[str, list[str]]:
    rows = [(Passage(kind, before, after), row(2 + at)) for at, (kind, before, after) in enumerate(passages)]
    found = find_way(given(made.flow).machine, rows)
    assert found.unexplained.first == []
    return told(found)


def test_where_a_state_is_while_it_is_undone_is_drawn_in_it() -> None:
    drawn = to_mermaid(Journey().flow)
    for line in (
        '  state "compensating" as compensating\n',
        '  state "wide" as wide {\n    direction LR\n    state "compensating" as state_14\n',
        '      state "trip" as trip {\n        direction LR\n',
        '        state "compensating" as state_15\n',
        "  trip --> state_15: trip.dropped\n",
        "  flying --> state_15: seat failed\n",
        "  wide --> state_14: order.returned\n",
        "  state_15 --> state_4: undone after trip.dropped\n",
        "  state_15 --> state_4: undone after seat failed\n",
        "  state_14 --> after: undone after order.returned\n",
        "  compensating --> ended: undone after order.cancelled\n",
    ):
        assert line in drawn, line
    assert drawn.count('"compensating"') == 3


def test_where_only_states_are_undone_nothing_is_drawn_for_the_run() -> None:
    made = Journey()
    made.flow.moves[:] = [move for move in made.flow.moves if move.scope == "trip"]
    assert to_mermaid(made.flow).count('"compensating"') == 1


def test_a_run_that_undoes_states_is_marked() -> None:
    here = told_apart(["wide", "travel", "trip", "$compensating", "papers", "$compensating"])
    assert here == ["wide", "travel", "trip", "trip $compensating", "papers", "papers $compensating"]
    assert told_apart(["$compensating"]) == ["$compensating"]
    drawn = to_mermaid(Journey().flow, Marks(here=here))
    assert "class wide,travel,papers,trip,state_15,state_16 here\n" in drawn


def test_the_way_of_a_run_leads_through_what_it_undid() -> None:
    taken = way(
        Journey(),
        ("trip.dropped", ALL, TRIP),
        ("order.noted", TRIP, TRIP),
        ("done.step.leave_seat", TRIP, TRIP),
        ("done.step.leave_room", TRIP, HOME),
    )
    assert taken == {
        "trip -trip.dropped-> at-home": ["2"],
        "papers -order.noted-> ": ["3"],
        "trip $compensating -failed.step.seat.*-> at-home": ["5?"],
        "trip $compensating -trip.dropped-> at-home": ["5?"],
    }


def test_it_leads_through_at_once_where_nothing_was_to_be_undone() -> None:
    taken = way(Journey(), ("trip.dropped", ALL, HOME))
    assert taken == {
        "trip -trip.dropped-> at-home": ["2"],
        "trip $compensating -trip.dropped-> at-home": ["2"],
    }


def test_it_leads_around_where_a_state_was_left_meanwhile() -> None:
    taken = way(
        Journey(),
        ("order.gone", TRIP, "$compensating"),
        ("done.step.leave_room", "$compensating", "after"),
    )
    assert taken == {"wide -order.gone-> after": ["2"], "$compensating -order.gone-> after": ["3"]}
    taken = way(Journey(), ("order.cancelled", TRIP, "$compensating"))
    assert taken == {"wide -order.cancelled-> ended": ["2"]}


def test_an_action_may_have_asked() -> None:
    made = Journey()
    made.resting.on(Event.named("asks"), to=made.at_home, do=asking(Compensate(made.trip)))
    taken = way(made, ("asks", ALL, "wide travel $compensating papers stamped"))
    assert taken == {"resting -asks-> at-home": ["2"]}
    made = Journey()
    made.resting.on(Event.named("asks"), to=made.at_home, do=asking(Compensate(made.flow)))
    at_home = "wide travel at-home papers asking"
    taken = way(made, ("asks", ALL, "$compensating"), ("done.step.leave_room", "$compensating", at_home))
    assert taken["resting -asks-> at-home"] == ["2"]
