"""One attempt of a step that is a function: async ones in the loop, plain ones in a thread each.

Whatever a step does ends here: what it raises, ``BaseException`` included, becomes an ``Ended``; one that is not done
in time is told of in time, though it may go on, and keeps its place until it is done. A thread cannot be stopped.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from engine.limits import EngineLimits
from engine.pulse import Pulse
from statemachines.durations import told_duration
from statemachines.step import Step

log = logging.getLogger("pointsman.engine")

LISTEN_AGAIN_SECONDS = 0.001
"""So long at least it is waited before it is asked again whether an attempt is silent."""
BLOCKS_SECONDS = 0.25
"""An async step that keeps the loop busy for longer at a stretch delays all else, and is named."""


class LostError(Exception):
    """The engine that made an attempt ended, or was stopped, before it was known what became of it."""


class CancelledError(Exception):
    """A step has cancelled itself."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of an attempt."""

    result: Any = None
    """What it returned."""
    error: BaseException | None = None
    """Why it failed; None: it did not."""
    timed_out: bool = False
    lost: bool = False
    """Whether nobody knows what it did."""
    final: bool = False
    """Whether another attempt would fail in the same way."""


class Attempt:
    """One of them, begun as it is made; to be made in the loop.

    ``ended`` is done with what became of it; ``released`` once nothing of it goes on any more, which may be later.
    ``pulse`` is where its heartbeats are heard; ``left_seconds`` what is left of the time that all attempts may take
    together, where that is limited.
    """

    def __init__(
        self,
        step: Step[Any, Any],
        arguments: tuple[Any, ...],
        limits: EngineLimits,
        pulse: Pulse | None = None,
        left_seconds: float | None = None,
    ) -> None:
        self._step = step
        self._limits = limits
        self._pulse = pulse or Pulse()
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self.released: asyncio.Future[None] = loop.create_future()
        self._stopped = False
        self._ending: asyncio.Task[None] | None = None
        """What ends it before it does so itself."""
        self._work: asyncio.Future[Ended]
        name = f"step {step.name}"
        if step.is_async:
            self._work = asyncio.create_task(self._run(step.function, arguments), name=name)
        else:
            self._work = loop.create_future()
            of_thread = step.function, arguments, loop
            threading.Thread(target=self._run_in_thread, args=of_thread, name=name, daemon=True).start()
        self._work.add_done_callback(self._note_end)
        seconds = None if step.timeout is None else step.timeout.total_seconds()
        self._cut_short = _too_late("" if seconds is None else f"it was not done within {seconds:g} seconds")
        """What is told of it where its time is over."""
        if left_seconds is not None and (seconds is None or left_seconds < seconds):
            seconds, within = left_seconds, step.bounds.within
            said = "" if within is None else f" within {told_duration(within)}"
            self._cut_short = _too_late(f"all attempts together were not done{said}", final=True)
        self._over_at = None if seconds is None else loop.time() + seconds
        self._alarm = None if seconds is None else loop.call_later(seconds, self._end)
        silence = step.bounds.heartbeat
        self._silence = None if silence is None else silence.total_seconds()
        self._listening = None if self._silence is None else loop.call_later(self._silence, self._listen)

    def _listen(self) -> None:
        """End it if it is silent for too long."""
        assert self._silence is not None, "it listens only where there is a limit"
        left = self._silence - self._pulse.silent_seconds()
        if left > 0:
            loop = asyncio.get_running_loop()
            self._listening = loop.call_later(max(left, LISTEN_AGAIN_SECONDS), self._listen)
            return
        said = f"nothing was heard of it for {self._silence:g} seconds: it is to call call.heartbeat() more often"
        if self._ending is None:
            self._cut_short = _too_late(said)
        self._end()

    def _be_quiet(self) -> None:
        """Wait for nothing more."""
        for one in (self._alarm, self._listening):
            if one is not None:
                one.cancel()

    def cancel(self) -> None:
        """Have it end; what becomes of it does not matter any more."""
        self.ended.cancel()
        self._be_quiet()
        if self._step.is_async:
            self._work.cancel()

    def stop(self) -> None:
        """Have it end; what becomes of it is to be told."""
        self._stopped = True
        self._end()

    def _note_end(self, work: asyncio.Future[Ended]) -> None:
        if not self.released.done():
            self.released.set_result(None)
        self._be_quiet()
        if self._ending is None and not self.ended.done():
            self.ended.set_result(_seen(work) or Ended(error=CancelledError("it has cancelled itself")))

    def _end(self) -> None:
        if self._ending is None and not self.ended.done():
            self._ending = asyncio.create_task(self._end_in_time(), name=f"end of {self._step.name}")

    async def _end_in_time(self) -> None:
        """Have it end, and tell what became of it, also if it goes on."""
        work, grace = self._work, self._limits.step_cancel_seconds
        if self._step.is_async:
            # What it does about it is its own business, for a while.
            work.cancel()
            await asyncio.wait({work}, timeout=grace)
            if not work.done():
                log.error(
                    "the step %s does not end though it was cancelled; it keeps its place", self._step.name
                )
        elif self._stopped:
            # Nothing stops a thread: it has the time that it may take, and a while.
            now = asyncio.get_running_loop().time()
            left = 0.0 if self._over_at is None else max(0.0, self._over_at - now)
            await asyncio.wait({work}, timeout=left + grace)
        if not self.ended.done():
            self.ended.set_result(self._as_told(_seen(work)))

    def _as_told(self, seen: Ended | None) -> Ended:
        # What an async step raises once it was cancelled does not say what it has done until then.
        if seen is not None and (seen.error is None or not self._step.is_async):
            return seen
        if self._stopped:
            return Ended(error=LostError("its state was left before it was known what it did"), lost=True)
        return self._cut_short

    async def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Ended:
        try:
            value = await _Measured(function(*arguments), self._step.name)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here, SystemExit too
            return Ended(error=error)
        return Ended(value)

    def _run_in_thread(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], loop: asyncio.AbstractEventLoop
    ) -> None:
        try:
            value = function(*arguments)
        except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here, SystemExit too
            ended = Ended(error=error)
        else:
            ended = Ended(value)
        try:
            loop.call_soon_threadsafe(self._take, ended)
        except RuntimeError:  # the loop is closed: the engine has ended, and the attempt is lost with it
            return

    def _take(self, ended: Ended) -> None:
        if not self._work.done():
            self._work.set_result(ended)


