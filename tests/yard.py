"""Work that goes on outside of engines, as an executor in memory sees it; and a pipeline whose steps describe it.

What engines do here they do to the yard, which is there for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import Field

from connectors.executor import CancelledError, Ended, Running, Work
from statemachines import Call, Context, Described, Done, Event, Pipeline, Retry, StepFailed, exponential

TOPIC = "hauling"
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True)
class Haul(Described[R_co]):
    """Something that is to be hauled."""

    what: str


@dataclass(eq=False)
class Job:
    """An attempt, as it goes on outside."""

    work: Work
    began: float
    watched: list[_Watched] = field(default_factory=list)
    ended: Ended | None = None
    told_to_end: int = 0
    """So often."""
    heeds: bool = True
    """Whether it ends when it is told to."""

    def end(self, ended: Ended) -> None:
        self.ended = ended
        for one in self.watched:
            one.hear(ended)


@dataclass(eq=False)
class Yard:
    """Where it goes on."""

    jobs: dict[str, Job] = field(default_factory=dict)
    """By key and attempt."""
    asked: list[str] = field(default_factory=list)
    """What was begun, in order; the same twice where it was done twice."""
    looked_for: list[str] = field(default_factory=list)
    away: int = 0
    """So many times nothing can be found out."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    now: float = 0.0
    check: Callable[[], None] = lambda: None
    """Called before an engine does something here."""
    begun: Callable[[Job], None] = lambda _: None
    """Called with each that was begun."""

    async def until(self, number: int) -> None:
        """Wait until so many were begun or looked for."""
        async with asyncio.timeout(60):
            while len(self.asked) + len(self.looked_for) < number:
                self.changed.clear()
                await self.changed.wait()

    @property
    def job(self) -> Job:
        """The only one."""
        [job] = self.jobs.values()
        return job

    def note(self, where: list[str], name: str) -> None:
        where.append(name)
        self.changed.set()


class YardExecutor:
    """As one engine has it."""

    keeps = True

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self.is_closed = False

    def start(self, work: Work) -> Running:
        yard = self._yard
        yard.check()
        if work.name not in yard.jobs:
            yard.jobs[work.name] = Job(work, yard.now)
            yard.note(yard.asked, f"{work.step.name}/{work.attempt}")
            yard.begun(yard.jobs[work.name])
        return _Watched(yard, yard.jobs[work.name])

    async def attach(self, work: Work) -> Running | None:
        yard = self._yard
        yard.note(yard.looked_for, f"{work.step.name}/{work.attempt}")
        await asyncio.sleep(0)
        if yard.away:
            yard.away -= 1
            raise ConnectionError("the yard does not answer")
        job = yard.jobs.get(work.name)
        return None if job is None else _Watched(yard, job)

    async def close(self) -> None:
        self.is_closed = True


class _Watched:
    can_stop = True
    stop_seconds = 0.0

    def __init__(self, yard: Yard, job: Job) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self.released: asyncio.Future[None] = loop.create_future()
        self.gone_on_seconds = yard.now - job.began
        self._job = job
        self._check = yard.check
        job.watched.append(self)
        if job.ended is not None:
            self.hear(job.ended)

    def hear(self, ended: Ended) -> None:
        if not self.ended.done():
            self.ended.set_result(ended)
            self.released.set_result(None)

    def cancel(self) -> None:
        self._check()
        self._job.told_to_end += 1
        if self._job.heeds and self._job.ended is None:
            self._job.end(Ended(error=CancelledError("as it was told")))


class Ordered(Event, type="haul.ordered", key="load"):
    load: str


class CalledOff(Event, type="haul.called_off", key="load"):
    load: str


class Load(Context):
    tons: int = 0
    notes: list[str] = Field(default_factory=list)


def hauling(
    *, timeout: timedelta | None = None, heartbeat: timedelta | None = None, version: int = 1
) -> Pipeline[Load]:
    """A load is hauled, and brought back where it is called off."""
    flow = Pipeline("hauling", Load, topics=[TOPIC], version=version)

    @flow.step(timeout=timeout, heartbeat=heartbeat, retry=Retry(attempts=3, wait=exponential(0.01, 0.01)))
    def haul(load: Load, call: Call) -> Haul[int]:
        return Haul(call.key)

    @haul.compensate()
    def bring_back(load: Load, made: int | None, call: Call) -> Haul[None]:
        return Haul(f"{call.key} of {made}")

    def begin(event: Ordered) -> Load:
        return Load()

    def keep(load: Load, got: Done[int]) -> None:
        load.tons = got.result

    def say(load: Load, failed: StepFailed) -> None:
        load.notes.append(f"{failed.error}: {failed.message}")

    going = flow.state("hauling", initial=True, run=haul)
    there, failed, off = (flow.state(name, final=True) for name in ("hauled", "failed", "called-off"))
    flow.start(Ordered, begin)
    going.on(haul.done, to=there, do=keep)
    flow.on_failure(to=failed, do=say)
    flow.on(CalledOff, to=off, compensate=True)
    return flow


def executors_of(yard: Yard) -> dict[type[Described[Any]], Any]:
    """What an engine is given."""
    return {Haul: YardExecutor(yard)}
