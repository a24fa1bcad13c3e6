"""What a topic does not take is refused in the move that would publish it: an engine on a real Kafka and Postgres."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest

from connectors.encode import STRUCTURED_HEADERS
from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink_batches import size_alone
from connectors.source import RawRecord
from engine.assembly import EngineSettings
from engine.outbox import OutRecord
from engine.outlet import BYTES_DEFAULT, SENT_BYTES_MAX, ask_kafka
from engine.reading import ask_redrive, list_dead_letters, list_runs, replay, verify, wait_until_taken
from engine.reading.dead_letters import DeadLetterView
from engine.running import Ending, Running, run
from engine.store.connecting import Connection, connect
from statemachines.machine import Machine, compile_pipeline
from tests.outbox import running, within_deadline
from tests.relays import TIME, put, quick_relay, values
from tests.services import Database, Kafka, TopicFactory
from tests.stuck import publish
from tests.teller import begun, set_bytes_max, teller, texts, told


@dataclass(slots=True)
class World:
    """A pipeline that reads a topic, and who may look at what becomes of it."""

    database: Database
    kafka: Kafka
    topic: str
    machine: Machine
    reader: Connection

    @property
    def namespace(self) -> str:
        return self.machine.namespace

    @property
    def settings(self) -> EngineSettings:
        return EngineSettings(
            self.database.engine_dsn, KafkaSettings(self.kafka.bootstrap), namespace=self.namespace
        )

    async def send(self, *records: RawRecord) -> None:
        await publish(self.kafka.bootstrap, self.topic, *[record.value or b"" for record in records])

    async def run(self, *records: RawRecord) -> None:
        """Let an engine apply and publish all that there is."""
        await self.send(*records)
        assert (await run(self.settings, [self.machine], until_idle=True)).ending is Ending.IDLE

    async def letters(self) -> Sequence[DeadLetterView]:
        return (await list_dead_letters(self.reader, self.namespace, limit=0))[::-1]


@pytest.fixture
async def world(database: Database, kafka: Kafka, topic: TopicFactory) -> AsyncIterator[World]:
    name = await topic("told")
    reader = await connect(database.engine_dsn, for_engine=False)
    yield World(database, kafka, name, compile_pipeline(teller(name), namespace=database.name), reader)
    await reader.close()


async def test_the_event_that_asks_for_it_is_the_dead_letter_and_holds_its_run(
    world: World, kafka: Kafka, topic: TopicFactory
) -> None:
    out = await topic("out")
    await world.run(
        begun("r1"),
        begun("r2"),
        told("r1", out, "first"),
        told("r1", out, "large", times=300_000),
        told("r1", out, "after"),
        told("r2", out, "other"),
    )
    [letter] = await world.letters()
    assert (letter.reason, letter.key, letter.type) == ("too large to publish", "r1", "test.told")
    assert letter.error.startswith("say publishes 1,500,")
    assert f"bytes to {out!r}, which takes {BYTES_DEFAULT:,} (its max.message.bytes)." in letter.error
    held, other = sorted(await list_runs(world.reader, world.namespace), key=lambda one: one.key)
    assert (held.status, held.waiting, held.context) == ("held", 1, {"times": 1})
    assert other.status == "running"
    assert sorted(await texts(kafka, out)) == ["first", "other"]
    assert (await replay(world.reader, world.namespace, [world.machine])).is_equal
    assert (await verify(world.reader, world.namespace)).is_clean


async def test_once_the_topic_takes_more_a_redrive_publishes_it_in_its_place(
    world: World, kafka: Kafka, topic: TopicFactory
) -> None:
    out = await topic("out", configs={"max.message.bytes": "3000"})
    async with engine_at_work(world):
        await world.send(begun("r1"), told("r1", out, "large", times=1_000), told("r1", out, "after"))
        await within_deadline(world.letters)
        [letter] = await world.letters()
        for status in ("dead-lettered", "applied"):
            asked = await ask_redrive(world.reader, world.namespace, [letter.id], who="ana", why="try")
            [became] = await wait_until_taken(world.reader, world.namespace, asked, seconds=60)
            assert became.disposition == status, became
            letter = (await world.letters())[-1]
            await set_bytes_max(kafka, out, 9_000)

        async def both_are_there() -> bool:
            return len(await texts(kafka, out)) == 2

        await within_deadline(both_are_there)
    assert await texts(kafka, out) == ["large", "after"]
    assert {one.reason for one in await world.letters()} == {"too large to publish"}
    assert (await replay(world.reader, world.namespace, [world.machine])).is_equal
    assert (await verify(world.reader, world.namespace)).is_clean


async def test_what_is_refused_and_what_the_broker_would_refuse_are_the_same_to_the_byte(
    world: World, kafka: Kafka, topic: TopicFactory
) -> None:
    out = await topic("out", configs={"max.message.bytes": "3000"})
    sizes = range(2_480, 2_600)
    await world.run(
        *[begun(f"r{size}") for size in sizes], *[told(f"r{size}", out, "x" * size) for size in sizes]
    )
    letters = await world.letters()
    assert {letter.reason for letter in letters} == {"too large to publish"}
    refused = sorted(int((letter.key or "")[1:]) for letter in letters)
    assert refused == list(range(refused[0], sizes.stop)), "all from one size on"
    assert refused[0] > sizes.start
    assert "publishes 3,001 bytes" in min(letter.error for letter in letters)
    assert len(await texts(kafka, out)) == len(sizes) - len(refused)


async def test_the_broker_counts_as_the_engine_does(
    database: Database, kafka: Kafka, topic: TopicFactory
) -> None:
    out = await topic("out", configs={"max.message.bytes": "3000"})
    empty = OutRecord(out, b"key", b"", STRUCTURED_HEADERS, TIME)
    # Two lengths, of the value and of the record, take a byte more once they are large.
    fits = empty._replace(value=bytes(3_000 - size_alone(empty) - 2))
    assert size_alone(fits) == 3_000
    sequence = await put(
        database.engine_dsn, database.name, [fits, fits._replace(value=bytes(len(fits.value or b"") + 1))]
    )
    async with running(quick_relay(database, kafka, database.name)) as relay:
        await relay.drained(sequence)
    assert await values(kafka, out) == [fits.value]


async def test_how_large_records_may_be_is_asked_of_kafka(kafka: Kafka, topic: TopicFactory) -> None:
    own, default, huge = [
        await topic(configs=configs)
        for configs in ({"max.message.bytes": "7"}, {}, {"max.message.bytes": "99999999"})
    ]
    settings = KafkaSettings(kafka.bootstrap)
    rooms = await ask_kafka(settings)([own, default, huge, "there-is-no-such-topic"])
    assert {topic: room and room.bytes_max for topic, room in rooms.items()} == {
        own: 7,
        default: BYTES_DEFAULT,
        huge: SENT_BYTES_MAX,
        "there-is-no-such-topic": None,
    }


async def test_where_kafka_does_not_answer_nothing_is_told() -> None:
    assert await ask_kafka(KafkaSettings("127.0.0.1:1"))(["a", "b"]) == {}


@contextlib.asynccontextmanager
async def engine_at_work(world: World) -> AsyncIterator[None]:
    """An engine meanwhile."""
    begun_ones: list[Running] = []
    task = asyncio.create_task(run(world.settings, [world.machine], began=begun_ones.append))
    try:
        yield
    finally:
        for one in begun_ones:
            one.stop()
        if not begun_ones:
            task.cancel()
        await task
