"""Reads what is committed in topics, with librdkafka, which shares no code with the engine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from tests.chaos.oracle import Found

READ_SECONDS = 60.0


def partitions_of(consumer: Any, topics: Iterable[str]) -> list[TopicPartition]:
    found = []
    for topic in topics:
        described = consumer.list_topics(topic, timeout=15.0).topics[topic]
        assert described.error is None, f"{topic}: {described.error}"
        found += [TopicPartition(topic, number, OFFSET_BEGINNING) for number in described.partitions]
    return found


def new_consumer(bootstrap: str) -> Any:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "chaos-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )


def read_committed(bootstrap: str, topics: Iterable[str]) -> list[Found]:
    """All committed records, by partition in order, to the end of each."""
    consumer = new_consumer(bootstrap)
    try:
        open_ = partitions_of(consumer, topics)
        consumer.assign(open_)
        unread = {(one.topic, one.partition) for one in open_}
        found: list[Found] = []
        deadline = time.monotonic() + READ_SECONDS
        while unread:
            assert time.monotonic() < deadline, f"not read to the end: {sorted(unread)}"
            for message in consumer.consume(500, 1.0):
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, str(error)
                    unread.discard((message.topic(), message.partition()))
                    continue
                headers = tuple((name, bytes(value or b"")) for name, value in message.headers() or ())
                place = (message.topic(), message.partition(), message.offset())
                found.append(Found(*place, message.key(), message.value(), headers))
    finally:
        consumer.close()
    found.sort(key=lambda one: one.place)
    return found


def ends(bootstrap: str, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """The offset after the last one, aborted ones and markers counted; of open transactions, their first."""
    consumer = new_consumer(bootstrap)
    try:
        return {
            (one.topic, one.partition): consumer.get_watermark_offsets(one, timeout=15.0)[1]
            for one in partitions_of(consumer, topics)
        }
    finally:
        consumer.close()
