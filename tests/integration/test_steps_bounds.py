"""Heartbeats of steps, and the time that all attempts have together, in a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.limits import EngineLimits
from engine.reading import history, list_runs, replay, verify
from engine.steps.result import StepResult
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from statemachines.step import Call
from tests.charging import TOPIC, AwayError, Charge, World, charging_pipeline, clear
from tests.feeding import Feeding, event, feed
from tests.operators import ask
from tests.services import Database

HOUR = timedelta(hours=1)
CHARGED = Charge(id="c", amount=7)
AT_ONCE = EngineLimits(step_poll_seconds=0.01, step_progress_seconds=0.0)
HARDLY_EVER = EngineLimits(step_poll_seconds=0.01, step_progress_seconds=1_000.0, step_stop_seconds=0.0)


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


def placed(order: str = "o1") -> RawRecord:
    return event("order.placed", {"order": order}, topic=TOPIC)


async def check_the_log(reader: Connection, **options: Any) -> None:
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(charging_pipeline(**options))])
    assert replayed.is_equal, replayed


async def types(reader: Connection, order: str = "o1") -> list[str]:
    return [row.event.type for row in await history(reader, "default", "charging", order)]


async def ended(reader: Connection) -> dict[str, str]:
    return {run.key: " ".join(run.configuration) for run in await list_runs(reader, "default")}


async def turn(feeding: Feeding) -> None:
    feeding.steps.turned.clear()
    await asyncio.wait_for(feeding.steps.turned.wait(), 60)


def says(world: World, progress: Any, then: Any) -> Callable[[], Any]:
    """Charging says this, and does that."""

    def say() -> Any:
        call_of(world).heartbeat(progress)
        if isinstance(then, BaseException):
            raise then
        return then() if callable(then) else then

    return say


def call_of(world: World) -> Call:
    return [call for step, call, _ in world.calls if step == "charge"][-1]


def seen(world: World) -> list[Any]:
    """The progress that each attempt at charging has seen."""
    return [call.progress for step, call, _ in world.calls if step == "charge"]


async def test_the_next_attempts_see_what_was_said_last_before_one_failed(
    database: Database, reader: Connection, world: World
) -> None:
    def twice() -> Any:
        call_of(world).heartbeat({"page": 1})
        call_of(world).heartbeat({"page": 2})
        raise AwayError("down")

    world.script["charge"] = [twice, AwayError("down"), says(world, None, CHARGED)]
    async with feed(database, charging_pipeline(), limits=HARDLY_EVER) as feeding:
        await feeding.records(placed())
        await feeding.work()
    assert seen(world) == [None, {"page": 2}, {"page": 2}]
    assert await ended(reader) == {"o1": "shipped"}
    await check_the_log(reader)


async def test_what_had_failed_for_good_and_begins_anew_sees_what_was_said_last(
    database: Database, reader: Connection, world: World
) -> None:
    def drawing() -> Any:
        call_of(world).heartbeat({"page": 3})
        raise AwayError("down")

    world.script["charge"] = [drawing, drawing, AwayError("down"), says(world, None, CHARGED)]
    options: dict[str, Any] = {"attempts": 1, "takes_failures": False}
    async with feed(database, charging_pipeline(**options), limits=HARDLY_EVER) as feeding:
        await feeding.records(placed())
        await feeding.work()
        for _ in range(3):
            await ask(feeding, "retry", "charging", "o1")
            await feeding.work()
    assert seen(world) == [None, {"page": 3}, {"page": 3}, {"page": 3}]
    assert await ended(reader) == {"o1": "shipped"}
    await check_the_log(reader, **options)


async def test_a_failure_is_not_handed_out_before_the_store_has_what_was_said_last(
    database: Database, reader: Connection, world: World
) -> None:
    fails = asyncio.Event()

    async def later() -> None:
        await fails.wait()
        raise AwayError("down")

    async def succeeds() -> Charge:
        await fails.wait()
        return CHARGED

    world.script["charge"] = [says(world, 5, later), succeeds]
    async with feed(database, charging_pipeline(), limits=HARDLY_EVER) as feeding:
        await feeding.records(placed(), placed("o2"))
        await feeding.begin_steps()
        while len(world.calls) < 2:
            await turn(feeding)
        # Nothing is written meanwhile.
        await feeding.steps.close()
        feeding.steps.arrived.clear()
        fails.set()
        taken: list[StepResult] = []
        while not taken:
            await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
            taken = feeding.steps.take()
        assert [one.key for one in taken] == ["o2"]
        assert feeding.steps.are_going
        assert not feeding.steps.has_results
        assert feeding.steps.take() == []
        feeding.steps.give_back(taken)
        await feeding.work()
    assert seen(world) == [None, None, 5]
    assert await ended(reader) == {"o1": "shipped", "o2": "shipped"}


async def test_after_an_engine_was_killed_the_next_attempt_sees_what_was_written_last(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [says(world, [1, "half"], asyncio.Event().wait)]
    async with feed(database, charging_pipeline(), limits=AT_ONCE) as feeding:
        await feeding.records(placed())
        await feeding.begin_steps()
        while not await reader.fetchval("select progress from pointsman.executions"):
            await turn(feeding)
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.work()
    assert seen(world) == [None, [1, "half"]]
    assert await types(reader) == [
        "order.placed", "tried.step.charge", "done.step.charge", "done.step.pack",
    ]  # fmt: skip
    await check_the_log(reader)


async def test_an_engine_that_stops_writes_down_how_far_its_attempts_have_come(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [says(world, 5, asyncio.Event().wait)]
    async with feed(database, charging_pipeline(), limits=HARDLY_EVER) as feeding:
        await feeding.records(placed())
        await feeding.begin_steps()
        while not world.calls:
            await turn(feeding)
        await feeding.steps.stop()
        assert await feeding.take_results()
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.work()
    assert seen(world) == [None, 5]


async def test_what_is_said_now_and_then_is_written_once(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [says(world, 5, asyncio.Event().wait)]
    async with feed(database, charging_pipeline(), limits=AT_ONCE) as feeding:
        await feeding.records(placed())
        await feeding.begin_steps()
        while not await reader.fetchval("select progress from pointsman.executions"):
            await turn(feeding)
        version = "select xmin::text from pointsman.executions"
        written = await reader.fetchval(version)
        for _ in range(5):
            await turn(feeding)
        assert await reader.fetchval(version) == written
        call_of(world).heartbeat(6)
        while await reader.fetchval("select progress from pointsman.executions") != b"6":
            await turn(feeding)
        assert await types(reader) == ["order.placed"]


async def test_an_attempt_that_is_silent_is_over_and_tried_again(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [asyncio.Event().wait, asyncio.Event().wait]
    options: dict[str, Any] = {"heartbeat": timedelta(seconds=0.05), "attempts": 2}
    async with feed(database, charging_pipeline(**options)) as feeding:
        await feeding.records(placed())
        await feeding.work()
    assert await types(reader) == ["order.placed", "tried.step.charge", "failed.step.charge.timed_out"]
    [run] = await list_runs(reader, "default")
    assert run.context["notes"] == [
        "TimeoutError after 2: nothing was heard of it for 0.05 s: it is to call call.heartbeat() more often"
    ]
    await check_the_log(reader, **options)


async def test_what_fails_when_there_is_no_time_left_for_another_attempt_has_timed_out(
    database: Database, reader: Connection, world: World
) -> None:
    options: dict[str, Any] = {"within": HOUR, "attempts": 50}
    async with feed(database, charging_pipeline(**options)) as feeding:

        def late() -> None:
            feeding.clock.now += HOUR
            raise AwayError("down")

        world.script["charge"] = [AwayError("down"), late]
        await feeding.records(placed())
        await feeding.work()
    assert world.attempts("charge") == [("o1", 1), ("o1", 2)]
    assert await types(reader) == ["order.placed", "tried.step.charge", "failed.step.charge.timed_out"]
    [run] = await list_runs(reader, "default")
    assert run.context["notes"] == [
        (
            "TimeoutError after 2: all attempts together have 1 h, and there is no time left for another one; "
            "the last one failed: AwayError: down"
        )
    ]
    await check_the_log(reader, **options)


async def test_the_time_of_all_attempts_goes_on_while_no_engine_is_there(
    database: Database, reader: Connection, world: World
) -> None:
    options: dict[str, Any] = {"within": HOUR, "attempts": 50}
    world.script["charge"] = [AwayError("down")]
    async with feed(database, charging_pipeline(**options)) as feeding:
        await feeding.records(placed())
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        assert await feeding.take_results()
        now = feeding.clock.now
    async with feed(database, charging_pipeline(**options)) as feeding:
        feeding.clock.now = now + HOUR
        await feeding.work()
    assert world.attempts("charge") == [("o1", 1)]
    [run] = await list_runs(reader, "default")
    assert run.configuration == ["failed"]
    assert run.context["notes"][0].startswith("TimeoutError after 1: all attempts together have 1 h, ")
    assert run.context["notes"][0].endswith("; the last one failed: AwayError: down")
    await check_the_log(reader, **options)


async def test_what_has_no_time_left_is_told_also_where_there_is_no_room_for_an_attempt(
    database: Database, reader: Connection, world: World
) -> None:
    options: dict[str, Any] = {"within": HOUR, "attempts": 50, "at_once": 1}
    world.script["charge"] = [AwayError("down"), asyncio.Event().wait]
    async with feed(database, charging_pipeline(**options)) as feeding:
        await feeding.records(placed(), placed("o2"))
        await feeding.begin_steps()
        while len(world.attempts("charge")) < 2:
            if not await feeding.take_results():
                await turn(feeding)
        feeding.clock.now += 2 * HOUR
        while "failed.step.charge.timed_out" not in await types(reader):
            if not await feeding.take_results():
                await turn(feeding)
    assert world.attempts("charge") == [("o1", 1), ("o2", 1)]
    assert await ended(reader) == {"o1": "failed", "o2": "charging"}


async def test_what_waits_for_its_first_attempt_does_not_run_out_of_time(
    database: Database, reader: Connection, world: World
) -> None:
    options: dict[str, Any] = {"within": HOUR}
    async with feed(database, charging_pipeline(**options)) as feeding:
        await feeding.records(placed())
        feeding.clock.now += 2 * HOUR
        await feeding.work()
    assert await ended(reader) == {"o1": "shipped"}
