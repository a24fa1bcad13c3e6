"""The bytes that a fetch brings for one partition, and the records in them.

Kafka keeps records in batches, and a fetch answers with whole batches as they lie in the log: the first may
begin before the offset that was asked for, some hold only a transaction's marker, and those of aborted
transactions are there too, beside a list of which they are. Reading committed records means leaving these out
while still counting their offsets.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from aiokafka import codec
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords

from connectors.source import Partition, RawRecord

LENGTH = struct.Struct(">i")
LENGTH_AT = 8
BEFORE_LENGTH_COUNTS = 12
HEADER = struct.Struct(">qiibIhiqqqhii")
CODEC_MASK = 0x07
LOG_APPEND_TIME_MASK = 0x08
DECODERS = {
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: codec.lz4_decode,
    4: codec.zstd_decode,
}


class UndecodableError(Exception):
    """A batch that is none; the message is a sentence."""


class Batch(NamedTuple):
    """The readable records of one batch, and the offset after it."""

    records: list[RawRecord]
    end: int


class Batches:
    """The batches that one fetch brought for one partition, each decoded when it is asked for."""

    def __init__(
        self, partition: Partition, raw: bytes, aborted: Iterable[tuple[int, int]], *, check_crcs: bool
    ) -> None:
        """`aborted` are pairs of a producer's id and the first offset of its aborted transaction.

        Raises UndecodableError.
        """
        self.size = len(raw)
        self._partition = partition
        self._raw = raw
        self._check_crcs = check_crcs
        self._aborted = deque(sorted(aborted, key=lambda one: one[1]))
        self._aborting: set[int] = set()
        self._decoded = 0
        self._waiting: deque[Any] = deque()
        memory = MemoryRecords(raw)
        try:
            while memory.has_next():
                self._waiting.append(memory.next_batch())
        except Exception as error:
            # Good batches before it are read first; the next fetch then begins with this one.
            if not self._waiting:
                raise UndecodableError(f"the batch there cannot be decoded ({error})") from error
        self.end: int | None = self._waiting[-1].next_offset if self._waiting else None
        """The offset after the last whole batch; None where there is none."""
        self._share = self.size // max(1, len(self._waiting))

    @property
    def bytes_left(self) -> int:
        """How many bytes were not asked for yet, as if all batches were of one size."""
        return self._share * len(self._waiting)

    @property
    def size_of_first(self) -> int:
        """How many bytes the first batch needs, for when less than that was sent; 0 where nothing was."""
        if self.size < BEFORE_LENGTH_COUNTS:
            return self.size
        return int(LENGTH.unpack_from(self._raw, LENGTH_AT)[0]) + BEFORE_LENGTH_COUNTS

    def next(self, position: int) -> Batch | None:
        """The next batch, with its records from `position` on; None after the last.

        Raises UndecodableError.
        """
        if not self._waiting:
            return None
        batch = self._waiting.popleft()
        index, self._decoded = self._decoded, self._decoded + 1
        if self._check_crcs and not batch.validate_crc():
            raise UndecodableError("the checksum of the batch there does not fit its bytes")
        if batch.producer_id is not None and batch.is_transactional and self._skips(batch):
            return Batch([], batch.next_offset)
        if batch.is_control_batch:
            return Batch([], batch.next_offset)
        records = self._records(batch, index)
        if records and records[0].offset < position:
            records = [record for record in records if record.offset >= position]
        return Batch(records, batch.next_offset)

    def _skips(self, batch: Any) -> bool:
        """Whether the batch is of an aborted transaction; the marker that ends it is not."""
        while self._aborted and self._aborted[0][1] <= batch.base_offset:
            self._aborting.add(self._aborted.popleft()[0])
        if batch.is_control_batch:
            if any(ControlRecord.parse(record.key) == ABORT_MARKER for record in batch):
                self._aborting.discard(batch.producer_id)
            return True
        return batch.producer_id in self._aborting

    def _records(self, batch: Any, index: int) -> list[RawRecord]:
        topic, number = self._partition
        new = tuple.__new__  # a record for each event: RawRecord(...) would take three times as long
        try:
            return [
                new(RawRecord, (topic, number, one.offset, one.timestamp, one.key, one.value, one.headers))
                for one in batch
            ]
        except Exception as error:  # noqa: BLE001 - whatever the bytes provoke in a decoder
            return self._records_of_odd_batch(index, error)

    def _records_of_odd_batch(self, index: int, cause: Exception) -> list[RawRecord]:
        """Decode without aiokafka, which cannot read a header's name that is not UTF-8."""
        begin = 0
        for _ in range(index):
            begin += LENGTH.unpack_from(self._raw, begin + LENGTH_AT)[0] + BEFORE_LENGTH_COUNTS
        try:
            return read_batch(self._partition, self._raw[begin:])
        except Exception:  # noqa: BLE001 - as above
            raise UndecodableError(f"the batch there cannot be decoded ({cause})") from cause


def read_batch(partition: Partition, raw: bytes) -> list[RawRecord]:
    """All records of the batch (of format 2) that these bytes begin with.

    Written after https://kafka.apache.org/documentation/#messageformat. Bytes of a header's name that are not
    UTF-8 become lone surrogates. Raises ValueError, IndexError, struct.error or an error of the compression.
    """
    base, length, _, magic, _, attributes, _, first_time, max_time, *_, count = HEADER.unpack_from(raw)
    if magic != 2:  # noqa: PLR2004 - the format's number
        raise ValueError(f"format {magic} has no headers")
    body = raw[HEADER.size : length + BEFORE_LENGTH_COUNTS]
    if compression := attributes & CODEC_MASK:
        body = DECODERS[compression](body)
    fields = _Fields(body)
    records = []
    for _ in range(count):
        fields.varint()  # the record's length
        fields.skip(1)  # its attributes, which are unused
        time = first_time + fields.varint()
        if attributes & LOG_APPEND_TIME_MASK:
            time = max_time
        offset = base + fields.varint()
        key, value = fields.blob(), fields.blob()
        headers = [
            ((fields.blob() or b"").decode("utf-8", "surrogateescape"), fields.blob())
            for _ in range(fields.varint())
        ]
        records.append(RawRecord(*partition, offset, time, key, value, headers))
    return records


class _Fields:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def skip(self, count: int) -> None:
        self._at += count

    def varint(self) -> int:
        shift = result = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the high bit says that more follow
                return (result >> 1) ^ -(result & 1)
            shift += 7

    def blob(self) -> bytes | None:
        length = self.varint()
        if length < 0:
            return None
        begin, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise ValueError("a field is longer than its batch")
        return self._data[begin : self._at]
