"""Functions that do the work of steps themselves: async ones in the engine's loop, plain ones in a thread each.

Whatever a function does ends here: what it raises, ``BaseException`` included, is how its attempt ended. A thread
cannot be stopped. All of it ends with the engine's process, so there is nothing to be found again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from connectors.executor import CancelledError, Ended, Running, WithinEngine, Work

log = logging.getLogger("pointsman.engine")

BLOCKS_SECONDS = 0.25
"""What keeps the loop busy for longer at a stretch delays all else, and is named."""
IN_A_THREAD = "what waits or computes for long belongs into a plain function, which has a thread of its own"


class FunctionExecutor(WithinEngine):
    """Does the work of steps whose functions do it."""

    def begin(self, work: Work) -> Running:
        """Call the function."""
        return _in_loop(work) if work.step.is_async else _InThread(work)


class InTask:
    """An attempt that is a task of the loop, and over when that is; it may take a while to end."""

    __slots__ = ("_was_cancelled", "ended", "stop_seconds")

    can_stop = True
    gone_on_seconds = 0.0

    def __init__(self, work: Coroutine[Any, Any, Ended], name: str, stop_seconds: float = 0.0) -> None:
        self.ended = asyncio.get_running_loop().create_task(work, name=name)
        self.stop_seconds = stop_seconds
        self._was_cancelled = False

    @property
    def released(self) -> asyncio.Future[Ended]:
        """The same moment."""
        return self.ended

    def cancel(self) -> None:
        """What it does about it is its own business, and not cut short by another cancellation."""
        # Task.cancelling does not say so: a task that runs out of a timeout of its own cancels itself.
        if not self._was_cancelled:
            self._was_cancelled = True
            self.ended.cancel()


class _InThread:
    """An attempt that is a thread, which ends when it likes."""

    __slots__ = ("ended",)

    can_stop = False
    stop_seconds = 0.0
    gone_on_seconds = 0.0

    def __init__(self, work: Work) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ended] = loop.create_future()
        name = f"step {work.step.name}"
        threading.Thread(target=self._run, args=(work, loop), name=name, daemon=True).start()

    @property
    def released(self) -> asyncio.Future[Ended]:
        """The same moment."""
        return self.ended

    def cancel(self) -> None:
        """Nothing stops a thread."""

    def _run(self, work: Work, loop: asyncio.AbstractEventLoop) -> None:
        try:
            value = work.step.function(*work.arguments)
        except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here, SystemExit too
            ended = Ended(error=error)
        else:
            ended = Ended(value)
        try:
            loop.call_soon_threadsafe(self._take, ended)
        except RuntimeError:  # the loop is closed: the engine has ended, and the attempt is lost with it
            return

    def _take(self, ended: Ended) -> None:
        if not self.ended.done():
            self.ended.set_result(ended)


def tell_busy(step: str, seconds: float, instead: str) -> None:
    """Speak of a step that kept the loop busy, where it was for too long; ``instead`` is what is to be done."""
    if seconds >= BLOCKS_SECONDS:
        log.warning(
            "the step %s kept the engine's loop busy for %.1f seconds, and with it all that the engine does; %s",
            step,
            seconds,
            instead,
        )


def _in_loop(work: Work) -> InTask:
    return InTask(_awaited(work), f"step {work.step.name}")


async def _awaited(work: Work) -> Ended:
    try:
        return Ended(await _Measured(work.step.function(*work.arguments), work.step.name))
    except asyncio.CancelledError:
        return Ended(error=CancelledError("it has cancelled itself"))
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here, SystemExit too
        return Ended(error=error)


class _Measured:
    """Awaits a coroutine, and speaks of it where it keeps the loop busy for long at a stretch."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        self._coroutine = coroutine
        self._name = name

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[Any], Any] = self._coroutine.send
        value: Any = None
        while True:
            began = time.perf_counter()
            try:
                waits_for = resume(value)
            except StopIteration as done:
                return done.value
            finally:
                seconds = time.perf_counter() - began
                if seconds >= BLOCKS_SECONDS:
                    tell_busy(self._name, seconds, IN_A_THREAD)
            try:
                value = yield waits_for
                resume = self._coroutine.send
            except BaseException as error:  # noqa: BLE001 - a cancellation, which is the coroutine's to deal with
                resume, value = self._coroutine.throw, error
