"""The way of a run, from the rows of its log: what is certain, what may have been, and what is unexplained."""

from __future__ import annotations

from typing import Any, Self

from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from statemachines import Event, Pipeline
from statemachines.chart.microsteps import Plan, Spot
from statemachines.chart.tree import Arc
from statemachines.machine import Machine
from statemachines.testkit import Case, given
from statemachines.way import ROWS_KEPT_MAX, Passage, Rows, Way, find_way
from tests.incident import Judged, Mended, Reported, Resumed, Suspended, Taken, Told, incident_pipeline
from tests.journey import journey_pipeline, ledger_pipeline
from tests.shop import OrderNoted, OrderPaid, OrderPlaced, OrderShipped, shop
from tests.unit.charted import Said, nested, parallel
from tests.unit.mistaken import Asked, Begun, right, state_of, yes


def row(number: int) -> Rows:
    rows = Rows()
    rows.add_row(number)
    return rows


def passages_of(case: Case[Any], *events: Event) -> list[tuple[Passage, Rows]]:
    """What the log would have of these events."""
    found: list[tuple[Passage, Rows]] = []
    for event in events:
        before = case.run
        case.when(event)
        if case.run is not before and case.run is not None and not case.run.held:
            old = None if before is None else before.configuration
            found.append((Passage(event.event_type(), old, case.run.configuration), row(case.run.sequence)))
    return found


def way_of(flow: Pipeline[Any], *events: Event) -> Way:
    case = given(flow)
    return find_way(case.machine, passages_of(case, *events))


def told(way: Way) -> dict[str, list[str]]:
    """Each transition that was taken, and its rows; with a question mark where that is not certain."""
    found = {}
    for (source, move), rows in way.moves.items():
        name = f"{source} -{move.event_type or ''}-> {' '.join(move.targets)}"
        found[name] = [f"{one}?" if one in rows.uncertain else str(one) for one in rows.first]
    return found


def test_a_timer_is_taken_when_it_fires_and_not_by_itself() -> None:
    flow = journey_pipeline()
    machine = given(flow).machine
    timer = (
        next(node for node in machine.microsteps.chart.nodes if node.name == "booked").timers[0].event_type
    )
    lapsed = find_way(machine, [(Passage(timer, "booked", "lapsed"), row(2))])
    assert told(lapsed) == {f"booked -{timer}-> lapsed": ["2"]}
    other = find_way(machine, [(Passage("journey.paid", "booked", "lapsed"), row(2))])
    assert other.unexplained.first == [2], "to pay leads elsewhere, and the timer did not fire"


def test_a_run_that_no_event_starts_begins_where_it_may_and_takes_the_event_there() -> None:
    flow = ledger_pipeline()
    way = find_way(given(flow).machine, [(Passage("ledger.counted", None, "open"), row(1))])
    assert (way.unexplained.times, way.starts) == (0, {})
    assert told(way) == {"open -ledger.counted-> ": ["1"]}
    assert list(way.entered) == ["open"]


def test_a_flat_run_has_its_transitions_with_their_rows() -> None:
    order = {"order_id": "o1"}
    way = way_of(
        shop(),
        OrderPlaced(**order, amount=5),
        OrderPaid(**order, amount=2),
        OrderNoted(**order),
        OrderPaid(**order, amount=3),
        OrderShipped(**order),
    )
    assert told(way) == {
        "placed -order.paid-> ": ["2"],
        "placed -order.noted-> ": ["3"],
        "placed -order.paid-> paid": ["4"],
        "paid -order.shipped-> shipped": ["5"],
    }
    assert [(start.event, rows.first) for start, rows in way.starts.items()] == [(OrderPlaced, [1])]
    assert {state: rows.first for state, rows in way.entered.items()} == {
        "placed": [1],
        "paid": [4],
        "shipped": [5],
    }
    assert way.unexplained.times == 0


def test_two_that_differ_by_their_guards_alone_are_uncertain() -> None:
    flow = right()
    state_of(flow, "open").on(Asked, to="done", when=yes)
    state_of(flow, "open").on(Asked, to="done")
    way = way_of(flow, Begun(name="a"), Asked())
    assert told(way) == {"open -asked-> done": ["2?"]}
    assert len(way.moves) == 2


def test_transitions_that_wait_for_nothing_and_done_states_follow() -> None:
    flow = nested()
    state_of(flow, "done").final = False
    state_of(flow, "done").always(to=flow.state("end", final=True))
    way = way_of(flow, Begun(name="a"), Asked(), Asked(), Asked())
    assert told(way) == {
        "open -asked-> box": ["2"],
        "first -asked-> second": ["3"],
        "second -asked-> finished": ["4"],
        "box -done.state.box-> done": ["4"],
        "done --> end": ["4"],
    }
    assert set(way.entered) == {"open", "box", "first", "second", "end"}, "what a row shows"


