"""When more is fetched for a partition."""

from __future__ import annotations

from connectors.kafka.lane import Lane
from connectors.kafka.sink_batches import Batch
from connectors.source import Partition, RawRecord

PARTITION = Partition("orders", 0)
BATCHES = 10
IN_BATCH = 5


def batch_at(offset: int) -> bytes:
    """A record batch as a broker keeps it: its first eight bytes are the offset that it begins at."""
    batch = Batch(PARTITION, 1_000_000)
    batch.fill([RawRecord(*PARTITION, 0, 0, b"k", b"v" * 100)] * IN_BATCH, range(IN_BATCH))
    return offset.to_bytes(8, "big") + batch.seal(1, 0, 0)[8:]


def test_more_is_fetched_once_half_of_what_is_there_was_taken() -> None:
    fetched = b"".join(batch_at(number * IN_BATCH) for number in range(BATCHES))
    lane = Lane(PARTITION, 0, len(fetched), check_crcs=True)
    assert lane.wants(0.0), "there is nothing yet"
    lane.put(fetched, ())
    wanted = []
    for _ in range(BATCHES):
        wanted.append(lane.wants(0.0))
        assert len(lane.take(IN_BATCH)) == IN_BATCH
    # The next batch is always at hand, so it counts as taken.
    assert wanted == [False] * (BATCHES // 2 - 1) + [True] * (BATCHES // 2 + 1)
