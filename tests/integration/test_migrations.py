"""Migrations on a real Postgres: forward, whole or not at all, by one at a time; and databases of other versions."""

from __future__ import annotations

import asyncio
import importlib

import asyncpg
import orjson
import pytest

from engine.admission import join_set
from engine.batch.by_itself import OF_DEFERRED, OF_INSIDE, OF_ITSELF, OF_STEP
from engine.errors import SchemaError
from engine.services.postgres import EmbeddedPostgres
from engine.store.connecting import connect
from engine.store.migrations import MIGRATIONS, SCHEMA_VERSION, check_schema, migrate
from statemachines.machine import compile_pipeline
from tests.cli import pointsman
from tests.services import Database, execute
from tests.shop import shop


async def checked(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await check_schema(connection)
    finally:
        await connection.close()


def test_they_are_numbered_one_by_one() -> None:
    assert [one.number for one in MIGRATIONS] == list(range(1, SCHEMA_VERSION + 1))


async def test_of_two_that_migrate_at_once_one_does_it_all(empty_database: str) -> None:
    applied = await asyncio.gather(migrate(empty_database), migrate(empty_database))
    assert sorted(len(one) for one in applied) == [0, SCHEMA_VERSION]
    await checked(empty_database)


async def test_several_databases_of_a_new_server_are_migrated_at_once(
    restartable_postgres: EmbeddedPostgres,
) -> None:
    # They share the roles, which none of them has found there.
    databases = [restartable_postgres.dsn(database=f"one_of_{number}") for number in range(4)]
    await execute(
        restartable_postgres.dsn(), *(f"create database one_of_{number}" for number in range(len(databases)))
    )
    applied = await asyncio.gather(*map(migrate, databases))
    assert [len(one) for one in applied] == [SCHEMA_VERSION] * len(databases)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_cannot_keep_every_text_is_refused(
    restartable_postgres: EmbeddedPostgres, encoding: str
) -> None:
    made = f"create database narrow encoding '{encoding}' lc_collate 'C' lc_ctype 'C' template template0"
    await execute(restartable_postgres.dsn(), made)
    narrow = restartable_postgres.dsn(database="narrow")
    for refused in (migrate, checked):
        with pytest.raises(SchemaError, match=f"keeps text as {encoding}.*ENCODING 'UTF8'"):
            await refused(narrow)


async def test_what_fails_leaves_nothing_behind(empty_database: str) -> None:
    await execute(empty_database, "create schema pointsman", "create table pointsman.tokens (x int)")
    with pytest.raises(SchemaError, match=r"Migration 9 \(later\) failed and nothing of it was kept"):
        await migrate(empty_database)
    with pytest.raises(SchemaError, match="has no Pointsman schema yet"):
        await checked(empty_database)
    await execute(empty_database, "drop table pointsman.tokens")
    assert len(await migrate(empty_database)) == SCHEMA_VERSION
    await checked(empty_database)


async def migrate_to(version: int, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an older program does it."""
    migrating = importlib.import_module("engine.store.migrations.migrate")
    with monkeypatch.context() as before:
        before.setattr(migrating, "MIGRATIONS", MIGRATIONS[:version])
        before.setattr(migrating, "SCHEMA_VERSION", version)
        await migrate(dsn)


async def test_a_database_is_not_migrated_beside_engines_that_need_it_as_it_is(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrating = importlib.import_module("engine.store.migrations.migrate")
    await migrate_to(SCHEMA_VERSION - 1, empty_database, monkeypatch)
    engine = await asyncpg.connect(empty_database)
    await join_set(engine, "shop", "pointsman.shop", [compile_pipeline(shop())])
    with monkeypatch.context() as hurried:
        hurried.setattr(migrating, "GONE_SECONDS", 0)
        with pytest.raises(SchemaError, match=r"1 engine is at work .*: shop version 1 \(.*Stop it, migrate"):
            await migrate(empty_database)
    await migrate_to(SCHEMA_VERSION - 1, empty_database, monkeypatch)  # of which there is nothing to do
    await engine.close()
    assert [one.number for one in await migrate(empty_database)] == [SCHEMA_VERSION]


async def test_who_has_the_table_of_migrations_to_himself_is_not_waited_for_for_ever(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrating = importlib.import_module("engine.store.migrations.migrate")
    await migrate_to(SCHEMA_VERSION - 1, empty_database, monkeypatch)
    monkeypatch.setattr(migrating, "LOCK_SECONDS", 0.01)
    other, engine = await asyncpg.connect(empty_database), await connect(empty_database)
    try:
        async with other.transaction():
            await other.execute("lock table pointsman.migrations in access share mode")
            with pytest.raises(SchemaError, match=r"as a dump has while it goes on\. Nothing was changed"):
                await migrate(empty_database)
        async with other.transaction():
            await other.execute("lock table pointsman.migrations in access exclusive mode")
            with pytest.raises(SchemaError, match="is being migrated just now"):
                await check_schema(engine)
        assert [one.number for one in await migrate(empty_database)] == [SCHEMA_VERSION]
    finally:
        await other.close()
        await engine.close()


async def test_commands_that_wait_meanwhile_are_found_by_their_tokens(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate_to(13, empty_database, monkeypatch)
    owner = await asyncpg.connect(empty_database)
    bodies = [
        ("complete", {"key": 'a "k"', "token": 'é "t" \\', "execution": [], "result": {"by": "b\0o"}}),
        ("fail", {"key": "k", "token": "u", "execution": [], "error": '"token":"w","execution":'}),
        ("send", {"key": "k", "token": "v", "execution": []}),
    ]
    insert = (
        "insert into pointsman.inbox (namespace, command, body, who, why) values ('n', $1, $2, 'ana', 'why')"
    )
    await owner.executemany(insert, [(command, orjson.dumps(body)) for command, body in bodies])
    await migrate(empty_database)
    found = await owner.fetch("select token from pointsman.inbox order by id")
    await owner.close()
    assert [token for (token,) in found] == ['é "t" \\', "u", None]


async def test_what_is_asked_of_dead_letters_meanwhile_is_for_the_group_that_reads_their_records(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate_to(23, empty_database, monkeypatch)
    columns = "id, namespace, position, disposition, reason, error, details, record_time, record_headers, at, status"
    await execute(
        empty_database,
        "insert into pointsman.positions (id, namespace, consumer_group, cluster, topic, partition, position) "
        "overriding system value values (1, 'n', 'g', 'c', 't', 0, 9)",
        f"insert into pointsman.dead_letters ({columns}) overriding system value select number, 'n', position, 1, 'r', "
        "'e', '', 0, '', now(), 'open' from (values (1, 1), (2, null)) as letter (number, position)",
        "insert into pointsman.pipelines (namespace, name) values ('n', 'p')",
        "insert into pointsman.inbox (namespace, pipeline, command, body, who, why) select 'n', pipeline, 'redrive', "
        "convert_to(json_build_object('dead_letter', letter)::text, 'UTF8'), 'ana', 'mended' "
        "from (values (null, 1), (null, 2), (1, 1)) as asked (pipeline, letter)",
    )
    await migrate(empty_database)
    owner = await asyncpg.connect(empty_database)
    found = await owner.fetch("select consumer_group from pointsman.inbox order by id")
    await owner.close()
    assert [group for (group,) in found] == ["g", None, None]


async def test_what_was_ignored_without_a_reason_was_of_a_type_that_nobody_knew(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate_to(18, empty_database, monkeypatch)
    await execute(
        empty_database,
        "insert into pointsman.positions (id, namespace, consumer_group, cluster, topic, partition, position) "
        "overriding system value values (1, 'n', 'g', 'c', 't', 0, 9)",
        "insert into pointsman.ignored_ranges (position, first, last, records, at) values (1, 2, 5, 3, now())",
    )
    await migrate(empty_database)
    owner = await asyncpg.connect(empty_database)
    found = await owner.fetch("select first, last, records, reason from pointsman.ignored_ranges")
    await owner.close()
    assert [tuple(one) for one in found] == [(2, 5, 3, "unknown type")]


async def test_months_without_rows_get_a_finer_index_of_ids_and_so_do_those_that_are_made_later(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate_to(25, empty_database, monkeypatch)
    columns = "run, at, sequence, definition, kind, status, type, event_id, configuration, hash, envelope, effects, "
    await execute(
        empty_database,
        f"insert into pointsman.events ({columns} context) select (extract(epoch from now()) * 1000)::bigint << 22, "
        "now(), 1, 1, 1, 1, 't', 'one', '', '', '', '', ''",
    )
    await migrate(empty_database)
    owner = await asyncpg.connect(empty_database)
    indexes = """
        select i.indrelid::regclass::text as month, c.reloptions @> '{pages_per_range=64}' as is_finer,
            exists (select from pointsman.events e where e.tableoid = i.indrelid) as has_rows
        from pg_inherits h join pg_index i on i.indexrelid = h.inhrelid join pg_class c on c.oid = i.indexrelid
        where h.inhparent = 'pointsman.events_event_id'::regclass order by month"""
    migrated = await owner.fetch(indexes)
    await owner.execute(f"drop table {migrated[-1]['month']}")
    made = await owner.fetchval("select pointsman.ensure_partitions()")
    found = await owner.fetch(indexes)
    by_id = await owner.fetchval("select run from pointsman.events where event_id = 'one'")
    await owner.close()
    assert {one["has_rows"] for one in migrated} == {True, False}
    assert all(one["is_finer"] is not one["has_rows"] for one in migrated)
    assert made == 1
    assert found == migrated
    assert by_id


async def test_strikes_of_what_runs_have_asked_for_are_forgotten_and_no_others(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # They were known by something else before, by which nobody would look for them any more.
    await migrate_to(26, empty_database, monkeypatch)
    others = [OF_STEP, OF_DEFERRED, OF_INSIDE, 7]
    struck = [f"({position}, 5, 2, 'hangs')" for position in (OF_ITSELF, *others)]
    await execute(
        empty_database,
        f'insert into pointsman.strikes (position, "offset", strikes, handler) values {", ".join(struck)}',
    )
    await migrate(empty_database)
    connection = await asyncpg.connect(empty_database)
    try:
        left = await connection.fetch("select position from pointsman.strikes order by position")
    finally:
        await connection.close()
    assert [one["position"] for one in left] == others


async def test_a_database_of_an_older_version_is_refused_with_what_to_run(database: Database) -> None:
    await execute(database.owner_dsn, f"delete from pointsman.migrations where number = {SCHEMA_VERSION}")
    said = rf"is version {SCHEMA_VERSION - 1}, this program needs {SCHEMA_VERSION}.*pointsman migrate"
    for dsn in (database.engine_dsn, database.reader_dsn):
        with pytest.raises(SchemaError, match=said):
            await checked(dsn)
    for command in (("runs",), ("prune", "--older-than", "5")):
        done = pointsman(*command, on={"POSTGRES": database.owner_dsn})
        assert (done.code, "Stop the engines and run: pointsman migrate" in done.err) == (2, True)


async def test_a_newer_database_is_not_migrated(database: Database) -> None:
    await execute(database.owner_dsn, "insert into pointsman.migrations (number, name) values (999, 'later')")
    with pytest.raises(SchemaError, match="version 999, newer than this program's"):
        await migrate(database.owner_dsn)


async def test_who_may_not_even_look_is_told_what_to_grant(database: Database) -> None:
    stranger = f"stranger_{database.name}"
    owner = await asyncpg.connect(database.owner_dsn)
    try:
        await owner.execute(f"create role {stranger}")
        await owner.execute(f"set role {stranger}")
        with pytest.raises(SchemaError, match="GRANT pointsman_engine TO"):
            await check_schema(owner)
    finally:
        await owner.execute("reset role")
        await owner.execute(f"drop role {stranger}")
        await owner.close()
