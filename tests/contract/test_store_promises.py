"""Attempts that begin with the commit that asks for them: the same suite for the fake and for Postgres."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from engine.homes import home_of
from engine.store.contract import LostRunsError, Store
from engine.store.values import BegunExecution, Commit, Promised
from statemachines.run import Run
from tests.contract.test_store import AT, World, fake_world, moved, postgres_world, started, world
from tests.contract.test_store_steps import asked, begin, lost

__all__ = ["fake_world", "postgres_world", "world"]

SOON = AT + timedelta(seconds=1)


async def promise(store: Store, run: Run, *, of: str = "", made: int = 0) -> tuple[Run, Commit]:
    """A commit that moves the run, asks for a step and begins it."""
    after, commit = moved(run)
    promised = Promised(asked(after, is_first=True, of=of, made=made), after)
    commit = replace(commit, promised=[promised], promised_to=5, promised_at=SOON)
    await store.commit(commit)
    return after, commit


async def test_it_has_begun_once_the_commit_is_durable(world: World) -> None:
    store = await world.open()
    await store.hold(5, None)
    run, commit = await promise(store, await started(store))
    [begun] = commit.begun
    assert begun == BegunExecution(
        begun.id,
        1,
        "k",
        0,
        run.id,
        1,
        home_of("k"),
        run.sequence,
        0,
        "charge",
        1,
        "",
        run.context,
        began=SOON,
    )
    assert await begin(store, 6, later=9) == []
    assert await lost(store) == []
    await store.let_go(5)
    assert await lost(store) == [("k", 1)]


async def test_what_was_promised_and_is_not_known_of_can_be_put_back(world: World) -> None:
    store = await world.open()
    _, commit = await promise(store, await started(store))
    await store.put_back(5, [commit.begun[0].numbers])
    assert await begin(store, 6, later=9) == []
    await store.put_back(5, [])
    [begun] = await begin(store, 6, later=9)
    assert (begun.id, begun.began) == (commit.begun[0].id, AT + timedelta(seconds=9))


async def test_a_compensation_is_given_what_it_undoes_also_where_the_same_commit_tells_it(
    world: World,
) -> None:
    store = await world.open()
    run = await started(store)
    run, commit = await promise(store, run, of="1.0", made=1)
    assert [(one.of, one.made) for one in commit.begun] == [("1.0", b"{}")]
    _, commit = await promise(store, run, of="1.1", made=run.sequence + 1)
    assert [(one.of, one.made) for one in commit.begun] == [("1.1", b"{}")]


async def test_steps_and_compensations_can_begin_with_one_commit(world: World) -> None:
    store = await world.open()
    after, commit = moved(await started(store))
    several = asked(after), asked(after, 1, step="refund", of="1.0", made=1), asked(after, 2)
    promised = [Promised(one._replace(is_first=True), after) for one in several]
    commit = replace(commit, promised=promised, promised_to=5, promised_at=SOON)
    await store.commit(commit)
    assert [(one.number, one.step, one.of, one.made) for one in commit.begun] == [
        (0, "charge", "", None),
        (1, "refund", "1.0", b"{}"),
        (2, "charge", "", None),
    ]
    assert len({one.id for one in commit.begun}) == 3


async def test_nothing_has_begun_with_a_commit_that_came_to_nothing(world: World) -> None:
    store = await world.open()
    after, commit = moved(await started(store))
    promised = [Promised(asked(after, is_first=True), after)]
    commit = replace(commit, promised=promised, promised_to=5, promised_at=SOON, under_pauses={4_711})
    with pytest.raises(LostRunsError):
        await store.commit(commit)
    assert commit.begun == []


async def test_what_was_promised_and_is_put_back_comes_before_what_found_no_room(world: World) -> None:
    store = await world.open()
    after, commit = moved(await started(store))
    waits, begins = (asked(after, number, is_first=True) for number in range(2))
    commit = replace(
        commit,
        executions_asked=[waits],
        promised=[Promised(begins, after)],
        promised_to=5,
        promised_at=SOON,
    )
    await store.commit(commit)
    await store.put_back(5, [])
    assert [one.number for one in await begin(store)] == [1, 0]


async def test_those_that_wait_for_their_turn_come_behind_what_waited_before(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after, commit = moved(run)
    await store.commit(replace(commit, executions_asked=[asked(after)]))
    after, commit = moved(after)
    first = [asked(after, number, is_first=True) for number in range(2)]
    await store.commit(replace(commit, executions_asked=first))
    assert [(one.sequence, one.number) for one in await begin(store)] == [
        (after.sequence - 1, 0), (after.sequence, 0), (after.sequence, 1),
    ]  # fmt: skip


async def test_from_when_on_they_may_begin_says_the_clock_of_steps(world: World) -> None:
    store = await world.open()
    after, commit = moved(await started(store))
    first = asked(after, is_first=True, again=SOON)
    await store.commit(replace(commit, steps_at=SOON, executions_asked=[first]))
    assert await begin(store) == []
    [begun] = await begin(store, later=1)
    assert begun.began == SOON
