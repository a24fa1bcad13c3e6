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
from statemachines.step import Step

log = logging.getLogger("pointsman.engine")

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
    """

    def __init__(self, step: Step[Any, Any], arguments: tuple[Any, ...], limits: EngineLimits) -> None:
        self._step = step
        self._limits = limits
        loop = asyncio.get_running_loop()
        self.released: asyncio.Future[None] = loop.create_future()
        self._work: asyncio.Future[Ended]
        self._stopping: asyncio.Future[None] = loop.create_future()
        if step.is_async:
            self._work = asyncio.create_task(self._run(step.function, arguments), name=f"step {step.name}")
        else:
            self._work = loop.create_future()
            of_thread = step.function, arguments, loop
            name = f"step {step.name}"
            threading.Thread(target=self._run_in_thread, args=of_thread, name=name, daemon=True).start()
        self._work.add_done_callback(lambda _: self._release())
        self.ended: asyncio.Task[Ended] = asyncio.create_task(self._watch(), name=f"attempt of {step.name}")

    def cancel(self) -> None:
        """Have it end; what becomes of it does not matter any more."""
        self.ended.cancel()
        if self._step.is_async:
            self._work.cancel()

    def stop(self) -> None:
        """Have it end; what becomes of it is to be told."""
        if not self._stopping.done():
            self._stopping.set_result(None)

    async def _watch(self) -> Ended:
        timeout = None if self._step.timeout is None else self._step.timeout.total_seconds()
        began = time.monotonic()
        either: set[asyncio.Future[Any]] = {self._work, self._stopping}
        await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if self._work.done():
            return self._seen() or Ended(error=CancelledError("it has cancelled itself"))
        if self._step.is_async:
            await self._cancel()
        elif self._stopping.done():
            # Nothing stops a thread: it has the time that it may take, and a while.
            left = 0.0 if timeout is None else max(0.0, began + timeout - time.monotonic())
            await asyncio.wait({self._work}, timeout=left + self._limits.step_cancel_seconds)
        seen = self._seen()
        # What an async step raises once it was cancelled does not say what it has done until then.
        if seen is not None and (seen.error is None or not self._step.is_async):
            return seen
        if self._stopping.done():
            return Ended(error=LostError("its state was left before it was known what it did"), lost=True)
        assert timeout is not None, "it was stopped, or is over in time"
        return Ended(error=TimeoutError(f"it was not done within {timeout:g} seconds"), timed_out=True)

    async def _cancel(self) -> None:
        """Have an async step end, which is its own business for a while."""
        self._work.cancel()
        await asyncio.wait({self._work}, timeout=self._limits.step_cancel_seconds)
        if not self._work.done():
            log.error("the step %s does not end though it was cancelled; it keeps its place", self._step.name)

    def _seen(self) -> Ended | None:
        """How it ended, if it has, and not by being cancelled."""
        return self._work.result() if self._work.done() and not self._work.cancelled() else None

    def _release(self) -> None:
        if not self.released.done():
            self.released.set_result(None)

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
