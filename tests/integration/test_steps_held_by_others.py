"""Executions that others hold as somebody looks what may begin, on a real Postgres: looks pass over them alone."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from connectors.source import Partition, RawRecord
from engine.limits import EngineLimits
from engine.steps.progress import LastWords
from engine.steps.pulse import Pulse
from engine.store import executing, limiting
from engine.store.connecting import Connection, connect
from engine.store.contract import Store
from engine.store.values import BegunExecution, Progress
from tests.charging import TOPIC, charging_pipeline, clear
from tests.contract.test_store import World, postgres_world, started
from tests.contract.test_store_limits import TWO, next_of, numbers
from tests.contract.test_store_places import ONE, SEVEN, begun_by_seven, leave
from tests.contract.test_store_steps import ask, asked, begin
from tests.feeding import event, feed
from tests.services import Database

__all__ = ["postgres_world"]

GATE = 7
"""Whoever has this lock keeps looks from reading what waits, which they see as it was when they began."""
_ONE_AT_ONCE = EngineLimits(step_poll_seconds=60.0, steps_at_once_max=1)
_FIRST = "(select id from pointsman.executions order by id limit $1)"
_LOOKS_STAND = """
    select from pg_locks l join pg_database d on d.oid = l.database
    where d.datname = current_database() and l.locktype = 'advisory' and l.objid = $1 and not l.granted
"""
_END_LOOKS = "select pg_terminate_backend(l.pid)" + _LOOKS_STAND.removeprefix("\n    select")
_COMMITS_STAND = """
    select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""

Begin = Callable[[Store, int, int], Coroutine[Any, Any, list[BegunExecution]]]


async def _unlimited(store: Store, holder: int, room: int) -> list[BegunExecution]:
    return await begin(store, holder, room=room)


async def _limited(store: Store, holder: int, room: int) -> list[BegunExecution]:
    return await next_of(store, TWO._replace(at_once=room), holder)


BEGINS = pytest.mark.parametrize(
    ("begins", "value"), [(_unlimited, None), (_limited, "t")], ids=["without a limit", "with a limit"]
)


@pytest.fixture
async def other(database: Database) -> AsyncIterator[Connection]:
    """Somebody else."""
    connection = await connect(database.engine_dsn, for_engine=False)
    yield connection
    await connection.close()


def gated(sql: str) -> str:
    """A statement that sees what there is and waits for the gate, before it reads what waits."""
    gate = f"(select pg_advisory_xact_lock_shared({GATE}) is null as gate offset 0) gate, unnest($1::int[]"
    first, _, rest = sql.partition(" as (")
    assert rest.count("unnest($1::int[]") == 1, sql
    return f"{first} as materialized ({rest.replace('unnest($1::int[]', gate)}"


async def have_wait(store: Store, keys: str, value: str | None) -> None:
    for key in keys:
        run = await started(store, key)
        await ask(store, run, asked(run, limited_by=value))


@BEGINS
async def test_what_is_behind_what_others_hold_begins_in_its_place(
    postgres_world: World, other: Connection, begins: Begin, value: str | None
) -> None:
    store = await postgres_world.open()
    await have_wait(store, "abcde", value)
    async with other.transaction():
        await other.execute(f"delete from pointsman.executions where id in {_FIRST}", 2)
        assert [one.key for one in await begins(store, 1, 2)] == ["c", "d"]


async def test_who_passes_over_what_others_hold_begins_no_more_than_the_limit_leaves(
    postgres_world: World, other: Connection
) -> None:
    store = await postgres_world.open()
    await have_wait(store, "abcd", "t")
    await have_wait(store, "e", "u")
    async with other.transaction():
        await other.execute(f"select from pointsman.executions where id in {_FIRST} for update", 1)
        assert [one.key for one in await next_of(store, TWO)] == ["b", "c", "e"]
    assert await numbers(store) == []


async def test_nobody_is_promised_the_room_of_who_waits_behind_what_others_hold(
    database: Database, other: Connection
) -> None:
    def placed(order: str) -> RawRecord:
        return event("order.placed", {"order": order}, topic=TOPIC)

    world = clear()
    goes_on = asyncio.Event()
    world.script["charge"] = [goes_on.wait]
    async with feed(database, charging_pipeline(), limits=_ONE_AT_ONCE) as feeding:
        await feeding.records(placed("o1"), placed("o2"))
        async with other.transaction():
            await other.execute(f"select from pointsman.executions where id in {_FIRST} for update", 1)
            feeding.steps.turned.clear()
            await feeding.begin_steps()
            await asyncio.wait_for(feeding.steps.turned.wait(), 60)
        pending = await feeding.promise(Partition(TOPIC, 0), placed("o3"))
        assert pending.batch.commit.begun == []
        feeding.steps.settle([], pending.batch.commit)
        await feeding.steps.close()
    assert world.attempts("charge") == [("o2", 1)]


