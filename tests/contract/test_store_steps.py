"""What a store does for steps: the same suite for the fake and for Postgres."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from engine.homes import HOMES
from engine.log import append, fold
from engine.store.contract import Store
from engine.store.values import AskedExecution, BegunExecution, Commit
from statemachines.run import Run
from tests.contract.test_store import (
    AT,
    World,
    fake_world,
    moved,
    packed,
    postgres_world,
    row_of,
    started,
    world,
)

__all__ = ["fake_world", "postgres_world", "world"]

HOMES_ALL = range(HOMES)
LIMIT = 100
SILENT = 60.0


def asked(run: Run, number: int = 0, *, step: str = "charge", **more: object) -> AskedExecution:
    one = AskedExecution(1, run.key, run.id, run.sequence, number, step, 1, AT, "")
    return one._replace(**more)  # type: ignore[arg-type]  # fields of it


async def ask(store: Store, run: Run, *several: AskedExecution) -> Run:
    """A commit that moves the run and asks for these."""
    after, commit = moved(run)
    await store.commit(replace(commit, executions_asked=[*several]))
    return after


async def begin(
    store: Store, holder: int = 1, *, room: int = 10, later: int = 0, but: tuple[int, ...] = ()
) -> list[BegunExecution]:
    until = AT + timedelta(seconds=later)
    return await store.begin_executions({(1, "charge"): room}, until, HOMES_ALL, [1], but, holder)


async def lost(store: Store, but: tuple[int, ...] = (), *, silent: float = SILENT) -> list[tuple[str, int]]:
    found = await store.begun_by_others(HOMES_ALL, [1], [1], but, silent, LIMIT)
    return [(one.key, one.attempt) for one in found]


async def test_an_execution_begins_once_in_the_order_in_which_they_were_asked_for(world: World) -> None:
    one, two = await world.open(), await world.open()
    runs = [await started(one, key) for key in "abc"]
    for run in reversed(runs):
        await ask(one, run, asked(run))
    assert [begun.key for begun in await begin(one, room=2)] == ["c", "b"]
    assert [begun.key for begun in await begin(two, 2)] == ["a"]
    assert await begin(one) == []


async def test_they_begin_in_that_order_whatever_their_homes_are(world: World) -> None:
    store = await world.open()
    runs = [await started(store, key) for key in "abcdefgh"]
    expected = []
    for turn, keys in enumerate(["a" * 14, "abcdefgh", "h" * 9, "aaabbb"]):
        for number, key in enumerate(keys, 100 * turn):
            run = runs["abcdefgh".index(key)]
            await ask(store, (await store.load_runs(1, [key]))[0], asked(run, number))
            expected.append((key, number))
    for room in (9, 1, 20, 10):
        some, expected = expected[:room], expected[room:]
        assert [(one.key, one.number) for one in await begin(store, room=room)] == some
    assert not expected


async def test_engines_that_ask_at_the_same_time_begin_each_once(world: World) -> None:
    stores = [await world.open() for _ in range(4)]
    runs = [await started(stores[0], f"k{number}") for number in range(20)]
    for run in runs:
        await ask(stores[0], run, *(asked(run, number) for number in range(5)))
    begun: list[BegunExecution] = []
    for _ in range(40):
        asking = (begin(store, holder) for holder, store in enumerate(stores))
        begun += [one for some in await asyncio.gather(*asking) for one in some]
    assert len(begun) == len({one.id for one in begun}) == 100


async def test_the_input_is_the_context_after_the_row_that_asked(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run))
    changed = append(after.hash, (*row_of(after, run.id)[:14], b'{"n":2}', b"", b"{}"))
    now = fold(after, changed)
    await store.commit(Commit(AT, rows=[packed(changed)], changed=[(after.sequence, now)]))
    [begun] = await begin(store)
    assert (begun.input, begun.generation, begun.definition) == (b'{"n":1}', 0, 1)
    assert begun.address == (run.id, run.sequence, 0)


async def test_one_that_is_to_be_tried_again_waits_for_its_time_and_keeps_its_number(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run))
    [first] = await begin(store)
    later = AT + timedelta(seconds=5)
    await ask(store, after, asked(run, attempt=2, again=later, error="Away: no"))
    assert await begin(store, later=4) == []
    [second] = await begin(store, later=5)
    assert (second.id, second.attempt, second.error) == (first.id, 2, "Away: no")


async def test_what_was_told_of_an_execution_is_found_by_its_event(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run))
    [one] = await begin(store)
    assert await store.told_results([(one.id, run.id, "charged")]) == set()
    row = append(after.hash, (*row_of(after, run.id)[:12], "charged", *row_of(after, run.id)[13:17]))
    await store.commit(Commit(AT, rows=[packed(row)], changed=[(after.sequence, fold(after, row))]))
    told = await store.told_results(
        [(one.id, run.id, "charged"), (7, run.id, "refunded"), (8, 99, "charged")]
    )
    assert told == {one.id}


async def test_what_its_run_waits_for_no_more_is_gone(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run), asked(run, 1))
    [first, second] = await begin(store)
    there = {first.id: False, second.id: False}
    assert await store.executions_there([first.id, second.id]) == there
    assert await store.has_executions([1], [1])
    _, commit = moved(after)
    await store.commit(
        replace(commit, executions_over=[(run.id, run.sequence, 0), (run.id, run.sequence, 1)])
    )
    assert await store.executions_there([first.id, second.id]) == {}
    assert not await store.has_executions([1], [1])


async def told(store: Store, run: Run, event_id: str, event_type: str) -> Run:
    """A commit of an event that is called so."""
    row = row_of(run, run.id, event_id=event_id)
    row = append(run.hash, (*row[:10], event_type, *row[11:-1]))
    after = fold(run, row)
    await store.commit(Commit(AT, rows=[packed(row)], changed=[(run.sequence, after)]))
    return after


async def test_what_a_run_was_told_last_of_an_execution_is_known_by_its_key(world: World) -> None:
    store = await world.open()
    run, other = await started(store), await started(store, "other")
    said = ("a/1", "tried.step.charge"), ("a/2/done", "done.step.charge"), ("ab/1", "failed.step.pack")
    for event_id, event_type in said:
        run = await told(store, run, event_id, event_type)
    asked = [(run.id, "ab"), (other.id, "a"), (run.id, "a"), (run.id, "b")]
    assert await store.said_last(asked) == ["failed.step.pack", "", "done.step.charge", ""]
    assert await store.said_last([]) == []


async def test_what_is_left_alone_and_other_homes_definitions_and_steps_do_not_begin(world: World) -> None:
    store = await world.open()
    run = await started(store)
    await ask(store, run, asked(run), asked(run, 1, step="pack"))
    [begun] = await begin(store)
    assert begun.step == "charge"
    others = [home for home in HOMES_ALL if home != begun.home]
    asked_for = {(1, "pack"): 5}
    assert not await store.begin_executions(asked_for, AT, others, [1], [], 1)
    assert not await store.begin_executions(asked_for, AT, HOMES_ALL, [2], [], 1)
    assert not await store.begin_executions(asked_for, AT, HOMES_ALL, [1], [begun.id + 1], 1)
    assert len(await store.begin_executions(asked_for, AT, HOMES_ALL, [1], [], 1)) == 1


async def test_attempts_of_a_holder_that_is_not_there_are_lost(world: World) -> None:
    store, other = await world.open(), await world.open()
    run = await started(store)
    await ask(store, run, asked(run))
    await store.hold(1, "one")
    [begun] = await begin(store, 1)
    assert await lost(other) == []
    # Started anew under the same name, it is there at once; the one before is not.
    await other.hold(2, "one")
    assert await lost(other) == [("k", 1)]
    assert await lost(other, (begun.id,)) == []


@pytest.mark.parametrize("instance", [None, "two"])
async def test_holders_do_not_end_those_of_other_names(world: World, instance: str | None) -> None:
    store = await world.open()
    run = await started(store)
    await ask(store, run, asked(run))
    await store.hold(1, None)
    await begin(store, 1)
    await store.hold(2, instance)
    assert await lost(store) == []
    await store.let_go(1)
    assert await lost(store) == [("k", 1)]


async def test_attempts_of_a_holder_that_is_silent_are_lost_until_it_is_heard_of_again(world: World) -> None:
    store = await world.open()
    run = await started(store)
    await ask(store, run, asked(run))
    await store.hold(1, None)
    await begin(store, 1)
    assert await lost(store) == []
    await world.fall_silent(1)
    assert await lost(store) == [("k", 1)]
    assert await lost(store, silent=2 * 3_600) == []
    await store.hold(1, None)
    assert await lost(store) == []


async def test_what_is_to_be_stopped_is_left_to_who_has_begun_it_and_else_begins_only_to_be_told_of(
    world: World,
) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run), asked(run, 1, again=AT + timedelta(hours=1)))
    [first] = await begin(store, 1)
    await ask(store, after, asked(run, stopping=True), asked(run, 1, stopping=True))
    [second] = await begin(store, 2)
    assert (second.number, second.stopping, first.stopping) == (1, True, False)
    assert await store.executions_there([first.id, second.id]) == {first.id: True, second.id: True}
    assert [
        (one.number, one.stopping)
        for one in await store.begun_by_others(HOMES_ALL, [1], [1], (), SILENT, LIMIT)
    ] == [
        (0, True),
        (1, True),
    ]


async def test_what_has_another_name_is_left_to_who_has_begun_it_and_lost_with_it(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run), asked(run, 1, token="case 1"))
    await store.hold(1, None)
    [first] = await begin(store, 1)
    await ask(store, after, asked(run, step="bill"), asked(run, 1, step="bill", token="case 1"))
    until = AT + timedelta(hours=1)
    assert await store.begin_executions({(1, "bill"): 10}, until, HOMES_ALL, [1], (), 2) == []
    assert await lost(store) == [], "it goes on there"
    await store.let_go(1)
    [gone] = await store.begun_by_others(HOMES_ALL, [1], [1], (), SILENT, LIMIT)
    assert (gone.id, gone.step, gone.attempt, gone.began) == (first.id, "bill", 1, first.began)


async def test_a_compensation_is_given_the_event_that_has_what_it_undoes(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run, of="1.0", made=1), asked(run, 1, of="1.1"))
    begun = await begin(store)
    assert [(one.of, one.made) for one in begun] == [("1.0", b"{}"), ("1.1", None)]
    assert after.sequence == 2


async def test_what_was_given_and_not_heard_of_is_put_back(world: World) -> None:
    store = await world.open()
    run = await started(store)
    await ask(store, run, asked(run), asked(run, 1))
    [first, second] = await begin(store, 1)
    await store.put_back(2, [])
    assert await begin(store, 1) == []
    await store.put_back(1, [first.numbers])
    assert [one.id for one in await begin(store, 1)] == [second.id]


async def test_that_an_attempt_goes_on_does_not_say_that_the_next_one_was_heard_of(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run))
    [first] = await begin(store, 1)
    await ask(store, after, asked(run, attempt=2))
    [second] = await begin(store, 1)
    await store.put_back(1, [first.numbers, second.numbers])
    assert await begin(store, 1) == []
    await store.put_back(1, [first.numbers])
    assert [one.numbers for one in await begin(store, 1)] == [(first.id, 2)]


async def test_one_that_begins_anew_says_after_how_many_attempts(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run))
    [first] = await begin(store)
    assert first.since == 0
    await ask(store, after, asked(run, attempt=4, since=3))
    assert [one.since for one in await store.begun_by_others(HOMES_ALL, [1], [1], [], SILENT, LIMIT)] == []
    [again] = await begin(store, 2)
    assert (again.id, again.attempt, again.since) == (first.id, 4, 3)
    [gone] = await store.begun_by_others(HOMES_ALL, [1], [1], [], SILENT, LIMIT)
    assert gone.since == 3


async def test_an_attempt_of_a_holder_that_is_not_there_is_taken_by_one_with_all_that_it_was_begun_with(
    world: World,
) -> None:
    store, other = await world.open(), await world.open()
    run = await started(store)
    await ask(store, run, asked(run, made=1, of="1.0", error="Away: no", attempt=2))
    await store.hold(1, None)
    [begun] = await begin(store, 1)
    await store.hold(2, None)
    await store.hold(3, None)
    assert await store.take_executions([begun.id], 2, SILENT) == [], "it is there"
    await store.let_go(1)
    [taken] = await store.take_executions([begun.id], 2, SILENT)
    assert taken == begun
    assert await other.take_executions([begun.id], 3, SILENT) == []
    assert await lost(other) == []
    # Who has it may not have heard so.
    assert await store.take_executions([begun.id], 2, SILENT) == [begun]
    assert await store.take_executions([begun.id + 1], 2, SILENT) == []


async def test_one_of_a_silent_holder_is_taken_and_one_that_nobody_has_begun_is_not(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run), asked(run, 1))
    await store.hold(1, None)
    [first] = await begin(store, 1, room=1)
    await ask(store, after, asked(run, stopping=True))
    await world.fall_silent(1)
    await store.hold(2, None)
    there = [first.id, first.id + 1]
    [taken] = await store.take_executions(there, 2, SILENT)
    assert (taken.id, taken.stopping, taken.input) == (first.id, True, b'{"n":1}')
    assert [one.number for one in await begin(store, 2)] == [1]


async def test_who_says_that_it_is_there_hears_what_time_it_is_by_the_store(world: World) -> None:
    one, two = await world.open(), await world.open()
    heard = [await one.hold(1, None), await two.hold(2, None), await one.hold(1, None)]
    assert heard == sorted(heard)
    assert heard[-1] - heard[0] < timedelta(minutes=1)
