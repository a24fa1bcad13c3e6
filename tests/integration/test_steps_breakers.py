"""Breakers of steps in a real Postgres: who waits, who is tried, and what is told of that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.cli.working import step_words
from engine.limits import SILENT_SECONDS, EngineLimits
from engine.reading import history, list_breakers, list_runs, replay, show, verify
from engine.store.connecting import Connection
from statemachines import Breaker
from statemachines.durations import told_time
from statemachines.machine import compile_pipeline
from tests import lending
from tests.charging import TOPIC, AwayError, CardRefusedError, World, charging_pipeline, clear
from tests.feeding import Feeding, event, feed
from tests.lending import lending_pipeline
from tests.lent import VERDICT, waits
from tests.operators import complete
from tests.services import Database, execute

LONG = Breaker("payments", failures=2, within=timedelta(hours=1), open_for=timedelta(hours=1))
SHORT = Breaker("payments", failures=2, within=timedelta(hours=1), open_for=timedelta(milliseconds=20))
LIMITS = EngineLimits(step_poll_seconds=0.01)


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


@pytest.fixture
def loans() -> Iterator[lending.World]:
    yield lending.clear()
    lending.clear()


def told(kind: str, order: str = "o1") -> RawRecord:
    return event(f"order.{kind}", {"order": order}, topic=TOPIC)


async def check_the_log(reader: Connection, **options: Any) -> None:
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(charging_pipeline(**options))])
    assert replayed.is_equal, replayed


async def turn(feeding: Feeding) -> None:
    feeding.steps.turned.clear()
    await asyncio.wait_for(feeding.steps.turned.wait(), 60)


async def go_on(feeding: Feeding) -> None:
    """Take what there is, or wait until it was looked once more what may begin."""
    if not await feeding.take_results():
        await turn(feeding)


async def ended(reader: Connection) -> dict[str, str]:
    return {run.key: " ".join(run.configuration) for run in await list_runs(reader, "default")}


async def test_while_it_is_open_steps_wait_and_lose_no_attempt(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [AwayError("down"), AwayError("down")]
    options: dict[str, Any] = {"breaker": LONG, "attempts": 3}
    async with feed(database, charging_pipeline(**options), limits=LIMITS) as feeding:
        await feeding.records(told("placed", "o1"))
        await feeding.begin_steps()
        while len(await history(reader, "default", "charging", "o1")) < 3:
            await go_on(feeding)
        await feeding.records(*(told("placed", f"o{number}") for number in range(2, 7)))
        for _ in range(10):
            await go_on(feeding)
        assert world.attempts("charge") == [("o1", 1), ("o1", 2)]
        assert await reader.fetchval("select count(*) from pointsman.executions where holder is null") == 6
        [seen] = await list_breakers(reader, "default")
        assert (seen.name, seen.engine, seen.state, seen.failures, seen.failures_max) == (
            "payments", "feeding", "open", 2, 2,
        )  # fmt: skip
        assert (seen.error, seen.steps, seen.waiting) == ("AwayError: down", ["charging.charge"], 6)
        assert seen.until == seen.since + timedelta(hours=1)
        [step] = (await show(reader, "default", "charging", "o3")).steps
        assert step.waits_for == f"the breaker payments is open until {told_time(seen.until)}"
        assert step_words(step).endswith(f"waits for attempt 1; {step.waits_for}")
    # Another engine has a breaker of its own.
    async with feed(database, charging_pipeline(**options)) as feeding:
        await feeding.work()
        [seen] = await list_breakers(reader, "default")
        assert (seen.state, seen.waiting, seen.until, seen.error) == ("closed", 0, None, None)
    assert set((await ended(reader)).values()) == {"shipped"}
    assert ("o1", 3) in world.attempts("charge")
    await check_the_log(reader, **options)


async def test_one_attempt_is_tried_and_decides(database: Database, reader: Connection, world: World) -> None:
    tried, goes_on = asyncio.Event(), asyncio.Event()

    async def last() -> None:
        tried.set()
        await goes_on.wait()

    world.script["charge"] = [AwayError("down")] * 3 + [last]
    options: dict[str, Any] = {"breaker": SHORT, "attempts": 9, "timeout": timedelta(hours=1)}
    async with feed(database, charging_pipeline(**options), limits=LIMITS) as feeding:
        # So that there are always some to be tried, and both are at work when it opens.
        await feeding.records(told("placed", "o1"), told("placed", "o2"))
        await feeding.begin_steps()
        while not tried.is_set():
            await go_on(feeding)
        # Two opened it, one was tried and failed, and one is being tried.
        await feeding.records(*(told("placed", f"o{number}") for number in range(3, 6)))
        for _ in range(10):
            await go_on(feeding)
        assert len(world.attempts("charge")) == 4
        [seen] = await list_breakers(reader, "default")
        assert seen.state in ("open", "half-open")
        goes_on.set()
        await feeding.steps.close()
        await feeding.work()
        assert feeding.steps.breakers.are_open() == {"payments": False}
    assert set((await ended(reader)).values()) == {"shipped"}
    await check_the_log(reader, **options)


async def test_another_one_is_tried_where_one_does_not_end(
    database: Database, reader: Connection, world: World
) -> None:
    goes_on = asyncio.Event()

    async def hangs() -> None:
        await goes_on.wait()

    world.script["charge"] = [AwayError("down")] * 2 + [hangs]
    options: dict[str, Any] = {"breaker": SHORT, "attempts": 9}
    async with feed(database, charging_pipeline(**options), limits=LIMITS) as feeding:
        await feeding.records(told("placed", "o1"), told("placed", "o2"))
        await feeding.begin_steps()
        while "shipped" not in (await ended(reader)).values():
            await go_on(feeding)
        assert feeding.steps.breakers.are_open() == {"payments": False}
        goes_on.set()
        await feeding.steps.close()
        await feeding.work()
    assert set((await ended(reader)).values()) == {"shipped"}
    await check_the_log(reader, **options)


async def test_what_is_answered_though_it_fails_opens_nothing(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [CardRefusedError("stolen")] * 4
    options: dict[str, Any] = {"breaker": LONG}
    async with feed(database, charging_pipeline(**options)) as feeding:
        await feeding.records(*(told("placed", f"o{number}") for number in range(4)))
        await feeding.work()
        assert feeding.steps.breakers.are_open() == {"payments": False}
    assert set((await ended(reader)).values()) == {"refused"}


async def test_an_attempt_that_is_tried_and_not_wanted_any_more_makes_place_for_another(
    database: Database, reader: Connection, world: World
) -> None:
    tried = asyncio.Event()

    async def hang() -> None:
        tried.set()
        await asyncio.Event().wait()

    world.script["charge"] = [AwayError("down"), AwayError("down"), hang]
    options: dict[str, Any] = {"breaker": SHORT, "attempts": 9, "timeout": timedelta(hours=1)}
    async with feed(database, charging_pipeline(**options), limits=LIMITS) as feeding:
        await feeding.records(told("placed", "o1"), told("placed", "o2"))
        await feeding.begin_steps()
        while not tried.is_set():
            await go_on(feeding)
        last, _ = world.attempts("charge")[-1]
        await feeding.records(told("cancelled", last))
        # By the commit of another engine, it seems: it is asked what is still wanted.
        await feeding.steps.close()
        await feeding.work()
    other = "o2" if last == "o1" else "o1"
    assert await ended(reader) == {last: "cancelled", other: "shipped"}


async def test_what_waits_for_one_and_has_no_time_left_is_told(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [AwayError("down")] * 2
    options: dict[str, Any] = {"breaker": LONG, "attempts": 9, "within": timedelta(hours=2)}
    async with feed(database, charging_pipeline(**options), limits=LIMITS) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        while len(await history(reader, "default", "charging", "o1")) < 3:
            await go_on(feeding)
        assert feeding.steps.breakers.are_open() == {"payments": True}
        feeding.clock.now += timedelta(hours=2)
        await feeding.steps.close()
        await feeding.work()
    assert await ended(reader) == {"o1": "failed"}
    assert len(world.attempts("charge")) == 2


async def test_of_an_engine_that_is_silent_nothing_is_told(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, charging_pipeline(breaker=LONG)) as feeding:
        await feeding.begin_steps()
        await turn(feeding)
        assert [one.state for one in await list_breakers(reader, "default")] == ["closed"]
        assert await list_breakers(reader, "another") == []
        await feeding.steps.close()
        silent = f"update pointsman.holders set seen = now() - interval '{SILENT_SECONDS + 1} seconds'"
        await execute(database.owner_dsn, silent)
        assert await list_breakers(reader, "default") == []


async def test_what_is_told_by_tokens_opens_and_closes_it(
    database: Database, reader: Connection, loans: lending.World
) -> None:
    options: dict[str, Any] = {"breaker": replace(SHORT, name="desk"), "attempts": 9}

    async def state() -> str:
        await feeding.begin_steps()
        await turn(feeding)
        await feeding.steps.close()
        [seen] = await list_breakers(reader, "default")
        return seen.state

    async with feed(database, lending_pipeline(**options), limits=LIMITS) as feeding:
        await waits(feeding, "l1", "l2")
        assert await state() == "closed"
        # They have been handed over, and wait for no attempt.
        assert [one.waiting for one in await list_breakers(reader, "default")] == [0]
        assert (await complete(feeding, "case l1/1", error="the desk burns")).done
        # In vain: it is an attempt of before.
        assert (await complete(feeding, "case l1/1", error="the desk burns")).failed
        assert feeding.steps.breakers.are_open() == {"desk": False}
        assert (await complete(feeding, "case l2/1", error="the desk burns")).done
        assert feeding.steps.breakers.are_open() == {"desk": True}
        assert await state() in ("open", "half-open")
        # Both are handed over again, and the breaker closes once one of them is done.
        while len(loans.calls) < 4:
            await feeding.begin_steps()
            await go_on(feeding)
            await feeding.steps.close()
        assert feeding.steps.breakers.are_open() == {"desk": True}
        assert (await complete(feeding, "case l1/2", VERDICT)).done
        assert await state() == "closed"
    replayed = await replay(reader, "default", [compile_pipeline(lending_pipeline(**options))])
    assert replayed.is_equal, replayed
