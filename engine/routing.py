"""Which pipelines an event goes to: the loaded definitions, by topic and by event type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.dead_letters import DeadLetterTopic
from statemachines.events import Event
from statemachines.keys import How
from statemachines.machine import Machine
from statemachines.run import Run
from statemachines.topic import Topic

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
    """The event types that any version knows."""
    keys: Mapping[str, How]
    """How the run's key is read from the data, by event type; of others the record has it."""
    cache: dict[str, Run] = field(default_factory=dict)
    """Hot runs by key, the least recently moved first."""
    cache_bytes: int = 0
    """The cache takes so many bytes at most, roughly; it may be fewer."""


class Reader(NamedTuple):
    """A pipeline that reads a topic, and what one event type is to it."""

    route: Route
    event_class: type[Event] | None
    """None: the pipeline does not know the type, though another one does."""
    how: How | None
    """How the run's key is read from the data; None: the record has it."""


@dataclass(slots=True, eq=False)
class TopicRoute:
    """A topic as it is read: its settings, and who reads it."""

    topic: Topic
    routes: Sequence[Route]
    dead_letters: DeadLetterTopic
    readers: Mapping[str, Sequence[Reader]] = field(init=False)
    """All pipelines that read it, by each event type that any of them knows."""

    def __post_init__(self) -> None:
        """Look up once what is needed for every event."""
        types = {event_type for route in self.routes for event_type in route.events}
        self.readers = {one: [_reader(route, one) for route in self.routes] for one in types}


class Loaded(NamedTuple):
    """A compiled definition and the store's numbers for it."""

    machine: Machine
    pipeline: int
    definition: int


def make_routes(loaded: Iterable[Loaded], record_bytes_max: Mapping[str, int]) -> dict[str, TopicRoute]:
    """Routes by topic; ``record_bytes_max`` says how large a record may be on dead-letter topics.

    Of the versions of a pipeline the newest that names a topic decides how it is read, for the runs of all of them.
    """
    by_pipeline: dict[int, list[Loaded]] = {}
    for one in loaded:
        by_pipeline.setdefault(one.pipeline, []).append(one)
    found: dict[str, tuple[Topic, list[Route]]] = {}
    for several in by_pipeline.values():
        versions = sorted(several, key=lambda one: one.machine.version)
        route = _route(versions)
        topics = {topic.name: topic for one in versions for topic in one.machine.pipeline.read_topics}
        for name, topic in topics.items():
            found.setdefault(name, (topic, []))[1].append(route)
    return {name: _topic_route(topic, routes, record_bytes_max) for name, (topic, routes) in found.items()}


def bytes_of(run: Run) -> int:
    """What a hot run takes in memory, roughly."""
    return RUN_BYTES + len(run.context)


def _reader(route: Route, event_type: str) -> Reader:
    event_class = route.events.get(event_type)
    return Reader(route, event_class, route.keys.get(event_type))


def _route(versions: list[Loaded]) -> Route:
    ordered = sorted(versions, key=lambda one: one.machine.version)
    newest = ordered[-1]
    events: dict[str, type[Event]] = {}
    keys: dict[str, How] = {}
    for one in ordered:
        # The newest version that knows a type decides for the runs of all of them: before its key is read, nobody knows
        # which run an event is for.
        events.update(one.machine.events)
        keys = {name: how for name, how in keys.items() if name not in one.machine.events} | {
            **one.machine.keys
        }
    machines = {one.definition: one.machine for one in ordered}
    return Route(
        newest.pipeline, newest.machine.name, newest.machine, newest.definition, machines, events, keys
    )


def _topic_route(topic: Topic, routes: list[Route], record_bytes_max: Mapping[str, int]) -> TopicRoute:
    name = topic.dead_letter_topic
    limit = record_bytes_max.get(name)
    dead_letters = DeadLetterTopic(name) if limit is None else DeadLetterTopic(name, limit)
    return TopicRoute(topic, routes, dead_letters)
