"""Dead letters of timers, of events between runs and of deferred ones: listed, shown, redriven and dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest

from connectors.source import RawRecord
from engine.outbox import decode
from engine.reading import (
    Became,
    ask_drop,
    ask_redrive,
    history,
    list_dead_letters,
    list_runs,
    show,
    show_dead_letter,
    verify,
    wait_until_taken,
)
from engine.store.connecting import Connection, connect
from statemachines.effects import Out
from tests import journey
from tests.feeding import BEGINS, Feeding, event, feed
from tests.journey import PAY_WITHIN, TOPIC, journey_pipeline, ledger_pipeline
from tests.services import Database


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Connection]:
    connection = await connect(database.engine_dsn, for_engine=False)
    yield connection
    await connection.close()


def told(kind: str, id: str | None = None, **data: Any) -> RawRecord:
    return event(f"journey.{kind}", {"journey": "j1", **data}, id=id, topic=TOPIC)


async def become(feeding: Feeding, engine: Connection, letter: int, *, drop: bool = False) -> Became:
    """Ask as the command line does, have the engine take it up, and tell what became of it."""
    ask = ask_drop if drop else ask_redrive
    asked = await ask(engine, "default", [letter], who="ana", why="mended")
    await feeding.commands()
    [became] = await wait_until_taken(engine, "default", asked, seconds=0)
    assert became.taken
    return became


async def kinds(reader: Connection, pipeline: str = "journey", key: str = "j1") -> list[str]:
    return [row.event.kind for row in await history(reader, "default", pipeline, key)]


async def check_books(reader: Connection) -> None:
    verified = await verify(reader, "default")
    assert verified.is_clean, verified


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Notes fail until it is undone."""
    monkeypatch.setattr(journey, "NOTED", None)
    return monkeypatch


async def test_the_dead_letter_of_a_timer_has_no_place_and_says_so(
    database: Database, reader: Connection, failing: pytest.MonkeyPatch
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked"))
        await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1))
    [letter] = await list_dead_letters(reader, "default")
    found = letter.as_json()
    assert (found["topic"], found["partition"], found["offset"]) == ("", None, None)
    assert (found["pipeline"], found["key"], found["reason"]) == ("journey", "j1", "action raised")
    shown = await show_dead_letter(reader, "default", letter.id)
    assert (shown.holds, shown.sequence, shown.record.topic, shown.record.offset) == (True, 3, "", None)
    assert orjson.loads(shown.record.value or b"")["id"] == letter.event_id
    blobs = [row[0] for row in await reader.fetch("select blob from pointsman.outbox")]
    [record] = [one for blob in blobs for one in decode(blob) if one.topic == shown.dead_letter_topic]
    headers = dict(record.headers)
    assert shown.dead_letter_topic == f"{TOPIC}.dead-letters"
    assert headers["pointsman-run"] == b"j1"
    assert not {"pointsman-topic", "pointsman-partition", "pointsman-offset"} & headers.keys()


async def test_a_timer_that_failed_is_redriven_once(
    database: Database, reader: Connection, engine: Connection, failing: pytest.MonkeyPatch
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked"))
        await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1))
        again = await become(feeding, engine, 1)
        assert (again.status, again.disposition) == ("redriven", "dead-lettered"), "it fails again"
        failing.undo()
        mended = await become(feeding, engine, 2)
        assert (mended.status, mended.disposition) == ("redriven", "applied")
        assert "moved the run 'j1' of journey from booked to lapsed (row 7)" in mended.sentence
    assert await kinds(reader) == [
        "started", "fired", "held fired", "released", "held fired", "released", "fired",
    ]  # fmt: skip
    await check_books(reader)


async def test_a_timer_that_failed_is_dropped_and_the_run_goes_on_without_it(
    database: Database, reader: Connection, engine: Connection, failing: pytest.MonkeyPatch
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked"))
        await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1))
        await feeding.records(told("paid"))
        failing.undo()
        dropped = await become(feeding, engine, 1, drop=True)
        assert (dropped.status, dropped.disposition) == ("dropped", "dead-lettered")
    run = await show(reader, "default", "journey", "j1")
    assert (run.status, run.configuration) == ("running", ["ready"])
    assert [one.state for one in run.memory.due] == [None], "only the timer of the run is left"
    await check_books(reader)


def fail(_ledger: journey.Ledger, _event: journey.Counted) -> Out:
    raise ValueError("the book is full")


async def send(feeding: Feeding) -> None:
    await feeding.records(*(told(kind) for kind in ("booked", "paid", "boarded", "arrived")))
    await feeding.commands()


