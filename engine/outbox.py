"""What leaves: one row of the outbox holds all records that one transaction publishes.

The row's number is a ticket of its lane, taken by the transaction's last statement. The lock on the ticket
lasts until the commit, so the numbers are the order of commits and have no gaps, whoever commits.

A blob is laid out by column, so that most of packing and unpacking is done in C: all keys, then all values. A column
whose values are all equal is written as one; topics and sets of headers are written once and referred to.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise, repeat, starmap
from typing import Any, NamedTuple, TypeVar, cast

import asyncpg

from engine.errors import PointsmanError
from engine.store import queries

_SQL = queries.load("relay")
_VERSION = 2
_HEADER = struct.Struct("<B16sIHI")
"""Version, nonce, how many records, topics, and sets of headers."""
_NONCE = slice(1, 17)
_COUNT = struct.Struct("<I")
_LENGTH = struct.Struct("<i")
_ALL_EQUAL, _EACH = b"\1", b"\0"
"""How a column goes on: with the one value of all records, or with one for each."""
_NO_DEAD_LETTER = -1
_ABSENT = -1

Headers = tuple[tuple[str, bytes | None], ...]
H = TypeVar("H", str, Headers)


class OutRecord(NamedTuple):
    """A record as it will be published."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
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
    topics, keys, values, headers, timestamps, letters = zip(*records, strict=True)
    topic_table, topic_column = _refer(topics)
    headers_table, headers_column = _refer(headers)
    unpublished = letters.count(None) == len(letters)
    parts = keys + values
    return b"".join(
        (
            _HEADER.pack(_VERSION, os.urandom(16), len(records), len(topic_table), len(headers_table)),
            *map(_text, topic_table),
            *map(_header_set, headers_table),
            _column("H", topic_column),
            _column("I", headers_column),
            _column("q", timestamps),
            _column("q", [_NO_DEAD_LETTER] if unpublished else list(map(_letter_number, letters))),
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
    """What tells a row of the outbox from any other: 16 bytes, which chance gave it as it was written."""
    return blob[_NONCE]


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


def _refer(values: Sequence[H]) -> tuple[Sequence[H], Sequence[int]]:
    """Each of these once, and of each place which of them it has; one number stands for all."""
    first = values[0]
    if values.count(first) == len(values):
        return (first,), (0,)
    numbers: dict[H, int] = {}
    column = [numbers.setdefault(value, len(numbers)) for value in values]
    return list(numbers), column


def _column(kind: str, values: Sequence[int]) -> bytes:
    first = values[0]
    if values.count(first) == len(values):
        return _ALL_EQUAL + array(kind, (first,)).tobytes()
    return _EACH + array(kind, values).tobytes()


def _letter_number(number: int | None) -> int:
    return _NO_DEAD_LETTER if number is None else number


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    return _COUNT.pack(len(encoded)) + encoded


def _header_set(pairs: Headers) -> bytes:
    written = [_COUNT.pack(len(pairs))]
    for name, content in pairs:
        length = _LENGTH.pack(_ABSENT if content is None else len(content))
        written += (_text(name), length, content or b"")
    return b"".join(written)


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

    def header_set(self) -> Headers:
        return tuple([(self.text(), self.content()) for _ in range(self.count())])

    def content(self) -> bytes | None:
        length = _LENGTH.unpack(self.take(_LENGTH.size))[0]
        return None if length == _ABSENT else self.take(length)

    def numbers(self, kind: str, number: int) -> list[int]:
        found = array(kind)
        found.frombytes(self.take(number * found.itemsize))
        return found.tolist()

    def column(self, kind: str, number: int) -> Iterable[int]:
        """A number for each record."""
        if self.take(1) == _ALL_EQUAL:
            return repeat(self.numbers(kind, 1)[0], number)
        return self.numbers(kind, number)

    def parts(self, number: int) -> list[Any]:
        """Pieces of bytes, None where one is absent; they are the rest of the blob."""
        lengths = self.numbers("i", number)
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
    version, _, count, topics_count, headers_count = _HEADER.unpack(cursor.take(_HEADER.size))
    if version != _VERSION:
        raise ValueError(f"its format is {version}")
    topics = [cursor.text() for _ in range(topics_count)]
    headers = [cursor.header_set() for _ in range(headers_count)]
    topic_column, headers_column = cursor.column("H", count), cursor.column("I", count)
    timestamps, letters = cursor.column("q", count), cursor.column("q", count)
    parts = cursor.parts(2 * count)
    columns = zip(
        map(topics.__getitem__, topic_column),
        parts[:count],
        parts[count:],
        map(headers.__getitem__, headers_column),
        timestamps,
        map(_dead_letter, letters),
        strict=True,
    )
    return map(_make, columns)


_make = partial(tuple.__new__, OutRecord)


def _dead_letter(number: int) -> int | None:
    return None if number == _NO_DEAD_LETTER else number
