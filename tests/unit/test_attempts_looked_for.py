"""Attempts of engines that are gone, which are to end while it is still looked for them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from connectors.executor import CancelledError, Ended, LostError, Running, Work
from engine.limits import EngineLimits
from engine.steps.attempts import FIND_SECONDS, Attempt
from engine.steps.executors import Executors
from statemachines.machine import compile_pipeline
from tests.feeding import event
from tests.simulated import Simulated, in_virtual_time
from tests.unit.test_executors import hauls, step_of, work_of
from tests.yard import TOPIC, Haul, Yard, YardExecutor, executors_of, hauling

FOUND_AFTER = 7.0
"""It is asked for at once, and then after 1, 2 and 4 seconds."""
TIMES_AWAY = 3


class Job:
    """It takes a while to end."""

    stop_seconds = 30.0

    def __init__(self, *, can_stop: bool = True, ends_after: float = 20.0, gone_on: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self.released: asyncio.Future[None] = loop.create_future()
        self.can_stop = can_stop
        self.gone_on_seconds = gone_on
        self._ends_after = ends_after

    def cancel(self) -> None:
        if self.can_stop:
            asyncio.get_running_loop().call_later(self._ends_after, self.end)

    def end(self) -> None:
        self.ended.set_result(Ended(error=CancelledError("it was cancelled")))
        self.released.set_result(None)


class Away(YardExecutor):
    """Where it cannot be found out at first; and then it is this, or nothing is known of it."""

    def __init__(self, times: int, job: Job | None) -> None:
        super().__init__(Yard(away=times))
        self._job = job

    async def attach(self, work: Work) -> Running | None:
        await super().attach(work)
        return self._job


class Told(NamedTuple):
    after: float
    ended: Ended
    is_released: bool


def told(
    job: dict[str, Any] | None,
    *,
    times: int = TIMES_AWAY,
    timeout: float | None = 3_600.0,
    heartbeat: float | None = None,
    grace: float = 1.0,
    stops: bool = True,
    left: float | None = None,
) -> Told:
    """What is told of it, and when."""

    async def live() -> Told:
        loop = asyncio.get_running_loop()
        began = loop.time()
        bounds = {"timeout": timeout, "heartbeat": heartbeat}
        given = {name: timedelta(seconds=one) for name, one in bounds.items() if one is not None}
        step = step_of(hauls, **given)
        executors = Executors({Haul: Away(times, None if job is None else Job(**job))})
        running = executors.attach(work_of(hauls))
        attempt = Attempt(step, running, EngineLimits(step_cancel_seconds=grace), left_seconds=left)
        running.found.add_done_callback(lambda _: attempt.count_anew())
        if stops:
            attempt.stop()
        ended = await attempt.ended
        await asyncio.sleep(0)
        found = Told(round(loop.time() - began, 2), ended, attempt.released.done())
        await executors.close()
        await asyncio.wait({running.looking})
        return found

    return in_virtual_time(live)


def test_it_is_waited_for_until_it_is_found_and_then_until_it_has_ended() -> None:
    after, ended, is_released = told({})
    assert (after, is_released) == (FOUND_AFTER + 20, True)
    assert (type(ended.error), ended.lost) == (LostError, True)


def test_one_that_nothing_limits_is_waited_for_in_the_same_way() -> None:
    after, ended, is_released = told({}, timeout=None)
    assert (after, is_released, ended.lost) == (FOUND_AFTER + 20, True, True)
    after, ended, is_released = told({"ends_after": 1_000.0}, timeout=None)
    assert (after, is_released, ended.lost) == (FOUND_AFTER + 31, False, True)
    # Its silence is a limit of its own, which is no reason to look any longer.
    assert told({}, timeout=None, heartbeat=5.0, stops=False).after == 6


def test_one_that_does_not_end_once_it_was_found_has_the_time_that_it_may_take_for_that() -> None:
    after, ended, is_released = told({"ends_after": 1_000.0}, timeout=20.0)
    # The executor's thirty seconds, and the engine's own.
    assert (after, is_released, ended.lost) == (FOUND_AFTER + 31, False, True)
    # Or what is left of its own time, where that is more; it counts from when it was found, as far as is known.
    after, ended, is_released = told({"ends_after": 1_000.0}, timeout=60.0)
    assert (after, is_released, ended.lost) == (FOUND_AFTER + 61, False, True)


def test_one_that_is_not_found_is_told_of_once_its_time_is_over(caplog: pytest.LogCaptureFixture) -> None:
    after, ended, is_released = told({}, times=10_000)
    assert (after, is_released, ended.lost) == (3_601, False, True)
    assert "the step hauls is to end and was not found in time; it keeps its place" in caplog.text
    assert told({}, times=10_000, left=60.0).after == 61
    # Where nothing limits it, it is looked for so long.
    assert told({}, times=10_000, timeout=None).after == FIND_SECONDS + 1


def test_one_that_was_told_of_ends_once_it_is_found_and_keeps_its_place_until_then() -> None:
    async def live() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        running = Executors({Haul: Away(TIMES_AWAY, Job())}).attach(work_of(hauls))
        step = step_of(hauls, timeout=timedelta(seconds=2))
        attempt = Attempt(step, running, EngineLimits(step_cancel_seconds=1.0))
        attempt.stop()
        await attempt.ended
        told_after = loop.time() - began
        await attempt.released
        return told_after, loop.time() - began

    assert in_virtual_time(live) == (3, FOUND_AFTER + 20)


def test_one_of_which_nothing_is_known_is_told_of_at_once() -> None:
    after, ended, is_released = told(None)
    assert (after, is_released, ended.lost) == (FOUND_AFTER, True, True)


def test_one_that_cannot_be_stopped_has_what_is_left_of_its_time() -> None:
    job = {"can_stop": False, "gone_on": 30.0}
    after, ended, is_released = told(job, timeout=60.0)
    assert (after, is_released, ended.lost) == (FOUND_AFTER + 30 + 1, False, True)


def test_one_whose_time_is_over_while_it_is_looked_for_is_told_of_then() -> None:
    after, ended, is_released = told({}, timeout=5.0, stops=False)
    assert (after, is_released, ended.timed_out) == (6, False, True)
    # It is found while it is waited for.
    after, ended, is_released = told({}, timeout=5.0, grace=3.0, stops=False)
    assert (after, is_released, ended.timed_out) == (FOUND_AFTER + 20, True, True)
    # What is over is still what was over then.
    after, ended, _ = told({"gone_on": 99.0}, timeout=50.0, grace=3.0, stops=False, left=5.0)
    assert (after, ended.final) == (FOUND_AFTER + 20, True)
    # That nothing is heard of it is over, too, whatever time it has besides.
    after, ended, is_released = told({}, heartbeat=5.0, stops=False)
    assert (after, is_released, ended.timed_out) == (6, False, True)


def test_nothing_is_undone_beside_an_attempt_that_nothing_limits_and_that_is_found_late() -> None:
    yard = Yard(away=TIMES_AWAY)
    world = Simulated(compile_pipeline(hauling()), TOPIC, executors=executors_of(yard))
    begun: list[tuple[str, bool]] = []
    yard.begun = lambda job: begun.append(
        (job.work.step.name, all(one.ended is not None for one in yard.jobs.values() if one is not job))
    )
    world.source.append(event("haul.ordered", {"load": "l1"}, topic=TOPIC))
    world.crash_after(2.0)
    world.source.append(event("haul.called_off", {"load": "l1"}, topic=TOPIC), after=3.0)
    world.live(lambda: "bring_back/1" in yard.asked)
    assert (world.deaths, yard.away, len(yard.looked_for)) == (1, 0, TIMES_AWAY + 1)
    assert begun == [("haul", True), ("bring_back", True)]
