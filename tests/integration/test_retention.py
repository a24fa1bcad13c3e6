"""Old months of the log go as a whole, once all that is in them is over, and what is left of their runs is told."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from engine.errors import UsageError
from engine.reading import (
    NotFoundError,
    VerifyReport,
    explain,
    history,
    list_dead_letters,
    list_runs,
    replay,
    show,
    verify,
)
from engine.reading.dropped import Dropped, load_dropped
from engine.reading.way import passages_of
from engine.retention import Month, Pruned, prune
from engine.store.connecting import Connection, connect
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.events import Event
from tests.cli import pointsman
from tests.feeding import Clock, Feeding, event, feed
from tests.services import Database
from tests.shop import shop

OLD = datetime(2024, 5, 10, tzinfo=UTC)
LATER = datetime(2024, 6, 10, tzinfo=UTC)
A_YEAR_LATER = datetime(2025, 6, 1, tzinfo=UTC)
AS_NOW = """
select (extract(epoch from clock_timestamp()) * 1000)::bigint << 22 | ((nextval('pointsman.run_blocks') % 1024) << 12)
"""


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[Connection]:
    """Whoever owns the log."""
    connection = await connect(database.owner_dsn, for_engine=False)
    yield connection
    await connection.close()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of a month does not depend on how fast the machine is."""
    monkeypatch.setattr("engine.retention.LOCK_SECONDS_MAX", 60)


@contextlib.asynccontextmanager
async def feed_in(database: Database, at: datetime, *pipelines: Any) -> AsyncIterator[Feeding]:
    """A store to be fed at another time than now: what begins then lies in the log's partition of that month."""
    begins = at.replace(day=1, hour=0)
    ends = (begins + timedelta(days=32)).replace(day=1)
    name = f"events_{begins:%Y%m}"
    numbers = f"select {_first(at)} | ((nextval('pointsman.run_blocks') % 1024) << 12)"
    owner = await asyncpg.connect(database.owner_dsn)
    try:
        if await owner.fetchval("select to_regclass($1)", f"pointsman.{name}") is None:
            await owner.execute(
                f"create table pointsman.{name} partition of pointsman.events "
                f"for values from ({_first(begins)}) to ({_first(ends)})"
            )
        await _give_numbers(owner, numbers)
        async with feed(database, *(pipelines or (shop(),)), clock=Clock(at)) as feeding:
            yield feeding
        await _give_numbers(owner, AS_NOW)
    finally:
        await owner.close()


async def _give_numbers(owner: Any, numbers: str) -> None:
    await owner.execute(
        "create or replace function pointsman.allocate_run_ids() returns bigint "
        f"language sql volatile begin atomic {numbers}; end"
    )


def _first(at: datetime) -> int:
    return int(at.timestamp() * 1000) << 22


def placed(key: str, *, id: str | None = None) -> Any:
    return event("order.placed", {"order_id": key, "amount": 5}, id=id)


def paid(key: str, *, id: str | None = None) -> Any:
    return event("order.paid", {"order_id": key, "amount": 5}, id=id)


def shipped(key: str) -> Any:
    return event("order.shipped", {"order_id": key})


async def lives(feeding: Feeding, key: str) -> None:
    """A run from its beginning to its end."""
    await feeding.records(placed(key, id=f"{key}-placed"), paid(key, id=f"{key}-paid"), shipped(key))


async def pruned(owner: Connection, before: datetime = A_YEAR_LATER, *, dry_run: bool = False) -> Pruned:
    return await prune(owner, before, who="ana", why="a year is enough", dry_run=dry_run)


async def partitions(owner: Connection) -> set[str]:
    rows = await owner.fetch(
        "select relid::regclass::text as name from pg_partition_tree('pointsman.events')"
    )
    return {row["name"].removeprefix("pointsman.") for row in rows}


