"""Very many values that a step is limited by, in a real Postgres: a look locks what begins, whatever else waits."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine.homes import HOMES
from engine.store.connecting import Connection
from engine.store.limited import LimitedRoom
from engine.store.limiting import VALUES_AT_A_LOOK, VALUES_IN_TURN_MIN, Limiting
from engine.store.queries import load
from engine.store.values import BegunExecution
from tests.charging import TOPIC, charging_pipeline, clear
from tests.feeding import BEGINS, event, feed
from tests.integration.test_steps_found import read
from tests.many import runs_alike
from tests.services import Database

OF_EACH = 3
VALUES = 901
"""No multiple of the homes: what waits of each is in several of them."""
OF_A_HOME = 10 // 8 + 8
SQL = load("limits")["begin_limited"]
ONE_IN_HERE = LimitedRoom(1, "charge", 1, 2, None)
_WAIT = """
    insert into pointsman.executions (pipeline, home, run, sequence, number, step, attempt, again, limited_by, error)
    select 1, number % 16, 1000000 + number, 1, 0, 'charge', 1, $3::timestamptz + number * interval '1 ms',
        't' || number % $2, ''
    from generate_series(1, $1::int) number
"""
_LOCKED = "select count(*) from pointsman.executions where holder is null and xmax <> 0"


async def have_wait(database: Database, owner: Connection, values: int) -> None:
    """Of each value a few wait, all in one order."""
    clear()
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(event("order.placed", {"order": "o1", "amount": 5}, topic=TOPIC))
    await owner.execute("delete from pointsman.executions")
    many = values * OF_EACH
    await runs_alike(owner, "o1", range(1_000_001, 1_000_001 + many))
    await owner.execute(_WAIT, many, values, BEGINS - timedelta(hours=1))


async def look(limiting: Limiting, limit: LimitedRoom = ONE_IN_HERE) -> list[BegunExecution]:
    return await limiting.begin([limit], BEGINS, (list(range(HOMES)), [], [1]), 7)


@pytest.mark.parametrize("values", [VALUES_AT_A_LOOK - 100, VALUES_AT_A_LOOK])
async def test_a_look_begins_the_next_one_and_locks_none_of_all_the_others(
    database: Database, owner: Connection, engine: Connection, values: int
) -> None:
    await have_wait(database, owner, values)
    limiting = Limiting(engine)
    begun = [await look(limiting) for _ in range(4)]
    assert [[one.run for one in some] for some in begun] == [[1_000_001 + number] for number in range(4)]
    assert await owner.fetchval(_LOCKED) == 0


async def test_the_circle_of_values_begins_anew_within_a_look(
    database: Database, owner: Connection, engine: Connection
) -> None:
    await have_wait(database, owner, VALUES_AT_A_LOOK + 1)
    limiting = Limiting(engine)
    ten = ONE_IN_HERE._replace(room=10, at_once=1)
    assert [len(await look(limiting, ten)) for _ in range(3)] == [10, 10, 10]


async def read_by_a_look(engine: Connection, values: int, room: int) -> tuple[int, int]:
    """How many executions a look reads that knows of a place for one of each of so many values, and begins."""
    turns = [number < VALUES_IN_TURN_MIN for number in range(values)]
    columns = (
        [1] * values,
        ["charge"] * values,
        [room] * values,
        [f"t{one}" for one in range(values)],
        [1] * values,
    )
    arrays = [f"'{{{','.join(map(str, one))}}}'" for one in (*columns, [*range(HOMES)], turns)]
    *places, homes, have_turn = arrays
    await engine.execute(f"prepare look as {SQL}")
    asked = ", ".join([*places, f"'{BEGINS}'", homes, "'{}'", "'{1}'", "7", have_turn])
    explain = "explain (analyze, costs off, timing off, buffers off, format json)"
    found = read(str(await engine.fetchval(f"{explain} execute look ({asked})")))
    return found.rows, found.taken


async def test_where_very_many_values_have_room_few_of_each_home_are_read(
    database: Database, owner: Connection, engine: Connection
) -> None:
    await have_wait(database, owner, VALUES)
    rows, taken = await read_by_a_look(engine, VALUES, 10)
    assert taken == 10
    assert rows <= OF_A_HOME * HOMES


async def test_where_the_oldest_are_of_a_value_without_room_others_are_read_in_turn(
    database: Database, owner: Connection, engine: Connection
) -> None:
    await have_wait(database, owner, VALUES)
    await owner.execute("update pointsman.executions set limited_by = 'hot' where run <= 1000000 + 16 * 20")
    rows, taken = await read_by_a_look(engine, VALUES, 10)
    assert taken == 10
    assert rows <= OF_A_HOME * HOMES + VALUES_IN_TURN_MIN * OF_EACH


async def test_values_behind_one_without_room_have_their_turns(
    database: Database, owner: Connection, engine: Connection
) -> None:
    await have_wait(database, owner, VALUES)
    await owner.execute(
        "update pointsman.executions set limited_by = 'hot', holder = case when run = 1000001 then 7 end "
        "where run <= 1000000 + $1",
        16 * 20 * OF_EACH,
    )
    limiting, begun = Limiting(engine), list[BegunExecution]()
    one_of_each = ONE_IN_HERE._replace(room=20, at_once=1)
    while some := await look(limiting, one_of_each):
        begun += some
    left = "select distinct limited_by from pointsman.executions where limited_by <> 'hot'"
    assert len(begun) == len(await owner.fetch(left))
