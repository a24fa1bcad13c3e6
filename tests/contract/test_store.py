"""What every store promises: one suite for Postgres and for the fake."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import orjson
import pytest

from connectors.source import Partition
from engine.homes import home_of
from engine.log import Kind, LogRow, append, digest_number, digest_of, fold, pack, with_hash
from engine.reading import ask_complete
from engine.store.connecting import connect
from engine.store.contract import (
    LostPositionsError,
    LostRunsError,
    RefusedByStoreError,
    Store,
    TakenTwiceError,
)
from engine.store.postgres import PostgresStore
from engine.store.values import (
    Command,
    Commit,
    DeadLetter,
    EndedDeadLetter,
    FollowUp,
    Origin,
    PositionMove,
    SentEvent,
)
from statemachines.run import Run
from tests.fakes.store import FakeStore
from tests.fakes.tables import Tables
from tests.services import Database, execute

AT = datetime(2026, 3, 1, tzinfo=UTC)
HERE = Partition("orders", 0)
THERE = Partition("orders", 1)
_offsets = itertools.count()


@dataclass(slots=True)
class World:
    """Opens stores on one database."""

    open: Callable[[], Awaitable[Store]]
    complete: Callable[[str, bytes], Awaitable[None]]
    """Put a command into the inbox that completes by this token, with a result as JSON."""
    fall_silent: Callable[[int], Awaitable[None]]
    """Have nothing been heard of this holder for an hour."""


@pytest.fixture
async def fake_world() -> World:
    tables = Tables()

    async def open_store() -> Store:
        return FakeStore(tables)

    async def complete(token: str, result: bytes) -> None:
        tables.commands += 1
        body = orjson.dumps({"token": token, "result": orjson.loads(result)})
        pipeline = tables.executions.tokens[token].pipeline
        tables.inbox[tables.commands] = Command(tables.commands, pipeline, "complete", body, "ana", "why", AT)

    async def fall_silent(holder: int) -> None:
        tables.executions.holders[holder].seen -= 3_600

    return World(open_store, complete, fall_silent)


@pytest.fixture
async def postgres_world(database: Database) -> AsyncIterator[World]:
    opened: list[Store] = []

    async def open_store() -> Store:
        store = await PostgresStore.open(database.engine_dsn, namespace="n", group="g", cluster="c")
        opened.append(store)
        return store

    async def complete(token: str, result: bytes) -> None:
        connection = await connect(database.engine_dsn, for_engine=False)
        await ask_complete(connection, "n", token, result=result, who="ana")
        await connection.close()

    async def fall_silent(holder: int) -> None:
        silent = f"update pointsman.holders set seen = seen - interval '1 hour' where id = {holder}"
        await execute(database.owner_dsn, silent)

    yield World(open_store, complete, fall_silent)
    for store in opened:
        await store.close()


@pytest.fixture(params=["fake_world", "postgres_world"])
def world(request: pytest.FixtureRequest) -> World:
    found: World = request.getfixturevalue(request.param)
    return found


def row_of(run: Run | None, number: int, *, kind: Kind = Kind.MOVED, event_id: str | None = None) -> LogRow:
    offset = next(_offsets)
    name = event_id or f"e{offset}"
    digest = digest_number(digest_of("/here", name)) if kind in {Kind.STARTED, Kind.MOVED} else None
    sequence = 1 if run is None else run.sequence + 1
    fields = (
        number, digest, offset, AT, sequence, 1, 1, int(kind), 1, b"\x01" + bytes(8), "added", "open", name, b"",
        b'{"n":1}', b"", b"{}",
    )  # fmt: skip
    return append(b"" if run is None else run.hash, fields)


def packed(row: LogRow) -> bytes:
    return with_hash(pack(row[:-1]), row.hash)


async def started(store: Store, key: str = "k") -> Run:
    """A run that is there."""
    pipeline = await store.register_pipeline("sum")
    await store.register_definition(pipeline, 1, b"h", b"c", b"s")
    number = (await store.run_ids())[0]
    row = row_of(None, number, kind=Kind.STARTED)
    run = fold(None, row, key=key)
    await store.commit(Commit(AT, rows=[packed(row)], created=[(pipeline, run)]))
    return run


def moved(run: Run, **row: str) -> tuple[Run, Commit]:
    """The run after one more row, and the commit that makes it so."""
    made = row_of(run, run.id, **row)  # type: ignore[arg-type]  # event_id only
    after = fold(run, made)
    return after, Commit(AT, rows=[packed(made)], changed=[(run.sequence, after)], steps_at=AT)


async def test_a_position_that_is_there_stays_when_it_is_added_again(world: World) -> None:
    store = await world.open()
    await store.add_positions({HERE: 5})
    await store.add_positions({HERE: 9, THERE: 3})
    assert await store.known_positions([HERE, THERE, Partition("others", 0)]) == {HERE: 5, THERE: 3}


async def test_a_position_moves_only_for_who_holds_its_epoch(world: World) -> None:
    first, second = await world.open(), await world.open()
    await first.add_positions({HERE: 0, THERE: 0})
    mine = {position.partition: position for position in await first.take_positions([HERE, THERE])}
    (theirs,) = await second.take_positions([HERE])
    assert theirs.epoch == mine[HERE].epoch + 1
    moves = [PositionMove(one.id, one.epoch, 0, 10) for one in mine.values()]
    with pytest.raises(LostPositionsError) as lost:
        await first.commit(Commit(AT, positions=moves))
    assert lost.value.lost == {mine[HERE].id}
    assert await first.known_positions([HERE, THERE]) == {HERE: 0, THERE: 0}
    await second.commit(Commit(AT, positions=[PositionMove(theirs.id, theirs.epoch, 0, 10)]))
    assert await first.known_positions([HERE]) == {HERE: 10}


async def test_a_position_moves_only_from_where_it_is(world: World) -> None:
    store = await world.open()
    await store.add_positions({HERE: 7})
    (mine,) = await store.take_positions([HERE])
    with pytest.raises(LostPositionsError):
        await store.commit(Commit(AT, positions=[PositionMove(mine.id, mine.epoch, 6, 8)]))
    assert await store.known_positions([HERE]) == {HERE: 7}


async def test_which_topic_a_position_is_of_is_noted_by_who_holds_it(world: World) -> None:
    store = await world.open()
    await store.add_positions({HERE: 0})
    (before,) = await store.take_positions([HERE])
    assert before.topic_id == ""
    assert await store.note_topic_ids([(before.id, before.epoch, "one")]) == {before.id}
    (mine,) = await store.take_positions([HERE])
    assert mine.topic_id == "one"
    assert await store.note_topic_ids([(before.id, before.epoch, "another")]) == set()
    (after,) = await store.take_positions([HERE])
    assert after.topic_id == "one"


async def test_a_position_says_where_its_records_come_from(world: World) -> None:
    store = await world.open()
    await store.add_positions({HERE: 0, THERE: 0})
    origins = [await store.origin_of(one.id) for one in await store.take_positions([HERE, THERE])]
    assert origins == [Origin("c", "orders", 0), Origin("c", "orders", 1)]
    assert await store.origin_of(None) == Origin("", "", 0)


async def test_a_run_is_loaded_as_it_was_committed(world: World) -> None:
    store = await world.open()
    run = await started(store)
    pipeline = await store.register_pipeline("sum")
    (loaded,) = await store.load_runs(pipeline, ["k", "unknown"])
    assert loaded == run
    by_id = await store.run_by_id(run.id)
    assert by_id is not None
    assert by_id == run


async def test_the_second_of_two_who_move_one_run_loses_and_nothing_of_it_is_kept(world: World) -> None:
    first, second = await world.open(), await world.open()
    run = await started(first)
    await first.add_positions({HERE: 0})
    (mine,) = await second.take_positions([HERE])
    after, commit = moved(run)
    await first.commit(commit)
    _, late = moved(run)
    late.positions = [PositionMove(mine.id, mine.epoch, 0, 4)]
    with pytest.raises(LostRunsError):
        await second.commit(late)
    stored = await second.run_by_id(run.id)
    assert stored is not None
    assert stored.hash == after.hash
    assert await second.known_positions([HERE]) == {HERE: 0}


async def test_a_verdict_on_a_run_that_has_moved_loses(world: World) -> None:
    store = await world.open()
    run = await started(store)
    _, commit = moved(run)
    await store.commit(commit)
    with pytest.raises(LostRunsError):
        await store.commit(Commit(AT, judged=[(run.id, run.sequence)]))
    await store.commit(Commit(AT, judged=[(run.id, run.sequence + 1)]))


async def next_of(store: Store, run: Run) -> tuple[Run, Commit]:
    """The next run of the key, and the commit that begins it."""
    pipeline = await store.register_pipeline("sum")
    row = row_of(None, (await store.run_ids())[0], kind=Kind.STARTED)
    following = fold(None, row, key=run.key, generation=run.generation + 1)
    retired = [(run.id, run.sequence)]
    return following, Commit(AT, rows=[packed(row)], created=[(pipeline, following)], retired=retired)


async def test_a_verdict_on_a_run_whose_key_has_begun_the_next_one_loses(world: World) -> None:
    store = await world.open()
    run, pipeline = await started(store), await store.register_pipeline("sum")
    await store.commit(Commit(AT, last=[(pipeline, run.key, 0), (pipeline, "unknown", 0)]))
    _, commit = await next_of(store, run)
    await store.commit(commit)
    after, late = moved(run)
    late.last = [(pipeline, run.key, 0)]
    with pytest.raises(LostRunsError):
        await store.commit(late)
    assert await store.run_by_id(after.id) == run
    await store.commit(Commit(AT, last=[(pipeline, run.key, 1)]))


async def test_the_next_run_of_a_key_begins_only_behind_the_last_one_as_it_was_found(world: World) -> None:
    store = await world.open()
    run = await started(store)
    following, late = await next_of(store, run)
    _, commit = moved(run)
    await store.commit(commit)
    with pytest.raises(LostRunsError):
        await store.commit(late)
    assert await store.run_by_id(following.id) is None


async def test_who_begins_the_next_run_of_a_key_waits_for_who_changes_the_last_one(
    postgres_world: World,
) -> None:
    first, second = await postgres_world.open(), await postgres_world.open()
    run = await started(first)
    _, commit = moved(run)
    following, late = await next_of(second, run)
    await first.lock([], [run.id])
    waiting = asyncio.create_task(second.commit(late))
    assert await first.seen([(run.id, 1)]) == set(), "so that the other one has come to the lock"
    await first.commit(commit)
    with pytest.raises(LostRunsError):
        await waiting
    assert await first.run_by_id(following.id) is None


async def test_two_who_start_one_run_cannot_both(world: World) -> None:
    first, second = await world.open(), await world.open()
    run = await started(first)
    row = row_of(None, (await second.run_ids())[0], kind=Kind.STARTED)
    twin = fold(None, row, key=run.key)
    pipeline = await second.register_pipeline("sum")
    with pytest.raises(LostRunsError):
        await second.commit(Commit(AT, rows=[packed(row)], created=[(pipeline, twin)]))
    assert await second.run_by_id(twin.id) is None


async def test_an_event_is_consumed_once_by_a_run_however_late_it_comes_again(world: World) -> None:
    store = await world.open()
    run = await started(store)
    run, commit = moved(run, event_id="the-same")
    await store.commit(commit)
    pair = (run.id, digest_number(digest_of("/here", "the-same")))
    assert await store.seen([pair, (run.id, 12345)]) == {pair}
    _, again = moved(run, event_id="the-same")
    with pytest.raises(TakenTwiceError):
        await store.commit(again)


async def test_an_event_with_a_business_key_is_known_by_its_source_and_id_too(world: World) -> None:
    store, other = await world.open(), await world.open()
    run = await started(store)
    pipeline = await store.register_pipeline("sum")
    run, commit = moved(run, event_id="by its business key")
    by_key, by_id = digest_number(digest_of("/here", "by its business key")), digest_number(b"its id..")
    commit.taken_ids = [(run.id, by_id)]
    await store.commit(commit)
    pairs = [(run.id, by_key), (run.id, by_id), (run.id + 1, by_id)]
    assert await other.seen(pairs) == {(run.id, by_key)}, "ids are asked for apart"
    assert await other.seen([], pairs) == {(run.id, by_id)}
    assert await other.seen(pairs, pairs) == {(run.id, by_key), (run.id, by_id)}
    of_keys = [(pipeline, run.key, by_key), (pipeline, run.key, by_id), (pipeline, "another", by_id)]
    assert await other.seen_by_generations(of_keys) == {(pipeline, run.key, by_key)}
    assert await other.seen_by_generations([], of_keys) == {(pipeline, run.key, by_id)}
    run, commit = moved(run)
    commit.taken_ids = [(run.id, by_id)]
    await store.commit(commit)
    assert await other.seen([], pairs) == {(run.id, by_id)}, "to know it twice is to know it"


async def test_run_ids_are_given_out_once(world: World) -> None:
    stores = [await world.open(), await world.open()]
    blocks = [block for _ in range(5) for block in await asyncio.gather(*(one.run_ids() for one in stores))]
    assert len({number for block in blocks for number in block}) == sum(len(block) for block in blocks)


async def test_events_wait_in_order_until_they_leave(world: World) -> None:
    store = await world.open()
    run = await started(store)
    numbers = []
    for own in (None, 7, None):
        row = row_of(run, run.id, kind=Kind.WAITED)
        after = fold(run, row)
        numbers.append(row.sequence)
        commit = Commit(AT, rows=[packed(row)], changed=[(run.sequence, after)])
        commit.waiting_added = [(run.id, row.sequence, 100 + row.sequence, None, own)]
        await store.commit(commit)
        run = after
    everything = 1_000_000
    found = await store.waiting_events(run.id, 10, everything)
    assert [event.sequence for event in found] == numbers
    assert [one.sequence for one in await store.waiting_events(run.id, 2, everything)] == numbers[:2]
    of_two = sum(len(one.payload or b"") + len(one.envelope) for one in found[:2])
    for bytes_max, expected in ((of_two, numbers[:2]), (of_two - 1, numbers[:1]), (0, numbers[:1])):
        assert [one.sequence for one in await store.waiting_events(run.id, 10, bytes_max)] == expected
    by_digest = {(run.id, 100 + number) for number in numbers}
    assert await store.waiting_digests([run.id]) == by_digest | {(run.id, 7)}
    await store.commit(Commit(AT, waiting_removed=[(run.id, numbers[0])]))
    assert [one.sequence for one in await store.waiting_events(run.id, 10, everything)] == numbers[1:]


@pytest.mark.parametrize("number", [1, 1_000])
async def test_runs_change_together_or_not_at_all_however_many_they_are(world: World, number: int) -> None:
    store = await world.open()
    pipeline = await store.register_pipeline("sum")
    await store.register_definition(pipeline, 1, b"h", b"c", b"s")
    ids = (await store.run_ids())[:number]
    rows = [row_of(None, one, kind=Kind.STARTED) for one in ids]
    runs = [fold(None, row, key=str(row[0])) for row in rows]
    created = [(pipeline, run) for run in runs]
    await store.commit(Commit(AT, rows=[packed(row) for row in rows], created=created))
    steps = [moved(run) for run in runs]
    everything = Commit(AT, rows=[row for _, one in steps for row in one.rows])
    everything.changed = [change for _, one in reversed(steps) for change in one.changed]
    await store.commit(everything)
    after = {run.key: run for run, _ in steps}
    assert {run.key: run for run in await store.load_runs(pipeline, sorted(after))} == after

    _, *late = [moved(run) for run in after.values()]
    stale = moved(runs[0])
    again = Commit(AT, changed=[change for _, one in [*late, stale] for change in one.changed])
    with pytest.raises(LostRunsError):
        await store.commit(again)
    assert {run.key: run for run in await store.load_runs(pipeline, sorted(after))} == after


async def test_what_follows_a_command_is_in_the_inbox_once_the_command_is_not(world: World) -> None:
    first, second = await world.open(), await world.open()
    pipeline = await first.register_pipeline("sum")
    begun = Commit(AT, follow_up=FollowUp(pipeline, "release", b'{"run":1}', "ana", "mended"))
    await first.commit(begun)
    [command] = await second.read_inbox([pipeline], 10)
    assert command == begun.followed_by
    assert command[1:6] == (pipeline, "release", b'{"run":1}', "ana", "mended")
    going_on = Commit(AT, commands=[command.id])
    going_on.follow_up = FollowUp(pipeline, "release", b'{"run":2}', "ana", "mended")
    again = replace(going_on)
    await first.commit(going_on)
    with pytest.raises(LostRunsError):
        await second.commit(again)
    assert await second.read_inbox([pipeline], 10) == [going_on.followed_by]


async def test_an_event_to_a_run_is_for_whoever_serves_its_home(world: World) -> None:
    store = await world.open()
    pipeline = await store.register_pipeline("sum")
    sent = [SentEvent("sum", key, f"{key}\0{{}}".encode()) for key in ("a", "b")]
    await store.commit(Commit(AT, sent=sent))
    assert home_of("a") != home_of("b")
    for one in sent:
        [found] = await store.read_inbox([pipeline], 10, [home_of(one.key)])
        assert (found.command, found.body) == ("event", one.body)
    assert await store.read_inbox([pipeline], 10) == []


LETTER = DeadLetter(
    None, None, None, "k", "e", "t", 7, "no run", "nobody has this key", b"", None, None, 5, None, b"\0\xff", b"",
    None, AT, None,
)  # fmt: skip


async def test_data_that_the_store_cannot_take_is_refused_and_nothing_is_kept(world: World) -> None:
    store = await world.open()
    run = await started(store)
    after, commit = moved(run)
    commit.dead_letters = [LETTER._replace(error="a NUL: \0")]
    with pytest.raises(RefusedByStoreError):
        await store.commit(commit)
    assert (await store.run_by_id(run.id) or after).sequence == run.sequence
    commit = replace(commit, dead_letters=[LETTER])
    await store.commit(commit)
    assert (await store.run_by_id(run.id) or run).sequence == after.sequence


async def test_a_dead_letter_is_found_with_its_bytes_as_they_came(world: World) -> None:
    store = await world.open()
    await store.commit(Commit(AT, dead_letters=[LETTER]))
    found = await store.load_dead_letter(1)
    assert found is not None
    assert (found.record_value, found.record_key, found.reason, found.status, found.details) == (
        b"\0\xff",
        None,
        "no run",
        "open",
        b"",
    )
    assert await store.load_dead_letter(2) is None


@pytest.mark.parametrize("status", ["redriven", "dropped", "resolved"])
async def test_what_holds_a_run_is_its_row_and_the_dead_letter_until_that_has_ended(
    world: World, status: str
) -> None:
    store = await world.open()
    run = await started(store)
    held = row_of(run, run.id, kind=Kind.HELD_FIRED)
    after = fold(run, held)
    commit = Commit(AT, rows=[packed(held)], changed=[(run.sequence, after)])
    letter = LETTER._replace(pipeline=1, run=run.id, sequence=after.sequence, reason="step failed")
    await store.commit(replace(commit, dead_letters=[letter]))
    hold = (await store.holds_of([(run.id, after.sequence)]))[run.id]
    assert (hold.kind, hold.letter, hold.reason) == (Kind.HELD_FIRED, 1, "step failed")
    assert (hold.type, hold.is_inner) == ("added", False)
    await store.commit(Commit(AT, ended=[EndedDeadLetter(1, status, "ana", "seen")]))
    found = await store.load_dead_letter(1)
    assert found is not None
    assert found.status == status
    hold = (await store.holds_of([(run.id, after.sequence)]))[run.id]
    assert (hold.letter, hold.reason) == (None, None)


async def test_of_several_runs_and_commands_those_are_found_that_there_are(world: World) -> None:
    store = await world.open()
    held, free = await started(store), await started(store, "free")
    after = fold(held, row := row_of(held, held.id, kind=Kind.HELD_FIRED))
    follow_up = FollowUp(1, "release", b"{}", "ana", "why")
    commit = Commit(AT, rows=[packed(row)], changed=[(held.sequence, after)], follow_up=follow_up)
    await store.commit(commit)
    assert commit.followed_by is not None
    missing = free.id + 1_000
    assert {run.key: run for run in await store.runs_by_id([missing, free.id, held.id])} == {
        held.key: after,
        free.key: free,
    }
    assert await store.runs_by_id([]) == []
    holds = await store.holds_of([(held.id, after.sequence), (free.id, 99), (missing, 1)])
    assert {run: hold.kind for run, hold in holds.items()} == {held.id: Kind.HELD_FIRED}
    assert await store.holds_of([]) == {}
    number = commit.followed_by.id
    assert await store.commands_left([number, number + 1_000]) == {number}
    await store.commit(Commit(AT, commands=[number]))
    assert await store.commands_left([number]) == set()


async def test_after_a_refused_commit_the_store_goes_on(world: World) -> None:
    store = await world.open()
    run = await started(store)
    with pytest.raises(LostRunsError):
        await store.commit(Commit(AT, judged=[(run.id, 99)]))
    _, commit = moved(run)
    await store.commit(commit)


async def test_a_lock_keeps_until_the_commit(world: World) -> None:
    store = await world.open()
    run = await started(store)
    await store.lock([], [run.id])
    (loaded,) = await store.load_runs(await store.register_pipeline("sum"), [run.key])
    _, commit = moved(loaded)
    await store.commit(commit)
    await store.lock([], [run.id])
    await store.unlock()
    _, commit = moved((await store.run_by_id(run.id)) or run)
    await store.commit(commit)