async def test_an_event_of_another_run_that_failed_is_redriven(
    database: Database, reader: Connection, engine: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journey, "add", fail)
    async with feed(database, journey_pipeline(), ledger_pipeline()) as feeding:
        await send(feeding)
    monkeypatch.undo()
    [letter] = await list_dead_letters(reader, "default")
    assert (letter.pipeline, letter.key, letter.topic, letter.offset) == ("ledger", "all", "", None)
    async with feed(database, journey_pipeline(), ledger_pipeline()) as feeding:
        mended = await become(feeding, engine, letter.id)
    assert (mended.status, mended.disposition) == ("redriven", "started")
    [run] = await list_runs(reader, "default", pipeline="ledger")
    assert run.context == {"journeys": ["j1"]}
    await check_books(reader)


async def test_an_event_of_another_run_that_holds_is_redriven_before_what_waits_or_dropped(
    database: Database, reader: Connection, engine: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(ledger: journey.Ledger, event: journey.Counted) -> None:
        if event.journey == "j1" and journey.NOTED is None:
            raise ValueError("the book is full")
        ledger.journeys.append(event.journey)

    monkeypatch.setattr(journey, "add", count)
    async with feed(database, journey_pipeline(), ledger_pipeline()) as feeding:
        for key in ("j0", "j1", "j2"):
            await feeding.records(
                *(told(kind, journey=key) for kind in ("booked", "paid", "boarded", "arrived"))
            )
            monkeypatch.setattr(journey, "NOTED", None if key == "j1" else "noted")
            await feeding.commands()
            monkeypatch.setattr(journey, "NOTED", "noted")
        assert await kinds(reader, "ledger", "all") == ["started", "held", "waited"]
        mended = await become(feeding, engine, 1)
        assert (mended.status, mended.disposition) == ("redriven", "applied")
    [run] = await list_runs(reader, "default", pipeline="ledger")
    assert run.context == {"journeys": ["j0", "j1", "j2"]}
    await check_books(reader)


async def test_an_event_of_another_run_is_dropped(
    database: Database, reader: Connection, engine: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journey, "add", fail)
    async with feed(database, journey_pipeline(), ledger_pipeline()) as feeding:
        await send(feeding)
        dropped = await become(feeding, engine, 1, drop=True)
    assert (dropped.status, dropped.disposition) == ("dropped", "dead-lettered")
    assert "Dropped by ana" in dropped.sentence
    assert await list_runs(reader, "default", pipeline="ledger") == []


async def test_an_event_that_waited_too_long_waits_again_or_is_taken_when_it_is_redriven(
    database: Database, reader: Connection, engine: Connection
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("paid", "early"))
        await feeding.due(BEGINS + timedelta(minutes=11))
        shown = await show_dead_letter(reader, "default", 1)
        assert (shown.letter.reason, shown.letter.topic, shown.letter.offset) == ("waited too long", TOPIC, 0)
        assert shown.policy.startswith("its time to live ended at 2026-03-01T12:10:01Z")
        again = await become(feeding, engine, 1)
        assert (again.status, again.disposition) == ("redriven", "deferred")
        await feeding.due(BEGINS + timedelta(minutes=30))
        await feeding.records(told("booked"))
        taken = await become(feeding, engine, 2)
        assert (taken.status, taken.disposition) == ("redriven", "applied")
    assert (await kinds(reader))[:5] == ["deferred", "left deferred", "deferred", "left deferred", "started"]
    await check_books(reader)


async def test_a_deferred_event_that_fails_once_it_is_taken_is_redriven_or_dropped(
    database: Database, reader: Connection, engine: Connection, failing: pytest.MonkeyPatch
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        for key in ("j1", "j2"):
            await feeding.records(
                told("booked", journey=key),
                told("boarded", f"early-{key}", journey=key),
                told("paid", journey=key),
            )
        letters = {one.key: one for one in await list_dead_letters(reader, "default")}
        assert (await kinds(reader))[-1] == "held deferred"
        assert [one.reason for one in letters.values()] == ["action raised"] * 2
        failing.undo()
        mended = await become(feeding, engine, letters["j1"].id)
        assert (mended.status, mended.disposition) == ("redriven", "applied")
        dropped = await become(feeding, engine, letters["j2"].id, drop=True)
        assert (dropped.status, dropped.disposition) == ("dropped", "dead-lettered")
    states = {run.key: run.configuration for run in await list_runs(reader, "default")}
    assert states == {"j1": ["aboard"], "j2": ["ready"]}
    await check_books(reader)
