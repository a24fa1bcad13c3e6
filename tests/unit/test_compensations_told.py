"""What is undone, as diagrams, ways, identities and the test kit have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from statemachines import Compensate, Event, Retry
from statemachines.bounds import Bounds
from statemachines.canonical import canonical_bytes
from statemachines.diagram import Marks, to_mermaid
from statemachines.outcome import Moved, Reason
from statemachines.results import event_id, idempotency_key
from statemachines.testkit import given
from statemachines.way import Passage, find_way
from tests.unit.test_canonical_steps import WORKING, hash_of
from tests.unit.test_way import row, told
from tests.unit.undoing import OK, Cancelled, Order, Placed, Returned, Trade, doing, refund

# Diagrams.


def test_the_diagram_has_what_leads_into_and_out_of_compensating() -> None:
    drawn = to_mermaid(Trade().flow)
    assert '  state "compensating" as compensating\n' in drawn
    for line in (
        "charging: undo / refund",
        "packing: undo / unpack",
        "charging --> compensating: order.cancelled",
        "open --> compensating: order.returned",
        "compensating --> cancelled: undone after order.cancelled",
        "compensating --> open: undone after order.returned",
    ):
        assert f"  {line}\n" in drawn
    assert drawn.count("compensating -->") == 2
    assert "sent: undo" not in drawn


def test_several_targets_are_behind_a_fork() -> None:
    made = Trade()
    wide = made.flow.state("wide")
    goals = [wide.region(name).state(f"in-{name}", initial=True) for name in ("a", "b")]
    made.flow.on(Event.named("gone"), to=goals, compensate=True)
    drawn = to_mermaid(made.flow)
    assert "compensating --> fork_0: undone after gone\n" in drawn
    assert "charging --> compensating: gone\n" in drawn


def test_another_state_may_be_called_like_it() -> None:
    made = Trade()
    made.flow.on(Event.named("gone"), to=made.flow.state("compensating"))
    drawn = to_mermaid(made.flow)
    assert 'state "compensating" as compensating\n' in drawn
    assert 'state "compensating" as state_7\n' in drawn


def test_a_run_that_is_undone_is_marked() -> None:
    made = Trade()
    marks = Marks(here=["$compensating"], states={"$compensating": "2 runs"})
    drawn = to_mermaid(made.flow, marks)
    assert "class compensating here" in drawn
    assert 'state "compensating (2 runs)" as compensating' in drawn


def test_what_an_action_asked_for_is_drawn_where_it_is_known() -> None:
    made = Trade()
    made.flow.on(Event.named("gone"), to=made.open, do=ask)
    move = made.flow.moves[-1]
    assert "undone after gone" not in to_mermaid(made.flow)
    drawn = to_mermaid(made.flow, Marks(moves={("$compensating", move): "row 5"}))
    assert "compensating --> open: undone after gone (row 5)\n" in drawn


def ask(_order: Order, _event: Event) -> Any:
    return Compensate()


def test_without_compensations_nothing_of_it_is_drawn() -> None:
    made = Trade()
    made.charge.compensations.clear()
    made.pack.compensations.clear()
    assert "compensating" not in to_mermaid(made.flow)


# Ways.


def way(made: Trade, *passages: tuple[str, str, str]) -> dict[str, list[str]]:
    given(made.flow)
    rows = [(Passage(kind, before, after), row(2 + at)) for at, (kind, before, after) in enumerate(passages)]
    found = find_way(given(made.flow).machine, rows)
    assert found.unexplained.first == []
    return told(found)


def test_the_way_of_a_run_leads_through_what_it_undid() -> None:
    taken = way(
        Trade(),
        ("order.cancelled", "sent", "$compensating"),
        ("done.step.unpack", "$compensating", "$compensating"),
        ("done.step.refund", "$compensating", "cancelled"),
    )
    assert taken == {
        "sent -order.cancelled-> cancelled": ["2"],
        "$compensating -order.cancelled-> cancelled": ["4"],
    }


def test_it_may_lead_through_at_once_and_by_what_was_stopped() -> None:
    assert way(Trade(), ("order.cancelled", "sent", "cancelled")) == {
        "sent -order.cancelled-> cancelled": ["2"],
        "$compensating -order.cancelled-> cancelled": ["2"],
    }
    assert way(Trade(), ("stopped.step.pack", "$compensating", "open")) == {
        "$compensating -order.returned-> open": ["2"]
    }


def test_it_may_lead_there_since_an_action_asked() -> None:
    made = Trade()
    made.flow.on(Event.named("gone"), to=made.open, do=ask)
    assert way(made, ("gone", "sent", "$compensating")) == {"sent -gone-> open": ["2"]}
    assert way(made, ("gone", "sent", "open")) == {"sent -gone-> open": ["2"]}


def test_no_other_event_leads_out_of_it() -> None:
    machine = given(Trade().flow).machine
    passage = Passage("order.cancelled", "$compensating", "cancelled")
    assert find_way(machine, [(passage, row(2))]).unexplained.first == [2]


# Identities.


def test_the_canonical_form_has_what_undoes_what_and_which_transitions_ask() -> None:
    form = orjson.loads(canonical_bytes(Trade(on_error=True).flow))
    assert form["compensations"] == {"charge": ["refund", True], "pack": ["unpack", False]}
    assert form["steps"] == ["charge", "pack", "tell"]
    asking = [one["event"] for one in form["moves"] if one.get("compensate")]
    assert asking == ["order.cancelled", "order.returned"]
    assert all("compensate" not in one for one in form["moves"] if one["event"] not in asking)


def test_it_has_nothing_of_it_where_there_is_none() -> None:
    made = Trade()
    made.charge.compensations.clear()
    made.pack.compensations.clear()
    made.flow.moves[:] = [replace(move, compensate=False) for move in made.flow.moves]
    assert b"compensat" not in canonical_bytes(made.flow)


CHANGES: dict[str, Callable[[Trade], Any]] = {
    "another name": lambda made: setattr(made.refund, "name", "repay"),
    "on_error": lambda made: setattr(made.refund, "on_error", True),
    "one less": lambda made: made.pack.compensations.clear(),
    "one more": lambda made: made.tell.compensate()(refund),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_structure_shows_every_change(change: Callable[[Trade], Any]) -> None:
    made = Trade()
    change(made)
    assert canonical_bytes(made.flow) != canonical_bytes(Trade().flow)


@pytest.mark.parametrize("name", ["retry", "timeout", "at_once", "bounds"])
def test_how_it_is_tried_is_not_part_of_it(name: str) -> None:
    made = Trade()
    others = {"retry": Retry(2), "timeout": timedelta(1), "at_once": None, "bounds": Bounds(timedelta(1))}
    setattr(made.refund, name, others[name])
    assert canonical_bytes(made.flow) == canonical_bytes(Trade().flow)


UNDOING = WORKING.replace(
    "def keep(",
    """def deeper(made):
    return made

