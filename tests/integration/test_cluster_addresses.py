"""Of several addresses of a cluster some take connections and never answer, as of a machine that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.group_offsets import GroupOffsets
from connectors.kafka.membership import KafkaMembership
from connectors.kafka.reader import KafkaReader
from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink import KafkaSink
from connectors.publisher import Draft, Publisher
from connectors.sink import Progress
from statemachines.events import Event
from tests.services import Kafka, TopicFactory

SILENT = 4
FIRST_ANSWER_SECONDS = 8.0
"""Well below what any client waits for one address: the publisher 10, the relay 12, the others 20 and more."""


class Placed(Event, type="order.placed", key="order_id"):
    order_id: str


@pytest.fixture
def silent(kafka: Kafka) -> Iterator[KafkaSettings]:
    """The cluster's address behind others where nobody answers."""
    with contextlib.ExitStack() as stack:
        addresses = [kafka.bootstrap]
        for _ in range(SILENT):
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            addresses.append(f"127.0.0.1:{listening.getsockname()[1]}")
        yield KafkaSettings(",".join(addresses))


async def ask(settings: KafkaSettings, topic: str) -> None:
    async with KafkaAdmin(settings) as admin:
        assert await admin.topic_exists(topic)


async def read(settings: KafkaSettings, topic: str) -> None:
    reader = KafkaReader(settings)
    await reader.start()
    try:
        assert await reader.partitions_of(topic)
    finally:
        await reader.stop()


async def join(settings: KafkaSettings, topic: str) -> None:
    membership = KafkaMembership(settings, f"group-{topic}")
    await membership.start([topic], lambda _: asyncio.sleep(0), lambda _: asyncio.sleep(0))
    await membership.stop()


async def publish(settings: KafkaSettings, topic: str) -> None:
    async with Publisher(settings, source="/shop", topic=topic) as publisher:
        await publisher.publish_many([Draft(Placed(order_id="o-1"))])


async def relay(settings: KafkaSettings, topic: str) -> None:
    sink = KafkaSink(settings, topic, 0, "store")
    try:
        await sink.start()
        assert await sink.progress() is None
        await sink.publish([], Progress("store", 1, b"d"))
    finally:
        await sink.close()


async def tell_lag(settings: KafkaSettings, topic: str) -> None:
    offsets = GroupOffsets(settings, f"lag-{topic}")
    await offsets.start()
    await offsets.stop()


@pytest.mark.parametrize("begin", [ask, read, join, publish, relay, tell_lag])
async def test_every_client_begins_with_the_one_that_answers(
    silent: KafkaSettings, topic: TopicFactory, begin: Callable[[KafkaSettings, str], Awaitable[None]]
) -> None:
    name = await topic()
    async with asyncio.timeout(FIRST_ANSWER_SECONDS):
        await begin(silent, name)
