"""Attempts that begin with the commit that asks for them, on a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from connectors.source import Partition, RawRecord
from engine.limits import EngineLimits
from engine.store.connecting import Connection
from tests.charging import TOPIC, World, charging_pipeline, clear
from tests.feeding import Feeding, event, feed
from tests.services import Database

QUIET = EngineLimits(step_poll_seconds=60.0)
"""So that nobody looks who waits but where that is known."""
HOLDER = "select count(holder), count(*) from pointsman.executions"


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


def placed(order: str) -> RawRecord:
    return event("order.placed", {"order": order}, topic=TOPIC)


async def counted(reader: Connection) -> tuple[int, int]:
    """How many executions have begun, of how many."""
    [row] = await reader.fetch(HOLDER)
    return row[0], row[1]


async def turn(feeding: Feeding) -> None:
    """Wait until it was looked once more what may begin."""
    feeding.steps.turned.clear()
    await asyncio.wait_for(feeding.steps.turned.wait(), 60)


async def test_a_step_begins_with_the_commit_that_asks_for_it(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, charging_pipeline(), limits=QUIET) as feeding:
        await feeding.begin_steps()
        await turn(feeding)
        pending = await feeding.promise(Partition(TOPIC, 0), placed("o1"), placed("o2"))
        assert await counted(reader) == (2, 2)
        commit = pending.batch.commit
        assert not commit.executions_asked
        rows = await reader.fetch("select id, run, home from pointsman.executions order by id")
        assert [(one.id, one.run, one.home) for one in commit.begun] == [tuple(row) for row in rows]
        feeding.steps.settle([], pending.batch.commit)
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        assert world.attempts("charge") == [("o1", 1), ("o2", 1)]
        await feeding.steps.close()


@pytest.mark.parametrize("at_once", [1, 2])
async def test_no_more_are_promised_than_may_go_on_at_once(
    database: Database, reader: Connection, world: World, at_once: int
) -> None:
    world.script["charge"] = [asyncio.Event().wait] * at_once
    async with feed(database, charging_pipeline(at_once=at_once), limits=QUIET) as feeding:
        await feeding.begin_steps()
        await turn(feeding)
        pending = await feeding.promise(Partition(TOPIC, 0), *(placed(f"o{number}") for number in range(3)))
        assert await counted(reader) == (at_once, 3)
        # Those that go on take the room, and the third one would overtake the others.
        feeding.steps.settle([], pending.batch.commit)
        await feeding.promise(Partition(TOPIC, 0), placed("o4"))
        assert await counted(reader) == (at_once, 4)
        await feeding.steps.close()


async def test_nothing_is_promised_by_an_engine_that_stops_nor_for_pipelines_that_are_paused(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, charging_pipeline(), limits=QUIET) as feeding:
        await feeding.begin_steps()
        await turn(feeding)
        feeding.steps.paused = {1: "paused"}
        await feeding.promise(Partition(TOPIC, 0), placed("o1"))
        feeding.steps.paused = {}
        await feeding.steps.close()
        await feeding.begin_steps()
        await turn(feeding)
        await feeding.steps.stop()
        await feeding.promise(Partition(TOPIC, 0), placed("o2"))
        holders = await reader.fetch("select holder from pointsman.executions order by id")
        assert [row["holder"] is None for row in holders] == [False, True]
        await feeding.steps.close()


async def test_what_was_promised_as_an_engine_is_stopped_begins_elsewhere_as_if_nobody_had(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, charging_pipeline(), limits=QUIET) as feeding:
        await feeding.begin_steps()
        await turn(feeding)
        pending = await feeding.promise(Partition(TOPIC, 0), placed("o1"))
        assert await counted(reader) == (1, 1)
        await feeding.steps.stop()
        feeding.steps.settle([], pending.batch.commit)
        await feeding.steps.let_go()
        assert await counted(reader) == (0, 1), "it is lost with nobody"
        await feeding.steps.close()
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        assert world.attempts("charge") == [("o1", 1)]
        await feeding.steps.close()


async def test_what_was_promised_by_a_commit_that_was_not_heard_of_begins_all_the_same(
    database: Database, reader: Connection, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.steps.steps.SPEAK_SECONDS", 0.0)
    async with feed(database, charging_pipeline(), limits=QUIET) as feeding:
        await feeding.begin_steps()
        await turn(feeding)
        await feeding.promise(Partition(TOPIC, 0), placed("o1"))
        # As where the connection broke, and Postgres came to it late.
        feeding.steps.give_back([])
        assert not world.attempts("charge")
        feeding.steps.serve_homes(range(16))
        while not world.attempts("charge"):
            await turn(feeding)
            feeding.steps.serve_homes(range(16))
        assert world.attempts("charge") == [("o1", 1)]
        await feeding.steps.close()
