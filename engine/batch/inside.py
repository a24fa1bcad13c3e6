"""What comes from inside of runs, as arrivals: timers, events that a run sent to itself, and those of other runs.

They have no Kafka record, so they are given one: a structured CloudEvent, with the run's key. What tells them from
others is that they have no position; and what comes from the run itself has its pipeline as source and its key as
subject.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import orjson

from connectors.decode import Decoded, decode
from connectors.encode import STRUCTURED_HEADERS, encode_structured
from connectors.source import RawRecord
from engine.batch.arrival import Arrival
from engine.batch.identity import id_digest_of, identity_of
from engine.log import digest_of, microseconds
from engine.publications import source_of
from engine.routing import Route, TopicRoute, once_for_ever
from engine.steps.result import NOBODY
from statemachines.events import Envelope, is_result
from statemachines.memory import Delayed, Execution, microseconds_of
from statemachines.run import Run
from statemachines.topic import NO_TOPIC

if TYPE_CHECKING:
    from datetime import datetime

    from statemachines.occurrence import Occurrence

FRAMES_MAX: Final = 1_000
_new: Final = tuple.__new__
DEPARTURE: Final = "pointsman-departure"
"""The header that says where what is not for the run itself is to go: topic, key and pipeline."""


def own_arrival(
    route: Route,
    run: Run,
    occurrence: Occurrence,
    delayed: Delayed,
    *,
    refused: bool = False,
) -> Arrival:
    """What a run asked for, as it falls due; ``refused``: its record must tell all that it is, to be redriven.

    It has no digest: that it is in the run's memory tells that it has not happened yet.
    """
    envelope = occurrence.envelope
    data = b"" if delayed.data is None else b',"data":' + orjson.dumps(delayed.data)
    time = orjson.dumps(envelope.time, option=orjson.OPT_UTC_Z)
    # What ``encode_structured`` would write; its id needs no escapes.
    value = b"".join((
        b'{"specversion":"1.0","id":"', envelope.id.encode(), _frame(envelope.source, envelope.type),
        orjson.dumps(run.key), b',"time":', time, data, b"}",
    ))  # fmt: skip
    headers: tuple[tuple[str, bytes], ...] = STRUCTURED_HEADERS
    if refused and not delayed.is_own:
        headers += ((DEPARTURE, orjson.dumps([delayed.topic, delayed.key, delayed.pipeline])),)
    record = _new(RawRecord, ("", 0, 0, delayed.due // 1_000, run.key.encode(), value, headers))
    decoded = _new(Decoded, (envelope, delayed.data, ""))
    return _new(Arrival, (route, run.key, record, None, inner_topic(route), decoded, b"", delayed, b""))


@lru_cache(maxsize=FRAMES_MAX)
def _frame(source: str, event_type: str) -> bytes:
    """What stands between id and subject of such an event."""
    return b'","source":' + orjson.dumps(source) + b',"type":' + orjson.dumps(event_type) + b',"subject":'


def inner_arrival(route: Route, key: str, record: RawRecord, digest: bytes | None = None) -> Arrival:
    """An event without a position again, from its record: of the run itself, or of another one."""
    decoded = decode(record, NO_TOPIC, "")
    assert isinstance(decoded, Decoded), "it was written by an engine"
    envelope = decoded.envelope
    delayed: Delayed | Execution | None = None
    own = envelope.subject == key and envelope.source == source_of(route.newest.namespace, route.name)
    if own and is_result(envelope.type):
        delayed = execution_of(envelope.type, decoded.data)
    elif own:
        due = record.timestamp * 1_000 if envelope.time is None else microseconds_of(envelope.time)
        # It is in no run's memory any more, and only says where the event comes from.
        topic, other, pipeline = orjson.loads(dict(record.headers).get(DEPARTURE) or b'["","",""]')
        delayed = Delayed(due, 0, 0, envelope.type, decoded.data, pipeline=pipeline, key=other, topic=topic)
    if digest is None and delayed is None:
        digest = identity_of(once_for_ever(route.newest, envelope.type), decoded)
    elif digest is None:
        digest = digest_of(envelope.source, envelope.id)
    by_id = id_digest_of(route, envelope) if delayed is None else b""
    return Arrival(route, key, record, None, inner_topic(route), decoded, digest, delayed, by_id)


def result_arrival(
    route: Route,
    key: str,
    event_id: str,
    event_type: str,
    data: Mapping[str, Any],
    at: datetime,
    said_by: Mapping[str, str] = NOBODY,
) -> Arrival:
    """What became of an attempt of a step; where somebody outside says so, who that is, and why.

    Where nobody does, it is put together from what its record says, instead of being read from that.
    """
    source, written = source_of(route.newest.namespace, route.name), orjson.dumps(data)
    milliseconds, raw_key = microseconds(at) // 1_000, key.encode()
    if said_by or at.tzinfo is not UTC:
        value = encode_structured(
            id=event_id, source=source, type=event_type, subject=key, time=at, data=written, said_by=said_by
        )
        record = RawRecord("", 0, 0, milliseconds, raw_key, value, STRUCTURED_HEADERS)
        return inner_arrival(route, key, record)
    value = b"".join((
        b'{"specversion":"1.0","id":"', event_id.encode(), _frame(source, event_type), orjson.dumps(key),
        b',"time":', orjson.dumps(at, option=orjson.OPT_UTC_Z), b',"data":', written, b"}",
    ))  # fmt: skip
    record = _new(RawRecord, ("", 0, 0, milliseconds, raw_key, value, STRUCTURED_HEADERS))
    # Read again, so that no handler sees what was done to them when they were offered before.
    read = orjson.loads(written)
    envelope = _new(Envelope, (event_id, source, event_type, key, at, key, None, {}))
    decoded = _new(Decoded, (envelope, read, None))
    execution = execution_of(event_type, read)
    digest = digest_of(source, event_id)
    return _new(Arrival, (route, key, record, None, inner_topic(route), decoded, digest, execution, b""))


def execution_of(event_type: str, data: Any) -> Execution:
    """What names the execution in what became of it; the run knows the rest."""
    said = data if isinstance(data, dict) else {}
    sequence, _, number = str(said.get("execution")).partition(".")
    step, attempt = event_type.split(".")[2], said.get("attempt")
    if not (sequence.isdecimal() and number.isdecimal() and isinstance(attempt, int)):
        # No run waits for such a one.
        return Execution(0, 0, step, "")
    return Execution(int(sequence), int(number), step, "", attempt)


def sent_arrival(route: Route, body: bytes, at: datetime) -> Arrival:
    """An event from another run, out of the inbox."""
    key, _, value = body.partition(b"\0")
    record = RawRecord("", 0, 0, microseconds(at) // 1_000, key, value, STRUCTURED_HEADERS)
    return inner_arrival(route, key.decode(), record)


def inner_topic(route: Route) -> TopicRoute:
    """What stands for the topic of events without one.

    Their dead letters go where those of the pipeline's first topic go; where it reads none, to the namespace's own.
    """
    assert route.inner is not None, "routes are made with it"
    return route.inner
