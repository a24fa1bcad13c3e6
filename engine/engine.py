"""The engine: reads what is ours, steps it, commits it, and begins anew whenever an outcome is not known.

One ``Session`` lasts as long as its connection to the store. It takes the epochs of the partitions that the membership
says are ours, reads them from their stored positions, and keeps one commit in flight while it steps what comes next.
When the store breaks away, the session ends with all that was stepped ahead, and the next one begins as after a
restart: so there is one way to recover, and it is used every day.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from connectors.source import Partition, SourceError
from engine.assignment import Assignment
from engine.backoff import Backoff
from engine.commands.telling import kind_of
from engine.parts import Parts, kafka_troubles
from engine.session.committer import Weighed
from engine.session.session import Session
from engine.steady import Steady
from engine.steps.steps import Steps
from engine.store.contract import (
    LostPositionsError,
    LostRunsError,
    RefusedByStoreError,
    Store,
    StoreFaultError,
    StoreFullError,
    StoreUnavailableError,
)
from engine.store.silence import SILENT_SECONDS


class Engine:
    """Runs until it is stopped, or until it is idle."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.assignment = Assignment()
        self.stopping = asyncio.Event()
        self.session: Session | None = None
        self.steady = Steady(parts.clock)
        self.steps = Steps(parts.limits, self.steady, parts.instance, parts.executors)
        self.weighed = Weighed()
        self.stopped_partitions: dict[Partition, str] = {}
        self.homes_partitions = 0
        """How many the topic of homes has; 0 while that is not known."""
        self.ready = False
        self.away: str | None = None
        """Why there is no session just now; None where there is one, or none yet."""
        self.turned_at: float | None = None
        """When the loop turned last, by ``time.monotonic``; None while there is none."""

    def stop(self) -> None:
        """Finish the batch, commit, and end ``run``."""
        self.stopping.set()

    def troubles(self) -> list[str]:
        """Why what is ours is not served just now, as sentences; empty where it is."""
        if self.stopping.is_set():
            return ["The engine is stopping."]
        if not self.ready:
            return [self.away or "The engine is starting: it has no partitions yet."]
        stopped = [why for one, why in self.stopped_partitions.items() if one in self.assignment.partitions]
        return stopped + kafka_troubles(self._parts)

    async def run(self, until: Callable[[Session], Awaitable[bool]] | None = None) -> None:
        """Serve until ``stop``, or until ``until`` says so, asked when there is nothing to read, and now and then."""
        parts = self._parts
        await parts.reader.start()
        try:
            topics = parts.topics | {parts.homes} if parts.homes else parts.topics
            await parts.membership.start(topics, self.assignment.add, self.assignment.remove)
            # Ends when the membership is stopped; sooner only if it is broken, and then so are we.
            watch = asyncio.create_task(parts.membership.watch())
            watch.add_done_callback(lambda _: self.stopping.set())
            try:
                await self._sessions(until)
            finally:
                self.turned_at = None
                await parts.membership.stop()
                await watch
        finally:
            await parts.executors.close()
            await parts.reader.stop()

    async def _sessions(self, until: Callable[[Session], Awaitable[bool]] | None) -> None:
        limits = self._parts.limits
        # Whoever lets in, and breaks away at once each time, is not asked many times a second.
        backoff = Backoff(
            limits.reconnect_seconds_max,
            limits.complain_seconds,
            lasting_seconds=limits.reconnect_seconds_max,
        )
        # A session that can be begun says nothing of what is refused when it commits.
        faults = Backoff(limits.reconnect_seconds_max, limits.complain_seconds, limits.complain_seconds)
        while not self.stopping.is_set():
            store: Store | None = None
            pause = backoff
            self.turned_at = time.monotonic()
            try:
                store = await self._parts.open_store()
                self.session = Session(self, self._parts, store)
                if await self.session.serve(until, backoff.succeeded):
                    return
            except StoreUnavailableError as error:
                self.away = (
                    f"Postgres is away; the engine goes on by itself when it is back ({error})"
                    f"{self._why_ended(time.monotonic() - self.turned_at)}"
                )
                backoff.failed(self.away)
            except StoreFullError as error:
                self.away = (
                    "Postgres has no room left; nothing is lost, and the engine goes on by itself when there is some "
                    f"({error})"
                )
                pause = faults
                pause.failed(self.away)
            except (StoreFaultError, RefusedByStoreError) as error:
                # What is refused for its data is no record's here: those were made dead letters.
                why = kind_of(error) if isinstance(error, RefusedByStoreError) else error
                self.away = (
                    "Postgres refuses what the engine writes, and no record is to blame; nothing is lost, and the "
                    f"engine tries again until it is mended ({why})"
                )
                pause = faults
                pause.failed(self.away)
            except (LostRunsError, LostPositionsError) as error:
                self.away = f"Another engine is in the way; this one begins anew ({error})"
                pause = faults
                pause.failed(self.away)
            except SourceError as error:
                self.away = f"Kafka is away; the engine goes on by itself when it is back ({error})"
                backoff.failed(self.away)
            finally:
                self.ready = False
                self.assignment.serving = False
                self.assignment.notice()
                # Until there is a session again nothing of them is read.
                self._parts.observer.paused(
                    sum(p.topic != self._parts.homes for p in self.assignment.partitions)
                )
                if store is not None:
                    await store.close()
            await pause.wait(self.stopping)

    def _why_ended(self, busy_seconds: float) -> str:
        """What may have ended a session that was busy for so long, as a sentence of its own; else empty."""
        if not self.ready or busy_seconds < SILENT_SECONDS:
            return ""
        return (
            f". This engine was busy, or waited for an answer, for {busy_seconds:.0f} s: where another one has waited "
            "for its locks meanwhile, that has ended its session, and says so in its log; what was not committed is "
            "read again"
        )