async def test_a_month_goes_once_all_of_its_runs_are_over(database: Database, owner: Connection) -> None:
    async with feed_in(database, OLD) as feeding:
        await lives(feeding, "o1")
        await lives(feeding, "o2")
    async with feed_in(database, LATER) as feeding:
        await lives(feeding, "o3")
        await feeding.records(placed("o4"))

    wanted = await pruned(owner, dry_run=True)
    assert [(one.month, one.runs, one.dropped, one.kept) for one in wanted.months] == [
        ("2024-05", 2, False, ""),
        ("2024-06", 2, False, "1 run has not ended"),
    ]
    assert await owner.fetchval("select count(*) from pointsman.events where run < $1", _first(LATER)) == 6
    assert all(one.bytes > 0 for one in wanted.months)

    done = await pruned(owner)
    assert [(one.month, one.runs, one.dropped, one.kept) for one in done.months] == [
        ("2024-05", 2, True, ""),
        ("2024-06", 2, False, "1 run has not ended"),
    ]
    assert await owner.fetchval("select count(*) from pointsman.events") == 4
    assert [(one.month, one.dropped) for one in (await pruned(owner)).months] == [("2024-06", False)]


async def test_what_goes_on_was_changed_lately_or_needs_a_person_keeps_its_month(
    database: Database, owner: Connection, broken: set[str]
) -> None:
    async def kept() -> str:
        [month] = (await pruned(owner)).months
        assert not month.dropped
        return month.kept

    async with feed_in(database, OLD) as feeding:
        await lives(feeding, "o1")
        await feeding.records(placed("o2"), event("order.broken", {"order_id": "o2"}))
    assert await kept() == ("1 run has not ended, 1 dead letter is open: redrive or drop")
    async with feed(database, shop(), clock=Clock(OLD)) as feeding:
        await feeding.drop(1)
        await feeding.records(paid("o2"), shipped("o2"))
        await feeding.records(paid("o2"))
    [late] = await list_dead_letters(owner, "default", status="open")
    assert late.reason == "run closed"
    assert await kept() == "1 dead letter is open: redrive or drop"
    async with feed(database, shop(), clock=Clock(OLD)) as feeding:
        await feeding.drop(late.id)
    [soon] = (await pruned(owner, OLD + timedelta(days=20))).months or [None]
    assert soon is None, "it has not ended by then"

    async with feed_in(database, OLD) as feeding:
        await feeding.records(placed("o5"))
    async with feed(database, shop(), clock=Clock(A_YEAR_LATER)) as feeding:
        await feeding.records(paid("o5"), shipped("o5"))
    assert await kept() == "1 run was changed since 2025-06-01T00:00:00Z"
    [month] = (await pruned(owner, A_YEAR_LATER + timedelta(days=1))).months
    assert (month.dropped, month.runs) == (True, 3)


async def test_what_is_left_of_a_run_is_told_and_its_key_is_known_on(
    database: Database, owner: Connection, reader: Connection
) -> None:
    async with feed_in(database, OLD) as feeding:
        await lives(feeding, "o1")
    async with feed(database, shop()) as feeding:
        await lives(feeding, "o2")
    await pruned(owner)

    gone = r"The history of the run 'o1' of 'shop' is gone: the log of 2024-05.*by ana.*\(a year is enough\)"
    asked = "default", "shop", "o1"
    for ask in (history, show, passages_of):
        with pytest.raises(NotFoundError, match=gone):
            await ask(reader, *asked)
    with pytest.raises(NotFoundError, match=gone):
        await verify(reader, "default", run=("shop", "o1", None))
    async with feed(database, shop()) as feeding:
        with pytest.raises(NotFoundError, match=gone):
            await replay(reader, "default", feeding.machines, run=("shop", "o1", None))
        again = await replay(reader, "default", feeding.machines)
        assert (again.is_equal, again.runs) == (True, 1)
        assert again.notes == ("Left out, since their rows were dropped with the log of old months: 1.",)
        # Its last events are known again; what is new comes too late.
        await feeding.records(placed("o1", id="o1-placed"), paid("o1", id="one-more"))
    [run] = await list_runs(reader, "default", key="o1")
    assert (run.status, run.configuration, run.sequence) == ("completed", ["shipped"], 3)
    [again_placed] = (await explain(reader, "default", event_id="o1-placed")).answers
    assert again_placed.current.disposition == "duplicate"
    [late] = (await explain(reader, "default", event_id="one-more")).answers
    assert late.current.disposition == "late"
    unknown = await explain(reader, "default", event_id="o1-paid")
    assert not unknown.known
    [_, told] = unknown.notes
    assert told.startswith("The log was dropped of runs that had begun in 1 of the months up to 2024-05")
    report = await verify(reader, "default")
    assert (report.findings, report.runs, report.dropped, report.rows) == ((), 2, 1, 3)


