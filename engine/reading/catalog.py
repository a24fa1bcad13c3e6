"""What the store says of a namespace's pipelines, definitions and positions: what rows refer to by number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from connectors.decode import Decoded, Unreadable, decode
from connectors.source import RawRecord
from engine.store.connecting import Connection
from engine.store.queries import load
from statemachines.leading import may_reenter
from statemachines.run import active_in
from statemachines.search import WORDS, Kind
from statemachines.topic import Topic

SQL = load("reading")
_TOPIC_FIELDS = frozenset(field.name for field in fields(Topic))


class StoredPosition(NamedTuple):
    """A partition's position."""

    id: int
    group: str
    cluster: str
    topic: str
    partition: int
    position: int
    epoch: int
    updated: datetime
    set_back_from: int | None
    """The highest position that a person ever moved it back from."""
    topic_id: str = ""
    """Of the topic that it is of, as Kafka calls it."""


@dataclass(frozen=True, slots=True)
class StoredDefinition:
    """A definition as it was registered."""

    id: int
    pipeline: int
    pipeline_name: str
    version: int
    hash: bytes
    code: bytes
    registered: datetime
    topics: Mapping[str, Topic]
    """What it reads, with the settings that say how type, id, key and time are found."""
    searchable: Mapping[str, Kind]
    """What its runs are found by."""
    compensations: Mapping[str, str]
    """By step, the name of what undoes it."""
    structure: bytes
    """Its canonical form, as it was stored."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Of one namespace."""

    namespace: str
    pipelines: Mapping[int, str]
    definitions: Mapping[int, StoredDefinition]
    positions: Mapping[int, StoredPosition]

    def may_reenter(self, definition: int, event_type: str, configuration: str) -> bool:
        """Whether an event may have led a run out of states that it was in again behind it."""
        found = self.definitions.get(definition)
        return found is not None and _may_reenter(found.structure, event_type, configuration)

    def readers_of(self, topic: str) -> list[str]:
        """The names of the pipelines of which any version reads a topic."""
        return sorted({d.pipeline_name for d in self.definitions.values() if topic in d.topics})

    def holds_several(self, position: int | None) -> bool:
        """Whether a record of a partition may hold several events, by any settings that its topic was ever read by."""
        place = self.positions.get(position or 0)
        if place is None:
            return False
        settings = [d.topics[place.topic] for d in self.definitions.values() if place.topic in d.topics]
        return any(topic.each is not None for topic in settings)

    def holds_others(self, position: int | None, offset: int | None) -> bool:
        """Whether several events may have had this place: it was read again, perhaps of another topic of that name."""
        place = self.positions.get(position or 0)
        return place is not None and (place.set_back_from or 0) > (offset or 0)

    def decode(
        self,
        record: RawRecord,
        position: int | None,
        definition: int | None = None,
        *,
        at: datetime | None = None,
        event: tuple[str, str] | None = None,
    ) -> Decoded | None:
        """The event in a record; ``at`` is when it was read, ``definition`` what its run follows.

        A topic's settings change with the versions of a pipeline: if the id and type of the ``event`` are known, they
        tell by which it was read.
        """
        found = self.read(record, position, definition, at=at, event=event)
        return None if found is None else found[1]

    def read(
        self,
        record: RawRecord,
        position: int | None,
        definition: int | None = None,
        *,
        at: datetime | None = None,
        event: tuple[str, str] | None = None,
    ) -> tuple[Topic, Decoded] | None:
        """The same, with the settings that it is read by."""
        place = self.positions.get(position or 0)
        likeliest: tuple[Topic, Decoded] | None = None
        for topic in self._settings(record.topic, definition, at):
            settings = topic.knowing(event[1]) if event is not None and event[1] else topic
            found = decode(record, settings, place.cluster if place else "")
            if isinstance(found, Unreadable):
                continue
            if event is None or (found.envelope.id, found.envelope.type) == event:
                return topic, found
            likeliest = likeliest or (topic, found)
        return likeliest

    def in_force(self, pipeline: int, topic: str, at: datetime) -> StoredDefinition | None:
        """Whose settings a topic was read by for a pipeline: the newest version's that was registered by then."""
        known = [d for d in self.definitions.values() if d.pipeline == pipeline and topic in d.topics]
        return max((d for d in known if d.registered <= at), key=_by_version, default=None)

    def _settings(self, name: str, definition: int | None, at: datetime | None) -> list[Topic]:
        """What a topic may have been read by, the likeliest first."""
        readers = [d for d in self.definitions.values() if name in d.topics]
        own = self.definitions.get(definition or 0)
        ordered = sorted(readers, key=_by_version, reverse=True)
        if own is not None:
            ordered = [d for d in ordered if d.pipeline == own.pipeline] or ordered
            decisive = None if at is None else self.in_force(own.pipeline, name, at)
            ordered = [one for one in (decisive, own) if one is not None and name in one.topics] + ordered
        return list(dict.fromkeys(one.topics[name] for one in ordered)) or [Topic(name)]


def _by_version(definition: StoredDefinition) -> tuple[int, int]:
    return definition.version, definition.id


async def load_catalog(connection: Connection, namespace: str) -> Catalog:
    """Read what there is; an unknown namespace has nothing."""
    return Catalog(
        namespace,
        {row["id"]: row["name"] for row in await connection.fetch(SQL["pipelines"], namespace)},
        {row["id"]: _definition(*row) for row in await connection.fetch(SQL["definitions"], namespace)},
        {row["id"]: StoredPosition(*row) for row in await connection.fetch(SQL["positions"], namespace)},
    )


def _definition(
    number: int,
    pipeline: int,
    name: str,
    version: int,
    hash_: bytes,
    code: bytes,
    registered: datetime,
    structure: bytes,
) -> StoredDefinition:
    read = _topics(structure), _searchable(structure), _compensations(structure)
    return StoredDefinition(number, pipeline, name, version, hash_, code, registered, *read, structure)


@lru_cache(maxsize=256)
def _may_reenter(structure: bytes, event_type: str, configuration: str) -> bool:
    try:
        return may_reenter(orjson.loads(structure), event_type, active_in(configuration))
    except (ValueError, LookupError, TypeError, AttributeError):
        return False  # a structure that was tampered with is what verify finds


def _topics(structure: bytes) -> dict[str, Topic]:
    # A structure that was tampered with is what verify finds; reading goes on without its settings.
    try:
        listed: list[dict[str, Any]] = orjson.loads(structure)["topics"]
        topics = [
            Topic(**{name: _setting(value) for name, value in one.items() if name in _TOPIC_FIELDS})
            for one in listed
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {topic.name: topic for topic in topics}


def _setting(value: Any) -> Any:
    """Several fields are a tuple again; a function is known by its name alone."""
    if isinstance(value, list):
        return tuple(value)
    return _says_nothing if isinstance(value, dict) else value


def _says_nothing(_data: dict[str, Any]) -> None:
    """Instead of a function that says of which type events are: it is not loaded here, so that nobody knows."""
    raise LookupError("the function is not loaded here")


def _searchable(structure: bytes) -> dict[str, Kind]:
    try:
        listed: dict[str, Kind] = orjson.loads(structure).get("searchable", {})
        return {name: kind for name, kind in listed.items() if kind in WORDS}
    except (ValueError, TypeError, AttributeError):  # as above
        return {}


def _compensations(structure: bytes) -> dict[str, str]:
    try:
        listed: dict[str, list[Any]] = orjson.loads(structure).get("compensations", {})
        return {step: str(said[0]) for step, said in listed.items()}
    except (ValueError, LookupError, TypeError, AttributeError):  # as above
        return {}
