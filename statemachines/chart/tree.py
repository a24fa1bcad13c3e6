"""A pipeline's states as a tree of numbers, and sets of states as the bits of an integer.

States are numbered in document order, each before those inside it; so the bits of a set from low to high are the order
in which its states are entered, and from high to low the order in which they are left.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from statemachines.definition import Delay, Move, Pipeline, State, name_of
from statemachines.patterns import Names, is_pattern, takes, takes_failures
from statemachines.stated import Undo, is_stated, ranks_of
from statemachines.step import kin_of


class Kind(enum.Enum):
    """What a node is."""

    ATOMIC = enum.auto()
    COMPOUND = enum.auto()
    PARALLEL = enum.auto()
    FINAL = enum.auto()
    HISTORY = enum.auto()
    COMPENSATING = enum.auto()
    """Where a run is while the state around it is undone: that takes nothing, and goes on by its own end."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What is done as one: it is done whole, or undone."""

    function: Callable[..., Any]
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Arc:
    """A transition of a chart."""

    number: int
    """In document order."""
    source: int
    targets: tuple[int, ...]
    internal: bool
    """Whether all targets are the source or inside it, and it is not to be left."""
    guard: Callable[..., Any] | None
    guard_name: str | None
    block: Block | None
    move: Move | None = None
    """The line of the definition; None: a run's beginning."""
    line: int = -1
    """Which one of the definition's moves it is."""
    scope: int = -1
    """The state that is undone before its targets are entered; -1: none is, but where its action asks for it."""
    by: Arc | None = None
    """Of a part of a transition that leads over ``$compensating``: the transition (``chart.undoings``)."""
    place: int = -1
    """Of such a part: the state around that ``$compensating``, which stays active."""


@dataclass(frozen=True, slots=True, eq=False)
class Timer:
    """What begins to run when a state is entered."""

    event_type: str
    """Of the event that it comes back as."""
    delay: Delay
    name: str | None
    """Of the function that says when; None: the delay is fixed."""


@dataclass(slots=True, eq=False)
class Node:
    """A state; node 0 stands for the pipeline itself."""

    number: int
    name: str
    kind: Kind
    parent: int
    children: list[int] = field(default_factory=list)
    """But for histories."""
    ancestors: tuple[int, ...] = ()
    """From the innermost to node 0."""
    inside: int = 0
    """The set of all states inside it."""
    arcs: dict[str, list[Arc]] = field(default_factory=dict)
    """By event type or pattern; those that wait for none under the empty type."""
    entries: tuple[Block, ...] = ()
    exits: tuple[Block, ...] = ()
    begins: tuple[int, ...] = ()
    """Of a compound state: where it begins; of a history: where it leads by default."""
    on_begin: Block | None = None
    deep: bool = False
    state: State[Any] | None = None
    timers: list[Timer] = field(default_factory=list)
    step: str = ""
    """The name of the step that is done while it is active; empty: none is."""


