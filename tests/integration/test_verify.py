"""A clean store is found clean, and every way to tamper with one is found."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from connectors.source import RawRecord
from engine.reading import NotFoundError, VerifyReport, set_position, verify
from engine.store.connecting import Connection, connect
from tests.feeding import event, feed, raw
from tests.services import Database
from tests.shop import shop


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[Connection]:
    """Whoever may do everything, as someone who tampers with the store."""
    connection = await connect(database.owner_dsn, for_engine=False)
    yield connection
    await connection.close()


async def fill(database: Database) -> None:
    """o1 is paid, o2 is held with two events behind, o3 is shipped; and some dead letters hold nothing."""
    async with feed(database, shop(), shop(name="audit")) as feeding:
        await feeding.records(*(_placed(key) for key in ("o1", "o2", "o3")), raw(b"nonsense"))
        await feeding.records(
            event("order.noted", {"order_id": "o1", "text": "x"}),
            event("order.broken", {"order_id": "o2"}),
            event("order.noted", {"order_id": "o2"}),
            event("order.noted", {"order_id": "o2"}, partition=1),
            event("order.paid", {"order_id": "o3", "amount": 5}),
        )
        await feeding.records(
            event("order.paid", {"order_id": "o1", "amount": 5}),
            event("order.shipped", {"order_id": "o3"}),
            event("order.shipped", {"order_id": "o1000"}),
        )


def _placed(key: str) -> RawRecord:
    return event("order.placed", {"order_id": key, "amount": 5})


async def sentences(reader: Connection) -> list[str]:
    return [one.sentence for one in (await verify(reader, "default")).findings]


async def test_a_store_as_the_engine_leaves_it_is_clean(database: Database, reader: Connection) -> None:
    await fill(database)
    told: list[tuple[int, int]] = []
    report = await verify(reader, "default", progress=lambda runs, rows: told.append((runs, rows)))
    assert report.as_json() == {
        "namespace": "default",
        "clean": True,
        "runs": 6,
        "rows": 2 * (3 + 4 + 3),
        "dropped": 0,
        "published": report.published,
        "findings": [],
        "more": 0,
    }
    assert report.published == 4 + 4 + 1, "payments, and dead letters of two pipelines, one of them for both"
    assert told == [(6, 20)]


async def test_a_store_is_clean_after_redrives_drops_and_positions_set_back(
    database: Database, reader: Connection, broken: set[str]
) -> None:
    await fill(database)
    engine = await connect(database.engine_dsn, for_engine=False)
    async with feed(database, shop(), shop(name="audit")) as feeding:
        await feeding.drop(2)
        broken.clear()
        await feeding.redrive(3)
        await feeding.redrive(1, 4, 5)
        await set_position(engine, "default", "orders", 0, 0, who="ana", why="read it again")
    await engine.close()
    report = await verify(reader, "default")
    assert report.findings == ()


async def test_a_run_with_a_long_history_is_clean(database: Database, reader: Connection) -> None:
    many = [event("order.noted", {"order_id": "o1", "text": str(number)}) for number in range(1200)]
    async with feed(database, shop()) as feeding:
        await feeding.records(_placed("o1"), *many)
        await feeding.records(*many[:40])
    report = await verify(reader, "default", run=("shop", "o1", None))
    assert (report.is_clean, report.runs, report.rows) == (True, 1, 1201)


ROW_CHANGES = (
    "payload = payload || 'x'",
    "type = 'order.other'",
    "event_id = event_id || 'x'",
    "configuration = 'nowhere'",
    "context = 'x'",
    "effects = '[]'",
    "envelope = envelope || 'x'",
    "at = at + interval '1 microsecond'",
    "status = 7",
    "digest = digest + 1",
    '"offset" = 0',
    "hash = sha256(hash)",
)


async def test_any_column_of_a_row_that_is_changed_breaks_the_chain(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    run = await owner.fetchval("select max(run) from pointsman.events where sequence = 3 and kind = 2")
    await owner.execute(f"create table kept as select * from pointsman.events where run = {run}")
    for change in ROW_CHANGES:
        changed = f"update pointsman.events set {change} where run = {run} and sequence = 2"
        assert await owner.execute(changed) == "UPDATE 1"
        [first, *_] = (await verify(reader, "default")).findings
        assert "its hash does not fit: row 2" in first.sentence, change
        assert (first.pipeline, first.sequence) == ("audit", 2)
        await owner.execute(f"delete from pointsman.events where run = {run}")
        await owner.execute("insert into pointsman.events select * from kept")
        assert (await verify(reader, "default")).is_clean


RUN_CHANGES = {
    "sequence = sequence + 1": "sequence is",
    "held = 0": "held is 0 in the run's row, and 2 by its log",
    "waiting = 5": "waiting is 5",
    "status = 2": "status is 2",
    "configuration = 'paid'": "configuration is paid in the run's row, and placed by its log",
    "context = '{}'": 'context is {} in the run\'s row, and {"amount":5,',
    "recent = ''": "recent is",
    "hash = sha256(hash)": "hash is",
    "updated = updated + interval '1 second'": "updated is",
    "started = started - interval '1 second'": "started is",
    "definition = definition + 1": "definition is",
}


async def test_any_column_of_a_run_that_is_changed_differs_from_its_fold(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    run = await owner.fetchval("select id from pointsman.runs where key = 'o2' and pipeline = 1")
    await owner.execute(f"create table kept as select * from pointsman.runs where id = {run}")
    for change, says in RUN_CHANGES.items():
        await owner.execute(f"update pointsman.runs set {change} where id = {run}")
        found = await sentences(reader)
        assert any(f"In the run 'o2' of shop, {says}" in one for one in found), (change, found)
        await owner.execute(f"delete from pointsman.runs where id = {run}")
        await owner.execute("insert into pointsman.runs select * from kept")
    assert (await verify(reader, "default")).is_clean


async def test_missing_rows_and_runs_are_found(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute(
        "delete from pointsman.events where sequence = 2 "
        "and run = (select id from pointsman.runs where key = 'o1' and pipeline = 1)"
    )
    assert "In the run 'o1' of shop, row 2 is missing: 3 comes next." in await sentences(reader)
    gone = await owner.fetchval("delete from pointsman.runs where key = 'o3' and pipeline = 1 returning id")
    assert f"The log has 3 rows of run number {gone}, and there is no such run." in await sentences(reader)
    await owner.execute(
        "delete from pointsman.events "
        "where run = (select id from pointsman.runs where key = 'o1' and pipeline = 1)"
    )
    assert "In the run 'o1' of shop, the run has no rows in the log." in await sentences(reader)


async def test_the_last_row_that_is_missing_shows_in_the_run(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute(
        "delete from pointsman.events where sequence = 3 and run in (select id from pointsman.runs where key = 'o1')"
    )
    assert "In the run 'o1' of shop, sequence is 3 in the run's row, and 2 by its log." in await sentences(
        reader
    )


async def test_an_applied_offset_beyond_the_position_is_found(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute("update pointsman.positions set position = 9 where partition = 0")
    assert any(
        "row 3 applied offset 9 of orders/0, which has come to 9" in one for one in await sentences(reader)
    )


async def test_a_record_that_moved_two_runs_is_found(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute('update pointsman.events set "offset" = 0 where sequence = 1 and "offset" = 1')
    assert any("Offset 0 of orders/0 was consumed 2 times for shop" in one for one in await sentences(reader))


async def test_holds_and_their_dead_letters_must_fit(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute("update pointsman.dead_letters set status = 'dropped' where sequence is not null")
    assert (
        "In the run 'o2' of shop, row 2 holds the run, and no open dead letters say so; it should be one."
        in (await sentences(reader))
    )
    await owner.execute(
        "update pointsman.dead_letters set status = 'open', sequence = 3 where sequence is not null"
    )
    assert any(
        "is open and should hold the run 'o2' of shop since row 3, and does not" in one
        for one in await sentences(reader)
    )


async def test_events_that_wait_must_be_those_of_the_log(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute("delete from pointsman.waiting where sequence = 4")
    await owner.execute("insert into pointsman.waiting (run, sequence, digest) values (5, 1, 1)")
    found = await sentences(reader)
    assert any(
        "the events that wait are those of the rows 3 by their table, and 3, 4 by its log" in one
        for one in found
    )
    assert "An event waits in run number 5, and there is no such run." in found


async def test_a_changed_definition_is_found(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute("update pointsman.definitions set structure = structure || ' ' where id = 1")
    assert (
        "Definition 1 (shop version 1) was changed: its structure does not have its hash."
        in await sentences(reader)
    )


async def test_rows_of_another_pipelines_definition_are_found(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute("update pointsman.events set definition = 2 where definition = 1 and sequence = 3")
    assert any("row 3 names definition 2, which is none of shop" in one for one in await sentences(reader))


async def test_the_outbox_must_be_whole(database: Database, reader: Connection, owner: Connection) -> None:
    await fill(database)
    assert (await verify(reader, "default")).is_clean
    await owner.execute("update pointsman.outbox set blob = 'nonsense' where sequence = 1")
    assert any(
        "Row 1 of lane 0 of the outbox: A row of the outbox cannot be read" in one
        for one in await sentences(reader)
    )
    await owner.execute("delete from pointsman.outbox where sequence = 2")
    assert "Lane 0 of the outbox should have the rows 1 to 3, and has 2 rows, 1 to 3." in await sentences(
        reader
    )
    await owner.execute("delete from pointsman.outbox where sequence < 3")
    await owner.execute("update pointsman.lanes set deleted = 2")
    assert (await verify(reader, "default")).is_clean


async def test_one_run_can_be_checked_alone(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute("update pointsman.runs set waiting = 9 where key = 'o2'")
    clean = await verify(reader, "default", run=("shop", "o1", None))
    assert (clean.is_clean, clean.runs, clean.rows) == (True, 1, 3)
    dirty: VerifyReport = await verify(reader, "default", run=("shop", "o2", 0))
    assert [one.as_json()["key"] for one in dirty.findings] == ["o2"]
    with pytest.raises(NotFoundError):
        await verify(reader, "default", run=("shop", "o9", None))


async def test_a_row_of_an_unknown_kind_is_a_finding_and_no_crash(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute("update pointsman.events set kind = 77 where sequence = 2")
    found = await sentences(reader)
    assert any("row 2 cannot be folded: 77 is no kind of row that this version knows" in one for one in found)


async def test_other_namespaces_are_left_alone(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    async with feed(database, shop(), namespace="other") as feeding:
        await feeding.records(_placed("o1"))
    await owner.execute("update pointsman.runs set waiting = 9 where key <> 'o1' or sequence > 1")
    assert (await verify(reader, "other")).as_json() == {
        "namespace": "other",
        "clean": True,
        "runs": 1,
        "rows": 1,
        "dropped": 0,
        "published": 0,
        "findings": [],
        "more": 0,
    }
    assert (await verify(reader, "nowhere")).runs == 0
