"""What people see of steps and of what undoes them: ``show``, ``history``, ``explain``, ``runs``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.cli.looking import print_history
from engine.cli.working import print_steps
from engine.reading import history, list_runs, show
from engine.reading.working import StepView
from engine.steps import SILENT_SECONDS
from engine.store.connecting import Connection
from tests import charging
from tests.charging import AwayError, charging_pipeline
from tests.feeding import Feeding, event, feed
from tests.saga import TOPIC, OutOfStockError, World, clear, forever, saga_pipeline
from tests.services import Database, execute


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


@pytest.fixture
def charged() -> Iterator[charging.World]:
    yield charging.clear()
    charging.clear()


def told(kind: str, topic: str = TOPIC, **data: Any) -> RawRecord:
    return event(f"order.{kind}", {"order": "o1", **data}, topic=topic)


async def until_going(feeding: Feeding, step: str, reader: Connection) -> None:
    sql = "select count(*) from pointsman.executions where step = $1 and holder is not null"
    while not await reader.fetchval(sql, step):
        if not await feeding.take_results():
            feeding.steps.turned.clear()
            await asyncio.wait_for(feeding.steps.turned.wait(), 10)


async def steps_of(reader: Connection, pipeline: str = "saga", at: int | None = None) -> dict[str, StepView]:
    found = await show(reader, "default", pipeline, "o1", at_sequence=at)
    return {one.of.name: one for one in found.steps}


async def test_x(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [RuntimeError("slow")]
    world.script["ship"] = [OutOfStockError("none left")]
    world.script["release"] = [RuntimeError("away"), RuntimeError("away")]
    world.script["refund"] = [RuntimeError(f"bank {number}") for number in range(3)]
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
    found = await show(reader, "default", "saga", "o1")
    print()
    print_steps(found.steps)
    print_history(await history(reader, "default", "saga", "o1"))
    for at in range(1, found.latest + 1):
        print(at)
        print_steps((await show(reader, "default", "saga", "o1", at_sequence=at)).steps)
    import json
    print(json.dumps(found.as_json()["steps"], indent=1))
