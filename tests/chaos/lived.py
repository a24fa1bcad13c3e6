"""One engine with a source in memory and a real Postgres, to be looked at while it lives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg

from connectors.source import Partition
from engine.admission import register
from engine.engine import Engine
from engine.limits import EngineLimits
from engine.observing import Observer, Silent
from engine.parts import Parts
from engine.routing import Routes, make_routes
from engine.session.session import Session
from engine.store.contract import Store
from engine.store.postgres import PostgresStore
from statemachines.definition import Pipeline
from statemachines.machine import compile_pipeline
from tests.chaos.contender import GROUP
from tests.chaos.parcels import PARCELS, parcel
from tests.chaos.script import EVENT_HEADERS
from tests.chaos.slots import until
from tests.fakes.source import FakeMembership, FakeReader, FakeSource
from tests.services import Database

PARTITION = Partition(PARCELS, 0)


@dataclass(slots=True)
class Lived:
    """An engine that runs, its source, and its database."""

    engine: Engine
    source: FakeSource
    database: Database
    running: asyncio.Task[None]

    async def append(self, value: bytes, partition: int = 0) -> None:
        self.source.append(Partition(PARCELS, partition), value, headers=EVENT_HEADERS)

    async def ask(self, sql: str) -> list[Any]:
        connection = await asyncpg.connect(self.database.owner_dsn)
        try:
            return await connection.fetch(sql)
        finally:
            await connection.close()

    async def moves(self, number: int, seconds: float = 60) -> None:
        """Wait until the log has so many rows."""

        async def has_moved() -> bool:
            if self.running.done():
                self.running.result()
            return len(await self.ask("select 1 from pointsman.events")) == number

        await until(has_moved, seconds, f"{number} rows in the log")


@contextlib.asynccontextmanager
async def lived(
    database: Database,
    reader_class: type[FakeReader] = FakeReader,
    goal: Callable[[Session], Awaitable[bool]] | None = None,
    *,
    flow: Pipeline[Any] = parcel,
    partitions: int = 1,
    outbox_depth: Callable[[], int] = lambda: 0,
    observer: Observer | None = None,
    **limits: Any,
) -> AsyncIterator[Lived]:
    source = FakeSource()
    source.create_topic(PARCELS, partitions)
    machines = [compile_pipeline(flow)]

    async def open_store() -> Store:
        return await PostgresStore.open(
            database.engine_dsn, namespace="default", group=GROUP, cluster=source.cluster
        )

    async def prepare_store(store: Store) -> Routes:
        assert isinstance(store, PostgresStore)
        return make_routes(await register(store, machines, strict=True), {})

    engine = Engine(
        Parts(
            membership=FakeMembership(source, GROUP),
            reader=reader_class(source),
            open_store=open_store,
            prepare_store=prepare_store,
            topics=frozenset([PARCELS]),
            cluster=source.cluster,
            first="earliest",
            observer=observer or Silent(),
            beat=[0, 0, 0, 0],
            outbox_depth=outbox_depth,
            limits=EngineLimits(reconnect_seconds_max=0.2, **limits),
        )
    )
    running = asyncio.create_task(engine.run(goal))
    try:
        yield Lived(engine, source, database, running)
    finally:
        engine.stop()
        await asyncio.wait([running])
    running.result()
