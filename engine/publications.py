"""What a move publishes: as it is logged, and as it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import orjson

from connectors.encode import STRUCTURED_HEADERS, encode_structured
from engine.log import microseconds
from engine.outbox import OutRecord
from statemachines.effects import Asked, Publication
from statemachines.events import Address, Envelope
from statemachines.following import DELAYED_IDS_FROM
from statemachines.memory import time_of


def effects_bytes(
    publications: Sequence[Publication], asked: Sequence[Asked] = (), address: Address | None = None
) -> bytes:
    """The effects of a move as JSON, publications first, in order; empty for none.

    The ids of what is not published at once stand beside it; those of publications come from their numbers.
    """
    if not publications and not asked:
        return b""
    effects: list[dict[str, Any]] = [
        {"publish": p.topic, "type": p.type, "key": p.key, "data": orjson.Fragment(p.data)}
        for p in publications
    ]
    effects.extend(_asked(one, address) for one in asked if address is not None)
    return orjson.dumps(effects)


def _asked(one: Asked, address: Address) -> dict[str, Any]:
    if one.what == "cancel":
        return {"cancel": one.id}
    form: dict[str, Any] = {one.what: one.topic or one.type, "type": one.type}
    form["id"] = str(address.derive(DELAYED_IDS_FROM + one.number))
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


def sent_value(one: Asked, address: Address, source: str, cause: Envelope, at: datetime) -> bytes:
    """An event from a run to another one, as it is put into the inbox."""
    number = address.derive_hex(DELAYED_IDS_FROM + one.number)
    return encode_structured(
        id=str(address.derive(DELAYED_IDS_FROM + one.number)),
        source=source,
        type=one.type,
        subject=address.key,
        time=at,
        data=one.data,
        traceparent=_traceparent(cause.traceparent, number),
        causation_id=cause.id,
    )


@lru_cache(maxsize=1_000)
def source_of(namespace: str, pipeline: str) -> str:
    """The CloudEvents source of what a pipeline publishes."""
    return f"/pointsman/{quote(namespace)}/{quote(pipeline)}"


def out_records(
    publications: Sequence[Publication], address: Address, source: str, cause: Envelope, at: datetime
) -> list[OutRecord]:
    """Records for the outbox; each event's id comes from the move's address and its number in it."""
    records = []
    milliseconds = microseconds(at) // 1000
    for index, publication in enumerate(publications):
        number = address.derive_hex(index)
        value = encode_structured(
            id=f"{number[:8]}-{number[8:12]}-{number[12:16]}-{number[16:20]}-{number[20:]}",
            source=source,
            type=publication.type,
            subject=address.key,
            time=at,
            data=publication.data,
            traceparent=_traceparent(cause.traceparent, number),
            causation_id=cause.id,
        )
        key = publication.key.encode()
        records.append(OutRecord(publication.topic, key, value, STRUCTURED_HEADERS, milliseconds))
    return records


def _traceparent(cause: str | None, number: str) -> str:
    # W3C Trace Context: version, trace id, span id, flags. What has no trace yet begins one, equal on every replay.
    if cause is not None:
        parts = cause.split("-")
        if len(parts) >= 4 and len(parts[1]) == 32 and len(parts[3]) == 2:  # noqa: PLR2004 - fixed by the format
            return f"00-{parts[1]}-{number[16:]}-{parts[3]}"
    return f"00-{number}-{number[16:]}-01"
