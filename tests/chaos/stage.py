"""Brings servers, topics, engines and a feed together, and waits until all of it has come to rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.settings import KafkaSettings
from engine.services.apache_kafka import ApacheKafka
from engine.services.postgres import EmbeddedPostgres
from engine.store.migrations import migrate
from tests.chaos.parcels import CHATTER, OUT, PARCELS
from tests.chaos.reading import ends
from tests.chaos.slots import AWAY, Slot, World, until
from tests.cluster import KafkaCluster
from tests.proxy import FaultProxy

log = logging.getLogger("chaos")

PARTITIONS = {
    PARCELS: 4,
    CHATTER: 2,
    OUT: 4,
}
"""Dead-letter topics are made by the engines, all of which start at once."""
_DROPPABLE = """
select d.id, d.pipeline
from pointsman.dead_letters d join pointsman.runs r on r.id = d.run and r.held = d.sequence
where d.namespace = $1 and d.status = 'open' and d.key = any ($2::text[])
"""
_DROP = """
insert into pointsman.inbox (namespace, pipeline, command, body, who, why)
values ($1, $2, 'drop', convert_to(json_build_object('dead_letter', $3::bigint)::text, 'UTF8'), 'chaos', '')
"""
_UNSETTLED = """
select (select count(*) from pointsman.inbox where namespace = $1) as commands,
    (select coalesce(sum(ticket - deleted), 0) from pointsman.lanes where namespace = $1) as rows
"""
_DUE = """
select p.name, r.key, r.configuration, r.status, r.waiting, r.wake_at, r.updated, pointsman.home_of(r.key) as home
from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline
where p.namespace = $1 and r.held = 0 and r.wake_at < now() + interval '10 minutes'
"""


@dataclass(slots=True)
class Stage:
    """A world with engines in it."""

    world: World
    slots: list[Slot]
    released: set[str] = field(default_factory=set)
    """Keys of runs whose holds ``keep_releasing`` lifts."""
    drops: int = 0
    reads: Sequence[str] = (PARCELS, CHATTER)
    """The topics that are read."""

    @property
    def surprises(self) -> list[str]:
        """What engines did that nobody asked for, and what they said of mistakes."""
        return [surprise for slot in self.slots for surprise in slot.surprises]

    def topics(self, *names: str) -> list[str]:
        return [name + self.world.suffix for name in names]

    async def keep_releasing(self) -> None:
        """Drop what holds the runs that shall be released, now and then twice, until cancelled."""
        asked: dict[int, int] = {}
        while True:
            with contextlib.suppress(*AWAY):
                connection = await self.world.connect()
                try:
                    await self._release(connection, asked)
                finally:
                    await connection.close(timeout=5)
            await asyncio.sleep(0.5)

    async def _release(self, connection: asyncpg.Connection[Any], asked: dict[int, int]) -> None:
        keys = sorted(self.released)
        for number, pipeline in await connection.fetch(_DROPPABLE, self.world.namespace, keys):
            if asked.get(number, 0) < 2:
                await connection.execute(_DROP, self.world.namespace, pipeline, number)
                asked[number] = asked.get(number, 0) + 1
                self.drops += 1

    async def at_rest(self, seconds: float) -> dict[tuple[str, int], int]:
        """Wait until all is read, done and published; returns the ends of the topics."""
        began = time.monotonic()
        expected = await asyncio.to_thread(ends, self.world.kafka, self.topics(*self.reads))
        state: dict[str, Any] = {}

        async def is_at_rest() -> bool:
            rows = await self.world.ask(
                "select topic, partition, position from pointsman.positions where namespace = $1",
                self.world.namespace,
            )
            positions = {(row[0], row[1]): row[2] for row in rows}
            state["behind"] = {
                place: (positions.get(place), end)
                for place, end in expected.items()
                if positions.get(place) != end
            }
            ((state["commands"], state["unpublished"]),) = await self.world.ask(
                _UNSETTLED, self.world.namespace
            )
            state["due"] = await self.world.ask(_DUE, self.world.namespace)
            state["held"] = await self.world.ask(_DROPPABLE, self.world.namespace, sorted(self.released))
            assert not self.surprises, "\n".join(self.surprises)
            return (
                not state["behind"]
                and state["commands"] == 0
                and not state["due"]
                # The last row published is always kept.
                and state["unpublished"] <= 1
                and not state["held"]
            )

        try:
            await until(is_at_rest, seconds, "at rest", 0.5)
        except AssertionError as error:
            raise AssertionError(f"{error}; positions and ends: {state}") from error
        log.info("at rest after %.1f s", time.monotonic() - began)
        return expected


@contextlib.asynccontextmanager
async def stage(
    postgres: EmbeddedPostgres,
    kafka: ApacheKafka | KafkaCluster,
    folder: Path,
    suffix: str,
    engines: Sequence[str],
    limits: dict[str, int],
    partitions: dict[str, int] | None = None,
    modules: Sequence[str] = ("tests.chaos.parcels",),
) -> AsyncIterator[Stage]:
    """A database, topics, and places for engines, none of them started."""
    database = f"chaos{suffix.replace('-', '_')}"
    await asyncio.to_thread(postgres.psql, f"create database {database}")
    await migrate(postgres.dsn(database=database))
    await asyncio.to_thread(postgres.add_login, "pointsman", member_of="pointsman_engine")
    await _create_topics(kafka.bootstrap, suffix, partitions or PARTITIONS)
    world = World(
        kafka=kafka.bootstrap,
        postgres_port=postgres.port,
        owner_dsn=postgres.dsn(database=database),
        engine_dsn=postgres.dsn("pointsman", database).replace(f":{postgres.port}/", ":{port}/"),
        suffix=suffix,
        folder=folder,
        limits=limits,
        modules=modules,
    )
    async with contextlib.AsyncExitStack() as stack:
        slots = []
        for name in engines:
            proxy = await stack.enter_async_context(FaultProxy(postgres.port))
            slot = Slot(name, world, proxy)
            stack.push_async_callback(slot.close)
            slots.append(slot)
        yield Stage(world, slots)


async def _create_topics(bootstrap: str, suffix: str, partitions: dict[str, int]) -> None:
    async with KafkaAdmin(KafkaSettings(bootstrap)) as admin:
        for name, count in partitions.items():
            assert await admin.create_topic(name + suffix, partitions=count), (
                f"{name + suffix} is there already"
            )
