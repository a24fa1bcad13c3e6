"""The interpreter beside ``python-statemachine`` 3: equal on random charts, but for a list of differences.

``DIFFERENCES`` has them all, each with the clause that decides it. Random charts are narrowed to what both sides can
say and mean the same by; and where an event is one on which the library is known to differ, its chart ends there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.scxml.appendix_d import Oracle, TooManyMicrostepsError
from tests.scxml.charts import OUTSIDE, documents, numbered
from tests.scxml.document import Ask, Document, Kind, Log, Node
from tests.scxml.elements import Arc, OrderedSet
from tests.scxml.observation import Observation
from tests.scxml.other_differences import DIFFERENCES, Difference
from tests.scxml.other_library import OtherChart, narrowed, plain
from tests.scxml.semantics import DEVIATING, W3C, Semantics
from tests.scxml.translated import Driven, Translation

BOUNDED = replace(DEVIATING, microsteps_max=60)
UNDOING = replace(DEVIATING, failed_blocks_are_undone=True)


class Watching(Oracle):
    """Notes whether it decided what the library decides otherwise."""

    def __init__(self, document: Document, semantics: Semantics) -> None:
        super().__init__(document, semantics)
        self.conflicts = 0
        nodes = list(document.root.walk())
        self._taken = {event for node in nodes for one in node.transitions for event in one.events}
        self._parallel = {
            f"done.state.{one.id}" for one in document.root.children if one.kind is Kind.PARALLEL
        }

    def remove_conflicting_transitions(self, enabled_transitions: OrderedSet[Arc]) -> OrderedSet[Arc]:
        kept = super().remove_conflicting_transitions(enabled_transitions)
        self.conflicts += len(enabled_transitions.to_list()) - len(kept.to_list())
        return kept

    def agreed(self, seen: Observation) -> bool:
        """Whether the order of states did not matter for what was seen, and no parallel state at the top is done."""
        raised = {event.name for event in seen.raised}
        return not self.conflicts and len(raised & self._taken) <= 1 and self._parallel.isdisjoint(raised)


def settled(document: Document, events: list[str]) -> Iterator[str | None]:
    """The start and these events, for as long as the chart comes to rest, and the library is not known to differ."""
    oracle = Watching(document, BOUNDED)
    try:
        for event in (None, *events):
            seen = oracle.start() if event is None else oracle.send(event)
            if not oracle.agreed(seen):
                return
            yield event
            if seen.finished:
                return
    except TooManyMicrostepsError:
        return


@st.composite
def compared(draw: st.DrawFn) -> tuple[Document, list[str | None]]:
    """A narrowed chart, and the start and the events that are compared on it."""
    document = narrowed(draw(documents()), OUTSIDE)
    events = draw(st.lists(st.sampled_from(OUTSIDE), min_size=3, max_size=8))
    return document, list(settled(document, [plain(event) for event in events]))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(compared())
def test_a_run_is_where_the_other_library_is(scenario: tuple[Document, list[str | None]]) -> None:
    document, events = scenario
    assume(events)
    hold(document, events)


@pytest.mark.parametrize("numbers", [range(50), pytest.param(range(2_000), marks=pytest.mark.long)], ids=str)
def test_a_run_is_where_the_other_library_is_on_each_of_many_charts(numbers: range) -> None:
    compared = []
    for number in numbers:
        with numbered(number) as (wide, sent):
            document = narrowed(wide, OUTSIDE)
            events = list(settled(document, [plain(event) for event in sent]))
            compared.append(len(events))
            hold(document, events)
    assert sum(one >= 3 for one in compared) >= len(numbers) / 3, f"events, by chart: {compared}"


def hold(document: Document, events: list[str | None]) -> None:
    """Hold a run and the other library against each other, on the start and these events."""
    driven, other, lanes = Driven(Translation(document)), OtherChart(document), list(lanes_of(document))
    for event in events:
        shown = driven.start() if event is None else driven.send(event)
        if event is None:
            other.start()
        else:
            other.send(event)
        assert shown.finished == other.finished
        assert shown.active == other.active
        log = other.news()
        if not shown.finished:
            assert shown.variables == other.variables
            assert sorted(shown.log) == sorted(log)
            for lane in lanes:
                assert along(lane, shown.log) == along(lane, log)


def lanes_of(document: Document) -> Iterator[frozenset[str]]:
    """For each innermost state, what it logs and what is around it: that is in one order on both sides."""

    def below(node: Node, around: frozenset[str]) -> Iterator[frozenset[str]]:
        histories = [child for child in node.children if child.kind is Kind.HISTORY]
        lane = around.union(*map(labels_of, (node, *histories)))
        states = [child for child in node.children if child not in histories]
        for child in states:
            yield from below(child, lane)
        if not states:
            yield lane

    yield from below(document.root, frozenset())


def labels_of(node: Node) -> Iterator[str]:
    transitions = (*node.transitions, *(one for one in (node.initial, node.default) if one is not None))
    for block in (*node.onentry, *node.onexit, *(one.actions for one in transitions)):
        yield from (action.label for action in block if isinstance(action, Log | Ask))


def along(lane: frozenset[str], log: tuple[str, ...]) -> list[str]:
    """What of a log is in a lane, in its order; but for which transition of several that are taken together."""
    return [said[:1] if said.startswith("t") else said for said in log if said.partition("=")[0] in lane]


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda one: one.name)
def test_what_the_other_library_does_differently(difference: Difference) -> None:
    document, events = difference.document, difference.events.split()
    other = OtherChart(document)
    other.start()
    for event in events:
        other.news()
        other.send(event)
    theirs = (inner(document, other.active), other.news(), other.finished)
    assert theirs == (
        frozenset(difference.atomic.split()),
        tuple(difference.log.split()),
        difference.finished,
    )

    text, declared = last(Oracle(document, W3C), events), last(Oracle(document, UNDOING), events)
    differs = (text.atomic, text.log + text.farewell, text.finished) != theirs
    assert differs != difference.deviates
    if difference.deviates:
        assert (declared.atomic, declared.log, declared.variables) != (text.atomic, text.log, text.variables)
        assert other.variables == text.variables
    if difference.unsaid:
        return
    driven = Driven(Translation(document))
    shown = driven.start()
    for event in events:
        shown = driven.send(event)
    assert (shown.active, shown.variables) == (declared.configuration, declared.variables)
    assert (shown.log, shown.finished) == (declared.log + declared.farewell, declared.finished)


def last(oracle: Oracle, events: list[str]) -> Observation:
    seen = oracle.start()
    for event in events:
        seen = oracle.send(event)
    return seen


def inner(document: Document, active: frozenset[str]) -> frozenset[str]:
    """The atomic and final ones of these states."""
    kinds = {node.id: node.kind for node in document.root.walk()}
    return frozenset(each for each in active if kinds[each] in (Kind.ATOMIC, Kind.FINAL))
