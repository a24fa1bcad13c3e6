"""Which pipelines an event goes to: the loaded definitions, by topic and by event type; some read no topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.dead_letters import DeadLetterTopic, topic_of_the_rest
from statemachines.bounds import Limit
from statemachines.events import Event
from statemachines.keys import How
from statemachines.machine import Machine
from statemachines.patterns import Found, covers, is_pattern
from statemachines.policies import Once
from statemachines.run import Run
from statemachines.topic import NO_TOPIC, Topic

DEFERRED_BYTES = 3_000
"""What a deferred event takes in memory, roughly, beside its record."""
RUN_BYTES = 800
"""What a hot run takes in memory, roughly, beside its context."""


@dataclass(slots=True, eq=False)
class Route:
    """One pipeline as it is loaded: all versions at hand, and the runs that are hot."""

    pipeline: int
    name: str
    newest: Machine
    newest_definition: int
    machines: Mapping[int, Machine]
    """By the store's number of the definition."""
    events: Mapping[str, type[Event]]
    """The class of each event type that any version knows, as the newest of them has it; patterns may be among them."""
    keys: Mapping[str, How]
    """How the run's key is read from the data, by event type; of others the record has it."""
    cache: dict[str, Run] = field(default_factory=dict)
    """Hot runs by key, the least recently moved first."""
    cache_bytes: int = 0
    """The cache takes so many bytes at most, roughly; it may be fewer."""
    works: bool = False
    """Whether any version has steps."""
    limits: Mapping[str, Limit] = field(default_factory=dict)
    """Of steps that have one, by their names; of versions, the newest counts."""
    keyed: frozenset[str] = frozenset()
    """Types, and patterns of them, whose events any version that was ever registered knew by more than their ids."""
    inner: TopicRoute | None = None
    """What stands for the topic of events that come from inside of runs."""


class Reader(NamedTuple):
    """A pipeline that reads a topic, and what one event type is to it."""

    route: Route
    event_class: type[Event] | None
    """None: the pipeline does not know the type, though another one does."""
    how: How | None
    """How the run's key is read from the data; None: the record has it."""
    once: Once | None = None
    """What the event is known by for ever, beside its id."""
    by_both: bool = False
    """Whether it is asked for by its id and by something else, as any version says, or said once."""


@dataclass(slots=True, eq=False)
class TopicRoute:
    """A topic as it is read: its settings, and who reads it."""

    topic: Topic
    routes: Sequence[Route]
    dead_letters: DeadLetterTopic
    readers: Mapping[str, Sequence[Reader]] = field(init=False)
    """All pipelines that read it, by each event type that any of them knows, by its name or by a pattern."""

    def __post_init__(self) -> None:
        """Look up once what is needed for every event."""
        types = {event_type for route in self.routes for event_type in route.events}
        if any(map(is_pattern, types)):
            self.readers = Found(types, self._find_readers)
        else:
            self.readers = {one: [_reader(route, one) for route in self.routes] for one in types}

    def _find_readers(self, event_type: str) -> Sequence[Reader] | None:
        readers = [_reader(route, event_type) for route in self.routes]
        return readers if any(reader.event_class is not None for reader in readers) else None


class Loaded(NamedTuple):
    """A compiled definition and the store's numbers for it."""

    machine: Machine
    pipeline: int
    definition: int
    keyed: frozenset[str] = frozenset()
    """See ``Route``."""


class Routes(dict[str, TopicRoute]):
    """Those to all pipelines, by topic."""

    def __init__(self, topics: Mapping[str, TopicRoute], pipelines: Sequence[Route]) -> None:
        super().__init__(topics)
        self.pipelines = pipelines
        """Also those that read no topic."""


