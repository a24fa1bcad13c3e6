"""Keys go to the partitions that Kafka's own clients choose."""

from __future__ import annotations

from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka.murmur2 import murmur2, murmur2_all

KEYS = st.lists(st.binary(max_size=40), max_size=40)


@given(KEYS, st.integers(0, 30), st.integers(0, 40))
def test_all_hashes_are_those_of_kafkas_clients(keys: list[bytes], alike: int, length: int) -> None:
    keys += [bytes([number % 256]) * length for number in range(alike)]
    assert murmur2_all(keys) == [aiokafka_murmur2(key) for key in keys]  # type: ignore[no-untyped-call]


@given(st.binary(max_size=60))
def test_one_hash_is_that_of_kafkas_clients(key: bytes) -> None:
    assert murmur2(key) == aiokafka_murmur2(key)  # type: ignore[no-untyped-call]
