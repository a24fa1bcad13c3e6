"""An engine and its relay beside it, from start to end: what ``run``, ``dev`` and ``demo`` do.

A stop is asked for once and holds for both: the engine finishes its batch, commits, and leaves the group;
then the relay finishes its transaction. What is not done in time is left to the next engine, which finds out
what is true.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, MutableSequence, Sequence
from dataclasses import dataclass, field
from enum import Enum

from connectors.kafka.reader import KafkaReader
from connectors.source import Partition
from engine import outbox
from engine.assembly import EngineSettings, assemble
from engine.commands.words import position_command
from engine.engine import Engine
from engine.errors import RefusedError
from engine.homes import homes_topic
from engine.left_behind import tell_left_behind
from engine.observing import Observer
from engine.outside import seen_from_outside
from engine.relay import Relay
from engine.relay.rows import read_books
from engine.session.session import Session
from engine.steps.executors import ByClass
from engine.store.connecting import connect
from engine.telling_lag import tell_lag
from engine.topics import prepare_topics, source_topics
from engine.unread import tell_unread
from statemachines.machine import Machine

log = logging.getLogger("pointsman.engine")

GC_THRESHOLDS = (200_000, 50, 50)
"""Batches make many objects that live until their commit; looking through them often finds nothing."""
RELAY_STOP_SECONDS = 1.5
"""For finishing its transaction, once the engine has ended."""
GRACE = 0.75
"""Which part of the time for stopping the engine has for its batch; the rest is for saying goodbye."""


class Ending(Enum):
    """Why an engine ended."""

    STOPPED = "stopped"
    """It was asked to."""
    IDLE = "idle"
    """Everything that there was at its start has been read, committed and published."""
    BLOCKED = "blocked"
    """The same, but for what ``reasons`` says, which waits for a person."""


@dataclass(frozen=True, slots=True)
class ExitReason:
    """How an engine ended."""

    ending: Ending
    reasons: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """As a process says it."""
        return 1 if self.ending is Ending.BLOCKED else 0


@dataclass(slots=True)
class Running:
    """An engine with its relay."""

    engine: Engine
    relay: Relay
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Ask both to end."""
        self.stopping.set()
        self.engine.stop()


async def run(
    settings: EngineSettings,
    machines: Sequence[Machine],
    *,
    until_idle: bool = False,
    create_sources: bool = False,
    observer: Observer | None = None,
    beat: MutableSequence[int] | None = None,
    began: Callable[[Running], None] = lambda _: None,
    executors: ByClass | None = None,
) -> ExitReason:
    """Run an engine and its relay until they are stopped, or until all is done that there was at the start.

    ``began`` is given what is running, and may keep it to stop it. ``create_sources`` makes topics that are read
    where they do not exist, instead of refusing to run. ``executors`` do the work that steps describe, by its class.

    Raises:
        PointsmanError, SourceError: something is not as it must be, or cannot be reached at the start.
    """
    async with seen_from_outside(settings, observer) as outside:
        sizes = await prepare_topics(
            settings.kafka, machines, homes_topic(settings.namespace), create_sources=create_sources
        )
        relay = Relay(settings.postgres, settings.kafka, settings.namespace)
        engine = await assemble(
            settings,
            machines,
            observer=outside.observer,
            outbox_depth=relay.depth,
            record_bytes_max=sizes,
            beat=beat,
            executors=executors,
        )
        outside.show(engine, relay)
        running = Running(engine, relay)
        async with (
            _beside(
                "telling of open runs that follow other versions",
                tell_left_behind(settings.postgres, settings.namespace, machines),
            ),
            _beside(
                "telling of topics that are read no more",
                tell_unread(
                    settings.postgres,
                    settings.kafka,
                    settings.namespace,
                    settings.group_name,
                    source_topics(machines),
                ),
            ),
            _beside(
                "telling tools how far partitions are applied",
                tell_lag(engine, settings.kafka, settings.group_name, settings.limits.lag_tell_seconds),
            ),
            _relaying(running),
        ):
            if not until_idle:
                began(running)
                await _serve(running, settings.limits.stop_seconds, engine.run())
                return ExitReason(Ending.STOPPED)
            goal = await Goal.now(settings, machines, engine)
            try:
                began(running)
                await _serve(running, settings.limits.stop_seconds, engine.run(goal.reached))
            finally:
                await goal.close()
            if running.stopping.is_set():
                return ExitReason(Ending.STOPPED)
            reasons = [*goal.reasons(), *await _drain(running, settings)]
            if running.stopping.is_set():
                return ExitReason(Ending.STOPPED)
        return ExitReason(Ending.BLOCKED if reasons else Ending.IDLE, tuple(reasons))


