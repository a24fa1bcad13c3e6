"""Very many values that a step is limited by, in a real Postgres: a look locks what begins, whatever else waits."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine.homes import HOMES
from engine.store import limiting
from engine.store.connecting import Connection
from engine.store.limited import LimitedRoom
from engine.store.limiting import VALUES_AT_A_LOOK, Limiting
from engine.store.queries import load
from engine.store.values import BegunExecution
from tests.charging import TOPIC, charging_pipeline, clear
from tests.feeding import BEGINS, event, feed
from tests.many import runs_alike
from tests.services import Database

OF_EACH = 3
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


async def look(making: Limiting, limit: LimitedRoom = ONE_IN_HERE) -> list[BegunExecution]:
    return await making.begin([limit], BEGINS, (list(range(HOMES)), [], [1]), 7)


@pytest.mark.parametrize("values", [VALUES_AT_A_LOOK - 100, VALUES_AT_A_LOOK])
async def test_a_look_begins_the_next_one_and_locks_none_of_all_the_others(
    database: Database, owner: Connection, engine: Connection, values: int
) -> None:
    await have_wait(database, owner, values)
    making = Limiting(engine)
    begun = [await look(making) for _ in range(4)]
    assert [[one.run for one in some] for some in begun] == [[1_000_001 + number] for number in range(4)]
    assert await owner.fetchval(_LOCKED) == 0


async def test_the_circle_of_values_begins_anew_within_a_look(
    database: Database, owner: Connection, engine: Connection
) -> None:
    await have_wait(database, owner, VALUES_AT_A_LOOK + 1)
    making = Limiting(engine)
    ten = ONE_IN_HERE._replace(room=10, at_once=1)
    assert [len(await look(making, ten)) for _ in range(3)] == [10, 10, 10]


async def test_a_look_that_another_engine_keeps_from_beginning_any_takes_no_turn(
    database: Database, owner: Connection, engine: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiting, "VALUES_AT_A_LOOK", 2)
    await have_wait(database, owner, 4)
    making, others = Limiting(engine), Limiting(owner)
    one = ONE_IN_HERE._replace(room=10, at_once=1)
    begun: list[str] = []
    for _ in range(2):
        async with owner.transaction():
            assert await owner.fetchval(load("limits")["take_limits"], [1])
            assert await look(making, one) == []
        begun += [str(found.run) for found in await look(making, one)]
    assert len(begun) == 4
    assert await look(others, one) == [], "each value has one that goes on"
