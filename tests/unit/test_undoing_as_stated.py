"""States, and runs, that say in which order it is undone what they owe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from statemachines import Call
from statemachines.canonical import canonical_bytes
from statemachines.diagram import to_mermaid
from statemachines.memory import Memory
from statemachines.stated import Undo
from statemachines.validation import find_mistakes
from tests.unit.scoped import Dropped, Journey
from tests.unit.undoing import Again, Cancelled, Order, Returned, memory_of


def stated(state: str, undo: Any) -> Journey:
    made = Journey()
    [found] = [one for one in made.flow.states if one.name == state]
    found.undo = undo
    return made


def mistakes(made: Journey) -> str:
    return " ".join(f"{one.severity}: {one.message}. {one.cure}" for one in find_mistakes(made.flow))


def test_what_a_state_owes_is_undone_in_the_order_that_is_stated() -> None:
    made = Journey()
    made.trip.undo = [made.leave_room, made.leave_seat]
    case = made.booked().when(Dropped()).then_runs(made.leave_room).undone(made.leave_room)
    case.then(state="wide travel trip $compensating papers stamped").then_runs(made.leave_seat)
    case.undone(made.leave_seat).then(state="wide travel at-home papers stamped").then_owes(made.visa)


def test_what_is_not_named_comes_behind_from_the_last_on() -> None:
    made = Journey(undo=["room"])
    case = made.begun().step_done(made.room, 1).step_done(made.seat, 2).step_done(made.visa, 3)
    case.then_owes(made.room, made.visa, made.seat).when(Cancelled())
    case.then_runs(made.leave_room).undone(made.leave_room)
    case.then_runs(made.return_visa).undone(made.return_visa)
    case.then_runs(made.leave_seat).undone(made.leave_seat).then(ended=True)


def test_what_was_done_often_is_undone_as_often_from_the_last_on() -> None:
    made = stated("trip", ("room",))
    case = made.booked().when(Again()).step_done(made.room, 4).when(Dropped())
    case.step_stopped(made.seat, "unknown").then_runs(made.leave_room)
    assert [one.of for one in memory_of(case).executions] == ["5.0"]
    case.undone(made.leave_room).then_runs(made.leave_room)
    assert [one.of for one in memory_of(case).executions] == ["1.0"]
    # Of those that are not named, that of which nobody knows what it did.
    case.undone(made.leave_room).then_runs(made.leave_seat)
    assert [one.of for one in memory_of(case).executions] == ["6.0"]
    case.undone(made.leave_seat).undone(made.leave_seat)
    case.then(state="wide travel at-home papers stamped")


def test_of_each_that_comes_first_of_which_nobody_knows_what_it_did() -> None:
    made = stated("trip", ["seat", "room"])
    case = made.booked().when(Again()).when(Dropped()).step_stopped(made.room, "unknown")
    case.then_runs(made.leave_seat).undone(made.leave_seat).then_runs(made.leave_room)
    assert [one.of for one in memory_of(case).executions] == ["5.0"]


def test_where_a_state_around_is_undone_meanwhile_that_says_how() -> None:
    made = stated("wide", ["return_visa", "room"])
    case = made.booked().when(Dropped()).then_runs(made.leave_seat).when(Returned())
    case.then_runs(made.leave_seat).undone(made.leave_seat).then_runs(made.return_visa)
    case.undone(made.return_visa).then_runs(made.leave_room).undone(made.leave_room).then(state="after")
    assert memory_of(case) == Memory()


def test_it_is_part_of_the_definition_by_what_is_undone() -> None:
    orders: list[Any] = ["in_order", "parallel", ["room"], ["room", "seat"], ["seat", "room"]]
    assert len({canonical_bytes(Journey(undo=one).flow) for one in orders}) == len(orders)
    assert len({canonical_bytes(stated("trip", one).flow) for one in orders}) == len(orders)
    assert canonical_bytes(Journey(undo=["seat"]).flow) == canonical_bytes(Journey(undo=["leave_seat"]).flow)
    made = stated("wide", [])
    made.wide.undo = (made.leave_seat, made.visa)
    assert canonical_bytes(made.flow).count(b'"undo":["seat","visa"]') == 1


def test_it_is_drawn_where_it_is_undone() -> None:
    made = Journey(undo=["room", "return_visa"])
    made.trip.undo = "parallel"
    drawn = to_mermaid(made.flow)
    assert "  compensating: undo / room, then return_visa\n" in drawn
    assert drawn.count(": undo / all at once\n") == 1
    assert ": undo / all" not in to_mermaid(Journey().flow)


def tell(_order: Order, _call: Call) -> None: ...


@pytest.mark.parametrize(
    ("undo", "message"),
    [
        (["leave_sea"], "there is no compensation 'leave_sea'. Did you mean 'leave_seat'?"),
        ([], "names nothing. Name compensations in it, or leave it out"),
        ([3], "3 is no compensation. Name a compensation, or what it undoes"),
        (["tell"], "the step 'tell' has no compensation. Take it away, or write @step.compensate()"),
        (["seat", "leave_seat"], "what undoes 'seat' is named twice. Name it once"),
        ([Journey().leave_seat], "leave_seat is none of this pipeline. Name one of this pipeline"),
    ],
)
def test_mistakes(undo: Undo, message: str) -> None:
    made = Journey(undo=undo)
    made.flow.step()(tell)
    assert f"error: undo={'[...]' if undo else '[]'} of the pipeline 'journey'" in mistakes(made)
    assert message in mistakes(made)
    made = stated("trip", undo)
    made.flow.step()(tell)
    assert f"error: undo={'[...]' if undo else '[]'} of the state 'trip'" in mistakes(made)
    assert message in mistakes(made)


def test_warnings() -> None:
    told = "warning: undo=[...] of the state 'trip': nothing in it runs the step 'visa'. Take it away"
    assert told in mistakes(stated("trip", ["visa", "seat"]))
    told = (
        "warning: the order of undo=[...] is never asked: 'abroad' owes nothing, nor does a state inside it"
    )
    assert told in mistakes(stated("abroad", ["seat"]))
    assert "undo=" not in mistakes(stated("trip", ["leave_seat", "room"]))


def test_what_is_no_list_is_a_mistake() -> None:
    wrong = replace(Journey().flow, undo={"room"})  # type: ignore[arg-type]  # that is the mistake
    assert any("undo={'room'} is no policy" in one.message for one in find_mistakes(wrong))
    assert "undo={'room'} of the state 'trip' is no order" in mistakes(stated("trip", {"room"}))
