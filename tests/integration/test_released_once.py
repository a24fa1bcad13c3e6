"""What waits for its definition goes on by an engine that has it, asked to once, however often that begins anew."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.reading import list_runs
from engine.store.connecting import Connection
from tests.feeding import event, feed
from tests.operators import ask_pipeline
from tests.services import Database
from tests.shop import shop

ASKED = "select count(*) from pointsman.inbox where command = 'release'"
NAMES = "o1", "o2"


def placed(order: str) -> RawRecord:
    return event("order.placed", {"order_id": order, "amount": 5})


def noted(order: str) -> RawRecord:
    return event("order.noted", {"order_id": order, "text": "later"})


async def outcomes(reader: Connection) -> list[tuple[str, Any]]:
    """Of each run, its status and what was noted."""
    return [(run.status, run.context and run.context["notes"]) for run in await list_runs(reader, "default")]


async def test_a_run_is_asked_to_go_on_once_while_its_pipeline_is_paused(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(version=1)) as feeding:
        await feeding.records(*map(placed, NAMES))
    async with feed(database, shop(version=2)) as feeding:
        await feeding.records(*map(noted, NAMES))
        await ask_pipeline(feeding, "pause", "shop")
    assert await reader.fetchval(ASKED) == 0
    for _ in range(3):
        async with feed(database, shop(version=1), shop(version=2)) as feeding:
            await feeding.commands()
            assert await reader.fetchval(ASKED) == len(NAMES)
    async with feed(database, shop(version=1), shop(version=2)) as feeding:
        await ask_pipeline(feeding, "resume", "shop")
        while await reader.fetchval(ASKED):
            await feeding.commands()
    assert await outcomes(reader) == [("running", ["later"])] * len(NAMES)


async def test_what_an_engine_without_the_definition_has_wait_goes_on_by_one_that_has_it(
    database: Database, reader: Connection
) -> None:
    async with (
        feed(database, shop(version=1), shop(version=2)) as having,
        feed(database, shop(version=1)) as without,
    ):
        await having.records(placed("o1"))
        await without.records(noted("o1"))
        [run] = await list_runs(reader, "default")
        assert (run.version, run.status) == (2, "held")
        await having.store.keep_up(datetime.now(UTC))
        await without.commands()
        assert await reader.fetchval(ASKED) == 0
        [run] = await list_runs(reader, "default")
        assert run.status == "held"
        await having.store.keep_up(datetime.now(UTC))
        await having.commands()
    assert await outcomes(reader) == [("running", ["later"])]


async def test_what_waits_is_asked_to_go_on_by_the_hour_and_not_as_often_as_tokens_are_forgotten(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.store.postgres.TOKENS_FORGOTTEN_MAX", 0)
    async with feed(database, shop(version=1)) as feeding:
        await feeding.records(placed("o1"))
    async with feed(database, shop(version=1), shop(version=2)) as having:
        assert await having.store.keep_up(datetime.now(UTC)), "there may be more to forget"
        async with feed(database, shop(version=2)) as without:
            await without.records(noted("o1"))
        await having.store.keep_up(datetime.now(UTC))
        assert await reader.fetchval(ASKED) == 0
        monkeypatch.undo()
        assert not await having.store.keep_up(datetime.now(UTC))
        assert not await having.store.keep_up(datetime.now(UTC))
        assert await reader.fetchval(ASKED) == 1
