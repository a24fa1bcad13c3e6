"""How often attempts may begin is forgotten beside engines that note it, in a real Postgres."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from engine.store.connecting import Connection
from engine.store.queries import load
from tests.charging import TOPIC, charging_pipeline
from tests.feeding import event, feed
from tests.services import Database

NOTE = load("limits")["note_rates"]
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


async def test_rates_are_forgotten_beside_who_notes_them_in_another_order(
    database: Database, engine: Connection, reader: Connection
) -> None:
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(event("order.placed", {"order": "o1", "amount": 1}, topic=TOPIC))
        [route] = feeding.topics.pipelines

        async def note(value: str, due: datetime) -> None:
            await engine.execute(NOTE, [route.pipeline], ["charge"], [value], [due])

        for value in ("a", "b", "c"):
            await note(value, LONG_AGO)
        due = datetime.now(UTC)
        async with engine.transaction():
            await note("b", due)
            async with asyncio.timeout(10):
                await feeding.store.keep_up(due)
            await note("a", due)
        assert await reader.fetch("select limited_by, next from pointsman.step_rates order by 1") == [
            ("a", due),
            ("b", due),
        ]
