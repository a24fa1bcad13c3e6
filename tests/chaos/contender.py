"""One of several engines on one database, without a broker: a store and a committer, moved by hand."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from connectors.source import Partition, RawRecord
from engine.admission import register
from engine.batch.batch import Batch
from engine.observing import Silent
from engine.routing import Route, TopicRoute, make_routes
from engine.session.claims import Claim, Slice
from engine.session.committer import Committer, Pending
from engine.store.postgres import PostgresStore
from statemachines.machine import compile_pipeline
from statemachines.run import Run
from tests.chaos.parcels import PARCELS, parcel
from tests.chaos.script import EVENT_HEADERS, event

GROUP = "pointsman.default"
CLUSTER = "contended"
_ids = itertools.count(1)


def weighed(key: str, grams: object = 1, *, id: str | None = None) -> bytes:
    return event(id or f"event-{next(_ids)}", "parcel.weighed", key, grams=grams)


def told(kind: str, key: str, *, id: str | None = None) -> bytes:
    return event(id or f"event-{next(_ids)}", f"parcel.{kind}", key)


@dataclass(slots=True)
class Contender:
    """An engine's store and committer; ``partitions`` it has taken."""

    store: PostgresStore
    committer: Committer
    topics: dict[str, TopicRoute]
    claims: dict[int, Claim] = field(default_factory=dict)

    @property
    def route(self) -> Route:
        return self.topics[PARCELS].routes[0]

    async def take(self, *partitions: int) -> None:
        """Take partitions from whoever has them, from their stored positions (0 at first)."""
        wanted = [Partition(PARCELS, number) for number in partitions]
        await self.store.add_positions(dict.fromkeys(wanted, 0))
        for number, partition, position, epoch, _ in await self.store.take_positions(wanted):
            self.claims[partition.number] = Claim(number, partition, epoch, position)

    def slice(self, partition: int, *values: bytes) -> list[Slice]:
        """The next records of a partition."""
        claim = self.claims[partition]
        start = claim.read_to
        records = [
            RawRecord(PARCELS, partition, offset, 1_700_000_000_000, None, value, EVENT_HEADERS)
            for offset, value in enumerate(values, start)
        ]
        claim.read_to = start + len(records)
        return [Slice(claim, records, start, claim.read_to)]

    async def begin(self, slices: list[Slice], previous: Pending | None = None) -> Pending:
        return self.committer.begin(slices, await self.committer.prepare(slices, previous))

    async def prepare(self, slices: list[Slice], previous: Pending | None = None) -> Batch:
        return await self.committer.prepare(slices, previous)

    async def feed(self, partition: int, *values: bytes) -> bool:
        """One batch, to its end; whether its first commit succeeded."""
        return await self.committer.settle(await self.begin(self.slice(partition, *values)))

    async def run(self, key: str) -> Run:
        """The run as it is stored."""
        [found] = await self.store.load_runs(self.route.pipeline, [key])
        return found

    async def ask(self, sql: str, *arguments: Any) -> list[Any]:
        async with self.store.connection() as connection:
            return await connection.fetch(sql, *arguments)


@contextlib.asynccontextmanager
async def contender(dsn: str, store_class: type[PostgresStore] = PostgresStore) -> AsyncIterator[Contender]:
    """An engine's store and committer on this database."""
    store = await store_class.open(dsn, namespace="default", group=GROUP, cluster=CLUSTER)
    try:
        topics = make_routes(await register(store, [compile_pipeline(parcel)], strict=True), {})
        now = functools.partial(datetime.now, UTC)
        committer = Committer(store, topics, CLUSTER, now, now, Silent(), [0, 0, 0, 0])
        yield Contender(store, committer, topics)
    finally:
        await store.close()
