"""Streams whose marks are of another kind than their events, and events that do not say where they stand."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("order", "value", "mark"),
    [
        (OrderBy("n", "hex", stream="s"), "ab", 7),
        (OrderBy("n", stream="s"), 1, "ab"),
        (OrderBy("n", stream="s", contiguous=True), 1, "ab"),
    ],
)
def test_a_mark_of_another_kind_counts_as_none(order: OrderBy, value: Any, mark: Any) -> None:
    placed = place(order, {"n": value}, {"s": mark})
    assert (placed.place, placed.before) == (Place.NEXT, None)


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
