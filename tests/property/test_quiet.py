"""An engine that has nothing to do but to wait for a step does next to nothing, and hears at once that it has ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.limits import EngineLimits
from statemachines import Call, Context, Event, Pipeline
from statemachines.machine import compile_pipeline
from tests.feeding import event
from tests.simulated import BEGINS, BEGINS_SECONDS, Simulated, SourceReader

SECONDS = 60.04


class Asked(Event, type="errand.asked", key="errand"):
    errand: str


class Errand(Context):
    errand: str


def errands(ended: list[float]) -> Pipeline[Errand]:
    flow = Pipeline("errand", Errand, topics=["errands"])

    @flow.step
    async def run(errand: Errand, call: Call) -> None:
        del errand, call
        await asyncio.sleep(SECONDS)
        ended.append(asyncio.get_running_loop().time())

    going, done = flow.state("going", run=run, initial=True), flow.state("done", final=True)
    flow.start(Asked, lambda asked: Errand(errand=asked.errand))
    going.on(run.done, to=done)
    return flow


def test_a_step_that_goes_on_keeps_nobody_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, fetches, ended = SourceReader.fetch, [0], list[float]()

    async def counted(self: SourceReader, **given: Any) -> Any:
        fetches[0] += 1
        return await fetch(self, **given)

    monkeypatch.setattr(SourceReader, "fetch", counted)
    world = Simulated(compile_pipeline(errands(ended)), "errands")
    world.source.append(event("errand.asked", {"errand": "e1"}, topic="errands"))

    another = event("errand.asked", {"errand": "e2"}, topic="errands")
    world.call_later(SECONDS / 2, lambda: world.source.append(another))
    world.live(lambda: any(run.has_ended for _, run in world.tables.runs.values()))
    run, other = (run for _, run in world.tables.runs.values())
    wait = EngineLimits().fetch_wait_milliseconds / 1000
    [at] = ended
    assert fetches[0] < 2 * SECONDS / wait
    assert BEGINS_SECONDS + (run.updated - BEGINS).total_seconds() - at < 0.01
    assert (other.started - BEGINS).total_seconds() - SECONDS / 2 < 0.1, "records are heard of all the same"
