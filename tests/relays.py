"""What tests of the relay share: one that is quick, and what it is given and left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink import KafkaSink
from connectors.kafka.sink_limits import SinkLimits
from engine import outbox
from engine.outbox import OutRecord, encode
from engine.relay import Relay, RelayLimits
from engine.relay.relay import OpenSink
from tests.contract.sink_worlds import read_committed
from tests.services import Database, Kafka

QUICK = RelayLimits(poll_seconds=0.1, clean_seconds=0.1, silence_seconds=1.0, halt_seconds=0.1)
TIME = 1_700_000_000_000


def quick_sink(bootstrap: str, namespace: str, *, check_crcs: bool = True) -> OpenSink:
    limits = SinkLimits(topic_wait_seconds=0.3, topic_poll_seconds=0.05)
    settings = KafkaSettings(bootstrap, check_crcs=check_crcs)
    return lambda store: KafkaSink(settings, namespace, 0, store, limits)


def quick_relay(database: Database, kafka: Kafka, namespace: str, **options: Any) -> Relay:
    return Relay(
        database.engine_dsn, quick_sink(kafka.bootstrap, namespace), namespace, limits=QUICK, **options
    )


async def put(dsn: str, namespace: str, records: Sequence[OutRecord]) -> int:
    """Commit one transaction that publishes these; returns its sequence."""
    connection = await asyncpg.connect(dsn)
    async with connection.transaction():
        lane = await outbox.lane_for(connection, namespace, 0)
        sequence = await outbox.put(connection, lane, encode(records))
    await connection.close()
    return sequence


async def fetch(dsn: str, sql: str, *arguments: object) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(sql, *arguments)
    await connection.close()
    return [dict(row) for row in rows]


def record(topic: str, value: bytes | None, key: bytes | None = b"k", **more: Any) -> OutRecord:
    return OutRecord(topic, key, value, (), TIME, **more)


async def values(kafka: Kafka, topic: str) -> list[bytes | None]:
    return [found.value for partition in await read_committed(kafka.bootstrap, topic) for found in partition]
