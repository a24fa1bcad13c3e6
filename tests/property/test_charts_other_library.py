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
from tests.scxml.charts import OUTSIDE, documents
from tests.scxml.document import Document, Kind
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
    driven, other = Driven(Translation(document)), OtherChart(document)
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
            assert (shown.variables, sorted(shown.log)) == (other.variables, sorted(log))


def test_enough_of_the_random_charts_is_compared() -> None:
    events: list[int] = []

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(compared())
    def count(scenario: tuple[Document, list[str | None]]) -> None:
        events.append(len(scenario[1]))

    count()
    assert sum(one >= 3 for one in events) >= 30, f"events that are compared, by chart: {events}"


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
