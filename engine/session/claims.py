"""Partitions that are ours, and pieces of them on their way into the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from connectors.source import Partition, Record
from engine.store.values import PositionMove


@dataclass(slots=True, eq=False)
class Claim:
    """A partition whose epoch we took. Whoever takes it after us makes our commits fail."""

    id: int
    partition: Partition
    epoch: int
    read_to: int
    """The offset after the last one handed to a batch; where the next batch begins."""
    topic_id: str = ""
    """What tells the topic from another one of its name; empty where that is not known."""
    lost: bool = False
    """Nothing of it may be committed any more."""
    stopped: str | None = None
    """Why it is not to be taken again before a person has decided where to go on: a sentence without its end."""


class Slice(NamedTuple):
    """Records of one partition, and the positions before and after them."""

    claim: Claim
    records: Sequence[Record]
    start: int
    end: int


def moves_of(slices: Iterable[Slice]) -> list[PositionMove]:
    """How the positions move by these slices, once for each partition that is still ours."""
    moves: dict[Claim, PositionMove] = {}
    for claim, records, start, end in slices:
        if not claim.lost:
            before = moves.get(claim)
            assert before is None or before.new == start, f"{claim.partition}: a gap from {before} to {start}"
            time = None if before is None else before.record_time
            if records:
                time = records[-1].timestamp
            old = start if before is None else before.old
            moves[claim] = PositionMove(claim.id, claim.epoch, old, end, time)
    return list(moves.values())


def halves(slices: Sequence[Slice]) -> tuple[list[Slice], list[Slice]]:
    """Two parts with about as many records each, the first to be committed before the second.

    Of one partition there may be several slices; nothing overtakes what comes before it, not even a slice without
    records.
    """
    first: list[Slice] = []
    second: list[Slice] = []
    room = sum(len(one.records) for one in slices) // 2
    for one in slices:
        if not second and len(one.records) <= room:
            first.append(one)
            room -= len(one.records)
        elif not second and room > 0:
            cut = one.records[room].offset
            first.append(Slice(one.claim, one.records[:room], one.start, cut))
            second.append(Slice(one.claim, one.records[room:], cut, one.end))
        else:
            second.append(one)
    return first, second


def bytes_in(slices: Sequence[Slice]) -> int:
    """Of values."""
    return sum(len(record.value or b"") for one in slices for record in one.records)


def by_bytes(
    slices: Sequence[Slice], bytes_max: int, weigh: Callable[[Sequence[Slice]], int] = bytes_in
) -> list[list[Slice]]:
    """The slices in portions of at most so many bytes of values, or of one record."""
    if weigh(slices) <= bytes_max or sum(len(one.records) for one in slices) <= 1:
        return [list(slices)] if slices else []
    first, second = halves(slices)
    return [*by_bytes(first, bytes_max, weigh), *by_bytes(second, bytes_max, weigh)]