def make_routes(loaded: Iterable[Loaded], record_bytes_max: Mapping[str, int]) -> Routes:
    """Routes; ``record_bytes_max`` says how large a record may be on dead-letter topics.

    Of the versions of a pipeline the newest that names a topic decides how it is read, for the runs of all of them.
    """
    by_pipeline: dict[int, list[Loaded]] = {}
    for one in loaded:
        by_pipeline.setdefault(one.pipeline, []).append(one)
    pipelines: list[Route] = []
    found: dict[str, tuple[Topic, list[Route]]] = {}
    for several in by_pipeline.values():
        versions = sorted(several, key=lambda one: one.machine.version)
        route = _route(versions)
        pipelines.append(route)
        topics = {topic.name: topic for one in versions for topic in one.machine.pipeline.read_topics}
        for name, topic in topics.items():
            found.setdefault(name, (topic, []))[1].append(route)
    made = {
        name: TopicRoute(topic, routes, _dead_letters(topic.dead_letter_topic, record_bytes_max))
        for name, (topic, routes) in found.items()
    }
    for route in pipelines:
        of_topics = (one.dead_letters for one in made.values() if route in one.routes)
        of_the_rest = _dead_letters(topic_of_the_rest(route.newest.namespace), record_bytes_max)
        route.inner = TopicRoute(NO_TOPIC, [route], next(of_topics, of_the_rest))
    return Routes(made, pipelines)


def bytes_of(run: Run) -> int:
    """What a hot run takes in memory, roughly."""
    number = RUN_BYTES + len(run.context) + len(run.memory)
    if run.deferred:
        number += sum(DEFERRED_BYTES + len(one.origin.record.value or b"") for one in run.deferred)
    return number


def once_for_ever(machine: Machine, event_type: str) -> Once | None:
    """What events of a type are known by for ever; what counts for a time only, the run remembers."""
    once = machine.onces.get(event_type)
    return None if once is None or once.within is not None else once


def is_known_by_both(route: Route, event_type: str) -> bool:
    """Whether events of a type are known for ever by their ids and, by any version ever, by something else."""
    if any(once_for_ever(one, event_type) is not None for one in route.machines.values()):
        return True
    return any(covers(name, event_type) for name in route.keyed)


def _reader(route: Route, event_type: str) -> Reader:
    event_class = route.events.get(event_type)
    once = once_for_ever(route.newest, event_type)
    return Reader(route, event_class, route.keys.get(event_type), once, is_known_by_both(route, event_type))


def _route(versions: list[Loaded]) -> Route:
    ordered = sorted(versions, key=lambda one: one.machine.version)
    newest = ordered[-1]
    events = _events_of([one.machine for one in ordered])
    keys = _keys_of([one.machine for one in ordered])
    machines = {one.definition: one.machine for one in ordered}
    works = any(one.pipeline.steps for one in machines.values())
    steps = {step.name: step.bounds for one in ordered for step in one.machine.pipeline.works}
    return Route(
        newest.pipeline,
        newest.machine.name,
        newest.machine,
        newest.definition,
        machines,
        events,
        keys,
        works=works,
        keyed=newest.keyed,
        limits={name: bounds.limit for name, bounds in steps.items() if bounds.limit is not None},
    )


def _events_of(machines: Sequence[Machine]) -> Mapping[str, type[Event]]:
    """Of versions, the oldest first."""
    named = {name: one for machine in machines for name, one in machine.events.items()}
    if not any(map(is_pattern, named)):
        return named

    def find(event_type: str) -> type[Event] | None:
        found = (machine.events.get(event_type) for machine in reversed(machines))
        return next((one for one in found if one is not None), None)

    return Found(named, find)


def _keys_of(machines: Sequence[Machine]) -> Mapping[str, How]:
    """Of versions, the oldest first: the newest that knows a type decides for the runs of all of them.

    Before its key is read, nobody knows which run an event is for.
    """
    named = {name for machine in machines for name in machine.events}

    def find(event_type: str) -> How | None:
        for machine in reversed(machines):
            if event_type in machine.events:
                return machine.keys.get(event_type)
        return None

    if any(map(is_pattern, named)):
        return Found(named, find)
    return {name: how for name in named if (how := find(name)) is not None}


def _dead_letters(name: str, record_bytes_max: Mapping[str, int]) -> DeadLetterTopic:
    limit = record_bytes_max.get(name)
    return DeadLetterTopic(name) if limit is None else DeadLetterTopic(name, limit)
