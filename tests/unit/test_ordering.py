"""Streams whose marks are of another kind than their events, and events that do not say where they stand."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from statemachines import Context, Event, OrderBy, Pipeline
from statemachines.ordering import Place, place
from statemachines.outcome import Reason
from statemachines.testkit import given


class Begun(Event, type="begun"):
    pass


class Ended(Event, type="ended"):
    pass


class Noted(Event, type="noted"):
    number: Any = 0


class Log(Context):
    pass


def ordered(**settings: Any) -> Pipeline[Log]:
    flow = Pipeline("ordered", Log, topics=["t"], **settings)
    here, there = flow.state("here", initial=True), flow.state("there", final=True)
    flow.start(Begun, lambda _: Log())
    here.on(Noted)
    here.on(Ended, to=there)
    flow.policy(Noted, order_by="number")
    return flow


LAST: list[tuple[Any, Any, Any]] = [
    ("int", 1, 2**62),
    ("lsn", "0/1", place(OrderBy("n", "lsn"), {"n": "FFFF/FFFFFFFF"}, {}).value),
    ("hex", "1", place(OrderBy("n", "hex"), {"n": "f" * 32}, {}).value),
    ("time", "2026-03-01T12:00:00Z", place(OrderBy("n", "time"), {"n": "2126-03-01T12:00:00Z"}, {}).value),
]
"""Of each kind an event, and the mark that one left that came long after it."""


@pytest.mark.parametrize(
    ("order", "value", "mark"),
    [
        (OrderBy("n", "hex", stream="s"), "ab", 7),
        (OrderBy("n", stream="s"), 1, "ab"),
        (OrderBy("n", stream="s", contiguous=True), 1, "ab"),
        *(
            (OrderBy("n", kind, stream="s"), value, mark)
            for (kind, value, _), (other, _, mark) in itertools.permutations(LAST, 2)
            if kind != other
        ),
    ],
)
def test_a_mark_of_another_kind_counts_as_none(order: OrderBy, value: Any, mark: Any) -> None:
    placed = place(order, {"n": value}, {"s": mark})
    assert (placed.place, placed.before) == (Place.NEXT, None)


@pytest.mark.parametrize(("kind", "value", "mark"), LAST, ids=[one[0] for one in LAST])
def test_a_mark_of_the_same_kind_counts(kind: Any, value: Any, mark: Any) -> None:
    order = OrderBy("n", kind, stream="s")
    assert place(order, {"n": value}, {"s": mark}).place == Place.STALE


@pytest.mark.parametrize(
    ("kind", "ascending"),
    [
        ("lsn", ["0/1", "0/A", "0/10", 2**32 - 1, "1/0", "A/0", "10/0", "7FFFFFFF/FFFFFFFF"]),
        (
            "time",
            [
                "0001-01-02T00:00:00Z",
                "1969-12-31T23:59:59.5Z",
                "2026-03-01T13:00:00+02:00",
                "2026-03-01T12:00:00Z",
                "2026-03-01T12:00:00.000001Z",
            ],
        ),
    ],
)
def test_marks_are_in_the_order_of_what_left_them(kind: Any, ascending: list[Any]) -> None:
    order = OrderBy("n", kind)
    for before, after in itertools.pairwise(ascending):
        mark = {"": place(order, {"n": before}, {}).value}
        assert place(order, {"n": after}, mark).place == Place.NEXT
        assert place(order, {"n": before}, mark).place == Place.STALE


def test_what_says_no_order_does_not_hold_a_run_that_has_ended() -> None:
    case = given(ordered(), Begun(), Ended()).when(Noted(number="x"))
    case.then_refused(Reason.INVALID)
    assert case.run is not None
    assert not case.run.held


def test_what_says_no_order_does_not_hold_a_run_that_is_only_expected() -> None:
    case = given(ordered(no_run="defer")).when(Ended()).when(Noted(number="x"))
    case.then_refused(Reason.INVALID)
    assert case.run is not None
    assert not case.run.held


def test_what_says_no_order_holds_a_run_that_goes_on() -> None:
    case = given(ordered(), Begun()).when(Noted(number="x"))
    case.then_refused(Reason.INVALID)
    assert case.run is not None
    assert case.run.held
