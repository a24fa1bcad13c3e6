"""Publishes what transactions left in the outbox, exactly once and in the order of their commits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg

from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink import KafkaSink
from connectors.sink import Sink, SinkError, StartAgainError
from engine import outbox
from engine.backoff import Backoff
from engine.errors import RefusedError, ServiceUnreachableError
from engine.relay.events import Halted, OnEvent, Restarted, ignore
from engine.relay.limits import RelayLimits
from engine.relay.rows import Connection, read_books
from engine.relay.session import HaltedError, Known, Lane, Session, listen
from engine.relay.turn import try_turn
from engine.store.connecting import connect

log = logging.getLogger("pointsman.relay")

Connect = Callable[[], Awaitable[Connection]]
OpenSink = Callable[[str], Sink]
"""Makes the sink of a store, from the store's id."""
TryTurn = Callable[[Connection, int, RelayLimits], Awaitable[bool]]

_EXPECTED = (
    SinkError,
    ServiceUnreachableError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # Postgres broke away in the middle of an answer.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


class Relay:
    """The relay of one shard of a namespace; any engine may run one, and one of them has the turn."""

    def __init__(
        self,
        postgres: str | Connect,
        kafka: KafkaSettings | OpenSink,
        namespace: str,
        shard: int = 0,
        limits: RelayLimits | None = None,
        on_event: OnEvent = ignore,
        take_turn: TryTurn = try_turn,
    ) -> None:
        self.limits = limits or RelayLimits()
        self._connect = open_postgres(postgres)
        self._open_sink = open_sink(kafka, namespace, shard)
        self._namespace = namespace
        self._shard = shard
        self._on_event = on_event
        self._take_turn = take_turn
        self._sinks: dict[str, Sink] = {}
        self._known = Known()
        self._waiting = 0
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ended = False
        self._halted: str | None = None
        pause_max = self.limits.reconnect_seconds_max
        self._backoff = Backoff(pause_max, self.limits.complain_seconds, lasting_seconds=pause_max)

    @property
    def halted(self) -> str | None:
        """Why the relay waits for a person's decision, as a sentence; None where it does not."""
        return self._halted

    @property
    def confirmed(self) -> int:
        """Up to this row everything is published, as far as is known here."""
        return self._known.confirmed

    def depth(self) -> int:
        """How many rows wait to be published, as far as is known here; at most a second old."""
        return max(0, self._known.ticket - self._known.confirmed)

    async def drained(self, sequence: int) -> None:
        """Wait until everything up to this row is published, by this relay or by another engine's.

        Raises:
            RefusedError: that will not happen before a person decides, or because this relay was stopped.
        """
        known = self._known
        self._waiting += 1
        try:
            async with known.changed:
                await known.changed.wait_for(
                    lambda: known.confirmed >= sequence or self._halted is not None or self._ended
                )
        finally:
            self._waiting -= 1
        if known.confirmed < sequence:
            raise RefusedError(
                self._halted or f"The relay was stopped before row {sequence} of the outbox was published."
            )

    def stop(self) -> None:
        """Ask ``run`` to return: after the transaction that it is in."""
        self._stopping.set()
        self._news.set()

    async def run(self) -> None:
        """Relay until ``stop``; whatever fails, begin anew. Returns within ``stop_seconds`` of it."""
        work = asyncio.create_task(self._work())
        asked = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({work}, timeout=self.limits.stop_seconds)
        finally:
            asked.cancel()
            work.cancel()
            await asyncio.wait({work, asked})
        if not work.cancelled():
            work.result()

    async def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    await self._live()
                except StartAgainError as error:
                    self._on_event(Restarted(str(error)))
                except HaltedError as error:
                    await self._halt(str(error))
                except _EXPECTED as error:
                    self._failed(error)
                except Exception as error:  # the relay may not end because of a mistake of ours
                    log.exception("the relay met an error that it does not know")
                    self._failed(error)
                await self._backoff.wait(self._stopping)
        finally:
            self._ended = True
            async with self._known.changed:
                self._known.changed.notify_all()

    def _failed(self, error: BaseException) -> None:
        self._on_event(Restarted(f"{type(error).__name__}: {error}"))
        self._backoff.failed(f"the relay begins anew: {type(error).__name__}: {error}")

    async def _halt(self, sentence: str) -> None:
        if self._halted != sentence:
            log.error("%s", sentence)
            self._halted = sentence
        self._on_event(Halted(sentence))
        async with self._known.changed:
            self._known.changed.notify_all()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.halt_seconds):
                await self._stopping.wait()

    async def _live(self) -> None:
        async with self._connected() as connection:
            number = await outbox.lane_for(connection, self._namespace, self._shard)
            await listen(connection, number, self._news)
            sink = await self._sink(connection, number)
            if not await self._await_turn(connection, number, sink):
                return
            lane = Lane(self._namespace, self._shard, connection, number, sink, self.limits, self._on_event)
            session = Session(lane, self._known, self._news, self._stopping)
            try:
                await session.begin()
                self._halted = None
                self._backoff.succeeded()
                await session.go_on()
                await session.clean()
            finally:
                await sink.close()

    async def _sink(self, connection: Connection, number: int) -> Sink:
        books = await read_books(connection, number, 0)
        self._known.ticket = books.ticket
        if books.store not in self._sinks:
            self._sinks = {books.store: self._open_sink(books.store)}
        return self._sinks[books.store]

    async def _await_turn(self, connection: Connection, number: int, sink: Sink) -> bool:
        """Whether we got the turn; False once we shall stop."""
        while not self._stopping.is_set():
            if await self._take_turn(connection, number, self.limits):
                return True
            self._backoff.succeeded()
            await self._look(connection, number, sink)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.limits.poll_seconds):
                    await self._stopping.wait()
        return False

    async def _look(self, connection: Connection, number: int, sink: Sink) -> None:
        """Learn how far another engine's relay is: from Postgres roughly, from Kafka if someone waits."""
        books = await read_books(connection, number, 0)
        self._known.ticket = max(self._known.ticket, books.ticket)
        confirmed = books.known_published
        if self._waiting:
            progress = await sink.look()
            if progress is not None and progress.store == books.store:
                confirmed = max(confirmed, progress.sequence)
        await self._known.confirm(confirmed)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        connection = await self._connect()
        try:
            yield connection
        finally:
            try:
                await connection.close(timeout=self.limits.close_seconds)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                connection.terminate()


def open_postgres(postgres: str | Connect) -> Connect:
    """How to connect, from an address or a function."""
    if isinstance(postgres, str):
        return lambda: connect(postgres, name="pointsman relay")
    return postgres


def open_sink(kafka: KafkaSettings | OpenSink, namespace: str, shard: int) -> OpenSink:
    """How to make a sink, from the settings of Kafka or a function."""
    if isinstance(kafka, KafkaSettings):
        return lambda store: KafkaSink(kafka, namespace, shard, store)
    return kafka
