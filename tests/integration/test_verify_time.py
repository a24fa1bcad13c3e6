"""Time, deferral and generations are found clean, and what was changed of them by another hand is found."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.reading import verify
from engine.store.connecting import Connection, connect
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
