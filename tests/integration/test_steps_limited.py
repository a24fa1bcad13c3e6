"""Steps with limits for all engines, in a real Postgres: how many go on of each value, and how often they begin."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.limits import EngineLimits
from engine.reading import list_runs, replay, show, verify
from engine.steps import steps
from engine.store.connecting import Connection
from statemachines import Limit
from statemachines.machine import compile_pipeline
from tests import saga
from tests.charging import TOPIC, World, charging_pipeline, clear
from tests.feeding import Feeding, event, feed
from tests.operators import ask
from tests.services import Database, execute

LIMITS = EngineLimits(step_poll_seconds=0.01)
TWO_OF_EACH = Limit("amount", at_once=2)
"""What an order costs stands for whose it is."""

NEXT_IN_AN_HOUR = """
insert into pointsman.step_rates select pipeline, step, limited_by, clock_timestamp() + interval '1 hour'
from pointsman.executions where holder is null limit 1
"""
ONE_IS_KEPT = """
insert into pointsman.step_places
select holder, 0, pipeline, step, limited_by
from pointsman.executions where holder is not null and limited_by = '1' limit 1
"""
DUE_LATER = "update pointsman.executions set again = again + interval '100 years' where holder is null"
DUE_AGAIN = "update pointsman.executions set again = again - interval '100 years' where holder is null"


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


def placed(order: str, amount: int) -> RawRecord:
    return event("order.placed", {"order": order, "amount": amount}, topic=TOPIC)


async def check_the_log(reader: Connection, **options: Any) -> None:
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(charging_pipeline(**options))])
    assert replayed.is_equal, replayed


async def why_it_waits(reader: Connection, key: str) -> str | None:
    [step] = (await show(reader, "default", "charging", key)).steps
    return step.waits_for


async def turn(feeding: Feeding) -> None:
    feeding.steps.turned.clear()
    await asyncio.wait_for(feeding.steps.turned.wait(), 60)


def holding() -> tuple[asyncio.Event, Callable[[], Awaitable[None]]]:
    """What lets attempts go on, and what has them wait for that."""
    release = asyncio.Event()

    async def held() -> None:
        await release.wait()

    return release, held


async def ended(reader: Connection) -> dict[str, str]:
    return {run.key: " ".join(run.configuration) for run in await list_runs(reader, "default", limit=0)}


async def test_so_many_of_each_value_go_on_in_all_engines_and_all_come_to_an_end(
    database: Database, reader: Connection, world: World
) -> None:
    going: Counter[int] = Counter()
    most: Counter[int] = Counter()
    all_that_may = asyncio.Event()

    async def count() -> None:
        _, _, order = world.calls[-1]
        going[order.amount] += 1
        most[order.amount] = max(most[order.amount], going[order.amount])
        if going.total() == 6:
            all_that_may.set()
        await all_that_may.wait()
        going[order.amount] -= 1

    orders = [(f"o{number}", 1 + number % 3) for number in range(30)]
    world.script["charge"] = [count] * len(orders)
    options: dict[str, Any] = {"limit": TWO_OF_EACH}
    async with (
        feed(database, charging_pipeline(**options), limits=LIMITS) as one,
        feed(database, charging_pipeline(**options), limits=LIMITS) as two,
    ):
        two.steps._instance = "two"
        await one.records(*(placed(order, amount) for order, amount in orders))
        await asyncio.gather(one.begin_steps(), two.begin_steps())
        async with asyncio.timeout(60):
            while set((await ended(reader)).values()) != {"shipped"}:
                for engine in (one, two):
                    if not await engine.take_results():
                        await turn(engine)
    assert most == {1: 2, 2: 2, 3: 2}
    assert len(world.attempts("charge")) == len(orders)
    await check_the_log(reader, **options)


async def test_whose_limit_is_reached_waits_in_order_and_keeps_nobody_else_waiting(
    database: Database, reader: Connection, world: World
) -> None:
    release, held = holding()
    world.script["charge"] = [held, held]
    options: dict[str, Any] = {"limit": TWO_OF_EACH}
    async with feed(database, charging_pipeline(**options), limits=LIMITS) as feeding:
        for number in range(6):
            await feeding.records(placed(f"a{number}", 1))
        await feeding.begin_steps()
        while len(world.attempts("charge")) < 2:
            await turn(feeding)
        await feeding.records(placed("b0", 2), placed("b1", 2))
        while "b1" not in await ended(reader) or "charging" in {
            state for key, state in (await ended(reader)).items() if key.startswith("b")
        }:
            if not await feeding.take_results():
                await turn(feeding)
        assert world.attempts("charge")[:2] == [("a0", 1), ("a1", 1)]
        assert {key for key, _ in world.attempts("charge")[2:]} == {"b0", "b1"}
        waiting = "select count(*) from pointsman.executions where holder is null and limited_by = '1'"
        assert await reader.fetchval(waiting) == 4
        assert await why_it_waits(reader, "a2") == "its limit: 2 of '1' go on"
        assert await why_it_waits(reader, "a0") is None
        await execute(database.owner_dsn, ONE_IS_KEPT)
        assert await why_it_waits(reader, "a2") == "its limit: 3 of '1' go on"
        await execute(database.owner_dsn, "delete from pointsman.step_places")
        await execute(database.owner_dsn, "update pointsman.runs set held = 1 where key = 'a2'")
        assert await why_it_waits(reader, "a2") is None
        await execute(database.owner_dsn, "update pointsman.runs set held = 0 where key = 'a2'")
        await execute(database.owner_dsn, DUE_LATER)
        assert await why_it_waits(reader, "a2") is None
        await execute(database.owner_dsn, DUE_AGAIN)
        await execute(database.owner_dsn, NEXT_IN_AN_HOUR)
        rate = "the rate of its limit: the next of '1' may begin about "
        assert str(await why_it_waits(reader, "a2")).startswith(rate)
        release.set()
        await feeding.steps.close()
        await feeding.work()
    assert [key for key, _ in world.attempts("charge")[4:]] == ["a2", "a3", "a4", "a5"]
    assert set((await ended(reader)).values()) == {"shipped"}


async def test_what_has_ended_behind_a_hold_keeps_no_place(
    database: Database, reader: Connection, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "SPEAK_SECONDS", 0.05)
    release, held = holding()
    world.script["charge"] = [held]
    options: dict[str, Any] = {"limit": Limit(at_once=1)}
    async with feed(database, charging_pipeline(**options), limits=LIMITS) as feeding:
        await feeding.records(placed("o1", 1))
        await feeding.begin_steps()
        while not world.attempts("charge"):
            await turn(feeding)
        await ask(feeding, "pause", "charging", "o1")
        await feeding.records(placed("o2", 1))
        for _ in range(20):
            await turn(feeding)
        # It goes on, though its run is held.
        assert world.attempts("charge") == [("o1", 1)]
        release.set()
        async with asyncio.timeout(60):
            while (await ended(reader))["o2"] != "shipped":
                if not await feeding.take_results():
                    await turn(feeding)
        await ask(feeding, "resume", "charging", "o1")
        await feeding.steps.close()
        await feeding.work()
    assert world.attempts("charge") == [("o1", 1), ("o2", 1)]
    assert set((await ended(reader)).values()) == {"shipped"}
    await check_the_log(reader, **options)


@pytest.mark.parametrize("how", ["took too long", "was cancelled elsewhere"])
async def test_what_goes_on_though_its_run_does_not_wait_for_it_keeps_its_place_in_all_engines(
    database: Database, reader: Connection, world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(steps, "LOOK_AFTER_SECONDS", 0.0)
    release, _ = holding()

    async def stubborn() -> None:
        # Though it is cancelled, as attempts are once.
        with contextlib.suppress(asyncio.CancelledError):
            await release.wait()
        await release.wait()

    world.script["charge"] = [stubborn]
    is_long = how == "took too long"
    options: dict[str, Any] = {"limit": Limit(at_once=1), "attempts": 1}
    flow = charging_pipeline(**options, timeout=timedelta(seconds=0.05) if is_long else None)
    hasty = replace(LIMITS, step_cancel_seconds=0.05)
    async with (
        feed(database, flow, limits=hasty) as one,
        feed(database, charging_pipeline(**options), limits=LIMITS) as two,
    ):
        two.steps._instance = "two"
        await one.records(placed("o1", 1))
        await one.begin_steps()
        while not world.attempts("charge"):
            await turn(one)
        if is_long:
            # The other ones have all the time of this machine.
            flow.steps[0].timeout = None
            await asyncio.wait_for(one.steps.arrived.wait(), 60)
            assert await one.take_results()
        else:
            await two.records(event("order.cancelled", {"order": "o1"}, topic=TOPIC))
        await two.records(placed("o2", 2))
        await two.begin_steps()
        for _ in range(10):
            await asyncio.gather(turn(one), turn(two))
        assert world.attempts("charge") == [("o1", 1)]
        assert await reader.fetchval("select count(*) from pointsman.step_places") == 1
        release.set()
        async with asyncio.timeout(60):
            while (await ended(reader))["o2"] != "shipped":
                for engine in (one, two):
                    if not await engine.take_results():
                        await turn(engine)
        assert await reader.fetchval("select count(*) from pointsman.step_places") == 0
    assert world.attempts("charge") == [("o1", 1), ("o2", 1)]
    assert (await ended(reader))["o1"] == ("failed" if is_long else "cancelled")
    await check_the_log(reader, **options)


async def test_attempts_keep_their_distance(database: Database, reader: Connection, world: World) -> None:
    options: dict[str, Any] = {"limit": Limit(rate=1 / 600)}
    async with feed(database, charging_pipeline(**options), limits=LIMITS) as feeding:
        await feeding.records(*(placed(f"o{number}", 1) for number in range(3)))
        await feeding.begin_steps()
        for many in (1, 2, 3):
            while len(world.attempts("charge")) < many:
                await turn(feeding)
            for _ in range(5):
                await turn(feeding)
            assert len(world.attempts("charge")) == many
            feeding.clock.now += timedelta(minutes=10)
        await feeding.steps.close()
        await feeding.work()
    assert set((await ended(reader)).values()) == {"shipped"}
    await check_the_log(reader, **options)


async def test_what_waited_before_there_was_a_limit_has_it_as_one(
    database: Database, reader: Connection, world: World
) -> None:
    release, held = holding()
    world.script["charge"] = [held] * 4
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(*(placed(f"o{number}", number) for number in range(4)))
    options: dict[str, Any] = {"limit": TWO_OF_EACH}
    async with feed(database, charging_pipeline(**options), limits=LIMITS) as feeding:
        await feeding.begin_steps()
        while len(world.attempts("charge")) < 2:
            await turn(feeding)
        for _ in range(5):
            await turn(feeding)
        assert len(world.attempts("charge")) == 2
        release.set()
        await feeding.steps.close()
        await feeding.work()
    # And where there is none any more, what waits knows of one that does not count.
    async with feed(database, charging_pipeline(**options)) as feeding:
        await feeding.records(placed("o9", 9))
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.work()
    assert set((await ended(reader)).values()) == {"shipped"}


async def test_what_waits_behind_a_limit_is_rows_in_order_and_not_memory(
    database: Database, reader: Connection, world: World
) -> None:
    options: dict[str, Any] = {"limit": Limit(at_once=1)}
    async with feed(database, charging_pipeline(**options), limits=LIMITS) as feeding:
        for number in range(30):
            await feeding.records(placed(f"o{number}", number))
        await feeding.begin_steps()
        kept = set()
        while set((await ended(reader)).values()) != {"shipped"}:
            going = {one.begun.id for one in feeding.steps._going if one.step.name == "charge"}
            ended_here = {one.begun.id for one in feeding.steps._results if one.begun.step == "charge"}
            kept.add(len(going | ended_here))
            if not await feeding.take_results():
                await turn(feeding)
    assert max(kept) == 1
    assert [key for key, _ in world.attempts("charge")] == [f"o{number}" for number in range(30)]


async def test_a_run_that_waits_behind_a_limit_is_undone_though_there_is_no_room(
    database: Database, reader: Connection
) -> None:
    away = saga.clear()
    _, held = holding()
    away.script["reserve"] = [held]
    async with feed(database, saga.saga_pipeline(limit=Limit(at_once=1)), limits=LIMITS) as feeding:
        for order in ("o1", "o2"):
            await feeding.records(event("order.placed", {"order": order}, topic=saga.TOPIC))
        await feeding.begin_steps()
        waits = "select count(*) from pointsman.executions where step = 'reserve' and holder is null"
        while not (await reader.fetchval(waits) and not away.script["reserve"]):
            if not await feeding.take_results():
                await turn(feeding)
        [waiting] = await reader.fetch(
            "select r.key from pointsman.executions e join pointsman.runs r on r.id = e.run where holder is null"
        )
        await feeding.records(event("order.cancelled", {"order": waiting["key"]}, topic=saga.TOPIC))
        while (await ended(reader))[waiting["key"]] != "cancelled":
            if not await feeding.take_results():
                await turn(feeding)
    assert [(step, key) for step, key, _, _ in away.ledger if step in ("release", "refund")] == [
        ("refund", waiting["key"])
    ]
    assert sorted((await ended(reader)).values()) == ["cancelled", "reserving"]
    saga.clear()
