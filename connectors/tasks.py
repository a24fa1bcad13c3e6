"""Tasks that async steps make: they are known while their attempt goes on, and what is left of them then is named.

A task belongs to the attempt in whose context it is made, however deep. What a task raises ends that task, and never
the loop, ``SystemExit`` and ``KeyboardInterrupt`` included. What is left is not cancelled: it may be of a client that
the attempt was only the first to use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine
from contextvars import Context, ContextVar
from functools import partial
from types import CoroutineType
from typing import Any

from connectors.looping import Measured, Stretches

log = logging.getLogger("pointsman.engine")

NAMED_MAX = 10
"""So many of those that an attempt leaves behind are named."""
TOLD_MAX = 1_000
"""So many kinds of them are named once; beyond that they are named no more."""


class Attempted(Measured):
    """Awaits an attempt at a step, in a task, and knows the tasks that it makes."""

    __slots__ = ("left",)

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], name: str, run: str, number: int, stretches: Stretches
    ) -> None:
        """To be made in the task that awaits it; see ``Measured``."""
        super().__init__(coroutine, name, run, number, stretches)
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

    async def _part(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await Measured(coroutine, self._name, self._run, self._number, self._stretches)
        except (SystemExit, KeyboardInterrupt) as error:
            said = f"a task of the step {self._name} raised {error!r}, which ends the task and nothing else"
            raise RuntimeError(said) from error


_ATTEMPT: ContextVar[Attempted | None] = ContextVar("attempt", default=None)


class LeftBehind:
    """What attempts leave behind, which is named once for each step and kind of task."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def tell(self, step: str, left: Collection[asyncio.Task[Any]]) -> None:
        """Say that these go on though their attempt is over, unless that was said of such ones before."""
        new = {(step, _kind_of(one)) for one in left} - self._told
        if not new or len(self._told) >= TOLD_MAX:
            return
        self._told |= new
        names = ", ".join(sorted({_name_of(one) for one in left})[:NAMED_MAX])
        log.warning(
            "an attempt at the step %s is over, and %s that it has made %s on (%s): nobody hears how that ends, and "
            "the step may be undone meanwhile. Let it await what it makes; what is to outlive an attempt, such as a "
            "pool of connections, is made in a context of its own: "
            "await asyncio.create_task(..., context=contextvars.Context()). This is said once",
            step,
            "a task" if len(left) == 1 else f"{len(left)} tasks",
            "goes" if len(left) == 1 else "go",
            names,
        )


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
    return f"{task.get_name()}: {_kind_of(task)}"


def _kind_of(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return str(getattr(coroutine, "__qualname__", coroutine))