@BEGINS
async def test_what_another_engine_has_begun_since_a_look_began_does_not_begin_again(
    postgres_world: World,
    other: Connection,
    monkeypatch: pytest.MonkeyPatch,
    begins: Begin,
    value: str | None,
) -> None:
    one, two = await postgres_world.open(), await postgres_world.open()
    await have_wait(one, "abcd", value)
    with monkeypatch.context() as patched:
        for statements, name in ((executing._SQL, "begin_executions"), (limiting._SQL, "begin_limited")):
            patched.setitem(statements, name, gated(statements[name]))
        async with other.transaction():
            await other.execute("select pg_advisory_xact_lock($1)", GATE)
            looks = asyncio.create_task(begins(one, 1, 2))
            while not await other.fetch(_LOOKS_STAND, GATE):
                assert not looks.done()
            patched.undo()
            assert [one.key for one in await begin(two, 2, room=2)] == ["a", "b"]
    assert [one.key for one in await looks] == ["c", "d"]


async def test_a_look_that_nobody_waits_for_any_more_says_nothing_of_a_connection_that_breaks(
    postgres_world: World, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await postgres_world.open()
    await have_wait(store, "a", "t")
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what))
    monkeypatch.setitem(limiting._SQL, "begin_limited", gated(limiting._SQL["begin_limited"]))
    before = asyncio.all_tasks()
    async with other.transaction():
        await other.execute("select pg_advisory_xact_lock($1)", GATE)
        looks = asyncio.create_task(next_of(store))
        while not await other.fetch(_LOOKS_STAND, GATE):
            assert not looks.done()
        looks.cancel()
        await asyncio.wait({looks})
        left = asyncio.all_tasks() - before
        assert left
        await other.execute(_END_LOOKS, GATE)
        await asyncio.wait(left)
    del left, looks
    gc.collect()
    assert said == []


async def test_what_is_said_of_executions_beside_commits_waits_for_none_that_could_wait_for_it(
    postgres_world: World, other: Connection
) -> None:
    store = await postgres_world.open()
    await have_wait(store, "abc", None)
    first, second = await begin(store, 1, room=2)
    progress = [Progress(one.id, 1, b"1") for one in (first, second)]
    works = "update pointsman.executions set again = again where id = $1 returning progress, holder"
    transaction = other.transaction()
    await transaction.start()
    await other.execute(works, second.id)
    await other.execute("update pointsman.executions set again = again where holder is null")
    async with asyncio.timeout(10):
        assert await store.note_progress(1, progress) == {second.id}
        await store.put_held_back(1, [])
        assert not await store.put_back(1, [])
        await store.limit_waiting([(1, "charge")])
    # A commit comes to its executions in any order.
    assert tuple(await other.fetchrow(works, first.id) or ()) == (b"1", None)
    await transaction.commit()
    # Of the first one nobody is to be told any more.
    assert not await store.note_progress(1, progress)
    assert tuple(await other.fetchrow(works, second.id) or ()) == (b"1", 1)
    assert await store.put_back(1, [])
    assert tuple(await other.fetchrow(works, second.id) or ()) == (b"1", None)


async def test_how_far_an_attempt_has_come_is_waited_for_until_it_is_stored(
    postgres_world: World, other: Connection
) -> None:
    store = await postgres_world.open()
    _, begun = await begun_by_seven(store)
    words, pulse, goes_on = LastWords(0.0), Pulse(), Pulse()
    pulse.beat(b"1")
    goes_on.beat(b"1")
    assert words.take(begun.id, begun.attempt, pulse)
    said = "select progress from pointsman.executions where id = $1"
    going = [(begun.id, begun.attempt, goes_on)]
    async with other.transaction():
        await other.execute("select from pointsman.executions where id = $1 for update", begun.id)
        assert not await words.store(store, SEVEN, going)
    assert ([*words.waited_for], goes_on.stored) == ([begun.id], None)
    assert await words.store(store, SEVEN, going)
    assert ([*words.waited_for], goes_on.stored, await other.fetchval(said, begun.id)) == ([], b"1", b"1")


async def test_what_an_attempt_says_that_is_not_made_any_more_is_not_waited_for(
    postgres_world: World,
) -> None:
    store = await postgres_world.open()
    _, begun = await begun_by_seven(store)
    words, pulse = LastWords(0.0), Pulse()
    pulse.beat(b"1")
    assert words.take(begun.id, begun.attempt, pulse)
    await store.put_back(SEVEN, [])
    assert await words.store(store, SEVEN, [])
    assert not words.waited_for


async def test_what_begins_as_its_run_leaves_it_keeps_its_place_in_the_limit(
    postgres_world: World, other: Connection
) -> None:
    store = await postgres_world.open()
    run, first = await begun_by_seven(store)
    await store.put_back(SEVEN, [])
    transaction = other.transaction()
    await transaction.start()
    await other.execute("update pointsman.executions set holder = $1 where id = $2", SEVEN, first.id)
    leaves = asyncio.create_task(leave(await postgres_world.open(), run))
    while not await other.fetch(_COMMITS_STAND):
        assert not leaves.done()
    await transaction.commit()
    await leaves
    assert await numbers(store, ONE) == []
    await store.give_up_places(SEVEN, [])
    assert await numbers(store, ONE) == [1]
