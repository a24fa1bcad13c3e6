"""A step that cannot begin yet, since a thread of it still goes on: it keeps no other run from beginning it."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest

from engine.limits import EngineLimits
from engine.store.connecting import Connection
from statemachines.bounds import Limit
from statemachines.definition import Pipeline
from statemachines.step import Call, Retry
from tests.feeding import feed
from tests.integration.test_unsticking import PARCELS, Fetched, Parcel, Sent, keys, note_weight, told
from tests.operators import ask
from tests.services import Database

SECONDS = 30.0


def hanging(
    heavy: threading.Event, at_once: int | None = None, limit: Limit | None = None, *, may_undo: bool = False
) -> Pipeline[Parcel]:
    """Weighed by a thread, which takes no end where it is the first parcel; or fetched before."""
    flow = Pipeline("parcels", Parcel, topics=[PARCELS])

    @flow.step(retry=Retry(attempts=1), timeout=timedelta(seconds=0.05), at_once=at_once, limit=limit)
    def weigh(parcel: Parcel, call: Call) -> int:
        del parcel
        if call.key == "p1":
            heavy.wait(2 * SECONDS)
        return 300

    if may_undo:

        @weigh.compensate
        def forget(parcel: Parcel, made: int | None, call: Call) -> None:
            del parcel, made, call

    weighing = flow.state("weighing", run=weigh, initial=True)
    weighed = flow.state("weighed", final=True)
    flow.start(Sent, lambda event: Parcel(parcel=event.parcel))
    weighing.on(weigh.done, to=weighed, do=note_weight)
    weighing.on(Fetched, to=flow.state("at_home"))
    return flow


@pytest.mark.parametrize(("at_once", "limit"), [(2, None), (None, Limit(rate=4))], ids=["at_once", "rate"])
async def test_what_waits_for_a_thread_keeps_nobody_else_waiting(
    database: Database, reader: Connection, at_once: int | None, limit: Limit | None
) -> None:
    heavy = threading.Event()
    limits = EngineLimits(step_poll_seconds=0.05)
    try:
        async with feed(database, hanging(heavy, at_once, limit), limits=limits) as feeding:
            await feeding.begin_steps()
            await feeding.records(told("sent"))
            while not await keys(reader, "stuck"):
                await asyncio.wait_for(feeding.steps.arrived.wait(), SECONDS)
                await feeding.take_results()
            # The thread goes on, and the next attempt waits for it.
            assert (await ask(feeding, "retry", "parcels", "p1")).done
            await feeding.commands()
            await feeding.records(told("sent", "p2"), told("sent", "p3"))
            while sorted(await keys(reader, "completed")) != ["p2", "p3"]:
                await asyncio.wait_for(feeding.steps.arrived.wait(), SECONDS)
                await feeding.take_results()
            heavy.set()
            while "p1" not in await keys(reader, "completed"):
                await asyncio.wait_for(feeding.steps.arrived.wait(), SECONDS)
                await feeding.take_results()
    finally:
        heavy.set()


async def test_what_waits_for_a_thread_and_whose_state_is_left_is_told_of_at_once(
    database: Database, reader: Connection
) -> None:
    heavy = threading.Event()
    limits = EngineLimits(step_poll_seconds=0.05, step_cancel_seconds=0.05)
    try:
        async with feed(database, hanging(heavy, may_undo=True), limits=limits) as feeding:
            await feeding.begin_steps()
            await feeding.records(told("sent"))
            while not await keys(reader, "stuck"):
                await asyncio.wait_for(feeding.steps.arrived.wait(), SECONDS)
                await feeding.take_results()
            assert (await ask(feeding, "retry", "parcels", "p1")).done
            await feeding.commands()
            while not feeding.steps._making.kept_waiting():
                feeding.steps.turned.clear()
                await asyncio.wait_for(feeding.steps.turned.wait(), SECONDS)
            await feeding.records(told("fetched"))
            assert await reader.fetchval("select stopping from pointsman.executions")
            await asyncio.wait_for(feeding.steps.arrived.wait(), SECONDS)
            await feeding.take_results()
            assert await reader.fetchval("select count(*) from pointsman.executions") == 0
            assert not heavy.is_set()
    finally:
        heavy.set()