@dataclass(slots=True, eq=False)
class Chart:
    """All of a pipeline, as the algorithm wants it."""

    nodes: list[Node]
    numbers: dict[str, int]
    takes_failures: bool
    """Whether any transition takes the event that says that a handler failed."""
    history: tuple[int, ...] = ()
    """The nodes that are histories."""
    atomic: int = 0
    """The set of states that have none inside."""
    asking: int = 0
    """The set of states that have timers, or run steps."""
    drops_failures: bool = False
    """Whether the event that says that a handler failed is gone where no transition takes it."""
    tags: dict[str, int] = field(default_factory=dict)
    """The sets of states that have each tag."""
    patterns: Names | None = None
    """By which name of the definition the type of an event goes; None where none of its names is a pattern."""
    kin: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By the type of a step's failure, those that are taken to be of it as well: with the exceptions above its own."""
    places: dict[int, int] = field(default_factory=dict)
    """By each state that may be undone, its ``$compensating``; that of node 0 is the run's."""
    compensating: int = 0
    """The set of the latter."""
    undone_at_once: frozenset[str] = frozenset()
    """The states in which all that is undone is undone at once; of the empty name, the run."""
    undone_as_stated: dict[str, dict[str, int]] = field(default_factory=dict)
    """By the states in which it is undone in an order of its own, the steps with their places in it; of the empty name,
    the run."""
    name: str = ""
    """That of the pipeline."""

    def arcs_on(self, number: int, name: str) -> list[Arc]:
        """The transitions of a state on the events that go by a name, in document order."""
        arcs = self.nodes[number].arcs
        if self.patterns is None or name == EVENTLESS:
            return arcs.get(name, [])
        found = [arc for one, several in arcs.items() if one and takes(one, name) for arc in several]
        return sorted(found, key=lambda arc: arc.number)

    def bits(self, names: list[str]) -> int:
        """A set of states, from their names. Raises KeyError."""
        found = 0
        for name in names:
            found |= 1 << self.numbers[name]
        return found

    def names(self, states: int) -> list[str]:
        """The names of a set of states, in document order."""
        return [self.nodes[number].name for number in numbers_of(states)]

    def around(self, name: str) -> str:
        """The name of the state around one; empty: it is an outermost one, or there is none of that name."""
        number = self.numbers.get(name)
        return "" if number is None else self.nodes[self.nodes[number].parent].name

    def is_within(self, number: int, around: int) -> bool:
        """Whether a state is another one, or inside it."""
        return number == around or bool(self.nodes[around].inside >> number & 1)


EVENTLESS: Final = ""
COMPENSATING: Final = "$compensating"
"""The name of the state where a run, or a state of it, is while that is undone; no other state may have it."""


def numbers_of(states: int) -> Iterator[int]:
    """The numbers in a set, ascending."""
    while states:
        lowest = states & -states
        yield lowest.bit_length() - 1
        states ^= lowest


def plant(pipeline: Pipeline[Any]) -> Chart:
    """The chart of a pipeline without mistakes."""
    nodes = [Node(0, "", Kind.COMPOUND, -1)]
    inside: dict[State[Any] | None, list[State[Any]]] = {}
    for state in pipeline.states:
        inside.setdefault(state.parent, []).append(state)
    owing = _owing(pipeline)
    _grow(inside, nodes, nodes[0], None, owing)
    if any(step.compensation for step in pipeline.steps):
        nodes.append(_compensating(nodes, nodes[0]))
    numbers = {node.name: node.number for node in nodes[1:] if node.kind is not Kind.COMPENSATING}
    places = {node.parent: node.number for node in nodes if node.kind is Kind.COMPENSATING}
    for node in reversed(nodes):
        if node.parent >= 0:
            nodes[node.parent].inside |= node.inside | 1 << node.number
    _begin(pipeline, nodes, numbers)
    lines = {move: line for line, move in enumerate(pipeline.moves)}
    for number, move in enumerate(_in_document_order(pipeline, numbers)):
        arc = _arc(number, move, nodes, numbers, lines[move])
        nodes[arc.source].arcs.setdefault(move.event_type or EVENTLESS, []).append(arc)
        if move.delay is not None and move.event_type is not None:
            name = None if isinstance(move.delay, timedelta) else name_of(move.delay)
            nodes[arc.source].timers.append(Timer(move.event_type, move.delay, name))
    drops = pipeline.on_error == "ignore"
    return Chart(
        nodes,
        numbers,
        drops or any(takes_failures(name) for node in nodes for name in node.arcs),
        tuple(node.number for node in nodes if node.kind is Kind.HISTORY),
        sum(1 << node.number for node in nodes if node.kind in (Kind.ATOMIC, Kind.FINAL)),
        sum(1 << node.number for node in nodes if node.timers or node.step),
        drops,
        _tagged(nodes),
        _names(pipeline),
        kin_of(pipeline.steps),
        places,
        sum(1 << number for number in places.values()),
        frozenset(name for name, undo in _undos(pipeline) if undo == "parallel"),
        {name: ranks_of(undo, pipeline.steps) for name, undo in _undos(pipeline) if is_stated(undo)},
        pipeline.name,
    )


def _undos(pipeline: Pipeline[Any]) -> Iterator[tuple[str, Undo]]:
    """How each state, and the run, is undone."""
    yield "", pipeline.undo
    yield from ((state.name, state.undo) for state in pipeline.states)


