"""Which executor does the work of which step, and what becomes of a function that says what is to be done.

A step whose function does the work itself is for the executor of functions. One whose function describes it is for the
executor of that class of described work, or of one above it. ``Command`` has one in each engine; others are given to
it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, MutableSequence
from typing import Any

from connectors.commands import CommandExecutor
from connectors.executor import Ended, LostError, Over, Running, StepExecutor, Work
from connectors.functions import FunctionExecutor
from connectors.looping import BLOCKS_SECONDS, Stretches, tell_busy
from engine.errors import UsageError
from engine.steps.guarded import Guarded, NoAttemptError
from statemachines.command import Command
from statemachines.described import Described, described_by
from statemachines.failing import describe, printable
from statemachines.machine import Machine
from statemachines.results import ResultError
from statemachines.step import Step

log = logging.getLogger("pointsman.engine")

ByClass = Mapping[type[Described[Any]], StepExecutor]
"""Executors of described work, by its class."""
ASK_AGAIN_SECONDS = 1.0
"""So long it is waited before an executor is asked again for an attempt that it could not find out about."""
ASK_AGAIN_SECONDS_MAX = 30.0
NOT_KNOWN = "the engine that made the attempt ended before it was known what became of it"
IN_THE_EXECUTOR = "such a function only says what is to be done, and what takes long belongs into that"


class Executors:
    """Those of one engine; ``beat`` is where its watchdog sees which step keeps the loop busy."""

    def __init__(self, described: ByClass | None = None, beat: MutableSequence[int] | None = None) -> None:
        self.stretches = Stretches(beat)
        self._functions = FunctionExecutor(self.stretches)
        self._described: dict[type[Described[Any]], StepExecutor] = {
            Command: CommandExecutor(),
            **(described or {}),
        }
        self._found: dict[Step[Any, Any], StepExecutor | None] = {}
        self._looking: set[asyncio.Task[None]] = set()
        """For attempts of other engines."""

    def of(self, step: Step[Any, Any]) -> StepExecutor | None:
        """The one that does the work of this step; None: nobody does."""
        if step not in self._found:
            described = step.describes
            classes = () if described is None else described.__mro__
            known = [self._described[one] for one in classes if one in self._described]
            self._found[step] = self._functions if described is None else next(iter(known), None)
        return self._found[step]

    def start(self, work: Work) -> Running:
        """Make an attempt; whatever goes wrong with that is how it ended."""
        try:
            executor = self._known(work.step)
            if executor is self._functions:
                return executor.start(work)
            self.stretches.begin(work.number)
            try:
                return _guarded(work.step, executor.start(_complete(work)))
            finally:
                self.stretches.end()
        except NoAttemptError as error:
            return Over(Ended(error=error, lost=True, final=True))
        except BaseException as error:  # noqa: BLE001 - functions and executors are user code
            return Over(Ended(error=error, final=isinstance(error, ResultError)))

    def attach(self, work: Work) -> Attaching:
        """Go on with an attempt that another engine has begun, as soon as it is found."""
        attaching = Attaching(self._known(work.step), work, self.stretches)
        self._looking.add(attaching.looking)
        attaching.looking.add_done_callback(self._looking.discard)
        return attaching

    async def close(self) -> None:
        """The engine ends."""
        for task in self._looking:
            task.cancel()
        for one in {id(one): one for one in (self._functions, *self._described.values())}.values():
            try:
                await one.close()
            except BaseException as error:
                if _is_cancelled():
                    raise
                log.warning("%s did not end in good order (%s)", type(one).__name__, describe(error, "it"))

    def _known(self, step: Step[Any, Any]) -> StepExecutor:
        found = self.of(step)
        if found is None:
            raise LookupError(_nobody_does(step))
        return found


class Attaching(Guarded):
    """An attempt that is looked for, and goes on once it was found; where nothing is known of it, it is lost."""

    def __init__(self, executor: StepExecutor, work: Work, stretches: Stretches) -> None:
        super().__init__(work.step)
        self.found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once it was found, and never where it is lost."""
        self._executor = executor
        self._work = work
        self._stretches = stretches
        self.looking = asyncio.create_task(self._look(), name=f"looking for {work.step.name}")

    async def _look(self) -> None:
        self._stretches.begin(self._work.number)
        try:
            work = _complete(self._work)
        except BaseException as error:  # noqa: BLE001 - what is to be done is said by user code
            self._lose(error)
            return
        finally:
            self._stretches.end()
        pause = ASK_AGAIN_SECONDS
        while True:
            try:
                found = await self._executor.attach(work)
                if found is not None:
                    self.take(found)
            except BaseException as error:
                if _is_cancelled():
                    raise
                log.warning(
                    "attempt %s of the step %s, which another engine has begun, cannot be looked for (%s); "
                    "that is tried again in %g seconds",
                    work.attempt,
                    work.step.name,
                    describe(error, type(self._executor).__name__),
                    pause,
                )
                await asyncio.sleep(pause)
                pause = min(2 * pause, ASK_AGAIN_SECONDS_MAX)
                continue
            break
        if found is None:
            self._lose(LostError(NOT_KNOWN))
            return
        self.found.set_result(None)

    def _lose(self, error: BaseException) -> None:
        self.ended.set_result(Ended(error=error, lost=True))
        self.released.set_result(None)


