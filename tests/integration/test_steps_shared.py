"""Threads are for all plain steps alike: those of one do not keep the others from beginning."""

from __future__ import annotations

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


class Begun(Event, type="errand.begun", key="errand"):
    errand: str


class Errand(Context):
    errand: str


def begin(event: Begun) -> Errand:
    return Errand(errand=event.errand)


def errand_pipeline() -> Pipeline[Errand]:
    """Five plain steps, one after the other."""
    flow = Pipeline("errand", Errand, topics=["errands"])

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