def _owing(pipeline: Pipeline[Any]) -> set[State[Any]]:
    """The states that may owe anything: they run a step that can be undone, or one inside them does."""
    found: set[State[Any]] = set()
    for state in pipeline.states:
        one: State[Any] | None = state
        if state.run is not None and state.run.compensation is not None:
            while one is not None:
                found.add(one)
                one = one.parent
    return found


def _compensating(nodes: list[Node], around: Node) -> Node:
    """Where a state is while it is undone. It is in nobody's children, so that nothing enters it by default."""
    ancestors = (around.number, *around.ancestors)
    return Node(len(nodes), COMPENSATING, Kind.COMPENSATING, around.number, ancestors=ancestors)


def _tagged(nodes: list[Node]) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in nodes:
        for tag in () if node.state is None else node.state.tags:
            found[tag] = found.get(tag, 0) | 1 << node.number
    return found


def _names(pipeline: Pipeline[Any]) -> Names | None:
    names = {line.event.event_type() for line in pipeline.starts}
    names |= {move.event_type for move in pipeline.moves if move.event_type is not None}
    return Names(names) if any(map(is_pattern, names)) else None


def _grow(
    around: Mapping[State[Any] | None, list[State[Any]]],
    nodes: list[Node],
    parent: Node,
    state: State[Any] | None,
    owing: set[State[Any]],
) -> None:
    ancestors = (parent.number, *parent.ancestors)
    for child in around.get(state, ()):
        inside = around.get(child, [])
        node = Node(
            len(nodes), child.name, _kind(child, inside), parent.number, ancestors=ancestors, state=child
        )
        node.entries = tuple(Block(function, _named(function)) for function, _ in child.entries)
        node.exits = tuple(Block(function, _named(function)) for function, _ in child.exits)
        node.deep = child.deep
        node.step = "" if child.run is None else child.run.name
        nodes.append(node)
        if node.kind is not Kind.HISTORY:
            parent.children.append(node.number)
        if inside:
            _grow(around, nodes, node, child, owing)
        if child in owing:
            nodes.append(_compensating(nodes, node))


def _kind(state: State[Any], inside: list[State[Any]]) -> Kind:
    if state.kind == "history":
        return Kind.HISTORY
    if state.final:
        return Kind.FINAL
    if any(one.kind == "region" for one in inside):
        return Kind.PARALLEL
    return Kind.COMPOUND if any(one.kind == "state" for one in inside) else Kind.ATOMIC


def _begin(pipeline: Pipeline[Any], nodes: list[Node], numbers: dict[str, int]) -> None:
    for node in nodes:
        state = node.state
        beginning = None if state is None else state.beginning
        if beginning is not None:
            node.begins = tuple(numbers[target] for target in beginning.targets)
            if beginning.action is not None:
                node.on_begin = Block(beginning.action, _named(beginning.action))
        elif node.kind is Kind.COMPOUND:
            begins = (one for one in pipeline.states if one.parent is state and one.initial)
            node.begins = (numbers[next(begins).name],)
    for node in nodes:
        if node.kind is Kind.HISTORY and not node.begins:
            around = nodes[node.parent]
            node.begins = around.begins if around.kind is Kind.COMPOUND else tuple(around.children)


def _in_document_order(pipeline: Pipeline[Any], numbers: dict[str, int]) -> list[Move]:
    return sorted(pipeline.moves, key=lambda move: numbers.get(move.source or "", 0))


def _arc(number: int, move: Move, nodes: list[Node], numbers: dict[str, int], line: int) -> Arc:
    source = numbers[move.source] if move.source is not None else 0
    targets = tuple(numbers[target] for target in move.targets)
    inside = nodes[source].inside | 1 << source
    return Arc(
        number,
        source,
        targets,
        internal=not move.reenter and all(inside >> target & 1 for target in targets),
        guard=move.guard,
        guard_name=name_of(move.guard),
        block=None if move.action is None else Block(move.action, _named(move.action)),
        move=move,
        line=line,
        scope=0 if move.scope == "" else numbers.get(move.scope or "", -1),
    )


def _named(function: Callable[..., Any]) -> str:
    return name_of(function) or ""
