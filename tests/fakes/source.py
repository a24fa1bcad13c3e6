"""A source in memory: a log with transactions, retention and holes, its readers, and its groups.

It passes the same suite as Kafka (`tests/contract/test_source.py`), so that what is tested on it means
something.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from connectors.source import (
    Changed,
    Chunk,
    NoSuchTopicError,
    OutOfRange,
    Partition,
    RawRecord,
    Trouble,
    Unreadable,
)
from connectors.turns import Turns

REVOKE_SECONDS_MAX = 5.0


class Fate(Enum):
    """What became of an offset."""

    COMMITTED = "committed"
    OPEN = "open"
    ABORTED = "aborted"
    MARKER = "marker"
    UNREADABLE = "unreadable"


@dataclass(slots=True)
class Entry:
    """One offset of a partition."""

    fate: Fate
    record: RawRecord | None = None


@dataclass(slots=True)
class PartitionLog:
    """The offsets of a partition, from the first one that there is."""

    first: int = 0
    entries: list[Entry] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.first + len(self.entries)

    def stable_end(self) -> int:
        """The first offset of an open transaction, or the end."""
        for offset, entry in enumerate(self.entries, self.first):
            if entry.fate is Fate.OPEN:
                return offset
        return self.end

    def at(self, offset: int) -> Entry:
        return self.entries[offset - self.first]


class FakeSource:
    """The topics and groups of a source."""

    def __init__(self) -> None:
        self.cluster = f"fake-{id(self):x}"
        self.topics: dict[str, list[PartitionLog]] = {}
        self.topic_ids: dict[str, str] = {}
        self._made = itertools.count()
        self.changed = asyncio.Event()
        """Set for a moment, for those who wait."""
        self._groups: dict[str, FakeGroup] = {}

    def create_topic(self, name: str, partitions: int = 1) -> None:
        assert name not in self.topics
        self.topics[name] = [PartitionLog() for _ in range(partitions)]
        self.topic_ids[name] = f"topic {next(self._made)}"

    def delete_topic(self, name: str) -> None:
        del self.topics[name]

    def log(self, partition: Partition) -> PartitionLog | None:
        logs = self.topics.get(partition.topic, [])
        return logs[partition.number] if partition.number < len(logs) else None

    def append(
        self,
        partition: Partition,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        timestamp: int | None = None,
        fate: Fate = Fate.COMMITTED,
    ) -> int:
        """Add a record; returns its offset."""
        log = self._existing(partition)
        offset = log.end
        stamp = round(time.time() * 1000) if timestamp is None else timestamp
        log.entries.append(Entry(fate, RawRecord(*partition, offset, stamp, key, value, headers)))
        self._notify()
        return offset

    def end_transaction(self, *partitions: Partition, commit: bool) -> None:
        """End what is open there, each with a marker."""
        for partition in partitions:
            log = self._existing(partition)
            for entry in log.entries:
                if entry.fate is Fate.OPEN:
                    entry.fate = Fate.COMMITTED if commit else Fate.ABORTED
            log.entries.append(Entry(Fate.MARKER))
        self._notify()

    def delete_before(self, partition: Partition, offset: int) -> None:
        """Forget all records before an offset, as retention does."""
        log = self._existing(partition)
        del log.entries[: offset - log.first]
        log.first = offset
        self._notify()

    def group(self, name: str) -> FakeGroup:
        return self._groups.setdefault(name, FakeGroup(self))

    def _notify(self) -> None:
        self.changed.set()
        self.changed.clear()

    def _existing(self, partition: Partition) -> PartitionLog:
        log = self.log(partition)
        assert log is not None, f"there is no {partition}"
        return log


class FakeReader:
    """A reader of a fake source."""

    def __init__(self, source: FakeSource) -> None:
        self._source = source
        self._positions: dict[Partition, int] = {}
        self._held: set[Partition] = set()
        self._troubles: dict[Partition, Trouble] = {}
        self._out_of_range: list[OutOfRange] = []
        self._topic_ids: dict[Partition, str] = {}
        self._learned: dict[Partition, str] = {}
        self._made_anew: dict[Partition, str] = {}
        self._unreadable: list[Unreadable] = []

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self._positions = {}

    async def cluster_id(self) -> str:
        return self._source.cluster

    def assign(
        self, positions: Mapping[Partition, int], topics: Mapping[Partition, str] | None = None
    ) -> None:
        self._positions = dict(positions)
        self._topic_ids = dict(topics or {})
        self._learned.clear()
        self._made_anew.clear()
        self._held.clear()
        self._troubles.clear()
        self._out_of_range.clear()
        self._unreadable.clear()

    def pause(self, partitions: Iterable[Partition]) -> None:
        self._held |= set(partitions)

    def resume(self, partitions: Iterable[Partition]) -> None:
        self._held -= set(partitions)

    async def fetch(
        self, *, records_max: int, wait_seconds: float, until: asyncio.Future[Any] | None = None
    ) -> Chunk:
        is_over = until.done if until is not None else lambda: False
        if until is not None:
            until.add_done_callback(self._look_again)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    while not (chunk := self._take(records_max)).positions and not is_over():
                        await self._source.changed.wait()
                    return chunk
        finally:
            if until is not None:
                until.remove_done_callback(self._look_again)
        return Chunk({}, {})

    def _look_again(self, _until: asyncio.Future[Any]) -> None:
        self._source._notify()

    def out_of_range(self) -> list[OutOfRange]:
        found, self._out_of_range = self._out_of_range, []
        return found

    def unreadable(self) -> list[Unreadable]:
        found, self._unreadable = self._unreadable, []
        return found

    def made_anew(self) -> dict[Partition, str]:
        found, self._made_anew = self._made_anew, {}
        return found

    def topic_ids(self) -> dict[Partition, str]:
        found, self._learned = self._learned, {}
        return found

    def troubles(self) -> dict[Partition, Trouble]:
        return dict(self._troubles)

    async def earliest(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {partition: self._log(partition).first for partition in partitions}

    async def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {partition: self._log(partition).stable_end() for partition in partitions}

    async def at_time(self, partitions: Iterable[Partition], milliseconds: int) -> dict[Partition, int]:
        found = {}
        for partition in partitions:
            log = self._log(partition)
            end = log.stable_end()
            # An aborted record counts, as it does for Kafka, which looks at times and not at what became of
            # them.
            found[partition] = next(
                (
                    offset
                    for offset in range(log.first, end)
                    if (record := log.at(offset).record) is not None and record.timestamp >= milliseconds
                ),
                end,
            )
        return found

    async def partitions_of(self, topic: str) -> set[Partition]:
        return {Partition(topic, number) for number in range(len(self._source.topics.get(topic, [])))}

    def _log(self, partition: Partition) -> PartitionLog:
        log = self._source.log(partition)
        if log is None:
            raise NoSuchTopicError(f"{partition} does not exist. Create it, or correct its name.")
        return log

    def _is_same(self, partition: Partition, position: int) -> bool:
        now = self._source.topic_ids[partition.topic]
        if self._topic_ids.get(partition) not in (None, now) and position:
            return False
        if self._topic_ids.get(partition) != now:
            self._topic_ids[partition] = self._learned[partition] = now
        return True

    def _take(self, records_max: int) -> Chunk:
        records: dict[Partition, list[RawRecord]] = {}
        positions: dict[Partition, int] = {}
        stopped: list[Partition] = []
        for partition, position in self._positions.items():
            if partition in self._held or records_max <= 0:
                continue
            log = self._source.log(partition)
            if log is None:
                trouble = Trouble(time.monotonic(), f"{partition} does not exist (any more).")
                self._troubles.setdefault(partition, trouble)
                continue
            self._troubles.pop(partition, None)
            if not self._is_same(partition, position):
                self._made_anew[partition] = self._source.topic_ids[partition.topic]
                stopped.append(partition)
                continue
            if not log.first <= position <= log.end:
                self._out_of_range.append(OutOfRange(partition, position, log.first, log.stable_end()))
                stopped.append(partition)
                continue
            taken, now, reason = _read(log, position, records_max)
            if reason:
                self._unreadable.append(Unreadable(partition, now, reason))
                stopped.append(partition)
            if taken:
                records[partition] = taken
                records_max -= len(taken)
            if now != position:
                positions[partition] = now
        self._positions |= positions
        self._held |= set(stopped)
        return Chunk(records, positions)


def _read(log: PartitionLog, position: int, records_max: int) -> tuple[list[RawRecord], int, str]:
    """Records, the position after them and the holes behind them, and why it ends there, if for good."""
    taken: list[RawRecord] = []
    for offset in range(position, log.stable_end()):
        entry = log.at(offset)
        if entry.fate is Fate.UNREADABLE:
            return taken, offset, f"The batch at offset {offset} cannot be decoded."
        if entry.fate is Fate.COMMITTED:
            if len(taken) == records_max:
                return taken, offset, ""
            assert entry.record is not None
            taken.append(entry.record)
    return taken, max(position, log.stable_end()), ""


@dataclass(eq=False, slots=True)
class Member:
    """A member of a group, or a static one's place in its books."""

    name: str
    topics: frozenset[str]
    turns: Turns | None
    """None: it is not there to be told anything."""
    has: frozenset[Partition] = frozenset()
    _context: Context = field(default_factory=copy_context)
    """That of who has joined: what it does about what it is told, it does itself."""

    def give(self, partitions: frozenset[Partition]) -> None:
        self.has = partitions
        if self.turns is not None:
            self._context.run(self.turns.assign, partitions)

    async def give_back(self) -> None:
        if self.turns is not None:
            await self._context.run(asyncio.create_task, self.turns.revoke())


