"""Reads what is committed in topics, with librdkafka, which shares no code with the engine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from tests.chaos.oracle import Found

READ_SECONDS = 120.0
ASK_SECONDS = 60.0
POLL_SECONDS = 0.02
HEARD_SECONDS = 10.0


def partitions_of(consumer: Any, topics: Iterable[str]) -> list[TopicPartition]:
    found = []
    for topic in topics:
        described = _described(consumer, topic)
        assert described.error is None, f"{topic}: {described.error}"
        found += [TopicPartition(topic, number, OFFSET_BEGINNING) for number in described.partitions]
    return found


def _described(consumer: Any, topic: str) -> Any:
    """What a broker says of a topic; of one just made another broker may hear a moment later."""
    deadline = time.monotonic() + HEARD_SECONDS
    while True:
        described = consumer.list_topics(topic, timeout=ASK_SECONDS).topics[topic]
        if described.error is None or time.monotonic() > deadline:
            return described
        time.sleep(POLL_SECONDS)


def new_consumer(bootstrap: str, isolation: str = "read_committed") -> Any:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "chaos-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation,
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
    """The offset after the last one, aborted ones and markers counted, once no transaction is open any more.

    Kafka answers a commit before its markers are written; until then the end for readers of committed records, which
    is where the transaction begins, is not the end that the partition comes to.
    """
    committed, everything = new_consumer(bootstrap), new_consumer(bootstrap, "read_uncommitted")
    try:
        partitions = partitions_of(committed, topics)
        deadline = time.monotonic() + READ_SECONDS
        while (found := _ends(committed, partitions)) != _ends(everything, partitions):
            assert time.monotonic() < deadline, f"a transaction stays open behind {found}"
            time.sleep(POLL_SECONDS)
        return found
    finally:
        committed.close()
        everything.close()


def _ends(consumer: Any, partitions: Iterable[TopicPartition]) -> dict[tuple[str, int], int]:
    return {
        (one.topic, one.partition): consumer.get_watermark_offsets(one, timeout=ASK_SECONDS)[1]
        for one in partitions
    }
