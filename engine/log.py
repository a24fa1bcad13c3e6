"""The event log: one row for each move of a run, and how rows fold to the run.

A row holds the event and its outcome. ``fold`` makes the run from its rows alone, without user code, which is what
``verify`` does with what was written. Each row carries a hash over itself and the hash of the row before it.

The kinds of rows, and what each does to a run:

==================  ============================================================================================
STARTED, MOVED      the event was consumed: configuration, context, status, and its digest among the recent ones
HELD                the event failed and is a dead letter; the run is held
WAITED              the event waits behind the hold (or: its definition is not loaded, which holds the run, too)
RELEASED            a person, or an engine that has the definition again, lifted the hold
MOVED_AFTER_WAIT    an event that waited was consumed
HELD_AFTER_WAIT     an event that waited failed, and holds the run again
LEFT_WAITING        an event that waited changed nothing: ignored, a duplicate, or a dead letter that does not hold
DRAINING            more events wait than go into one commit: the rest holds the run until the next one
DEFERRED            the event waits until the run takes it; the first row of a run that no event has started yet
MOVED_DEFERRED      an event that was deferred was consumed
HELD_DEFERRED       an event that was deferred failed, and holds the run
LEFT_DEFERRED       an event that was deferred changed nothing, or waited too long
FIRED               a timer fell due, or an event that the run sent to itself: the run moved, or something of it left
HELD_FIRED          one of those failed, and holds the run
PASSED              the event, or one of those, changed nothing but what the run remembers
CANCELLED           an operator cancelled the run: it moved, or ended where it was; nothing holds it any more
PAUSED              an operator holds the run, or its pipeline: what comes for it waits, and nothing of it falls due
MAPPED              an operator has the run follow another definition: all that it knows has the names of that
==================  ============================================================================================
"""

from __future__ import annotations

import enum
import hashlib
import struct
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from statemachines.run import Run, remember

HASH_BYTES: Final = 12
"""SHA-256, cut: enough that no change goes unseen, and 20 bytes less in each row and each run."""

POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Postgres counts microseconds from here."""
_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NULL: Final = (-1).to_bytes(4, "big", signed=True)
HASH_LENGTH: Final = HASH_BYTES.to_bytes(4, "big")
_sha256 = hashlib.sha256
_blake2b = hashlib.blake2b
_new: Final = tuple.__new__


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
    DRAINING = 9
    DEFERRED = 10
    MOVED_DEFERRED = 11
    HELD_DEFERRED = 12
    LEFT_DEFERRED = 13
    FIRED = 14
    HELD_FIRED = 15
    PASSED = 16
    PAUSED = 17
    CANCELLED = 18
    MAPPED = 19


CONSUMED: Final = frozenset({Kind.STARTED, Kind.MOVED, Kind.MOVED_AFTER_WAIT, Kind.MOVED_DEFERRED})
HOLDS: Final = frozenset({Kind.HELD, Kind.HELD_AFTER_WAIT, Kind.HELD_DEFERRED, Kind.HELD_FIRED})
"""An event failed, is a dead letter, and holds the run."""
_HOLDS_FROM_NOW: Final = frozenset({*map(int, HOLDS), int(Kind.DRAINING), int(Kind.PAUSED)})
_LETS_GO: Final = frozenset({int(Kind.RELEASED), int(Kind.CANCELLED)})
_WAITS: Final = {int(kind): 0 for kind in Kind} | {
    int(Kind.WAITED): 1,
    int(Kind.DEFERRED): 1,
    int(Kind.MOVED_AFTER_WAIT): -1,
    int(Kind.HELD_AFTER_WAIT): -1,
    int(Kind.LEFT_WAITING): -1,
    int(Kind.MOVED_DEFERRED): -1,
    int(Kind.HELD_DEFERRED): -1,
    int(Kind.LEFT_DEFERRED): -1,
}
"""By kind, how many more events wait after a row of it."""
_WAITED: Final = int(Kind.WAITED)
PIPELINE_PAUSED: Final = "pointsman.pause_pipeline"
"""The type of rows that hold a run because its pipeline is paused."""
MAKES_WAY: Final = "command/follow"
"""Instead of an event's id: of the row by which a run that takes much by itself makes way for others."""
STARTED: Final = int(Kind.STARTED)
MOVED: Final = int(Kind.MOVED)
DEFERRED: Final = int(Kind.DEFERRED)


