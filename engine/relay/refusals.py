"""Records that the broker will never take: they are kept, with why, and left out from then on.

A person may have one put back once the topic takes it (``record_of``): then it is published behind all that was
committed meanwhile. If the broker refuses it again, that is another dead letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from engine.dead_letters import fit_text
from engine.dispositions import Disposition
from engine.envelope import decode_headers, encode_headers
from engine.outbox import OutRecord
from engine.relay.rows import Connection, Load
from engine.store import queries
from engine.store.values import StoredDeadLetter
from statemachines.outcome import Reason

_SQL = queries.load("relay")
_SOURCE_PARTS = 4
"""Of ``/pointsman/<namespace>/<pipeline>``, split at slashes."""


async def keep_refused(
    connection: Connection, lane: int, namespace: str, sent: Load, refused: Mapping[int, str]
) -> None:
    """Note what was refused (index in ``sent`` -> why), all or nothing; what was noted before stays as it is.

    A dead letter among it is told that it was not published; anything else becomes a dead letter, and what was put back
    after it was refused before becomes one again.
    """
    async with connection.transaction():
        for place, why in refused.items():
            sequence, index = sent.origins[place]
            error = fit_text(why)
            if await connection.fetchval(_SQL["add_refusal"], lane, sequence, index, error) is None:
                continue
            record = sent.records[place]
            reason = None
            if record.dead_letter is not None:
                reason = await connection.fetchval(
                    _SQL["dead_letter_not_published"], record.dead_letter, error
                )
            if record.dead_letter is None or reason == Reason.REFUSED_BY_BROKER:
                await _add_dead_letter(connection, namespace, (sequence, index), record, error)


def record_of(letter: StoredDeadLetter) -> OutRecord | None:
    """What was to be published when it was refused, to be published after all; None where that is not known."""
    try:
        topic = orjson.loads(letter.details)["topic"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    headers = decode_headers(letter.record_headers)
    return OutRecord(topic, letter.record_key, letter.record_value, headers, letter.record_time, letter.id)


async def _add_dead_letter(
    connection: Connection, namespace: str, origin: tuple[int, int], record: OutRecord, error: str
) -> None:
    event = _event_of(record)
    source = str(event.get("source", "")).split("/")
    details = {"topic": fit_text(record.topic), "outbox": {"sequence": origin[0], "index": origin[1]}}
    await connection.execute(
        _SQL["add_dead_letter"],
        namespace,
        _text(unquote(source[-1])) if len(source) == _SOURCE_PARTS else None,
        _text(event.get("subject")),
        _text(event.get("id")),
        _text(event.get("type")),
        int(Disposition.DEAD_LETTERED),
        Reason.REFUSED_BY_BROKER.value,
        error,
        orjson.dumps(details),
        record.timestamp,
        record.key,
        record.value,
        encode_headers(record.headers),
    )


def _event_of(record: OutRecord) -> dict[str, Any]:
    """The attributes of the CloudEvent; empty where it is none."""
    try:
        event = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}


def _text(value: object) -> str | None:
    return fit_text(value, 1_000) if isinstance(value, str) else None
