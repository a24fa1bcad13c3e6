"""Steps on real Kafka and Postgres: engines that are killed in the middle of them, stopped, and started again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from connectors.encode import encode_structured
from connectors.kafka.membership import SESSION_SECONDS
from connectors.kafka.settings import KafkaSettings
from engine.reading import replay, verify
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from tests.chaos.slots import until
from tests.parcelling import LEDGER, MODULE, lines_of, parcels_on
from tests.services import Database, Kafka, TopicFactory
from tests.stuck import publish
from tests.timed import World, in_state, kill

STEPS = ("pay", "pack", "send")
TAKEOVER_SECONDS_MAX = SESSION_SECONDS + 20.0
"""Once the session of one that was killed is over, the group has a rebalance, which takes a second or two."""


@pytest.fixture
def world(database: Database, kafka: Kafka) -> World:
    return World(database.engine_dsn, database.owner_dsn, KafkaSettings(kafka.bootstrap), database.name)


def ordered(parcel: str, seconds: float) -> bytes:
    data = orjson.dumps({"parcel": parcel, "seconds": seconds})
    return encode_structured(id=f"ordered-{parcel}", source="/test", type="parcel.ordered", data=data)


async def check(world: World, reader: Connection, topic: str, ledger: Path, parcels: Iterable[str]) -> None:
    """All is sent; each execution had one key, and was done; nothing waits; the log is right."""
    lines = lines_of(ledger)
    keys: dict[tuple[str, str], set[str]] = {}
    for line in lines:
        keys.setdefault((line.parcel, line.step), set()).add(line.key)
    assert keys.keys() == {(parcel, step) for parcel in parcels for step in STEPS}
    assert {len(several) for several in keys.values()} == {1}, "an execution has one key"
    assert len({key for several in keys.values() for key in several}) == len(keys), "which is no other's"
    finished = {(line.parcel, line.step) for line in lines if line.what == "done"}
    assert finished == keys.keys()
    twice = [
        one
        for one, times in Counter((line.key, line.attempt, line.what) for line in lines).items()
        if times > 1
    ]
    assert not twice, f"attempts are made once: {twice}"
    assert await world.ask("select * from pointsman.executions") == []
    assert await world.ask("select * from pointsman.dead_letters") == []
    assert (await verify(reader, world.namespace)).is_clean
    machines = [compile_pipeline(parcels_on(topic), namespace=world.namespace)]
    assert (await replay(reader, world.namespace, machines)).is_equal


async def test_steps_outlive_engines_that_are_killed_again_and_again(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection, tmp_path: Path
) -> None:
    name, ledger = await topic("parcels", partitions=2), tmp_path / "ledger"
    parcels = [f"p{number:02}" for number in range(60)]
    engine = await world.process(name, "one", MODULE, **{LEDGER: str(ledger)})
    kills = 0
    try:
        await publish(kafka.bootstrap, name, *(ordered(one, 0.3) for one in parcels))
        for more in (20, 30, 30):
            at = len(lines_of(ledger))

            async def has_come_on(by: int = at + more) -> bool:
                return len(lines_of(ledger)) >= by

            await until(has_come_on, 120, "steps begun", 0.01)
            await kill(engine)
            kills += 1
            started_at = time.monotonic()
            engine = await world.process(name, "one", MODULE, **{LEDGER: str(ledger)})
        await world.come_to(in_state("sent", parcels))
        print(f"all done {time.monotonic() - started_at:.1f} s after the last of {kills} kills")
    finally:
        await kill(engine)
    lost = await world.ask("select count(*) from pointsman.events where type like 'tried.step.%'")
    assert lost[0][0] >= kills, "attempts were lost, and are logged"
    await check(world, reader, name, ledger, parcels)


async def test_another_engine_takes_over_the_steps_of_one_that_was_killed(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection, tmp_path: Path
) -> None:
    name, ledger = await topic("parcels", partitions=2), tmp_path / "ledger"
    parcels: list[str] = []
    more = {LEDGER: str(ledger)}
    one = await world.process(name, "one", MODULE, **more)
    two = await world.process(name, "two", MODULE, **more)
    try:

        async def both_serve() -> bool:
            return await world.ask("select count(*) from pointsman.holders") == [(2,)]

        await until(both_serve, 120, "two engines at work")

        async def come(many: int) -> None:
            some = [f"p{number:03}" for number in range(len(parcels), len(parcels) + many)]
            parcels.extend(some)
            await publish(kafka.bootstrap, name, *(ordered(parcel, 1.0) for parcel in some))

        async def have_begun() -> bool:
            held = await world.ask(
                "select distinct holder from pointsman.executions where holder is not null"
            )
            if len(held) < 2:
                # Who came second may be given homes only once all that was there is done.
                await come(5)
            return len(held) == 2

        await come(40)

        await until(have_begun, 120, "steps begun by both", 0.5)
        await kill(one)
        killed_at, killed = time.monotonic(), datetime.now(UTC)
        await world.come_to(in_state("sent", parcels))
        print(f"all done {time.monotonic() - killed_at:.1f} s after one of two engines was killed")
        lost = await world.ask("select min(at), max(at) from pointsman.events where type like 'tried.step.%'")
        [first, last] = [(at - killed).total_seconds() for at in lost[0]]
        print(f"taken over from {first:.1f} s to {last:.1f} s after that")
        assert last < TAKEOVER_SECONDS_MAX
    finally:
        await kill(one)
        await kill(two)
    await check(world, reader, name, ledger, parcels)


async def test_an_engine_that_is_stopped_lets_its_steps_end(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection, tmp_path: Path
) -> None:
    name, ledger = await topic("parcels"), tmp_path / "ledger"
    parcels = [f"p{number}" for number in range(5)]
    more = {
        LEDGER: str(ledger),
        # As long as it takes on a machine that is busy with others.
        "POINTSMAN_LIMIT_STEP_STOP_SECONDS": "60",
        "POINTSMAN_LIMIT_STOP_SECONDS": "120",
    }
    engine = await world.process(name, "one", MODULE, **more)
    try:
        await publish(kafka.bootstrap, name, *(ordered(parcel, 1.0) for parcel in parcels))

        async def have_begun() -> bool:
            return {line.parcel for line in lines_of(ledger)} == {*parcels}

        await until(have_begun, 120, "steps begun")
        engine.terminate()
        assert await engine.wait() == 0
        lines = lines_of(ledger)
        assert {line.attempt for line in lines} == {1}
        begun, ended = (
            {(line.parcel, line.step) for line in lines if line.what == what} for what in ("begun", "done")
        )
        assert begun == ended, "what goes on is let end"
        # How far each has come by then is for the machine to say.
        follows = dict(pairwise(STEPS)) | {STEPS[-1]: ""}
        last = {line.parcel: line.step for line in lines if line.what == "done"}
        waits = {(parcel, follows[step]) for parcel, step in last.items() if follows[step]}
        asked = "select r.key, e.step from pointsman.executions e join pointsman.runs r on r.id = e.run"
        assert {*await world.ask(asked)} == waits, "and what follows does not begin"
        assert await world.ask("select * from pointsman.holders") == []
        engine = await world.process(name, "one", MODULE, **more)
        await world.come_to(in_state("sent", parcels))
    finally:
        await kill(engine)
    assert {line.attempt for line in lines_of(ledger)} == {1}, "none was lost"
    await check(world, reader, name, ledger, parcels)
