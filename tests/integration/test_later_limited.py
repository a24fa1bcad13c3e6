"""Steps that go on outside, in a real Postgres, and take too long while there is no room for others of their step."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.limits import EngineLimits
from engine.reading import list_runs, replay, verify
from engine.store.connecting import Connection
from statemachines import Breaker, Call, Limit
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.events import Event
from statemachines.later import Later
from statemachines.machine import compile_pipeline
from statemachines.step import Retry
from tests.feeding import STEP_SECONDS_MAX, Feeding, event, feed
from tests.services import Database

LIMITS = EngineLimits(step_poll_seconds=0.01)
TOPIC = "jobs"
YEAR = timedelta(days=365)
NO_ROOM: list[tuple[str, dict[str, Any]]] = [
    ("long", {"limit": Limit(at_once=1)}),
    ("long", {"limit": Limit(rate=1 / 86_400)}),
    ("long", {"at_once": 1}),
    ("broken", {"breaker": Breaker("outside", failures=1, open_for=YEAR)}),
]
"""The job that takes all the room there is, and what bounds the step."""


class Asked(Event, type="job.asked", key="job"):
    job: str


class Job(Context):
    job: str


def jobs(**bounds: Any) -> Pipeline[Job]:
    """Each is handed over for ten hours, but for the long one, and for the broken one."""
    flow: Pipeline[Job] = Pipeline("jobs", Job, topics=[TOPIC])

    @flow.step(retry=Retry(attempts=1), **bounds)
    async def hand_over(job: Job, call: Call) -> int | Later:
        if job.job == "long":
            await asyncio.Event().wait()
        if job.job == "broken":
            raise OSError("away")
        return Later(call.idempotency_key, timedelta(hours=10))

    waiting = flow.state("waiting", run=hand_over, initial=True)
    done, failed = flow.state("done", final=True), flow.state("failed", final=True)
    flow.start(Asked, lambda event: Job(job=event.job))
    waiting.on(hand_over.done, to=done)
    flow.on_failure(to=failed)
    return flow


def job(name: str) -> RawRecord:
    return event("job.asked", {"job": name}, topic=TOPIC)


async def turns(feeding: Feeding, many: int) -> None:
    for _ in range(many):
        feeding.steps.turned.clear()
        await asyncio.wait_for(feeding.steps.turned.wait(), STEP_SECONDS_MAX)
        await feeding.take_results()


@pytest.mark.parametrize(("other", "bounds"), NO_ROOM)
async def test_what_is_not_completed_in_time_has_failed_though_there_is_no_room(
    database: Database, reader: Connection, other: str, bounds: dict[str, Any]
) -> None:
    outside = "select count(*) from pointsman.executions where token <> ''"
    async with feed(database, jobs(**bounds), limits=LIMITS) as feeding:
        await feeding.records(job("j1"))
        await feeding.work()
        assert await reader.fetchval(outside) == 1
        await feeding.records(job(other))
        await feeding.begin_steps()
        await turns(feeding, 5)
        feeding.clock.now += timedelta(hours=11)
        async with asyncio.timeout(STEP_SECONDS_MAX):
            while await reader.fetchval(outside):
                await turns(feeding, 1)
        [run] = await list_runs(reader, "default", key="j1")
        assert [*run.configuration] == ["failed"]
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(jobs(**bounds))])
    assert replayed.is_equal, replayed
