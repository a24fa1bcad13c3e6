"""A running engine goes on from a position that a person sets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest

from connectors.source import Partition
from engine.admission import register
from engine.engine import Engine
from engine.observing import Silent
from engine.parts import Parts
from engine.reading import explain, list_positions, list_runs, set_position, set_positions
from engine.routing import Routes, make_routes
from engine.store.connecting import Connection, connect
from engine.store.contract import Store
from engine.store.postgres import PostgresStore
from statemachines.machine import compile_pipeline
from tests.fakes.source import FakeMembership, FakeReader, FakeSource, Fate
from tests.feeding import event
from tests.services import Database
from tests.shop import shop

ORDERS = Partition("orders", 0)


def place(source: FakeSource, *numbers: int) -> None:
    """Orders of these numbers come."""
    for number in numbers:
        record = event("order.placed", {"order_id": f"o{number}", "amount": 1}, id=f"e{number}")
        source.append(ORDERS, record.value, headers=record.headers)


@contextlib.asynccontextmanager
async def running(database: Database, source: FakeSource) -> AsyncIterator[Engine]:
    machine = compile_pipeline(shop())

    async def open_store() -> Store:
        return await PostgresStore.open(
            database.engine_dsn, namespace="default", group="pointsman.default", cluster=source.cluster
        )

    async def prepare_store(store: Store) -> Routes:
        assert isinstance(store, PostgresStore)
        return make_routes(await register(store, [machine], strict=True), {})

    engine = Engine(
        Parts(
            membership=FakeMembership(source, "pointsman.default"),
            reader=FakeReader(source),
            open_store=open_store,
            prepare_store=prepare_store,
            topics=frozenset({"orders"}),
            cluster=source.cluster,
            group="pointsman.default",
            first="earliest",
            observer=Silent(),
            beat=[0, 0, 0, 0],
            outbox_depth=lambda: 0,
        )
    )
    task = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        engine.stop()
        await asyncio.wait_for(task, 60)


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - what is waited for is in a database
            await asyncio.sleep(0.02)


async def is_ready(engine: Engine) -> bool:
    return engine.ready


async def is_stopped(engine: Engine) -> bool:
    return ORDERS in engine.stopped_partitions


async def has_come_to(connection: Connection, position: int) -> bool:
    [found] = await list_positions(connection, "default")
    return found.position >= position


async def test_a_stopped_partition_goes_on_where_a_person_sets_it_without_a_restart(
    database: Database,
) -> None:
    source = FakeSource()
    source.create_topic("orders")
    connection = await connect(database.engine_dsn, for_engine=False)
    try:
        async with running(database, source) as engine:
            await until(lambda: is_ready(engine))
        for number in range(4):
            record = event("order.placed", {"order_id": f"o{number}", "amount": 1})
            source.append(ORDERS, record.value, headers=record.headers)
        source.delete_before(ORDERS, 2)
        async with running(database, source) as engine:
            await until(lambda: is_stopped(engine))
            assert engine.stopped_partitions[ORDERS].endswith(
                "pointsman positions set orders 0 POSITION --group=pointsman.default "
                f"--cluster={source.cluster} --reason TEXT"
            )
            await set_position(connection, "default", "orders", 0, 2, who="ana", why="they were deleted")
            await until(lambda: has_come_to(connection, 4))
            assert engine.stopped_partitions == {}
        assert [run.key for run in await list_runs(connection, "default")] == ["o3", "o2"]
    finally:
        await connection.close()


async def test_a_position_set_back_under_a_running_engine_is_read_again_as_duplicates(
    database: Database,
) -> None:
    source = FakeSource()
    source.create_topic("orders")
    record = event("order.placed", {"order_id": "o1", "amount": 1})
    connection = await connect(database.engine_dsn, for_engine=False)
    try:
        async with running(database, source) as engine:
            await until(lambda: is_ready(engine))
            source.append(ORDERS, record.value, headers=record.headers)
            await until(lambda: has_come_to(connection, 1))
            await set_position(connection, "default", "orders", 0, 0, who="ana", why="once more")
            await until(lambda: connection.fetchval("select count(*) from pointsman.dispositions"))
        [run] = await list_runs(connection, "default")
        assert run.sequence == 1
    finally:
        await connection.close()


async def test_nothing_is_read_of_a_topic_that_was_made_anew_before_a_person_says_from_where(
    database: Database,
) -> None:
    source = FakeSource()
    source.create_topic("orders")

    connection = await connect(database.engine_dsn, for_engine=False)
    try:
        place(source, 1)
        async with running(database, source) as engine:
            await until(lambda: has_come_to(connection, 1) if engine.ready else is_ready(engine))
        source.delete_topic("orders")
        source.create_topic("orders")
        place(source, 2, 3, 4)
        async with running(database, source) as engine:
            await until(lambda: is_stopped(engine))
            told = engine.stopped_partitions[ORDERS]
            assert (
                "orders has another id than when orders/0 was read up to 1 (topic 0 then, topic 1 now)"
                in told
            )
            assert "at 1 where the records before that are still the same, at 0 where they are others" in told
            assert "pointsman positions set orders 0 POSITION" in told
            await set_position(connection, "default", "orders", 0, 0, who="ana", why="it was made anew")
            await until(lambda: has_come_to(connection, 3))
            assert engine.stopped_partitions == {}
        async with running(database, source) as engine:
            place(source, 5)
            await until(lambda: has_come_to(connection, 4))
        runs = await list_runs(connection, "default")
        assert sorted(run.key for run in runs) == ["o1", "o2", "o3", "o4", "o5"]
        explained = await explain(connection, "default", topic="orders", partition=0, offset=0)
        assert {one.event_id: (one.key, one.earlier) for one in explained.answers} == {
            "e1": ("o1", ()),
            "e2": ("o2", ()),
        }
    finally:
        await connection.close()


async def test_an_engine_that_is_never_idle_notes_which_topic_its_position_is_of(database: Database) -> None:
    source = FakeSource()
    source.create_topic("orders")

    def place_many(name: str, count: int) -> None:
        for number in range(count):
            key = f"{name}{number}"
            record = event("order.placed", {"order_id": key, "amount": 1}, id=key)
            source.append(ORDERS, record.value, headers=record.headers)

    backlog = 12_000
    place_many("a", backlog)
    connection = await connect(database.engine_dsn, for_engine=False)
    try:
        async with running(database, source) as engine:
            await until(lambda: has_come_to(connection, 1) if engine.ready else is_ready(engine))
            noted = await connection.fetchval("select topic_id from pointsman.positions")
            assert noted == source.topic_ids["orders"]
        source.delete_topic("orders")
        source.create_topic("orders")
        place_many("b", backlog + 1)
        async with running(database, source) as engine:
            await until(lambda: is_stopped(engine))
        keys = await connection.fetch("select key from pointsman.runs where key like 'b%'")
        assert keys == []
    finally:
        await connection.close()


@pytest.mark.parametrize("at_once", [True, False], ids=["all at once", "one after the other"])
async def test_each_partition_of_a_topic_that_was_made_anew_is_told_of_once(
    database: Database, caplog: pytest.LogCaptureFixture, *, at_once: bool
) -> None:
    source = FakeSource()
    partitions = [Partition("orders", number) for number in range(4)]

    def make(name: str) -> None:
        source.create_topic("orders", len(partitions))
        for at in partitions:
            key = f"{name}{at.number}"
            record = event("order.placed", {"order_id": key, "amount": 1}, id=key)
            source.append(at, record.value, headers=record.headers)

    async def are_read() -> bool:
        found = await list_positions(connection, "default")
        return [one.position for one in found] == [1] * len(partitions)

    connection = await connect(database.engine_dsn, for_engine=False)
    said = {"who": "ana", "why": "it was made anew"}
    try:
        make("a")
        async with running(database, source):
            await until(are_read)
        source.delete_topic("orders")
        make("b")
        async with running(database, source) as engine:

            async def are_stopped(many: int) -> bool:
                return len(engine.stopped_partitions) == many

            await until(lambda: are_stopped(4))
            if at_once:
                done = await set_positions(connection, "default", "orders", None, 0, **said)
                assert [(one.partition, one.old, one.new) for one in done] == [(n, 1, 0) for n in range(4)]
            else:
                for number in range(4):
                    await set_position(connection, "default", "orders", number, 0, **said)
                    await until(partial(are_stopped, 3 - number))
            await until(are_read)
            assert engine.stopped_partitions == {}
        runs = await list_runs(connection, "default")
        assert {run.key for run in runs} == {f"{name}{number}" for name in "ab" for number in range(4)}
        alarms = [one for one in caplog.records if one.getMessage().startswith("stopped:")]
        assert len(alarms) == len(partitions)
    finally:
        await connection.close()


async def test_a_topic_that_is_the_same_under_another_id_goes_on_at_its_position(database: Database) -> None:
    source = FakeSource()
    source.create_topic("orders")

    connection = await connect(database.engine_dsn, for_engine=False)
    try:
        place(source, 1)
        async with running(database, source) as engine:
            await until(lambda: has_come_to(connection, 1) if engine.ready else is_ready(engine))
        source.topic_ids["orders"] = "given anew"
        place(source, 2)
        async with running(database, source) as engine:
            await until(lambda: is_stopped(engine))
            await set_position(connection, "default", "orders", 0, 1, who="ana", why="it is the same")
            await until(lambda: has_come_to(connection, 2))
            assert engine.stopped_partitions == {}
        assert await connection.fetchval("select topic_id from pointsman.positions") == "given anew"
    finally:
        await connection.close()


async def test_what_stops_a_partition_again_where_a_person_has_set_it_is_told_again(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    source = FakeSource()
    source.create_topic("orders")
    source.append(ORDERS, b"", fate=Fate.UNREADABLE)
    connection = await connect(database.engine_dsn, for_engine=False)

    async def is_told(times: int) -> bool:
        return [one.levelname for one in caplog.records if "cannot be decoded" in one.getMessage()] == [
            "ERROR"
        ] * times

    try:
        async with running(database, source):
            await until(lambda: is_told(1))
            await set_position(connection, "default", "orders", 0, 0, who="ana", why="it may be there again")
            await until(lambda: is_told(2))
    finally:
        await connection.close()
