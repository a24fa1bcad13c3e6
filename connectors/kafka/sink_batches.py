"""Records into Kafka's record batches: which partition, and how many in one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from connectors.kafka.murmur2 import murmur2_all
from connectors.sink import Outgoing, RecordsRefusedError
from connectors.source import Partition

_MAGIC = 2
_UNCOMPRESSED = 0
_NOT_YET = -1


class Batch:
    """A record batch of one partition, to be sealed with its producer's state and sent as it is."""

    __slots__ = ("_builder", "indexes", "partition")

    def __init__(self, partition: Partition, bytes_max: int) -> None:
        self.partition = partition
        self.indexes: list[int] = []
        """The places of its records in the call that publishes them."""
        self._builder: Any = DefaultRecordBatchBuilder(
            magic=_MAGIC,
            compression_type=_UNCOMPRESSED,
            is_transactional=True,
            producer_id=_NOT_YET,
            producer_epoch=_NOT_YET,
            base_sequence=_NOT_YET,
            batch_size=bytes_max,
        )

    @property
    def size(self) -> int:
        """Bytes so far."""
        return int(self._builder.size())

    def fill(self, records: Sequence[Outgoing], indexes: Sequence[int]) -> int:
        """Append these records until it is full; at least one. Returns how many.

        Raises:
            RecordsRefusedError: Kafka's format cannot hold one of them.
        """
        append = self._builder.append
        index = 0
        headers: Sequence[tuple[str, bytes | None]] = ()
        listed: list[tuple[str, bytes | None]] = []
        try:
            for place, index in enumerate(indexes):
                record = records[index]
                if record.headers is not headers:
                    headers = record.headers
                    listed = list(headers)
                if append(place, record.timestamp, record.key, record.value, listed) is None:
                    self.indexes = list(indexes[:place])
                    return place
        except (TypeError, ValueError, OverflowError) as error:
            why = f"it cannot be written as a Kafka record: {error}"
            raise RecordsRefusedError({index: why}) from error
        self.indexes = list(indexes)
        return len(indexes)

    def seal(self, producer_id: int, epoch: int, sequence: int) -> bytes:
        """The batch as bytes, once."""
        self._builder.set_producer_state(producer_id, epoch, sequence)
        return bytes(self._builder.build())


def size_alone(record: Outgoing) -> int:
    """The bytes of a batch with nothing but this record: what a topic's ``max.message.bytes`` is compared with."""
    batch = Batch(Partition(record.topic, 0), 0)
    batch.fill([record], [0])
    return batch.size


def pack(
    records: Sequence[Outgoing], partitions: Mapping[str, int], bytes_max: Callable[[str], int]
) -> list[Batch]:
    """Batches for all records, in order for each partition.

    Keys choose the partition as Kafka's own clients do. ``partitions``: how many each topic has;
    ``bytes_max``: how large a batch for a topic may be (one with a single record may be larger).

    Raises:
        RecordsRefusedError: Kafka's format cannot hold one of them.
    """
    batches: list[Batch] = []
    for partition, indexes in _by_partition(records, partitions):
        limit = bytes_max(partition.topic)
        done = 0
        while done < len(indexes):
            batch = Batch(partition, limit)
            done += batch.fill(records, indexes[done:] if done else indexes)
            batches.append(batch)
    return batches


def _by_partition(
    records: Sequence[Outgoing], partitions: Mapping[str, int]
) -> Iterator[tuple[Partition, list[int]]]:
    for topic, places in _by_topic(records):
        indexes = places
        chosen: list[list[int]] = [[] for _ in range(partitions[topic])]
        count = len(chosen)
        keys = [records[index].key for index in places]
        keyed = [key for key in keys if key is not None]
        if len(keyed) < len(keys):
            keyless = random.choice(chosen)  # noqa: S311 - spreads load, hides nothing
            keyless.extend(index for index, key in zip(places, keys, strict=True) if key is None)
            indexes = [index for index, key in zip(places, keys, strict=True) if key is not None]
        for index, hashed in zip(indexes, murmur2_all(keyed), strict=True):
            chosen[(hashed & 0x7FFFFFFF) % count].append(index)
        for number, members in enumerate(chosen):
            if members:
                yield Partition(topic, number), members


def _by_topic(records: Sequence[Outgoing]) -> Iterator[tuple[str, Sequence[int]]]:
    topics = [record.topic for record in records]
    if topics and topics.count(topics[0]) == len(topics):
        yield topics[0], range(len(topics))
        return
    by_topic: dict[str, list[int]] = {}
    for index, topic in enumerate(topics):
        by_topic.setdefault(topic, []).append(index)
    yield from by_topic.items()
