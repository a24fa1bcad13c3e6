"""What the store needs of Postgres beside tables: rights, room for its partitions, and to be looked after."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from engine.admission import check_temporary
from engine.errors import RefusedError
from engine.store.connecting import Connection, connect
from engine.store.contract import StoreUnavailableError
from engine.store.migrations import migrate
from statemachines import Context, Event, Pipeline
from tests.feeding import event, feed
from tests.services import Database, execute

LARGE = 900_000
"""So long that the changes of sixty such runs are more than one message to Postgres."""
TURNS = 200
AGE = "select age(datfrozenxid) from pg_database where datname = current_database()"


class Case(Context):
    note: str
    padding: str = ""


class Opened(Event, type="case.opened"):
    note: str
    padding: int = 0


class Told(Event, type="case.told"):
    note: str


def _open(opened: Opened) -> Case:
    return Case(note=opened.note, padding="x" * opened.padding)


def _note(case: Case, told: Told) -> None:
    case.note = told.note


def _pipeline() -> Pipeline[Case]:
    flow = Pipeline("cases", Case, version=1, topics=["cases"])
    opened = flow.state("opened", initial=True)
    flow.start(Opened, _open)
    opened.on(Told, do=_note)
    return flow


def _told(kind: str, note: str, key: str = "k", **more: Any) -> Any:
    return event(f"case.{kind}", {"note": note, **more}, key=key, topic="cases")


async def test_the_temporary_table_of_an_engine_does_not_keep_postgres_from_forgetting_transactions(
    database: Database,
) -> None:
    async with feed(database, _pipeline()) as feeding:
        await feeding.records(_told("opened", "a"))
        for number in range(TURNS):
            await execute(database.owner_dsn, f"select pg_current_xact_id(), {number}")
        await feeding.store.keep_up(datetime.now(UTC))
        await execute(database.owner_dsn, "vacuum (freeze)")
        owner = await asyncpg.connect(database.owner_dsn)
        age = await owner.fetchval(AGE)
        await owner.close()
        assert age < TURNS, "the engine is there, and its table is as young as all others"
        await feeding.records(_told("told", "b"))


async def test_partitions_of_the_log_are_made_beside_who_reads_it(
    database: Database, reader: Connection
) -> None:
    async with feed(database, _pipeline()) as feeding:
        await feeding.records(_told("opened", "a"))
        parts = await reader.fetch(
            "select relid::regclass::text from pg_partition_tree('pointsman.events') where isleaf order by 1"
        )
        # As on the first of a month.
        last = parts[-1][0]
        await execute(database.owner_dsn, f"drop table {last}")
        async with reader.transaction():
            # What a dump holds to its end.
            await reader.execute("lock table pointsman.events in access share mode")
            async with asyncio.timeout(10):
                await feeding.store.keep_up(datetime.now(UTC))
                await feeding.records(_told("told", "b"))
        assert await reader.fetchval("select to_regclass($1)", last) is not None
        for asked in (
            "select array_agg(attname || attstorage::text) from pg_attribute where attrelid = $1::regclass",
            "select count(*) from pg_index where indrelid = $1::regclass",
        ):
            assert await reader.fetchval(asked, last) == await reader.fetchval(asked, parts[0][0])


async def test_where_the_log_is_locked_a_partition_is_made_later(
    database: Database, reader: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with feed(database, _pipeline()) as feeding:
        await feeding.records(_told("opened", "a"))
        parts = await reader.fetch(
            "select relid::regclass::text from pg_partition_tree('pointsman.events') where isleaf order by 1"
        )
        await execute(database.owner_dsn, f"drop table {parts[-1][0]}")
        owner = await asyncpg.connect(database.owner_dsn)
        try:
            async with owner.transaction():
                await owner.execute("lock table pointsman.events in share update exclusive mode")
                await feeding.store._reader.execute("set lock_timeout = '10ms'")
                await feeding.store.keep_up(datetime.now(UTC))
                await feeding.records(_told("told", "b"))
        finally:
            await owner.close()
    assert "a partition of the log for a coming month cannot be made yet" in caplog.text


async def test_a_role_that_may_make_no_temporary_tables_is_told_what_to_grant(
    postgres: Any, empty_database: str
) -> None:
    await migrate(empty_database)
    postgres.add_login("pointsman", member_of="pointsman_engine")
    owner = await connect(empty_database, for_engine=False)
    name = await owner.fetchval("select current_database()")
    engine = await connect(postgres.dsn("pointsman", name))
    try:
        await owner.execute(f"revoke temporary on database {name} from public")
        await check_temporary(engine)  # the schema has granted it
        await owner.execute(f"revoke temporary on database {name} from pointsman_engine")
        with pytest.raises(RefusedError, match="may make no temporary tables") as refused:
            await check_temporary(engine)
        [grant] = re.findall("GRANT .*", str(refused.value))
        await owner.execute(grant)
        await check_temporary(engine)
    finally:
        await engine.close()
        await owner.close()


async def test_an_engine_may_do_what_it_does_where_functions_are_not_everybodys(
    empty_database: str,
) -> None:
    await execute(empty_database, "alter default privileges revoke execute on functions from public")
    await migrate(empty_database)
    owner = await asyncpg.connect(empty_database)
    refused = await owner.fetch(
        "select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace "
        "where n.nspname = 'pointsman' and not has_function_privilege('pointsman_engine', p.oid, 'execute')"
    )
    await owner.close()
    assert refused == []


async def test_a_session_that_was_reset_behind_our_back_is_one_that_is_lost(database: Database) -> None:
    async with feed(database, _pipeline()) as feeding:
        await feeding.records(_told("opened", "a"))
        await feeding.store._writer.execute("discard all")
        with pytest.raises(StoreUnavailableError, match="prepared statement"):
            await feeding.records(_told("told", "b"))


async def test_a_commit_of_several_messages_ends_where_postgres_is_gone_in_the_middle(
    restartable_postgres: Any,
) -> None:
    postgres = restartable_postgres
    postgres.psql("create database large")
    dsn = postgres.dsn(database="large")
    await migrate(dsn)
    postgres.add_login("pointsman", member_of="pointsman_engine")
    database = Database("large", dsn, postgres.dsn("pointsman", "large"), dsn)
    keys = [f"k{number}" for number in range(60)]
    async with feed(database, _pipeline()) as feeding:
        for at in range(0, len(keys), 10):
            await feeding.records(*[_told("opened", "a", key, padding=LARGE) for key in keys[at : at + 10]])
        writer: Any = feeding.store._writer
        moving = asyncio.create_task(feeding.records(*[_told("told", "b", key) for key in keys]))
        while writer._transport.get_write_buffer_size() < LARGE:
            assert not moving.done(), "it is on its way"
            await asyncio.sleep(0)
        await asyncio.to_thread(postgres.stop, "immediate")
        with pytest.raises(StoreUnavailableError):
            await asyncio.wait_for(moving, 20)
