"""What every store promises of runs for which something has fallen due."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from engine.homes import HOMES, home_of
from engine.log import Kind, fold
from engine.store.contract import Store
from engine.store.values import Commit, DueRun
from statemachines.memory import Delayed, Memory, microseconds_of, write_memory
from tests.contract.test_store import AT, World, fake_world, packed, postgres_world, row_of, world

__all__ = ["fake_world", "postgres_world", "world"]

HOMES_ALL = range(HOMES)
FIRST, SECOND = 3, 5


def keys_of(home: int, number: int) -> list[str]:
    found = (key for key in map("k-{}".format, range(100_000)) if home_of(key) == home)
    return [next(found) for _ in range(number)]


async def waiting(store: Store, home: int, due: Sequence[int]) -> list[str]:
    """Runs of this home for which something falls due in so many seconds; their keys."""
    pipeline = await store.register_pipeline("sum")
    await store.register_definition(pipeline, 1, b"h", b"c", b"s")
    keys, ids = keys_of(home, len(due)), await store.run_ids()
    for key, seconds, number in zip(keys, due, ids, strict=False):
        row = row_of(None, number, kind=Kind.STARTED)
        timer = Delayed(microseconds_of(at(seconds)), 1, 0, "after.open.0", None, "open")
        run = fold(None, row, key=key)._replace(memory=write_memory(Memory(delayed=(timer,))))
        await store.commit(Commit(AT, rows=[packed(row)], created=[(pipeline, run)]))
    return keys


def at(seconds: int) -> datetime:
    return AT + timedelta(seconds=seconds)


async def due(store: Store, until: int, limit: int, each: int | None = None) -> list[DueRun]:
    return await store.due_runs(HOMES_ALL, {1: at(until)}, [1], limit, (), each)


async def test_those_that_are_due_come_in_order_and_no_others(world: World) -> None:
    store = await world.open()
    [late, early] = await waiting(store, FIRST, [7, 2])
    [middle, later] = await waiting(store, SECOND, [5, 9])
    assert [one.key for one in await due(store, 1, 10)] == []
    assert [one.key for one in await due(store, 7, 10)] == [early, middle, late]
    assert [one.key for one in await due(store, 60, 10)] == [early, middle, late, later]
    assert [(one.key, one.wake_at) for one in await due(store, 60, 2)] == [(early, at(2)), (middle, at(5))]
    [first, *_] = await due(store, 60, 10)
    others = await store.due_runs(HOMES_ALL, {1: at(60)}, [1], 10, [first.id])
    assert [one.key for one in others] == [middle, late, later]
    assert [one.key for one in await store.due_runs([SECOND], {1: at(60)}, [1], 10)] == [middle, later]
    assert await store.due_runs(HOMES_ALL, {2: at(60)}, [1], 10) == []
    assert await store.due_runs(HOMES_ALL, {1: at(60)}, [2], 10) == []


@pytest.mark.parametrize("each", [1, 2, 3, 4, 10])
async def test_where_not_all_of_a_home_are_looked_at_nothing_is_told_before_what_came_before_it(
    world: World, each: int
) -> None:
    store = await world.open()
    many = await waiting(store, FIRST, [1, 2, 3, 20])
    few = await waiting(store, SECOND, [4, 30])
    told = [one.key for one in await due(store, 60, 10, each)]
    in_order = [many[0], many[1], many[2], few[0], many[3], few[1]]
    assert told == in_order[: {1: 1, 2: 2, 3: 3, 4: 5, 10: 6}[each]]
