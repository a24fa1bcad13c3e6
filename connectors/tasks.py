"""Tasks that async steps make: they are known while their attempt goes on, and what is left of them ends with it.

A task belongs to the attempt in whose context it is made, however deep. What a task raises ends that task, and never
the loop, ``SystemExit`` and ``KeyboardInterrupt`` included.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import Context, ContextVar
from functools import partial
from types import CoroutineType
from typing import Any

from connectors.looping import Measured, Stretches

log = logging.getLogger("pointsman.engine")

LEFT_SECONDS = 0.25
"""So long tasks that an attempt leaves behind are waited for, and again once they were cancelled: what is shielded from
a cancellation mostly needs no more."""
NAMED_MAX = 10
"""So many of them are named."""


class Attempted(Measured):
    """Awaits an attempt at a step, in a task, and knows the tasks that it makes."""

    __slots__ = ("left",)

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], name: str, number: int, stretches: Stretches
    ) -> None:
        """To be made in the task that awaits it; see ``Measured``."""
        self._coroutine = coroutine
        self._name = name
        self._number = number
        self._stretches = stretches
        self.left: set[asyncio.Task[Any]] | None = None
        """Tasks of it that go on; None: it has made none yet."""
        _ATTEMPT.set(self)

    def wrap(self, coroutine: CoroutineType[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """What a task of it is made of instead."""
        wrapped: CoroutineType[Any, Any, Any] = self._part(coroutine)  # type: ignore[assignment]  # it is one
        wrapped.__qualname__ = coroutine.__qualname__
        return wrapped

    def add(self, task: asyncio.Task[Any], coroutine: Coroutine[Any, Any, Any]) -> None:
        """It has made one."""
        if self.left is None:
            self.left = set()
        self.left.add(task)
        task.add_done_callback(partial(self._forget, coroutine))

    def _forget(self, coroutine: Coroutine[Any, Any, Any], task: asyncio.Task[Any]) -> None:
        # Where the task was cancelled before it began, nobody has begun this.
        coroutine.close()
        if self.left is not None:
            self.left.discard(task)

    async def end(self) -> None:
        """Wait a moment for those that are left, and then have them end, and say so."""
        if await self._are_done():
            return
        left = [*(self.left or ())]
        names = ", ".join(sorted({_name_of(one) for one in left})[:NAMED_MAX])
        log.warning(
            "an attempt at the step %s is over and has left %s behind (%s), cancelled now; what is to outlive an "
            "attempt, such as a pool of connections, is made in a context of its own: "
            "await asyncio.create_task(..., context=contextvars.Context())",
            self._name,
            "a task" if len(left) == 1 else f"{len(left)} tasks",
            names,
        )
        for one in left:
            one.cancel()
        await self._are_done()

    async def _are_done(self) -> bool:
        """Whether all are, in a moment, or until the attempt is cancelled, whose end is known by now."""
        left = [*(self.left or ())]
        if not left:
            return True
        try:
            _, pending = await asyncio.wait(left, timeout=LEFT_SECONDS)
        except asyncio.CancelledError:
            return False
        return not pending

    async def _part(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await Measured(coroutine, self._name, self._number, self._stretches)
        except (SystemExit, KeyboardInterrupt) as error:
            said = f"a task of the step {self._name} raised {error!r}, which ends the task and nothing else"
            raise RuntimeError(said) from error


_ATTEMPT: ContextVar[Attempted | None] = ContextVar("attempt", default=None)


class SeesTasks:
    """Makes the tasks of a loop, as whoever made them before, and has attempts know their own."""

    def __init__(self, before: Any) -> None:
        self._before = before or _make_task

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, *, context: Context | None = None, **how: Any
    ) -> Any:
        """See ``loop.set_task_factory``."""
        attempt = _ATTEMPT.get() if context is None else context.get(_ATTEMPT)
        if context is not None:
            how["context"] = context
        # Not what the interpreter has finish a generator that nobody holds any more: that may be anybody's.
        if attempt is None or not isinstance(coroutine, CoroutineType):
            return self._before(loop, coroutine, **how)
        task = self._before(loop, attempt.wrap(coroutine), **how)
        attempt.add(task, coroutine)
        return task


def see_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """From now on know of the tasks of this loop to which attempt they belong."""
    before = loop.get_task_factory()
    if not isinstance(before, SeesTasks):
        loop.set_task_factory(SeesTasks(before))


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **how: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coroutine, loop=loop, **how)


def _name_of(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return f"{task.get_name()}: {getattr(coroutine, '__qualname__', coroutine)}"
