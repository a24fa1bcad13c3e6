"""The way that a run took through its chart, worked out from what its log says of each event.

A row of the log has the event and where the run was before and after it, and not which transitions were taken:
several may lead to the same place, and guards are asked by user code, which is not called here. So all ways are tried
that the chart allows for some answers of its guards, the shortest first: what they all have in common is certain, the
rest of them may have been. Where a row fits none, as after a change of the definition, it is unexplained. What
changes no state, and was taken on a failure or on an event that the run raised for itself, leaves no trace in the
log, and none here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import product
from typing import NamedTuple

from statemachines.chart.microsteps import Spot
from statemachines.chart.spots import place_name, told_apart
from statemachines.chart.tree import EVENTLESS, Arc, Kind, numbers_of
from statemachines.definition import Move, Start
from statemachines.events import OUTCOMES, Cancelled
from statemachines.machine import Machine
from statemachines.run import active_in

ROWS_KEPT_MAX = 100
"""Of each transition and state; more are counted."""
_STEPS_MAX = 20
_SPOTS_MAX = 2_000
_SELECTIONS_MAX = 200
"""How far the search goes for one row before it is given up."""

Edge = tuple[str, Move]
"""A transition as it is drawn: the state that it leads out of, and its line; what any state takes leads out of each."""


@dataclass(slots=True)
class Rows:
    """Rows of a log: the first of them, and how many there are."""

    first: list[int] = field(default_factory=list)
    uncertain: set[int] = field(default_factory=set)
    """Those of ``first`` of which it is not certain that they belong here."""
    times: int = 0

    def add(self, rows: Rows, *, certain: bool = True) -> None:
        """Add these, which come after those that are here only if they are later."""
        self.times += rows.times
        self.uncertain |= rows.uncertain if certain else set(rows.first)
        self.first = sorted({*self.first, *rows.first})[:ROWS_KEPT_MAX]
        self.uncertain.intersection_update(self.first)

    def add_row(self, row: int) -> None:
        """Add the next one."""
        self.times += 1
        if len(self.first) < ROWS_KEPT_MAX:
            self.first.append(row)


class Passage(NamedTuple):
    """From where to where an event led a run, in these rows; as the log has it."""

    type: str
    before: str | None
    """None: it started the run."""
    after: str


@dataclass(slots=True)
class Way:
    """The way of a run."""

    entered: dict[str, Rows] = field(default_factory=dict)
    """By state: the rows after which it was active, and before which it was not."""
    starts: dict[Start, Rows] = field(default_factory=dict)
    moves: dict[Edge, Rows] = field(default_factory=dict)
    unexplained: Rows = field(default_factory=Rows)


class _Found(NamedTuple):
    """What was taken on the shortest ways to a spot."""

    all: frozenset[Edge]
    """On each of them."""
    any: frozenset[Edge]
    starts: frozenset[Start | None]
    """What the run began by on some of them; None: by no line of the definition, or before."""


class _Begin(NamedTuple):
    """Where a way may begin."""

    spot: Spot
    offered: str | None
    """The event that is taken there; None: what led there was the event."""
    start: Start | None = None


def find_way(machine: Machine, passages: Iterable[tuple[Passage, Rows]]) -> Way:
    """Where a run went, from what its rows say."""
    way = Way()
    search = _Search(machine)
    for passage, rows in passages:
        before = () if passage.before is None else told_apart(active_in(passage.before))
        for state in told_apart(active_in(passage.after)):
            if state not in before:
                way.entered.setdefault(state, Rows()).add(rows)
        found = search.ways(passage)
        starts = search.starts_of(passage) if found is None else found.starts
        for start in machine.pipeline.starts:
            if start in starts:
                way.starts.setdefault(start, Rows()).add(rows, certain=len(starts) == 1)
        if found is None:
            way.unexplained.add(rows)
            continue
        for edge in found.any:
            way.moves.setdefault(edge, Rows()).add(rows, certain=edge in found.all)
    return way


class _AskedError(Exception):
    """A guard was asked whose answer is open."""

    def __init__(self, arc: Arc) -> None:
        super().__init__()
        self.arc = arc


class _Search:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._steps = machine.microsteps
        types = {one: None for node in machine.microsteps.chart.nodes for one in node.arcs}
        if machine.microsteps.chart.compensating:
            types[EVENTLESS] = None
        events = machine.events
        timers = {timer.event_type for node in machine.microsteps.chart.nodes for timer in node.timers}
        alone = {*timers, Cancelled.event_type()}
        inside = [one for one in types if one not in events and one not in alone]
        self._by_itself = [one for one in inside if not one.startswith(OUTCOMES)]
        """What follows by itself: transitions that wait for nothing, and on done states and failures."""
        self._carries = False
        """Whether it is thought of transitions that left what was being undone already."""
        self._raised = [*self._by_itself, *(one for one in types if one in events)]

    def ways(self, passage: Passage) -> _Found | None:
        """The shortest ways from where a run was to where it is; raised events are thought of only if need be."""
        spots = self._machine.spots
        try:
            after = spots.spot_of(passage.after)
            if passage.before is None:
                begins = self._beginnings(passage.type)
            else:
                begins = [_Begin(spots.spot_of(passage.before), passage.type)]
        except KeyError:
            return None
        compensates = bool(self._steps.chart.compensating)
        for carries, types in product((False, True)[: 1 + compensates], (self._by_itself, self._raised)):
            self._carries = carries
            ways = [self._between(begin, after, types) for begin in begins]
            found = [one for one in ways if one is not None]
            if found:
                # Which start it was depends on what the event said: none is likelier since its way is shorter.
                return reduce(_either, found)
        return None

    def starts_of(self, passage: Passage) -> frozenset[Start | None]:
        """What a run may have begun by, whatever way it took from there."""
        if passage.before is not None:
            return frozenset()
        return frozenset(one.start for one in self._beginnings(passage.type))

    def _beginnings(self, event_type: str) -> list[_Begin]:
        """Where a run may begin, and what it is offered there."""
        machine = self._machine
        starts = [one for one in machine.pipeline.starts if one.event.event_type() == event_type]
        tried = machine.beginnings.get(event_type, ())
        begins = [_Begin(one.plan.after, None, start) for one, start in zip(tried, starts, strict=True)]
        by_policy = machine.policies.of("no_run", event_type).decision == "start"
        if by_policy and all(start.guard is not None for start in starts):
            begins.append(_Begin(machine.default_plan.after, event_type))
        return begins

    def _between(self, begin: _Begin, after: Spot, types: list[str]) -> _Found | None:
        nothing: frozenset[Edge] = frozenset()
        first = begin.offered
        level = {begin.spot: _Found(nothing, nothing, frozenset({begin.start}))}
        seen = {begin.spot} if first is None else set()
        if first is None and begin.spot == after:
            return level[begin.spot]
        for step in range(_STEPS_MAX):
            now = [first] if step == 0 and first is not None else types
            level = self._next(level, now)
            if after in level:
                return level[after]
            level = {spot: found for spot, found in level.items() if spot not in seen}
            seen |= level.keys()
            if not level or len(seen) > _SPOTS_MAX:
                return None
        return None

    def _next(self, level: dict[Spot, _Found], types: Iterable[str]) -> dict[Spot, _Found]:
        found: dict[Spot, _Found] = {}
        for spot, way in level.items():
            for event_type in types:
                for arcs in self._selections(spot, event_type, way):
                    edges = frozenset(self._edge(arc, spot) for arc in arcs)
                    made = _Found(way.all | edges, way.any | edges, way.starts)
                    there = self._steps.plan(spot, arcs).after
                    known = found.get(there)
                    found[there] = made if known is None else _either(known, made)
        return found

    def _selections(self, spot: Spot, event_type: str, way: _Found) -> Iterator[tuple[Arc, ...]]:
        """What may be taken on an event, for all answers that guards and actions may give."""
        if spot.active & self._steps.chart.compensating:
            yield from self._undone(spot, event_type, way)
        for taken in self._taken(spot, event_type):
            arcs = self._steps.parts(spot, taken)
            yield arcs
            for one in arcs:
                for asked in self._asked_of(spot, one, arcs):
                    yield tuple(asked if other is one else other for other in arcs)

    def _asked_of(self, spot: Spot, arc: Arc, arcs: tuple[Arc, ...]) -> Iterable[Arc]:
        """What may be taken instead where the action of a transition asks to undo a state."""
        chart, source = self._steps.chart, (arc.by or arc).source
        if arc.block is None or not arc.targets or arc.scope >= 0:
            return ()
        found: dict[int, Arc] = {}
        for scope in chart.places:
            if chart.is_within(source, scope) or chart.is_within(scope, source):
                asked = self._steps.asked(spot, arc, scope, arcs)
                found.setdefault(asked.place, asked)
        return [one for one in found.values() if one is not arc]

    def _undone(self, spot: Spot, event_type: str, way: _Found) -> Iterator[tuple[Arc, ...]]:
        """What a run does that is undone, or a state of it: how a step ended may change nothing, or lead on."""
        if event_type.startswith(OUTCOMES):
            yield ()
        if event_type == EVENTLESS or event_type.startswith(OUTCOMES):
            known = {move for _, move in way.any}
            for place, number in self._steps.chart.places.items():
                if spot.active >> number & 1:
                    for one in self._steps.undoings.ways_on(place):
                        if one.move in known if known else self._may_lead_to(spot, one):
                            yield (one,)

    def _may_lead_to(self, spot: Spot, arc: Arc) -> bool:
        """Whether a transition may have led to where it was undone, that it leads on from."""
        chart, by = self._steps.chart, arc.by
        assert by is not None, "it is the second part of one"
        around = self._steps.domain(spot, by)
        if arc.place in (by.scope, around):
            return by.scope == arc.place or (by.scope < 0 and (by.block is not None or self._carries))
        return by.block is not None and by.scope < 0 and chart.is_within(around, arc.place)

    def _taken(self, spot: Spot, event_type: str) -> Iterator[tuple[Arc, ...]]:
        """What may be taken where nothing is undone; never nothing."""
        if not event_type.startswith(OUTCOMES):
            yield from self._answered(partial(self._steps.select, spot, event_type))
            return
        for node in self._steps.chart.nodes:
            # How a step ended is for one of the states that run it, and the row does not say for which.
            if spot.active >> node.number & 1 and node.step == event_type.split(".")[2]:
                yield from self._answered(partial(self._steps.select_of, node.number, event_type))

    def _answered(
        self, select: Callable[[Callable[[Arc], bool]], tuple[Arc, ...]]
    ) -> Iterator[tuple[Arc, ...]]:
        open_: list[dict[Arc, bool]] = [{}]
        known: set[tuple[Arc, ...]] = {()}
        while open_ and len(known) < _SELECTIONS_MAX:
            answers = open_.pop()
            try:
                arcs = select(partial(_answer, answers))
            except _AskedError as asked:
                open_ += [{**answers, asked.arc: False}, {**answers, asked.arc: True}]
                continue
            if arcs not in known:
                known.add(arcs)
                yield arcs

    def _edge(self, arc: Arc, spot: Spot) -> Edge:
        nodes = self._steps.chart.nodes
        source = arc.source or next(one for one in numbers_of(spot.active & ~1) if nodes[one].parent == 0)
        assert arc.move is not None, "only a run's beginning is no line of the definition"
        if nodes[source].kind is Kind.COMPENSATING:
            return place_name(nodes[nodes[source].parent].name), arc.move
        return nodes[source].name, arc.move


def _either(one: _Found, other: _Found) -> _Found:
    """Where it may have been either."""
    return _Found(one.all & other.all, one.any | other.any, one.starts | other.starts)


def _answer(answers: dict[Arc, bool], arc: Arc) -> bool:
    try:
        return answers[arc]
    except KeyError:
        raise _AskedError(arc) from None
