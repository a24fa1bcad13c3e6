"""Rows of the outbox as they are published: what is read, what is left out, what came from where."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, NamedTuple, TypeAlias

import asyncpg

from engine.outbox import OutRecord, count, decode, digest
from engine.relay.doubts import Books
from engine.relay.limits import RelayLimits
from engine.store import queries

_SQL = queries.load("relay")

Connection: TypeAlias = "asyncpg.Connection[Any]"
RefusedBefore = set[tuple[int, int]]
"""(sequence, index) of records to be left out."""


class Row(NamedTuple):
    """A row of the outbox."""

    sequence: int
    blob: bytes


class Load(NamedTuple):
    """What one transaction of Kafka carries: whole rows."""

    records: list[OutRecord]
    origins: list[tuple[int, int]]
    """Of each record: its row, and its index there."""
    rows: int
    sequence: int
    """Of the last row."""
    digest: bytes


async def read_books(connection: Connection, lane: int, sequence: int) -> Books:
    """What the database knows, and of the row of this number."""
    found = await connection.fetchrow(_SQL["books"], lane, sequence)
    assert found is not None, f"there is no lane {lane}"
    return Books(found["store"], found["ticket"], found["deleted"], found["blob"], found["next"])


async def read_rows(
    connection: Connection, lane: int, after: int, limits: RelayLimits
) -> tuple[list[Row], int | None]:
    """The next rows, and the ticket as of now (None where there are no rows)."""
    found = await connection.fetch(_SQL["next_rows"], lane, after, limits.rows_max, limits.bytes_max)
    return [Row(row["sequence"], row["blob"]) for row in found], found[0]["ticket"] if found else None


async def read_refused(connection: Connection, lane: int, after: int) -> RefusedBefore:
    """What was refused for good behind a row."""
    return {(row["sequence"], row["index"]) for row in await connection.fetch(_SQL["refused"], lane, after)}


def load(rows: Sequence[Row], refused: RefusedBefore, records_max: int) -> Load:
    """As many of the rows as fit into one transaction, at least one."""
    records: list[OutRecord] = []
    origins: list[tuple[int, int]] = []
    taken = 0
    for row in rows:
        if taken and len(records) + count(row.blob) > records_max:
            break
        unpacked = decode(row.blob)
        taken += 1
        places = list(zip(repeat(row.sequence), range(len(unpacked)), strict=False))
        if refused and not refused.isdisjoint(places):
            kept = [place not in refused for place in places]
            unpacked = [record for record, keep in zip(unpacked, kept, strict=True) if keep]
            places = [place for place, keep in zip(places, kept, strict=True) if keep]
        records += unpacked
        origins += places
    last = rows[taken - 1]
    return Load(records, origins, taken, last.sequence, digest(last.blob))
