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


def has_had_its_time(after: list[float], *, cancel_after: float, **bounds: timedelta) -> list[bool]:
    """Whether one that never ends, and was cancelled, has had its time by then; cancelled twice, since it may be."""

    async def live() -> list[bool]:
        loop = asyncio.get_running_loop()
        began, seen = loop.time(), list[bool]()

        def work(context: Context, call: Call) -> int:
            raise AssertionError("it is not called")

        limits = EngineLimits(step_cancel_seconds=1.0)
        attempt = Attempt(step_of(work, **bounds), Thread(1_000.0, Ended(7)), limits)
        for again in (0.0, 0.5):
            loop.call_later(cancel_after + again, attempt.cancel)
        for at in after:
            await asyncio.sleep(began + at - loop.time())
            seen.append(attempt.has_had_its_time)
        return seen

    return in_virtual_time(live)


def test_one_that_nobody_waits_for_has_what_is_left_of_its_time_and_the_grace() -> None:
    seen = has_had_its_time([1.0, 2.5, 5.9, 6.1], cancel_after=2.0, timeout=timedelta(seconds=5))
    assert seen == [False, False, False, True]
    # Where nothing limits it, it has the grace alone.
    assert has_had_its_time([2.9, 3.1], cancel_after=2.0) == [False, True]
    assert has_had_its_time([6.5, 7.1], cancel_after=6.0, timeout=timedelta(seconds=5)) == [False, True]


def test_a_thread_that_was_stopped_has_what_is_left_of_its_time() -> None:
    after, ended = told(20.0, stop_after=2.0, timeout=timedelta(seconds=5))
    assert (after, ended.lost, type(ended.error)) == (6.0, True, LostError)
    assert told(4.0, stop_after=2.0, timeout=timedelta(seconds=5)) == (4.0, Ended(7))
    # Where nothing limits it, it has the grace alone.
    assert told(20.0, stop_after=2.0)[0] == 3.0
