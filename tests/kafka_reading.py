"""Reading a topic to its end, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from connectors.source import Record

READ_SECONDS = 120.0
MARKERS_SECONDS = 30.0
"""Kafka answers a commit before its markers are written; a transaction that is open for longer is meant to be."""
ASK_AGAIN_SECONDS = 0.02


async def stable_ends(
    bootstrap: str, consumer: Any, partitions: list[TopicPartition]
) -> dict[TopicPartition, int]:
    """The ends that a reader of committed records can reach, once the markers of ended transactions are written."""
    make: Any = AIOKafkaConsumer  # aiokafka is not typed
    unstable = make(bootstrap_servers=bootstrap, isolation_level="read_uncommitted")
    await unstable.start()
    try:
        unstable.assign(partitions)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MARKERS_SECONDS):
                while ends != await unstable.end_offsets(partitions):
                    await asyncio.sleep(ASK_AGAIN_SECONDS)
                    ends = await consumer.end_offsets(partitions)
        return ends
    finally:
        await unstable.stop()


async def read_all(bootstrap: str, topic: str) -> list[Record]:
    """The committed records of a topic as it is now, partition by partition."""
    partitions = await _partitions(bootstrap, topic)
    make: Any = AIOKafkaConsumer  # aiokafka is not typed
    consumer = make(bootstrap_servers=bootstrap, isolation_level="read_committed", fetch_max_wait_ms=20)
    await consumer.start()
    try:
        consumer.assign(partitions)
        ends = await stable_ends(bootstrap, consumer, partitions)
        for partition in partitions:
            consumer.seek(partition, 0)
        found: dict[TopicPartition, list[Record]] = {partition: [] for partition in partitions}
        async with asyncio.timeout(READ_SECONDS):
            for partition in partitions:
                while await consumer.position(partition) < ends[partition]:
                    for one, records in (await consumer.getmany(timeout_ms=100)).items():
                        found[one].extend(records)
        return [record for partition in partitions for record in found[partition]]
    finally:
        await consumer.stop()


async def _partitions(bootstrap: str, topic: str) -> list[TopicPartition]:
    make: Any = AIOKafkaAdminClient  # as above
    admin = make(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        [described] = await admin.describe_topics([topic])
    finally:
        await admin.close()
    return sorted(TopicPartition(topic, one["partition"]) for one in described["partitions"])