@charge.compensate()
def refund(order: Order, made: list[Charge | None] | None, call: Call) -> None:
    deeper(made)

def keep(""",
).replace("flow.on_failure(to=over)", "flow.on_failure(to=over, compensate=True)")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("    deeper(made)", "    print(made)"),
        ("    return made", "    return 5"),
        ("def refund", "async def refund"),
    ],
)
def test_the_code_hash_does_not_see_how_it_is_undone(tmp_path: Path, before: str, after: str) -> None:
    assert UNDOING.count(before) == 1
    unchanged = hash_of(tmp_path / "one", UNDOING)
    assert hash_of(tmp_path / "two", UNDOING.replace(before, after)) == unchanged


def test_what_is_stopped_has_an_id_of_its_own() -> None:
    made = Trade()
    case = given(made.flow, Placed())
    assert case.run is not None
    execution = doing(case)
    known = idempotency_key(case.machine, case.run.key, 0, execution)
    kinds = ("done", "failed", "tried", "stopped")
    ids = [event_id(case.machine, case.run, execution, 1, kind) for kind in kinds]
    assert ids == [f"{known}/1/done", f"{known}/1", f"{known}/1", f"{known}/1/stopped"]


# The test kit.


def test_a_test_says_how_steps_were_undone() -> None:
    made = Trade()
    case = given(made.flow, Placed()).step_done(made.charge, OK).when(Returned())
    case.step_stopped(made.pack, "ended", 3).then_owes(made.pack, made.charge).then_runs(made.unpack)
    case.undone(made.unpack).then_owes(made.charge).then_runs(made.refund)
    case.undone(made.refund).then(state="open").then_owes().then_runs_nothing()
    assert isinstance(case.outcome, Moved)


def test_a_test_says_that_it_failed() -> None:
    made = Trade()
    case = given(made.flow, Placed()).step_done(made.charge, OK).when(Cancelled())
    case.step_stopped(made.pack, "never").undoing_failed(made.refund, OSError("x"), attempts=2)
    case.then_refused(
        Reason.STEP_FAILED, saying="the compensation refund failed after 2 attempts, so that charge"
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda case, made: case.then_owes(), "what the run has to undo is 'charge', not no step"),
        (lambda case, made: case.then_owes(made.pack), "has to undo is 'charge', not 'pack'"),
        (lambda case, made: case.undone(made.refund), "the run does not do 'refund', but 'pack'"),
        (lambda case, made: case.step_stopped(made.pack, "never"), "does not do 'pack', but no step"),
        (lambda case, made: case.step_stopped(made.pack, "over"), "and not as 'over'"),
        (
            lambda case, made: case.when(Cancelled()).step_stopped(made.pack, "ended", "x"),
            "pack returned str, which does not",
        ),
        (
            lambda case, made: case.when(Cancelled()).step_done(made.pack, 3),
            "does not do 'pack', but no step",
        ),
    ],
)
def test_what_does_not_hold_is_said(wrong: Any, said: str) -> None:
    made = Trade()
    with pytest.raises(AssertionError, match=said):
        wrong(given(made.flow, Placed()).step_done(made.charge, OK), made)


def test_without_a_run_nothing_is_owed() -> None:
    given(Trade().flow).then_owes()