class LogRow(NamedTuple):
    """A row of ``events``, in the order in which its columns are packed."""

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
    envelope: bytes
    type: str
    configuration: str
    event_id: str
    effects: bytes
    """JSON, empty for none."""
    context: bytes
    """JSON, empty for unchanged."""
    memory: bytes
    """JSON, empty for unchanged."""
    payload: bytes | None
    hash: bytes


COLUMNS: Final = LogRow._fields
_INTEGERS: Final = {
    "run": 8,
    "digest": 8,
    "offset": 8,
    "sequence": 4,
    "position": 4,
    "definition": 4,
    "kind": 2,
    "status": 2,
}
_FIXED_COLUMNS: Final = COLUMNS.index("envelope")
_COLUMNS: Final = len(COLUMNS)
_COUNT: Final = _COLUMNS.to_bytes(2, "big")
# The columns before the envelope, each behind its length: where none of them is null, where nothing was consumed, and
# where there is no record of Kafka's either.
_pack_consumed: Final = struct.Struct(">hiqiqiqiqiiiiiiihih").pack
_pack_not_consumed: Final = struct.Struct(">hiqiiqiqiiiiiiihih").pack
_pack_inner: Final = struct.Struct(">hiqiiiqiiiiiihih").pack
_length: Final = struct.Struct(">i").pack


def pack(fields: tuple[Any, ...]) -> bytes:
    """The columns of a row but its hash, in Postgres's binary form: what is hashed, and what is copied in.

    Each is its length in four bytes and then itself, big-endian; a length of -1 stands for null; times are microseconds
    since 2000. Two bytes with the number of columns go before them all.
    """
    (
        run, digest, offset, at, sequence, position, definition, kind, status, envelope, event_type, configuration,
        event_id, effects, context, memory, payload,
    ) = fields  # fmt: skip
    time = (at - POSTGRES_EPOCH) // _MICROSECOND
    if digest is None and offset is None and position is None:
        fixed = _pack_inner(
            _COLUMNS, 8, run, -1, -1, 8, time, 4, sequence, -1, 4, definition, 2, kind, 2, status,
        )  # fmt: skip
    elif offset is None or position is None:
        fixed = b"".join([_COUNT, *map(_field, COLUMNS, fields[:_FIXED_COLUMNS])])
    elif digest is None:
        fixed = _pack_not_consumed(
            _COLUMNS, 8, run, -1, 8, offset, 8, time, 4, sequence, 4, position, 4, definition, 2, kind, 2, status,
        )  # fmt: skip
    else:
        fixed = _pack_consumed(
            _COLUMNS, 8, run, 8, digest, 8, offset, 8, time, 4, sequence, 4, position, 4, definition, 2, kind,
            2, status,
        )  # fmt: skip
    name, states, known_as = event_type.encode(), configuration.encode(), event_id.encode()
    return b"".join((
        fixed, _length(len(envelope)), envelope, _length(len(name)), name, _length(len(states)), states,
        _length(len(known_as)), known_as, _length(len(effects)), effects, _length(len(context)), context,
        _length(len(memory)), memory, *((_NULL,) if payload is None else (_length(len(payload)), payload)),
    ))  # fmt: skip


def unpack(packed: bytes) -> LogRow:
    """The row that was packed and sealed."""
    at = 2
    values: list[Any] = []
    for name in COLUMNS:
        length = int.from_bytes(packed[at : at + 4], "big", signed=True)
        at += 4
        raw = None if length < 0 else packed[at : at + length]
        at += max(0, length)
        values.append(_value(name, raw))
    return LogRow._make(values)


