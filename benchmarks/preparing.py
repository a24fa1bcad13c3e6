"""Runs with timers, put into a database by the engine's own committer: what it would have written, without a broker.

Each is started by an event, and has a row of the log with it. Their records come from a cluster that there is not, so
that the engine which is measured afterwards begins at the first record of its own topic.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice

from benchmarks.events import HEADERS, moment
from benchmarks.pipelines import reminder_pipeline
from benchmarks.servers import ENGINE_ROLE, Servers
from benchmarks.sizes import BATCH_RECORDS
from connectors.source import Partition, RawRecord
from engine.admission import register
from engine.limits import EngineLimits
from engine.observing import Silent
from engine.routing import make_routes
from engine.session.caches import evict
from engine.session.claims import Claim, Slice
from engine.session.committer import Committer
from engine.store.postgres import PostgresStore
from statemachines.machine import compile_pipeline

CLUSTER = "prepared"
GROUP = "benchmark-prepared"
SOURCE = "/offices/of/the/north/desks/reminders"
"""So long that 13 rows of the log fill a page of Postgres to its end, as rows of all sizes do in time. Else each page
had room for one smaller row, and whatever comes later would be put there: each into an old page, of which Postgres
then logs a full image."""
_HEADERS = [(name, value.encode() if isinstance(value, str) else value) for name, value in HEADERS]


async def start_reminders(
    servers: Servers, database: str, topic: str, dues: Iterable[float], first: int = 0
) -> int:
    """Start a run for each of these times (seconds since 1970), at which its timer falls due; returns how many.

    ``topic`` is the one that the pipeline will read; ``first`` is the number of the first of the runs.
    """
    machine = compile_pipeline(reminder_pipeline(topic))
    dsn = servers.postgres.dsn(ENGINE_ROLE, database)
    store = await PostgresStore.open(dsn, namespace="default", group=GROUP, cluster=CLUSTER)
    try:
        topics = make_routes(await register(store, [machine], strict=True), {})
        now = functools.partial(datetime.now, UTC)
        committer = Committer(store, topics, CLUSTER, now, now, Silent(), [0, 0, 0])
        partition, limits = Partition(topic, 0), EngineLimits()
        await store.add_positions({partition: first})
        [(number, _, position, epoch, _)] = await store.take_positions([partition])
        claim, remaining = Claim(number, partition, epoch, position), iter(dues)
        while records := [
            _record(topic, position + index, due)
            for index, due in enumerate(islice(remaining, BATCH_RECORDS))
        ]:
            end = position + len(records)
            batch = await committer.prepare([Slice(claim, records, position, end)], None)
            await committer.commit(batch)
            evict(topics[topic].routes, limits, batch)
            position = end
    finally:
        await store.close()
    return position - first


def _record(topic: str, number: int, due: float) -> RawRecord:
    now = datetime.now(UTC)
    value = (
        f'{{"specversion":"1.0","id":"a-{number}","type":"reminder.asked","source":"{SOURCE}",'
        f'"subject":"reminder-{number}","time":"{moment(now.timestamp())}","data":{{"due":"{moment(due)}"}}}}'
    )
    key = b"reminder-%d" % number
    return RawRecord(topic, 0, number, int(now.timestamp() * 1_000), key, value.encode(), _HEADERS)