class Goal:
    """Everything read that there was at the start."""

    def __init__(self, engine: Engine, reader: KafkaReader, ends: dict[Partition, int], group: str) -> None:
        self._engine = engine
        self._group = group
        self._reader = reader
        self._ends = ends
        self._beyond: dict[Partition, str] = {}

    @classmethod
    async def now(cls, settings: EngineSettings, machines: Iterable[Machine], engine: Engine) -> Goal:
        """The ends as they are now of all partitions that the machines read. Raises SourceError."""
        reader = KafkaReader(settings.kafka)
        await reader.start()
        try:
            topics = source_topics(machines)
            partitions = {one for topic in topics for one in await reader.partitions_of(topic)}
            return cls(engine, reader, await reader.ends(partitions), settings.group_name)
        except BaseException:
            await reader.stop()
            raise

    async def reached(self, session: Session) -> bool:
        """Whether every partition is read to its end, or is stopped and will not be."""
        known = await session.store.known_positions(self._ends)
        stopped = self._engine.stopped_partitions
        open_ones = [one for one, end in self._ends.items() if known.get(one, 0) < end and one not in stopped]
        if open_ones or await session.works():
            return False
        await self._find_beyond({one: at for one, at in known.items() if at > self._ends[one]})
        return True

    def reasons(self) -> list[str]:
        """Why partitions are stopped, in their order."""
        return [reason for _, reason in sorted((self._beyond | self._engine.stopped_partitions).items())]

    async def close(self) -> None:
        """Let go of Kafka."""
        await self._reader.stop()

    async def _find_beyond(self, ahead: dict[Partition, int]) -> None:
        """Positions beyond what Kafka has: the topic was made anew, or lost its end."""
        ends = await self._reader.ends(ahead)
        beyond = {partition: end for partition, end in ends.items() if ahead[partition] > end}
        cluster = await self._reader.cluster_id() if beyond else ""
        for partition, end in beyond.items():
            command = position_command(partition.topic, partition.number, group=self._group, cluster=cluster)
            self._beyond[partition] = (
                f"position {ahead[partition]} of {partition} is beyond what Kafka has ({end}): the topic was made "
                f"anew, or lost its end. Decide where to go on: {command}"
            )


@contextlib.asynccontextmanager
async def _beside(what: str, work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Do this meanwhile; what is not done at the end is let be, and a mistake in it is told as it ends."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s has met a mistake and ended; nothing else depends on it", what, exc_info=error)

    task = asyncio.create_task(work, name=what)
    task.add_done_callback(ended)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@contextlib.asynccontextmanager
async def _relaying(running: Running) -> AsyncIterator[None]:
    """The relay at work meanwhile; it ends after the engine, to publish what was committed last."""
    task = asyncio.create_task(running.relay.run(), name="relay")
    try:
        yield
    finally:
        running.relay.stop()
        await asyncio.wait({task}, timeout=RELAY_STOP_SECONDS)
        task.cancel()
        await asyncio.wait({task})


async def _serve(running: Running, stop_seconds: float, work: Coroutine[None, None, None]) -> None:
    """Wait for the engine's end; asked to stop, not longer than ``stop_seconds``."""
    task = asyncio.create_task(work, name="engine")
    asked = asyncio.create_task(running.stopping.wait())
    try:
        await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait({task}, timeout=stop_seconds * GRACE)
    finally:
        asked.cancel()
        if not task.done():
            log.warning("the engine is not done in time; what is not committed is left to the next one")
            task.cancel()
            await asyncio.wait({task}, timeout=stop_seconds * (1 - GRACE))
    if task.done() and not task.cancelled():
        task.result()


async def _drain(running: Running, settings: EngineSettings) -> list[str]:
    """Wait until the relay has published all that was committed; returns why it does not."""
    connection = await connect(settings.postgres, name="pointsman engine, draining")
    try:
        lane = await outbox.find_lane(connection, settings.namespace, 0)
        ticket = 0 if lane is None else (await read_books(connection, lane, 0)).ticket
    finally:
        await connection.close()
    drained = asyncio.create_task(running.relay.drained(ticket))
    asked = asyncio.create_task(running.stopping.wait())
    try:
        await asyncio.wait({drained, asked}, return_when=asyncio.FIRST_COMPLETED)
        if drained.done():
            drained.result()
    except RefusedError as error:
        return [str(error)]
    finally:
        drained.cancel()
        asked.cancel()
    return []


def tune() -> None:
    """Set the garbage collector up for an engine's own process; call it when all is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def new_loop() -> asyncio.AbstractEventLoop:
    """The fastest event loop that is installed."""
    try:
        import uvloop  # noqa: PLC0415 - not there on every system
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
