"""The road under fire: real Kafka, real Postgres, engines that are killed, an oracle that knows better.

The seed is printed; `POINTSMAN_CHAOS_SEED` gives it back, for the same feed and the same order of faults. The
long form: `pytest -s -m long tests/chaos/test_road.py`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import pytest

from engine.services.apache_kafka import ApacheKafka
from engine.services.postgres import EmbeddedPostgres
from tests.chaos import checks, trip_checks
from tests.chaos.faults import PARTS, Faults
from tests.chaos.feed import Feeder
from tests.chaos.oracle import ECHO, Found, Oracle
from tests.chaos.parcels import CHATTER, OUT, PARCELS
from tests.chaos.reading import read_committed
from tests.chaos.script import EVENT_HEADERS, Send
from tests.chaos.slots import until, within
from tests.chaos.stage import PARTITIONS, Stage, stage
from tests.chaos.stamps import known_otherwise
from tests.chaos.trip_oracle import MARKED, MET
from tests.chaos.trips import STATIONS, TRIPS, TRIPS_OUT, WAVES_COUNT
from tests.cluster import KafkaCluster
from tests.proxy import When

log = logging.getLogger("chaos")

LIMITS = {"batch_records_max": 50, "cache_runs_max": 200, "backlog_seconds_max": 600}
"""Small batches, so that there are many transactions, and a cache that is too small. No timer overtakes anything,
however long a busy machine does not get on with a partition."""
MODULES = ("tests.chaos.parcels", "tests.chaos.trips")
READS = (PARCELS, CHATTER, TRIPS, STATIONS)


@dataclass(frozen=True, slots=True)
class Form:
    """How much of everything."""

    runs: int
    feed_seconds: float
    quotas: dict[str, int]
    zombies: int
    pause_seconds_max: float
    rest_seconds: float


SHORT = Form(
    runs=400,
    feed_seconds=40,
    quotas={
        "kill": 1,
        "kill in an open transaction": 2,
        "cut at commit: before": 1,
        "cut at commit: in_flight": 1,
        "cut at commit: after": 1,
        "terminate in an open transaction": 1,
        "joined and left": 1,
        "stopped in order": 1,
        "postgres immediate": 1,
        "kafka killed between the relay's commit and its clean-up": 1,
    },
    zombies=1,
    pause_seconds_max=0.3,
    rest_seconds=240,
)
SHORT_SECONDS = 240.0
"""Of the short form, with servers that run already."""
LONG = Form(
    runs=4_000,
    feed_seconds=150,
    quotas={
        "kill": 28,
        "kill in an open transaction": 22,
        "cut at commit: before": 4,
        "cut at commit: in_flight": 4,
        "cut at commit: after": 4,
        "terminate in an open transaction": 5,
        "joined and left": 3,
        "stopped in order": 3,
        "postgres immediate": 5,
        "kafka killed between the relay's commit and its clean-up": 1,
        "kafka killed": 3,
    },
    zombies=6,
    pause_seconds_max=1.5,
    rest_seconds=180,
)
BROKERS = Form(
    runs=1_000,
    feed_seconds=60,
    quotas={
        "a leader killed": 4,
        "the group's coordinator killed": 3,
        "the relay's coordinator killed": 3,
        "leaders moved": 3,
        "kill in an open transaction": 3,
    },
    zombies=1,
    pause_seconds_max=1.5,
    rest_seconds=180,
)


async def test_whatever_is_killed_every_event_is_applied_once_and_every_output_published_once(
    restartable_postgres: EmbeddedPostgres, restartable_kafka: ApacheKafka, tmp_path: Path
) -> None:
    with within(SHORT_SECONDS):
        await _survive(SHORT, restartable_postgres, restartable_kafka, tmp_path)


@pytest.mark.long
async def test_the_same_for_minutes_with_thousands_of_runs(
    restartable_postgres: EmbeddedPostgres, restartable_kafka: ApacheKafka, tmp_path: Path
) -> None:
    await _survive(LONG, restartable_postgres, restartable_kafka, tmp_path)


@pytest.mark.long
async def test_the_same_where_it_is_the_brokers_that_die_one_after_the_other(
    restartable_postgres: EmbeddedPostgres, kafka_cluster: KafkaCluster, tmp_path: Path
) -> None:
    await _survive(BROKERS, restartable_postgres, kafka_cluster, tmp_path)


async def _survive(
    form: Form, postgres: EmbeddedPostgres, kafka: ApacheKafka | KafkaCluster, folder: Path
) -> None:
    seed = int(os.environ.get("POINTSMAN_CHAOS_SEED") or time.time_ns() % 1_000_000)
    print(f"seed: POINTSMAN_CHAOS_SEED={seed}; logs of the engines: {folder}")
    suffix = f"-{seed}"
    partitions = {**PARTITIONS, TRIPS: 4, STATIONS: 1, TRIPS_OUT: 3}
    async with stage(postgres, kafka, folder, suffix, ["a", "b", "c"], LIMITS, partitions, MODULES) as scene:
        scene.reads = READS
        feeder = Feeder(kafka.bootstrap, suffix, seed)
        faults = Faults(scene.world, Random(seed), scene.slots[:2], postgres, kafka)
        feeding = asyncio.create_task(asyncio.to_thread(feeder.run, form.runs, form.feed_seconds))
        releasing = asyncio.create_task(scene.keep_releasing())
        watching = asyncio.create_task(_watch(scene, feeder))
        directing = asyncio.create_task(_direct(form, faults, scene, Random(seed)))
        try:
            for slot in scene.slots[:2]:
                slot.instance = slot.name
                await slot.start()
            await asyncio.wait({directing, watching, feeding}, return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                # It ends sooner than it is told to only if it fails.
                feeding.result()
            feeder.enough.set()
            if not directing.done():
                watching.result()
            directing.result()
            await feeding
            await scene.at_rest(form.rest_seconds)
            await _waves_are_over(scene)
            await asyncio.to_thread(_echo, feeder, Random(seed), scene)
            ends = await scene.at_rest(form.rest_seconds)
        finally:
            feeder.stopping.set()
            for task in (directing, releasing, watching):
                task.cancel()
            await asyncio.gather(directing, releasing, watching, feeding, return_exceptions=True)
            _tell(faults, feeder, scene)
        for slot in scene.slots[:2]:
            await slot.stop()
        assert not scene.surprises, "\n".join(scene.surprises)
        await _check(scene, ends)
        counts = faults.counts
        missed = {name: (counts[name], quota) for name, quota in form.quotas.items() if counts[name] < quota}
        assert not missed, f"faults that did not happen often enough: {missed}"
        assert counts["zombie"] >= form.zombies


async def _watch(scene: Stage, feeder: Feeder) -> None:
    """End early when an engine does what nobody asked for; tell the releaser whom to release."""
    while not scene.surprises:
        scene.released |= {key for plan in feeder.plans for key in plan.released}
        await asyncio.sleep(0.5)
    raise AssertionError("\n".join(scene.surprises))


async def _direct(form: Form, faults: Faults, scene: Stage, random: Random) -> None:
    """One fault after the other, in random order, until there were enough; zombies beside the others."""
    zombies = asyncio.create_task(_make_zombies(form, faults, random))
    try:
        for slot in scene.slots[:2]:
            await slot.said("partitions: ", 240)
        while True:
            lacking = [name for name, quota in form.quotas.items() if faults.counts[name] < quota]
            if not lacking:
                break
            name = random.choice(lacking)
            log.info("fault: %s", name)
            await _fault(name, faults, scene)()
            await asyncio.sleep(random.uniform(0, form.pause_seconds_max))
        await zombies
    finally:
        zombies.cancel()
        await asyncio.gather(zombies, return_exceptions=True)


async def _make_zombies(form: Form, faults: Faults, random: Random) -> None:
    while faults.counts["zombie"] < form.zombies:
        await faults.zombie(aimed=random.random() < 0.6)
        await asyncio.sleep(random.uniform(0, form.pause_seconds_max))


def _fault(name: str, faults: Faults, scene: Stage) -> Callable[[], Awaitable[None]]:
    known: dict[str, Callable[[], Awaitable[None]]] = {
        "kill": partial(faults.kill, aimed=False),
        "kill in an open transaction": partial(faults.kill, aimed=True),
        "cut at commit: before": partial(faults.cut_commit, When.BEFORE),
        "cut at commit: in_flight": partial(faults.cut_commit, When.IN_FLIGHT),
        "cut at commit: after": partial(faults.cut_commit, When.AFTER),
        "terminate in an open transaction": faults.terminate,
        "joined and left": partial(faults.join_and_leave, scene.slots[2]),
        "stopped in order": faults.restart_in_order,
        "postgres immediate": faults.crash_postgres,
        "leaders moved": faults.move_leaders,
        **{part: partial(faults.kill_broker, part) for part in PARTS},
        "kafka killed": faults.kill_kafka,
        "kafka killed between the relay's commit and its clean-up": faults.kill_kafka_between,
    }
    return known[name]


async def _waves_are_over(scene: Stage) -> None:
    """None that a trip has taken counts any more."""
    sql = """
    select not exists (
        select from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline
        where p.namespace = $1 and p.name = 'trip' and r.updated > now() - 2 * $2::interval)
    """

    async def are_over() -> bool:
        ((over,),) = await scene.world.ask(sql, scene.world.namespace, WAVES_COUNT)
        return bool(over)

    await until(are_over, 60, "no trip moved lately")


def _echo(feeder: Feeder, random: Random, scene: Stage) -> None:
    """What was consumed comes once more, long after, under another Kafka key and so in any partition.

    What is known by more than its id comes under another one, too.
    """
    found = read_committed(scene.world.kafka, scene.topics(PARCELS, TRIPS))
    oracle = Oracle(scene.world.suffix, scene.released)
    oracle.read(found)
    words = {"started", "applied"}
    for topic, name in ((PARCELS, "parcel"), (TRIPS, "trip")):
        applied = [one for one in found if oracle.dispositions.get((one.place, name)) in words]
        again = [one.value for one in random.sample(applied, min(len(applied), 100))]
        marked = [one for one in map(_marked, applied) if one is not None]
        again += map(known_otherwise, random.sample(marked, min(len(marked), 200)))
        feeder.send(
            [Send(0.0, topic, f"{ECHO.decode()}{random.random()}", one, EVENT_HEADERS) for one in again]
        )


def _marked(record: Found) -> bytes | None:
    """What is known by a ticket or a number, as it came."""
    value = record.value or b""
    return value if json.loads(value)["type"] in MARKED else None


async def _check(scene: Stage, ends: dict[tuple[str, int], int]) -> None:
    world = scene.world

    async def read(topics: list[str]) -> list[Found]:
        return await asyncio.to_thread(read_committed, world.kafka, topics)

    records = await read(scene.topics(*READS))
    oracle = Oracle(world.suffix, scene.released)
    oracle.read(records)
    rows = await checks.check_chains(world)
    await checks.check_by_command(world, "verify")
    await checks.check_by_command(world, "replay", *MODULES)
    await checks.check_runs(world, oracle)
    await trip_checks.check_trips(world, oracle.trips, rows)
    await trip_checks.check_stations(world, oracle.trips, rows)
    words = await checks.check_dispositions(world, oracle, rows)
    await checks.check_positions(world, ends)
    checks.check_output(oracle, await read(scene.topics(OUT)))
    trip_checks.check_told(oracle.trips, await read(scene.topics(TRIPS_OUT)))
    letters = await read([f"{topic}.dead-letters" for topic in scene.topics(*READS)])
    await checks.check_dead_letters(world, oracle, records, letters)
    print(
        f"checked: {len(records)} records, {len(oracle.runs)} runs, {sum(map(len, rows.values()))} log rows,"
    )
    print(f"  dispositions {dict(words)}, dead letters {dict(Counter(oracle.dead.values()))}")
    fired = sum((trip.fired for trip in oracle.trips.trips.values()), Counter[str]())
    print(f"  fell due {dict(fired)}, visits {sum(one[0] for one in oracle.trips.stations().values())}")
    print(f"  events in order, and by ticket: {dict(oracle.trips.met)}")
    words_wanted = (
        "started", "applied", "duplicate", "stale", "held", "ignored", "late", "dead-lettered", "deferred",
    )  # fmt: skip
    assert all(oracle.trips.met[what] for what in MET), (
        "the feed has none of some: it proves less than it should"
    )
    assert all(fired[what] for what in ("trip.checked", "trip.reminded", "after.booked.0", "after.rolling.0"))
    for word in words_wanted:
        assert words[word], f"the feed has no record that is {word}: it proves less than it should"


def _tell(faults: Faults, feeder: Feeder, scene: Stage) -> None:
    print(f"faults: {dict(faults.counts)}")
    print(f"feed: {feeder.counts}, {scene.drops} drops")
    print(f"starts: { {slot.name: slot.starts for slot in scene.slots} }")
