"""Places and threads are for all steps alike: those of one do not keep the others from beginning."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from engine.limits import EngineLimits
from engine.reading import list_runs, show
from engine.store.connecting import Connection
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.events import Event
from statemachines.step import Call
from tests.feeding import event, feed
from tests.services import Database

STEPS = 5
SECONDS = 60


class Begun(Event, type="errand.begun", key="errand"):
    errand: str


class Errand(Context):
    errand: str


def begin(event: Begun) -> Errand:
    return Errand(errand=event.errand)


def errand_pipeline(name: str = "errand", topic: str = "errands") -> Pipeline[Errand]:
    """Five plain steps, one after the other."""
    flow = Pipeline(name, Errand, topics=[topic])

    def work(errand: Errand, call: Call) -> str:
        del errand
        return call.step

    steps = []
    for number in range(STEPS):
        work.__name__ = f"step_{number}"
        steps.append(flow.step()(work))
    states = [flow.state(f"at_{number}", run=step, initial=number == 0) for number, step in enumerate(steps)]
    over = flow.state("over", final=True)
    flow.start(Begun, begin)
    for state, step, target in zip(states, steps, [*states[1:], over], strict=True):
        state.on(step.done, to=target)
    return flow


@pytest.mark.parametrize("threads", [1, 2, 40])
async def test_plain_steps_share_the_threads_however_few_there_are(
    database: Database, reader: Connection, threads: int
) -> None:
    limits = EngineLimits(step_poll_seconds=0.01, step_threads_max=threads)
    async with feed(database, errand_pipeline(), limits=limits) as feeding:
        await feeding.records(event("errand.begun", {"errand": "e1"}, topic="errands"))
        await feeding.work()
    [run] = await list_runs(reader, "default")
    assert run.configuration == ["over"]
    steps = (await show(reader, "default", "errand", "e1")).steps
    assert [one.result for one in steps] == [f"step_{number}" for number in range(STEPS)]


def hanging_pipeline(work: Any) -> Pipeline[Errand]:
    """One step, which does not end."""
    flow = Pipeline("hanging", Errand, topics=["hangs"])
    step = flow.step()(work)
    state, over = flow.state("at_it", run=step, initial=True), flow.state("over", final=True)
    flow.start(Begun, begin)
    state.on(step.done, to=over)
    return flow


@pytest.mark.parametrize("kind", ["threads", "places"])
async def test_steps_of_a_pipeline_that_hang_do_not_keep_those_of_another_from_beginning(
    database: Database, reader: Connection, kind: str
) -> None:
    begun, may_end, loop = asyncio.Semaphore(0), threading.Event(), asyncio.get_running_loop()

    def hangs(errand: Errand, call: Call) -> None:
        loop.call_soon_threadsafe(begun.release)
        may_end.wait()

    async def waits(errand: Errand, call: Call) -> None:
        begun.release()
        await asyncio.Event().wait()

    if kind == "threads":
        work: Any = hangs
        limits = EngineLimits(step_poll_seconds=0.01, step_stop_seconds=0.01, step_threads_max=4)
    else:
        work = waits
        limits = EngineLimits(step_poll_seconds=0.01, step_stop_seconds=0.01, steps_at_once_max=4)
    pipelines = hanging_pipeline(work), errand_pipeline()
    async with feed(database, *pipelines, limits=limits) as feeding, asyncio.timeout(SECONDS):
        await feeding.records(
            *(event("errand.begun", {"errand": f"h{number}"}, topic="hangs") for number in range(10))
        )
        await feeding.begin_steps()
        for _ in range(3):
            await begun.acquire()
        await feeding.records(event("errand.begun", {"errand": "e1"}, topic="errands"))
        for _ in range(STEPS):
            await feeding.steps.arrived.wait()
            assert await feeding.take_results()
        assert begun.locked(), "no other one of those that hang has begun meanwhile"
        may_end.set()
        await feeding.steps.stop()
    assert [
        (run.key, run.configuration) for run in await list_runs(reader, "default") if run.key == "e1"
    ] == [("e1", ["over"])]
