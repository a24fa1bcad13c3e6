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
FEW = {"runs_held", "runs_held_started"}
"""Indexes that have little in them, whatever the table has."""
MADE = "make_run_changes"
STATEMENTS = [(file, name) for file in ("store", "limits") for name in load(file) if name != MADE]
BY_DIGEST = [(file, name) for file, name in STATEMENTS if "asked.digest" in load(file)[name]]
"""Those that ask whether events were consumed before."""


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Connection]:
    """A connection as the engine has them."""
    connection = await connect(database.engine_dsn)
    yield connection
    await connection.close()


@pytest.mark.parametrize(("file", "name"), STATEMENTS, ids=[name for _, name in STATEMENTS])
async def test_no_statement_reads_all_of_a_table_that_grows(engine: Connection, file: str, name: str) -> None:
    plan = await plan_of(engine, load(file)[name])
    read = {table for line, above, below in zip(plan, ["", *plan], [*plan[1:], ""], strict=False)
            if (table := _read_whole(line, above, below))}  # fmt: skip
    read -= FEW
    whole = {table for table in GROW if any(one == table or one.startswith(f"{table}_") for one in read)}
    assert not whole, "\n".join(plan)


@pytest.mark.parametrize(("file", "name"), BY_DIGEST, ids=[name for _, name in BY_DIGEST])
async def test_whether_an_event_was_consumed_is_looked_up_and_not_sought_among_all_of_its_run(
    engine: Connection, file: str, name: str
) -> None:
    plan = await plan_of(engine, load(file)[name])
    assert not [line for line in plan if re.match(r"Join Filter|Index Cond: \(run = [^()]*\)$", line)], (
        "\n".join(plan)
    )


async def test_the_open_run_of_a_key_that_is_to_follow_another_version_is_found_by_its_key(
    engine: Connection,
) -> None:
    """Planned for what is asked, as for those who read."""
    await engine.execute("set plan_cache_mode = force_custom_plan")
    await engine.execute(f"prepare asked as {load('reading')['open_runs_of_version']}")
    rows = await engine.fetch("explain execute asked('default', 'orders', 1, 0, 'o1')")
    plan = "\n".join(row[0] for row in rows)
    assert re.search(r"Scan using runs_address on runs r.*\n *Index Cond: .*key = 'o1'", plan), plan


async def plan_of(engine: Connection, statement: str) -> list[str]:
    """Its lines, for a statement of the engine."""
    await engine.execute(load("store")[MADE])
    await engine.execute(f"prepare asked as {statement}")
    number = max((int(one) for one in re.findall(r"\$(\d+)", statement)), default=0)
    values = f"({', '.join(['null'] * number)})" if number else ""
    rows = await engine.fetch(f"explain execute asked{values}")
    return [row[0].strip() for row in rows]


def _read_whole(line: str, above: str, below: str) -> str:
    """The table that a line of a plan reads from its beginning on; empty where it reads none so."""
    found = re.search(r"(Seq|Index|Index Only) Scan (?:Backward )?(?:using \w+ )?on (\w+)", line)
    if found is None or below.startswith("Index Cond"):
        return ""
    is_first_alone = found[1] != "Seq" and re.search(r"^(-> *)?Limit", above) is not None
    return "" if is_first_alone else found[2]
