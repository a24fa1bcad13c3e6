"""How a pipeline is written down: a table of moves over plain functions.

Nothing is checked while the table is being written, so that ``validation`` can report all mistakes at once;
and nothing has a side effect, so that a pipeline's file can be imported anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from statemachines.context import Context
from statemachines.effects import Out
from statemachines.events import Event
from statemachines.places import Place, calling_place

C = TypeVar("C", bound=Context)
E = TypeVar("E", bound=Event)

_COMPREHENSION = re.compile(r"<(?:listcomp|setcomp|dictcomp|genexpr)>\.")
"""Some versions of Python name these scopes and some do not; the name of a function must not depend on it."""

Policy = Literal["dead_letter", "ignore"]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that a pipeline reads, and how type, id, key and time are found in its plain JSON records.

    Of the versions of a pipeline that are loaded the newest decides, for the runs of all of them.

    CloudEvents carry their own and need no settings. ``type``, ``id``, ``key`` and ``time`` each name a
    header or a field of the record (``a.b`` for a field within a field); a header is preferred.
    """

    name: str
    type: str = "type"
    type_default: str | None = None
    """The type of records that carry none."""
    id: str | None = None
    """None: cluster, topic, partition and offset are the id."""
    key: str | None = None
    """None: the Kafka key is the run's key, then CloudEvents ``subject``."""
    time: str | None = None
    """None: Kafka's time."""
    unknown: Policy = "dead_letter"
    """What becomes of a record whose type no pipeline that reads the topic knows."""
    dead_letters: str | None = None
    """The topic for dead letters; None: ``<name>.dead-letters``."""

    @property
    def dead_letter_topic(self) -> str:
        """Where dead letters of this topic are published."""
        return self.dead_letters or f"{self.name}.dead-letters"


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """One line of the table: in this state, on this event, if this holds, do that and go there."""

    source: str | None
    """None: in any state of the pipeline."""
    event: type[Event]
    target: str | None
    """None: stay, without leaving the state."""
    guard: Callable[..., bool] | None
    action: Callable[..., Out] | None
    place: Place
    stranger: str | None = None
    """The pipeline that the target is a state of, where that is another one; a mistake."""


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """The move out of nothing: this event makes a run, whose context this function builds."""

    event: type[Event]
    build: Callable[..., Context]
    target: str | None
    """None: the initial state."""
    action: Callable[..., Out] | None
    place: Place
    stranger: str | None = None
    """The pipeline that the target is a state of, where that is another one; a mistake."""


@dataclass(frozen=True, slots=True, eq=False)
class State(Generic[C]):
    """A state of a pipeline; made by ``Pipeline.state``."""

    pipeline: Pipeline[C]
    name: str
    initial: bool
    final: bool
    description: str
    place: Place

    def on(
        self,
        event: type[E],
        *,
        to: State[C] | str | None = None,
        when: Callable[[C, E], bool] | None = None,
        do: Callable[[C, E], Out] | None = None,
    ) -> None:
        """Add a transition out of this state; several on one event are tried in the order they were added.

        Args:
            event: the class of events that it takes.
            to: the target; None stays in the state.
            when: a pure condition on (context, event).
            do: changes the context that it is given, and may return effects.
        """
        self.pipeline.add_move(self.name, event, to, when, do)

    def __str__(self) -> str:
        """The state's name."""
        return self.name


@dataclass(slots=True, eq=False)
class Pipeline(Generic[C]):
    """A named, versioned state machine definition.

    Args:
        name: what its runs are found by, with the namespace and their key.
        context: the class of a run's durable data.
        version: a number that changes whenever the definition does.
        topics: what it reads; a name stands for a ``Topic`` with the default settings.
        no_run: what becomes of an event whose key has no run and that starts none.
        unexpected: what becomes of an event that the state of its run does not take.
        closed: what becomes of an event whose run has ended.
        description: a sentence for people.
    """

    name: str
    context: type[C]
    version: int = field(default=1, kw_only=True)
    topics: Sequence[Topic | str] = field(default=(), kw_only=True)
    no_run: Policy = field(default="dead_letter", kw_only=True)
    unexpected: Policy = field(default="dead_letter", kw_only=True)
    closed: Policy = field(default="dead_letter", kw_only=True)
    description: str = field(default="", kw_only=True)
    states: list[State[C]] = field(default_factory=list, init=False)
    moves: list[Move] = field(default_factory=list, init=False)
    starts: list[Start] = field(default_factory=list, init=False)
    place: Place = field(default_factory=calling_place, init=False)

    def state(
        self, name: str, *, initial: bool = False, final: bool = False, description: str = ""
    ) -> State[C]:
        """Add a state. One is ``initial``; a run that reaches a ``final`` one is completed."""
        made = State(self, name, initial, final, description, calling_place())
        self.states.append(made)
        return made

    def start(
        self,
        event: type[E],
        build: Callable[[E], C],
        *,
        to: State[C] | str | None = None,
        do: Callable[[C, E], Out] | None = None,
    ) -> None:
        """Let an event start a run: ``build`` makes its context, ``do`` may ask for effects."""
        place, stranger = calling_place(), _stranger(to, self)
        self.starts.append(Start(event, build, _name_of(to), do, place, stranger))

    def on(
        self,
        event: type[E],
        *,
        to: State[C] | str | None = None,
        when: Callable[[C, E], bool] | None = None,
        do: Callable[[C, E], Out] | None = None,
    ) -> None:
        """Add a transition out of any state that is not final; a state's own transitions come first."""
        self.add_move(None, event, to, when, do)

    def add_move(
        self,
        source: str | None,
        event: type[Event],
        to: State[C] | str | None,
        when: Callable[..., bool] | None,
        do: Callable[..., Out] | None,
    ) -> None:
        """Add a line to the table; ``State.on`` and ``Pipeline.on`` are the ways to say it."""
        place, stranger = calling_place(), _stranger(to, self)
        self.moves.append(Move(source, event, _name_of(to), when, do, place, stranger))

    @property
    def read_topics(self) -> tuple[Topic, ...]:
        """The topics with their settings."""
        return tuple(topic if isinstance(topic, Topic) else Topic(topic) for topic in self.topics)


def _name_of(target: State[Any] | str | None) -> str | None:
    return None if target is None else str(target)


def _stranger(target: State[Any] | str | None, pipeline: Pipeline[Any]) -> str | None:
    if isinstance(target, State) and target.pipeline is not pipeline:
        return target.pipeline.name
    return None


def name_of(function: Callable[..., Any] | None) -> str | None:
    """How a function is called in definitions, diagrams and explanations."""
    if function is None:
        return None
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return _COMPREHENSION.sub("", name)
