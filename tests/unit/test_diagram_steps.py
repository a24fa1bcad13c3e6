"""The Mermaid text of pipelines with steps, and the way of a run through them."""

from __future__ import annotations

import pytest

from statemachines import Call, Event, StepFailed
from statemachines.diagram import to_mermaid
from statemachines.outcome import Moved
from statemachines.results import done_event
from statemachines.testkit import given
from statemachines.way import Passage, Way, find_way
from tests.unit.mistaken import right, state_of
from tests.unit.test_way import row, told
from tests.unit.working import Charge, Noted, Order, PaymentError, Placed, Shop, keep, shop

OK = Charge(id="c")


def pack(_order: Order, _call: Call) -> int:
    return 1


SHOP = """\
---
title: "shop version 1"
---
stateDiagram-v2
  direction LR
  state "charging" as charging
  charging: run / charge
  state "paid" as paid
  state "refused" as refused
  state "cancelled" as cancelled
  [*] --> charging: order.placed
  charging --> paid: charge done
  charging --> refused: charge failed with CardRefused
  charging --> cancelled: charge timed out
  charging --> cancelled: order.cancelled
  cancelled --> cancelled: order.cancelled
  charging --> charging: order.again
  cancelled --> charging: order.again
  charging --> paid: order.paid
  cancelled --> paid: order.paid
  charging --> refused: order.refused
  cancelled --> refused: order.refused
  charging --> charging: order.noted [internal]
  cancelled --> cancelled: order.noted [internal]
  paid --> [*]
  refused --> [*]
"""


def test_states_say_what_they_run_and_transitions_how_it_ended() -> None:
    assert to_mermaid(shop().flow) == SHOP


@pytest.mark.parametrize(
    ("event", "label"),
    [
        (lambda made: made.charge.failed, "charge failed"),
        (lambda made: made.charge.failed_with(PaymentError), "charge failed with PaymentError"),
        (lambda _made: StepFailed, "any step failed"),
        (lambda _made: Event.named("done.step.other"), "done.step.other"),
    ],
)
def test_how_it_ended_is_told_in_words(event: object, label: str) -> None:
    made = Shop()
    assert callable(event)
    made.charging.on(event(made), to=made.paid)
    assert f"  charging --> paid: {label}\n" in to_mermaid(made.flow)


def test_what_the_pipeline_takes_of_a_step_is_drawn_where_that_runs() -> None:
    made = shop()
    around = made.flow.state("around")
    around.state("in", initial=True, run=made.flow.step()(pack))
    made.flow.on(made.charge.failed, to=made.paid)
    made.flow.on_failure(to=made.refused)
    drawn = to_mermaid(made.flow).splitlines()
    assert [one for one in drawn if one.endswith(("charge failed", "any step failed"))] == [
        "  charging --> paid: charge failed",
        "  charging --> refused: any step failed",
        "  around --> refused: any step failed",
    ]


def test_what_is_no_step_is_drawn_all_the_same() -> None:
    flow = right()
    state_of(flow, "open").run = "charge"
    assert "open: run / charge" in to_mermaid(flow)


# The way of a run.


def way_of(made: Shop, before: str, event_type: str, after: str) -> Way:
    return find_way(given(made.flow).machine, [(Passage(event_type, before, after), row(2))])


def test_the_way_of_a_run_knows_what_a_step_led_to() -> None:
    made = shop()
    way = way_of(made, "charging", "failed.step.charge.CardRefused", "refused")
    assert told(way) == {"charging -failed.step.charge.CardRefused-> refused": ["2"]}
    assert way.unexplained.first == []
    assert way_of(made, "charging", "failed.step.charge", "refused").unexplained.first == [2]


def test_no_step_ends_by_itself() -> None:
    made = Shop()
    later = made.flow.state("later")
    made.charging.on(made.charge.done, to=later)
    assert way_of(made, "charging", "done.step.charge", "later").unexplained.first == []
    assert way_of(made, "charging", "order.noted", "later").unexplained.first == [2]


def test_one_of_two_states_that_run_a_step_has_gone_on() -> None:
    made = Shop()
    wide = made.flow.state("wide")
    for name in ("left", "right"):
        region = wide.region(name)
        first = region.state(f"{name}-in", initial=True, run=made.charge)
        first.on(made.charge.done, to=region.state(f"{name}-out"), do=keep)
    made.charging.on(Noted, to=wide)
    case = given(made.flow, Placed(), Noted())
    assert case.run is not None
    before = case.run.configuration
    case.step_done(made.charge, OK, state="left-in")
    assert isinstance(case.outcome, Moved)
    way = way_of(
        made, before, done_event(made.charge, case.executions[0], 1, OK)[0], case.outcome.configuration
    )
    assert told(way) == {"left-in -done.step.charge-> left-out": ["2"]}
