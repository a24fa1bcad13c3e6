"""What becomes of steps and compensations whose engines are stopped in the middle of them, in a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.cli.looking import row_words
from engine.limits import EngineLimits
from engine.reading import explain, history, list_runs, replay, show, verify
from engine.store.connecting import Connection
from statemachines.definition import Pipeline
from statemachines.machine import compile_pipeline
from tests import charging, saga
from tests.charging import AwayError, charging_pipeline
from tests.feeding import STEP_SECONDS_MAX, Feeding, event, feed
from tests.saga import OutOfStockError, forever, saga_pipeline
from tests.services import Database

AT_ONCE = EngineLimits(step_poll_seconds=0.01, step_stop_seconds=0.0)
HOUR = timedelta(hours=1)


@pytest.fixture
def world() -> Iterator[charging.World]:
    yield charging.clear()
    charging.clear()


@pytest.fixture
def trade() -> Iterator[saga.World]:
    yield saga.clear()
    saga.clear()


def placed(topic: str) -> RawRecord:
    return event("order.placed", {"order": "o1"}, topic=topic)


async def check_the_log(reader: Connection, flow: Pipeline[Any]) -> None:
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(flow)])
    assert replayed.is_equal, replayed


async def types(reader: Connection, pipeline: str) -> list[str]:
    return [row.event.type for row in await history(reader, "default", pipeline, "o1")]


async def stop_once(feeding: Feeding, begun: Callable[[], int], number: int = 1) -> None:
    """Work until so many have begun, and then be stopped in order."""
    await feeding.begin_steps()
    async with asyncio.timeout(STEP_SECONDS_MAX):
        while begun() < number:
            if not await feeding.take_results():
                feeding.steps.turned.clear()
                await feeding.steps.turned.wait()
    await feeding.steps.stop()
    while await feeding.take_results():
        pass
    await feeding.steps.let_go()


async def test_attempts_that_a_stop_cuts_are_made_again_and_do_not_count(
    database: Database, reader: Connection, world: charging.World
) -> None:
    flow = charging_pipeline(attempts=2)
    world.script["charge"] = [forever, forever, AwayError("down"), forever, forever]
    async with feed(database, flow) as feeding:
        await feeding.records(placed(charging.TOPIC))
    for attempts in (1, 2, 4, 5):
        async with feed(database, flow, limits=AT_ONCE) as feeding:
            await stop_once(feeding, lambda: len(world.attempts("charge")), attempts)
    async with feed(database, flow) as feeding:
        await feeding.work()
    assert world.attempts("charge") == [("o1", number) for number in range(1, 7)]
    assert len({call.idempotency_key for step, call, _ in world.calls if step == "charge"}) == 1
    tried, done = ["tried.step.charge"], ["done.step.charge", "done.step.pack"]
    assert await types(reader, "charging") == ["order.placed", *tried * 5, *done]
    await check_the_log(reader, flow)


async def test_one_that_raises_counts_as_before(
    database: Database, reader: Connection, world: charging.World
) -> None:
    flow = charging_pipeline(attempts=1)
    world.script["charge"] = [forever, AwayError("down")]
    async with feed(database, flow, limits=AT_ONCE) as feeding:
        await feeding.records(placed(charging.TOPIC))
        await stop_once(feeding, lambda: len(world.calls))
    async with feed(database, flow) as feeding:
        await feeding.work()
    assert await types(reader, "charging") == ["order.placed", "tried.step.charge", "failed.step.charge"]
    [run] = await list_runs(reader, "default")
    assert run.context["notes"] == ["AwayError after 2: down"]
    await check_the_log(reader, flow)


async def test_what_a_stop_cuts_takes_of_the_time_of_all_attempts(
    database: Database, reader: Connection, world: charging.World
) -> None:
    flow = charging_pipeline(attempts=1, within=HOUR)
    world.script["charge"] = [forever]
    async with feed(database, flow, limits=AT_ONCE) as feeding:
        await feeding.records(placed(charging.TOPIC))
        await stop_once(feeding, lambda: len(world.calls))
    async with feed(database, flow) as feeding:
        feeding.clock.now += 2 * HOUR
        await feeding.work()
    assert world.attempts("charge") == [("o1", 1)]
    assert (await types(reader, "charging"))[1:] == ["tried.step.charge", "failed.step.charge.timed_out"]
    [run] = await list_runs(reader, "default")
    [note] = run.context["notes"]
    assert note.endswith("the last one failed: LostError: the engine was stopped")
    await check_the_log(reader, flow)


async def test_a_compensation_that_each_stop_cuts_is_done_in_the_end(
    database: Database, reader: Connection, trade: saga.World
) -> None:
    flow = saga_pipeline(attempts=2)
    trade.script |= {"ship": [OutOfStockError("none left")], "release": [forever] * 3}
    async with feed(database, flow) as feeding:
        await feeding.records(placed(saga.TOPIC))
    for times in (1, 2, 3):
        async with feed(database, flow, limits=AT_ONCE) as feeding:
            await stop_once(feeding, lambda: len(trade.made), times)
    async with feed(database, flow) as feeding:
        await feeding.work()
    assert trade.steps() == ["charge", "reserve", "release", "refund"]
    assert [one for one, _ in trade.made] == ["release"] * 4 + ["refund"]
    [run] = await list_runs(reader, "default")
    assert (run.status, run.configuration) == ("completed", ["cancelled"])
    await check_the_log(reader, flow)


async def test_a_step_that_a_stop_cut_may_have_been_done_and_is_undone(
    database: Database, reader: Connection, trade: saga.World
) -> None:
    flow = saga_pipeline(attempts=1)
    trade.script["charge"] = [forever, OutOfStockError("no card")]

    def begun() -> int:
        return 2 - len(trade.script["charge"])

    async with feed(database, flow, limits=AT_ONCE) as feeding:
        await feeding.records(placed(saga.TOPIC))
        await stop_once(feeding, begun)
    async with feed(database, flow) as feeding:
        await feeding.work()
    assert trade.made == [("refund", None)]
    assert await types(reader, "saga") == [
        "order.placed", "tried.step.charge", "failed.step.charge", "done.step.refund",
    ]  # fmt: skip
    await check_the_log(reader, flow)


async def test_that_the_engine_was_stopped_is_told(
    database: Database, reader: Connection, world: charging.World, caplog: pytest.LogCaptureFixture
) -> None:
    world.script["charge"] = [forever]
    async with feed(database, charging_pipeline(attempts=1), limits=AT_ONCE) as feeding:
        await feeding.records(placed(charging.TOPIC))
        await stop_once(feeding, lambda: len(world.calls))
    assert "an attempt at the step was lost; it is tried again, and this one does not count" in caplog.text
    _, row = await history(reader, "default", "charging", "o1")
    words = "attempt 1 of charge does not count, for the engine was stopped, and is tried again from "
    assert row_words(row).startswith(words)
    assert row.as_json()["attempt"]["outcome"] == "cut short"
    [answer] = (await explain(reader, "default", event_id=row.event.id)).answers
    assert answer.current.sentence.startswith(f"A{words[1:]}")
    [charge] = (await show(reader, "default", "charging", "o1")).steps
    assert (charge.attempts, charge.error) == (1, "LostError: the engine was stopped")