async def test_a_row_that_is_missing_without_its_month_is_found_all_the_same(
    database: Database, owner: Connection, reader: Connection
) -> None:
    async with feed_in(database, OLD) as feeding:
        await lives(feeding, "o1")
    async with feed_in(database, LATER) as feeding:
        await lives(feeding, "o2")
    await pruned(owner, OLD + timedelta(days=30))
    await owner.execute("delete from pointsman.events")
    report: VerifyReport = await verify(reader, "default")
    assert [one.sentence for one in report.findings] == [
        "In the run 'o2' of shop, the run has no rows in the log."
    ]


async def test_what_events_with_business_keys_are_known_by_goes_with_their_rows(
    database: Database, owner: Connection, broken: set[str]
) -> None:
    class Filed(Event, type="filed", key="file"):
        file: str
        number: int

    flow = Pipeline("files", Context, topics=["files"])
    opened, closed = flow.state("open", initial=True), flow.state("closed", final=True)
    flow.start(Filed, lambda filed: Context())
    opened.on(Filed, to=closed, when=lambda _file, filed: filed.number == 2)
    flow.policy(Filed, duplicate_by="number")

    def filed(key: str, number: int) -> Any:
        return event("filed", {"file": key, "number": number}, topic="files")

    for at, key in ((OLD, "old"), (LATER, "later")):
        async with feed_in(database, at, flow) as feeding:
            await feeding.records(filed(key, 1))
            if key == "old":
                await feeding.records(filed(key, 2))
    count = "select count(*) from pointsman.taken_ids"
    assert await owner.fetchval(count) == 3
    await pruned(owner, dry_run=True)
    assert await owner.fetchval(count) == 3
    assert (await pruned(owner)).notes == 0
    assert await owner.fetchval(count) == 1, "that of the run that goes on"


async def test_notes_that_are_as_old_go_with_it(
    database: Database, owner: Connection, reader: Connection, broken: set[str]
) -> None:
    async def doubled_and_refused(feeding: Feeding, key: str) -> None:
        """A duplicate, a dead letter of no run, and one that had held the run; both dealt with."""
        await feeding.records(placed(key, id=f"{key}-placed"))
        await feeding.records(placed(key, id=f"{key}-placed"), shipped(f"no-{key}"))
        await feeding.records(event("order.broken", {"order_id": key}))
        letters = [one.id for one in await list_dead_letters(owner, "default", status="open")]
        await feeding.drop(*letters)
        await feeding.records(paid(key), shipped(key))

    async with feed_in(database, OLD) as feeding:
        await doubled_and_refused(feeding, "o1")
    async with feed_in(database, LATER) as feeding:
        await feeding.records(placed("o3"))
        await doubled_and_refused(feeding, "o2")
        await feeding.records(shipped("nobody"))
    await owner.execute("update pointsman.dead_letters set publishing = 'published', ended = at")

    async def left() -> tuple[int, int]:
        """Notes, and dead letters."""
        counts = [f"select count(*) from pointsman.{table}" for table in ("dispositions", "dead_letters")]
        return await owner.fetchval(counts[0]), await owner.fetchval(counts[1])

    tried = await pruned(owner, dry_run=True)
    assert (tried.notes, await left()) == (5, (2, 5))
    done = await pruned(owner)
    # What nobody has dealt with stays, and of the run whose month stays, what had held it: a replay asks for that.
    assert (done.notes, await left()) == (5, (0, 2))
    async with feed(database, shop()) as feeding:
        assert (await replay(reader, "default", feeding.machines)).is_equal
    assert (await verify(reader, "default")).is_clean
    unknown = await explain(reader, "default", event_id="never-seen")
    assert "What was noted before 2025-06-01T00:00:00Z of events that moved nothing" in unknown.notes[-1]
    assert (await pruned(owner)).notes == 0


async def test_a_key_that_starts_again_goes_on_counting(database: Database, owner: Connection) -> None:
    again = shop(closed="restart")
    async with feed_in(database, OLD, again) as feeding:
        await lives(feeding, "o1")
    await pruned(owner)
    async with feed(database, again) as feeding:
        await feeding.records(placed("o1"))
    found = await list_runs(owner, "default", key="o1")
    assert [(run.generation, run.status) for run in found] == [(1, "running"), (0, "completed")]
    assert (await verify(owner, "default")).is_clean


