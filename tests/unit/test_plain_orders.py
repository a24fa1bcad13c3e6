"""The life of a plain order, without steps, told with the test kit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from statemachines import Publish
from statemachines.outcome import Reason
from statemachines.testkit import given
from tests.plain_orders import (
    Order,
    OrderCancelled,
    OrderCompleted,
    OrderDelivered,
    OrderPacked,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    RefundDue,
    covers_amount,
    flow,
)

PLACED = OrderPlaced(order_id="o-1", customer="Ada", amount=500, items=["lamp", "bulb"])
PAID = OrderPaid(order_id="o-1", amount=500)
PACKED = OrderPacked(order_id="o-1")
SHIPPED = OrderShipped(order_id="o-1", tracking="T-77")
DELIVERED = OrderDelivered(order_id="o-1")
CANCELLED = OrderCancelled(order_id="o-1", why="changed my mind")


def test_a_placed_order_waits_for_its_money() -> None:
    given(flow).when(PLACED).then(
        state="placed", context={"amount": 500, "received": 0, "items": ["lamp", "bulb"]}, publishes=[]
    )


def test_an_order_goes_its_way_and_others_hear_of_its_end() -> None:
    order = given(flow, PLACED, PAID, PACKED, SHIPPED)
    completed = OrderCompleted(order_id="o-1", customer="Ada", amount=500, tracking="T-77")
    order.when(DELIVERED).then(state="delivered", ended=True, publishes=[Publish("orders-out", completed)])


def test_part_payments_add_up() -> None:
    order = given(flow, PLACED)
    order.when(OrderPaid(order_id="o-1", amount=200)).then(state="placed", context={"received": 200})
    order.when(OrderPaid(order_id="o-1", amount=299)).then(state="placed", context={"received": 499})
    order.when(OrderPaid(order_id="o-1", amount=1)).then(state="paid", context={"received": 500})


def test_an_order_cancelled_before_any_payment_owes_nothing() -> None:
    given(flow, PLACED).when(CANCELLED).then(state="cancelled", ended=True, publishes=[])


@pytest.mark.parametrize("before", [[PAID], [PAID, PACKED], [PAID, PACKED, SHIPPED]])
def test_an_order_cancelled_after_payment_owes_a_refund(before: list[OrderPaid]) -> None:
    due = RefundDue(order_id="o-1", customer="Ada", amount=500, why="changed my mind")
    order = given(flow, PLACED, *before)
    order.when(CANCELLED).then(state="cancelled", publishes=[Publish("orders-out", due)])


def test_a_part_payment_is_given_back_too() -> None:
    order = given(flow, PLACED, OrderPaid(order_id="o-1", amount=200)).when(CANCELLED)
    order.then(publishes=[RefundDue(order_id="o-1", customer="Ada", amount=200, why="changed my mind")])


def test_an_order_is_not_packed_before_it_is_paid() -> None:
    given(flow, PLACED).when(PACKED).then_refused(Reason.UNEXPECTED, saying="placed has no transition for it")


def test_an_order_that_has_ended_takes_nothing_more() -> None:
    order = given(flow, PLACED, CANCELLED)
    order.when(PAID).then_refused(Reason.CLOSED, saying="ended in cancelled", holds=False)


TELL = """
from statemachines.testkit import given
from tests.unit.test_plain_orders import *
order = given(flow, PLACED)
for event in (OrderPaid(order_id="o-1", amount=1), PACKED, PAID, PACKED, SHIPPED, DELIVERED, CANCELLED):
    order.when(event)
    print(order.run, order.published, order.outcome)
"""


def test_the_same_events_give_the_same_outcomes_in_any_process() -> None:
    def told(seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", TELL],
            env={"PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    first = told("0")
    assert first.count("delivered") > 0
    assert [told(seed) for seed in ("1", "4711")] == [first, first]


def test_a_rule_is_called_as_it_is() -> None:
    order = Order(order_id="o-1", customer="Ada", amount=500, items=[], received=100)
    assert covers_amount(order, OrderPaid(order_id="o-1", amount=400))
    assert not covers_amount(order, OrderPaid(order_id="o-1", amount=399))
