"""However batches are cut, engines step ahead, lose to one another and load again, the same becomes of every event."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.log import Kind
from engine.outbox import decode
from engine.reading import replay, verify
from engine.store.connecting import Connection, connect
from statemachines.definition import Pipeline
from statemachines.machine import compile_pipeline
from tests import services
from tests.property.interleaving import Moment, Trouble, story_from, world
from tests.property.waiting import Log, pipeline_from
from tests.services import Database, Postgres

OF_COMMANDS = (int(Kind.RELEASED), int(Kind.DRAINING))
RUNS = """
select key, generation, sequence, status, configuration, context, recent, held, waiting, started, updated, memory,
    wake_at
from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline
where p.namespace = $1 order by key, generation
"""
ROWS = f"""
select r.key, r.generation, e.sequence, e.at, e.kind, e.status, e.type, e.configuration, e.digest, s.partition,
    e."offset", e.effects, e.context, e.memory, e.payload,
    case when e.kind in {OF_COMMANDS} then '' else e.event_id end as event_id
from pointsman.events e join pointsman.runs r on r.id = e.run join pointsman.pipelines p on p.id = r.pipeline
    left join pointsman.positions s on s.id = e.position
where p.namespace = $1 order by r.key, r.generation, e.sequence
"""
LETTERS = """
select d.key, r.generation, d.sequence, d.event_id, d.type, d.reason, d.error, d.details, d.status, d.at,
    d.record_value, d.record_headers
from pointsman.dead_letters d left join pointsman.runs r on r.id = d.run where d.namespace = $1
"""
NOTES = """
select d.key, d.event_id, d.type, d.disposition, d.reason, d.details, d.at, d."offset"
from pointsman.dispositions d join pointsman.pipelines p on p.id = d.pipeline where p.namespace = $1
"""
OUT = """
select o.blob from pointsman.outbox o join pointsman.lanes l on l.id = o.lane where l.namespace = $1
order by o.sequence
"""
ENDS = """
select position, "offset" from pointsman.events where digest is not null and run in (select * from own)
union all select position, "offset" from pointsman.dead_letters where namespace = $1 and status <> 'redriven'
union all select d.position, d."offset" from pointsman.dispositions d
    join pointsman.pipelines p on p.id = d.pipeline where p.namespace = $1
union all select e.position, e."offset" from pointsman.waiting w
    join pointsman.events e on (e.run, e.sequence) = (w.run, w.sequence) where w.run in (select * from own)
"""
ENDS = f"""
with own as (
    select r.id from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline where p.namespace = $1
)
select s.partition, ends."offset", count(*) from ({ENDS}) ends join pointsman.positions s on s.id = ends.position
group by 1, 2
"""
"""Where each record that was delivered has ended, or waits."""

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def databases(postgres: Postgres, template_database: str) -> Iterator[tuple[Database, Database]]:
    """Two, so that the ids that are made of the namespace are the same in both."""
    names = [f"test_{uuid.uuid4().hex[:12]}" for _ in range(2)]
    for name in names:
        services.run_apart(
            services.execute(postgres.dsn(), f"CREATE DATABASE {name} TEMPLATE {template_database}")
        )
    one, other = (
        Database(
            name,
            postgres.dsn(database=name),
            postgres.dsn("pointsman", name),
            postgres.dsn("reader", name),
        )
        for name in names
    )
    yield one, other
    for name in names:
        services.run_apart(services.execute(postgres.dsn(), f"DROP DATABASE {name} WITH (FORCE)"))


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@example(seed=629713955)
@given(seed=st.integers(0, 2**32))
def test_the_same_becomes_of_every_event_in_whatever_batches(
    databases: tuple[Database, Database], seed: int
) -> None:
    asyncio.run(lived_twice(databases, seed))


async def lived_twice(databases: tuple[Database, Database], seed: int) -> None:
    draw = Random(seed)
    trouble = Trouble()
    flow, story = pipeline_from(draw, trouble), story_from(draw)
    namespace = f"n{next(_numbers)}"
    plain, wild = databases
    expected = await lived(plain, flow, trouble, namespace, story, None)
    found = await lived(wild, flow, trouble, namespace, story, draw)
    for name, one in expected.items():
        assert found[name] == one, name


async def lived(
    database: Database,
    flow: Pipeline[Log],
    trouble: Trouble,
    namespace: str,
    story: list[Moment],
    draw: Random | None,
) -> dict[str, Any]:
    """All that is stored once the story was lived."""
    owner = await connect(database.owner_dsn, for_engine=False)
    try:
        async with world(database, owner, flow, trouble, namespace, draw) as one:
            await one.live(story)
        await check(owner, namespace, story)
        if not any(moment.stuck for moment in story):
            # What is stuck now and then is not pure, and comes out otherwise once it is mended.
            replayed = await replay(owner, namespace, [compile_pipeline(flow, namespace=namespace)])
            assert replayed.is_equal, replayed.mismatches
        return await stored(owner, namespace)
    finally:
        await owner.close()


async def check(owner: Connection, namespace: str, story: list[Moment]) -> None:
    """The books are right, and each event that was delivered has ended once, or waits."""
    verified = await verify(owner, namespace)
    assert verified.is_clean, verified.findings
    delivered = Counter(one.partition for moment in story for one in moment.told)
    ends = {tuple(row)[:2]: row["count"] for row in await owner.fetch(ENDS, namespace)}
    assert ends == {
        (partition, offset): 1 for partition, number in delivered.items() for offset in range(number)
    }


async def stored(owner: Connection, namespace: str) -> dict[str, Any]:
    """What must not depend on how it came about."""
    blobs = [row["blob"] for row in await owner.fetch(OUT, namespace)]
    out: dict[tuple[str, bytes | None], list[bytes | None]] = {}
    for record in (record for blob in blobs for record in decode(blob)):
        out.setdefault((record.topic, record.key), []).append(record.value)
    return {
        "runs": [tuple(row) for row in await owner.fetch(RUNS, namespace)],
        "rows": [tuple(row) for row in await owner.fetch(ROWS, namespace)],
        "dead letters": Counter(tuple(row) for row in await owner.fetch(LETTERS, namespace)),
        "notes": Counter(tuple(row) for row in await owner.fetch(NOTES, namespace)),
        "out": out,
    }
