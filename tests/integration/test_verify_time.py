"""Time, deferral and generations are found clean, and what was changed of them by another hand is found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.log import Kind, LogRow, append
from engine.reading import verify
from engine.reading.catalog import load_catalog
from engine.reading.verify.chains import Chain
from engine.reading.walking import Rows, runs_in_order
from engine.store.connecting import Connection, connect
from tests import journey
from tests.feeding import BEGINS, event, feed
from tests.journey import PAY_WITHIN, TOPIC, journey_pipeline, ledger_pipeline
from tests.services import Database


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[Connection]:
    """Whoever may do everything, as someone who tampers with the store."""
    connection = await connect(database.owner_dsn, for_engine=False)
    yield connection
    await connection.close()


def told(kind: str, key: str = "j1", **data: Any) -> RawRecord:
    return event(f"journey.{kind}", {"journey": key, **data}, topic=TOPIC)


async def fill(database: Database) -> None:
    """j1 has lapsed and begun again; j2 waits to be aboard; two journeys have arrived and were counted."""
    async with feed(database, journey_pipeline(), ledger_pipeline()) as feeding:
        await feeding.records(told("booked"))
        await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1))
        await feeding.records(told("booked"), told("booked", "j2"), told("boarded", "j2"))
        for key in ("j3", "j4"):
            await feeding.records(*(told(kind, key) for kind in ("booked", "paid", "boarded", "arrived")))
            await feeding.commands()


async def sentences(reader: Connection) -> list[str]:
    return [one.sentence for one in (await verify(reader, "default")).findings]


async def test_it_is_clean_with_events_that_no_record_caused(database: Database, reader: Connection) -> None:
    await fill(database)
    assert await sentences(reader) == []
    counted = await reader.fetchval("select count(*) from pointsman.events where type = 'ledger.counted'")
    assert counted == 2, "which were consumed without a position, each once"


@pytest.mark.parametrize("change", ["wake_at + interval '1 second'", "null"])
async def test_a_time_to_wake_that_nothing_tells_is_found(
    database: Database, reader: Connection, owner: Connection, change: str
) -> None:
    await fill(database)
    await owner.execute(f"update pointsman.runs set wake_at = {change} where key = 'j2'")
    [said] = await sentences(reader)
    assert said.startswith("In the run 'j2' of journey, the next that falls due is due at ")
    assert said.endswith(
        "by the run's row, and 2026-03-01T12:08:03Z by what it remembers and what waits for it."
    )


async def test_a_time_to_wake_of_a_run_that_has_ended_is_found(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute("update pointsman.runs set wake_at = now() where key = 'j3'")
    [said] = await sentences(reader)
    assert said.endswith("by the run's row, and no time by what it remembers and what waits for it.")


async def test_an_event_that_waits_longer_than_its_row_says_is_found(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute("update pointsman.waiting set until = until + interval '1 day'")
    [said] = await sentences(reader)
    assert said.startswith("In the run 'j2' of journey, the event of row 2 waits until 2026-03-03T12:")
    assert ":03Z by its table, and until 2026-03-02T12:" in said
    await owner.execute("update pointsman.waiting set until = null")
    [said] = await sentences(reader)
    assert "the event of row 2 waits behind what holds the run by its table, and until 2026-03-02T12:" in said
    await owner.execute("delete from pointsman.waiting")
    [said] = await sentences(reader)
    assert "are those of the rows none by their table, and 2 by its log" in said


async def test_generations_out_of_place_are_found(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute("update pointsman.runs set generation = 2 where key = 'j1' and generation = 1")
    assert await sentences(reader) == [
        "Generation 2 of the run 'j1' of journey is out of place: there is none before it."
    ]
    await owner.execute("update pointsman.runs set generation = 1 where key = 'j1' and generation = 2")
    await owner.execute("update pointsman.runs set status = 1 where key = 'j1' and generation = 0")
    found = await sentences(reader)
    assert (
        "Generation 1 of the run 'j1' of journey is out of place: generation 0 had not ended when it began."
        in found
    )


async def test_an_event_that_two_generations_consumed_is_found(
    database: Database, reader: Connection, owner: Connection
) -> None:
    await fill(database)
    await owner.execute("""
        update pointsman.events e set digest = f.digest
        from pointsman.events f join pointsman.runs r on r.id = f.run, pointsman.runs s
        where s.id = e.run and e.sequence = 1 and f.sequence = 1 and r.key = 'j1' and s.key = 'j1'
            and r.generation = 0 and s.generation = 1
    """)
    found = await sentences(reader)
    assert any("which generation 0 had consumed in row 1." in said for said in found), found


async def chained(reader: Connection, key: str, change: Callable[[list[LogRow]], list[LogRow]]) -> list[str]:
    """What is found in the log of a run that someone has changed, and sealed anew from its beginning."""
    async with reader.transaction(readonly=True):
        catalog = await load_catalog(reader, "default")
        found = [
            (pipeline, run, [row async for row in Rows(reader, [run.id]).of(run.id)])
            async for some in runs_in_order(reader, list(catalog.pipelines), None)
            for pipeline, run in some
            if run.key == key
        ]
    pipeline, run, rows = found[0]
    chain, previous, said = Chain(pipeline, run, catalog), b"", []
    for sequence, row in enumerate(change(rows), 1):
        sealed = append(previous, row._replace(sequence=sequence)[:-1])
        previous = sealed.hash
        said += [finding.sentence for finding in chain.take(sealed)]
    return said


def fired(rows: list[LogRow]) -> LogRow:
    return next(row for row in rows if row.kind == Kind.FIRED)


async def test_what_happened_twice_is_found_in_the_log_alone(database: Database, reader: Connection) -> None:
    await fill(database)
    assert await chained(reader, "j1", lambda rows: rows) == []
    assert await chained(reader, "j3", lambda rows: rows) == []

    def twice(rows: list[LogRow]) -> list[LogRow]:
        at = rows.index(fired(rows))
        return [*rows[: at + 1], *rows[at:]]

    for key in ("j1", "j3"):
        said = await chained(reader, key, twice)
        assert any("was not to come: the run never asked for it, or it had come." in one for one in said), (
            said
        )


async def test_what_happened_and_is_still_to_come_is_found(database: Database, reader: Connection) -> None:
    await fill(database)

    def kept(rows: list[LogRow]) -> list[LogRow]:
        at = rows.index(fired(rows))
        return [*rows[:at], rows[at]._replace(memory=b""), *rows[at + 1 :]]

    said = await chained(reader, "j1", kept)
    assert "to come once more, which has happened with it." in said[0]


async def test_what_nobody_asked_for_is_found(database: Database, reader: Connection) -> None:
    await fill(database)

    def another(rows: list[LogRow]) -> list[LogRow]:
        at = rows.index(fired(rows))
        return [*rows[:at], rows[at]._replace(event_id="another"), *rows[at + 1 :]]

    def comes_again(rows: list[LogRow]) -> list[LogRow]:
        # As it was before it happened.
        at = rows.index(fired(rows))
        return [*rows[: at + 1], rows[at + 1]._replace(memory=rows[at - 1].memory), *rows[at + 2 :]]

    assert "(fired) tells of 'another', which was not to come" in (await chained(reader, "j1", another))[0]
    said = await chained(reader, "j1", comes_again)
    assert any("it says that row 1 asked for it." in one for one in said), said


async def test_what_failed_and_was_put_back_is_clean(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked"))
        monkeypatch.setattr(journey, "NOTED", None)
        await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1))
        await feeding.redrive(1)
        monkeypatch.setattr(journey, "NOTED", "noted")
        await feeding.redrive(2)
    assert await sentences(reader) == []
    kinds = [row["kind"] for row in await reader.fetch("select kind from pointsman.events order by sequence")]
    assert kinds[-5:] == [Kind.HELD_FIRED, Kind.RELEASED, Kind.HELD_FIRED, Kind.RELEASED, Kind.FIRED]
