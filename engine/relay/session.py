"""One life of the relay: from connecting to the first thing that goes wrong.

Its steps are in an order that matters. The sink is started first, which ends its predecessor's transaction
and fences it; only then is the progress read, or the predecessor could still move it. Then the two books are
compared, and only where they fit are rows published, each transaction of Kafka with its progress inside.
After any error nothing is tried further: the next session finds out what is true.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from connectors.sink import Progress, RecordsRefusedError, Sink, StartAgainError
from engine import channels
from engine.errors import RefusedError
from engine.relay.doubts import Doubt, find_doubt
from engine.relay.events import Cleaned, OnEvent, Published, Refused
from engine.relay.limits import RelayLimits
from engine.relay.refusals import keep_refused
from engine.relay.rows import Connection, Load, RefusedBefore, Row, load, read_books, read_refused, read_rows
from engine.store import queries

_SQL = queries.load("relay")


class HaltedError(RefusedError):
    """A person must decide; the message says what and how."""

    def __init__(self, sentence: str, doubt: Doubt) -> None:
        super().__init__(sentence)
        self.doubt = doubt


@dataclass(slots=True)
class Known:
    """What the relay knows of its lane, over all its sessions; for whoever waits or measures."""

    ticket: int = 0
    """At least so many rows were written."""
    confirmed: int = 0
    """Up to this row everything is published."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def confirm(self, sequence: int) -> None:
        """Note that everything up to this row is published."""
        self.confirmed = max(self.confirmed, sequence)
        self.ticket = max(self.ticket, self.confirmed)
        async with self.changed:
            self.changed.notify_all()


@dataclass(slots=True)
class Lane:
    """Which outbox a session relays, and with what."""

    namespace: str
    shard: int
    connection: Connection
    number: int
    sink: Sink
    limits: RelayLimits
    on_event: OnEvent


class Session:
    """Publishes one lane's rows until it is told to stop, or something fails."""

    def __init__(self, lane: Lane, known: Known, news: asyncio.Event, stopping: asyncio.Event) -> None:
        self._lane = lane
        self._known = known
        self._news = news
        self._stopping = stopping
        self._rows: deque[Row] = deque()
        self._refused: RefusedBefore = set()
        self._store = ""
        self._position = 0
        self._inherited = 0
        self._told: list[int] = []
        self._cleaned_at = time.monotonic()
        self._cleaned_to = 0

    async def begin(self) -> None:
        """Fence the predecessor, and find out where to go on.

        Raises:
            HaltedError: that cannot be known.
        """
        lane = self._lane
        await lane.sink.start()
        progress = await lane.sink.progress()
        sequence = progress.sequence if progress else 0
        books = await read_books(lane.connection, lane.number, sequence)
        self._known.ticket = books.ticket
        doubt = find_doubt(books, progress)
        if doubt is not None:
            raise HaltedError(doubt.sentence(lane.namespace, lane.shard), doubt)
        self._store = books.store
        self._position = self._inherited = sequence
        self._cleaned_to = books.deleted
        self._refused = await read_refused(lane.connection, lane.number, sequence)
        self._known.confirmed = sequence
        await self._known.confirm(sequence)

    async def go_on(self) -> None:
        """Publish what there is and what comes; returns once it is told to stop."""
        while not self._stopping.is_set():
            self._news.clear()
            if await self._fill():
                await self._publish()
                if time.monotonic() - self._cleaned_at >= self._lane.limits.clean_seconds:
                    await self.clean()
            else:
                await self.clean()
                await self._wait()

    async def clean(self) -> None:
        """Delete confirmed rows but the last, and note which dead letters were published."""
        lane = self._lane
        self._cleaned_at = time.monotonic()
        upto = self._position - 1
        if self._inherited:
            await self._read_inherited()
        if upto <= self._cleaned_to and not self._told:
            return
        async with lane.connection.transaction():
            # Lost in a crash it is done again; so nobody need wait for the disk while the ticket is locked.
            await lane.connection.execute("set local synchronous_commit = off")
            if self._told:
                await lane.connection.execute(_SQL["dead_letters_published"], self._told)
            await lane.connection.execute(_SQL["delete_rows"], lane.number, upto)
            await lane.connection.execute(_SQL["move_deleted"], lane.number, upto)
        self._told.clear()
        self._cleaned_to = max(upto, self._cleaned_to)
        lane.on_event(Cleaned(upto))

    async def _read_inherited(self) -> None:
        """Find the dead letters that a predecessor published and perhaps did not live to note."""
        after = self._cleaned_to
        while after < self._inherited:
            rows, _ = await read_rows(self._lane.connection, self._lane.number, after, self._lane.limits)
            if not rows:
                break
            for row in rows:
                if row.sequence <= self._inherited:
                    self._tell(load([row], self._refused, self._lane.limits.records_max))
                await asyncio.sleep(0)
            after = rows[-1].sequence
        self._inherited = 0

    async def _fill(self) -> bool:
        """Whether there are rows to publish; they follow one another without a gap."""
        if self._rows:
            return True
        lane = self._lane
        rows, ticket = await read_rows(lane.connection, lane.number, self._position, lane.limits)
        self._known.ticket = max(self._known.ticket, ticket or 0)
        for expected, row in enumerate(rows, self._position + 1):
            if row.sequence != expected:
                break
            self._rows.append(row)
        if rows and not self._rows:
            raise StartAgainError("the outbox has a gap, which the next start will look into")
        return bool(rows)

    async def _publish(self) -> None:
        lane = self._lane
        started = time.monotonic()
        sent = load(self._rows, self._refused, lane.limits.records_max)
        try:
            await lane.sink.publish(sent.records, Progress(self._store, sent.sequence, sent.digest))
        except RecordsRefusedError as error:
            await self._keep(sent, error)
            raise StartAgainError(str(error)) from error
        for _ in range(sent.rows):
            self._rows.popleft()
        self._position = sent.sequence
        self._tell(sent)
        await self._known.confirm(sent.sequence)
        lane.on_event(Published(sent.rows, len(sent.records), sent.sequence, time.monotonic() - started))

    async def _keep(self, sent: Load, error: RecordsRefusedError) -> None:
        lane = self._lane
        await keep_refused(lane.connection, lane.number, lane.namespace, sent, error.refused)
        for place, why in error.refused.items():
            lane.on_event(Refused(sent.records[place].topic, why))

    def _tell(self, sent: Load) -> None:
        self._told.extend(record.dead_letter for record in sent.records if record.dead_letter is not None)

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._lane.limits.poll_seconds):
                await self._news.wait()


async def listen(connection: Connection, lane: int, news: asyncio.Event) -> None:
    """Set ``news`` whenever a row of the lane is committed."""

    def notified(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        if payload == str(lane):
            news.set()

    await connection.add_listener(channels.OUTBOX, notified)
