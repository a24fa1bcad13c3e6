"""The two worlds in which the suite of a sink runs: the fake one, and real Kafka."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink import KafkaSink
from connectors.kafka.sink_limits import SinkLimits
from connectors.sink import Sink
from connectors.source import RawRecord
from tests.fakes.sink import FakeBroker, FakeSink
from tests.kafka_reading import stable_ends
from tests.services import Topics

HASTY_SECONDS, PATIENT_SECONDS = 0.3, 30.0

# aiokafka is not typed.
Consumer: Any = AIOKafkaConsumer


class World(Protocol):
    """A sink with what else is needed to try it."""

    async def topic(
        self, partitions: int = 1, *, bytes_max: int | None = None, compacted: bool = False
    ) -> str: ...

    def sink(self, shard: int = 0, *, hasty: bool = False) -> Sink:
        """A sink yet to be started, closed at the end of the test; those of one shard have one name.

        ``hasty``: it does not wait for topics that are missing, as its own may be until another one was at work.
        """
        ...

    async def read(self, topic: str) -> list[list[RawRecord]]:
        """What is visible, by partition."""
        ...


class FakeWorld:
    """The fake sink."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self._broker = FakeBroker()

    async def topic(
        self, partitions: int = 1, *, bytes_max: int | None = None, compacted: bool = False
    ) -> str:
        name = f"topic-{len(self._broker.topics)}"
        self._broker.create_topic(name, partitions, bytes_max=bytes_max or 1_000_000, compacted=compacted)
        return name

    def sink(self, shard: int = 0, *, hasty: bool = False) -> Sink:
        sink = FakeSink(self._broker, f"shard {shard}", HASTY_SECONDS)
        self._stack.push_async_callback(sink.close)
        return sink

    async def read(self, topic: str) -> list[list[RawRecord]]:
        return [list(partition) for partition in self._broker.topics[topic].partitions]


class KafkaWorld:
    """Real Kafka."""

    def __init__(self, stack: contextlib.AsyncExitStack, bootstrap: str) -> None:
        self._stack = stack
        self._bootstrap = bootstrap
        self._namespace = f"sink-{uuid.uuid4().hex[:10]}"
        self._topics = Topics(bootstrap)
        stack.push_async_callback(self._topics.delete_all)

    async def topic(
        self, partitions: int = 1, *, bytes_max: int | None = None, compacted: bool = False
    ) -> str:
        configs = {}
        if bytes_max is not None:
            configs["max.message.bytes"] = str(bytes_max)
        if compacted:
            configs["cleanup.policy"] = "compact"
        return await self._topics(partitions=partitions, configs=configs)

    def sink(self, shard: int = 0, *, hasty: bool = False) -> Sink:
        seconds = HASTY_SECONDS if hasty else PATIENT_SECONDS
        limits = SinkLimits(topic_wait_seconds=seconds, topic_poll_seconds=0.05)
        # A shard above the first needs a topic with more partitions, which is another namespace's here.
        sink = KafkaSink(KafkaSettings(self._bootstrap), f"{self._namespace}-{shard}", 0, "the store", limits)
        self._stack.push_async_callback(sink.close)
        return sink

    async def read(self, topic: str) -> list[list[RawRecord]]:
        return await read_committed(self._bootstrap, topic)


async def read_committed(bootstrap: str, topic: str, *, check_crcs: bool = True) -> list[list[RawRecord]]:
    """Everything in a topic that a reader of committed records sees now, by partition."""
    consumer = Consumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        check_crcs=check_crcs,
        fetch_max_wait_ms=20,
    )
    await consumer.start()
    try:
        numbers = sorted(await consumer._client._wait_on_metadata(topic))
        partitions = [TopicPartition(topic, number) for number in numbers]
        consumer.assign(partitions)
        ends = await stable_ends(bootstrap, consumer, partitions)
        found: list[list[RawRecord]] = [[] for _ in partitions]
        while [tp for tp in partitions if await consumer.position(tp) < ends[tp]]:
            for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                found[tp.partition].extend(
                    RawRecord(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers)
                    for r in records
                )
        return found
    finally:
        await consumer.stop()
