"""What leaves: one row of the outbox holds all records that one transaction publishes.

The row's number is a ticket of its lane, taken by the transaction's last statement. The lock on the ticket
lasts until the commit, so the numbers are the order of commits and have no gaps, whoever commits.

A blob is laid out by column, so that most of packing and unpacking is done in C: all keys, all values, then
the header values of each record; topics and sets of header names are written once and referred to.
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, chain, pairwise, repeat, starmap
from typing import Any, NamedTuple, cast

import asyncpg

from engine.errors import PointsmanError
from engine.store import queries

CHANNEL = "pointsman_outbox"
"""Postgres notifies here of each new row, with the number of its lane."""

_SQL = queries.load("relay")
_VERSION = 1
_HEADER = struct.Struct("<B8sIHH")
"""Version, nonce, how many records, topics, and sets of header names."""
_COUNT = struct.Struct("<I")
_NO_DEAD_LETTER = -1
_ABSENT = -1


class OutRecord(NamedTuple):
    """A record as it will be published."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int
    """Milliseconds since 1970."""
    dead_letter: int | None = None
    """The dead letter that this record tells of, whose publishing is then kept up to date."""


class CorruptBlobError(PointsmanError):
    """A row of the outbox is not what this program wrote."""


def encode(records: Sequence[OutRecord]) -> bytes:
    """Pack at least one record; ``decode`` gives them back.

    Two blobs of the same records differ: a transaction that was lost in a failover and is made again
    must not be taken for the one that was published.
    """
    topics, keys, values, headers, timestamps, dead_letters = zip(*records, strict=True)
    topic_numbers: dict[str, int] = {}
    topic_column = [topic_numbers.setdefault(topic, len(topic_numbers)) for topic in topics]
    shape_numbers: dict[tuple[str, ...], int] = {}
    shape_column: list[int] = []
    parts: list[bytes | None] = [*keys, *values]
    for pairs in headers:
        names, contents = zip(*pairs, strict=True) if pairs else ((), ())
        shape_column.append(shape_numbers.setdefault(names, len(shape_numbers)))
        parts.extend(contents)
    return b"".join(
        (
            _HEADER.pack(_VERSION, os.urandom(8), len(records), len(topic_numbers), len(shape_numbers)),
            *_texts(topic_numbers),
            *chain.from_iterable((_COUNT.pack(len(names)), *_texts(names)) for names in shape_numbers),
            array("q", timestamps).tobytes(),
            array("q", [_NO_DEAD_LETTER if number is None else number for number in dead_letters]).tobytes(),
            array("H", topic_column).tobytes() if len(topic_numbers) > 1 else b"",
            array("H", shape_column).tobytes() if len(shape_numbers) > 1 else b"",
            array("i", _lengths(parts)).tobytes(),
            *filter(None, parts),
        )
    )


def decode(blob: bytes) -> list[OutRecord]:
    """Unpack what ``encode`` packed.

    Raises:
        CorruptBlobError: it is something else.
    """
    try:
        return list(_decode(blob))
    except (struct.error, ValueError, IndexError, TypeError) as error:
        raise CorruptBlobError(
            f"A row of the outbox cannot be read ({error}). It was written by another version of pointsman, "
            "or changed by hand: run the version that wrote it, or restore the row."
        ) from error


def count(blob: bytes) -> int:
    """How many records a blob holds, without unpacking them; 0 where it is no blob."""
    return int(_HEADER.unpack_from(blob)[2]) if len(blob) >= _HEADER.size else 0


def digest(blob: bytes) -> bytes:
    """What tells a row of the outbox from any other: 16 bytes."""
    return hashlib.blake2b(blob, digest_size=16).digest()


async def find_lane(connection: asyncpg.Connection[Any], namespace: str, shard: int) -> int | None:
    """The lane of a namespace's shard, if there is one."""
    return cast("int | None", await connection.fetchval(_SQL["lane_of"], namespace, shard))


async def lane_for(connection: asyncpg.Connection[Any], namespace: str, shard: int) -> int:
    """The lane of a namespace's shard, made where there is none."""
    lane = await find_lane(connection, namespace, shard)
    if lane is None:
        await connection.execute(_SQL["add_lane"], namespace, shard)
        lane = await find_lane(connection, namespace, shard)
    assert lane is not None, "it was just made"
    return lane


