"""The log is append-only: Postgres refuses the engine's role to change it, and no engine runs in a role that may."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from engine.admission import check_role
from engine.errors import RefusedError
from engine.store.connecting import Connection, connect
from tests.feeding import event, feed
from tests.services import Database, execute
from tests.shop import shop

CHANGES = [
    "update {table} set configuration = 'paid'",
    "update {table} set hash = hash where sequence = 1",
    "delete from {table}",
    "truncate {table}",
]


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Connection]:
    """A connection in the engine's role, to a log with a row in it."""
    async with feed(database, shop()) as feeding:
        await feeding.records(event("order.placed", {"order_id": "o1", "amount": 5}))
    connection = await connect(database.engine_dsn)
    yield connection
    await connection.close()


async def partition_of_the_row(engine: Connection) -> str:
    name = await engine.fetchval(
        "select relname from pointsman.events e join pg_class c on c.oid = e.tableoid"
    )
    assert name.startswith("events_2")
    return f"pointsman.{name}"


@pytest.mark.parametrize("where", ["log", "partition"])
@pytest.mark.parametrize("change", CHANGES)
async def test_update_delete_and_truncate_are_refused_to_the_engines_role(
    engine: Connection, where: str, change: str
) -> None:
    table = "pointsman.events" if where == "log" else await partition_of_the_row(engine)
    before = await engine.fetch("select * from pointsman.events")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await engine.execute(change.format(table=table))
    assert await engine.fetch("select * from pointsman.events") == before != []


@pytest.mark.parametrize("where", ["log", "partition"])
@pytest.mark.parametrize("right", ["update", "update (payload)", "delete", "truncate"])
async def test_a_role_that_may_change_the_log_is_refused(
    database: Database, engine: Connection, where: str, right: str
) -> None:
    await check_role(engine)
    table = "pointsman.events" if where == "log" else await partition_of_the_row(engine)
    await execute(database.owner_dsn, f"grant {right} on {table} to pointsman")
    said = rf"allowed to change the event log \({right.split(maxsplit=1)[0].upper()} on {table}\)"
    with pytest.raises(RefusedError, match=said):
        await check_role(engine)


async def test_a_role_that_may_take_on_one_that_may_change_the_log_is_refused(
    database: Database,
) -> None:
    # Roles are the server's, so these have names of their own, and go again.
    keeper, between, theirs = (f"{one}_{database.name}" for one in ("keeper", "between", "engine"))
    owner = await asyncpg.connect(database.owner_dsn)
    try:
        await owner.execute(f"create role {keeper}")
        await owner.execute(f"grant truncate on pointsman.events to {keeper}")
        # Does not inherit it, and could take it on.
        await owner.execute(f"create role {between} noinherit in role {keeper}")
        await owner.execute(f"create role {theirs} in role pointsman_engine, {between}")
        await owner.execute(f"set role {theirs}")
        with pytest.raises(RefusedError, match=r"TRUNCATE on pointsman\.events\)"):
            await check_role(owner)
        await owner.execute("reset role")
        await owner.execute(f"revoke {keeper} from {between}")
        await owner.execute(f"set role {theirs}")
        await check_role(owner)
    finally:
        await owner.execute("reset role")
        await owner.execute(f"drop owned by {keeper}")
        await owner.execute(f"drop role {keeper}, {between}, {theirs}")
        await owner.close()
