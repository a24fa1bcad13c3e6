"""Tools that know nothing of us see in Kafka how far an engine has come; on a real Kafka and a real Postgres."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from connectors.kafka.group_offsets import GroupOffsets
from connectors.kafka.settings import KafkaSettings
from connectors.publisher import Publisher
from connectors.source import Partition, SourceError, SourceUnreachableError
from engine.assembly import EngineSettings
from engine.limits import EngineLimits
from engine.reading import list_positions
from engine.running import Running, run
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from statemachines.topic import Topic
from tests.services import Database, Kafka, TopicFactory
from tests.shop import OrderPlaced, shop

SECONDS = 60


async def offsets_of(kafka: Kafka, group: str) -> dict[tuple[str, int], int]:
    """What Kafka's own tools show."""
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        found: dict[TopicPartition, Any] = await admin.list_consumer_group_offsets(group)
        return {(one.topic, one.partition): told.offset for one, told in found.items()}
    finally:
        await admin.close()


async def test_what_is_durable_is_told_to_a_group_of_its_own(
    database: Database, kafka: Kafka, topic: TopicFactory, reader: Connection
) -> None:
    name = await topic("orders", partitions=2)
    machine = compile_pipeline(shop(topic=Topic(name)), namespace=database.name)
    settings = EngineSettings(
        database.engine_dsn,
        KafkaSettings(kafka.bootstrap),
        namespace=database.name,
        limits=EngineLimits(lag_tell_seconds=0.05),
    )
    began: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    engine = asyncio.create_task(run(settings, [machine], began=began.set_result))
    running = await began
    try:
        async with Publisher(kafka.bootstrap, source="/shop") as publisher:
            for number in range(20):
                await publisher.publish(OrderPlaced(order_id=f"o{number}", amount=5), topic=name)
        async with asyncio.timeout(SECONDS):
            told: dict[tuple[str, int], int] = {}
            while sum(told.values()) < 20:
                told = await offsets_of(kafka, f"pointsman.{database.name}.lag")
        stored = await list_positions(reader, database.name, topic=name)
        assert told == {(one.topic, one.partition): one.position for one in stored}
        assert await offsets_of(kafka, settings.group_name) == {}
    finally:
        running.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await engine


async def test_offsets_move_both_ways_and_what_kafka_does_not_take_is_said(
    kafka: Kafka, topic: TopicFactory
) -> None:
    name = await topic("orders")
    offsets = GroupOffsets(KafkaSettings(kafka.bootstrap), f"{name}.lag")
    await offsets.start()
    try:
        for at in (7, 3):
            await offsets.commit({Partition(name, 0): at})
            assert await offsets_of(kafka, f"{name}.lag") == {(name, 0): at}
        with pytest.raises(SourceUnreachableError):
            await offsets.commit({Partition("no-such-topic", 0): 1})
        await offsets.commit({Partition(name, 0): 9})
        assert await offsets_of(kafka, f"{name}.lag") == {(name, 0): 9}
        # Somebody reads under its name.
        make: Any = AIOKafkaConsumer  # aiokafka is not typed
        member = make(name, bootstrap_servers=kafka.bootstrap, group_id=f"{name}.lag")
        await member.start()
        try:
            with pytest.raises(SourceError, match=rf"no offsets of the group {name}\.lag") as refused:
                await offsets.commit({Partition(name, 0): 1})
            assert not isinstance(refused.value, SourceUnreachableError)
        finally:
            await member.stop()
    finally:
        await offsets.stop()
