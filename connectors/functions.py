"""Functions that do the work of steps themselves: async ones in the engine's loop, plain ones in a thread each.

Whatever a function does ends here: what it raises, ``BaseException`` included, is how its attempt ended. A thread
cannot be stopped. All of it ends with the engine's process, so there is nothing to be found again.

Tasks that an async function makes are its own: what goes on of them at its end is named (``connectors.tasks``).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Coroutine
from typing import Any

from connectors.executor import CancelledError, Ended, Running, WithinEngine, Work
from connectors.looping import Process, Stretches, end_forked
from connectors.tasks import Attempted, LeftBehind, see_tasks


class FunctionExecutor(WithinEngine):
    """Does the work of steps whose functions do it; ``stretches`` is told what they do to the loop."""

    def __init__(self, stretches: Stretches | None = None) -> None:
        super().__init__()
        self._stretches = stretches or Stretches()
        self._left = LeftBehind()
        self._sees_tasks = False

    def begin(self, work: Work) -> Running:
        """Call the function."""
        if not work.step.is_async:
            return _InThread(work)
        if not self._sees_tasks:
            self._sees_tasks = True
            see_tasks(asyncio.get_running_loop())
        return InTask(_awaited(work, self._stretches, self._left), f"step {work.step.name}")


class InTask:
    """An attempt that is a task of the loop, and over when that is; it may take a while to end."""

    __slots__ = ("_was_cancelled", "ended", "stop_seconds")

    can_stop = True
    gone_on_seconds = 0.0

    def __init__(self, work: Coroutine[Any, Any, Ended], name: str, stop_seconds: float = 0.0) -> None:
        # Not by the loop, which would ask whose task it is.
        self.ended = asyncio.Task(work, loop=asyncio.get_running_loop(), name=name)
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
        name, process = f"step {work.step.name}", Process.number
        threading.Thread(target=self._run, args=(work, loop, process), name=name, daemon=True).start()

    @property
    def released(self) -> asyncio.Future[Ended]:
        """The same moment."""
        return self.ended

    def cancel(self) -> None:
        """Nothing stops a thread."""

    def _run(self, work: Work, loop: asyncio.AbstractEventLoop, process: int) -> None:
        try:
            value = work.step.function(*work.arguments)
        except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here, SystemExit too
            ended = Ended(error=error)
        else:
            ended = Ended(value)
        if process != Process.number:
            end_forked()
        try:
            loop.call_soon_threadsafe(self._take, ended)
        except RuntimeError:  # the loop is closed: the engine has ended, and the attempt is lost with it
            return

    def _take(self, ended: Ended) -> None:
        if not self.ended.done():
            self.ended.set_result(ended)


async def _awaited(work: Work, stretches: Stretches, left: LeftBehind) -> Ended:
    attempted: Attempted | None = None
    try:
        step = work.step
        made = step.function(*work.arguments)
        # A decorator of the user's may have made something else of it that is to be awaited.
        coroutine = made if isinstance(made, Coroutine) else _coroutine_of(made)
        attempted = Attempted(coroutine, step.name, work.run, work.number, stretches)
        return Ended(await attempted)
    except asyncio.CancelledError:
        return Ended(error=CancelledError("it has cancelled itself"))
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here, SystemExit too
        return Ended(error=error)
    finally:
        if attempted is not None and attempted.left:
            left.tell(work.step.name, attempted.left)


async def _coroutine_of(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