async def put(connection: asyncpg.Connection[Any], lane: int, blob: bytes) -> int:
    """Take the lane's next ticket and write the row; must be the last statement of its transaction.

    From here to the commit no other transaction of the lane can publish. Returns the row's sequence.
    """
    sequence = await connection.fetchval(_SQL["put"], lane, blob)
    assert sequence is not None, f"there is no lane {lane}"
    return cast("int", sequence)


def _texts(texts: Iterable[str]) -> Iterator[bytes]:
    for text in texts:
        encoded = text.encode("utf-8", "surrogateescape")
        yield _COUNT.pack(len(encoded))
        yield encoded


def _lengths(parts: Sequence[bytes | None]) -> Iterable[int]:
    try:
        return list(map(len, parts))  # type: ignore[arg-type]  # an absent one raises TypeError
    except TypeError:
        return [_ABSENT if part is None else len(part) for part in parts]


class _Cursor:
    """Reads columns off a blob, one behind the other."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self._at = 0

    def take(self, size: int) -> bytes:
        taken = self._blob[self._at : self._at + size]
        if len(taken) != size:
            raise ValueError("it is too short")
        self._at += size
        return taken

    def count(self) -> int:
        return cast("int", _COUNT.unpack(self.take(_COUNT.size))[0])

    def text(self) -> str:
        return self.take(self.count()).decode("utf-8", "surrogateescape")

    def column(self, kind: str, number: int) -> list[int]:
        found = array(kind)
        found.frombytes(self.take(number * found.itemsize))
        return found.tolist()

    def parts(self, number: int) -> list[Any]:
        """Pieces of bytes, None where one is absent; they are the rest of the blob."""
        lengths = self.column("i", number)
        absent = min(lengths, default=0) < 0
        sizes = [max(0, length) for length in lengths] if absent else lengths
        bounds = pairwise(accumulate(sizes, initial=self._at))
        pieces: list[Any] = list(map(self._blob.__getitem__, starmap(slice, bounds)))
        if self._at + sum(sizes) != len(self._blob):
            raise ValueError("it has another length than its parts")
        if absent:
            for index, length in enumerate(lengths):
                if length < 0:
                    pieces[index] = None
        return pieces


def _decode(blob: bytes) -> Iterator[OutRecord]:
    cursor = _Cursor(blob)
    version, _, count, topics_count, shapes_count = _HEADER.unpack(cursor.take(_HEADER.size))
    if version != _VERSION:
        raise ValueError(f"its format is {version}")
    topics = [cursor.text() for _ in range(topics_count)]
    shapes = [[cursor.text() for _ in range(cursor.count())] for _ in range(shapes_count)]
    timestamps = cursor.column("q", count)
    dead_letters = [None if number == _NO_DEAD_LETTER else number for number in cursor.column("q", count)]
    topic_column = cursor.column("H", count) if len(topics) > 1 else repeat(0, count)
    shape_column = cursor.column("H", count) if len(shapes) > 1 else repeat(0, count)
    widths = [len(shapes[shape]) for shape in shape_column] if len(shapes) > 1 else [len(shapes[0])] * count
    parts = cursor.parts(2 * count + sum(widths))
    contents = parts[2 * count :]
    headers = (
        _equal_headers(shapes[0], contents, count)
        if len(shapes) == 1
        else _mixed_headers([shapes[shape] for shape in shape_column], contents)
    )
    columns = zip(
        map(topics.__getitem__, topic_column),
        parts[:count],
        parts[count : 2 * count],
        headers,
        timestamps,
        dead_letters,
        strict=True,
    )
    return map(_make, columns)


_make = partial(tuple.__new__, OutRecord)


def _equal_headers(names: list[str], contents: list[Any], count: int) -> Iterable[tuple[Any, ...]]:
    if not names:
        return repeat((), count)
    width = len(names)
    columns = (contents[at::width] for at in range(width))
    return zip(*map(zip, map(repeat, names), columns), strict=True)


def _mixed_headers(shapes: list[list[str]], contents: list[Any]) -> Iterator[tuple[Any, ...]]:
    rest = iter(contents)
    for names in shapes:
        yield tuple(zip(names, rest, strict=False))
