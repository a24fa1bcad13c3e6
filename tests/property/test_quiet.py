"""An engine that has nothing to do but to wait for a step does next to nothing, and hears at once that it has ended."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tenacity import wait_fixed

from connectors.source import Chunk
from engine.limits import EngineLimits
from engine.session.session import Session
from statemachines import Call, Context, Event, Pipeline, Retry
from statemachines.machine import compile_pipeline
from statemachines.run import Run
from tests.fakes.source import FakeReader
from tests.feeding import event
from tests.simulated import BEGINS, BEGINS_SECONDS, Simulated, in_virtual_time

SECONDS = 60.04


class Asked(Event, type="errand.asked", key="errand"):
    errand: str


class Errand(Context):
    errand: str


def errands(ended: list[float], *, again: float | None = None) -> Pipeline[Errand]:
    """Runs for a minute; ``again``: fails at once, and is done at once so many seconds later."""
    flow = Pipeline("errand", Errand, topics=["errands"])

    @flow.step(retry=Retry(attempts=2, wait=wait_fixed(again or 0)))
    async def run(errand: Errand, call: Call) -> None:
        del errand
        if again is None:
            await asyncio.sleep(SECONDS)
        elif call.attempt == 1:
            raise OSError("away")
        ended.append(asyncio.get_running_loop().time())

    going, done = flow.state("going", run=run, initial=True), flow.state("done", final=True)
    flow.start(Asked, lambda asked: Errand(errand=asked.errand))
    going.on(run.done, to=done)
    return flow


def durable(run: Run) -> float:
    """When it became as it is, by the clock of the loop."""
    return BEGINS_SECONDS + (run.updated - BEGINS).total_seconds()


def test_how_an_attempt_ended_is_heard_at_once_also_where_it_began_meanwhile() -> None:
    ended = list[float]()
    world = Simulated(compile_pipeline(errands(ended, again=5.03)), "errands")
    world.source.append(event("errand.asked", {"errand": "e1"}, topic="errands"))
    world.live(lambda: any(run.has_ended for _, run in world.tables.runs.values()))
    [(_, run)] = world.tables.runs.values()
    assert durable(run) - ended[-1] < 0.01


def test_what_is_not_taken_while_nothing_more_can_be_published_keeps_nobody_busy() -> None:
    async def fetch(
        *, records_max: int, wait_seconds: float, until: asyncio.Future[Any] | None = None
    ) -> Chunk:
        del records_max
        forever = asyncio.get_running_loop().create_future()
        await asyncio.wait([until or forever], timeout=min(wait_seconds, 0.05))
        return Chunk({}, {})

    async def seconds_of_a_read(*, paused: bool) -> float:
        steps = SimpleNamespace(arrived=asyncio.Event(), are_there=True)
        steps.arrived.set()
        parts: Any = SimpleNamespace(reader=SimpleNamespace(fetch=fetch), limits=EngineLimits())
        engine: Any = SimpleNamespace(steps=steps)
        store: Any = None
        session = Session(engine, parts, store)
        session._paused = paused
        began = asyncio.get_running_loop().time()
        await session._read(10, 1.0)
        return round(asyncio.get_running_loop().time() - began, 6)

    assert in_virtual_time(lambda: seconds_of_a_read(paused=False)) == 0, "it is heard of"
    assert in_virtual_time(lambda: seconds_of_a_read(paused=True)) == 0.05


def test_a_step_that_goes_on_keeps_nobody_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, fetches, ended = FakeReader.fetch, [0], list[float]()

    async def counted(self: FakeReader, **given: Any) -> Any:
        fetches[0] += 1
        return await fetch(self, **given)

    monkeypatch.setattr(FakeReader, "fetch", counted)
    world = Simulated(compile_pipeline(errands(ended)), "errands")
    world.source.append(event("errand.asked", {"errand": "e1"}, topic="errands"))

    another = event("errand.asked", {"errand": "e2"}, topic="errands")
    world.call_later(SECONDS / 2, lambda: world.source.append(another))
    world.live(lambda: any(run.has_ended for _, run in world.tables.runs.values()))
    run, other = (run for _, run in world.tables.runs.values())
    wait = EngineLimits().fetch_wait_milliseconds / 1000
    [at] = ended
    assert fetches[0] < 2 * SECONDS / wait
    assert durable(run) - at < 0.01
    assert (other.started - BEGINS).total_seconds() - SECONDS / 2 < 0.1, "records are heard of all the same"
