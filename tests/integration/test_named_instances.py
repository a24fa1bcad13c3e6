"""Engines with a name, on a real Kafka: restarted, one takes nothing from the others, and gives nothing to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from connectors.kafka.settings import KafkaSettings
from connectors.source import Partition
from engine.assembly import EngineSettings
from engine.observing import Silent
from engine.reading import list_runs
from engine.running import Running, run
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from tests.chaos.slots import until
from tests.services import Database, Kafka, TopicFactory
from tests.stuck import publish, stuck_on, value

SECONDS = 60.0


class Assigned(Silent):
    """Keeps each set of partitions that an engine has had."""

    def __init__(self) -> None:
        self.had: list[frozenset[Partition]] = []

    def assigned(self, partitions: Mapping[int, Partition]) -> None:
        self.had.append(frozenset(partitions.values()))

    async def has_one(self) -> bool:
        return bool(self.had) and len(self.had[-1]) == 1


@contextlib.asynccontextmanager
async def engine(database: Database, kafka: Kafka, topic: str, instance: str) -> AsyncIterator[Assigned]:
    """An engine of this name, put together as commands do it; stopped in the end."""
    settings = EngineSettings(
        database.engine_dsn, KafkaSettings(kafka.bootstrap), namespace=topic, instance=instance
    )
    machine = compile_pipeline(stuck_on(topic), namespace=topic)
    assigned, began = Assigned(), list[Running]()
    task = asyncio.create_task(run(settings, [machine], observer=assigned, began=began.append))
    try:
        yield assigned
    finally:
        for one in began:
            one.stop()
        if not began:
            task.cancel()
        await task


async def test_a_named_instance_that_is_restarted_takes_no_partitions_from_others_and_gives_none(
    database: Database, reader: Connection, kafka: Kafka, topic: TopicFactory
) -> None:
    name = await topic("cases", partitions=2)

    async def all_have_begun() -> bool:
        return len(await list_runs(reader, name)) == 2

    async with engine(database, kafka, name, "stays") as stays:
        async with engine(database, kafka, name, "restarts") as before:
            await until(before.has_one, SECONDS, "a partition for the one that is restarted")
            await until(stays.has_one, SECONDS, "a partition for the one that stays")
            had, times = before.had[-1], len(stays.had)
        async with engine(database, kafka, name, "restarts") as again:
            await until(again.has_one, SECONDS, "the same partition")
            for partition in range(2):
                opened = value("case.opened", f"c-{partition}")
                await publish(kafka.bootstrap, name, opened, partition=partition)
            await until(all_have_begun, SECONDS, "that both read on")
            assert again.had == [had]
        assert len(stays.had) == times, stays.had
