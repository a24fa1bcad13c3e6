"""The demo from start to end: a shop that publishes, an engine that is killed on the way, someone who watches."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.live import Live

from connectors.publishing import ConfirmingProducer, PublishLimits
from engine.demo import story
from engine.demo.killing import EngineProcess
from engine.demo.looking import Killed, Outcome, look
from engine.demo.story import Life
from engine.demo.watching import Watch
from engine.embedded import Embedded
from engine.errors import PointsmanError
from engine.relay import relay_status
from engine.store.connecting import Connection, connect
from statemachines.shipped.orders import flow
from statemachines.shipped.outside import entries

LOOKS_A_SECOND = 10
SETTLE_SECONDS = 120.0
"""For the engine to be done with everything after the last record was published."""
READY_SECONDS = 60.0
LEDGER_LOOKS_A_SECOND = 50


class DemoError(PointsmanError):
    """The demo did not come to its end."""


@dataclass(slots=True)
class Stage:
    """What the demo is played on."""

    engine: EngineProcess
    watch: Watch
    connection: Connection
    ledger: Path
    lives: list[Life]
    published: int = 0

    @property
    def total(self) -> int:
        """How many records are published in all."""
        return sum(len(life.posts) for life in self.lives)

    async def until(
        self, done: Callable[[], bool], seconds: float, what: str, frame: Callable[[], None] = lambda: None
    ) -> None:
        """Look until this is so. Raises DemoError where it takes too long."""
        deadline = time.monotonic() + seconds
        while True:
            await self.watch.look(self.connection)
            frame()
            if done():
                return
            self.engine.check()
            if time.monotonic() > deadline:
                raise DemoError(f"{what}, after {seconds:.0f} s. Is the machine very busy? Try again.")
            await asyncio.sleep(1 / LOOKS_A_SECOND)


@contextlib.contextmanager
def step(screen: Console | None, what: str) -> Iterator[None]:
    """Tell that something is going on, and how long it took."""
    if screen is None:
        yield
        return
    began = time.monotonic()
    with screen.status(f"{what} ..."):
        yield
    screen.print(f"  {what}: {time.monotonic() - began:.1f} s", style="dim", highlight=False)


async def perform(services: Embedded, folder: Path, screen: Console | None) -> Outcome:
    """Publish the story and see it through; ``screen`` is where it is watched, None where nobody does.

    Raises:
        PointsmanError: something went wrong on the way.
    """
    async with _stage(services, folder) as stage:
        with step(screen, "An engine starts, and takes its partitions"):
            await stage.until(lambda: stage.watch.taken > 0, READY_SECONDS, "The engine got no partitions")
        began = time.monotonic()
        publishing = asyncio.create_task(_publish(services, stage))
        killing = asyncio.create_task(_kill(stage))
        try:
            await _see_through(stage, publishing, killing, screen)
        finally:
            publishing.cancel()
            killing.cancel()
            await asyncio.wait({publishing, killing})
        await _until_published(services)
        seconds = time.monotonic() - began
        killed = Killed(story.KILLED, killing.result())
        return await look(services, stage.watch, stage.ledger, killed, seconds)


@contextlib.asynccontextmanager
async def _stage(services: Embedded, folder: Path) -> AsyncIterator[Stage]:
    ledger = folder / "shop-ledger.sqlite"
    connection = await connect(services.reader, for_engine=False)
    try:
        with EngineProcess(services, folder, ledger) as engine:
            yield Stage(engine, Watch(flow), connection, ledger, story.tell())
    finally:
        await connection.close()


async def _publish(services: Embedded, stage: Stage) -> None:
    producer = ConfirmingProducer(services.kafka, PublishLimits())
    await producer.start()
    try:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for life in stage.lives:
                group.create_task(_publish_life(producer, stage, life, began))
    finally:
        await producer.stop()


async def _publish_life(producer: ConfirmingProducer, stage: Stage, life: Life, began: float) -> None:
    await asyncio.sleep(max(0.0, began + life.at - time.monotonic()))
    for post in life.posts:
        if post.state is not None:
            await _when(partial(stage.watch.is_in, life.order, post.state), LOOKS_A_SECOND)
        await asyncio.sleep(post.after)
        # One after the other: a shop that cares for the order of its events waits for each.
        await producer.send(post.record)
        stage.published += 1


async def _kill(stage: Stage) -> float:
    """Kill the engine when the bank has charged and not answered yet; returns the seconds until another one knows."""

    def is_charged() -> bool:
        return any(one.service == "charge" and one.who == story.KILLED for one in entries(stage.ledger))

    await _when(is_charged, LEDGER_LOOKS_A_SECOND)
    at, pid = datetime.now(UTC), stage.engine.pid
    what = f"the bank has charged, and the engine (process {pid}) is killed before it hears of that"
    await asyncio.to_thread(stage.engine.kill_and_start_again)
    stage.watch.tell(at, story.KILLED, what, "bold red")
    await _when(lambda: story.KILLED in stage.watch.lost, LOOKS_A_SECOND)
    return (stage.watch.lost[story.KILLED] - at).total_seconds()


async def _when(condition: Callable[[], bool], looks_a_second: float) -> None:
    """Return once this is so; whoever waits for it has a limit."""
    while True:
        if condition():
            return
        await asyncio.sleep(1 / looks_a_second)


async def _see_through(
    stage: Stage, publishing: asyncio.Task[None], killing: asyncio.Task[float], screen: Console | None
) -> None:
    def done() -> bool:
        for task in (publishing, killing):
            if task.done():
                task.result()
        watch = stage.watch
        return publishing.done() and killing.done() and watch.applied >= stage.total and watch.going == 0

    limit = stage.lives[-1].at + SETTLE_SECONDS
    what = "The engine is not done with what was published"
    if screen is None:
        await stage.until(done, limit, what)
    elif screen.is_terminal:
        with Live(stage.watch.render(0, stage.total), console=screen, auto_refresh=False) as live:
            await stage.until(
                done,
                limit,
                what,
                lambda: live.update(stage.watch.render(stage.published, stage.total), refresh=True),
            )
    else:
        lines = _Lines(stage, screen)
        await stage.until(done, limit, what, lines.tell)
        lines.tell(last=True)


class _Lines:
    """What is told where there is no terminal: what is notable, and a line of numbers every second."""

    def __init__(self, stage: Stage, screen: Console) -> None:
        self._stage, self._screen = stage, screen
        self._told: set[tuple[datetime, str, str]] = set()
        self._at = time.monotonic()

    def tell(self, *, last: bool = False) -> None:
        watch = self._stage.watch
        for line in watch.notable:
            if line[:3] not in self._told:
                self._told.add(line[:3])
                self._screen.print(f"    {line.key}  {line.what}", markup=False, soft_wrap=True)
        if last or time.monotonic() - self._at >= 1.0:
            self._at = time.monotonic()
            self._screen.print(watch.counters(self._stage.published, self._stage.total), soft_wrap=True)


async def _until_published(services: Embedded) -> None:
    """Wait until what the runs have said is with those who read it."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (await relay_status(services.engine, services.kafka, story.NAMESPACE)).depth:
        if time.monotonic() > deadline:
            raise DemoError("Not all has been published yet. Is the machine very busy? Try again.")
        await asyncio.sleep(1 / LOOKS_A_SECOND)
