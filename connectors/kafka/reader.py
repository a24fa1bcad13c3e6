"""Reads given partitions of Kafka from given positions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.protocol.metadata import MetadataRequest

from connectors.kafka.settings import KafkaSettings
from connectors.source import Chunk, OutOfRange, Partition, SourceUnreachableError, Trouble, Unreadable


class KafkaReader:
    """A reader over a Kafka cluster; `read_committed`."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._consumer: Any = None
        self._positions: dict[Partition, int] = {}
        self._lost: list[OutOfRange] = []

    async def start(self) -> None:
        self._consumer = AIOKafkaConsumer(  # type: ignore[no-untyped-call]  # aiokafka is untyped
            **self._settings.client_options(),
            group_id=None,
            auto_offset_reset="none",
            enable_auto_commit=False,
            isolation_level="read_committed",
            check_crcs=self._settings.check_crcs,
            fetch_max_wait_ms=100,
        )
        try:
            await self._consumer.start()
        except KafkaError as error:
            await self.stop()
            raise SourceUnreachableError(
                f"Kafka at {self._settings.bootstrap} does not answer: {error}."
            ) from error

    async def stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def cluster_id(self) -> str:
        client = self._consumer._client  # noqa: SLF001 - aiokafka has no other way to ask
        answer = await client.send(client.get_random_node(), MetadataRequest([]))
        return str(answer.cluster_id)

    def assign(self, positions: Mapping[Partition, int]) -> None:
        self._positions = dict(positions)
        self._lost.clear()
        self._consumer.assign([TopicPartition(*p) for p in positions])
        for partition, position in positions.items():
            self._consumer.seek(TopicPartition(*partition), position)

    def pause(self, partitions: Iterable[Partition]) -> None:
        self._consumer.pause(*(TopicPartition(*p) for p in partitions))

    def resume(self, partitions: Iterable[Partition]) -> None:
        self._consumer.resume(*(TopicPartition(*p) for p in partitions))

    async def fetch(self, *, records_max: int, wait_seconds: float) -> Chunk:
        try:
            got = await self._consumer.getmany(timeout_ms=wait_seconds * 1000, max_records=records_max)
        except OffsetOutOfRangeError as error:
            got = {}
            for tp in error.args[0]:
                partition = Partition(*tp)
                self._consumer.pause(tp)
                earliest = (await self.earliest([partition]))[partition]
                end = (await self.ends([partition]))[partition]
                self._lost.append(OutOfRange(partition, self._positions[partition], earliest, end))
        moved: dict[Partition, int] = {}
        for partition, before in self._positions.items():
            now = await self._consumer.position(TopicPartition(*partition))
            if now != before:
                moved[partition] = now
        self._positions.update(moved)
        return Chunk({Partition(*tp): records for tp, records in got.items()}, moved)

    def out_of_range(self) -> list[OutOfRange]:
        lost, self._lost = self._lost, []
        return lost

    def unreadable(self) -> list[Unreadable]:
        return []

    def troubles(self) -> dict[Partition, Trouble]:
        return {}

    async def earliest(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        found = await self._consumer.beginning_offsets([TopicPartition(*p) for p in partitions])
        return {Partition(*tp): offset for tp, offset in found.items()}

    async def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        found = await self._consumer.end_offsets([TopicPartition(*p) for p in partitions])
        return {Partition(*tp): offset for tp, offset in found.items()}

    async def at_time(self, partitions: Iterable[Partition], milliseconds: int) -> dict[Partition, int]:
        partitions = list(partitions)
        found = await self._consumer.offsets_for_times({TopicPartition(*p): milliseconds for p in partitions})
        ends = await self.ends(partitions)
        return {Partition(*tp): ends[Partition(*tp)] if at is None else at.offset for tp, at in found.items()}

    async def partitions_of(self, topic: str) -> set[Partition]:
        metadata = await self._consumer._client.fetch_all_metadata()  # noqa: SLF001
        return {Partition(topic, number) for number in metadata.partitions_for_topic(topic) or ()}
