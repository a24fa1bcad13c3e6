"""However many commands wait in front of others, on a real Postgres: few of those that are passed over are read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engine.homes import HOMES
from engine.reading import ask_redrive
from engine.store.connecting import Connection
from engine.store.queries import load
from tests.feeding import feed, raw
from tests.integration.test_steps_found import ANALYZED, BEFORE, KNOWN, nodes
from tests.services import Database
from tests.shop import shop

MANY = 20_000
LIMIT = 12
FRONT = 4 * LIMIT + 100
RANGES = 2 * (1 + HOMES)
"""Of two pipelines what people ask for, and the events for each home."""
HERE = 2
_PIPELINES = "insert into pointsman.pipelines (namespace, name) select 'default', unnest('{a,b,c}'::text[])"
_PAUSE = (
    "insert into pointsman.pauses (pipeline, command, who, why, at) values (2, 1, 'ana', 'mended', now())"
)
_PUT = """
    insert into pointsman.inbox (namespace, pipeline, command, body, who, why, home, token, consumer_group)
    select $2, $3::int, $4, '{}', 'ana', 'not wanted', $5::smallint, $6::text || number, $7::text
    from generate_series(1, $1::int) number
"""
FOR = {
    "a pipeline that is paused": ("default", 2, "cancel", None, None, None),
    "runs of a pipeline that is paused": ("default", 2, "event", HERE, None, None),
    "a pipeline that nobody has loaded": ("default", 3, "event", HERE, None, None),
    "homes of others": ("default", 1, "event", HERE + 1, None, None),
    "other namespaces": ("another", 3, "cancel", None, None, None),
    "another group": ("default", None, "redrive", None, None, "another"),
    "a token, in a pipeline that is paused": ("default", 2, "complete", None, "t", None),
}


async def look(engine: Connection) -> list[dict[str, Any]]:
    """The plan of a look, which is kept once it is made; its parts one by one."""
    if not await engine.fetchval("select exists (select from pg_prepared_statements where name = 'looks')"):
        await engine.execute(f"prepare looks as {load('store')['read_inbox']}")
    asked = f"'default', '{{1,2}}', {LIMIT}, 'group', '{{{HERE}}}', '{{}}'"
    return await explained(engine, f"execute looks ({asked})")


async def explained(connection: Connection, statement: str, *asked: Any) -> list[dict[str, Any]]:
    """What a statement has read, part by part."""
    found = f"explain (analyze, costs off, timing off, buffers off, format json) {statement}"
    [plan] = orjson.loads(await connection.fetchval(found, *asked))
    return [*nodes(plan["Plan"])]


def read_of(table: str, parts: list[dict[str, Any]]) -> int:
    """How many rows of a table were read."""
    scans = [one for one in parts if one.get("Relation Name") == table]
    read = [
        (one["Actual Rows"] + one.get("Rows Removed by Filter", 0)) * one["Actual Loops"] for one in scans
    ]
    return int(sum(read))


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("waits", FOR.values(), ids=FOR)
async def test_what_waits_in_front_is_read_a_bounded_number_of_times(
    owner: Connection, engine: Connection, waits: tuple[Any, ...], known: str
) -> None:
    for statement in (_PIPELINES, _PAUSE):
        await owner.execute(statement)
    if known == BEFORE:
        await look(engine)
    await owner.execute(_PUT, MANY, *waits)
    # Behind them, of either kind: events, what operators ask for, what has a token, and what is asked of the pipeline.
    taken = [
        ("default", 1, "event", HERE, None, None),
        ("default", 1, "cancel", None, None, None),
        ("default", 1, "complete", None, "u", None),
        ("default", 2, "resume_pipeline", None, None, None),
        ("default", None, "redrive", None, None, None),
        ("default", None, "redrive", None, None, "group"),
    ]
    for one in taken:
        await owner.execute(_PUT, 2, *one)
    if known == ANALYZED:
        await owner.execute("analyze pointsman.inbox")
    parts = await look(engine)
    assert parts[0]["Actual Rows"] == LIMIT
    assert read_of("inbox", parts) <= 2 * FRONT + RANGES * LIMIT, parts
    found = await engine.fetch(load("store")["read_inbox"], "default", [1, 2], LIMIT, "group", [HERE], [])
    assert [one["id"] for one in found] == [*range(MANY + 1, MANY + 1 + LIMIT)]


async def test_where_little_waits_in_front_the_first_are_read_and_no_more(
    owner: Connection, engine: Connection
) -> None:
    await owner.execute(_PIPELINES)
    await owner.execute(_PUT, MANY, "default", 1, "event", HERE, None, None)
    # Those that are found are read once more, with all that is said in them.
    assert read_of("inbox", await look(engine)) == 2 * LIMIT


async def test_which_pipelines_are_paused_is_asked_once_for_all(
    owner: Connection, engine: Connection
) -> None:
    for statement in (_PIPELINES, _PAUSE):
        await owner.execute(statement)
    await owner.execute(_PUT, MANY, "default", 2, "cancel", None, None, None)
    parts = await look(engine)
    looked = [one["Actual Loops"] for one in parts if one.get("Relation Name") == "pauses"]
    assert set(looked) <= {0, 1}, parts
    assert not [one for one in parts if one.get("Relation Name") == "tokens" and one["Actual Loops"]], parts


async def test_what_is_asked_of_a_dead_letter_of_all_pipelines_is_for_the_group_that_reads_its_record(
    database: Database, engine: Connection
) -> None:
    async with feed(database, shop()) as feeding, feed(database, shop(), group="others") as others:
        await feeding.records(raw(b"{"))
        letter = await engine.fetchval("select id from pointsman.dead_letters where pipeline is null")
        await ask_redrive(engine, "default", [letter], who="ana", why="mended")
        for one, left in ((others, 1), (feeding, 0)):
            await one.commands()
            assert await engine.fetchval("select count(*) from pointsman.inbox") == left
