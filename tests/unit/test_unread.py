"""Topics that a group has read, and that no pipeline reads any more, are told of as long as records wait there."""

from __future__ import annotations

from connectors.source import Partition
from engine.unread import find_unread
from tests.fakes.source import FakeReader, FakeSource


async def test_records_that_wait_in_topics_which_nobody_reads_any_more_are_counted() -> None:
    source = FakeSource()
    positions: dict[Partition, int] = {}
    for topic in ("read", "left", "finished"):
        source.create_topic(topic, partitions=2)
        for number in range(2):
            for _ in range(3):
                source.append(Partition(topic, number), b"{}")
            positions[Partition(topic, number)] = 3 if topic == "finished" else 1
    positions[Partition("gone", 0)] = 7
    [told] = await find_unread(FakeReader(source), positions, ["read"])
    assert told == (
        "The topic left was read by this group, and no pipeline that is loaded reads it any more. Records that "
        "were not read there: 4."
    )


async def test_of_a_position_behind_the_end_nothing_waits() -> None:
    source = FakeSource()
    source.create_topic("anew")
    assert await find_unread(FakeReader(source), {Partition("anew", 0): 5}, []) == []
