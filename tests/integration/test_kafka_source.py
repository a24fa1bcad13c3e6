"""The reader on real Kafka, where a fake only says what we think: odd bytes, lost brokers, deleted topics."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from connectors.kafka import fetching
from connectors.kafka.queries import connect
from connectors.kafka.reader import KafkaReader
from connectors.kafka.settings import KafkaSettings
from connectors.source import Chunk, Partition, SourceUnreachableError
from engine.services import ports
from engine.services.apache_kafka import ApacheKafka
from engine.services.mock_broker import MockBroker
from tests import services
from tests.contract.test_source import DEADLINE_SECONDS, Seen, at, read, read_on
from tests.services import Kafka, TopicFactory

CRC_AT, AFTER_CRC = 17, 21


@contextlib.asynccontextmanager
async def reading(settings: KafkaSettings, **options: Any) -> AsyncIterator[KafkaReader]:
    reader = KafkaReader(settings, **options)
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


@contextlib.asynccontextmanager
async def producing(bootstrap: str, **options: Any) -> AsyncIterator[Any]:
    make: Any = AIOKafkaProducer  # aiokafka is not typed
    producer = make(bootstrap_servers=bootstrap, **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def batch(*values: bytes, headers: list[tuple[str, bytes | None]] | None = None, codec: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 2**24)
    for index, value in enumerate(values):
        builder.append(index, 1_700_000_000_000 + index, None, value, headers or [])
    return bytes(builder.build())


def with_right_checksum(raw: bytes) -> bytes:
    changed = bytearray(raw)
    struct.pack_into(">I", changed, CRC_AT, calc_crc32c(raw[AFTER_CRC:]))
    return bytes(changed)


async def produce_raw(bootstrap: str, partition: Partition, raw: bytes) -> None:
    """Send a batch as these bytes have it."""
    client = await connect(KafkaSettings(bootstrap))
    try:
        await client.set_topics([partition.topic])
        (node,) = {broker.nodeId for broker in client.cluster.brokers()}
        answer = await client.send(
            node, ProduceRequest(None, -1, 10_000, [(partition.topic, [(partition.number, raw)])])
        )
        ((_, ((_, code, *_),)),) = answer.topics
        assert code == 0
    finally:
        await client.close()


async def test_a_header_whose_name_is_not_utf8_comes_out_with_all_its_bytes(
    kafka: Kafka, topic: TopicFactory
) -> None:
    partition = Partition(await topic("headers"), 0)
    raw = batch(b"one", b"two", headers=[("name", b"\xff"), ("other", None)])
    odd = with_right_checksum(raw.replace(b"name", b"n\xff\xfee"))
    await produce_raw(kafka.bootstrap, partition, batch(b"before"))
    await produce_raw(kafka.bootstrap, partition, odd)
    await produce_raw(kafka.bootstrap, partition, batch(b"after"))

    async with reading(KafkaSettings(kafka.bootstrap)) as reader:
        seen = await read(reader, {partition: 0}, at({partition: 4}))

    assert seen.values(partition) == [b"before", b"one", b"two", b"after"]
    assert list(seen.records[partition][1].headers) == [("n\udcff\udcfee", b"\xff"), ("other", None)]
    assert seen.records[partition][1].headers[0][0].encode("utf-8", "surrogateescape") == b"n\xff\xfee"
    assert seen.records[partition][1].timestamp == 1_700_000_000_000


@pytest.mark.parametrize("codec", [1, 2, 3, 4], ids=["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_records_come_out_also_with_odd_headers(
    kafka: Kafka, topic: TopicFactory, codec: int
) -> None:
    partition = Partition(await topic("compressed"), 0)
    values = [b"%d " % number * 20 for number in range(500)]
    await produce_raw(kafka.bootstrap, partition, batch(*values, codec=codec))

    async with reading(KafkaSettings(kafka.bootstrap)) as reader:
        seen = await read(reader, {partition: 100}, at({partition: 500}), records_max=150)

    assert seen.values(partition) == values[100:]
    assert seen.offsets(partition) == list(range(100, 500))


async def test_a_wrong_checksum_stops_its_partition_after_the_good_records_and_no_other(
    restartable_kafka: ApacheKafka,
) -> None:
    bootstrap = restartable_kafka.bootstrap
    name = await services.Topics(bootstrap)("corrupt", partitions=2)
    broken, good = Partition(name, 0), Partition(name, 1)
    async with producing(bootstrap) as producer:
        for value in (b"good one", b"bad one", b"behind it"):
            await producer.send_and_wait(name, value, partition=0)
        await producer.send_and_wait(name, b"fine", partition=1)
        segment = restartable_kafka.folder / "data" / f"{name}-0" / f"{0:020}.log"
        content = segment.read_bytes()
        assert content.count(b"bad one") == 1
        with segment.open("r+b") as file:
            file.seek(content.index(b"bad one"))
            file.write(b"BAD")

        async with reading(KafkaSettings(bootstrap)) as reader:
            seen = await read(reader, {broken: 0, good: 0}, at({broken: 1, good: 1}))
            found = reader.unreadable()
            while not found:
                assert await reader.fetch(records_max=10, wait_seconds=0.1) == Chunk({}, {})
                found = reader.unreadable()
            await producer.send_and_wait(name, b"more", partition=1)
            await read_on(reader, seen, at({broken: 1, good: 2}))
            assert reader.unreadable() == []

            seen_behind = await read(reader, {broken: 2}, at({broken: 3}))

    assert seen.values(broken) == [b"good one"]
    assert [(one.partition, one.position) for one in found] == [(broken, 1)]
    assert found[0].reason.startswith(f"{name}/0 stopped at offset 1: the checksum")
    assert seen_behind.values(broken) == [b"behind it"]

    unchecked = KafkaSettings(bootstrap, check_crcs=False)
    async with reading(unchecked) as reader:
        seen = await read(reader, {broken: 0}, at({broken: 3}))
    assert seen.values(broken) == [b"good one", b"BAD one", b"behind it"]


async def test_a_record_larger_than_a_partition_may_buffer_comes_out(
    kafka: Kafka, topic: TopicFactory
) -> None:
    name = await topic("large", partitions=4, configs={"max.message.bytes": "8000000"})
    partitions = [Partition(name, number) for number in range(4)]
    large = random.Random(1).randbytes(5_000_000)
    async with producing(kafka.bootstrap, max_request_size=8_000_000) as producer:
        for partition in partitions:
            for value in (b"small", large, b"small"):
                await producer.send_and_wait(name, value, partition=partition.number)

    async with reading(KafkaSettings(kafka.bootstrap), buffer_bytes=256 * 1024) as reader:
        seen = await read(reader, dict.fromkeys(partitions, 0), at(dict.fromkeys(partitions, 3)))

    assert all(seen.values(partition) == [b"small", large, b"small"] for partition in partitions)


async def test_a_deleted_topic_is_a_trouble_that_ends_when_there_is_one_again(
    kafka: Kafka, topic: TopicFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, good = Partition(await topic("deleted"), 0), Partition(await topic("kept"), 0)
    requests = 0
    original = fetching.Fetching._fetch_request

    def counted(self: fetching.Fetching, *arguments: Any) -> Any:
        nonlocal requests
        requests += 1
        return original(self, *arguments)

    monkeypatch.setattr(fetching.Fetching, "_fetch_request", counted)
    admin: Any = AIOKafkaAdminClient  # aiokafka is not typed
    new_topic: Any = NewTopic
    client = admin(bootstrap_servers=kafka.bootstrap)
    await client.start()
    async with (
        contextlib.AsyncExitStack() as stack,
        producing(kafka.bootstrap) as producer,
        reading(KafkaSettings(kafka.bootstrap)) as reader,
    ):
        stack.push_async_callback(client.close)
        seen = Seen({gone: 0, good: 0})
        reader.assign(seen.positions)
        await client.delete_topics([gone.topic])
        deadline = time.monotonic() + DEADLINE_SECONDS
        while gone not in reader.troubles():
            assert time.monotonic() < deadline
            seen.add(await reader.fetch(records_max=10, wait_seconds=0.1))
        assert "does not exist" in reader.troubles()[gone].reason
        assert good not in reader.troubles()

        requests, began = 0, time.monotonic()
        await producer.send_and_wait(good.topic, b"still", partition=0)
        await read_on(reader, seen, at({gone: 0, good: 1}))
        while (seconds := time.monotonic() - began) < 1:
            seen.add(await reader.fetch(records_max=10, wait_seconds=0.1))
        assert requests < 50 * seconds, "the broker is not asked as fast as it answers"

        await client.create_topics([new_topic(gone.topic, 1, 1)])
        await producer.send_and_wait(gone.topic, b"again", partition=0)
        await read_on(reader, seen, at({gone: 1, good: 1}))
        assert reader.troubles() == {}


async def test_while_a_few_records_come_at_a_time_more_are_asked_for_at_once_and_then_any(
    kafka: Kafka, topic: TopicFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = Partition(await topic("flowing"), 0)
    asked: list[int] = []
    original = fetching.Fetching._fetch_request

    def noted(self: fetching.Fetching, *arguments: Any) -> Any:
        request = original(self, *arguments)
        asked.append(request._min_bytes)
        return request

    monkeypatch.setattr(fetching.Fetching, "_fetch_request", noted)
    few = random.Random(1).randbytes(fetching.FLOW_BYTES_MIN)
    async with producing(kafka.bootstrap) as producer, reading(KafkaSettings(kafka.bootstrap)) as reader:
        seen = Seen({partition: 0})
        reader.assign(seen.positions)
        await producer.send_and_wait(partition.topic, few, partition=0)
        await read_on(reader, seen, at({partition: 1}))
        deadline = time.monotonic() + DEADLINE_SECONDS
        while fetching.FLOW_BYTES not in asked or asked[-1] != 1:
            assert time.monotonic() < deadline, asked
            seen.add(await reader.fetch(records_max=10, wait_seconds=0.1))
        # Nothing more came in time, and now a record of one byte is told of at once again.
        await producer.send_and_wait(partition.topic, b"1", partition=0)
        await read_on(reader, seen, at({partition: 2}))
    assert asked[0] == 1
    flowed = asked.index(fetching.FLOW_BYTES)
    assert set(asked[flowed + 1 :]) == {1}
    assert seen.values(partition) == [few, b"1"]


async def test_a_killed_broker_is_a_trouble_and_reading_goes_on_when_it_is_back(
    restartable_kafka: ApacheKafka,
) -> None:
    bootstrap = restartable_kafka.bootstrap
    name = await services.Topics(bootstrap)("killed", partitions=2)
    partitions = [Partition(name, 0), Partition(name, 1)]
    async with reading(KafkaSettings(bootstrap)) as reader:
        async with producing(bootstrap) as producer:
            for number in range(100):
                await producer.send_and_wait(name, b"%d" % number, partition=number % 2)
        seen = await read(
            reader,
            dict.fromkeys(partitions, 0),
            lambda seen: seen.positions[partitions[0]] > 5,
            records_max=3,
        )
        restartable_kafka.kill()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(reader.troubles()) < 2:
            assert time.monotonic() < deadline
            seen.add(await reader.fetch(records_max=3, wait_seconds=0.1))
        troubles = reader.troubles()
        with pytest.raises(SourceUnreachableError, match="does not answer"):
            async with reading(KafkaSettings(bootstrap)):
                pass
        await asyncio.to_thread(restartable_kafka.start_again)
        async with producing(bootstrap) as producer:
            await producer.send_and_wait(name, b"new", partition=0)
        await read_on(reader, seen, at({partitions[0]: 51, partitions[1]: 50}))
        assert reader.troubles() == {}

    assert seen.offsets(partitions[0]) == list(range(51))
    assert seen.offsets(partitions[1]) == list(range(50))
    assert troubles.keys() == set(partitions)
    assert all(one.since <= time.monotonic() for one in troubles.values())


async def test_an_address_where_nobody_listens_is_named() -> None:
    port = ports.choose(0, "nobody", "")
    with pytest.raises(SourceUnreachableError, match=f"127.0.0.1:{port}"):
        await KafkaReader(KafkaSettings(f"127.0.0.1:{port}")).start()


async def test_nothing_is_lost_or_doubled_over_assignments_at_random_moments(
    kafka: Kafka, topic: TopicFactory
) -> None:
    chance = random.Random(20)
    name = await topic("random", partitions=3)
    partitions = [Partition(name, number) for number in range(3)]
    committed: dict[Partition, list[bytes]] = {partition: [] for partition in partitions}
    done = asyncio.Event()

    async def produce() -> None:
        async with producing(kafka.bootstrap, transactional_id=name) as producer:
            for turn in range(60):
                await producer.begin_transaction()
                sent = [(chance.choice(partitions), b"%d-%d" % (turn, index)) for index in range(20)]
                await asyncio.gather(
                    *(producer.send_and_wait(name, value, partition=at.number) for at, value in sent)
                )
                if chance.random() < 0.4:
                    await producer.abort_transaction()
                    continue
                await producer.commit_transaction()
                for at, value in sent:
                    committed[at].append(value)
        done.set()

    async with reading(KafkaSettings(kafka.bootstrap)) as reader, asyncio.TaskGroup() as group:
        group.create_task(produce())
        seen = Seen(dict.fromkeys(partitions, 0))
        reader.assign(seen.positions)
        deadline = time.monotonic() + 2 * DEADLINE_SECONDS

        def everything_is_seen() -> bool:
            # Not by the ends: a transaction is committed before its last markers are written.
            return done.is_set() and all(len(seen.records[at]) >= len(committed[at]) for at in partitions)

        while not everything_is_seen():
            assert time.monotonic() < deadline, (done.is_set(), seen.positions, reader.troubles())
            if chance.random() < 0.1:
                reader.assign(seen.positions)
            seen.add(await reader.fetch(records_max=chance.randrange(1, 20), wait_seconds=0.01))

    for partition in partitions:
        # Several were sent at once: their order within a transaction is the broker's.
        assert sorted(seen.values(partition), key=str) == sorted(committed[partition], key=str)


async def test_the_small_broker_can_be_read() -> None:
    with MockBroker.start() as broker:
        settings = KafkaSettings(broker.bootstrap, check_crcs=False)
        async with reading(settings) as reader, producing(broker.bootstrap) as producer:
            partition = Partition("small", 1)
            for number in range(50):
                await producer.send_and_wait("small", b"%d" % number, partition=1, headers=[("h", b"v")])
            assert await reader.partitions_of("small") == {Partition("small", number) for number in range(4)}
            assert await reader.partitions_of("never-named") == set()
            assert await reader.cluster_id()
            ends = await reader.ends([partition, Partition("small", 0)])
            assert ends == {partition: 50, Partition("small", 0): 0}
            assert await reader.earliest([partition]) == {partition: 0}
            seen = await read(
                reader, {partition: 7, Partition("small", 0): 0}, lambda seen: seen.positions == ends
            )
            reader.assign({partition: 99})
            while not (found := reader.out_of_range()):
                await reader.fetch(records_max=10, wait_seconds=0.1)
    assert seen.offsets(partition) == list(range(7, 50))
    assert [(one.position, one.earliest, one.end) for one in found] == [(99, 0, 50)]
