"""The event log: one row for each move of a run, and how rows fold to the run.

A row holds the event and its outcome. ``fold`` makes the run from its rows alone, without user code, and is the only
place that makes a run from a row: the engine folds each row as it writes it, ``verify`` folds what was written, so the two
cannot differ. Each row carries a hash over itself and the hash of the row before it.

The kinds of rows, and what each does to a run:

==================  ============================================================================================
STARTED, MOVED      the event was consumed: configuration, context, status, and its digest among the recent ones
HELD                the event failed and is a dead letter; the run is held
WAITED              the event waits behind the hold (or: its definition is not loaded, which holds the run, too)
RELEASED            a person, or an engine that has the definition again, lifted the hold
MOVED_AFTER_WAIT    an event that waited was consumed
HELD_AFTER_WAIT     an event that waited failed, and holds the run again
LEFT_WAITING        an event that waited changed nothing: ignored, a duplicate, or a dead letter that does not hold
==================  ============================================================================================
"""

from __future__ import annotations

import enum
import hashlib
import struct
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from statemachines.run import Run, remember

HASH_BYTES = 16
"""SHA-256, cut: enough that no change goes unseen, and 16 bytes less in each row and each run."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIXED = struct.Struct(">qqqqiiihhiiiiiii")
_NONE = -(2**63)
_pack = _FIXED.pack
_sha256 = hashlib.sha256
_new = tuple.__new__


class Kind(enum.IntEnum):
    """What a row of the log says; see the table above."""

    STARTED = 1
    MOVED = 2
    HELD = 3
    WAITED = 4
    RELEASED = 5
    MOVED_AFTER_WAIT = 6
    HELD_AFTER_WAIT = 7
    LEFT_WAITING = 8


CONSUMED = frozenset({Kind.STARTED, Kind.MOVED, Kind.MOVED_AFTER_WAIT})
STARTED = int(Kind.STARTED)
MOVED = int(Kind.MOVED)


class LogRow(NamedTuple):
    """A row of ``events``, in the order of its columns. A tuple, since one is made for every event."""

    run: int
    digest: int | None
    """Of source and id; set only where the event was consumed."""
    offset: int | None
    at: datetime
    sequence: int
    position: int | None
    """Which partition the event came from (``positions.id``)."""
    definition: int
    kind: int
    status: int
    """Whether the run is completed after it."""
    type: str
    event_id: str
    configuration: str
    envelope: bytes
    effects: bytes
    """JSON, empty for none."""
    context: bytes
    """JSON, empty for unchanged."""
    payload: bytes | None
    hash: bytes


COLUMNS = LogRow._fields


def microseconds(at: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (at - _EPOCH) // _MICROSECOND


def append(previous: bytes, fields: tuple[Any, ...]) -> LogRow:
    """The row with these columns, in order and without the hash, behind the row whose hash is ``previous``."""
    return _new(LogRow, (*fields, seal(previous, fields)))


def seal(previous: bytes, fields: tuple[Any, ...]) -> bytes:
    """The hash of a row: over the hash before it and every other column, lengths included."""
    (
        run, digest, offset, at, sequence, position, definition, kind, status, event_type, event_id, states,
        envelope, effects, context, payload,
    ) = fields  # fmt: skip
    name = event_type.encode()
    event = event_id.encode()
    configuration = states.encode()
    fixed = _pack(
        run,
        _NONE if digest is None else digest,
        _NONE if offset is None else offset,
        (at - _EPOCH) // _MICROSECOND,
        sequence,
        -1 if position is None else position,
        definition,
        kind,
        status,
        len(name),
        len(event),
        len(configuration),
        len(envelope),
        len(effects),
        len(context),
        -1 if payload is None else len(payload),
    )
    text = b"".join((previous, fixed, name, event, configuration, envelope, effects, context, payload or b""))
    return _sha256(text).digest()[:HASH_BYTES]


def digest_of(source: str, event_id: str) -> bytes:
    """What an event is known by when it comes again."""
    return _sha256(f"{source}\0{event_id}".encode()).digest()[:8]


def digest_number(digest: bytes) -> int:
    """A digest as the store keeps it."""
    return int.from_bytes(digest, "big", signed=True)


def digest_bytes(number: int) -> bytes:
    """A digest as a run carries it."""
    return number.to_bytes(8, "big", signed=True)


def fold(
    run: Run | None, row: LogRow, *, key: str = "", generation: int = 0, loaded: list[Any] | None = None
) -> Run:
    """The run after a row.

    ``key`` and ``generation`` are needed for the first row only; ``loaded`` may pass on the context as an object.
    """
    (
        number, digest, _, at, sequence, _, definition, kind, status, _, _, configuration, _, _, context, _, hashed,
    ) = row  # fmt: skip
    if loaded is None:
        loaded = []
    if run is None:
        recent = b"" if digest is None else digest_bytes(digest)
        return _new(Run, (
            number, key, generation, sequence, status, configuration, context, recent, hashed, definition, 0, 0,
            at, at, loaded,
        ))  # fmt: skip
    recent = run.recent if digest is None else remember(run.recent, digest_bytes(digest))
    held, waiting = run.held, run.waiting
    if kind > MOVED:
        held, waiting = _holding(run, row)
    return _new(Run, (
        number, run.key, run.generation, sequence, status, configuration, context or run.context, recent, hashed,
        definition, held, waiting, run.started, at, loaded,
    ))  # fmt: skip


def _holding(run: Run, row: LogRow) -> tuple[int, int]:
    match Kind(row.kind):
        case Kind.HELD:
            return row.sequence, run.waiting
        case Kind.WAITED:
            return run.held or row.sequence, run.waiting + 1
        case Kind.RELEASED:
            return 0, run.waiting
        case Kind.MOVED_AFTER_WAIT | Kind.LEFT_WAITING:
            return run.held, run.waiting - 1
        case Kind.HELD_AFTER_WAIT:
            return row.sequence, run.waiting - 1
        case Kind.STARTED | Kind.MOVED:
            return run.held, run.waiting
