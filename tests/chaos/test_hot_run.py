"""One run that two engines want at the same time: both go on, and every event is applied once."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from engine.services.apache_kafka import ApacheKafka
from engine.services.postgres import EmbeddedPostgres
from tests.chaos import checks
from tests.chaos.parcels import CHATTER, OUT, PARCELS
from tests.chaos.reading import read_committed
from tests.chaos.script import EVENT_HEADERS, event
from tests.chaos.slots import World, until
from tests.chaos.stage import PARTITIONS, stage

EVENTS_EACH = 2_000
LIMITS = {"batch_records_max": 40, "cache_runs_max": 200}
STARVED_SECONDS = 5.0
FAIR_SHARE = 0.3
"""How far the slower one must be, at least, when the faster one has ended."""


async def test_a_hot_run_shared_by_two_engines_starves_neither(
    restartable_postgres: EmbeddedPostgres, restartable_kafka: ApacheKafka, tmp_path: Path
) -> None:
    partitions = {**PARTITIONS, PARCELS: 2}
    async with stage(
        restartable_postgres, restartable_kafka, tmp_path, "-hot", ["a", "b"], LIMITS, partitions
    ) as scene:
        world = scene.world
        for slot in scene.slots:
            slot.instance = slot.name
            await slot.start()
        for number, slot in enumerate(scene.slots):
            # Each has one partition of the topic, so that the run's events come to both.
            await slot.said(f"partitions: {CHATTER}-hot/{number}, {PARCELS}-hot/{number}\n", 60)
        await asyncio.to_thread(_feed, world, [[event("open", "parcel.opened", "hot")], []])
        await scene.at_rest(30)
        weighs = [
            [event(f"{side}-{at}", "parcel.weighed", "hot", grams=1 + side) for at in range(EVENTS_EACH)]
            for side in (0, 1)
        ]
        await asyncio.to_thread(_feed, world, weighs)
        shares = await _watch(world)
        ends = await scene.at_rest(60)
        for slot in scene.slots:
            await slot.stop()
        assert not scene.surprises, "\n".join(scene.surprises)
        assert min(shares) >= FAIR_SHARE, f"when one engine had read all, shares were {shares}"
        await _check(world, ends)


def _feed(world: World, sides: list[list[bytes]]) -> None:
    producer: Any = Producer({"bootstrap.servers": world.kafka, "enable.idempotence": True, "linger.ms": 5})
    for partition, values in enumerate(sides):
        for value in values:
            producer.produce(PARCELS + world.suffix, value, partition=partition, headers=list(EVENT_HEADERS))
    assert producer.flush(30) == 0


async def _watch(world: World) -> list[float]:
    """Wait until one partition is read to its end; returns which share of each is read by then.

    Raises AssertionError where a partition stands still for long.
    """
    moved_at: dict[int, tuple[int, float]] = {}
    shares: list[float] = []

    async def one_is_read() -> bool:
        rows = await world.ask(
            "select partition, position from pointsman.positions where namespace = $1 and topic = $2 "
            "order by partition",
            world.namespace,
            PARCELS + world.suffix,
        )
        now = time.monotonic()
        for partition, position in rows:
            before, since = moved_at.get(partition, (-1, now))
            moved_at[partition] = (position, now if position != before else since)
            stands = now - moved_at[partition][1]
            assert stands < STARVED_SECONDS, f"partition {partition} stands at {position} for {stands:.1f} s"
        shares[:] = [position / EVENTS_EACH for _, position in rows]
        return max(shares) >= 1

    await until(one_is_read, 120, "one of the two partitions read")
    print(f"shares when the first was through: {shares}")
    return shares


async def _check(world: World, ends: dict[tuple[str, int], int]) -> None:
    chains = await checks.check_chains(world)
    await checks.check_by_command(world, "verify")
    await checks.check_positions(world, ends)
    found = {
        row["name"]: json.loads(row["context"])
        for row in await world.ask(
            "select p.name, r.context from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline"
        )
    }
    assert found["parcel"] == {"parcel": "hot", "moves": 1 + 2 * EVENTS_EACH, "grams": 3 * EVENTS_EACH}
    assert found["ledger"] == {"parcel": "hot", "entries": 2 * EVENTS_EACH, "grams": 3 * EVENTS_EACH}
    assert found["journey"] == found["ledger"]
    for chain in chains.values():
        times = Counter(row.event_id for row in chain)
        assert len(times) == len(chain), "an event was applied twice"
        turns = sum(before.position != after.position for before, after in pairwise(chain))
        print(f"the run changed hands {turns} times")
        assert turns >= 10, "the engines took turns too seldom for this to prove anything"
        for side in ("0-", "1-"):
            numbers = [int(row.event_id[2:]) for row in chain if row.event_id.startswith(side)]
            assert numbers == sorted(numbers), "events of one partition were applied out of order"
    out = await asyncio.to_thread(read_committed, world.kafka, [OUT + world.suffix])
    events = [json.loads(record.value or b"") for record in out]
    moves = [event["data"]["move"] for event in events if event["type"] == "parcel.progress"]
    assert len(events) == len(moves) + 1, "the journey says once that its load is heavy"
    assert moves == list(range(1, 2 + 2 * EVENTS_EACH))
