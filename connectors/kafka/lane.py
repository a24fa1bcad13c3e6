"""One partition as the reader has it: how far it has come, what is buffered, and what keeps it."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable

from aiokafka import TopicPartition

from connectors.kafka.batches import Batches, UndecodableError
from connectors.source import Partition, RawRecord, Trouble, Unreadable

DECODE_ATTEMPTS = 3
"""So often a batch that cannot be decoded is fetched, before its partition stops."""
RETRY_SECONDS_MIN = 0.05
RETRY_SECONDS_MAX = 1.0


class Lane:
    """A partition from the moment it is assigned until the next assignment; a new one is a new lane."""

    def __init__(
        self, partition: Partition, position: int, bytes_max: int, *, check_crcs: bool, topic_id: str = ""
    ) -> None:
        """`bytes_max` is what a fetch may bring; no more than half of it is buffered when another is sent."""
        self.partition = partition
        self.topic_id = topic_id
        """Of the topic that the position is of; empty where that is not known."""
        self.topic_partition = TopicPartition(*partition)
        self.position = position
        """The offset after what was handed out, and after all without records behind that."""
        self.told = position
        """The position that the last chunk told of."""
        self.fetch_from = position
        self.bytes_max = bytes_max
        self.paused = False
        self.stopped = False
        self.in_flight = False
        self.fetched_at = 0.0
        self.answered_at = -math.inf
        self.retry_at = 0.0
        self.trouble: Trouble | None = None
        self.unreadable: Unreadable | None = None
        self._check_crcs = check_crcs
        self._half_full = bytes_max // 2
        self._failures = 0
        self._decode_failures = 0
        self._buffer: deque[Batches] = deque()
        self._records: list[RawRecord] = []
        self._index = 0
        self._end = position

    def wants(self, now: float) -> bool:
        """Whether it is time to fetch."""
        return not (
            self.paused
            or self.stopped
            or self.in_flight
            or self.bytes_left > self._half_full
            or self.retry_at > now
        )

    @property
    def bytes_left(self) -> int:
        """How many bytes are at hand, but for those of the batch that is handed out now."""
        return sum(batches.bytes_left for batches in self._buffer)

    def is_ready(self) -> bool:
        """Whether there is something to tell: records, or a position that moved without one."""
        return not self.paused and (self._index < len(self._records) or self.position != self.told)

    def put(self, raw: bytes, aborted: Iterable[tuple[int, int]]) -> None:
        """Take in what a fetch from `fetch_from` has brought."""
        self.trouble = None
        self._failures = 0
        if not raw:
            return
        try:
            batches = Batches(self.partition, raw, aborted, check_crcs=self._check_crcs)
        except UndecodableError as error:
            self._doubt(error)
            return
        if batches.end is None:
            # Part of a batch: an old broker, which does not send the first one whole whatever its size.
            self.bytes_max = max(self.bytes_max, batches.size_of_first)
            return
        assert batches.end > self.fetch_from, (
            f"{self.partition}: asked for {self.fetch_from}, got {batches.end}"
        )
        self.fetched_at = time.monotonic()
        self.fetch_from = batches.end
        self._buffer.append(batches)
        self._advance()

    def take(self, records_max: int) -> list[RawRecord]:
        """The next records, at most so many, in order."""
        taken: list[RawRecord] = []
        while len(taken) < records_max and self._advance():
            piece = self._records[self._index : self._index + records_max - len(taken)]
            self._index += len(piece)
            self.position = piece[-1].offset + 1
            taken = taken + piece if taken else piece
        self._advance()
        return taken

    def fail(self, reason: str) -> None:
        """Note why a fetch was in vain, and wait before the next one."""
        now = time.monotonic()
        self.trouble = Trouble(now if self.trouble is None else self.trouble.since, reason)
        delay = min(RETRY_SECONDS_MIN * 2.0**self._failures, RETRY_SECONDS_MAX)
        self._failures = min(self._failures + 1, 10)
        self.retry_at = now + delay

    def begin_again(self) -> None:
        """Let go of what is buffered, and fetch from the position."""
        self._records, self._index = [], 0
        self._buffer.clear()
        self.fetch_from = self._end = self.position

    def stop(self) -> None:
        """Fetch nothing any more; nothing else keeps it."""
        self.stopped = True
        self.trouble = None

    def _advance(self) -> bool:
        """Whether a record is at hand; moves the position over what has none."""
        while self._index >= len(self._records):
            self.position = max(self.position, self._end)
            if not self._buffer:
                return False
            try:
                batch = self._buffer[0].next(self.position)
            except UndecodableError as error:
                self._doubt(error)
                return False
            if batch is None:
                self._buffer.popleft()
                continue
            self._decode_failures = 0
            self._records, self._end = batch
            self._index = 0
        return True

    def _doubt(self, error: UndecodableError) -> None:
        """Fetch once more what cannot be decoded, or stop."""
        self.begin_again()
        self._decode_failures += 1
        self.retry_at = time.monotonic() + RETRY_SECONDS_MIN
        if self._decode_failures >= DECODE_ATTEMPTS:
            self.stopped = True
            self.unreadable = Unreadable(
                self.partition, self.position, f"{self.partition} stopped at offset {self.position}: {error}."
            )
