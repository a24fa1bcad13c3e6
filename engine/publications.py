"""What a move publishes: as it is logged, and as it leaves.

Both are JSON, put together from pieces that are written once; only what differs from one event to the next is written
for each. ``connectors.encode.encode_structured`` and a list of dicts say the same more plainly, and a property test
holds them equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

import orjson

from connectors.encode import STRUCTURED_HEADERS
from engine.log import microseconds
from engine.outbox import OutRecord
from statemachines.effects import Publication
from statemachines.events import Address, Envelope, Groups

_FRAMES_MAX = 1_000
_dumps = orjson.dumps
_new = tuple.__new__


class Instant(NamedTuple):
    """A time as what is published at it has it."""

    text: bytes
    milliseconds: int


def instant_of(at: datetime) -> Instant:
    """This time, in the zone that it has."""
    return Instant(_dumps(at, option=orjson.OPT_UTC_Z), microseconds(at) // 1000)


def publish(
    publications: Iterable[Publication], address: Address, cause: Envelope, at: Instant
) -> tuple[bytes, list[OutRecord]]:
    """The effects of a move as JSON for the log, and its records for the outbox, in order.

    Each event's id comes from the move's address and its number in it.
    """
    namespace, pipeline, run_key, _, _ = address
    time, milliseconds = at
    subject, causation, trace = _dumps(run_key), _dumps(cause.id), cause.traceparent
    effects: list[bytes] = []
    records: list[OutRecord] = []
    for index, (topic, event_type, key, data) in enumerate(publications):
        effect, source = _frames(namespace, pipeline, topic, event_type)
        groups = address.derive_groups(index)
        key_text = subject if key == run_key else _dumps(key)
        effects.append(effect + key_text + b',"data":' + data)
        value = b"".join((
            b'{"specversion":"1.0","id":"', b"-".join(groups), source, subject, b',"time":', time,
            b',"traceparent":', _begin_trace(groups) if trace is None else _go_on_with(trace, groups),
            b',"causationid":', causation, b',"data":', data, b"}",
        ))  # fmt: skip
        records.append(_new(OutRecord, (topic, key.encode(), value, STRUCTURED_HEADERS, milliseconds, None)))
    return b"[" + b"},".join(effects) + b"}]", records


@lru_cache(maxsize=_FRAMES_MAX)
def _frames(namespace: str, pipeline: str, topic: str, event_type: str) -> tuple[bytes, bytes]:
    """The beginning of an effect, up to its key; what follows the id of a CloudEvent, up to its subject."""
    written = _dumps(event_type)
    source = _dumps(f"/pointsman/{quote(namespace)}/{quote(pipeline)}")
    return (
        b'{"publish":' + _dumps(topic) + b',"type":' + written + b',"key":',
        b'","source":' + source + b',"type":' + written + b',"subject":',
    )


# W3C Trace Context: version, trace id, span id, flags.


def _go_on_with(trace: str, groups: Groups) -> bytes:
    parts = trace.split("-")
    if len(parts) >= 4 and len(parts[1]) == 32 and len(parts[3]) == 2:  # noqa: PLR2004 - fixed by the format
        return _dumps(f"00-{parts[1]}-{(groups[3] + groups[4]).decode()}-{parts[3]}")
    return _begin_trace(groups)


def _begin_trace(groups: Groups) -> bytes:
    """What has no trace yet begins one, equal on every replay."""
    first, second, third, fourth, last = groups
    return b"".join((b'"00-', first, second, third, fourth, last, b"-", fourth, last, b'-01"'))