def test_one_event_moves_regions_side_by_side() -> None:
    way = way_of(parallel(), Begun(name="a"), Asked(), Asked())
    assert told(way) == {
        "open -asked-> both": ["2"],
        "left-on -asked-> left-off": ["3"],
        "right-on -asked-> right-off": ["3"],
        "both -done.state.both-> done": ["3"],
    }


def test_a_history_leads_to_what_it_remembers_and_a_raised_event_is_found() -> None:
    one = {"incident": "i1"}
    way = way_of(
        incident_pipeline(),
        Reported(**one, severity=1),
        Taken(**one, by="ada"),
        Suspended(**one),
        Resumed(**one),
    )
    assert told(way) == {
        "queued -incident.escalated-> work": ["1?"],
        "queued -incident.taken-> work": ["1?"],
        "looking -incident.taken-> fixing": ["2"],
        "active -incident.suspended-> suspended": ["3"],
        "suspended -incident.resumed-> back": ["4"],
    }
    assert way.entered["fixing"].first == [2, 4]


def test_what_any_state_takes_is_told_of_the_state_that_the_run_was_in() -> None:
    flow = right()
    flow.on(Said, to=flow.state("aside"))
    assert told(way_of(flow, Begun(name="a"), Said())) == {"open -said-> aside": ["2"]}


def test_a_row_of_another_definition_is_unexplained() -> None:
    machine = given(right()).machine
    passages = [
        (Passage("begun", None, "open"), row(1)),
        (Passage("gone", "open", "done"), row(2)),
        (Passage("ended", "open", "nowhere"), row(3)),
        (Passage("other", None, "open"), row(4)),
    ]
    way = find_way(machine, passages)
    assert way.unexplained.first == [2, 3, 4]
    assert way.moves == {}


def test_rows_are_counted_beyond_those_that_are_kept() -> None:
    rows = Rows()
    for number in range(2, ROWS_KEPT_MAX + 12):
        rows.add_row(number)
    way = find_way(given(shop()).machine, [(Passage("order.noted", "placed", "placed"), rows)])
    [found] = way.moves.values()
    assert (found.first, found.times) == (list(range(2, ROWS_KEPT_MAX + 2)), ROWS_KEPT_MAX + 10)


ONE = {"incident": "i1"}
EVENTS: list[Event] = [
    Taken(**ONE, by="ada"),
    Taken(**ONE, by="nobody"),
    Mended(**ONE),
    Told(**ONE),
    Suspended(**ONE),
    Resumed(**ONE),
    Judged(**ONE),
]


@settings(max_examples=60)
@drawn(st.integers(1, 2), st.lists(st.sampled_from(EVENTS), max_size=12))
def test_what_is_certain_was_taken_and_what_was_taken_is_told(severity: int, events: list[Event]) -> None:
    flow = incident_pipeline()
    # Each event is one row: none is taken beside another one, later.
    flow.unexpected = "dead_letter"
    case = given(flow)
    really: set[tuple[int, str, str | None]] = set()
    found: list[tuple[Passage, Rows]] = []
    for event in (Reported(**ONE, severity=severity), *events):
        with Recorded(case.machine) as recorded:
            passages = passages_of(case, event)
        found += passages
        for _, rows in passages:
            really |= {(rows.first[0], source, type_) for source, type_ in recorded.arcs}
    way = find_way(case.machine, found)
    unexplained = set(way.unexplained.first)
    certain, any_ = set(), set()
    for (source, move), rows in way.moves.items():
        any_ |= {(one, source, move.event_type) for one in rows.first}
        if move.targets:
            certain |= {(one, source, move.event_type) for one in rows.first if one not in rows.uncertain}
    assert certain <= really
    assert {one for one in really if one[0] not in unexplained} <= any_


class Recorded:
    """Notes which transitions with targets a machine plans to take while a step goes on."""

    def __init__(self, machine: Machine) -> None:
        self.arcs: set[tuple[str, str | None]] = set()
        self._steps = machine.microsteps
        self._nodes = machine.microsteps.chart.nodes

    def __enter__(self) -> Self:
        take = self._steps.take

        def noting(spot: Spot, arcs: tuple[Arc, ...]) -> tuple[tuple[Arc, ...], Plan]:
            self.arcs |= {
                (self._nodes[arc.source].name, arc.move.event_type)
                for arc in arcs
                if arc.move is not None and arc.targets
            }
            return take(spot, arcs)

        self._steps.take = noting  # type: ignore[method-assign]  # to watch
        return self

    def __exit__(self, *_: object) -> None:
        del self._steps.take
