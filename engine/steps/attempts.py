"""What bounds an attempt, whatever executor makes it: its time, its silence, and how long it is waited for at its end.

One that is not done in time is told of in time, though it may go on, and keeps its place until nothing of it does. What
can be undone has a while to end before it is told of, since nobody is to undo what is still being done; and where its
state was left, all that is left of its own time before that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from connectors.executor import CancelledError, Ended, LostError, Running
from engine.limits import EngineLimits
from engine.steps.executors import ASK_AGAIN_SECONDS_MAX, Attaching
from engine.steps.pulse import Pulse
from statemachines.durations import told_duration
from statemachines.step import Step

log = logging.getLogger("pointsman.engine")

FIND_SECONDS = 2 * ASK_AGAIN_SECONDS_MAX
"""So long one that is looked for, and was stopped, is waited for where nothing limits its time."""
LISTEN_AGAIN_SECONDS = 0.001
"""So long at least it is waited before it is asked again whether an attempt is silent."""


class Attempt:
    """One of them, which was begun; to be made in the loop.

    ``ended`` is done with what became of it; ``released`` once nothing of it goes on any more, which may be later.
    ``pulse`` is where its heartbeats are heard; ``left_seconds`` what is left of the time that all attempts may take
    together, where that is limited. ``on_end`` and ``on_release`` are called at the same moments, the first only where
    it was not cancelled: at once, since each callback of a future takes a turn of the loop.
    """

    __slots__ = (
        "_alarm", "_cancelled_at", "_ending", "_is_last", "_is_silent", "_left_at", "_limits", "_listening", "_on_end",
        "_on_release", "_over_at", "_pulse", "_running", "_silence", "_step", "_stopped", "ended", "released",
    )  # fmt: skip

    def __init__(
        self,
        step: Step[Any, Any],
        running: Running,
        limits: EngineLimits,
        pulse: Pulse | None = None,
        left_seconds: float | None = None,
        on_end: Callable[[Ended], None] | None = None,
        on_release: Callable[[], None] | None = None,
    ) -> None:
        self._step = step
        self._running = running
        self._limits = limits
        self._pulse = pulse or Pulse()
        loop = running.ended.get_loop()
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self.released: asyncio.Future[None] = loop.create_future()
        self._on_end = on_end
        self._on_release = on_release
        self._stopped = False
        self._ending: asyncio.Task[None] | None = None
        """What ends it before it does so itself."""
        self._left_at = None if left_seconds is None else loop.time() + left_seconds
        self._over_at: float | None = None
        self._is_last = False
        """Whether what is over then is the time of all attempts."""
        self._is_silent = False
        self._cancelled_at: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._count_time()
        silence = step.bounds.heartbeat
        self._silence = None if silence is None else silence.total_seconds()
        self._listening = None if self._silence is None else loop.call_later(self._silence, self._listen)
        running.ended.add_done_callback(self._note_end)
        if running.released is not running.ended:
            running.released.add_done_callback(self._note_release)

    def count_anew(self) -> None:
        """It is known by now for how long it has gone on already, and from now on it is heard."""
        self._pulse.beat(None)
        self._count_time()

    def _count_time(self) -> None:
        """Have it end in time."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self.ended.done():
            return
        loop, timeout = self.ended.get_loop(), self._step.timeout
        self._over_at = None
        if timeout is not None:
            self._over_at = loop.time() + timeout.total_seconds() - self._running.gone_on_seconds
        left_at = self._left_at
        is_last = left_at is not None and (self._over_at is None or left_at < self._over_at)
        if is_last:
            self._over_at = left_at
        if self._ending is None:
            self._is_last = is_last
            self._alarm = None if self._over_at is None else loop.call_at(self._over_at, self._end)

    def _listen(self) -> None:
        """End it if it is silent for too long."""
        assert self._silence is not None, "it listens only where there is a limit"
        left = self._silence - self._pulse.silent_seconds()
        if left > 0:
            loop = asyncio.get_running_loop()
            self._listening = loop.call_later(max(left, LISTEN_AGAIN_SECONDS), self._listen)
            return
        self._is_silent = self._ending is None
        self._end()

    def _be_quiet(self) -> None:
        """Wait for nothing more."""
        for one in (self._alarm, self._listening):
            if one is not None:
                one.cancel()

    @property
    def seen(self) -> Ended | None:
        """How it has ended, whether or not anybody was told; None where it has not."""
        return _seen(self._running.ended)

    @property
    def has_had_its_time(self) -> bool:
        """Whether one that was cancelled had all the time for which it is waited, so that it may never end."""
        at = self._cancelled_at
        return at is not None and self._now() >= at + self._seconds_to_wait(at)

    def cancel(self) -> None:
        """Have it end; what becomes of it does not matter any more."""
        if self._cancelled_at is None:
            self._stopped, self._cancelled_at = True, self._now()
        self.ended.cancel()
        self._on_end = None
        self._be_quiet()
        self._running.cancel()

    def stop(self) -> None:
        """Have it end; what becomes of it is to be told."""
        self._stopped = True
        self._end()

    def _note_end(self, work: asyncio.Future[Ended]) -> None:
        self._be_quiet()
        if self._ending is None and not self.ended.done():
            self._tell(_seen(work) or Ended(error=CancelledError("it was cancelled")))
        if work is self._running.released:
            self._note_release(work)

    def _note_release(self, _work: asyncio.Future[Any]) -> None:
        if not self.released.done():
            self.released.set_result(None)
            # Whoever is called holds this: kept, it would be a cycle.
            called, self._on_release = self._on_release, None
            if called is not None:
                called()

    def _tell(self, ended: Ended) -> None:
        self.ended.set_result(ended)
        called, self._on_end = self._on_end, None
        if called is not None:
            called(ended)

    def _end(self) -> None:
        if self._ending is None and not self.ended.done():
            self._ending = asyncio.create_task(self._end_in_time(), name=f"end of {self._step.name}")

    async def _end_in_time(self) -> None:
        """Have it end, and tell what became of it, also if it goes on."""
        if await self._is_known():
            await self._have_it_end()
        if not self.ended.done():
            self._tell(self._as_told(self.seen))

    async def _is_known(self) -> bool:
        """Whether it is known where it goes on, if it does. One that is looked for is told to end once it is found."""
        running = self._running
        if not isinstance(running, Attaching) or running.found.done():
            return True
        # It may go on, and has not heard yet that it is to end: it has the time that it may take, and a while.
        running.cancel()
        either, seconds = (running.found, running.released), self._seconds_to_wait(self._now())
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if any(one.done() for one in either):
            return True
        log.error("the step %s is to end and was not found in time; it keeps its place", self._step.name)
        return False

    async def _have_it_end(self) -> None:
        running = self._running
        if running.can_stop:
            # What it does about it is its own business, for a while.
            running.cancel()
        elif not self._stopped and self._step.compensation is None:
            # Nothing stops a thread, and nobody undoes this one.
            return
        await asyncio.wait({running.released}, timeout=self._seconds_to_wait(self._now()))
        if running.can_stop and not running.released.done():
            log.error("the step %s does not end though it was cancelled; it keeps its place", self._step.name)

    def _now(self) -> float:
        return self.ended.get_loop().time()

    def _seconds_to_wait(self, since: float) -> float:
        """For how long it is waited for that was told to end then: what was left of its time, and a while."""
        running, left = self._running, self._seconds_left(since)
        if isinstance(running, Attaching) and not running.found.done():
            left = FIND_SECONDS if self._stopped and self._over_at is None else left
        elif running.can_stop:
            left = max(left, running.stop_seconds)
        return left + self._limits.step_cancel_seconds

    def _seconds_left(self, since: float) -> float:
        """What was left of its time then, where it was stopped within that: only one that can be undone is."""
        if self._over_at is None or not self._stopped:
            return 0.0
        return max(0.0, self._over_at - since)

    def _as_told(self, seen: Ended | None) -> Ended:
        # What is raised by one that was cancelled does not say what it has done until then.
        if seen is not None and (seen.error is None or not self._running.can_stop):
            return seen
        if self._stopped:
            return Ended(error=LostError("its state was left before it was known what it did"), lost=True)
        return self._cut_short()

    def _cut_short(self) -> Ended:
        """What is told of it where its time is over."""
        timeout, within = self._step.timeout, self._step.bounds.within
        if self._is_silent:
            silence = (
                "" if self._step.bounds.heartbeat is None else told_duration(self._step.bounds.heartbeat)
            )
            said = f"nothing was heard of it for {silence}: it is to call call.heartbeat() more often"
        elif self._is_last:
            said = "all attempts together were not done"
            said += "" if within is None else f" within {told_duration(within)}"
        else:
            said = "" if timeout is None else f"it was not done within {told_duration(timeout)}"
        final = self._is_last and not self._is_silent
        return Ended(error=TimeoutError(said), timed_out=True, final=final)


def _seen(work: asyncio.Future[Ended]) -> Ended | None:
    """How it ended, if it has, and not by being cancelled."""
    return work.result() if work.done() and not work.cancelled() else None
