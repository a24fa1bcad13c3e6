"""Pieces of partitions: cut by bytes, in halves, and never so that a record is lost, doubled or out of order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from connectors.source import Partition, RawRecord
from engine.routing import Loaded, make_routes
from engine.session.claims import Claim, Slice, by_bytes, bytes_in, halves
from engine.session.committer import EVENT_BYTES, Committer, Weighed
from statemachines import Topic
from statemachines.machine import compile_pipeline
from tests.storage import objects, sent


def make_slice(number: int, sizes: list[int | None], start: int = 0) -> Slice:
    """Records with values of these sizes, with an offset left out behind each, as of transactions' markers."""
    records = [
        RawRecord("orders", number, start + 2 * at, 0, None, None if size is None else bytes(size))
        for at, size in enumerate(sizes)
    ]
    claim = Claim(number, Partition("orders", number), 1, 0)
    return Slice(claim, records, start, start + 2 * len(records))


slices = st.lists(st.lists(st.none() | st.integers(0, 50), max_size=6), max_size=4).map(
    lambda many: [make_slice(number, sizes, start=10 * number) for number, sizes in enumerate(many)]
)


def bytes_of(portion: list[Slice]) -> int:
    return sum(len(record.value or b"") for one in portion for record in one.records)


def records_of(portion: list[Slice]) -> int:
    return sum(len(one.records) for one in portion)


@given(slices, st.integers(1, 120))
def test_portions_are_within_the_bytes_or_have_one_record(many: list[Slice], bytes_max: int) -> None:
    for portion in by_bytes(many, bytes_max):
        assert bytes_of(portion) <= bytes_max or records_of(portion) == 1


@given(slices, st.integers(1, 120))
def test_portions_after_each_other_are_what_was_cut(many: list[Slice], bytes_max: int) -> None:
    portions = by_bytes(many, bytes_max)
    for one in many:
        pieces = [piece for portion in portions for piece in portion if piece.claim is one.claim]
        assert [record for piece in pieces for record in piece.records] == list(one.records)
        # Each begins where the one before it has brought the position.
        assert (pieces[0].start, pieces[-1].end) == (one.start, one.end)
        assert all(before.end == after.start for before, after in pairwise(pieces))
        for piece in pieces:
            assert all(piece.start <= record.offset < piece.end for record in piece.records)


@given(slices)
def test_what_fits_is_one_portion(many: list[Slice]) -> None:
    assert by_bytes(many, bytes_of(many) + 1) == ([many] if many else [])


@given(slices)
def test_halves_are_of_about_as_many_records(many: list[Slice]) -> None:
    first, second = halves(many)
    assert records_of(first) == records_of(many) // 2
    assert records_of(first) + records_of(second) == records_of(many)


def test_a_large_record_goes_alone_and_the_small_ones_together() -> None:
    one = make_slice(0, [10, 10, 10, 1_000, 10, 10, 10, 10])
    sizes = [[len(record.value or b"") for record in portion[0].records] for portion in by_bytes([one], 100)]
    assert sizes == [[10, 10], [10], [1_000], [10, 10, 10, 10]]


def test_records_that_may_hold_several_events_count_for_what_these_take() -> None:
    sample = sent(*range(8), topic="s3")._replace(offset=0)
    one = Slice(Claim(1, Partition("s3", 0), 1, 0), [sample, sample], 0, 1)
    plain = objects(Topic("s3"))
    nothing: Any = None
    weights = [
        Committer(
            nothing,
            make_routes([Loaded(compile_pipeline(flow), 1, 1)], {}),
            "c",
            nothing,
            nothing,
            nothing,
            [],
            Weighed(0),
        ).weight_of([one])
        for flow in (plain, objects())
    ]
    assert weights == [bytes_in([one]), bytes_in([one]) + 2 * 7 * EVENT_BYTES]
    heavy = by_bytes([one], 10, lambda some: 6 * sum(len(piece.records) for piece in some))
    assert [len(portion[0].records) for portion in heavy] == [1, 1]
