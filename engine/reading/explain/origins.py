"""Where events come from that no topic had: which row of which run asked for them; and those that are yet to come."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

from connectors.decode import Decoded, decode
from connectors.encode import STRUCTURED_HEADERS
from connectors.source import RawRecord
from engine.reading.asked import shown_effects
from engine.reading.catalog import SQL
from engine.reading.due import memory_of, memory_view
from engine.reading.explain import inner_words
from engine.reading.explain.answers import Origin
from engine.reading.heard import key_of, named, undone_by
from engine.reading.pauses import paused_names
from engine.reading.values import askable
from engine.store.connecting import Connection
from statemachines.events import Address, Envelope, is_result
from statemachines.memory import Memory
from statemachines.run import Run
from statemachines.topic import NO_TOPIC

_SOURCE = "/pointsman/"
_DERIVED_VERSION = 8


class Sender(NamedTuple):
    """The run that an event names as where it comes from."""

    pipeline: str
    key: str
    cause: str | None
    """The id of the event on which it was sent; None: what a run sends to itself does not say."""


def sender_of(namespace: str, envelope: Envelope) -> Sender | None:
    """The run that has sent an event; None: none of this namespace."""
    begin, _, pipeline = envelope.source.rpartition("/")
    if unquote(begin) != f"{_SOURCE}{namespace}" or envelope.subject is None:
        return None
    cause = envelope.attributes.get("causationid")
    return Sender(unquote(pipeline), envelope.subject, cause if isinstance(cause, str) else None)


async def origin_of(connection: Connection, namespace: str, envelope: Envelope) -> Origin | None:
    """Which row asked for an event without a position; None where that cannot be read from the log."""
    sender = sender_of(namespace, envelope)
    if sender is None:
        return None
    # Of a step, each attempt has an id of its own, which begins with that of the execution.
    asked = envelope.id.partition("/")[0] if is_result(envelope.type) else envelope.id
    return await origin_in(connection, namespace, sender.pipeline, sender.key, asked, sender.cause)


async def origin_in(
    connection: Connection, namespace: str, pipeline: str, key: str, asked: str, cause: str | None = None
) -> Origin | None:
    """Which row of a run of this key asked for what has this id; ``cause`` is the event on which it did, if known."""
    row = await connection.fetchrow(SQL["asking_row"], namespace, pipeline, askable(key), cause, asked)
    return None if row is None else _origin(namespace, row, row["sequence"], asked)


def _origin(namespace: str, row: Mapping[str, Any], sequence: int, event_id: str) -> Origin | None:
    address = Address(namespace, row["name"], row["key"], row["generation"], sequence)
    for one in shown_effects(address, row["kind"], row["effects"]):
        if one["id"] == event_id and one["what"] not in ("stop", "settle"):
            found = Origin(
                what=one["what"],
                pipeline=row["name"],
                key=row["key"],
                generation=row["generation"],
                sequence=sequence,
                at=row["at"],
                due=one["due"],
                to_pipeline=one["pipeline"],
                to_key=one["key"],
                to_topic=one["publish"],
            )
            if one["what"] == "step":
                found = _of_step(found, address, event_id, memory_of(row["remembered"]))
            return replace(found, sentence=inner_words.origin(found))
    return None


def _of_step(found: Origin, address: Address, key: str, memory: Memory) -> Origin:
    """With the execution that was asked for; ``memory`` is what the run remembered then."""
    asked = next((one for one in memory.executions if key_of(address, one.id) == key), None)
    if asked is None:
        return found
    return replace(found, step=named(address, asked), undoes=undone_by(address, asked, memory))


async def pending(connection: Connection, namespace: str, event_id: str) -> list[str]:
    """What is known of an id under which nothing has come yet: a timer, or an event that was sent."""
    by_operators = await connection.fetch(SQL["asked_and_not_taken"], namespace, askable(event_id))
    paused = await paused_names(connection, namespace)
    said = [
        inner_words.sent_and_waits(
            who, why, at, pipeline, orjson.loads(body)["key"], is_paused=pipeline in paused
        )
        for who, why, at, pipeline, body in by_operators
    ]
    if not is_derived(event_id):
        return said
    said += [
        await _in_inbox(connection, namespace, row, event_id, paused)
        for row in await connection.fetch(SQL["sent_and_not_taken"], namespace, event_id)
    ]
    row = await connection.fetchrow(SQL["asked_of_waking_run"], namespace, event_id)
    origin = None if row is None else _origin(namespace, row, row["asked_in"], event_id)
    if row is not None and origin is not None and origin.what != "step":
        columns = (row[name] for name in Run._fields if name not in _OTHERS)
        run = Run(*columns)
        said.append(_to_come(namespace, origin, run, event_id))
    return [one for one in said if one]


_OTHERS = ("deferred",)


def _to_come(namespace: str, origin: Origin, run: Run, event_id: str) -> str:
    found = memory_view(namespace, origin.pipeline, run)
    due = next((one for one in found.due if one.id == event_id), None)
    return inner_words.called_off(origin) if due is None else inner_words.to_come(origin, due, run.held)


async def _in_inbox(
    connection: Connection, namespace: str, row: Mapping[str, Any], event_id: str, paused: Collection[str]
) -> str:
    key, _, value = bytes(row["body"]).partition(b"\0")
    decoded = decode(RawRecord("", 0, 0, -1, key, value, STRUCTURED_HEADERS), NO_TOPIC, "")
    if not isinstance(decoded, Decoded) or decoded.envelope.id != event_id:
        return ""
    origin = await origin_of(connection, namespace, decoded.envelope)
    return inner_words.in_inbox(
        row["name"], key.decode(), decoded.envelope, origin, row["at"], is_paused=row["name"] in paused
    )


def is_derived(event_id: str) -> bool:
    """Whether an id was made of the row that asked for what has it, as all are that engines make."""
    try:
        return uuid.UUID(event_id).version == _DERIVED_VERSION
    except ValueError:
        return False
