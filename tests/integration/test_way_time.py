"""The way of a run that timers have led, that began late, and that has sent events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from connectors.source import RawRecord
from engine.reading.way import passages_of
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from statemachines.way import find_way
from tests.feeding import BEGINS, event, feed
from tests.files import TOPIC as FILES
from tests.files import files
from tests.journey import TOPIC, journey_pipeline, ledger_pipeline
from tests.services import Database


def told(kind: str, **data: Any) -> RawRecord:
    return event(f"journey.{kind}", {"journey": "j1", **data}, topic=TOPIC)


async def test_the_way_has_timers_deferred_events_and_what_the_run_sent_to_itself(
    database: Database, reader: Connection
) -> None:
    async with feed(database, journey_pipeline(), ledger_pipeline()) as feeding:
        await feeding.records(told("boarded"), told("booked"), told("paid"))
        await feeding.due(BEGINS + timedelta(hours=2))
        await feeding.records(told("arrived"))
        await feeding.commands()
    found = await passages_of(reader, "default", "journey", "j1")
    assert [(one.before, one.after) for one, _ in found.passages] == [
        (None, "booked"),
        ("booked", "paid"),
        ("paid", "paid"),
        ("paid", "ready"),
        ("ready", "aboard"),
        ("aboard", "late"),
        ("late", "arrived"),
    ]
    way = find_way(compile_pipeline(journey_pipeline()), found.passages)
    assert way.unexplained.times == 0
    assert {state: rows.first for state, rows in way.entered.items()} == {
        "booked": [2],
        "paid": [3],
        "ready": [6],
        "aboard": [7],
        "late": [8],
        "arrived": [9],
    }
    [start] = way.starts.values()
    assert start.first == [2], "the row before it only let an event wait"
    counted = await passages_of(reader, "default", "ledger", "all")
    assert find_way(compile_pipeline(ledger_pipeline()), counted.passages).unexplained.times == 0


async def test_what_a_run_sends_to_others_later_is_no_way_of_its_own(
    database: Database, reader: Connection
) -> None:
    async with feed(database, files(), ledger_pipeline()) as feeding:
        await feeding.records(
            event("file.seen", {"file": "f1", "version": 1}, topic=FILES),
            event("file.announced", {"file": "f1"}, topic=FILES),
        )
        await feeding.due(BEGINS + timedelta(hours=2))
    assert await reader.fetchval("select sequence from pointsman.runs") == 4
    found = await passages_of(reader, "default", "file", "f1")
    assert [one.type for one, _ in found.passages] == ["file.seen", "file.announced"]
