"""Reads given partitions of Kafka from given positions: committed records only, with the holes counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from aiokafka.client import ConnectionGroup

from connectors.kafka.fetching import Fetching
from connectors.kafka.lane import Lane
from connectors.kafka.queries import EARLIEST, LATEST, NOT_FOUND, Queries, connect
from connectors.kafka.settings import KafkaSettings
from connectors.source import Chunk, OutOfRange, Partition, RawRecord, SourceError, Trouble, Unreadable

BUFFER_BYTES = 32 * 1024 * 1024
"""Of all partitions together: each may hold twice its share, and one batch of any size."""
PARTITION_BYTES_MAX = 1024 * 1024
PARTITION_BYTES_MIN = 16 * 1024
REQUEST_SECONDS = 20.0
"""A broker that has not answered by then is taken to be away."""
METADATA_SECONDS = 60.0
TROUBLE_SECONDS_MIN = 1.0
"""What is over sooner is not worth a word: a leader that moved, a topic just made."""


class KafkaReader:
    """A reader over one cluster. It fetches ahead, within `buffer_bytes`."""

    def __init__(self, settings: KafkaSettings, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._settings = settings
        self._buffer_bytes = buffer_bytes
        self._client: Any = None
        self._lanes: dict[Partition, Lane] = {}
        self._ready: dict[Lane, None] = {}
        """In the order in which they are served."""
        self._woken: asyncio.Future[None] | None = None
        """What a fetch waits for."""

    async def start(self) -> None:
        """Raises SourceUnreachableError."""
        self._client = await connect(
            self._settings,
            request_timeout_ms=round(REQUEST_SECONDS * 1000),
            metadata_max_age_ms=round(METADATA_SECONDS * 1000),
        )
        # A broker answers what comes on one connection in order, and fetches wait there for records.
        self._queries = Queries(self._client, self._settings, group=ConnectionGroup.COORDINATION)
        self._fetching = Fetching(self._client, self._queries, self._on_arrival)
        self._fetching.start()

    async def stop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await self._fetching.close()
            await client.close()

    async def cluster_id(self) -> str:
        return await self._queries.cluster_id()

    def assign(
        self, positions: Mapping[Partition, int], topics: Mapping[Partition, str] | None = None
    ) -> None:
        topics = topics or {}
        share = self._buffer_bytes // max(1, len(positions))
        bytes_max = max(PARTITION_BYTES_MIN, min(PARTITION_BYTES_MAX, share))
        crcs = self._settings.check_crcs
        self._lanes = {
            partition: Lane(
                partition, position, bytes_max, check_crcs=crcs, topic_id=topics.get(partition, "")
            )
            for partition, position in positions.items()
        }
        self._ready.clear()
        self._fetching.replace(self._lanes)

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Hold these back; the few that are not assigned are passed over."""
        for lane in self._known(partitions):
            lane.paused = True
            self._ready.pop(lane, None)

    def resume(self, partitions: Iterable[Partition]) -> None:
        lanes = self._known(partitions)
        # Whoever does not ask does not hear that there was no such topic for a moment.
        self._fetching.doubt({lane.partition.topic for lane in lanes})
        for lane in lanes:
            lane.paused = False
            if lane.is_ready():
                self._on_arrival(lane)

    async def fetch(
        self, *, records_max: int, wait_seconds: float, until: asyncio.Future[Any] | None = None
    ) -> Chunk:
        self._fetching.check()
        if not self._ready and wait_seconds > 0:
            await self._wait(wait_seconds, until)
        return self._take(records_max) if self._ready else Chunk({}, {})

    async def _wait(self, seconds: float, until: asyncio.Future[Any] | None) -> None:
        """Wait so long for something to arrive; no longer than ``until`` is done."""
        loop = asyncio.get_running_loop()
        woken = self._woken = loop.create_future()
        wake = partial(_wake, woken)
        over = loop.call_later(seconds, wake)
        if until is not None:
            until.add_done_callback(wake)
        try:
            await woken
        finally:
            over.cancel()
            if until is not None:
                until.remove_done_callback(wake)

    def out_of_range(self) -> list[OutOfRange]:
        found = list(self._fetching.out_of_range)
        self._fetching.out_of_range.clear()
        return found

    def unreadable(self) -> list[Unreadable]:
        found = [lane.unreadable for lane in self._lanes.values() if lane.unreadable is not None]
        for one in found:
            self._lanes[one.partition].unreadable = None
        return found

    def made_anew(self) -> dict[Partition, str]:
        known = self._fetching.made_anew
        # What is at hand is of the topic before, which has it no more.
        over = [partition for partition in known if not self._lanes[partition].is_ready()]
        return {partition: known.pop(partition) for partition in over}

    def topic_ids(self) -> dict[Partition, str]:
        found = dict(self._fetching.learned)
        self._fetching.learned.clear()
        return found

    def troubles(self) -> dict[Partition, Trouble]:
        latest = time.monotonic() - TROUBLE_SECONDS_MIN
        return {
            partition: lane.trouble
            for partition, lane in self._lanes.items()
            if lane.trouble is not None and lane.trouble.since <= latest
        }

    async def earliest(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return await self._queries.offsets(dict.fromkeys(partitions, EARLIEST))

    async def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return await self._queries.offsets(dict.fromkeys(partitions, LATEST))

    async def at_time(self, partitions: Iterable[Partition], milliseconds: int) -> dict[Partition, int]:
        partitions = list(partitions)
        ends = await self.ends(partitions)
        found = await self._queries.offsets(dict.fromkeys(partitions, milliseconds))
        return {at: ends[at] if offset == NOT_FOUND else offset for at, offset in found.items()}

    async def ids_of(self, topics: Iterable[str]) -> dict[str, str]:
        """What Kafka calls these topics; without those for which it does not say it."""
        found = await self._queries.topic_ids(sorted(topics))
        return {topic: one for topic, one in found.items() if one and not isinstance(one, SourceError)}

    async def partitions_of(self, topic: str) -> set[Partition]:
        return set(await self._queries.leaders_of(topic))

    def _known(self, partitions: Iterable[Partition]) -> list[Lane]:
        return [self._lanes[partition] for partition in partitions if partition in self._lanes]

    def _on_arrival(self, lane: Lane) -> None:
        self._ready[lane] = None
        if self._woken is not None:
            _wake(self._woken)

    def _take(self, records_max: int) -> Chunk:
        records: dict[Partition, list[RawRecord]] = {}
        positions: dict[Partition, int] = {}
        left = records_max
        for lane in list(self._ready):
            if left <= 0:
                break
            del self._ready[lane]
            if taken := lane.take(left):
                records[lane.partition] = taken
                left -= len(taken)
            if lane.position != lane.told:
                positions[lane.partition] = lane.told = lane.position
            if lane.is_ready():
                self._ready[lane] = None
        self._fetching.wake()
        return Chunk(records, positions)


def _wake(woken: asyncio.Future[None], _until: asyncio.Future[Any] | None = None) -> None:
    if not woken.done():
        woken.set_result(None)
