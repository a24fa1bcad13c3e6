"""Whatever happens to runs, and whatever people ask: the books are right, all is answered, and all comes to an end.

What goes wrong is told with its seed; ``POINTSMAN_ACTS_SEED`` has the tests begin with that one.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import orjson
import pytest

from engine import reading
from engine.steps import steps
from engine.store.connecting import connect
from statemachines.machine import compile_pipeline
from tests.feeding import TOPIC
from tests.property.acts import ENGINES, HELD, MOVES, OPEN, Acts, tried
from tests.property.deliveries import OUTSIDE, Outside, orders
from tests.property.faults import told_as
from tests.property.waiting import MINUTE
from tests.services import Database

SEED = int(os.environ.get("POINTSMAN_ACTS_SEED", "0"))
FEW = range(SEED, SEED + 2)
MANY = [range(part, part + 30) for part in range(SEED + 2, SEED + 302, 30)]
ACTS_MAX = 100
ROUNDS_MAX = 300
PATIENT_ROUNDS = 10
"""After so many, orders that go on are called off, by engines that have all versions."""
LEFT = """
with own as (
    select r.*, p.name from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline where p.namespace = $1
)
select 'command', command from pointsman.inbox where namespace = $1
union all select 'run', configuration from own where status = 1 or held <> 0 or waiting > 0 or wake_at is not null
union all select 'step', step || ' of ' || key from own join pointsman.executions e on e.run = own.id
union all select 'event that waits', key from own join pointsman.waiting w on w.run = own.id
union all select 'pause', name from own join pointsman.pauses using (pipeline)
union all select 'records', 'unread' from pointsman.positions where namespace = $1 having sum(position) < $2
"""
"""What there must not be in the end."""


async def lived(database: Database, seed: int) -> None:
    """A trial: acts, then all comes to rest, and is looked at."""
    outside = Outside(seed)
    OUTSIDE[:] = [outside]
    connection = await connect(database.engine_dsn, for_engine=False)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        acts = Acts(database, connection, f"trial-{seed}", outside, Random(seed), stack)
        for number in range(ENGINES):
            await acts.begin(number, [1])
        await acts.go_on(acts.draw.randint(10, ACTS_MAX))
        outside.calm = True
        outside.gate.set()
        await come_to_rest(acts)
        await check(acts)


async def come_to_rest(acts: Acts) -> None:
    """All work succeeds from now on, and people see to what cannot go on without them."""
    for turn in range(ROUNDS_MAX):
        for number in range(ENGINES):
            if turn in (0, PATIENT_ROUNDS):
                await acts.begin(number, [1, 2] if turn else [2])
            await acts.read(number, number)
            for move in MOVES:
                await move(acts.engines[number])
        acts.clock.now += MINUTE
        left = await acts.connection.fetch(LEFT, acts.namespace, sum(map(len, acts.log)))
        if not left:
            return
        await help_out(acts, turn)
    raise AssertionError(f"it does not come to rest: {[*map(tuple, left)]}")


async def help_out(acts: Acts, turn: int) -> None:
    """Resume what is paused, decide about what is stuck, complete what goes on outside, and map what has no code."""
    await acts.ask(reading.ask_of_pipeline, "resume", "order")
    await acts.map_runs()
    for token in await acts.tokens():
        await tried(acts.complete(token, b"null"))
    for letter in await acts.letters():
        await tried(acts.decide(reading.ask_drop if turn else reading.ask_redrive, letter))
    for key in await acts.runs(HELD):
        await tried(acts.of_run(acts.draw.choice(["retry", "skip", "resume"]), key))
    for key in await acts.runs(OPEN) if turn >= PATIENT_ROUNDS else ():
        await tried(acts.send("order.called_off", key, {"order": key}))


async def check(acts: Acts) -> None:
    """What is stored is consistent, and comes of what was consumed; and whoever asks is told."""
    connection, namespace = acts.connection, acts.namespace
    verified = await reading.verify(connection, namespace)
    assert verified.is_clean, verified.findings
    machines = [compile_pipeline(orders(version), namespace=namespace) for version in (1, 2)]
    replayed = await reading.replay(connection, namespace, machines)
    assert replayed.is_equal, replayed.mismatches
    for done in await reading.wait_until_done(connection, namespace, acts.asked, seconds=0):
        assert done.taken, done
    for asked in acts.asked_of_letters:
        for became in await reading.wait_until_taken(connection, namespace, asked, seconds=0):
            assert became.taken, became
    for partition, records in enumerate(acts.log):
        for offset in range(len(records)):
            where: Any = {"topic": TOPIC, "partition": partition, "offset": offset}
            told = await reading.explain(connection, namespace, **where)
            [answer] = told.answers
            assert answer.current.disposition not in ("held", "deferred"), answer
            orjson.dumps(told.as_json(), default=str)
    for view in await reading.list_runs(connection, namespace, limit=0):
        address = connection, namespace, view.pipeline, view.key, view.generation
        for row in await reading.history(*address):
            orjson.dumps(row.as_json(), default=str)
            at = await reading.show(*address, at_sequence=row.sequence)
            orjson.dumps(at.as_json(), default=str)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines look for attempts that were lost, or are not wanted any more, whenever they look for others."""
    for name in ("SPEAK_SECONDS", "LOOK_AFTER_SECONDS", "WITHHELD_SECONDS"):
        monkeypatch.setattr(steps, name, 0.0)


@pytest.mark.usefixtures("quiet", "hurried")
@pytest.mark.parametrize("seeds", [FEW, *(pytest.param(many, marks=pytest.mark.long) for many in MANY)])
def test_whatever_happens_all_comes_to_an_end(database: Database, seeds: range) -> None:
    for seed in seeds:
        with told_as(f"POINTSMAN_ACTS_SEED={seed}"):
            asyncio.run(lived(database, seed))
