"""Topics that a group has read, and that no pipeline reads any more, are told of as long as records wait there."""

from __future__ import annotations

from connectors.source import NotAllowedError, Partition
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


async def test_what_kafka_has_dropped_does_not_wait() -> None:
    source, left = FakeSource(), Partition("left", 0)
    source.create_topic("left")
    for _ in range(10):
        source.append(left, b"{}")
    source.delete_before(left, 7)
    [told] = await find_unread(FakeReader(source), {left: 4}, [])
    assert told.endswith("not read there: 3.")
    assert await find_unread(FakeReader(source), {left: 10}, []) == []


async def test_a_topic_that_may_be_seen_no_more_keeps_nothing_from_being_told_of_others() -> None:
    class Partly(FakeReader):
        async def partitions_of(self, topic: str) -> set[Partition]:
            if topic == "secret":
                raise NotAllowedError(topic)
            return await super().partitions_of(topic)

    source = FakeSource()
    for topic in ("secret", "left"):
        source.create_topic(topic)
        source.append(Partition(topic, 0), b"{}")
    [told] = await find_unread(Partly(source), {Partition("secret", 0): 0, Partition("left", 0): 0}, [])
    assert told.startswith("The topic left ")