def _field(name: str, value: Any) -> bytes:
    match value:
        case None:
            return _NULL
        case int():
            raw = value.to_bytes(_INTEGERS[name], "big", signed=True)
        case datetime():
            raw = ((value - POSTGRES_EPOCH) // _MICROSECOND).to_bytes(8, "big", signed=True)
        case _:
            raise TypeError(f"the column {name} cannot hold {type(value).__name__}")
    return len(raw).to_bytes(4, "big") + raw


def _value(name: str, raw: bytes | None) -> Any:
    if raw is None:
        return None
    if name == "at":
        return POSTGRES_EPOCH + int.from_bytes(raw, "big", signed=True) * _MICROSECOND
    if name in _INTEGERS:
        return int.from_bytes(raw, "big", signed=True)
    return raw.decode() if name in {"type", "configuration", "event_id"} else raw


def seal(previous: bytes, fields: tuple[Any, ...]) -> bytes:
    """The hash of a row: over the hash before it and every other column, lengths included."""
    return seal_packed(previous, pack(fields))


def seal_packed(previous: bytes, packed: bytes) -> bytes:
    """The same for columns that are packed already."""
    return _sha256(previous + packed).digest()[:HASH_BYTES]


def with_hash(packed: bytes, hash: bytes) -> bytes:
    """The whole row, packed."""
    return packed + HASH_LENGTH + hash


def append(previous: bytes, fields: tuple[Any, ...]) -> LogRow:
    """The row with these columns, in order and without the hash, behind the row whose hash is ``previous``."""
    return _new(LogRow, (*fields, seal(previous, fields)))


def microseconds(at: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (at - _UNIX_EPOCH) // _MICROSECOND


def postgres_time(at: datetime) -> int:
    """Microseconds as Postgres counts them."""
    elapsed = at - POSTGRES_EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds


def digest_of(source: str, event_id: str) -> bytes:
    """What an event is known by when it comes again: BLAKE2b of both, 8 bytes."""
    return _blake2b(f"{source}\0{event_id}".encode(), digest_size=8).digest()


def digest_number(digest: bytes) -> int:
    """A digest as the store keeps it."""
    return int.from_bytes(digest, "big", signed=True)


def digest_bytes(number: int) -> bytes:
    """A digest as a run carries it."""
    return number.to_bytes(8, "big", signed=True)


def fold(run: Run | None, row: LogRow, *, key: str = "", generation: int = 0) -> Run:
    """The run after a row.

    ``key`` and ``generation`` are needed for the first row only.
    """
    (
        number, digest, _, at, sequence, _, definition, kind, status, _, _, configuration, _, _, context, memory, _,
        hashed,
    ) = row  # fmt: skip
    if run is None:
        recent = b"" if digest is None else digest_bytes(digest)
        return _new(Run, (
            number, key, generation, sequence, status, configuration, context, recent, hashed, definition, 0,
            1 if kind == DEFERRED else 0, at, at, memory, (),
        ))  # fmt: skip
    recent = run.recent if digest is None else remember(run.recent, digest_bytes(digest))
    held, waiting = (
        (run.held, run.waiting) if kind <= MOVED else holding(kind, sequence, run.held, run.waiting)
    )
    return _new(Run, (
        number, run.key, run.generation, sequence, status, configuration, context or run.context, recent, hashed,
        definition, held, waiting, run.started, at, memory or run.memory, run.deferred,
    ))  # fmt: skip


def holding(kind: int, sequence: int, held: int, waiting: int) -> tuple[int, int]:
    """What holds a run after a row of this kind and number, and how many events wait for it; before it, the others.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in _WAITS:
        raise ValueError(f"{kind} is no kind of row that this version knows")
    if kind in _HOLDS_FROM_NOW or (kind == _WAITED and not held):
        held = sequence
    elif kind in _LETS_GO:
        held = 0
    return held, waiting + _WAITS[kind]
