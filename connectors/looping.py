"""What steps do to the loop that they run in: how long they keep it busy at a stretch, and that they fork in it.

Who watches a loop reads from an array which execution keeps it busy just now; so it is found while it lasts. That is
written for each stretch, so it costs as little as can be.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Coroutine, Generator, MutableSequence
from typing import Any, NoReturn

log = logging.getLogger("pointsman.engine")
_now = time.perf_counter_ns

BLOCKS_SECONDS = 0.25
"""What keeps the loop busy for longer at a stretch delays all else, and is named."""
IN_A_THREAD = "what waits or computes for long belongs into a plain function, which has a thread of its own"
BLOCKS_NANOSECONDS = int(BLOCKS_SECONDS * 1e9)
BEAT = 6
"""So many numbers say what keeps a loop busy, those of the engine's own handlers first."""
NUMBER, SINCE = 4, 5
"""Where the numbers of steps are."""
FORKED_CODE = 70
"""How a process ends that a step has forked off, and that would go on as an engine."""


class Process:
    """The one that this is, also after a fork; asking the system each time would cost more."""

    number = os.getpid()

    @classmethod
    def note_fork(cls) -> None:
        """It is another one now."""
        cls.number = os.getpid()


os.register_at_fork(after_in_child=Process.note_fork)


class Stretches:
    """Those of one loop, one at a time.

    ``beat`` is where they are written: at ``NUMBER`` which execution keeps the loop busy, and at ``SINCE`` a time of
    some clock, which is another one for each stretch, and 0 while there is none. What comes before is not touched.
    """

    def __init__(self, beat: MutableSequence[int] | None = None) -> None:
        self.beat: MutableSequence[int] = [0] * BEAT if beat is None else beat
        self.process = Process.number
        """Where the loop runs."""

    def begin(self, number: int) -> None:
        """From now on an execution keeps the loop busy."""
        self.beat[NUMBER] = number
        self.beat[SINCE] = time.perf_counter_ns()

    def end(self) -> None:
        """It does not any more."""
        if self.process != Process.number:
            end_forked()
        self.beat[SINCE] = 0


class Measured:
    """Awaits a coroutine of a step's, and speaks of it where it keeps the loop busy for long at a stretch."""

    __slots__ = ("_coroutine", "_name", "_number", "_run", "_stretches")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], name: str, run: str, number: int, stretches: Stretches
    ) -> None:
        """Of the step of this name of the run with this key, at the execution with this number."""
        self._coroutine = coroutine
        self._name = name
        self._run = run
        self._number = number
        self._stretches = stretches

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[Any], Any] = self._coroutine.send
        beat, process, number = self._stretches.beat, self._stretches.process, self._number
        value: Any = None
        while True:
            # As Stretches does it, without a call.
            beat[NUMBER] = number
            began = beat[SINCE] = _now()
            try:
                waits_for = resume(value)
            except StopIteration as done:
                return done.value
            finally:
                if process != Process.number:
                    end_forked()
                beat[SINCE] = 0
                took = _now() - began
                if took >= BLOCKS_NANOSECONDS:
                    tell_busy(self._name, self._run, took / 1e9, IN_A_THREAD)
            try:
                value = yield waits_for
                resume = self._coroutine.send
            except BaseException as error:  # noqa: BLE001 - a cancellation, which is the coroutine's to deal with
                resume, value = self._coroutine.throw, error


def tell_busy(step: str, run: str, seconds: float, instead: str) -> None:
    """Speak of a step that kept the loop busy for too long; ``instead`` is what is to be done."""
    log.warning(
        "the step %s of the run %r kept the engine's loop busy for %.1f seconds, and with it all that the engine does; "
        "%s",
        step,
        run,
        seconds,
        instead,
    )


def end_forked() -> NoReturn:
    """End this process, which a step has forked off, before it goes on with all that the engine does."""
    said = (
        f"pointsman: process {Process.number}, which a step has forked off, is ended: it would go on as the same "
        "engine. Have it become another program at once (exec), or use subprocess or multiprocessing.\n"
    )
    os.write(2, said.encode())
    os._exit(FORKED_CODE)
