"""Where two engines of a group begin on a topic that none of them has read: a real Kafka and Postgres."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from connectors.kafka.reader import KafkaReader
from connectors.kafka.settings import KafkaSettings
from connectors.source import Changed, Partition, Trouble
from engine.admission import register
from engine.engine import Engine
from engine.observing import Silent
from engine.parts import Parts
from engine.reading import list_runs
from engine.routing import Routes, make_routes
from engine.starting import FirstPosition
from engine.store.connecting import connect
from engine.store.contract import Store
from engine.store.postgres import PostgresStore
from statemachines.machine import compile_pipeline
from tests.chaos.slots import until
from tests.services import Database, Kafka, TopicFactory
from tests.teller import begun, teller

SECONDS = 60.0
OLD = datetime.now(UTC) - timedelta(hours=2)
BETWEEN = datetime.now(UTC) - timedelta(hours=1)


class Given:
    """A membership that gives what it was made with, for good."""

    def __init__(self, *partitions: Partition) -> None:
        self._partitions = frozenset(partitions)
        self._stopped = asyncio.Event()

    async def start(self, topics: Iterable[str], on_assigned: Changed, on_revoked: Changed) -> None:
        del topics
        self._on_revoked = on_revoked
        await on_assigned(self._partitions)

    async def watch(self) -> None:
        await self._stopped.wait()

    async def stop(self) -> None:
        self._stopped.set()
        await self._on_revoked(self._partitions)

    def trouble(self) -> Trouble | None:
        return None


@contextlib.asynccontextmanager
async def serving(
    database: Database, kafka: Kafka, partition: Partition, first: FirstPosition
) -> AsyncIterator[None]:
    """An engine that has this partition, and has begun to read it."""
    machine = compile_pipeline(teller(partition.topic))

    async def open_store() -> Store:
        return await PostgresStore.open(database.engine_dsn, namespace="default", group="g", cluster="c")

    async def prepare_store(store: Store) -> Routes:
        assert isinstance(store, PostgresStore)
        return make_routes(await register(store, [machine], strict=True), {})

    engine = Engine(
        Parts(
            membership=Given(partition),
            reader=KafkaReader(KafkaSettings(bootstrap=kafka.bootstrap)),
            open_store=open_store,
            prepare_store=prepare_store,
            topics=frozenset([partition.topic]),
            cluster="c",
            first=first,
            observer=Silent(),
            beat=[0, 0, 0, 0],
            outbox_depth=lambda: 0,
        )
    )
    task = asyncio.create_task(engine.run())

    async def is_ready() -> bool:
        if task.done():
            task.result()
        return engine.ready

    try:
        await until(is_ready, SECONDS, f"an engine that reads {partition}")
        yield
    finally:
        engine.stop()
        await asyncio.wait_for(task, SECONDS)


async def send(kafka: Kafka, at: datetime, runs: dict[Partition, str]) -> None:
    made: Any = AIOKafkaProducer  # aiokafka's client is not typed
    producer = made(bootstrap_servers=kafka.bootstrap, acks="all")
    await producer.start()
    try:
        for partition, run in runs.items():
            record = begun(run)
            await producer.send_and_wait(
                partition.topic,
                record.value,
                partition=partition.number,
                headers=list(record.headers),
                timestamp_ms=round(at.timestamp() * 1000),
            )
    finally:
        await producer.stop()


@pytest.mark.parametrize("first", ["latest", BETWEEN], ids=["latest", "time"])
async def test_who_decides_first_decides_for_all_partitions_of_a_topic(
    database: Database, kafka: Kafka, topic: TopicFactory, first: FirstPosition
) -> None:
    name = await topic("told", partitions=2)
    left, right = Partition(name, 0), Partition(name, 1)
    await send(kafka, OLD, {left: "old-0", right: "old-1"})
    connection = await connect(database.reader_dsn, for_engine=False)
    list_all = partial(list_runs, connection, "default")
    try:
        async with serving(database, kafka, left, first), serving(database, kafka, right, first):
            await send(kafka, datetime.now(UTC), {left: "new-0", right: "new-1"})

            async def both_are_there() -> bool:
                return {"new-0", "new-1"} <= {run.key for run in await list_all()}

            await until(both_are_there, SECONDS, "the runs that began after the engines did")
        assert {run.key for run in await list_all()} == {"new-0", "new-1"}
    finally:
        await connection.close()
