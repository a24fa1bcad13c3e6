"""COPY in Postgres's binary form, of rows that are packed already.

asyncpg packs rows, too, but column by column, each looked at anew; the log's rows are packed for their hash anyway, and
packing them once takes a third of the time.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta

from engine.log import HASH_BYTES, POSTGRES_EPOCH
from statemachines.following import wakes_at
from statemachines.memory import microseconds_of
from statemachines.run import Run

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""Of one message to Postgres, which refuses a gigabyte."""
_BEGINNING = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_MICROSECOND = timedelta(microseconds=1)

CHANGE_COLUMNS = (
    "id", "updated", "old", "sequence", "definition", "held", "waiting", "status", "hash", "configuration", "recent",
    "context", "memory", "wake_at",
)  # fmt: skip
_pack_change = struct.Struct(f">hiqiqiiiiiiiiiiihi{HASH_BYTES}si").pack
RUN_COLUMNS = (
    "id", "started", "updated", "pipeline", "generation", "sequence", "definition", "held", "waiting", "status", "hash",
    "key", "configuration", "recent", "context", "memory", "wake_at",
)  # fmt: skip
_pack_run = struct.Struct(f">hiqiqiqiiiiiiiiiiiiihi{HASH_BYTES}si").pack
_length = struct.Struct(">i").pack
_time = struct.Struct(">iq").pack
_NULL = _length(-1)
_NOTHING_DUE = _length(0) + _NULL
_POSTGRES_EPOCH = microseconds_of(POSTGRES_EPOCH)


def copied(
    table: str, rows: Iterable[bytes], columns: Sequence[str]
) -> tuple[str, memoryview | AsyncIterator[memoryview]]:
    """The statement that copies packed rows into a table, and what is sent behind it.

    What is at hand as a whole is sent without waiting for an answer; a file would be read by a thread, which gets the
    interpreter's lock only every few milliseconds.
    """
    data = memoryview(b"".join((_BEGINNING, *rows, _END)))
    names = ", ".join(f'"{one}"' for one in columns)
    statement = f"copy {table} ({names}) from stdin with (format binary)"
    return statement, data if len(data) <= MESSAGE_BYTES_MAX else _pieces(data)


async def _pieces(data: memoryview) -> AsyncIterator[memoryview]:
    for at in range(0, len(data), MESSAGE_BYTES_MAX):
        yield data[at : at + MESSAGE_BYTES_MAX]


def pack_changes(changed: Iterable[tuple[int, Run]]) -> list[bytes]:
    """Rows of ``run_changes``, from (sequence number before, run)."""
    packed = []
    times = _Times()
    for old, run in changed:
        (
            number, _, _, sequence, status, configuration, context, recent, hashed, definition, held, waiting, _,
            updated, memory, deferred,
        ) = run  # fmt: skip
        states = configuration.encode()
        fixed = _pack_change(
            14, 8, number, 8, times[updated], 4, old, 4, sequence, 4, definition, 4, held, 4, waiting, 2, status,
            HASH_BYTES, hashed, len(states),
        )  # fmt: skip
        tail = _tail(run) if memory or deferred else _NOTHING_DUE
        packed.append(
            b"".join((fixed, states, _length(len(recent)), recent, _length(len(context)), context, tail))
        )
    return packed


def pack_runs(created: Iterable[tuple[int, Run]]) -> list[bytes]:
    """Rows of ``runs``, from (pipeline, run)."""
    packed = []
    times = _Times()
    for pipeline, run in created:
        (
            number, key, generation, sequence, status, configuration, context, recent, hashed, definition, held,
            waiting, started, updated, memory, deferred,
        ) = run  # fmt: skip
        name, states = key.encode(), configuration.encode()
        fixed = _pack_run(
            17, 8, number, 8, times[started], 8, times[updated], 4, pipeline, 4, generation, 4, sequence,
            4, definition, 4, held, 4, waiting, 2, status, HASH_BYTES, hashed,
            len(name),
        )  # fmt: skip
        packed.append(b"".join((
            fixed, name, _length(len(states)), states, _length(len(recent)), recent, _length(len(context)), context,
            _tail(run) if memory or deferred else _NOTHING_DUE,
        )))  # fmt: skip
    return packed


def _tail(run: Run) -> bytes:
    """Its memory, and when the next of it falls due."""
    memory, at = run.memory, wakes_at(run)
    due = _NULL if at is None else _time(8, at - _POSTGRES_EPOCH)
    return _length(len(memory)) + memory + due


class _Times(dict[datetime, int]):
    """Microseconds as Postgres counts them; runs of a batch share a few times."""

    def __missing__(self, at: datetime) -> int:
        number = self[at] = (at - POSTGRES_EPOCH) // _MICROSECOND
        return number
