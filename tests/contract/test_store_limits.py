"""What a store does for limits that are for all engines: the same suite for the fake and for Postgres."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import pytest

from engine.steps.executions import FAR
from engine.store import limiting
from engine.store.contract import Store
from engine.store.limited import LimitedRoom
from engine.store.values import BegunExecution
from statemachines.run import Run
from tests.contract.test_store import AT, World, fake_world, moved, postgres_world, started, world
from tests.contract.test_store_steps import HOMES_ALL, LIMIT, ask, asked, begin
from tests.fakes import executing as fake_executing

__all__ = ["fake_world", "postgres_world", "world"]

SECOND = timedelta(seconds=1)
TWO = LimitedRoom(1, "charge", 100, 2, None)


async def next_of(
    store: Store, limit: LimitedRoom = TWO, holder: int = 1, *, later: float = 0, but: Sequence[int] = ()
) -> list[BegunExecution]:
    until = AT + timedelta(seconds=later)
    return await store.begin_limited([limit], until, HOMES_ALL, [1], but, holder)


async def numbers(store: Store, limit: LimitedRoom = TWO, holder: int = 1, *, later: float = 0) -> list[int]:
    return [one.number for one in await next_of(store, limit, holder, later=later)]


async def wait_for(store: Store, *values: str | None) -> Run:
    """A run with one execution for each of these values that it is limited by; returns it as it was before."""
    run = await started(store)
    await ask(store, run, *(asked(run, number, limited_by=value) for number, value in enumerate(values)))
    return run


async def hold(store: Store, run: Run, *, held: bool = True) -> Run:
    """The run is held from now on, or no more."""
    after, commit = moved(run)
    after = after._replace(held=after.sequence if held else 0)
    commit.changed[:] = [(run.sequence, after)]
    await store.commit(commit)
    return after


async def is_over(store: Store, run: Run, *gone: int) -> None:
    """The run waits for these no more."""
    [now] = await store.load_runs(1, [run.key])
    _, commit = moved(now)
    commit.executions_over.extend((run.id, run.sequence, number) for number in gone)
    await store.commit(commit)


async def test_so_many_of_each_value_go_on_and_the_next_in_order(world: World) -> None:
    store = await world.open()
    run = await wait_for(store, "a", "a", "a", "b", "a", "b", "")
    assert await numbers(store) == [0, 1, 3, 5, 6]
    assert await numbers(store) == []
    await is_over(store, run, 0, 3)
    assert await numbers(store) == [2]
    await is_over(store, run, 1, 2)
    assert await numbers(store) == [4]


async def test_the_limit_is_for_all_engines(world: World) -> None:
    one, two = await world.open(), await world.open()
    await wait_for(one, "a", "a", "a")
    assert await numbers(one, TWO._replace(room=1), 1) == [0]
    assert await numbers(two, TWO, 2) == [1]
    assert await numbers(one, TWO, 1) == []


async def test_engines_that_ask_at_the_same_time_never_exceed_it(world: World) -> None:
    stores = [await world.open() for _ in range(4)]
    values = ("a", "b", "c")
    await wait_for(stores[0], *(value for _ in range(20) for value in values))
    for _ in range(10):
        await asyncio.gather(*(next_of(store, TWO, holder) for holder, store in enumerate(stores)))
    begun = [
        one
        for holder in range(4)
        for one in await stores[0].begun_by_others(HOMES_ALL, [1], [1], (), 0, LIMIT)
    ]
    assert len({one.id for one in begun}) == 2 * len(values)
    assert await numbers(stores[0]) == []


async def test_what_waits_behind_its_limit_keeps_no_other_waiting(world: World) -> None:
    store = await world.open()
    await wait_for(store, *(["a"] * 50), "b", *(["a"] * 5), "c")
    limit = TWO._replace(room=3)
    assert await numbers(store, limit) == [0, 1, 50]
    assert await numbers(store, limit) == [56]


async def test_there_is_room_for_so_many_in_order(world: World) -> None:
    store = await world.open()
    await wait_for(store, "c", "b", "a", "c")
    assert await numbers(store, TWO._replace(room=3)) == [0, 1, 2]
    assert await numbers(store, TWO._replace(room=3)) == [3]


async def test_what_is_tried_again_is_behind_what_was_to_begin_before(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, *(asked(run, number, limited_by="a") for number in range(3)))
    one = TWO._replace(at_once=1)
    assert await numbers(store, one) == [0]
    await ask(store, after, asked(run, 0, attempt=2, again=AT + 5 * SECOND, limited_by="another"))
    assert await numbers(store, one, later=5) == [1]
    assert await numbers(store, one, later=5) == []
    await is_over(store, run, 1, 2)
    # The value is the one that it had at first.
    assert await numbers(store, one, later=4) == []
    [again] = await next_of(store, one, later=5)
    assert (again.number, again.attempt, again.began) == (0, 2, AT)
    assert again.input == b'{"n":1}'


async def test_so_many_begin_in_a_time_and_more_where_none_has_for_long(world: World) -> None:
    store = await world.open()
    await wait_for(store, *(["a"] * 20), "b")
    rate = LimitedRoom(1, "charge", 100, None, SECOND / 4, 3)
    assert await numbers(store, rate) == [0, 1, 2, 20]
    assert await numbers(store, rate) == []
    assert await numbers(store, rate, later=0.249) == []
    assert await numbers(store, rate, later=0.25) == [3]
    assert await numbers(store, rate, later=0.6) == [4]
    assert await numbers(store, rate, later=0.75) == [5]
    assert await numbers(store, rate, later=100) == [6, 7, 8]


async def test_a_rate_is_for_all_engines_and_on_an_average(world: World) -> None:
    one, two = await world.open(), await world.open()
    await wait_for(one, *(["a"] * 60))
    rate = LimitedRoom(1, "charge", 100, None, SECOND / 10, 2)
    begun: Counter[int] = Counter()
    for look in range(20):
        for holder, store in enumerate((one, two)):
            begun[look // 5] += len(await next_of(store, rate, holder, later=look / 5))
    assert sum(begun.values()) == 40
    assert all(many in (10, 11) for many in begun.values()), begun


async def test_of_both_limits_the_narrower_counts(world: World) -> None:
    store = await world.open()
    run = await wait_for(store, *(["a"] * 9))
    both = LimitedRoom(1, "charge", 100, 2, SECOND, 3)
    assert await numbers(store, both) == [0, 1]
    await is_over(store, run, 0, 1)
    assert await numbers(store, both) == [2]
    await is_over(store, run, 2)
    assert await numbers(store, both) == []
    assert await numbers(store, both, later=1) == [3]


async def test_what_the_room_leaves_out_does_not_count_for_the_rate(world: World) -> None:
    store = await world.open()
    await wait_for(store, *(["a"] * 9))
    rate = LimitedRoom(1, "charge", 1, None, SECOND, 3)
    assert [await numbers(store, rate) for _ in range(4)] == [[0], [1], [2], []]


@pytest.mark.parametrize(("ahead", "begin_then"), [(3_600, [2, 3]), (30, [])])
async def test_a_clock_that_was_wrong_holds_nobody_up_and_one_that_differs_a_little_counts(
    world: World, ahead: int, begin_then: list[int]
) -> None:
    store = await world.open()
    await wait_for(store, *(["a"] * 9))
    rate = LimitedRoom(1, "charge", 100, None, SECOND, 2)
    assert await numbers(store, rate, later=ahead) == [0, 1]
    assert await numbers(store, rate) == begin_then
    assert await numbers(store, rate) == []


async def test_who_stops_waiting_for_the_answer_leaves_nothing_half_done(world: World) -> None:
    store, other = await world.open(), await world.open()
    await wait_for(store, "a", "a", "b")
    for turns in range(0, 160, 2):
        asking = asyncio.create_task(next_of(store))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        await store.put_back(1, [])
        begun = await next_of(other, TWO, 2)
        assert len(begun) == 3, turns
        await other.put_back(2, [])


async def test_what_was_asked_for_without_a_limit_is_limited_as_one(world: World) -> None:
    store = await world.open()
    await wait_for(store, None, None, "a", None)
    assert await numbers(store) == [2]
    await store.limit_waiting([(1, "pack")])
    assert await numbers(store) == []
    await store.limit_waiting([(1, "pack"), (1, "charge")])
    assert await numbers(store) == [0, 1]


async def test_where_there_is_no_limit_any_more_all_begin(world: World) -> None:
    store = await world.open()
    await wait_for(store, "a", "a", None, "b", None)
    assert [one.number for one in await begin(store, room=3)] == [0, 1, 2]
    assert [one.number for one in await begin(store)] == [3, 4]


@pytest.mark.parametrize("what", ["homes", "definitions", "left alone", "step"])
async def test_what_is_not_asked_for_does_not_begin(world: World, what: str) -> None:
    store = await world.open()
    await wait_for(store, "a")
    [begun] = await next_of(store)
    await store.put_back(1, [])
    homes = [home for home in HOMES_ALL if what != "homes" or home != begun.home]
    definitions, but = [2 if what == "definitions" else 1], [begun.id] if what == "left alone" else []
    limit = TWO._replace(step="pack") if what == "step" else TWO
    assert await store.begin_limited([limit], AT, homes, definitions, but, 1) == []
    assert [one.id for one in await next_of(store)] == [begun.id]


async def test_of_more_values_than_are_looked_at_all_have_their_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiting, "VALUES_AT_A_LOOK", 3)
    store = await world.open()
    await wait_for(store, *"aabbccddeeffgg")
    one = TWO._replace(at_once=1)
    begun = [number for _ in range(4) for number in await numbers(store, one)]
    assert sorted(begun) == [0, 2, 4, 6, 8, 10, 12]


async def test_what_goes_on_outside_is_no_value_that_is_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiting, "VALUES_AT_A_LOOK", 2)
    store = await world.open()
    run = await started(store)
    outside = [
        asked(run, number, limited_by=f"a{number}", token=f"t{number}", again=FAR) for number in range(9)
    ]
    await ask(store, run, *outside, asked(run, 9, limited_by="b"))
    assert await numbers(store) == [9]


async def held_by_seven(world: World) -> Store:
    """Engine 7 has begun two of a run that is held then; one of another run waits for their limit."""
    store = await world.open()
    held, other = await started(store, "held"), await started(store, "other")
    after = await ask(store, held, *(asked(held, number, limited_by="a") for number in range(2)))
    await ask(store, other, asked(other, limited_by="a"))
    await store.hold(7, "seven")
    assert len(await next_of(store, holder=7)) == 2
    await hold(store, after)
    return store


async def test_who_is_gone_keeps_no_place_though_its_run_is_held(world: World) -> None:
    store = await held_by_seven(world)
    assert await next_of(store) == []
    await store.let_go(7)
    assert [one.key for one in await next_of(store)] == ["other"]


@pytest.mark.parametrize(("seconds", "begin_then"), [(60.0, []), (0.0, ["other"])])
async def test_who_is_silent_for_long_keeps_no_place_though_its_run_is_held(
    world: World, monkeypatch: pytest.MonkeyPatch, seconds: float, begin_then: list[str]
) -> None:
    for module in (limiting, fake_executing):
        monkeypatch.setattr(module, "SILENT_SECONDS", seconds)
    store = await held_by_seven(world)
    assert [one.key for one in await next_of(store)] == begin_then


async def test_what_has_ended_behind_a_hold_keeps_no_place(world: World) -> None:
    store = await world.open()
    held, other = await started(store, "held"), await started(store, "other")
    after = await ask(store, held, *(asked(held, number, limited_by="a") for number in range(2)))
    await ask(store, other, asked(other, limited_by="b"), asked(other, 1, limited_by="a"))
    await store.hold(1, "one")
    [first, second, _] = await next_of(store)
    await store.put_held_back(1, [first.numbers])
    assert await next_of(store) == []
    after = await hold(store, after)
    await store.put_held_back(2, [])
    await store.put_held_back(1, [first.numbers, second.numbers])
    assert await next_of(store) == []
    await store.put_held_back(1, [first.numbers])
    assert [(one.key, one.number) for one in await next_of(store)] == [("other", 1)]
    await is_over(store, other, 1)
    await hold(store, after, held=False)
    # The time of its attempts goes on.
    [again] = await next_of(store, later=5)
    assert (again.id, again.attempt, again.began) == (second.id, 1, AT)


async def test_several_steps_are_asked_for_at_once(world: World) -> None:
    store = await world.open()
    run = await started(store)
    await ask(
        store,
        run,
        *(asked(run, number, limited_by="a") for number in range(3)),
        *(asked(run, number, step="pack", limited_by="a") for number in range(3, 6)),
    )
    limits = [TWO, LimitedRoom(1, "pack", 100, None, SECOND, 1)]
    begun = await store.begin_limited(limits, AT, HOMES_ALL, [1], [], 1)
    assert [(one.number, one.step) for one in begun] == [(0, "charge"), (1, "charge"), (3, "pack")]
