"""The worlds in which the suite of an executor runs: those that are shipped, and one whose attempts outlive engines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from connectors.commands import CommandExecutor
from connectors.executor import StepExecutor, Work
from connectors.functions import FunctionExecutor
from statemachines import Call, Command, Context, Pipeline
from statemachines.call import Beat
from statemachines.described import Described
from statemachines.step import Step
from tests import worker
from tests.desk import Desk
from tests.lasting import Lasting, LastingExecutor

WORKER = Path(worker.__file__)
GRACE_SECONDS = 60.0
"""Longer than any machine stands still: whoever goes on is not cut short in the middle of a test."""


class World(Protocol):
    """An executor with what else is needed to try it."""

    executor: StepExecutor
    desk: Desk
    has_threads: bool
    """Whether nothing stops its attempts."""
    has_processes: bool
    """Whether its attempts are processes of their own."""
    hears: bool
    """Whether it hears heartbeats."""
    grace_seconds: float
    """How long a process of an attempt may take to end once it is told to."""

    def work(self, key: str, attempt: int = 1, beat: Beat | None = None) -> Work:
        """An attempt that does what the desk tells it."""
        ...

    def another(self) -> StepExecutor:
        """As another engine has it, in the same world."""
        ...


class FunctionWorld:
    """Functions, in the loop or in threads."""

    has_processes = False
    hears = True
    grace_seconds = GRACE_SECONDS

    def __init__(self, desk: Desk, *, has_threads: bool) -> None:
        self.desk = desk
        self.has_threads = has_threads
        self.executor: StepExecutor = self.another()

    def work(self, key: str, attempt: int = 1, beat: Beat | None = None) -> Work:
        port, name = self.desk.port, f"{key}/{attempt}"

        async def waits(_context: Context, call: Call) -> Any:
            return await worker.work_in_loop(port, name, call.heartbeat)

        def blocks(_context: Context, call: Call) -> Any:
            return worker.work(port, name, call.heartbeat)

        call = Call(key, attempt, "k", "work", beat=beat)
        function: Callable[..., Any] = blocks if self.has_threads else waits
        return Work(step_of(function), (Context(), call), key, attempt, beat)

    def another(self) -> StepExecutor:
        return FunctionExecutor()


class DescribedWorld:
    """Work that is described, and done by processes."""

    has_threads = False
    has_processes = True
    grace_seconds = GRACE_SECONDS

    def __init__(self, desk: Desk, folder: Path | None) -> None:
        self.desk = desk
        self.hears = folder is None
        self._folder = folder
        self.executor: StepExecutor = self.another()

    def work(self, key: str, attempt: int = 1, beat: Beat | None = None) -> Work:
        words = sys.executable, "-I", "-S", str(WORKER), str(self.desk.port), f"{key}/{attempt}"
        described: Described[int] = (
            Command(words, result=int, grace_seconds=self.grace_seconds)
            if self._folder is None
            else Lasting(words, self.grace_seconds)
        )

        def says(_context: Context, _call: Call) -> Described[int]:
            return described

        call = Call(key, attempt, "k", "work", beat=beat)
        return Work(step_of(says), (Context(), call), key, attempt, beat, described)

    def another(self) -> StepExecutor:
        return CommandExecutor() if self._folder is None else LastingExecutor(self._folder)


def step_of(function: Callable[..., Any]) -> Step[Any, Any]:
    made: Step[Any, Any] = Pipeline("any", Context).step()(function)
    return made
