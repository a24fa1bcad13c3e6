"""An attempt that an executor makes, as the engine sees it: whatever the executor does wrong, it ends as a value.

Executors are user code. What one of them raises where it is asked about an attempt, or told to end it, is said in the
log; the attempt goes on as far as the engine knows, is told of in time, and keeps its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from typing import Any

from connectors.executor import Ended, LostError
from statemachines.failing import describe
from statemachines.step import Step

log = logging.getLogger("pointsman.engine")


class NoAttemptError(Exception):
    """What an executor has returned is no attempt, so nobody knows what it has begun."""


class Guarded:
    """An attempt that an executor makes, as a ``Running``; to be made in the loop.

    Until the executor has said which it is (``take``), it is one that can be stopped, and takes no time for that.
    """

    def __init__(self, step: Step[Any, Any]) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self.released: asyncio.Future[None] = loop.create_future()
        self._step = step
        self._running: Any = None
        """As the executor has it, once that is known."""
        self._is_unwanted = False
        self._was_cancelled = False
        self._said: set[str] = set()
        """What went wrong with it already, and was logged."""

    def take(self, running: object) -> None:
        """It is this one; where it was cancelled before, it is now.

        Raises:
            NoAttemptError: that is none.
        """
        ended, released = _futures(running)
        if ended is None or released is None:
            raise NoAttemptError(
                f"what was returned of an attempt at the step {self._step.name} is {_kind(running)}, and no Running "
                "with the futures ended and released, as connectors/executor.py says: nobody knows what was begun"
            )
        self._running = running
        ended.add_done_callback(self._note_end)
        released.add_done_callback(lambda _: self._note_release(ended))
        if self._is_unwanted:
            self.cancel()

    @property
    def can_stop(self) -> bool:
        """As the executor says."""
        return bool(self._asked("can_stop", True))

    @property
    def stop_seconds(self) -> float:
        """The same."""
        return self._asked("stop_seconds", 0.0)

    @property
    def gone_on_seconds(self) -> float:
        """The same."""
        return self._asked("gone_on_seconds", 0.0)

    def cancel(self) -> None:
        """Have the executor end it, once; where that has raised, it is told again with the next call."""
        self._is_unwanted = True
        if self._running is None or self._was_cancelled:
            return
        try:
            self._running.cancel()
        except BaseException as error:  # noqa: BLE001 - executors are user code
            self._say("cancel", "cannot be told to end", error)
        else:
            self._was_cancelled = True

    def _asked(self, what: str, otherwise: float) -> float:
        if self._running is None:
            return otherwise
        try:
            found = float(getattr(self._running, what))
        except BaseException as error:  # noqa: BLE001 - executors are user code
            self._say(what, f"does not say its {what}", error)
            return otherwise
        if not (math.isfinite(found) and found >= 0):
            said = ValueError(f"it says {found:g}, and {otherwise:g} is taken instead")
            self._say(what, f"does not say its {what}", said)
            return otherwise
        return found

    def _say(self, what: str, so: str, error: BaseException) -> None:
        if what not in self._said:
            self._said.add(what)
            who = type(self._running).__name__
            log.error("an attempt at the step %s %s (%s)", self._step.name, so, describe(error, who))

    def _note_end(self, ended: asyncio.Future[Any]) -> None:
        if self.ended.done():
            return
        if ended.cancelled():
            self.ended.cancel()
            return
        error = ended.exception()
        if error is not None:
            # It is the executor that has failed, and perhaps not what it did.
            self._end_as_lost(error)
            return
        said = _mistaken(ended.result())
        if said is None:
            self.ended.set_result(ended.result())
        else:
            self._end_as_lost(LostError(said))

    def _note_release(self, ended: asyncio.Future[Any]) -> None:
        if ended.done():
            self._note_end(ended)
        elif not self.ended.done():
            said = "nothing of it goes on any more, and its executor does not say what became of it"
            self._end_as_lost(LostError(said))
        if not self.released.done():
            self.released.set_result(None)

    def _end_as_lost(self, error: BaseException) -> None:
        self.ended.set_result(Ended(error=error, lost=True))


def _futures(running: object) -> list[asyncio.Future[Any] | None]:
    """Its ``ended`` and ``released``; None: that is no future."""
    found: list[asyncio.Future[Any] | None] = []
    for name in ("ended", "released"):
        one = None
        with contextlib.suppress(BaseException):
            one = getattr(running, name)
        found.append(one if asyncio.isfuture(one) else None)
    return found


def _mistaken(said: object) -> str | None:
    """What is wrong with what an executor says became of an attempt; None: nothing."""
    if not isinstance(said, Ended):
        return f"its executor says what became of it by {_kind(said)}, and not by an Ended"
    # Whatever the annotation of it promises.
    error: object = said.error
    if error is None or isinstance(error, BaseException):
        return None
    return f"its executor says that it failed by {_kind(error)}, and not by an exception"


def _kind(one: object) -> str:
    return "None" if one is None else f"something of the class {type(one).__name__}"