def _too_late(said: str, *, final: bool = False) -> Ended:
    return Ended(error=TimeoutError(said), timed_out=True, final=final)


def _seen(work: asyncio.Future[Ended]) -> Ended | None:
    """How it ended, if it has, and not by being cancelled."""
    return work.result() if work.done() and not work.cancelled() else None


class _Measured:
    """Awaits a coroutine, and speaks of it where it keeps the loop busy for long at a stretch."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        self._coroutine = coroutine
        self._name = name

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        resume: Callable[[], Any] = lambda: coroutine.send(None)  # noqa: E731 - one of two ways to go on
        while True:
            began = time.perf_counter()
            try:
                waits_for = resume()
            except StopIteration as done:
                return done.value
            finally:
                self._tell(time.perf_counter() - began)
            try:
                value = yield waits_for
                resume = _sending(coroutine, value)
            except BaseException as error:  # noqa: BLE001 - a cancellation, which is the coroutine's to deal with
                resume = _throwing(coroutine, error)

    def _tell(self, seconds: float) -> None:
        if seconds >= BLOCKS_SECONDS:
            log.warning(
                "the step %s kept the engine's loop busy for %.1f seconds, and with it all that the engine does; "
                "what waits or computes for long belongs into a plain function, which has a thread of its own",
                self._name,
                seconds,
            )


def _sending(coroutine: Coroutine[Any, Any, Any], value: Any) -> Callable[[], Any]:
    return lambda: coroutine.send(value)


def _throwing(coroutine: Coroutine[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: coroutine.throw(error)
