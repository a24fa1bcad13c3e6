"""Where reading begins: what is asked for, for all of a topic at once, and partitions that are added later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest

from connectors.source import Partition, Reader
from engine.starting import FirstPosition, first_positions
from engine.store.contract import Store

ORDERS = [Partition("orders", number) for number in range(4)]
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
EARLIEST, LATEST, BETWEEN = 10, 90, 50


class Kafka:
    """Topics that begin, and end, somewhere."""

    async def partitions_of(self, topic: str) -> set[Partition]:
        return {one for one in ORDERS if one.topic == topic}

    async def earliest(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return dict.fromkeys(partitions, EARLIEST)

    async def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return dict.fromkeys(partitions, LATEST)

    async def at_time(self, partitions: Iterable[Partition], milliseconds: int) -> dict[Partition, int]:
        assert milliseconds == AT.timestamp() * 1000
        return dict.fromkeys(partitions, BETWEEN)


class Positions:
    """What a group has positions of."""

    def __init__(self, known: Mapping[Partition, int]) -> None:
        self._known = known

    async def known_positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {one: self._known[one] for one in partitions if one in self._known}


async def begin(ours: list[Partition], first: FirstPosition, known: Any = ()) -> dict[Partition, int]:
    store = Positions(dict.fromkeys(known, 30))
    return await first_positions(cast("Reader", Kafka()), cast("Store", store), ours, first)


@pytest.mark.parametrize(("first", "at"), [("earliest", EARLIEST), ("latest", LATEST), (AT, BETWEEN)])
async def test_who_is_first_decides_for_all_partitions_of_a_topic(first: FirstPosition, at: int) -> None:
    assert await begin(ORDERS[:2], first) == dict.fromkeys(ORDERS, at)


@pytest.mark.parametrize(
    "first",
    [
        datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
        datetime(1900, 1, 1, tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime(1970, 1, 1, tzinfo=UTC),
    ],
)
async def test_every_record_is_later_than_a_time_before_1970(first: datetime) -> None:
    assert await begin(ORDERS[:2], first) == dict.fromkeys(ORDERS, EARLIEST)


@pytest.mark.parametrize("first", ["latest", AT])
async def test_partitions_that_are_added_later_begin_where_they_begin(first: FirstPosition) -> None:
    assert await begin(ORDERS[2:], first, known=ORDERS[:2]) == dict.fromkeys(ORDERS[2:], EARLIEST)


async def test_where_nothing_is_ours_nobody_is_asked() -> None:
    assert await begin([], "latest") == {}
