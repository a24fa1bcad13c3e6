"""Where reading begins, for partitions that have no position yet."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Literal

from connectors.source import Partition, Reader
from engine.store.contract import Store

FirstPosition = Literal["earliest", "latest"] | datetime


async def first_positions(
    reader: Reader, store: Store, partitions: Collection[Partition], first: FirstPosition
) -> dict[Partition, int]:
    """The first position of each; partitions added to a topic that is already read begin at their earliest offset.

    Where a topic is not read yet, the answer has all of its partitions, also those that other engines of the group
    were given: whoever is first decides for all of them, and the others do not take theirs for partitions added later.
    """
    if not partitions:
        return {}
    topics = {partition.topic for partition in partitions}
    siblings = {partition for topic in topics for partition in await reader.partitions_of(topic)}
    read_already = {partition.topic for partition in await store.known_positions(siblings)}
    added = [partition for partition in partitions if partition.topic in read_already]
    found = await reader.earliest(added) if added else {}
    rest = sorted(one for one in siblings.union(partitions) if one.topic not in read_already)
    if not rest:
        return found
    if first == "latest":
        return found | await reader.ends(rest)
    milliseconds = 0 if first == "earliest" else int(first.timestamp() * 1000)
    if milliseconds <= 0:
        # Every record is later than that; and brokers take a number below 0 for no time.
        return found | await reader.earliest(rest)
    return found | await reader.at_time(rest, milliseconds)
