"""When it is told of an attempt that its time is over, or that it was stopped, where nothing can stop it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from connectors.executor import Ended, LostError
from engine.limits import EngineLimits
from engine.steps.attempts import Attempt
from statemachines import Call, Context
from tests.simulated import in_virtual_time
from tests.unit.test_executors import step_of


class Thread:
    """An attempt that ends when it likes."""

    can_stop = False
    stop_seconds = gone_on_seconds = 0.0

    def __init__(self, ends_after: float, ended: Ended) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ended] = loop.create_future()
        loop.call_later(ends_after, self.ended.set_result, ended)

    @property
    def released(self) -> asyncio.Future[Ended]:
        return self.ended

    def cancel(self) -> None:
        """Nothing stops it."""


def told(
    ends_after: float,
    *,
    can_be_undone: bool = True,
    stop_after: float | None = None,
    ended: Ended | None = None,
    **bounds: timedelta,
) -> tuple[float, Ended]:
    """What is told of a thread, and when."""

    async def live() -> tuple[float, Ended]:
        loop = asyncio.get_running_loop()
        began = loop.time()

        def work(context: Context, call: Call) -> int:
            raise AssertionError("it is not called")

        def undo(context: Context, made: int | None, call: Call) -> None: ...

        step = step_of(work, **bounds)
        if can_be_undone:
            step.compensate(undo)
        attempt = Attempt(step, Thread(ends_after, ended or Ended(7)), EngineLimits(step_cancel_seconds=1.0))
        if stop_after is not None:
            loop.call_later(stop_after, attempt.stop)
        found = await attempt.ended
        return round(loop.time() - began, 2), found

    return in_virtual_time(live)


def test_a_thread_that_can_be_undone_is_waited_for_once_its_time_is_over() -> None:
    time = timedelta(seconds=5)
    after, ended = told(20.0, timeout=time)
    assert (after, ended.timed_out) == (6.0, True)
    assert told(5.5, timeout=time) == (5.5, Ended(7))
    failed = Ended(error=RuntimeError("no"))
    assert told(5.5, timeout=time, ended=failed) == (5.5, failed)
    after, ended = told(20.0, heartbeat=time)
    assert (after, ended.timed_out) == (6.0, True)


def test_a_thread_that_cannot_is_told_of_in_time() -> None:
    after, ended = told(20.0, can_be_undone=False, timeout=timedelta(seconds=5))
    assert (after, ended.timed_out) == (5.0, True)


def test_a_thread_that_was_stopped_has_what_is_left_of_its_time() -> None:
    after, ended = told(20.0, stop_after=2.0, timeout=timedelta(seconds=5))
    assert (after, ended.lost, type(ended.error)) == (6.0, True, LostError)
    assert told(4.0, stop_after=2.0, timeout=timedelta(seconds=5)) == (4.0, Ended(7))
    # Where nothing limits it, it has the grace alone.
    assert told(20.0, stop_after=2.0)[0] == 3.0
