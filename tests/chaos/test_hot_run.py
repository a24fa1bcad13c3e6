"""One run that two engines want at the same time: both go on, and every event is applied once."""

from __future__ import annotations

import asyncio
import json
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

EVENTS_EACH = 1_500
FAIR_SHARE = 0.3
"""How much the slower one must have read, at least, of what the faster one has."""
SENT_EACH = 2_500
AHEAD = 500
"""Where fewer wait for one, as many come again: so that both always want the run."""
LIMITS = {"batch_records_max": 40, "cache_runs_max": 200}


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
            await slot.said(f"partitions: {CHATTER}-hot/{number}, {PARCELS}-hot/{number}\n", 120)
        await asyncio.to_thread(_feed, world, [[event("open", "parcel.opened", "hot")], []])
        await scene.at_rest(120)
        sent = await _contend(world)
        ends = await scene.at_rest(240)
        for slot in scene.slots:
            await slot.stop()
        assert not scene.surprises, "\n".join(scene.surprises)
        await _check(world, ends, sent)


def _feed(world: World, sides: list[list[bytes]]) -> None:
    producer: Any = Producer({"bootstrap.servers": world.kafka, "enable.idempotence": True, "linger.ms": 5})
    for partition, values in enumerate(sides):
        for value in values:
            producer.produce(PARCELS + world.suffix, value, partition=partition, headers=list(EVENT_HEADERS))
    assert producer.flush(60) == 0


async def _contend(world: World) -> list[int]:
    """Send events to both partitions until each is read so far; returns how many were sent to each.

    Raises AssertionError where one is read on without the other. One of them may stand still for a moment, as processes
    do on a busy machine; so it is the slower one that is waited for.
    """
    sent, read = [0, 0], [0, 0]

    async def send(*sides: int, many: int) -> None:
        weighs: list[list[bytes]] = [[], []]
        for side in sides:
            numbers = range(sent[side], sent[side] + many)
            weighs[side] = [event(f"{side}-{at}", "parcel.weighed", "hot", grams=1 + side) for at in numbers]
            sent[side] += many
        await asyncio.to_thread(_feed, world, weighs)

    async def is_decided() -> bool:
        rows = await world.ask(
            "select position from pointsman.positions where namespace = $1 and topic = $2 order by partition",
            world.namespace,
            PARCELS + world.suffix,
        )
        # The first has the event that has opened the parcel, too.
        read[:] = rows[0][0] - 1, rows[1][0]
        if nearly := [side for side in (0, 1) if sent[side] - read[side] < AHEAD]:
            await send(*nearly, many=AHEAD)
        return min(read) >= EVENTS_EACH or max(read) > EVENTS_EACH / FAIR_SHARE

    await send(0, 1, many=SENT_EACH)
    await until(is_decided, 240, "both partitions read so far")
    print(f"events read when the slower one had come so far: {read}")
    assert min(read) >= EVENTS_EACH, f"one engine had read so much while the other starved: {read}"
    return sent


async def _check(world: World, ends: dict[tuple[str, int], int], sent: list[int]) -> None:
    everything, grams = sum(sent), sent[0] + 2 * sent[1]
    chains = await checks.check_chains(world)
    await checks.check_by_command(world, "verify")
    await checks.check_positions(world, ends)
    found = {
        row["name"]: json.loads(row["context"])
        for row in await world.ask(
            "select p.name, r.context from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline"
        )
    }
    assert found["parcel"] == {"parcel": "hot", "moves": 1 + everything, "grams": grams}
    assert found["ledger"] == {"parcel": "hot", "entries": everything, "grams": grams}
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
    assert moves == list(range(1, 2 + everything))
