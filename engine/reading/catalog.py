"""What the store says of a namespace's pipelines, definitions and positions: what rows refer to by number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from connectors.decode import Decoded, Unreadable, decode
from connectors.source import RawRecord
from engine.store.connecting import Connection
from engine.store.queries import load
from statemachines.definition import Topic

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


@dataclass(frozen=True, slots=True)
class StoredDefinition:
    """A definition as it was registered."""

    id: int
    pipeline: int
    pipeline_name: str
    version: int
    hash: bytes
    code: bytes
    topics: Mapping[str, Topic]
    """What it reads, with the settings that say how type, id, key and time are found."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Of one namespace."""

    namespace: str
    pipelines: Mapping[int, str]
    definitions: Mapping[int, StoredDefinition]
    positions: Mapping[int, StoredPosition]

    def readers_of(self, topic: str) -> list[str]:
        """The names of the pipelines of which any version reads a topic."""
        return sorted({d.pipeline_name for d in self.definitions.values() if topic in d.topics})

    def decode(self, record: RawRecord, position: int | None, definition: int | None) -> Decoded | None:
        """The event in a record, by the settings that the definition (or else any) has for its topic."""
        place = self.positions.get(position or 0)
        found = decode(record, self._topic(record.topic, definition), place.cluster if place else "")
        return None if isinstance(found, Unreadable) else found

    def _topic(self, name: str, definition: int | None) -> Topic:
        own = self.definitions.get(definition or 0)
        if own is not None and name in own.topics:
            return own.topics[name]
        others = [d for d in self.definitions.values() if name in d.topics]
        same = [d for d in others if own is not None and d.pipeline == own.pipeline]
        for one in reversed(same or others):
            return one.topics[name]
        return Topic(name)


async def load_catalog(connection: Connection, namespace: str) -> Catalog:
    """Read what there is; an unknown namespace has nothing."""
    return Catalog(
        namespace,
        {row["id"]: row["name"] for row in await connection.fetch(SQL["pipelines"], namespace)},
        {row["id"]: _definition(*row) for row in await connection.fetch(SQL["definitions"], namespace)},
        {row["id"]: StoredPosition(*row) for row in await connection.fetch(SQL["positions"], namespace)},
    )


def _definition(
    number: int, pipeline: int, name: str, version: int, hash_: bytes, code: bytes, structure: bytes
) -> StoredDefinition:
    return StoredDefinition(number, pipeline, name, version, hash_, code, _topics(structure))


def _topics(structure: bytes) -> dict[str, Topic]:
    # A structure that was tampered with is what verify finds; reading goes on without its settings.
    try:
        listed: list[dict[str, Any]] = orjson.loads(structure)["topics"]
        topics = [
            Topic(**{name: value for name, value in one.items() if name in _TOPIC_FIELDS}) for one in listed
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {topic.name: topic for topic in topics}
