"""What a group gives and takes while a session is about to act on what it was told before, on fakes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from connectors.source import Chunk, Partition
from engine.engine import Engine
from engine.observing import Silent
from engine.parts import Parts
from engine.routing import Loaded, Routes, make_routes
from engine.store.contract import Store, StoreUnavailableError
from engine.store.values import Commit
from statemachines.machine import compile_pipeline
from tests.fakes.source import FakeMembership, FakeReader, FakeSource, Fate
from tests.fakes.store import FakeStore
from tests.fakes.tables import Tables
from tests.feeding import event
from tests.shop import shop

FIRST, SECOND = Partition("orders", 0), Partition("orders", 1)
ORDERS = frozenset({FIRST, SECOND})
HOMES = "homes"
SECONDS = 10.0
"""Whatever has not happened by then never will."""

Hook = Callable[[], Awaitable[None]]


class Reader(FakeReader):
    """Something may happen while Kafka is asked how many homes there are."""

    meanwhile: Hook | None = None

    def __init__(self, source: FakeSource) -> None:
        super().__init__(source)
        self.read: set[frozenset[Partition]] = set()
        """Which were read together."""

    async def fetch(
        self, *, records_max: int, wait_seconds: float, until: asyncio.Future[Any] | None = None
    ) -> Chunk:
        self.read.add(frozenset(self._positions))
        return await super().fetch(records_max=records_max, wait_seconds=wait_seconds, until=until)

    async def partitions_of(self, topic: str) -> set[Partition]:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await super().partitions_of(topic)


class BreakingStore(FakeStore):
    """Its connection breaks at the first commit, once."""

    breaks = False

    async def commit(self, commit: Commit) -> int | None:
        if self.breaks:
            raise StoreUnavailableError("the connection was closed")
        return await super().commit(commit)


class Told(Silent):
    """What an engine has taken, each time that it has, and how many partitions it says that it does not read."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[frozenset[Partition]] = asyncio.Queue()
        self.not_read: asyncio.Queue[int] = asyncio.Queue()

    def assigned(self, partitions: Mapping[int, Partition]) -> None:
        self.taken.put_nowait(frozenset(partitions.values()))

    def paused(self, partitions: int) -> None:
        self.not_read.put_nowait(partitions)

    async def has_taken(self, partitions: frozenset[Partition]) -> None:
        while await self.taken.get() != partitions:
            pass

    async def does_not_read(self, partitions: int) -> None:
        while await self.not_read.get() != partitions:
            pass


async def routes_on(store: Store) -> Routes:
    machine = compile_pipeline(shop())
    pipeline = await store.register_pipeline(machine.name)
    definition = await store.register_definition(
        pipeline, machine.version, machine.hash, machine.code, machine.structure
    )
    return make_routes([Loaded(machine, pipeline, definition)], {})


@dataclass
class World:
    """An engine of two partitions, and what happens to it."""

    source: FakeSource = field(default_factory=FakeSource)
    tables: Tables = field(default_factory=Tables)
    told: Told = field(default_factory=Told)
    before_connecting: Hook | None = None

    def __post_init__(self) -> None:
        self.source.create_topic("orders", 2)
        self.source.create_topic(HOMES, 2)
        self.reader = Reader(self.source)
        self.store = self._new_store()

    def _new_store(self) -> BreakingStore:
        return BreakingStore(self.tables, lambda: asyncio.get_running_loop().time())

    async def _connect(self) -> Store:
        if self.before_connecting is not None:
            await self.before_connecting()
        self.store = self._new_store()
        return self.store

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        engine = Engine(
            Parts(
                membership=FakeMembership(self.source, "group"),
                reader=self.reader,
                open_store=self._connect,
                prepare_store=routes_on,
                topics=frozenset({"orders"}),
                cluster=self.source.cluster,
                first="earliest",
                observer=self.told,
                beat=[0, 0, 0, 0],
                outbox_depth=lambda: 0,
                homes=HOMES,
            )
        )
        task = asyncio.create_task(engine.run())
        try:
            async with asyncio.timeout(SECONDS):
                await self.told.has_taken(ORDERS)
                yield engine
                engine.stop()
                await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def place(self, order: str) -> None:
        record = event("order.placed", {"order_id": order, "amount": 1})
        self.source.append(FIRST, record.value, headers=record.headers)


async def test_partitions_that_come_back_while_the_session_after_an_outage_asks_kafka_are_taken() -> None:
    world = World()
    async with world.running() as engine:
        mine = engine.assignment.partitions

        async def rebalance() -> None:
            # There is no session, so nothing is waited for.
            await engine.assignment.remove(mine)
            world.before_connecting = None
            world.reader.meanwhile = come_back

        async def come_back() -> None:
            await engine.assignment.add(mine)

        world.before_connecting = rebalance
        world.store.breaks = True
        await world.place("o1")
        assert [await world.told.taken.get() for _ in range(2)] == [frozenset(), ORDERS]
    assert [run.key for _, run in world.tables.runs.values()] == ["o1"]


async def test_nothing_is_read_any_more_of_what_is_taken_away_while_a_session_acts_on_what_came_before() -> (
    None
):
    world = World()
    async with world.running() as engine:
        mine = engine.assignment.partitions

        async def begin_to_give_back() -> None:
            giving.append(asyncio.create_task(engine.assignment.remove(mine)))
            world.reader.read.clear()
            await asyncio.sleep(0)

        giving: list[asyncio.Task[None]] = []
        world.reader.meanwhile = begin_to_give_back
        engine.assignment.take_all_again()
        await world.told.has_taken(frozenset())
        await giving[0]
        assert world.reader.read <= {frozenset()}


async def test_a_stopped_partition_that_another_engine_has_now_is_none_of_ours() -> None:
    world = World()
    async with world.running() as engine:
        world.source.append(SECOND, b"", fate=Fate.UNREADABLE)
        await world.told.does_not_read(1)
        assert [*engine.stopped_partitions] == [SECOND]
        other = FakeMembership(world.source, "group")
        await other.start({"orders", HOMES}, _nothing, _nothing)
        await world.told.has_taken(frozenset({FIRST}))
        assert engine.stopped_partitions == {}
        while not world.told.not_read.empty():
            world.told.not_read.get_nowait()
        assert await world.told.not_read.get() == 0
        await other.stop()


async def _nothing(_: frozenset[Partition]) -> None:
    pass
