"""The outbox's blobs give back what was put into them, and say so when they cannot."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.outbox import CorruptBlobError, OutRecord, count, decode, digest, encode

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=8) | st.just("lone \udc80 surrogate") | st.just("nul \x00 inside")
MAYBE_BYTES = st.none() | st.binary(max_size=40)
RECORDS = st.lists(
    st.builds(
        OutRecord,
        topic=TEXT,
        key=MAYBE_BYTES,
        value=MAYBE_BYTES,
        headers=st.lists(st.tuples(TEXT, MAYBE_BYTES), max_size=3).map(tuple),
        timestamp=INT64,
        dead_letter=st.none() | st.integers(0, 2**63 - 1),
    ),
    min_size=1,
    max_size=12,
)


@given(RECORDS)
def test_what_is_packed_is_unpacked_unchanged(records: list[OutRecord]) -> None:
    blob = encode(records)
    assert decode(blob) == records
    assert count(blob) == len(records)


@given(RECORDS, st.data())
def test_a_damaged_blob_is_refused_or_still_gives_records(
    records: list[OutRecord], data: st.DataObject
) -> None:
    blob = bytearray(encode(records))
    cut = data.draw(st.integers(0, len(blob) - 1))
    blob[cut] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(blob), bytes(blob[:cut])):
        with contextlib.suppress(CorruptBlobError):
            assert all(isinstance(record, OutRecord) for record in decode(damaged))


def test_a_shortened_blob_is_refused_with_what_to_do() -> None:
    blob = encode([OutRecord("t", b"k", b"v", (("h", b"1"),), 1)])
    with pytest.raises(CorruptBlobError, match="restore the row"):
        decode(blob[:-1])


def test_two_blobs_of_the_same_records_can_be_told_apart() -> None:
    records = [OutRecord("t", b"k", b"v", (), 1)]
    assert digest(encode(records)) != digest(encode(records))
