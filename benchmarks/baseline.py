"""A consumer as one would write it by hand: what the engine is compared with. ``python -m benchmarks.baseline``.

Micro-batches: up to 2,000 records, one transaction with the events, the orders' new states by compare-and-set, and
the offsets. It keeps no other promise: no group and no fence against a second one of its kind, no validation, no
context, no history of definitions, no holding, nothing published. It is the ceiling, not a proposal.

Says ``ready`` on standard output once it is connected, and begins when a line comes on standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import asyncpg
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.events import PHASES
from benchmarks.sizes import BATCH_RECORDS, PARTITIONS

SCHEMA = """
create table ev (
    id text primary key, subject text not null, seq int not null, type text not null,
    at timestamptz not null default now(), data bytea not null
);
create table run (
    id text primary key, state text not null, seq int not null, updated timestamptz not null default now()
) with (fillfactor = 70);
create table off (topic text, part int, off bigint not null, primary key (topic, part));
"""
LOAD = "select id, state, seq from run where id = any($1::text[])"
KNOWN = "select id from ev where id = any($1::text[])"
INSERT = "insert into run (id, state, seq) select * from unnest($1::text[], $2::text[], $3::int[])"
UPDATE = """
update run r set state = u.state, seq = u.seq, updated = now()
from unnest($1::text[], $2::text[], $3::int[], $4::int[]) u (id, state, seq, old)
where r.id = u.id and r.seq = u.old
"""
OFFSETS = """
insert into off (topic, part, off) select * from unnest($1::text[], $2::int[], $3::bigint[])
on conflict (topic, part) do update set off = excluded.off
"""
POSITIONS = "select part, off from off where topic = $1"
SERVER_SETTINGS = {
    "application_name": "benchmark baseline",
    "jit": "off",
    # As the engine sets them. Else it depends on when the tables were analyzed whether a batch reads one as a whole.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
WAIT_MILLISECONDS = 100
NEW = "new"
UNKNOWN = (NEW, 0)

Moves = Mapping[tuple[str, str], str]

ORDERS: Moves = {
    (before, f"order.{phase}"): phase for before, phase in zip((NEW, *PHASES), PHASES, strict=False)
}
LEDGERS: Moves = {(NEW, "ledger.opened"): "open", ("open", "ledger.entered"): "open"}


@dataclass(frozen=True, slots=True)
class Job:
    """What one process is to do."""

    postgres: str
    kafka: str
    topic: str
    ledgers: bool
    worker: int
    workers: int
    cache: int
    until_idle: bool


class Worker:
    """Reads its share of the partitions."""

    def __init__(self, job: Job, connection: asyncpg.Connection[Any], consumer: Any) -> None:
        self._job = job
        self._connection = connection
        self._consumer = consumer
        self._moves = LEDGERS if job.ledgers else ORDERS
        self._cache: dict[str, tuple[str, int]] = {}
        self.stopping = False

    async def run(self) -> None:
        """Until it is stopped, or has read all that was there when it began."""
        numbers = range(self._job.worker, PARTITIONS, self._job.workers)
        partitions = [TopicPartition(self._job.topic, number) for number in numbers]
        self._consumer.assign(partitions)
        known = dict(await self._connection.fetch(POSITIONS, self._job.topic))
        for one in partitions:
            self._consumer.seek(one, known.get(one.partition, 0))
        ends = await self._consumer.end_offsets(partitions)
        left = {one for one in partitions if known.get(one.partition, 0) < ends[one]}
        while not self.stopping and (left or not self._job.until_idle):
            chunk = await self._consumer.getmany(timeout_ms=WAIT_MILLISECONDS, max_records=BATCH_RECORDS)
            if chunk:
                await self._apply(chunk)
                left -= {one for one in left & chunk.keys() if chunk[one][-1].offset + 1 >= ends[one]}

    async def _apply(self, chunk: Mapping[Any, Sequence[Any]]) -> None:
        events = [(orjson.loads(record.value), record.value) for part in chunk.values() for record in part]
        cache, moves = self._cache, self._moves
        missing = list({event["subject"] for event, _ in events if event["subject"] not in cache})
        if missing:
            for row in await self._connection.fetch(LOAD, missing):
                cache[row[0]] = (row[1], row[2])
        # Where the state alone does not tell that an event came before, the table of events does.
        seen: set[str] = set()
        if self._job.ledgers:
            ids = [event["id"] for event, _ in events]
            seen.update(row[0] for row in await self._connection.fetch(KNOWN, ids))
        rows, new, changed = [], {}, {}
        for event, raw in events:
            if event["id"] in seen:
                continue
            seen.add(event["id"])
            subject = event["subject"]
            state, sequence = cache.pop(subject, UNKNOWN)
            after = moves.get((state, event["type"]))
            if after is None:
                if sequence:
                    cache[subject] = (state, sequence)
                continue
            if sequence == 0:
                new[subject] = 1
            elif subject not in new and subject not in changed:
                changed[subject] = sequence
            # Out and in again: the cache's order is the order of use.
            cache[subject] = (after, sequence + 1)
            rows.append((event["id"], subject, sequence + 1, event["type"], raw))
        await self._commit(rows, list(new), changed, chunk)
        surplus = len(cache) - self._job.cache
        for subject in list(islice(cache, max(0, surplus))):
            del cache[subject]

    async def _commit(
        self,
        rows: Sequence[tuple[Any, ...]],
        new: list[str],
        changed: Mapping[str, int],
        chunk: Mapping[Any, Sequence[Any]],
    ) -> None:
        connection, cache = self._connection, self._cache
        async with connection.transaction():
            if rows:
                await connection.copy_records_to_table(
                    "ev", records=rows, columns=["id", "subject", "seq", "type", "data"]
                )
            if new:
                after = [cache[one] for one in new]
                await connection.execute(
                    INSERT, new, [state for state, _ in after], [seq for _, seq in after]
                )
            if changed:
                after = [cache[one] for one in changed]
                done = await connection.execute(
                    UPDATE,
                    list(changed),
                    [state for state, _ in after],
                    [seq for _, seq in after],
                    list(changed.values()),
                )
                assert done == f"UPDATE {len(changed)}", done
            await connection.execute(
                OFFSETS,
                [one.topic for one in chunk],
                [one.partition for one in chunk],
                [records[-1].offset + 1 for records in chunk.values()],
            )


async def work(job: Job) -> None:
    """Connect, say so, wait for the word, work."""
    connection = await asyncpg.connect(job.postgres, server_settings=SERVER_SETTINGS)
    consumer: Any = AIOKafkaConsumer(  # type: ignore[no-untyped-call]  # aiokafka is untyped
        bootstrap_servers=job.kafka,
        group_id=None,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=10,
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    try:
        worker = Worker(job, connection, consumer)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: setattr(worker, "stopping", True))
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 50)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        await worker.run()
    finally:
        await consumer.stop()
        await connection.close()


def main() -> None:
    """Read the arguments and work."""
    parser = argparse.ArgumentParser()
    for name in ("postgres", "kafka", "topic"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("worker", "workers", "cache"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--ledgers", action="store_true")
    parser.add_argument("--until-idle", action="store_true")
    uvloop.run(work(Job(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
