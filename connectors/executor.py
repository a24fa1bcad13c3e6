"""What does the work of steps: the contract of an executor.

An executor makes attempts and says how they ended. What bounds an attempt (its time, the silence between heartbeats,
how long it is waited for once it was stopped), what is told of it to its run, and whether there is another one, is the
engine's business, and the same for all of them.

Attempts are known by the idempotency key of what they are made at, and their number. All methods are called in the
engine's loop, and none but ``attach`` and ``close`` may wait.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol

from statemachines.call import Beat, Call
from statemachines.described import Described
from statemachines.step import Step


class LostError(Exception):
    """An attempt has ended, or the engine that made it, before it was known what became of it."""


class CancelledError(Exception):
    """An attempt was cancelled, or has cancelled itself."""


class Ended(NamedTuple):
    """What became of an attempt."""

    result: Any = None
    """What it returned."""
    error: BaseException | None = None
    """Why it failed: an exception, for what else is said here the attempt is lost; None: it did not."""
    timed_out: bool = False
    """Whether it took too long."""
    lost: bool = False
    """Whether nobody knows what it did."""
    final: bool = False
    """Whether another attempt would fail in the same way."""
    stopped: bool = False
    """Whether who made it was stopped in order before it ended: it is tried again, and does not count."""


class Work(NamedTuple):
    """An attempt that is to be made."""

    step: Step[Any, Any]
    arguments: tuple[Any, ...]
    """What the step's function is given."""
    key: str
    """The idempotency key: equal for all attempts at one execution, and for nothing else."""
    attempt: int
    """The first is 1."""
    beat: Beat | None = None
    """To be called where something is heard of it while it goes on; None: nobody listens."""
    described: Described[Any] | None = None
    """What the function says that is to be done; None: the function does it itself."""
    number: int = 0
    """What whoever watches the engine knows the execution by."""

    @property
    def name(self) -> str:
        """What the attempt is known by."""
        return f"{self.key}/{self.attempt}"

    @property
    def run(self) -> str:
        """The key of the run that it is of, as the function is told it."""
        call: Call = self.arguments[-1]
        return call.key


class Running(Protocol):
    """An attempt that was begun."""

    @property
    def ended(self) -> asyncio.Future[Ended]:
        """Done with what became of it; one that was cancelled says no more than that.

        Of an attempt that was cancelled, an error does not say what it had done until then; a result does.
        """
        ...

    @property
    def released(self) -> asyncio.Future[Any]:
        """Done once nothing of it goes on any more, which is not before ``ended`` and may be later."""
        ...

    @property
    def can_stop(self) -> bool:
        """Whether ``cancel`` has it end. A thread, for one, ends when it likes."""
        ...

    @property
    def stop_seconds(self) -> float:
        """How long it may take to end once it was cancelled, by what its step says; more is waited for it."""
        ...

    @property
    def gone_on_seconds(self) -> float:
        """For how long it had gone on already when this was made; 0 where that is not known, or it has just begun."""
        ...

    def cancel(self) -> None:
        """Have it end, where that can be; once more does nothing more, whatever it does about the first time.

        It only sets that going, and does not wait. Where it raises, the attempt counts as one that does not heed: it is
        told of in time and keeps its place; where nobody waits for it any more, this is called again every second until
        it does not raise.
        """
        ...


class StepExecutor(Protocol):
    """Does the work of steps."""

    @property
    def keeps(self) -> bool:
        """Whether attempts go on where the engine ends, and ``attach`` finds them. Else they end with the engine."""
        ...

    def start(self, work: Work) -> Running:
        """Make an attempt.

        What goes wrong while it begins is how it ended. One that was begun already, here or by an engine that is gone,
        is not made twice: this is told of it as of one that it has begun itself.
        """
        ...

    async def attach(self, work: Work) -> Running | None:
        """Go on with an attempt that another engine, now gone, has begun; None: there is nothing known of it.

        One that has ended meanwhile is known, and ``ended`` says how. Where it cannot be found out just now, this
        raises, and is asked again.
        """
        ...

    async def close(self) -> None:
        """The engine ends. What is kept goes on; all else ends, if it has not yet."""
        ...


class WithinEngine(ABC):
    """A ``StepExecutor`` whose attempts all end with the engine's process: there is nothing to be found again."""

    keeps = False

    def __init__(self) -> None:
        self._going: dict[tuple[str, int], Running] = {}

    @abstractmethod
    def begin(self, work: Work) -> Running:
        """Make an attempt that was not begun yet."""

    def start(self, work: Work) -> Running:
        """Make an attempt, once."""
        name = work.key, work.attempt
        going = self._going.get(name)
        if going is None:
            going = self._going[name] = self.begin(work)
            going.released.add_done_callback(lambda _: self._going.pop(name))
        return going

    async def attach(self, work: Work) -> Running | None:
        """What another engine has begun has ended with it."""
        return self._going.get((work.key, work.attempt))

    async def close(self) -> None:
        """Have all end that can."""
        for one in self._going.values():
            one.cancel()


class Over:
    """An attempt of which nothing goes on, as a ``Running``."""

    __slots__ = ("ended", "released")

    can_stop = True
    stop_seconds = 0.0
    gone_on_seconds = 0.0

    def __init__(self, ended: Ended) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self.released: asyncio.Future[None] = loop.create_future()
        self.ended.set_result(ended)
        self.released.set_result(None)

    def cancel(self) -> None:
        """Nothing is left to end."""
