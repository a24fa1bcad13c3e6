"""Which homes an engine serves, by the partitions that it was given."""

from __future__ import annotations

import pytest

from connectors.source import Partition
from engine.homes import HOMES, homes_in

TOPIC = "pointsman.default.homes"


@pytest.mark.parametrize("count", [1, 3, 4, HOMES, HOMES + 5])
def test_each_home_is_served_by_one_of_the_partitions_however_many_there_are(count: int) -> None:
    served = [homes_in([Partition(TOPIC, number)], TOPIC, count) for number in range(count)]
    assert sorted(home for homes in served for home in homes) == list(range(HOMES))


def test_each_partition_is_a_home_where_there_are_as_many() -> None:
    assigned = [Partition(TOPIC, 7), Partition(TOPIC, 2), Partition("orders", 3)]
    assert homes_in(assigned, TOPIC, HOMES) == [2, 7]


def test_who_was_given_none_serves_none() -> None:
    assert homes_in([Partition("orders", 0)], TOPIC, HOMES) == []
    assert homes_in([], TOPIC, 0) == []
