"""What a store does for attempts that go on though no row says so any more, and keep their places in limits.

The same suite for the fake and for Postgres.
"""

from __future__ import annotations

import pytest

from engine.store.contract import Store
from engine.store.values import BegunExecution
from statemachines.run import Run
from tests.contract.test_store import AT, World, fake_world, moved, postgres_world, started, world
from tests.contract.test_store_limits import TWO, next_of, numbers
from tests.contract.test_store_steps import HOMES_ALL, ask, asked

__all__ = ["fake_world", "postgres_world", "world"]

ONE = TWO._replace(at_once=1)
NEXT = TWO._replace(room=1)
SEVEN = 7


async def begun_by_seven(store: Store, limited_by: str | None = "a") -> tuple[Run, BegunExecution]:
    """Engine 7 has begun the first of three, which has this limit, as the others have; with the run that asked."""
    run = await started(store)
    first = asked(run, limited_by=limited_by)
    await ask(store, run, first, *(asked(run, number, limited_by="a") for number in (1, 2)))
    await store.hold(SEVEN, "seven")
    [begun] = await store.begin_executions({(1, "charge"): 1}, AT, HOMES_ALL, [1], (), SEVEN)
    assert begun.number == 0
    return run, begun


async def leave(store: Store, run: Run, number: int = 0, *, attempt: int = 1, again: bool = False) -> None:
    """No row says any more who goes on with this one: it is over, or waits to be tried again."""
    [now] = await store.load_runs(1, [run.key])
    _, commit = moved(now)
    commit.limited_left.append((run.id, run.sequence, number, attempt))
    if again:
        commit.executions_asked.append(asked(run, number, attempt=attempt + 1, limited_by="a"))
    else:
        commit.executions_over.append((run.id, run.sequence, number))
    await store.commit(commit)


@pytest.mark.parametrize(("again", "next_one"), [(False, 1), (True, 0)])
async def test_what_goes_on_keeps_its_place_until_its_engine_knows_better(
    world: World, *, again: bool, next_one: int
) -> None:
    store, other = await world.open(), await world.open()
    run, begun = await begun_by_seven(store)
    # By whoever moves the run on.
    await leave(other, run, again=again)
    assert await numbers(store, ONE) == []
    await store.give_up_places(SEVEN, [begun.id])
    await other.give_up_places(8, [])
    assert await numbers(store, ONE) == []
    await store.give_up_places(SEVEN, [])
    assert await numbers(store, ONE) == [next_one]


async def test_each_attempt_at_one_has_its_place(world: World) -> None:
    store = await world.open()
    run, _ = await begun_by_seven(store)
    await store.hold(8, "eight")
    await leave(store, run, again=True)
    [second] = await next_of(store, NEXT, 8)
    assert (second.number, second.attempt) == (0, 2)
    await leave(store, run, attempt=2)
    assert await numbers(store) == []
    await store.give_up_places(SEVEN, [])
    assert await numbers(store, NEXT) == [1]
    await store.give_up_places(8, [second.id])
    assert await numbers(store) == []


@pytest.mark.parametrize("how", ["it has let go", "it is silent", "another one has its name"])
async def test_who_is_gone_keeps_none(world: World, how: str) -> None:
    store = await world.open()
    run, _ = await begun_by_seven(store)
    await leave(store, run)
    assert await numbers(store, ONE) == []
    match how:
        case "it has let go":
            await store.let_go(SEVEN)
        case "it is silent":
            await world.fall_silent(SEVEN)
        case _:
            await store.hold(8, "seven")
    assert await numbers(store, ONE) == [1]


async def test_who_was_silent_and_goes_on_has_them_still(world: World) -> None:
    store = await world.open()
    run, _ = await begun_by_seven(store)
    await leave(store, run)
    await world.fall_silent(SEVEN)
    await store.hold(8, "eight")
    await store.hold(SEVEN, "seven")
    assert await numbers(store, ONE) == []


@pytest.mark.parametrize("what", ["it has no limit", "it was not begun"])
async def test_what_takes_no_place_keeps_none(world: World, what: str) -> None:
    store = await world.open()
    run, _ = await begun_by_seven(store, None if what == "it has no limit" else "a")
    if what == "it was not begun":
        await store.put_back(SEVEN, [])
    await leave(store, run)
    assert await numbers(store, ONE) == [1]


async def test_a_place_is_of_one_step_and_one_value(world: World) -> None:
    store = await world.open()
    run, _ = await begun_by_seven(store)
    await leave(store, run)
    [now] = await store.load_runs(1, [run.key])
    await ask(store, now, asked(now, 3, step="pack", limited_by="a"), asked(now, 4, limited_by="b"))
    limits = [ONE, ONE._replace(step="pack")]
    begun = await store.begin_limited(limits, AT, HOMES_ALL, [1], [], 1)
    assert sorted(one.number for one in begun) == [3, 4]
