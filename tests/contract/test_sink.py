"""What every transactional sink must do, run on the fake one and on real Kafka."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka.partitioner import DefaultPartitioner

from connectors.sink import Outgoing, Progress, RecordsRefusedError, Sink, SinkError, StartAgainError
from engine.outbox import OutRecord
from tests.contract.sink_worlds import FakeWorld, KafkaWorld, World

STARTS_MAX = 40
TIME = 1_700_000_000_000


@pytest.fixture(params=["fake", pytest.param("kafka", marks=pytest.mark.kafka)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "fake":
            yield FakeWorld(stack)
        else:
            yield KafkaWorld(stack, request.getfixturevalue("kafka").bootstrap)


def record(topic: str, key: bytes | None = b"k", value: bytes | None = b"v") -> OutRecord:
    return OutRecord(topic, key, value, (), TIME)


def progress(sequence: int) -> Progress:
    return Progress("the store", sequence, sequence.to_bytes(16))


async def values(world: World, topic: str) -> list[bytes | None]:
    return [record.value for partition in await world.read(topic) for record in partition]


async def publish_in_the_end(sink: Sink, records: Sequence[Outgoing], what: Progress) -> None:
    """Publish, and do what the contract says where the sink asks for a new start."""
    for _ in range(STARTS_MAX):
        try:
            await sink.publish(records, what)
        except StartAgainError:
            await sink.close()
            await sink.start()
        else:
            return
    raise AssertionError(f"asked for more than {STARTS_MAX} starts")


async def test_there_is_no_progress_at_first(world: World) -> None:
    sink = world.sink()
    assert await sink.look() is None
    await sink.start()
    assert await sink.progress() is None


async def test_records_and_progress_become_visible_together(world: World) -> None:
    topic = await world.topic()
    sink = world.sink()
    await sink.start()
    await sink.publish([record(topic, value=b"1"), record(topic, value=b"2")], progress(7))
    assert await values(world, topic) == [b"1", b"2"]
    assert await sink.progress() == progress(7)
    assert await world.sink().look() == progress(7)


async def test_a_successor_goes_on_from_the_last_progress(world: World) -> None:
    topic = await world.topic()
    first = world.sink()
    await first.start()
    for number in range(1, 6):
        await first.publish([record(topic, value=b"%d" % number)], progress(number))
    await first.close()
    second = world.sink()
    await second.start()
    assert await second.progress() == progress(5)
    await second.publish([record(topic, value=b"6")], progress(6))
    assert await values(world, topic) == [b"1", b"2", b"3", b"4", b"5", b"6"]


async def test_a_sink_can_be_started_again_after_it_was_closed(world: World) -> None:
    topic = await world.topic()
    sink = world.sink()
    for number in range(3):
        await sink.start()
        await sink.publish([record(topic, value=b"%d" % number)], progress(number))
        await sink.close()
    assert await values(world, topic) == [b"0", b"1", b"2"]


async def test_a_start_fences_the_predecessor(world: World) -> None:
    topic = await world.topic()
    zombie, successor = world.sink(), world.sink()
    await zombie.start()
    await zombie.publish([record(topic, value=b"1")], progress(1))
    await successor.start()
    with pytest.raises(SinkError):
        await zombie.publish([record(topic, value=b"twice")], progress(2))
    await successor.publish([record(topic, value=b"2")], progress(2))
    with pytest.raises(SinkError):
        await zombie.publish([record(topic, value=b"thrice")], progress(3))
    assert await values(world, topic) == [b"1", b"2"]
    assert await successor.progress() == progress(2)


async def test_sinks_of_other_names_do_not_fence_each_other(world: World) -> None:
    topic = await world.topic()
    here, there = world.sink(0), world.sink(1)
    await here.start()
    await there.start()
    await here.publish([record(topic, value=b"here")], progress(1))
    await there.publish([record(topic, value=b"there")], progress(2))
    assert await values(world, topic) == [b"here", b"there"]
    assert [await here.progress(), await there.progress()] == [progress(1), progress(2)]


async def test_what_was_given_up_midway_is_never_seen(world: World) -> None:
    topic = await world.topic()
    sink = world.sink()
    await sink.start()
    await sink.publish([], progress(1))
    many = [record(topic, value=b"%d" % number) for number in range(200)]
    sequence = 1
    for steps in range(12):
        task = asyncio.create_task(sink.publish(many, progress(sequence + 1)))
        for _ in range(steps * 3):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await sink.close()
        sink = world.sink()
        await sink.start()
        found = await sink.progress()
        assert found is not None
        assert found.sequence in (sequence, sequence + 1)
        sequence = found.sequence
        assert len(await values(world, topic)) == 200 * (sequence - 1)


async def test_progress_moves_without_records_too(world: World) -> None:
    sink = world.sink()
    await sink.start()
    await sink.publish([], progress(3))
    assert await sink.progress() == progress(3)


async def test_a_record_arrives_as_it_was(world: World) -> None:
    topic = await world.topic()
    sink = world.sink()
    await sink.start()
    sent = [
        OutRecord(topic, b"", b"", (("a", b""), ("a", None), ("\u00e9", b"\xff")), TIME + 5),
        OutRecord(topic, None, b"\x00", (), 1),
        OutRecord(topic, b"key", None, (("b", b"1"),), TIME - 5),
    ]
    await sink.publish(sent, progress(1))
    (found,) = await world.read(topic)
    as_sent = {(r.key, r.value, tuple(r.headers), r.timestamp) for r in sent}
    assert {(r.key, r.value, tuple(r.headers), r.timestamp) for r in found} == as_sent


async def test_keys_choose_the_partition_as_kafkas_clients_do_and_keep_their_order(world: World) -> None:
    topic = await world.topic(5)
    sink = world.sink()
    await sink.start()
    keys = [b"key-%d" % (number % 37) for number in range(3_000)]
    records = [record(topic, key, b"%06d" % number + bytes(1_000)) for number, key in enumerate(keys)]
    await sink.publish(records[:1_000], progress(1))
    await sink.publish(records[1_000:], progress(2))
    partitions = await world.read(topic)
    choose = DefaultPartitioner()
    for number, found in enumerate(partitions):
        expected = [r for r in records if choose(r.key, list(range(5)), []) == number]
        assert [(r.key, r.value) for r in found] == [(r.key, r.value) for r in expected]


async def test_a_record_that_is_too_large_is_named_and_nothing_of_the_call_is_seen(world: World) -> None:
    topic = await world.topic(bytes_max=20_000)
    sink = world.sink()
    await sink.start()
    await sink.publish([record(topic, value=b"before")], progress(1))
    records = [record(topic, value=b"%03d" % number + bytes(500)) for number in range(100)]
    records[61] = record(topic, value=bytes(30_000))
    with pytest.raises(RecordsRefusedError) as raised:
        await publish_in_the_end(sink, records, progress(2))
    assert list(raised.value.refused) == [61]
    assert "TOO_LARGE" in raised.value.refused[61]
    await sink.close()
    await sink.start()
    assert await sink.progress() == progress(1)
    assert await values(world, topic) == [b"before"]
    del records[61]
    await publish_in_the_end(sink, records, progress(2))
    assert await values(world, topic) == [b"before", *[r.value for r in records]]


async def test_a_record_of_the_wrong_kind_is_named_however_many_are_beside_it(world: World) -> None:
    topic = await world.topic(compacted=True)
    sink = world.sink()
    await sink.start()
    records = [record(topic, b"%d" % number) for number in range(300)]
    records[123] = record(topic, None)
    with pytest.raises(RecordsRefusedError) as raised:
        await publish_in_the_end(sink, records, progress(1))
    assert list(raised.value.refused) == [123]
    await sink.close()
    await sink.start()
    del records[123]
    await publish_in_the_end(sink, records, progress(1))
    assert len(await values(world, topic)) == 299


async def test_a_topic_that_stays_missing_refuses_its_records_and_no_others(world: World) -> None:
    topic = await world.topic()
    before = world.sink()
    await before.start()
    await before.publish([], progress(0))
    await before.close()
    sink = world.sink(hasty=True)
    await sink.start()
    records = [record(topic), record("there-is-no-such-topic"), record(topic)]
    with pytest.raises(RecordsRefusedError) as raised:
        await sink.publish(records, progress(1))
    assert list(raised.value.refused) == [1]
    await sink.close()
    await sink.start()
    await sink.publish([records[0], records[2]], progress(1))
    assert len(await values(world, topic)) == 2


@pytest.mark.parametrize(
    "name", ["not a topic name!", "", "..", "x" * 250, "x" * 40_000, "caf\u00e9", "lone \ud800", "nul\0"]
)
async def test_a_name_that_no_topic_can_have_refuses_its_records(world: World, name: str) -> None:
    topic = await world.topic()
    sink = world.sink()
    await sink.start()
    with pytest.raises(RecordsRefusedError) as raised:
        await sink.publish([record(topic), record(name), record(topic)], progress(1))
    assert list(raised.value.refused) == [1]
    assert len(str(raised.value)) < 1_000
    await sink.close()
    await sink.start()
    await sink.publish([record(topic), record(topic)], progress(1))
    assert len(await values(world, topic)) == 2
