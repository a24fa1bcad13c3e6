"""Dead letters: what is kept of an event that cannot be applied, and how it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import orjson

from connectors.source import Record
from engine.dispositions import Disposition
from engine.envelope import encode_headers
from engine.outbox import OutRecord
from engine.store.values import DeadLetter
from statemachines.outcome import Reason, Tried

TEXT_BYTES_MAX = 8_000
"""Longer errors are cut; the record itself is kept whole."""
SHORT_KEY_BYTES_MAX = 1_000
"""A longer key is left out of a record that says that its value is left out."""
RECORD_OVERHEAD_BYTES = 1_000
"""What Kafka adds to a record, at most, beside key, value and headers."""


@dataclass(frozen=True, slots=True)
class DeadLetterTopic:
    """Where dead letters go, and how large a record may be there."""

    name: str
    record_bytes_max: int = 1_000_000


def topic_of_the_rest(namespace: str) -> str:
    """Where the dead letters of pipelines go that read no topic."""
    return f"pointsman.{namespace}.dead-letters"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose event a dead letter is; what could not be read is None."""

    pipeline: int | None = None
    pipeline_name: str | None = None
    run: int | None = None
    sequence: int | None = None
    key: str | None = None
    event_id: str | None = None
    type: str | None = None


def fit_text(text: str, bytes_max: int = TEXT_BYTES_MAX) -> str:
    """Text as the database can take it: no NUL, no lone surrogates, not too long."""
    clean = text.encode("utf-8", "backslashreplace").replace(b"\0", b"\\x00")
    if len(clean) > bytes_max:
        clean = clean[: bytes_max - 3] + b"..."
    return clean.decode("utf-8", "ignore")


def make_dead_letter(
    record: Record,
    subject: Subject,
    reason: Reason,
    error: str,
    *,
    at: datetime,
    position: int | None,
    topic: DeadLetterTopic | None,
    details: bytes = b"",
) -> DeadLetter:
    """A dead letter for the table, and beside it the record for its topic."""
    message = fit_text(error)
    disposition = Disposition.LATE if reason is Reason.CLOSED else Disposition.DEAD_LETTERED
    return DeadLetter(
        pipeline=subject.pipeline,
        run=subject.run,
        sequence=subject.sequence,
        key=_fit(subject.key),
        event_id=_fit(subject.event_id),
        type=_fit(subject.type),
        disposition=int(disposition),
        reason=reason.value,
        error=message,
        details=details,
        position=position,
        offset=None if position is None and not record.topic else record.offset,
        record_time=record.timestamp,
        record_key=record.key,
        record_value=record.value,
        record_headers=encode_headers(record.headers),
        topic=None if topic is None else topic.name,
        at=at,
        out=None if topic is None else _out_record(record, subject, reason, message, topic),
    )


def details_bytes(tried: tuple[Tried, ...] = (), policy: str = "", why: str = "") -> bytes:
    """What was considered and what decided, as JSON; empty for nothing."""
    form = {"tried": tried_form(tried), "policy": policy, "why": why}
    said = {name: one for name, one in form.items() if one}
    return orjson.dumps(said) if said else b""


def tried_form(tried: tuple[Tried, ...]) -> list[dict[str, str | None]]:
    """The transitions that were considered."""
    return [{"source": t.source, "target": t.target, "guard": t.guard} for t in tried]


def numbered(out: OutRecord, number: int) -> OutRecord:
    """The record with the number that the store gave the dead letter."""
    headers = (*out.headers, ("pointsman-dead-letter", str(number).encode()))
    return out._replace(headers=headers, dead_letter=number)


def _fit(text: str | None) -> str | None:
    return None if text is None else fit_text(text, 1_000)


def _out_record(
    record: Record, subject: Subject, reason: Reason, error: str, topic: DeadLetterTopic
) -> OutRecord:
    # What came from inside of a run has no place.
    place = (record.topic, str(record.partition), str(record.offset)) if record.topic else (None, None, None)
    said = {
        "reason": reason.value,
        "error": error,
        **dict(zip(("topic", "partition", "offset"), place, strict=True)),
        "pipeline": subject.pipeline_name,
        "run": _fit(subject.key),
        "event-id": _fit(subject.event_id),
    }
    ours = [(f"pointsman-{name}", text.encode()) for name, text in said.items() if text is not None]
    # A header's name that is no text is told as far as it can be; the table has its bytes.
    headers = [*((fit_text(name), text) for name, text in record.headers), *ours]
    key, value = record.key, record.value
    size = (
        len(value or b"") + len(key or b"") + sum(len(name) * 4 + len(text or b"") for name, text in headers)
    )
    if size + RECORD_OVERHEAD_BYTES > topic.record_bytes_max:
        # The table has all of it. What the topic can still be told is who and why.
        note = f"{len(value or b'')} bytes are too many for this topic; they are kept in the table".encode()
        key, value, headers = (
            (key if len(key or b"") <= SHORT_KEY_BYTES_MAX else None),
            None,
            [*ours, ("pointsman-value", note)],
        )
    return OutRecord(topic.name, key, value, tuple(headers), record.timestamp)