async def test_who_reads_for_long_is_not_waited_for(
    database: Database, owner: Connection, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed_in(database, OLD) as feeding:
        await lives(feeding, "o1")
    async with reader.transaction():
        await reader.fetch("select from pointsman.events")
        with monkeypatch.context() as hasty:
            hasty.setattr("engine.retention.LOCK_SECONDS_MAX", 0.05)
            [month] = (await pruned(owner)).months
    assert not month.dropped
    assert "try again later" in month.kept
    assert month.in_use
    [dropped] = (await pruned(owner)).months
    assert dropped == Month("2024-05", 1, dropped.bytes, dropped=True, kept="")


async def test_what_changes_until_nobody_writes_any_more_counts(
    database: Database, owner: Connection, reader: Connection
) -> None:
    async with feed_in(database, OLD) as feeding:
        await lives(feeding, "o1")
    engine = await connect(database.owner_dsn, for_engine=False)
    try:
        async with engine.transaction():
            # As who writes a row into it.
            await engine.execute("lock table pointsman.events_202405 in row exclusive mode")
            await engine.execute("update pointsman.runs set waiting = 1")
            pruning = asyncio.create_task(pruned(owner))
            while not await reader.fetchval(
                "select exists (select from pg_locks "
                "where relation = 'pointsman.events_202405'::regclass and not granted)"
            ):
                assert not pruning.done()
    finally:
        await engine.close()
    [month] = (await pruning).months
    assert (month.dropped, month.kept) == (False, "1 run has not ended")


class Weighed(Context):
    n: int


class Placed(Event, type="order.placed", key="order_id"):
    order_id: str
    n: int


class Shipped(Event, type="order.shipped", key="order_id"):
    order_id: str
    n: int


def in_order(closed: str) -> Pipeline[Weighed]:
    """Events count in order; what comes for a run that has ended is remembered, or not."""
    named: Any = closed
    flow = Pipeline("ordered", Weighed, topics=["orders"], closed=named)
    open_state, over = flow.state("open", initial=True), flow.state("over", final=True)
    for kind in (Placed, Shipped):
        flow.policy(kind, order_by="n")
    flow.start(Placed, lambda placed: Weighed(n=placed.n))
    open_state.on(Shipped, to=over)
    return flow


@pytest.mark.parametrize("closed", ["ignore", "dead_letter", "restart"])
async def test_what_comes_for_a_run_whose_rows_are_gone_stops_nothing(
    database: Database, owner: Connection, reader: Connection, closed: str
) -> None:
    async with feed_in(database, OLD, in_order(closed)) as feeding:
        for kind, n in (("order.placed", 1), ("order.shipped", 2)):
            await feeding.records(event(kind, {"order_id": "o1", "n": n}))
    [month] = (await pruned(owner)).months
    assert month.dropped
    async with feed(database, in_order(closed)) as feeding:
        await feeding.records(event("order.shipped", {"order_id": "o1", "n": 3}, id="late"))
    assert (await explain(reader, "default", event_id="late")).known
    assert (await verify(reader, "default")).is_clean
    assert (await pruned(owner)).months == ()


@pytest.mark.parametrize("reads", ["verify", "replay"])
async def test_no_month_goes_while_all_is_read(
    database: Database, owner: Connection, reader: Connection, monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    monkeypatch.setattr("engine.retention.LOCK_SECONDS_MAX", 0.05)
    module = "verify.verifying" if reads == "verify" else "replay.replaying"
    read_in = importlib.import_module(f"engine.reading.{module}")
    tried: list[Month] = []

    async def load_and_prune(connection: Connection) -> Dropped:
        found = await load_dropped(connection)
        tried.extend((await pruned(owner)).months)
        return found

    monkeypatch.setattr(read_in, "load_dropped", load_and_prune)
    async with feed_in(database, OLD) as feeding:
        await lives(feeding, "o1")
        if reads == "verify":
            assert (await verify(reader, "default")).is_clean
        else:
            assert (await replay(reader, "default", feeding.machines)).is_equal
    [month] = tried
    assert (month.dropped, month.in_use) == (False, True)


WAITS = {
    "something of it falls due": "update pointsman.runs set wake_at = now()",
    "it waits to hear of a step": (
        "insert into pointsman.executions (pipeline, home, run, sequence, number, step, attempt, again, error) "
        "select pipeline, 0, id, 1, 0, 'charge', 1, now(), '' from pointsman.runs"
    ),
    "it is held": "update pointsman.runs set held = 1",
    "something waits for it": "update pointsman.runs set waiting = 1",
}


@pytest.mark.parametrize("how", WAITS)
async def test_a_run_that_has_ended_and_still_waits_keeps_its_month(
    database: Database, owner: Connection, how: str
) -> None:
    async with feed_in(database, OLD) as feeding:
        await lives(feeding, "o1")
    await owner.execute(WAITS[how])
    [month] = (await pruned(owner)).months
    assert (month.dropped, month.kept) == (False, "1 run has not ended")


async def test_what_is_still_to_be_published_or_is_of_a_run_that_stays_is_kept(
    database: Database, owner: Connection, broken: set[str]
) -> None:
    async def ended(feeding: Feeding, key: str) -> None:
        await feeding.records(placed(key), event("order.broken", {"order_id": key}))
        [letter] = await list_dead_letters(owner, "default", status="open")
        await feeding.drop(letter.id)
        await feeding.records(paid(key), shipped(key))

    async with feed_in(database, OLD) as feeding:
        await ended(feeding, "o1")
    async with feed_in(database, LATER) as feeding:
        await ended(feeding, "o2")
        await feeding.records(placed("o3"))
    noted = (
        "insert into pointsman.operations (command, pipeline, key, what, run, done, answer, who, why, asked, at) "
        "select -id, pipeline, key, 'send', id, true, '', 'ana', 'a test', $2, $2 from pointsman.runs where key = $1"
    )
    for key in ("o1", "o2"):
        await owner.execute(noted, key, LATER)
    await owner.execute("update pointsman.dead_letters set ended = at, publishing = 'pending'")
    done = await pruned(owner)
    assert [one.dropped for one in done.months] == [True, False]
    left = "select key from pointsman.{} order by key"
    assert [row[0] for row in await owner.fetch(left.format("dead_letters"))] == ["o1", "o2"]
    assert [row[0] for row in await owner.fetch(left.format("operations"))] == ["o2"]
    await owner.execute("update pointsman.dead_letters set publishing = 'published'")
    await pruned(owner)
    assert [row[0] for row in await owner.fetch(left.format("dead_letters"))] == ["o2"]


async def test_months_that_engines_would_make_anew_stay(database: Database, owner: Connection) -> None:
    before = await partitions(owner)
    assert (await pruned(owner, datetime.now(UTC) + timedelta(days=365))).months == ()
    assert await partitions(owner) == before


async def test_only_the_owner_drops_anything(database: Database) -> None:
    async with feed_in(database, OLD) as feeding:
        await lives(feeding, "o1")
    for address in (database.engine_dsn, database.reader_dsn):
        connection = await connect(address, for_engine=False)
        try:
            with pytest.raises(UsageError, match="does not own the log"):
                await pruned(connection)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("drop table pointsman.events_202405")
        finally:
            await connection.close()


async def test_the_command_says_what_goes_and_what_stays(database: Database) -> None:
    async with feed_in(database, OLD) as feeding:
        await lives(feeding, "o1")
    async with feed_in(database, LATER) as feeding:
        await feeding.records(placed("o2"))
    on = {"POSTGRES": database.owner_dsn}
    tried = pointsman("prune", "--older-than", "400", "--dry-run", on=on)
    assert tried.code == 0, tried.err
    first, second, third = tried.out.splitlines()
    assert third == "No notes are as old."
    assert first.startswith("2024-05: 1 run, ")
    assert first.endswith(" MB: would be emptied.")
    assert second.endswith(" MB: kept, since 1 run has not ended.")
    done = pointsman("prune", "--older-than", "400", "--reason", "as agreed", on=on)
    assert done.out.splitlines()[0].endswith(": emptied.")
    none = pointsman("prune", "--older-than", "30000", on=on)
    assert none.out.startswith("No month of the log ended before ")
    assert none.out.endswith("\nNo notes are as old.\n")
    refused = pointsman("prune", "--older-than", "400", on={"POSTGRES": database.engine_dsn})
    assert (refused.code, "does not own the log" in refused.err) == (2, True)
    gone = pointsman("history", "shop", "o1", on={"POSTGRES": database.reader_dsn})
    assert (gone.code, "(as agreed)" in gone.err) == (1, True)
