"""Threads that never end, over Postgres: what becomes of the runs that wait for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from tenacity import wait_fixed

from engine.limits import EngineLimits
from engine.reading import history, list_runs
from engine.store.connecting import Connection
from statemachines import Call, Pipeline, Retry
from tests.called_off import Off, Order, Placed
from tests.feeding import Feeding, event, feed
from tests.services import Database

TOPIC = "hanging"
LIMITS = EngineLimits(step_poll_seconds=0.05, step_cancel_seconds=0.1)


@dataclass
class Outside:
    """Where threads hang, until they are freed."""

    freed: threading.Event = field(default_factory=threading.Event)
    begun: list[int] = field(default_factory=list)
    made: list[str | None] = field(default_factory=list)
    """What refunds were told of."""


@pytest.fixture
def outside() -> Iterator[Outside]:
    outside = Outside()
    yield outside
    outside.freed.set()


def charging(outside: Outside, **bounds: Any) -> Pipeline[Order]:
    flow = Pipeline("hanging", Order, topics=[TOPIC], closed="ignore")

    @flow.step(retry=Retry(attempts=5, wait=wait_fixed(0.01)), **bounds)
    def charge(order: Order, call: Call) -> str:
        del order
        outside.begun.append(call.attempt)
        outside.freed.wait()
        return "made"

    @charge.compensate
    async def refund(order: Order, made: str | None, call: Call) -> None:
        del order, call
        outside.made.append(made)

    charging = flow.state("charging", run=charge, initial=True)
    ok, over = flow.state("ok", final=True), flow.state("over", final=True)
    flow.start(Placed, lambda event: Order(order=event.order))
    charging.on(charge.done, to=ok)
    flow.on(Off, to=over, compensate=True)
    flow.on_failure(to=over, compensate=True)
    return flow


async def types(reader: Connection) -> list[str]:
    return [row.event.type for row in await history(reader, "default", "hanging", "o1")]


async def take_until(feeding: Feeding, is_so: Callable[[list[str]], bool], reader: Connection) -> None:
    """Have the run take what becomes of its attempts until its log is so."""
    async with asyncio.timeout(60):
        while not is_so(await types(reader)):
            await feeding.steps.arrived.wait()
            await feeding.take_results()


def has_tried(log: list[str]) -> bool:
    return "tried.step.charge" in log


def is_undone(log: list[str]) -> bool:
    return "done.step.refund" in log


@pytest.mark.parametrize("bound", ["timeout", "heartbeat"])
async def test_there_is_no_more_time_than_within_though_a_thread_never_ends(
    database: Database, reader: Connection, outside: Outside, bound: str
) -> None:
    bounds = {bound: timedelta(seconds=0.1), "within": timedelta(hours=1)}
    async with feed(database, charging(outside, **bounds), limits=LIMITS) as feeding:
        await feeding.records(event("order.placed", {"order": "o1"}, topic=TOPIC))
        await feeding.begin_steps()
        await take_until(feeding, has_tried, reader)
        feeding.clock.now += timedelta(hours=2)
        await take_until(feeding, is_undone, reader)
        assert [one.begun.attempt for one in feeding.steps._going] == [1], "it keeps its thread"
    assert await types(reader) == [
        "order.placed",
        "tried.step.charge",
        "failed.step.charge.timed_out",
        "done.step.refund",
    ]
    await is_over(reader, outside)


async def test_what_is_called_off_is_undone_though_a_thread_never_ends(
    database: Database, reader: Connection, outside: Outside
) -> None:
    flow = charging(outside, timeout=timedelta(seconds=0.1))
    async with feed(database, flow, limits=LIMITS) as feeding:
        await feeding.records(event("order.placed", {"order": "o1"}, topic=TOPIC))
        await feeding.begin_steps()
        await take_until(feeding, has_tried, reader)
        await feeding.records(event("order.off", {"order": "o1"}, topic=TOPIC))
        await take_until(feeding, is_undone, reader)
        assert [one.begun.attempt for one in feeding.steps._going] == [1], "it keeps its thread"
    assert await types(reader) == [
        "order.placed",
        "tried.step.charge",
        "order.off",
        "stopped.step.charge",
        "done.step.refund",
    ]
    await is_over(reader, outside)


async def is_over(reader: Connection, outside: Outside) -> None:
    [run] = await list_runs(reader, "default")
    assert run.configuration == ["over"]
    assert (outside.begun, outside.made) == ([1], [None])
    assert await reader.fetchval("select count(*) from pointsman.executions") == 0
