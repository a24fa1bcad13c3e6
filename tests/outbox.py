"""Writers that commit tickets at the same time, an oracle of what they committed, and how to compare."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import asyncpg
from aiokafka.partitioner import murmur2

from connectors.source import RawRecord
from engine import outbox
from engine.outbox import OutRecord, encode
from engine.relay import Relay

DEADLINE_SECONDS = 120.0
KEYS = 50
ABANDONED_SHARE = 0.1
LINGERING_SHARE = 0.2
LINGERING_SECONDS_MAX = 0.02

hash_of_key: Any = murmur2  # aiokafka is not typed


@dataclass(frozen=True, slots=True)
class Attempt:
    """A transaction that was begun: committed or not, the database knows."""

    sequence: int
    records: tuple[OutRecord, ...]


class Writers:
    """Commit transactions that publish; each leaves a mark in a table, so it is known what was."""

    def __init__(self, dsn: str, namespace: str, topics: Sequence[str], *, seed: int = 1) -> None:
        self._dsn = dsn
        self._namespace = namespace
        self._topics = topics
        self._random = random.Random(seed)
        self._attempts: dict[tuple[int, int], Attempt] = {}
        self.records = 0

    async def prepare(self, owner_dsn: str) -> None:
        """Make the table of marks."""
        connection = await asyncpg.connect(owner_dsn)
        await connection.execute("create table public.marks (writer int, number int)")
        await connection.execute("grant all on public.marks to pointsman_engine")
        await connection.close()

    async def write(
        self,
        writer: int,
        more: Callable[[int], bool],
        *,
        records_max: int = 20,
        transactions_per_second: float = 1e9,
    ) -> None:
        """Commit transactions, some of them given up, for as long as ``more(number)`` says."""
        number = 0
        while more(number):
            try:
                connection = await asyncpg.connect(self._dsn)
            except (asyncpg.PostgresError, OSError):
                await asyncio.sleep(0.05)
                continue
            try:
                lane = await outbox.lane_for(connection, self._namespace, 0)
                while more(number):
                    number += 1
                    await self._transaction(connection, lane, writer, number, records_max)
                    await asyncio.sleep(self._random.uniform(0.0, 2.0 / transactions_per_second))
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await asyncio.sleep(0.05)
            finally:
                connection.terminate()

    async def _transaction(
        self, connection: asyncpg.Connection[Any], lane: int, writer: int, number: int, records_max: int
    ) -> None:
        records = tuple(
            OutRecord(
                self._random.choice(self._topics),
                b"key-%d" % self._random.randrange(KEYS),
                b"%d:%d:%d" % (writer, number, index),
                (("content-type", b"text/plain"),),
                1_700_000_000_000 + number,
            )
            for index in range(self._random.randint(1, records_max))
        )
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("insert into public.marks values ($1, $2)", writer, number)
        sequence = await outbox.put(connection, lane, encode(records))
        self._attempts[writer, number] = Attempt(sequence, records)
        if self._random.random() < LINGERING_SHARE:
            # Others may commit meanwhile, were it not for the ticket.
            await asyncio.sleep(self._random.uniform(0.0, LINGERING_SECONDS_MAX))
        if self._random.random() < ABANDONED_SHARE:
            await transaction.rollback()
        else:
            await transaction.commit()
            self.records += len(records)

    async def last(self) -> int:
        """The ticket."""
        connection = await asyncpg.connect(self._dsn)
        ticket = await connection.fetchval(
            "select ticket from pointsman.lanes where namespace = $1", self._namespace
        )
        await connection.close()
        return int(ticket)

    async def expected(self, topic: str, partitions: int) -> list[list[bytes]]:
        """The values of everything committed, by partition, in the order of the commits."""
        connection = await asyncpg.connect(self._dsn)
        marks = {tuple(row) for row in await connection.fetch("select writer, number from public.marks")}
        await connection.close()
        committed = sorted(
            (attempt for mark, attempt in self._attempts.items() if mark in marks),
            key=lambda attempt: attempt.sequence,
        )
        found: list[list[bytes]] = [[] for _ in range(partitions)]
        for record in (record for attempt in committed for record in attempt.records):
            if record.topic == topic:
                number = (hash_of_key(record.key) & 0x7FFFFFFF) % partitions
                found[number].append(record.value or b"")
        return found


def differences(found: Sequence[Sequence[RawRecord]], expected: Sequence[Sequence[bytes]]) -> dict[str, int]:
    """How many records are missing, doubled, unasked for, or out of order; empty where all is well."""
    counts: Counter[str] = Counter()
    for records, wanted in zip(found, expected, strict=True):
        values = [record.value or b"" for record in records]
        have, want = Counter(values), Counter(wanted)
        counts["missing"] += len(want.keys() - have.keys())
        counts["unasked"] += len(have.keys() - want.keys())
        counts["doubled"] += sum(number - 1 for number in have.values())
        places = {value: place for place, value in enumerate(wanted)}
        order = [places[value] for value in dict.fromkeys(values) if value in places]
        counts["out of order"] += sum(later < earlier for earlier, later in pairwise(order))
    return {what: number for what, number in counts.items() if number}


@asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[Relay]:
    """The relay at work; stopped at the end, within the time that it promises."""
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        relay.stop()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await task


async def within_deadline(condition: Callable[[], Any]) -> None:
    """Return once the condition, a function or one that gives an awaitable, is true."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            answer = condition()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return
            await asyncio.sleep(0.02)
