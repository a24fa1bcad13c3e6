"""However many executions wait, of whatever kind: who looks reads those that it takes, and none that others are to.

But for those of runs that do not go on: these are read, and passed over, where they are before what is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import orjson
import pytest

from engine.homes import HOMES
from engine.store.connecting import Connection
from engine.store.queries import load
from tests.charging import TOPIC, charging_pipeline, clear
from tests.feeding import BEGINS, event, feed
from tests.many import runs_alike
from tests.services import Database

MANY = 20_000
ROOM = 10
FIRST = 3_000
HERE = 2
SQL = load("store") | load("limits")
EARLIER, LATER = BEGINS - timedelta(hours=2), BEGINS + timedelta(hours=2)
_WAIT = """
    insert into pointsman.executions
        (pipeline, home, run, sequence, number, step, attempt, again, began, stopping, token, limited_by, error)
    select 1, coalesce($2::int, number % 16), 1000000 + number, 1, 0, 'charge', 2, $3::timestamptz, $4::timestamptz,
        $5::boolean, case when $6::boolean then 'token ' || number else '' end, $7::text || number % 100, ''
    from generate_series(1, $1::int) number
"""

_COMPLETED = """
    insert into pointsman.inbox (namespace, pipeline, command, body, who, why, token)
    select 'default', 1, 'complete', '{}', 'ana', 'it is done', 'another token ' || number
    from generate_series(1, $1::int) number
"""


class Waiting(NamedTuple):
    """What is equal of many executions that wait."""

    home: int | None = None
    """None: of all homes alike."""
    again: datetime = EARLIER
    began: datetime | None = None
    stopping: bool = False
    outside: bool = False
    limited: str | None = None
    completed: int = 0
    """So many others are completed by commands that wait."""


ELSEWHERE = 1
BEFORE, ANALYZED = "planned before", "analyzed"
KNOWN = [BEFORE, "not analyzed", ANALYZED]
"""What Postgres knows of the tables as it plans. As an engine starts, there may be nothing yet."""
NEXT = [
    ("begins", "begin_executions", Waiting()),
    ("begins, all of one home", "begin_executions", Waiting(home=HERE)),
    ("begins, and had a limit", "begin_executions", Waiting(limited="t")),
    ("begins within its limit", "begin_limited", Waiting(limited="t")),
    ("was left", "begin_untried", Waiting(stopping=True)),
    ("has no time left", "begin_untried", Waiting(again=LATER, began=EARLIER)),
    ("is completed too late", "begin_untried", Waiting(outside=True)),
    ("is completed too late, and others are in time", "begin_untried", Waiting(outside=True, completed=MANY)),
]
TOLD = [one for one in NEXT if one[1] == "begin_untried"]
NOTHING = [
    *[
        (f"{what}, but elsewhere", name, one._replace(home=ELSEWHERE))
        for what, name, one in NEXT
        if one.home is None
    ],
    ("is tried again", "begin_executions", Waiting(again=LATER, began=BEGINS)),
    ("is tried again in time", "begin_untried", Waiting(again=LATER, began=BEGINS)),
    ("is tried again within its limit", "begin_limited", Waiting(again=LATER, limited="t")),
    ("goes on outside", "begin_untried", Waiting(again=LATER, outside=True)),
    ("is limited already", "limit_waiting", Waiting(limited="t")),
]


class Read(NamedTuple):
    """What a statement has read of executions, and how many of them it has taken."""

    rows: int
    taken: int
    plan: str


async def look(engine: Connection, name: str, homes: Sequence[int], room: int) -> str:
    """How a statement looks, by the plan that an engine keeps once it has one."""
    at, here, overdue = BEGINS.isoformat(), ",".join(map(str, homes)), BEGINS - timedelta(hours=1)
    asked = {
        "begin_executions": f"'{{1}}', '{{charge}}', '{{{room}}}', '{at}', '{{{here}}}', '{{}}', '{{1}}', 7",
        "begin_untried": f"'{{1}}', '{{charge}}', '{{{overdue}}}', {room}, '{{{here}}}', '{{}}', '{{1}}', 7, '{at}'",
        "begin_limited": f"'{{1}}', '{{charge}}', '{{{room}}}', '{{t7}}', '{{{room}}}', '{at}', '{{{here}}}', '{{}}', "
        "'{1}', 7",
        "limit_waiting": "'{1}', '{charge}'",
    }
    if not await engine.fetchval("select exists (select from pg_prepared_statements where name = $1)", name):
        await engine.execute(f"prepare {name} as {SQL[name]}")
    found = await engine.fetchval(
        f"explain (analyze, costs off, timing off, buffers off, format json) execute {name} ({asked[name]})"
    )
    return str(found)


def read(answer: str) -> Read:
    """What it has read."""
    [explained] = orjson.loads(answer)
    [updated] = [one for one in nodes(explained["Plan"]) if one["Node Type"] == "ModifyTable"]
    reads = [
        (one["Actual Rows"] + one.get("Rows Removed by Filter", 0)) * one["Actual Loops"]
        for one in nodes(explained["Plan"])
        # What was found is looked up by its number.
        if "Scan" in one["Node Type"]
        and one.get("Relation Name") == "executions"
        and one.get("Index Name") != "executions_pkey"
    ]
    [updates] = updated["Plans"]
    return Read(round(sum(reads)), round(updates["Actual Rows"]), answer)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All of a plan."""
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


