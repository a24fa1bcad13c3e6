"""Where events come from: the contracts of a source.

A source is two things that must not be mixed up. Its *membership* says which partitions are ours; that may
change at any moment and is only for liveness. Its *reader* reads records of given partitions from given
positions, and knows nothing of groups. Positions come from the store, never from the source.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class SourceError(Exception):
    """The source cannot do what was asked; the message is a sentence for a person."""


class SourceUnreachableError(SourceError):
    """The source does not answer; the message names its address."""


class NoSuchTopicError(SourceError):
    """A topic that does not exist."""


class NotAllowedError(SourceError):
    """The source does not let us do that; the message names the right."""


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        """``topic/number``."""
        return f"{self.topic}/{self.number}"


class Record(Protocol):
    """A record as it came; all bytes as they were."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970, as the broker keeps them; -1 where there is none."""
        ...

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Bytes of a name that are not UTF-8 stand in it as lone surrogates (`surrogateescape`)."""
        ...


class RawRecord(NamedTuple):
    """A record held as a value: from the store, a fake, or a test."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Chunk(NamedTuple):
    """What one fetch gave: records in the order of each partition, and how far the reader is now.

    A partition may have moved without a record, where the source has holes (aborted transactions,
    compaction).
    """

    records: Mapping[Partition, Sequence[Record]]
    positions: Mapping[Partition, int]
    """The offset after all that this chunk covers, for every partition that moved."""


class OutOfRange(NamedTuple):
    """A position that the source does not have (any more)."""

    partition: Partition
    position: int
    earliest: int
    end: int


class Unreadable(NamedTuple):
    """A position at which stands something that is no record, such as bytes with a wrong checksum."""

    partition: Partition
    position: int
    reason: str
    """A sentence: what is wrong there."""


class Trouble(NamedTuple):
    """Something that keeps us from reading for now; it is tried again until it works."""

    since: float
    """By the clock `time.monotonic`, in seconds."""
    reason: str
    """A sentence."""


Changed = Callable[[frozenset[Partition]], Awaitable[None]]


class Membership(Protocol):
    """Which partitions of the topics are ours, as told by the source's group."""

    async def start(self, topics: Iterable[str], on_assigned: Changed, on_revoked: Changed) -> None:
        """Join; raises SourceError where that is impossible now.

        The callbacks take turns, beginning with ``on_assigned``, and never run at the same time; a set may
        be empty. ``on_assigned`` may take its time: it is cancelled where its partitions are taken away
        before it has ended. ``on_revoked`` is awaited before another member can be given the partitions;
        where it takes longer than the group can wait, it is cancelled and another member gets them.
        """
        ...

    async def watch(self) -> None:
        """Ends when the membership was stopped; raises what a callback raised.

        A group that cannot be reached is no reason to end.
        """
        ...

    async def stop(self) -> None:
        """Give back what is assigned, by ``on_revoked``, and leave.

        A static member stays on the books, to find its partitions again.
        """
        ...

    def trouble(self) -> Trouble | None:
        """Why we are no member of the group just now."""
        ...


class Reader(Protocol):
    """Reads given partitions from given positions."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def cluster_id(self) -> str:
        """What tells this source from another one with the same topics."""
        ...

    def assign(
        self, positions: Mapping[Partition, int], topics: Mapping[Partition, str] | None = None
    ) -> None:
        """Read these partitions, each from this offset, and no others; nothing read before counts any more.

        All of them are read: what was paused or stopped before is not so any more. But where ``topics`` has the id of
        the topic that an offset above 0 is of, it is read from that topic alone.
        """
        ...

    def pause(self, partitions: Iterable[Partition]) -> None: ...

    def resume(self, partitions: Iterable[Partition]) -> None: ...

    async def fetch(
        self, *, records_max: int, wait_seconds: float, until: asyncio.Future[Any] | None = None
    ) -> Chunk:
        """The next records, as soon as there are some, or an empty chunk after the wait, or once ``until`` is done.

        Where it is cancelled nothing is lost: the next one gives what it would have given.
        """
        ...

    def out_of_range(self) -> list[OutOfRange]:
        """Partitions that stopped since the last call because their position does not exist."""
        ...

    def unreadable(self) -> list[Unreadable]:
        """Partitions that stopped since the last call because of what stands at their position."""
        ...

    def made_anew(self) -> dict[Partition, str]:
        """Partitions that stopped since the last call because their topic has another id by now: which.

        Nothing more comes of these.
        """
        ...

    def topic_ids(self) -> dict[Partition, str]:
        """The ids of topics, of partitions that came without, or are at 0, as they were learned since the last call."""
        ...

    def troubles(self) -> dict[Partition, Trouble]:
        """Partitions that cannot be read just now, because the broker is away, say, or the topic was deleted.

        Each goes on by itself as soon as it can.
        """
        ...

    async def earliest(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The first offset that there is."""
        ...

    async def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The offset after the last one that can be read now; a reader's position reaches it.

        Where a transaction is open this is its first offset: what stands behind it cannot be read until it
        ends.
        """
        ...

    async def at_time(self, partitions: Iterable[Partition], milliseconds: int) -> dict[Partition, int]:
        """The first offset at or after a time; the end where there is none."""
        ...

    async def partitions_of(self, topic: str) -> set[Partition]:
        """All partitions of a topic; empty where there is no such topic."""
        ...
