"""Topics on the Kafka that is measured on: made, filled, asked for what can be read, and read."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from confluent_kafka import Consumer, IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it names no exports
    AdminClient,
    NewTopic,
    OffsetSpec,
)

from benchmarks.events import HEADERS, Keyed, moment, order_template
from benchmarks.sizes import PARTITIONS

ANSWER_SECONDS = 30.0
FLUSH_SECONDS = 120.0
QUEUE_FULL_SECONDS = 0.05
MAKING_SECONDS_EACH = 20e-6
"""Enough to make the events that are to be sent."""
TICK_SECONDS = 0.002
"""The sender sleeps so long, at least: then it sends all that is due."""
READ_AT_ONCE = 1_000
SILENT = logging.Logger(__name__, level=logging.CRITICAL + 1)  # noqa: LOG001 - of nobody else
"""librdkafka would tell of every retry; what matters raises."""
LIVE_LINGER_MILLISECONDS = 5
"""As Kafka 4's own producers do by default."""


class NotConfirmedError(RuntimeError):
    """Kafka did not confirm all that was sent."""


class Topics:
    """Makes topics of 8 partitions and fills them; all calls block."""

    def __init__(self, bootstrap: str, source: str) -> None:
        self.bootstrap = bootstrap
        self.source = source
        self._admin = AdminClient({"bootstrap.servers": bootstrap}, logger=SILENT)
        self._made: list[str] = []

    def make(self, name: str) -> str:
        """A new topic whose name begins so."""
        full = f"{name}-{uuid.uuid4().hex[:8]}"
        for done in self._admin.create_topics([NewTopic(full, PARTITIONS, 1)]).values():
            done.result(ANSWER_SECONDS)
        self._made.append(full)
        return full

    def delete_all(self) -> None:
        """Delete all topics that were made."""
        if self._made:
            for done in self._admin.delete_topics(self._made).values():
                done.result(ANSWER_SECONDS)
            self._made.clear()

    def fill(self, topic: str, events: Iterable[Keyed]) -> int:
        """Let events wait in a topic; returns how many, all confirmed."""
        producer = _Confirming(self.bootstrap, linger_milliseconds=5)
        for key, value in events:
            producer.send(topic, key, value)
        return producer.finish()

    def feed(
        self, topic: str, steps: Sequence[tuple[int, int]], events_per_second: float
    ) -> tuple[int, list[float]]:
        """Send steps of orders at a steady rate, whatever becomes of those before: an open loop.

        When each was to be sent is its time. Returns how many were confirmed, and by how many seconds each was
        sent late.
        """
        producer = _Confirming(self.bootstrap, linger_milliseconds=LIVE_LINGER_MILLISECONDS)
        # Made before the clock starts: what the sender costs is taken from those who are measured.
        templates = [order_template(order, phase) for order, phase in steps]
        start = time.time() + len(steps) * MAKING_SECONDS_EACH
        dues = [start + number / events_per_second for number in range(len(steps))]
        events = [
            (key, before + moment(due).encode() + after)
            for due, (key, before, after) in zip(dues, templates, strict=True)
        ]
        late = []
        for due, (key, value) in zip(dues, events, strict=True):
            while (wait := due - time.time()) > 0:
                producer.serve()
                time.sleep(max(wait, TICK_SECONDS))
            late.append(-wait)
            producer.send(topic, key, value)
        return producer.finish(), late

    def readable_end(self, topic: str) -> int:
        """How far readers of committed records could read, all partitions together."""
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # of confluent_kafka
        asked = {TopicPartition(topic, number): latest for number in range(PARTITIONS)}
        answers = self._admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED)
        return sum(answer.result(ANSWER_SECONDS).offset for answer in answers.values())

    def committed_ids(self, topic: str) -> list[str]:
        """The ids of all events that a reader of committed records finds."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "benchmark-reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            },
            logger=SILENT,
        )
        found: list[str] = []
        ended: set[int | None] = set()
        try:
            consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
            deadline = time.monotonic() + FLUSH_SECONDS
            while len(ended) < PARTITIONS and time.monotonic() < deadline:
                for message in consumer.consume(READ_AT_ONCE, timeout=1.0):
                    if message.error() is None:
                        found.append(orjson.loads(message.value() or b"{}")["id"])
                    else:
                        ended.add(message.partition())
        finally:
            consumer.close()
        return found


class _Confirming:
    """A producer that counts what was confirmed."""

    def __init__(self, bootstrap: str, *, linger_milliseconds: int) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": linger_milliseconds,
                "batch.size": 262_144,
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": 200_000,
                # Being told of each costs as much as sending it.
                "delivery.report.only.error": True,
            },
            logger=SILENT,
        )
        self._sent = 0
        self._refused = 0
        self._error: Any = None

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, headers=HEADERS, on_delivery=self._on_delivery)
            except BufferError:
                self._producer.poll(QUEUE_FULL_SECONDS)
            else:
                break
        self._sent += 1

    def serve(self) -> None:
        """Take notice of confirmations."""
        self._producer.poll(0)

    def finish(self) -> int:
        """Wait for all confirmations. Raises NotConfirmedError."""
        left = self._producer.flush(FLUSH_SECONDS)
        if left or self._refused:
            raise NotConfirmedError(
                f"of {self._sent} events Kafka confirmed {self._sent - left - self._refused} ({self._error}); "
                "look into its log"
            )
        return self._sent

    def _on_delivery(self, error: Any, _: Any) -> None:
        if error is not None:
            self._refused += 1
            self._error = error
