"""A batch of more events than are loaded at once: its later events rest on what its earlier ones did."""

from __future__ import annotations

import random

import asyncpg
import pytest

from connectors.source import RawRecord
from engine.session.committer import EVENTS_LOADED_AT_ONCE
from engine.store import copying
from tests.feeding import event, feed
from tests.services import Database
from tests.shop import shop

RUNS = 40
NOTES = EVENTS_LOADED_AT_ONCE * 3
SEED = 7


def placed(number: int) -> RawRecord:
    return event("order.placed", {"order_id": f"o{number}", "amount": 5}, id=f"placed-{number}")


def noted(number: int, note: int) -> RawRecord:
    return event("order.noted", {"order_id": f"o{number}", "text": str(note)}, id=f"noted-{note}")


@pytest.mark.parametrize("message_bytes_max", [copying.MESSAGE_BYTES_MAX, 5_000], ids=["whole", "in pieces"])
async def test_each_event_of_a_large_batch_is_applied_once_and_in_order(
    database: Database, monkeypatch: pytest.MonkeyPatch, message_bytes_max: int
) -> None:
    monkeypatch.setattr(copying, "MESSAGE_BYTES_MAX", message_bytes_max)
    # Half of the runs are there before; the others begin in the batch, in front of their notes. One note in ten comes
    # again right away, and all of the first hundred at the end, when their runs have forgotten them.
    notes = [noted(note % RUNS, note) for note in range(NOTES)]
    batch = [placed(number) for number in range(RUNS // 2, RUNS)]
    chance = random.Random(SEED)
    for one in notes:
        batch += [one, one] if chance.random() < 0.1 else [one]
    batch += notes[:100]
    async with feed(database, shop()) as feeding:
        await feeding.records(*(placed(number) for number in range(RUNS // 2)))
    async with feed(database, shop()) as feeding:
        await feeding.records(*batch)
    async with feed(database, shop()) as feeding:
        # No run knows these by itself any more; the log does.
        await feeding.records(*notes[: NOTES // 2])
    connection = await asyncpg.connect(database.reader_dsn)
    try:
        told = await connection.fetch(
            "select r.key, array_agg(e.event_id order by e.sequence) as ids "
            "from pointsman.runs r join pointsman.events e on e.run = r.id group by r.key"
        )
        doubled = await connection.fetchval("select count(*) from pointsman.dispositions")
        refused = await connection.fetchval("select count(*) from pointsman.dead_letters")
    finally:
        await connection.close()
    assert {row["key"]: row["ids"] for row in told} == {
        f"o{number}": [f"placed-{number}", *(f"noted-{note}" for note in range(number, NOTES, RUNS))]
        for number in range(RUNS)
    }
    assert (doubled, refused) == (len(batch) - RUNS // 2 - NOTES + NOTES // 2, 0)
