"""What a move publishes: as it is logged, and as it leaves.

Both are JSON, put together from pieces that are written once; only what differs from one event to the next is written
for each. ``connectors.encode.encode_structured`` and a list of dicts say the same more plainly, and a property test
holds them equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import orjson

from connectors.encode import STRUCTURED_HEADERS
from engine.log import microseconds
from engine.outbox import OutRecord
from engine.store.values import SentCompletion
from statemachines.compact import dumps_compact
from statemachines.effects import COMPLETES, Asked, Publication
from statemachines.events import Address, Envelope, kept_id
from statemachines.ids import ASKED_IDS_FROM, derived_id
from statemachines.memory import time_of

_FRAMES_MAX: Final = 1_000
_dumps: Final = orjson.dumps
_new: Final = tuple.__new__


class Instant(NamedTuple):
    """A time as what is published at it has it."""

    text: bytes
    milliseconds: int


def instant_of(at: datetime) -> Instant:
    """This time, in the zone that it has."""
    return Instant(_dumps(at, option=orjson.OPT_UTC_Z), microseconds(at) // 1000)


def publish(
    publications: Iterable[Publication], address: Address, cause: Envelope, at: Instant, first: int = 0
) -> tuple[bytes, list[OutRecord]]:
    """The effects of a move as JSON for the log, and its records for the outbox, in order.

    Each event's id comes from the move's address and its number in it, from ``first`` on.
    """
    namespace, pipeline, run_key, generation, sequence = address
    time, milliseconds = at
    subject, causation, trace = _dumps(run_key), _dumps(cause.id), cause.traceparent
    effects: list[bytes] = []
    records: list[OutRecord] = []
    for index, (topic, event_type, key, data) in enumerate(publications, first):
        effect, source = _frames(namespace, pipeline, topic, event_type)
        own_id = derived_id(namespace, pipeline, run_key, generation, sequence, index).encode()
        key_text = subject if key == run_key else _dumps(key)
        effects.append(effect + key_text + b',"data":' + data)
        value = b"".join((
            b'{"specversion":"1.0","id":"', own_id, source, subject, b',"time":', time,
            b',"traceparent":', _begin_trace(own_id) if trace is None else _go_on_with(trace, own_id),
            b',"causationid":', causation, b',"data":', data, b"}",
        ))  # fmt: skip
        records.append(_new(OutRecord, (topic, key.encode(), value, STRUCTURED_HEADERS, milliseconds, None)))
    return b"[" + b"},".join(effects) + b"}]", records


@lru_cache(maxsize=_FRAMES_MAX)
def source_of(namespace: str, pipeline: str) -> str:
    """The CloudEvents source of what a pipeline publishes and sends."""
    return f"/pointsman/{quote(namespace)}/{quote(pipeline)}"


def asked_effects(effects: bytes, asked: Iterable[Asked], address: Address) -> bytes:
    """The effects of a move with what it asked for beside publications, each with its id."""
    more = dumps_compact([_asked(one, address) for one in asked])
    return effects[:-1] + b"," + more[1:] if effects else more


def _asked(one: Asked, address: Address) -> dict[str, Any]:
    if one.what == "cancel":
        return {"cancel": one.id}
    if one.what in ("stop", "settle"):
        return {one.what: one.type, "type": one.type, "id": address.id_of_execution(one.id)}
    if one.what in COMPLETES:
        return {one.what: one.type, "type": one.type, "data": orjson.Fragment(one.data), "name": one.id}
    form: dict[str, Any] = {one.what: one.topic or one.type, "type": one.type}
    derive = kept_id if one.what == "step" else Address.id_of_asked
    form["id"] = derive(address, one.number)
    if one.data:
        form["data"] = orjson.Fragment(one.data)
    if one.key is not None:
        form["key"] = one.key
    if one.pipeline:
        form["pipeline"] = one.pipeline
    if one.id:
        form["name"] = one.id
    if one.due:
        form["due"] = time_of(one.due)
    return form


def sent_value(one: Asked, address: Address, cause: Envelope, at: Instant) -> bytes:
    """An event from a run to another one, as it is put into the inbox: what is published in all but its number."""
    asked = [Publication("", one.type, address.key, one.data)]
    [record] = publish(asked, address, cause, at, ASKED_IDS_FROM + one.number)[1]
    assert record.value is not None, "it is an event"
    return record.value


def completion(one: Asked, address: Address, cause: Envelope) -> SentCompletion:
    """What a run says of a step of its own, as it is put into the inbox: the command that its token takes."""
    said = "error" if one.what == "fail" else "result"
    body = _dumps({"key": address.key, "token": one.id, said: orjson.Fragment(one.data)})
    who, why = f"the run {address.key!r}", f"on {cause.type} {cause.id!r}"
    return SentCompletion(address.pipeline, one.what, body, who, why, one.id)


@lru_cache(maxsize=_FRAMES_MAX)
def _frames(namespace: str, pipeline: str, topic: str, event_type: str) -> tuple[bytes, bytes]:
    """The beginning of an effect, up to its key; what follows the id of a CloudEvent, up to its subject."""
    written = _dumps(event_type)
    source = _dumps(source_of(namespace, pipeline))
    return (
        b'{"publish":' + _dumps(topic) + b',"type":' + written + b',"key":',
        b'","source":' + source + b',"type":' + written + b',"subject":',
    )


# W3C Trace Context: version, trace id, span id, flags.


def _go_on_with(trace: str, own_id: bytes) -> bytes:
    parts = trace.split("-")
    if len(parts) >= 4 and len(parts[1]) == 32 and len(parts[3]) == 2:  # noqa: PLR2004 - fixed by the format
        span = own_id.replace(b"-", b"")[16:].decode()
        return _dumps(f"00-{parts[1]}-{span}-{parts[3]}")
    return _begin_trace(own_id)


def _begin_trace(own_id: bytes) -> bytes:
    """What has no trace yet begins one, equal on every replay."""
    digits = own_id.replace(b"-", b"")
    return b"".join((b'"00-', digits, b"-", digits[16:], b'-01"'))
