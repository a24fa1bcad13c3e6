"""What every source must do, run on the fake one and on real Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from connectors.source import Chunk, NoSuchTopicError, OutOfRange, Partition, Reader, Record
from tests.contract.source_worlds import FakeWorld, KafkaWorld, World

DEADLINE_SECONDS = 60.0
QUIET_SECONDS = 0.5


@pytest.fixture(params=["fake", pytest.param("kafka", marks=pytest.mark.kafka)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "fake":
            yield FakeWorld(stack)
        else:
            yield KafkaWorld(stack, request.getfixturevalue("kafka").bootstrap)


class Seen:
    """What a reader has given, and how far it has come."""

    def __init__(self, positions: Mapping[Partition, int]) -> None:
        self.positions = dict(positions)
        self.records: dict[Partition, list[Record]] = defaultdict(list)

    def add(self, chunk: Chunk) -> None:
        """Take a chunk in; each partition goes on from where it was, and never back."""
        for partition, records in chunk.records.items():
            assert records, "a partition without records is not among them"
            offsets = [record.offset for record in records]
            assert offsets == sorted(set(offsets))
            assert self.positions[partition] <= offsets[0]
            assert offsets[-1] < chunk.positions[partition]
            assert {(record.topic, record.partition) for record in records} == {tuple(partition)}
            self.records[partition].extend(records)
        for partition, position in chunk.positions.items():
            assert position > self.positions[partition]
            self.positions[partition] = position

    def values(self, partition: Partition) -> list[bytes | None]:
        return [record.value for record in self.records[partition]]

    def offsets(self, partition: Partition) -> list[int]:
        return [record.offset for record in self.records[partition]]


async def read(
    reader: Reader,
    positions: Mapping[Partition, int],
    until: Callable[[Seen], bool],
    *,
    records_max: int = 1000,
) -> Seen:
    """Assign, and read until a condition holds."""
    reader.assign(positions)
    return await read_on(reader, Seen(positions), until, records_max=records_max)


async def read_on(
    reader: Reader, seen: Seen, until: Callable[[Seen], bool], *, records_max: int = 1000
) -> Seen:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not until(seen):
        assert time.monotonic() < deadline, f"{seen.positions} {reader.troubles()}"
        chunk = await reader.fetch(records_max=records_max, wait_seconds=0.2)
        assert sum(map(len, chunk.records.values())) <= records_max
        seen.add(chunk)
    return seen


def at(positions: Mapping[Partition, int]) -> Callable[[Seen], bool]:
    return lambda seen: seen.positions == positions


async def assert_nothing_comes(reader: Reader) -> None:
    assert await reader.fetch(records_max=10, wait_seconds=QUIET_SECONDS) == Chunk({}, {})


async def test_records_come_in_the_order_of_their_partition_and_as_they_are(world: World) -> None:
    topic = await world.topic(2)
    first, second = Partition(topic, 0), Partition(topic, 1)
    for number in range(20):
        await world.produce(Partition(topic, number % 2), b"%d" % number)
    await world.produce(first, None, key=b"k")
    await world.produce(first, b"", headers=[("name", b"value"), ("name", b""), ("none", None)])
    await world.produce(first, b"\xff\x00", key=b"\x00\xff", timestamp=1234567890123)

    seen = await read(await world.reader(), {first: 0, second: 0}, at({first: 13, second: 10}))

    assert seen.values(second) == [b"%d" % number for number in range(1, 20, 2)]
    assert seen.values(first)[:10] == [b"%d" % number for number in range(0, 20, 2)]
    tombstone, headed, odd = seen.records[first][10:]
    assert (tombstone.key, tombstone.value, list(tombstone.headers)) == (b"k", None, [])
    assert (headed.key, headed.value) == (None, b"")
    assert list(headed.headers) == [("name", b"value"), ("name", b""), ("none", None)]
    assert (odd.key, odd.value, odd.timestamp) == (b"\x00\xff", b"\xff\x00", 1234567890123)


async def test_a_fetch_gives_no_more_records_than_asked_for_and_loses_none(world: World) -> None:
    topic = await world.topic(3)
    partitions = [Partition(topic, number) for number in range(3)]
    for number in range(30):
        await world.produce(partitions[number % 3], b"%d" % number)

    ends = dict.fromkeys(partitions, 10)
    seen = await read(await world.reader(), dict.fromkeys(partitions, 0), at(ends), records_max=4)

    assert all(seen.offsets(partition) == list(range(10)) for partition in partitions)


async def test_a_fetch_that_is_cancelled_loses_nothing(world: World) -> None:
    partition = Partition(await world.topic(), 0)
    reader = await world.reader()
    seen = Seen({partition: 0})
    reader.assign({partition: 0})
    for number in range(5):
        # Once it waits, and as records come.
        fetching = asyncio.create_task(reader.fetch(records_max=10, wait_seconds=DEADLINE_SECONDS))
        await asyncio.sleep(0)
        await world.produce(partition, b"%d" % number)
        fetching.cancel()
        await asyncio.wait({fetching})
        if not fetching.cancelled():
            seen.add(fetching.result())
    await read_on(reader, seen, at({partition: 5}))
    assert seen.values(partition) == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_fetch_waits_no_longer_than_it_is_to(world: World) -> None:
    partition = Partition(await world.topic(), 0)
    reader = await world.reader()
    reader.assign({partition: 0})
    until: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(
        reader.fetch(records_max=10, wait_seconds=10 * DEADLINE_SECONDS, until=until)
    )
    await asyncio.wait({waiting}, timeout=QUIET_SECONDS)
    assert not waiting.done()
    until.set_result(None)
    assert await asyncio.wait_for(waiting, DEADLINE_SECONDS) == Chunk({}, {})
    # Where it is over already nothing is waited for, and what comes later is not lost.
    assert await asyncio.wait_for(
        reader.fetch(records_max=10, wait_seconds=10 * DEADLINE_SECONDS, until=until), DEADLINE_SECONDS
    ) == Chunk({}, {})
    await world.produce(partition, b"0")
    seen = await read_on(reader, Seen({partition: 0}), at({partition: 1}))
    assert seen.values(partition) == [b"0"]


async def test_reading_starts_at_the_position_and_not_at_its_batch(world: World) -> None:
    partition = Partition(await world.topic(), 0)
    async with world.transaction(commit=True) as send:
        await asyncio.gather(*(send(partition, b"%d" % number) for number in range(10)))

    seen = await read(await world.reader(), {partition: 7}, at({partition: 11}))

    assert seen.values(partition) == [b"7", b"8", b"9"]


async def test_the_position_goes_over_what_was_aborted_and_over_markers(world: World) -> None:
    partition = Partition(await world.topic(), 0)
    await world.produce(partition, b"before")
    async with world.transaction(commit=False) as send:
        await send(partition, b"aborted")
        await send(partition, b"aborted too")
    async with world.transaction(commit=True) as send:
        await send(partition, b"committed")
    await world.produce(partition, b"after")
    async with world.transaction(commit=False) as send:
        await send(partition, b"aborted at the end")

    reader = await world.reader()
    ends = await reader.ends([partition])
    seen = await read(reader, {partition: 0}, at(ends))

    assert ends == {partition: 9}
    assert seen.values(partition) == [b"before", b"committed", b"after"]
    assert seen.offsets(partition) == [0, 4, 6]


async def test_a_chunk_without_any_record_moves_the_position(world: World) -> None:
    partition = Partition(await world.topic(), 0)
    async with world.transaction(commit=False) as send:
        await send(partition, b"aborted")
    reader = await world.reader()
    reader.assign({partition: 0})

    chunk = await reader.fetch(records_max=10, wait_seconds=DEADLINE_SECONDS)

    assert chunk == Chunk({}, {partition: 2})


async def test_the_end_is_where_the_first_open_transaction_begins(world: World) -> None:
    partition = Partition(await world.topic(), 0)
    await world.produce(partition, b"before")
    reader = await world.reader()
    async with world.transaction(commit=True) as send:
        await send(partition, b"open")
        await world.produce(partition, b"behind it")
        assert await reader.ends([partition]) == {partition: 1}
        seen = await read(reader, {partition: 0}, at({partition: 1}))
        assert seen.values(partition) == [b"before"]
        await assert_nothing_comes(reader)

    await read_on(reader, seen, at({partition: 4}))

    assert seen.values(partition) == [b"before", b"open", b"behind it"]
    assert await reader.ends([partition]) == {partition: 4}


async def test_of_two_assignments_the_second_counts_and_nothing_of_the_first_comes(world: World) -> None:
    topic = await world.topic(2)
    kept, dropped = Partition(topic, 0), Partition(topic, 1)
    for number in range(10):
        await world.produce(kept, b"%d" % number)
        await world.produce(dropped, b"%d" % number)
    reader = await world.reader()

    reader.assign({kept: 0, dropped: 0})
    seen = await read(reader, {kept: 5}, at({kept: 10}))
    assert seen.offsets(kept) == [5, 6, 7, 8, 9]

    # This time with something fetched and not yet taken.
    await read(reader, {kept: 0, dropped: 0}, lambda seen: bool(seen.positions[kept]), records_max=1)
    seen = await read(reader, {kept: 3}, at({kept: 10}), records_max=2)
    assert seen.offsets(kept) == list(range(3, 10))
    assert list(seen.records) == [kept]

    reader.assign({})
    await assert_nothing_comes(reader)


async def test_an_assignment_while_a_fetch_waits_is_what_the_fetch_goes_by(world: World) -> None:
    topic = await world.topic(2)
    old, new = Partition(topic, 0), Partition(topic, 1)
    reader = await world.reader()
    await world.produce(old, b"first")
    await read(reader, {old: 0}, at({old: 1}))
    waiting = asyncio.create_task(reader.fetch(records_max=10, wait_seconds=DEADLINE_SECONDS))
    # By now the source was asked for what comes next, and answers when there is something.
    await assert_nothing_comes(reader)
    reader.assign({new: 0})
    await world.produce(old, b"old")
    await world.produce(new, b"new")

    seen = Seen({new: 0})
    seen.add(await waiting)
    await read_on(reader, seen, at({new: 1}))

    assert seen.values(new) == [b"new"]


async def test_a_paused_partition_stands_still_and_goes_on_where_it_was(world: World) -> None:
    topic = await world.topic(2)
    held, free = Partition(topic, 0), Partition(topic, 1)
    for number in range(5):
        await world.produce(held, b"%d" % number)
    reader = await world.reader()
    seen = await read(reader, {held: 0, free: 0}, lambda seen: seen.positions[held] > 1, records_max=2)

    reader.pause([held])
    reader.pause([held])
    await world.produce(free, b"free")
    before = seen.positions[held]
    await read_on(reader, seen, lambda seen: seen.positions[free] == 1)
    await assert_nothing_comes(reader)
    assert seen.positions[held] == before

    reader.resume([held])
    await read_on(reader, seen, at({held: 5, free: 1}))
    assert seen.offsets(held) == [0, 1, 2, 3, 4]


async def test_a_new_assignment_pauses_nothing(world: World) -> None:
    partition = Partition(await world.topic(), 0)
    await world.produce(partition, b"one")
    reader = await world.reader()
    reader.assign({partition: 0})
    reader.pause([partition])

    seen = await read(reader, {partition: 0}, at({partition: 1}))

    assert seen.values(partition) == [b"one"]


async def test_a_position_that_does_not_exist_stops_its_partition_alone(world: World) -> None:
    topic = await world.topic(3)
    early, late, good = (Partition(topic, number) for number in range(3))
    for partition in (early, late, good):
        for number in range(5):
            await world.produce(partition, b"%d" % number)
    await world.delete_before(early, 3)
    reader = await world.reader()
    seen = await read(reader, {early: 1, late: 99, good: 0}, at({early: 1, late: 99, good: 5}), records_max=2)
    found = await until_found(reader, 2)

    assert sorted(found) == [OutOfRange(early, 1, 3, 5), OutOfRange(late, 99, 0, 5)]
    assert reader.out_of_range() == []
    await world.produce(late, b"more")
    await world.produce(good, b"more")
    await read_on(reader, seen, at({early: 1, late: 99, good: 6}))
    await assert_nothing_comes(reader)

    seen = await read(reader, {early: 3, late: 5, good: 6}, at({early: 5, late: 6, good: 6}))
    assert seen.offsets(early) == [3, 4]
    assert reader.out_of_range() == []


async def until_found(reader: Reader, count: int) -> list[OutOfRange]:
    found: list[OutOfRange] = []
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(found) < count:
        assert time.monotonic() < deadline
        assert await reader.fetch(records_max=10, wait_seconds=0.05) == Chunk({}, {})
        found += reader.out_of_range()
    return found


async def test_the_earliest_offset_the_end_and_offsets_by_time_are_told(world: World) -> None:
    topic = await world.topic(2)
    some, none = Partition(topic, 0), Partition(topic, 1)
    for time_ms in (1000, 2000, 3000, 4000):
        await world.produce(some, b"x", timestamp=time_ms)
    await world.delete_before(some, 1)
    reader = await world.reader()

    assert await reader.earliest([some, none]) == {some: 1, none: 0}
    assert await reader.ends([some, none]) == {some: 4, none: 0}
    assert await reader.at_time([some, none], 2500) == {some: 2, none: 0}
    assert await reader.at_time([some, none], 3000) == {some: 2, none: 0}
    assert await reader.at_time([some], 0) == {some: 1}
    assert await reader.at_time([some], 4001) == {some: 4}
    assert await reader.ends([]) == {}


async def test_an_empty_topic_gives_nothing_and_then_what_comes(world: World) -> None:
    partition = Partition(await world.topic(), 0)
    reader = await world.reader()
    reader.assign({partition: 0})
    await assert_nothing_comes(reader)
    assert reader.out_of_range() == []
    assert reader.unreadable() == []
    assert reader.troubles() == {}

    await world.produce(partition, b"now")

    seen = await read_on(reader, Seen({partition: 0}), at({partition: 1}))
    assert seen.values(partition) == [b"now"]


async def test_a_topic_that_does_not_exist_has_no_partitions_and_no_offsets(world: World) -> None:
    topic = await world.topic(2)
    reader = await world.reader()

    assert await reader.partitions_of(topic) == {Partition(topic, 0), Partition(topic, 1)}
    assert await reader.partitions_of("no-such-topic") == set()
    with pytest.raises(NoSuchTopicError, match="does not exist"):
        await reader.ends([Partition("no-such-topic", 0)])
    with pytest.raises(NoSuchTopicError, match="no-such-topic"):
        await world.membership("group").start(["no-such-topic"], _nothing, _nothing)


async def test_a_source_has_one_name_for_all_its_readers(world: World) -> None:
    first, second = await world.reader(), await world.reader()

    assert await first.cluster_id()
    assert await first.cluster_id() == await second.cluster_id()


async def _nothing(partitions: frozenset[Partition]) -> None:
    pass


async def test_a_topic_that_was_made_anew_is_not_read_from_where_the_one_before_was(world: World) -> None:
    at = Partition(await world.topic(), 0)
    for value in (b"1", b"2"):
        await world.produce(at, value)
    reader = await world.reader()
    await read(reader, {at: 0}, lambda seen: seen.positions[at] == 2)
    topics = reader.topic_ids()
    assert list(topics) == [at]
    assert topics[at]

    reader.assign({at: 1}, topics)
    await read_on(reader, Seen({at: 1}), lambda seen: seen.positions[at] == 2)
    await world.delete(at.topic)
    await world.make_again(at.topic)
    for value in (b"3", b"4", b"5"):
        await world.produce(at, value)

    reader.assign({at: 2}, topics)
    assert list(await until_made_anew(reader)) == [at]
    assert (reader.made_anew(), reader.topic_ids()) == ({}, {})
    reader.assign({at: 0}, topics)
    seen = await read_on(reader, Seen({at: 0}), lambda seen: seen.positions[at] == 3)
    assert seen.values(at) == [b"3", b"4", b"5"]
    assert reader.topic_ids()[at] != topics[at]


async def test_a_topic_that_is_made_anew_while_it_is_read_is_not_read_on(world: World) -> None:
    at = Partition(await world.topic(), 0)
    reader = await world.reader()
    await world.produce(at, b"1")
    await read(reader, {at: 0}, lambda seen: seen.positions[at] == 1)
    await world.delete(at.topic)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while at not in reader.troubles():
        assert time.monotonic() < deadline
        await reader.fetch(records_max=1000, wait_seconds=0.1)
    await world.make_again(at.topic)
    for value in (b"2", b"3"):
        await world.produce(at, value)
    assert list(await until_made_anew(reader)) == [at]
    assert reader.troubles() == {}, "what keeps it is not that there was none for a moment"


async def test_a_topic_that_is_made_anew_while_it_is_paused_is_not_read_on(world: World) -> None:
    at = Partition(await world.topic(), 0)
    for value in (b"1", b"2"):
        await world.produce(at, value)
    reader = await world.reader()
    await read(reader, {at: 0}, lambda seen: seen.positions[at] == 2)
    reader.pause([at])
    # A request may be on its way still.
    deadline = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < deadline:
        await reader.fetch(records_max=10, wait_seconds=0.1)
    await world.delete(at.topic)
    await world.make_again(at.topic)
    for value in (b"3", b"4", b"5"):
        await world.produce(at, value)
    reader.resume([at])
    assert list(await until_made_anew(reader)) == [at]


async def test_a_topic_that_is_made_anew_before_anything_was_taken_is_read_as_a_whole_or_not_at_all(
    world: World,
) -> None:
    at = Partition(await world.topic(), 0)
    for value in (b"1", b"2"):
        await world.produce(at, value)
    reader = await world.reader()
    reader.assign({at: 0})
    # What has come meanwhile is at hand, and not taken.
    await asyncio.sleep(QUIET_SECONDS)
    await world.delete(at.topic)
    await asyncio.sleep(QUIET_SECONDS)
    await world.make_again(at.topic)
    for value in (b"3", b"4", b"5", b"6"):
        await world.produce(at, value)
    values: list[bytes | None] = []
    stopped: dict[Partition, str] = {}
    deadline = time.monotonic() + DEADLINE_SECONDS
    while values[-1:] != [b"6"] and not stopped:
        assert time.monotonic() < deadline, (values, reader.troubles())
        chunk = await reader.fetch(records_max=1000, wait_seconds=0.1)
        values += [record.value for records in chunk.records.values() for record in records]
        stopped = reader.made_anew()
    # What was at hand may be given as long as it is not known; then it is of this topic that something was read.
    assert (values, list(stopped)) in (([b"3", b"4", b"5", b"6"], []), ([b"1", b"2"], [at]))


async def until_made_anew(reader: Reader) -> dict[Partition, str]:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := reader.made_anew()):
        assert time.monotonic() < deadline, reader.troubles()
        assert await reader.fetch(records_max=1000, wait_seconds=0.1) == Chunk({}, {})
    return found