def _is_cancelled() -> bool:
    """Whether whoever waits here was cancelled; what an executor raises may be called so, too."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _guarded(step: Step[Any, Any], running: object) -> Guarded:
    guarded = Guarded(step)
    guarded.take(running)
    return guarded


def check_executors(machines: Iterable[Machine], executors: Executors) -> None:
    """See to it that there is somebody to do the work of each step.

    Raises:
        UsageError: of some there is nobody.
    """
    steps = {step.name: step for machine in machines for step in machine.pipeline.works}
    told = [_nobody_does(step) for step in steps.values() if executors.of(step) is None]
    if told:
        raise UsageError("; ".join(told))


def check_mapping(name: str, given: Any) -> ByClass:
    """See to it that this, which is called so, says which executor does the work of which class.

    Raises:
        UsageError: it does not.
    """
    if not isinstance(given, Mapping):
        raise UsageError(
            f"{name} is {given!r:.200}, and no dict of executors by the class of described work."
        )
    for described, executor in given.items():
        if described_by(described) is None:
            raise UsageError(
                f"{name} has {described!r:.200}, which is no class of described work (Described)."
            )
        missing = [one for one in ("keeps", "start", "attach", "close") if not hasattr(executor, one)]
        if isinstance(executor, type) or missing:
            wrong = "which is a class, and no object of it" if isinstance(executor, type) else ""
            wrong = wrong or f"which has no {', '.join(missing)}, as connectors/executor.py says"
            raise UsageError(f"{name} has {executor!r:.200} for {described.__name__}, {wrong}.")
    return given


def _nobody_does(step: Step[Any, Any]) -> str:
    described = step.describes
    name = "" if described is None else described.__name__
    return (
        f"nobody does the work of the step {step.name!r}: it returns {name}, and no executor of that was given to the "
        f"engine. Name a dict that has it, {{{name}: ...}}, with --executors MODULE:NAME"
    )


def _complete(work: Work) -> Work:
    """With what its function says that is to be done, where it says no more than that.

    Raises:
        ResultError: it says something else than its annotation does.
        BaseException: what the function raises.
    """
    step = work.step
    wanted = step.describes
    if wanted is None:
        return work
    began = time.perf_counter()
    try:
        described = step.function(*work.arguments)
    finally:
        took = time.perf_counter() - began
        if took >= BLOCKS_SECONDS:
            tell_busy(step.name, work.run, took, IN_THE_EXECUTOR)
    if not isinstance(described, wanted):
        message = f"{step.name} returned {described!r:.200}, and not what is to be done, as {wanted.__name__} says it"
        raise ResultError(printable(message))
    return work._replace(described=described)
