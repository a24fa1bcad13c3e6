"""The two worlds in which the suite of a source runs: the fake one, and real Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from connectors.kafka.membership import KafkaMembership
from connectors.kafka.reader import KafkaReader
from connectors.kafka.settings import KafkaSettings
from connectors.source import Membership, Partition, Reader
from tests.fakes.source import FakeMembership, FakeReader, FakeSource, Fate
from tests.services import Topics

# aiokafka is not typed.
Producer: Any = AIOKafkaProducer
Admin: Any = AIOKafkaAdminClient
Before: Any = RecordsToDelete

MARKER_SECONDS = 60.0

Headers = Sequence[tuple[str, bytes | None]]
Send = Callable[[Partition, bytes], Awaitable[int]]


class World(Protocol):
    """A source with what else is needed to try it."""

    async def topic(self, partitions: int = 1) -> str: ...

    async def delete(self, topic: str) -> None:
        """Delete a topic of one partition."""
        ...

    async def make_again(self, topic: str) -> None:
        """Make another one of its name."""
        ...

    async def produce(
        self,
        partition: Partition,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> int:
        """Add a record; returns its offset."""
        ...

    def transaction(self, *, commit: bool) -> contextlib.AbstractAsyncContextManager[Send]:
        """Gives a function that adds a record of the transaction, which ends with the block."""
        ...

    async def delete_before(self, partition: Partition, offset: int) -> None: ...

    async def reader(self) -> Reader:
        """A started reader, stopped at the end of the test."""
        ...

    def membership(self, group: str, *, instance: str | None = None) -> Membership:
        """A membership yet to be started, stopped at the end of the test."""
        ...


class FakeWorld:
    """The fake source."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self._source = FakeSource()

    async def topic(self, partitions: int = 1) -> str:
        name = f"topic-{len(self._source.topics)}"
        self._source.create_topic(name, partitions)
        return name

    async def delete(self, topic: str) -> None:
        self._source.delete_topic(topic)

    async def make_again(self, topic: str) -> None:
        self._source.create_topic(topic)

    async def produce(
        self,
        partition: Partition,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> int:
        return self._source.append(partition, value, key=key, headers=headers, timestamp=timestamp)

    @contextlib.asynccontextmanager
    async def transaction(self, *, commit: bool) -> AsyncIterator[Send]:
        touched: set[Partition] = set()

        async def send(partition: Partition, value: bytes) -> int:
            touched.add(partition)
            return self._source.append(partition, value, fate=Fate.OPEN)

        yield send
        self._source.end_transaction(*touched, commit=commit)

    async def delete_before(self, partition: Partition, offset: int) -> None:
        self._source.delete_before(partition, offset)

    async def reader(self) -> Reader:
        reader = FakeReader(self._source)
        await reader.start()
        self._stack.push_async_callback(reader.stop)
        return reader

    def membership(self, group: str, *, instance: str | None = None) -> Membership:
        membership = FakeMembership(self._source, group, instance=instance)
        self._stack.push_async_callback(membership.stop)
        return membership


class KafkaWorld:
    """Real Kafka, with topics and groups of the test's own."""

    def __init__(self, stack: contextlib.AsyncExitStack, bootstrap: str) -> None:
        self._stack = stack
        self._bootstrap = bootstrap
        self._settings = KafkaSettings(bootstrap)
        self._topics = Topics(bootstrap)
        self._run = uuid.uuid4().hex[:10]
        self._producer: Any = None
        self._transactional: Any = None
        stack.push_async_callback(self._topics.delete_all)

    async def topic(self, partitions: int = 1) -> str:
        return await self._topics("source", partitions=partitions)

    async def delete(self, topic: str) -> None:
        await self._topics.delete(topic)

    async def make_again(self, topic: str) -> None:
        await self._topics.make_again(topic)

    async def produce(
        self,
        partition: Partition,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> int:
        if self._producer is None:
            self._producer = await self._started(Producer(bootstrap_servers=self._bootstrap))
        sent = await self._producer.send_and_wait(
            partition.topic,
            value,
            partition=partition.number,
            key=key,
            headers=list(headers),
            timestamp_ms=timestamp,
        )
        return int(sent.offset)

    @contextlib.asynccontextmanager
    async def transaction(self, *, commit: bool) -> AsyncIterator[Send]:
        if self._transactional is None:
            self._transactional = await self._started(
                Producer(bootstrap_servers=self._bootstrap, transactional_id=f"tx-{self._run}")
            )
        producer = self._transactional
        last: dict[Partition, int] = {}

        async def send(partition: Partition, value: bytes) -> int:
            sent = await producer.send_and_wait(partition.topic, value, partition=partition.number)
            last[partition] = max(sent.offset, last.get(partition, 0))
            return int(sent.offset)

        await producer.begin_transaction()
        yield send
        await (producer.commit_transaction() if commit else producer.abort_transaction())
        await self._until_marked(last)

    async def delete_before(self, partition: Partition, offset: int) -> None:
        admin = Admin(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(*partition): Before(offset)})
        finally:
            await admin.close()

    async def reader(self) -> Reader:
        reader = KafkaReader(self._settings)
        await reader.start()
        self._stack.push_async_callback(reader.stop)
        return reader

    def membership(self, group: str, *, instance: str | None = None) -> Membership:
        membership = KafkaMembership(
            self._settings, f"{group}-{self._run}", instance=instance, heartbeat_seconds=0.1
        )
        self._stack.push_async_callback(membership.stop)
        return membership

    async def _until_marked(self, last: Mapping[Partition, int]) -> None:
        """Wait for the markers, which Kafka writes after it has answered."""
        reader = await self.reader()
        async with asyncio.timeout(MARKER_SECONDS):
            while any(end <= last[partition] for partition, end in (await reader.ends(last)).items()):  # noqa: ASYNC110 - Kafka tells nobody
                await asyncio.sleep(0.01)

    async def _started(self, producer: Any) -> Any:
        await producer.start()
        self._stack.push_async_callback(producer.stop)
        return producer
