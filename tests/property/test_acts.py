"""Whatever happens to runs, and whatever people ask: the books are right, all is answered, and all comes to an end.

What goes wrong is told with its seed; ``POINTSMAN_ACTS_SEED`` has the tests begin with that one.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from random import Random

import orjson
import pytest

from engine import reading
from engine.steps import steps
from engine.store.connecting import connect
from statemachines.machine import compile_pipeline
from tests.property.acts import ENGINES, HELD, OPEN, Acts, tried
from tests.property.deliveries import MINUTE, OUTSIDE, TOPIC, Outside, orders
from tests.property.faults import told_as
from tests.services import Database

SEED = int(os.environ.get("POINTSMAN_ACTS_SEED", "0"))
TRIALS, PARTS, TRIALS_LONG = 10, 10, 300
ACTS_MAX = 100
ROUNDS_MAX = 60
PATIENT_ROUNDS = 10
"""After so many, orders that go on are called off, by engines that have all versions."""
LEFT = """
with own as (
    select r.*, p.name from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline where p.namespace = $1
)
select 'command', command from pointsman.inbox where namespace = $1
union all select 'run', key || ' in ' || configuration from own
    where status = 1 or held <> 0 or waiting > 0 or wake_at is not null
union all select 'step', step || ' of ' || key from own join pointsman.executions e on e.run = own.id
union all select 'event that waits', key from own join pointsman.waiting w on w.run = own.id
union all select 'pause', name from own join pointsman.pauses using (pipeline)
union all select 'records', 'unread' from pointsman.positions where namespace = $1
    having coalesce(sum(position), 0) < $2
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
        await check_the_books(acts)
        await check_the_answers(acts)


async def come_to_rest(acts: Acts) -> None:
    """All work succeeds from now on, and people see to what cannot go on without them."""
    newest, all_versions = [max(acts.loaded)], sorted(acts.loaded)
    for turn in range(ROUNDS_MAX):
        for number in range(ENGINES):
            if turn in (0, PATIENT_ROUNDS):
                await acts.begin(number, all_versions if turn else newest)
            for what in ("read", "fire", "work", "take commands"):
                await acts.move(number, what)
        acts.clock.now += MINUTE
        left = await acts.connection.fetch(LEFT, acts.namespace, sum(map(len, acts.log)))
        if not left:
            return
        await help_out(acts, turn)
    raise AssertionError(f"it does not come to rest: {left}")


async def help_out(acts: Acts, turn: int) -> None:
    """Resume what is paused, decide about what is stuck, complete what goes on outside, and map what has no code."""
    await acts.ask(reading.ask_of_pipeline, "resume", "order")
    if 2 in acts.loaded:
        await acts.map_runs()
    for token in await acts.tokens():
        await tried(acts.complete(token, b"null"))
    for letter in await acts.letters():
        await tried(acts.decide(reading.ask_drop if turn else reading.ask_redrive, letter))
    for key in await acts.runs(HELD):
        await tried(acts.of_run(acts.draw.choice(["retry", "skip", "resume"]), key))
    if turn >= PATIENT_ROUNDS:
        for key in await acts.runs(f"{OPEN} and r.held = 0"):
            await tried(acts.send("order.called_off", key, {"order": key}))


async def check_the_books(acts: Acts) -> None:
    """What is stored is consistent, and comes of what was consumed."""
    verified = await reading.verify(acts.connection, acts.namespace)
    assert verified.is_clean, verified.findings
    machines = [compile_pipeline(orders(version), namespace=acts.namespace) for version in (1, 2)]
    replayed = await reading.replay(acts.connection, acts.namespace, machines)
    assert replayed.is_equal, replayed.mismatches


async def check_the_answers(acts: Acts) -> None:
    """Whoever asks is told."""
    connection, namespace = acts.connection, acts.namespace
    for done in await reading.wait_until_done(connection, namespace, acts.asked, seconds=0):
        assert done.taken, done
        assert done.sentence, done
    for asked in acts.asked_of_letters:
        for became in await reading.wait_until_taken(connection, namespace, asked, seconds=0):
            assert became.taken, became
    for partition, records in enumerate(acts.log):
        for offset in range(len(records)):
            told = await reading.explain(
                connection, namespace, topic=TOPIC, partition=partition, offset=offset
            )
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


def try_seeds(database: Database, seeds: range) -> None:
    for seed in seeds:
        with told_as(f"POINTSMAN_ACTS_SEED={seed}"):
            asyncio.run(lived(database, seed))


@pytest.mark.usefixtures("quiet", "hurried")
def test_all_comes_to_an_end_after_some_acts(database: Database) -> None:
    try_seeds(database, range(SEED, SEED + TRIALS))


@pytest.mark.long
@pytest.mark.usefixtures("quiet", "hurried")
@pytest.mark.parametrize("part", range(PARTS))
def test_all_comes_to_an_end_after_many_acts(database: Database, part: int) -> None:
    try_seeds(database, range(SEED + TRIALS + part, SEED + TRIALS_LONG, PARTS))
