"""What metrics cannot count as it passes: it is looked up every few seconds, beside the engine's own work.

Each on a connection of its own, which waits for nobody who works. What cannot be looked up is not known: its gauge is
absent until it can be again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
from aiokafka.errors import KafkaError

from connectors.kafka.queries import LATEST, Queries
from connectors.kafka.queries import connect as connect_kafka
from connectors.kafka.settings import KafkaSettings
from connectors.source import Partition, SourceError
from engine.errors import PointsmanError
from engine.log import Kind
from engine.metrics import Metrics
from engine.session.claims import Claim
from engine.store.connecting import connect as connect_postgres
from engine.store.connecting import translate
from engine.store.contract import StoreUnavailableError
from engine.store.queries import load

log = logging.getLogger("pointsman.engine")

LOOKUP_SECONDS = 5.0
"""How old what is looked up may be, but for where a look takes long."""
HELD_PAUSE_FACTOR = 20
"""A look at very many held runs takes Postgres long: the next pause is so many times as long, at least."""
PATIENCE_SECONDS = 10.0
"""For one answer."""
CLOSE_SECONDS = 1.0

_SQL = load("observing")
_AWAY = (
    SourceError,
    KafkaError,
    PointsmanError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)

Claims = Callable[[], Mapping[Partition, Claim]]
Look = Callable[[], Awaitable[None]]


async def look_up_for(
    metrics: Sequence[Metrics], kafka: KafkaSettings, postgres: str, namespace: str, claims: Claims
) -> None:
    """Keep lags and held runs up to date until this is cancelled."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_keep_looking(lambda: _lags(metrics, kafka, claims)))
        tasks.create_task(_keep_looking(lambda: _held_runs(metrics, postgres, namespace), HELD_PAUSE_FACTOR))


async def _keep_looking(
    connected: Callable[[], AbstractAsyncContextManager[Look]], pause_factor: float = 0
) -> None:
    is_told = False
    while True:
        try:
            async with connected() as look:
                while True:
                    began = time.monotonic()
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        await look()
                    await asyncio.sleep(max(LOOKUP_SECONDS, pause_factor * (time.monotonic() - began)))
        except Exception as error:
            if isinstance(error, _AWAY) or isinstance(translate(error), StoreUnavailableError):
                # The engine itself says that a service is away, and when it is back.
                log.debug("what the metrics need cannot be looked up: %s", error)
            elif not is_told:
                is_told = True
                log.exception("what the metrics need cannot be looked up; that is tried again, and said once")
        await asyncio.sleep(LOOKUP_SECONDS)


@asynccontextmanager
async def _lags(metrics: Sequence[Metrics], settings: KafkaSettings, claims: Claims) -> AsyncIterator[Look]:
    client = await connect_kafka(settings)
    queries = Queries(client, settings, patience_seconds=PATIENCE_SECONDS)

    async def look() -> None:
        ends = await queries.offsets(dict.fromkeys(claims(), LATEST))
        read_to = {partition: claim.read_to for partition, claim in claims().items()}
        lags = {one: max(0, end - read_to[one]) for one, end in ends.items() if one in read_to}
        for one in metrics:
            one.lags = lags

    try:
        yield look
    finally:
        for one in metrics:
            one.lags = {}
        await client.close()


@asynccontextmanager
async def _held_runs(metrics: Sequence[Metrics], postgres: str, namespace: str) -> AsyncIterator[Look]:
    connection = await connect_postgres(postgres, name="pointsman engine, counting", for_engine=False)

    async def look() -> None:
        rows = await connection.fetch(_SQL["held_runs"], namespace, int(Kind.PAUSED))
        for one in metrics:
            one.held_runs = {str(pipeline): int(runs - paused) for pipeline, runs, paused, _ in rows}
            one.paused_runs = {str(pipeline): int(paused) for pipeline, _, paused, _ in rows}
            one.paused_pipelines = {str(pipeline): int(is_paused) for pipeline, _, _, is_paused in rows}

    try:
        await connection.execute(f"set statement_timeout = '{PATIENCE_SECONDS}s'")
        yield look
    finally:
        for one in metrics:
            one.held_runs = one.paused_runs = one.paused_pipelines = {}
        with contextlib.suppress(Exception):
            await connection.close(timeout=CLOSE_SECONDS)
        connection.terminate()
