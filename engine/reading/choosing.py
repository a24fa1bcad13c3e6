"""Runs that an operator chooses by what they are, instead of by their keys; and what is asked of all of them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from engine import channels
from engine.reading.asking import check_said
from engine.reading.catalog import SQL
from engine.reading.operating import (
    STUCK,
    AskedOfRun,
    What,
    check_run,
    check_type,
    json_data,
    key_field,
    number_of,
    said_with,
    send_body,
    structures_of,
)
from engine.reading.runs import asked_filters, word_for
from engine.reading.values import states_of
from engine.store.connecting import Connection
from statemachines.fields import field_of

WhatOfMany = What | Literal["send"]
APPLIES: Mapping[WhatOfMany, frozenset[str]] = {
    "send": frozenset({"running", "held", "paused"}),
    "pause": frozenset({"running"}),
    "resume": frozenset({"paused"}),
    "cancel": frozenset({"running", "held", "paused"}),
    **dict.fromkeys(STUCK, frozenset({"held"})),
}
"""Of runs of which status something is to be done; none of them has a later generation."""
_ROWS_AHEAD = 500


@dataclass(frozen=True, slots=True)
class Chosen:
    """A run, and which version of it was found."""

    pipeline: str
    key: str
    generation: int
    sequence: int
    status: str
    states: tuple[str, ...]
    definition: int = 0
    """The number of what it follows, where that is asked for."""


async def choose_runs(
    connection: Connection,
    namespace: str,
    what: WhatOfMany,
    *,
    pipeline: str | None = None,
    status: str | None = None,
    state: str | None = None,
    where: Sequence[tuple[str, str]] = (),
) -> list[Chosen]:
    """The runs that the filters let through, as ``list_runs`` has them, and that this can be done to.

    Raises:
        UsageError: there is no such status or attribute, or no such value of it.
    """
    found = []
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        filters = await asked_filters(
            connection,
            namespace,
            pipeline=pipeline,
            status=status,
            state=state,
            where=where,
            stuck=what in STUCK,
        )
        async for row in connection.cursor(SQL["list_runs"], namespace, *filters, prefetch=_ROWS_AHEAD):
            word = word_for(row["status"], row["holding"])
            if word in APPLIES[what]:
                states = tuple(states_of(row["configuration"]))
                found.append(
                    Chosen(row["name"], row["key"], row["generation"], row["sequence"], word, states)
                )
    return found


async def ask_of_runs(
    connection: Connection,
    namespace: str,
    what: What,
    chosen: Sequence[Chosen],
    *,
    who: str,
    why: str,
    result: bytes | None = None,
) -> list[AskedOfRun]:
    """Ask the same of all these runs, of each if it is still as it was found. Needs the engine's role.

    ``result`` is JSON, for ``resolve``: what the steps that they are stuck on would have returned.

    Raises:
        UsageError: it is not said who asks, or why; or the result cannot be.
    """
    with_it = said_with(what, result)
    check_said("who asks", who)
    check_said("why", why)
    return await _put_all(
        connection, namespace, what, chosen, [{"key": one.key, **with_it} for one in chosen], who, why
    )


async def send_to_runs(
    connection: Connection,
    namespace: str,
    chosen: Sequence[Chosen],
    event_type: str,
    data: bytes | None,
    *,
    who: str,
    why: str,
    event_id: str | None = None,
) -> list[AskedOfRun]:
    """Send the same event to all these runs, to each if it is still as it was found. Needs the engine's role.

    ``data`` is JSON. Where the event has its run's key in a field, and ``data`` has none there, each is given its own,
    as a text. With an ``event_id`` it is that of all of them: events of one id that are sent to several runs are
    several.

    Raises:
        UsageError: a pipeline of these runs knows no such type; the event cannot be, or is for another run; or it is
            not said who asks, or why.
    """
    check_said("who asks", who)
    check_said("why", why)
    written = await data_for_runs(connection, namespace, chosen, event_type, data)
    bodies = []
    for one, own in zip(chosen, written, strict=True):
        own_id = str(uuid.uuid4()) if event_id is None else event_id
        bodies.append(send_body(namespace, one.key, event_type, own, who, why, own_id))
    return await _put_all(connection, namespace, "send", chosen, bodies, who, why)


async def data_for_runs(
    connection: Connection, namespace: str, chosen: Sequence[Chosen], event_type: str, data: bytes | None
) -> list[bytes | None]:
    """The data that ``send_to_runs`` gives each of these runs.

    Raises:
        UsageError: a pipeline of these runs knows no such type; the data is no JSON, or for another run.
    """
    form = json_data(data)
    structures = {
        name: await structures_of(connection, namespace, name) for name in {one.pipeline for one in chosen}
    }
    for name, registered in structures.items():
        check_type(name, event_type, registered)
    written = []
    for one in chosen:
        registered = structures[one.pipeline]
        own = _with_key(form, key_field(event_type, registered), one.key)
        check_run(one.key, event_type, own, registered)
        written.append(data if own is form else orjson.dumps(own))
    return written


def _with_key(data: Any, field: str | None, key: str) -> Any:
    """An event's data with the key of its run in this field, where it has none."""
    data = {} if data is None and field else data
    if not field or not isinstance(data, dict) or field_of(field, data) is not None:
        return data
    first, _, rest = field.partition(".")
    return {**data, first: _with_key(data.get(first), rest, key) if rest else key}


async def _put_all(
    connection: Connection,
    namespace: str,
    what: WhatOfMany,
    chosen: Sequence[Chosen],
    bodies: Sequence[Mapping[str, Any]],
    who: str,
    why: str,
) -> list[AskedOfRun]:
    numbers = {
        name: await number_of(connection, namespace, name) for name in {one.pipeline for one in chosen}
    }
    with_versions = [
        orjson.dumps({**body, "as_of": [one.generation, one.sequence]})
        for one, body in zip(chosen, bodies, strict=True)
    ]
    pipelines = [numbers[one.pipeline] for one in chosen]
    async with connection.transaction():
        rows = await connection.fetch(SQL["ask_of_runs"], namespace, what, pipelines, with_versions, who, why)
        await connection.execute(SQL["notify"], channels.INBOX)
    commands = sorted(int(row["id"]) for row in rows)
    return [
        AskedOfRun(command, what, one.pipeline, one.key, body.get("event_id"))
        for command, one, body in zip(commands, chosen, bodies, strict=True)
    ]
