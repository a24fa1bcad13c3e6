"""A transactional sink in memory: topics, fencing, refusals, what became visible.

It passes the same suite as Kafka (`tests/contract/test_sink.py`), so what is tested on it means something.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiokafka.partitioner import murmur2

from connectors.identity import shown
from connectors.sink import (
    FencedError,
    Outgoing,
    Progress,
    RecordsRefusedError,
    SinkUnavailableError,
)
from connectors.source import RawRecord

RECORD_OVERHEAD_BYTES = 70


@dataclass(slots=True)
class FakeTopic:
    """What a topic takes, and what it took."""

    partitions: list[list[RawRecord]]
    bytes_max: int
    compacted: bool


@dataclass(slots=True)
class FakeBroker:
    """Everything that outlives a sink."""

    topics: dict[str, FakeTopic] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    reachable: bool = True
    committed: list[list[RawRecord]] = field(default_factory=list)
    """What each transaction made visible."""

    def create_topic(
        self, name: str, partitions: int = 1, *, bytes_max: int = 1_000_000, compacted: bool = False
    ) -> None:
        """Make a topic."""
        self.topics[name] = FakeTopic([[] for _ in range(partitions)], bytes_max, compacted)

    def refusal(self, record: Outgoing) -> str | None:
        """Why a record can never be taken, or None."""
        topic = self.topics[record.topic]
        size = RECORD_OVERHEAD_BYTES + len(record.key or b"") + len(record.value or b"")
        if size > topic.bytes_max:
            return f"MESSAGE_TOO_LARGE: {size} bytes"
        if topic.compacted and record.key is None:
            return "INVALID_RECORD: a compacted topic needs keys"
        return None

    def append(self, records: Sequence[Outgoing]) -> None:
        """Make records visible."""
        visible = []
        for record in records:
            partitions = self.topics[record.topic].partitions
            hashed = murmur2(record.key or b"") & 0x7FFFFFFF  # type: ignore[no-untyped-call]  # aiokafka
            number = hashed % len(partitions)
            kept = RawRecord(
                record.topic,
                number,
                len(partitions[number]),
                record.timestamp,
                record.key,
                record.value,
                tuple(record.headers),
            )
            partitions[number].append(kept)
            visible.append(kept)
        self.committed.append(visible)


class FakeSink:
    """A sink of one name on a fake broker."""

    def __init__(self, broker: FakeBroker, name: str, topic_wait_seconds: float = 0.3) -> None:
        self._broker = broker
        self._name = name
        self._topic_wait_seconds = topic_wait_seconds
        self._missing: dict[str, float] = {}
        self._epoch: int | None = None

    async def start(self) -> None:
        """See Sink."""
        assert self._epoch is None, "close it first"
        await self._reach()
        self._epoch = self._broker.epochs[self._name] = self._broker.epochs.get(self._name, 0) + 1

    async def progress(self) -> Progress | None:
        """See Sink."""
        assert self._epoch is not None, "start it first"
        return await self.look()

    async def look(self) -> Progress | None:
        """See Sink."""
        await self._reach()
        return self._broker.progress.get(self._name)

    async def publish(self, records: Sequence[Outgoing], progress: Progress) -> None:
        """See Sink."""
        assert self._epoch is not None, "start it first"
        await self._reach()
        await self._wait_for_topics(records)
        await self._reach()
        if self._broker.epochs[self._name] != self._epoch:
            raise FencedError(f"another sink {self._name} was started")
        refused = {
            index: why
            for index, record in enumerate(records)
            if (why := self._broker.refusal(record)) is not None
        }
        if refused:
            raise RecordsRefusedError(refused)
        self._broker.append(records)
        self._broker.progress[self._name] = progress

    async def close(self) -> None:
        """See Sink."""
        self._epoch = None

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if not self._broker.reachable:
            raise SinkUnavailableError("the fake broker is away")

    async def _wait_for_topics(self, records: Sequence[Outgoing]) -> None:
        while missing := {record.topic for record in records} - self._broker.topics.keys():
            now = time.monotonic()
            refused = {
                topic
                for topic in missing
                if now - self._missing.setdefault(topic, now) >= self._topic_wait_seconds
            }
            if refused:
                raise RecordsRefusedError(
                    {
                        index: f"there is no topic {shown(record.topic)}"
                        for index, record in enumerate(records)
                        if record.topic in refused
                    }
                )
            await asyncio.sleep(0.01)
