"""Notifications of S3 through real Kafka and a running engine, also twice, and its test message."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer

from connectors.kafka.settings import KafkaSettings
from engine.assembly import EngineSettings
from engine.reading import explain, list_dead_letters, list_runs, replay, verify
from engine.running import Ending, run
from engine.store.connecting import connect
from statemachines.machine import Machine, compile_pipeline
from tests.kafka_reading import read_all
from tests.services import Database, Kafka, TopicFactory
from tests.storage import TEST_EVENT, TOPIC, objects, put, removed, sent


async def produce(kafka: Kafka, topic: str, *values: bytes | None) -> None:
    make: Any = AIOKafkaProducer  # aiokafka is not typed
    producer = make(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def lived(database: Database, kafka: Kafka, machine: Machine) -> None:
    """An engine takes up all there is."""
    settings = EngineSettings(
        database.engine_dsn, KafkaSettings(kafka.bootstrap), namespace=machine.namespace
    )
    ended = await run(settings, [machine], until_idle=True)
    assert ended.ending is Ending.IDLE, ended.reasons


async def test_each_object_of_a_notification_is_followed_by_itself(
    database: Database, kafka: Kafka, topic: TopicFactory
) -> None:
    name = await topic("s3", partitions=1)
    machine = compile_pipeline(objects(replace(TOPIC, name=name)), namespace=database.name)
    test = orjson.dumps(TEST_EVENT)
    first = sent(put("photos/a b.jpg", "01"), put("c.jpg", "02")).value
    second = sent(put("c.jpg", "03", size=7), "junk", removed("photos/a b.jpg", "04")).value
    await produce(kafka, name, test, first, first)
    await lived(database, kafka, machine)
    await produce(kafka, name, second, sent().value)
    await lived(database, kafka, machine)

    reader = await connect(database.reader_dsn, for_engine=False)
    try:
        runs = await list_runs(reader, database.name)
        assert {run.key: (*run.configuration, run.context["sizes"]) for run in runs} == {
            "photos/a b.jpg": ("gone", [1024]),
            "c.jpg": ("there", [1024, 7]),
        }
        became = []
        for offset in range(5):
            found = await explain(reader, database.name, topic=name, partition=0, offset=offset)
            became.append(sorted(one.current.disposition for one in found.answers))
        assert became == [
            ["ignored"],
            ["started", "started"],
            ["duplicate", "duplicate"],
            ["applied", "applied", "dead-lettered"],
            ["ignored"],
        ]
        [letter] = await list_dead_letters(reader, database.name)
        assert (letter.reason, letter.publishing) == ("unreadable", "published")
        assert (await verify(reader, database.name)).is_clean
        assert (await replay(reader, database.name, [machine])).is_equal
    finally:
        await reader.close()
    [dead] = await read_all(kafka.bootstrap, f"{name}.dead-letters")
    assert dead.value == b'{"Records":["junk"]}'
    assert ("pointsman-index", b"1") in dead.headers
