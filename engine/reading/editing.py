"""Dead letters whose events are offered with other data: what an operator asks, and what is looked at before."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from connectors.decode import Decoded, decode
from connectors.editing import with_data
from connectors.source import RawRecord
from engine import channels
from engine.errors import UsageError
from engine.reading.asking import Asked, check_said, why_not
from engine.reading.catalog import SQL, load_catalog
from engine.reading.dead_letters import show_dead_letter
from engine.reading.operating import check_run, json_data, structures_of
from engine.store.connecting import Connection
from statemachines.events import is_result
from statemachines.outcome import Reason
from statemachines.suggest import did_you_mean
from statemachines.topic import NO_TOPIC, Topic

_NOTHING_CHANGED = "Nothing was changed: give all of the data with --data."


async def ask_edit(
    connection: Connection,
    namespace: str,
    number: int,
    *,
    data: bytes | None = None,
    changes: Mapping[str, Any] | None = None,
    add: bool = False,
    who: str,
    why: str,
) -> Asked:
    """Ask for the event of an open dead letter to be offered with other data, in its place and under its id.

    ``data`` is all of it, as JSON; or ``changes`` are fields with other values, which are there unless ``add`` is said.
    Needs the engine's role.

    Raises:
        NotFoundError: there is no such dead letter.
        UsageError: its event has no data that could be changed, or would be another event; or it is not said who asks,
            or why.
    """
    check_said("who asks", who)
    check_said("why", why)
    letter = await show_dead_letter(connection, namespace, number)
    (row,) = await connection.fetch(SQL["letters_to_ask_of"], namespace, [number])
    if letter.letter.status != "open":
        return Asked("edit", (), ((number, why_not("edit", row)),), is_refused=True)
    if letter.letter.reason == Reason.REFUSED_BY_BROKER:
        raise UsageError(
            f"Dead letter {number} is what a run published, and no event of one: redrive or drop it."
        )
    view, position = letter.record, row["position"]
    record = RawRecord(
        view.topic, view.partition or 0, view.offset or 0, view.time, view.key, view.value, view.headers
    )
    catalog = await load_catalog(connection, namespace)
    event = letter.letter.event_id or "", letter.letter.type or ""

    def read(one: RawRecord) -> tuple[Topic, Decoded] | None:
        if position is not None:
            return catalog.read(one, position, event=event)
        found = decode(one, NO_TOPIC, "")
        return (NO_TOPIC, found) if isinstance(found, Decoded) else None

    found = read(record)
    if found is None:
        raise UsageError(
            f"The record of dead letter {number} cannot be changed: it cannot be read as one event. Drop it, and send "
            "the event anew: pointsman send."
        )
    topic, before = found
    if is_result(before.envelope.type):
        raise UsageError(
            f"Dead letter {number} tells how a step ended, which nobody can change: redrive or drop it, or have the "
            "run go on by an event: pointsman send."
        )
    given = changed(number, before.data, changes or {}, add=add) if data is None else data
    form = json_data(given)
    edited = with_data(record, topic, given)
    again = read(edited)
    if again is None or again[1].envelope != before.envelope:
        raise UsageError(
            f"With that data it would be another event than {before.envelope.id!r}: its topic's settings read more of "
            "the event from there. Nothing was changed."
        )
    if letter.letter.pipeline is not None and letter.letter.key is not None:
        structures = await structures_of(connection, namespace, letter.letter.pipeline)
        check_run(letter.letter.key, before.envelope.type, form, structures)
    value = base64.b64encode(edited.value or b"").decode()
    body = orjson.dumps({"dead_letter": number, "value": value})
    async with connection.transaction():
        asked = namespace, row["pipeline"], body, who, why, number
        command = await connection.fetchval(SQL["ask_to_edit"], *asked)
        await connection.execute(SQL["notify"], channels.INBOX)
    return Asked("edit", ((number, command),), ())


def changed(number: int, data: Any, changes: Mapping[str, Any], *, add: bool = False) -> bytes:
    """The data of a dead letter with other values of fields; ``a.b`` is one within a field.

    One whose own name has a dot in it is found first.

    Raises:
        UsageError: the data has no fields, or none that such a one could be in; or not this one, and it is not to be
            added.
    """
    if not isinstance(data, dict):
        raise UsageError(
            f"The data of dead letter {number} is no object with fields: give all of it with --data."
        )
    for name, value in changes.items():
        data = _with_field(number, data, name, value, name, add=add)
    return orjson.dumps(data)


def _with_field(
    number: int, data: dict[str, Any], name: str, value: Any, whole: str, *, add: bool
) -> dict[str, Any]:
    """``name`` is what is left of the ``whole`` one."""
    first, dot, rest = name.partition(".")
    if name in data or not dot:
        if not name:
            raise UsageError(f"{whole!r} names no field. {_NOTHING_CHANGED}")
        if name not in data and not add:
            raise UsageError(
                f"The data of dead letter {number} has no field {whole!r}. {did_you_mean(name, data)} Nothing was "
                "changed: to have a new one put in, say --add, too."
            )
        return {**data, name: value}
    around = whole[: len(whole) - len(rest) - 1]
    if first not in data:
        raise UsageError(
            f"The data of dead letter {number} has no field {around!r} for {whole!r}. {did_you_mean(first, data)} "
            f"{_NOTHING_CHANGED}"
        )
    if not isinstance(data[first], dict):
        raise UsageError(
            f"{whole!r} is no field within {around!r}, which has none in the data of dead letter {number}. "
            f"{_NOTHING_CHANGED}"
        )
    return {**data, first: _with_field(number, data[first], rest, value, whole, add=add)}
