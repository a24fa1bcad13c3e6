"""How Postgres finds what the engine's statements ask for, as it plans while nothing is there: it keeps such plans."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from engine.store.connecting import Connection, connect
from engine.store.queries import load
from tests.services import Database

GROW = ("runs", "events", "executions", "waiting", "inbox", "dispositions", "tokens", "operations", "outbox")
"""Tables that grow with what runs do."""
MADE = "make_run_changes"
STATEMENTS = [(file, name) for file in ("store", "limits") for name in load(file) if name != MADE]


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Connection]:
    """A connection as the engine has them."""
    connection = await connect(database.engine_dsn)
    yield connection
    await connection.close()


@pytest.mark.parametrize(("file", "name"), STATEMENTS, ids=[name for _, name in STATEMENTS])
async def test_no_statement_reads_all_of_a_table_that_grows(engine: Connection, file: str, name: str) -> None:
    statement = load(file)[name].replace("'{%s}'", "'{}'")
    await engine.execute(load("store")[MADE])
    await engine.execute(f"prepare asked as {statement}")
    number = max((int(one) for one in re.findall(r"\$(\d+)", statement)), default=0)
    values = f"({', '.join(['null'] * number)})" if number else ""
    rows = await engine.fetch(f"explain execute asked{values}")
    plan = "\n".join(row[0] for row in rows)
    read = set(re.findall(r"Seq Scan on (\w+)", plan))
    whole = {table for table in GROW if any(one == table or one.startswith(f"{table}_") for one in read)}
    assert not whole, plan
