"""What a store does for what bounds steps: the same suite for the fake and for Postgres."""

from __future__ import annotations

from datetime import timedelta

from engine.store.contract import Store
from engine.store.values import BegunExecution, Progress
from tests.contract.test_store import AT, World, fake_world, postgres_world, started, world
from tests.contract.test_store_steps import HOMES_ALL, LIMIT, SILENT, ask, asked, begin

__all__ = ["fake_world", "postgres_world", "world"]

HOUR = timedelta(hours=1)
PLACE = (1, "charge")


async def untried(
    store: Store, *, later: int = 0, holder: int = 2, limit: int = LIMIT
) -> list[BegunExecution]:
    overdue = {PLACE: AT + timedelta(seconds=later)}
    return await store.begin_untried(overdue, overdue[PLACE], HOMES_ALL, [1], [], holder, limit)


async def test_what_an_attempt_says_of_its_progress_is_seen_by_the_next(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run))
    [first] = await begin(store, 1)
    await store.note_progress(1, [Progress(first.id, 1, b"1")])
    await store.note_progress(1, [Progress(first.id, 1, b"2")])
    [lost] = await store.begun_by_others(HOMES_ALL, [1], [1], (), SILENT, LIMIT)
    await ask(store, after, asked(run, attempt=2))
    [second] = await begin(store, 2)
    assert (first.progress, lost.progress, second.progress) == (None, b"2", b"2")


async def test_progress_of_an_attempt_that_is_not_the_current_one_counts_for_nothing(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run), asked(run, 1))
    [first, other] = await begin(store, 1)
    await store.note_progress(2, [Progress(first.id, 1, b"of another engine")])
    await store.note_progress(1, [Progress(first.id, 2, b"of another attempt"), Progress(other.id, 1, b"1")])
    await ask(store, after, asked(run, attempt=2), asked(run, 1, attempt=2))
    await store.note_progress(1, [Progress(first.id, 1, b"too late")])
    begun = await begin(store, 1)
    assert [(one.number, one.progress) for one in begun] == [(0, None), (1, b"1")]


async def test_what_is_asked_for_anew_has_no_progress_of_what_was_before(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run))
    [first] = await begin(store, 1)
    await store.note_progress(1, [Progress(first.id, 1, b"1")])
    await ask(store, after, asked(after))
    [anew] = await begin(store, 1)
    assert (anew.sequence, anew.progress) == (after.sequence, None)


async def test_what_begins_anew_sees_what_was_said_before_it_failed_for_good(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run)._replace(progress=b"1"), asked(run, 1))
    begun = await begin(store, 1)
    assert [(one.number, one.progress) for one in begun] == [(0, b"1"), (1, None)]
    await store.note_progress(1, [Progress(begun[0].id, 1, b"2")])
    await ask(store, after, asked(run, attempt=2), asked(run, 1, attempt=2))
    assert [one.progress for one in await begin(store, 1)] == [b"2", None]


async def test_when_the_first_attempt_began_is_known_of_all_of_them(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run))
    [first] = await begin(store, 1, later=5)
    [lost] = await store.begun_by_others(HOMES_ALL, [1], [1], (), SILENT, LIMIT)
    await ask(store, after, asked(run, attempt=2))
    [second] = await begin(store, 1, later=50)
    began = AT + timedelta(seconds=5)
    assert (first.began, lost.began, second.began) == (began, began, began)


async def test_what_was_put_back_before_its_first_attempt_has_not_begun(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run), asked(run, 1))
    await begin(store, 1, later=5)
    await ask(store, after, asked(run, attempt=2))
    assert [one.number for one in await begin(store, 1, later=6)] == [0]
    await store.put_back(1, [])
    began = {one.number: one.began for one in await begin(store, 2, later=50)}
    assert began == {0: AT + timedelta(seconds=5), 1: AT + timedelta(seconds=50)}


async def test_what_goes_on_outside_has_begun_though_it_was_put_back(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run))
    [first] = await begin(store, 1)
    await ask(store, after, asked(run, token="t", again=AT + timedelta(days=1_000)))
    # Its time is over, and who was to be told of that did not hear the answer.
    assert [one.id for one in await untried(store, later=10, holder=1)] == [first.id]
    await store.put_back(1, [])
    assert [one.id for one in await untried(store, later=20, holder=1)] == [first.id]


async def test_what_begins_anew_has_all_the_time_again(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run), asked(run, 1))
    await begin(store, 1)
    await ask(store, after, asked(run, attempt=2, since=1, progress=b""), asked(run, 1, attempt=2))
    began = {one.number: one.began for one in await begin(store, 1, later=50)}
    assert began == {0: AT + timedelta(seconds=50), 1: AT}


async def test_an_attempt_that_does_not_count_takes_of_the_time_all_the_same(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run))
    await begin(store, 1)
    await ask(store, after, asked(run, attempt=2, since=1))
    for holder in (1, 2):
        [one] = await begin(store, holder, later=50)
        assert (one.attempt, one.since, one.began) == (2, 1, AT)
        await store.put_back(holder, [])


async def test_what_has_no_time_left_is_begun_to_be_told_of_and_nothing_else(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, *(asked(run, number) for number in range(4)))
    assert [one.number for one in await begin(store, 1, room=1, later=0)] == [0]
    assert [one.number for one in await begin(store, 1, room=2, later=7)] == [1, 2]
    # The first goes on, the next two wait for another attempt, and the last has had none.
    await ask(store, after, *(asked(run, number, attempt=2, again=AT + HOUR) for number in (1, 2)))
    assert await untried(store, later=6) == []
    found = await untried(store, later=7, limit=1)
    assert [(one.number, one.attempt, one.input) for one in found] == [(1, 2, b"")]
    assert [one.number for one in await untried(store, later=7)] == [2]
    assert await untried(store, later=7) == []


async def test_what_is_to_be_stopped_is_told_of_whether_there_is_room_or_not(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after = await ask(store, run, asked(run), asked(run, 1), asked(run, 2, step="pack"))
    assert [one.number for one in await begin(store, 1, room=1)] == [0]
    await ask(store, after, *(asked(run, number, stopping=True) for number in (0, 1)))
    assert [(one.number, one.stopping) for one in await untried(store)] == [(1, True)]


async def test_of_other_homes_definitions_and_steps_nothing_is_told(world: World) -> None:
    store = await world.open()
    run = await started(store)
    await ask(store, run, asked(run, stopping=True))
    others = list(HOMES_ALL)
    [begun] = await untried(store)
    await store.put_back(2, [])
    others.remove(begun.home)
    assert await store.begin_untried({PLACE: AT}, AT, others, [1], [], 1, LIMIT) == []
    assert await store.begin_untried({PLACE: AT}, AT, HOMES_ALL, [2], [], 1, LIMIT) == []
    assert await store.begin_untried({PLACE: AT}, AT, HOMES_ALL, [1], [begun.id], 1, LIMIT) == []
    assert await store.begin_untried({(1, "pack"): AT}, AT, HOMES_ALL, [1], [], 1, LIMIT) == []