async def have_wait(
    database: Database,
    owner: Connection,
    engine: Connection,
    name: str,
    waiting: Waiting,
    known: str,
    room: int = ROOM,
    first: str | None = None,
) -> Read:
    """Have so many wait, and look; ``first`` is set of the runs of the first."""
    clear()
    homes = range(HOMES) if waiting.home is None else [HERE]
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(event("order.placed", {"order": "o1", "amount": 5}, topic=TOPIC))
    await owner.execute("delete from pointsman.executions")
    if known == BEFORE:
        await look(engine, name, homes, room)
    await runs_alike(owner, "o1", range(1_000_001, 1_000_001 + MANY))
    if first is not None:
        await owner.execute(
            f"update pointsman.runs set {first} where id between 1000001 and 1000000 + {FIRST}"
        )
    *one, completed = waiting
    await owner.execute(_WAIT, MANY, *one)
    await owner.execute(_COMPLETED, completed)
    if known == ANALYZED:
        await owner.execute("analyze pointsman.executions, pointsman.runs, pointsman.inbox")
    return read(await look(engine, name, homes, room))


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize(("name", "waiting"), [one[1:] for one in NEXT], ids=[one[0] for one in NEXT])
async def test_of_what_may_begin_no_more_is_read_than_there_is_room_for_of_each_home(
    database: Database, owner: Connection, engine: Connection, name: str, waiting: Waiting, known: str
) -> None:
    found = await have_wait(database, owner, engine, name, waiting, known)
    assert found.taken == ROOM, found.plan
    assert ROOM <= found.rows <= ROOM * HOMES, found.plan


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize(("name", "waiting"), [one[1:] for one in TOLD], ids=[one[0] for one in TOLD])
async def test_of_what_is_only_told_no_more_is_read_than_is_told(
    database: Database, owner: Connection, engine: Connection, name: str, waiting: Waiting, known: str
) -> None:
    found = await have_wait(database, owner, engine, name, waiting, known, 1_000)
    assert (found.taken, found.rows) == (1_000, 1_000), found.plan


@pytest.mark.parametrize("known", KNOWN)
async def test_where_many_wait_of_all_homes_little_more_is_read_than_there_is_room_for(
    database: Database, owner: Connection, engine: Connection, known: str
) -> None:
    found = await have_wait(database, owner, engine, "begin_executions", Waiting(), known, 800)
    assert found.taken == 800, found.plan
    assert found.rows <= 2 * 800 + 4 * HOMES, found.plan


@pytest.mark.parametrize("first", ["held = 1", "definition = 2"])
@pytest.mark.parametrize(("name", "waiting"), [one[1:] for one in NEXT], ids=[one[0] for one in NEXT])
async def test_what_waits_for_runs_that_do_not_go_on_is_read_and_nothing_that_is_behind_it(
    database: Database, owner: Connection, engine: Connection, name: str, waiting: Waiting, first: str
) -> None:
    found = await have_wait(database, owner, engine, name, waiting, ANALYZED, first=first)
    assert found.taken == ROOM, found.plan
    assert found.rows <= 2 * FIRST + ROOM * HOMES, found.plan


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize(("name", "waiting"), [one[1:] for one in NOTHING], ids=[one[0] for one in NOTHING])
async def test_of_what_waits_for_something_else_nothing_is_read(
    database: Database, owner: Connection, engine: Connection, name: str, waiting: Waiting, known: str
) -> None:
    found = await have_wait(database, owner, engine, name, waiting, known)
    assert (found.taken, found.rows) == (0, 0), found.plan