class FakeGroup:
    """A group with eager rebalances: everyone gives all back before anyone is given anything.

    A rebalance goes on whatever becomes of the member with which it began.
    """

    def __init__(self, source: FakeSource) -> None:
        self._source = source
        self._members: list[Member] = []
        self._rebalancing = asyncio.Lock()
        self._names = itertools.count()

    def new_name(self) -> str:
        return f"member-{next(self._names)}"

    async def join(self, member: Member) -> None:
        await _by_itself(self._join(member))

    async def leave(self, member: Member) -> None:
        """A member is gone for good: by itself, or since it was not heard of for too long."""
        member.turns = None
        await _by_itself(self._leave(member))

    async def _join(self, member: Member) -> None:
        async with self._rebalancing:
            known = next((one for one in self._members if one.name == member.name), None)
            if known is not None:
                self._members.remove(known)
            self._members.append(member)
            if known is not None and known.topics == member.topics:
                # A static member that was away finds what it had, and nobody else notices.
                member.give(known.has)
            else:
                await self._share_out()

    async def _leave(self, member: Member) -> None:
        async with self._rebalancing:
            if member in self._members:
                self._members.remove(member)
                await self._share_out()

    async def _share_out(self) -> None:
        # One that ends meanwhile has given back what it had.
        await asyncio.gather(*(member.give_back() for member in self._members), return_exceptions=True)
        shares: dict[Member, set[Partition]] = {member: set() for member in self._members}
        for topic in sorted(frozenset().union(*(member.topics for member in self._members))):
            readers = sorted((one for one in self._members if topic in one.topics), key=lambda one: one.name)
            count = len(self._source.topics.get(topic, []))
            for number in range(count):
                shares[readers[number * len(readers) // count]].add(Partition(topic, number))
        for member, share in shares.items():
            member.give(frozenset(share))


async def _by_itself(work: Coroutine[object, object, None]) -> None:
    """Wait for what goes on whatever becomes of who waits, and is nobody's."""
    await asyncio.shield(Context().run(asyncio.create_task, work))


class FakeMembership:
    """A membership of a fake group; with `instance` a static one."""

    def __init__(self, source: FakeSource, group: str, *, instance: str | None = None) -> None:
        self._source = source
        self._group = source.group(group)
        self._instance = instance
        self._turns: Turns | None = None
        self._member: Member | None = None
        self._has_stopped = False

    async def start(self, topics: Iterable[str], on_assigned: Changed, on_revoked: Changed) -> None:
        wanted = frozenset(topics)
        if missing := wanted - set(self._source.topics):
            raise NoSuchTopicError(
                f"The topic {min(missing)} does not exist. Create it, or correct its name."
            )
        self._turns = Turns(on_assigned, on_revoked, REVOKE_SECONDS_MAX)
        self._member = Member(self._instance or self._group.new_name(), wanted, self._turns)
        await self._group.join(self._member)

    async def watch(self) -> None:
        assert self._turns is not None, "the membership was not started"
        await asyncio.shield(self._turns.failed)

    async def stop(self) -> None:
        if self._turns is None or self._member is None:
            return
        self._has_stopped = True
        await self._turns.revoke()
        self._member.turns = None
        if self._instance is None:
            await self._group.leave(self._member)
        if not self._turns.failed.done():
            self._turns.failed.set_result(None)

    async def expire(self) -> None:
        """It was not heard of for longer than its session lasts: the group goes on without it."""
        if self._member is not None:
            await self._group.leave(self._member)

    async def come_back(self) -> None:
        """It is heard of again: it gives back what it had, and is a new member."""
        if self._member is not None and not self._has_stopped:
            name = self._instance or self._group.new_name()
            self._member = replace(self._member, name=name, turns=self._turns)
            await self._member.give_back()
            await self._group.join(self._member)

    def trouble(self) -> Trouble | None:
        return None


@contextlib.contextmanager
def transaction(source: FakeSource, *partitions: Partition, commit: bool) -> Iterator[None]:
    """What is appended inside with `Fate.OPEN` is committed or aborted at its end."""
    yield
    source.end_transaction(*partitions, commit=commit)
