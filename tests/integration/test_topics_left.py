"""What a version leaves behind in a topic that it does not read is told of; on a real Kafka and a real Postgres."""

from __future__ import annotations

import logging

import pytest

from connectors.kafka.reader import KafkaReader
from connectors.kafka.settings import KafkaSettings
from connectors.publisher import Publisher
from connectors.source import Partition
from engine.store.postgres import PostgresStore
from engine.unread import tell_unread
from tests.services import Database, Kafka, TopicFactory
from tests.shop import OrderPlaced

GROUP = "pointsman.default"


async def test_records_that_were_left_in_a_topic_are_told_of_with_what_to_do(
    database: Database, kafka: Kafka, topic: TopicFactory, caplog: pytest.LogCaptureFixture
) -> None:
    left, read = await topic("left"), await topic("read")
    settings = KafkaSettings(kafka.bootstrap)
    async with Publisher(kafka.bootstrap, source="/shop") as publisher:
        for number in range(3):
            await publisher.publish(OrderPlaced(order_id=f"o{number}", amount=5), topic=left)
    reader = KafkaReader(settings)
    await reader.start()
    cluster = await reader.cluster_id()
    await reader.stop()
    store = await PostgresStore.open(database.engine_dsn, namespace="default", group=GROUP, cluster=cluster)
    await store.add_positions({Partition(left, 0): 1, Partition(read, 0): 0})
    await store.close()

    with caplog.at_level(logging.WARNING, "pointsman.engine"):
        await tell_unread(database.engine_dsn, settings, "default", GROUP, [read])
        await tell_unread(database.engine_dsn, settings, "default", GROUP, [read, left])
        await tell_unread(database.engine_dsn, settings, "default", "another", [read])
    [told] = caplog.messages
    assert told.startswith(f"The topic {left} was read by this group")
    assert "not read there: 2. Load one that does, too" in told
