"""The Mermaid text of a pipeline: what it shows, and names that Mermaid would stumble over."""

from __future__ import annotations

from statemachines import Event, Pipeline
from statemachines.diagram import to_mermaid
from statemachines.shipped.orders import flow as orders
from tests.unit.machines import Account, Opened, open_account

ORDERS = """\
---
title: "order version 1"
---
stateDiagram-v2
  direction LR
  state "placed" as placed
  state "paid" as paid
  state "packed" as packed
  state "shipped" as shipped
  state "delivered" as delivered
  state "cancelled" as cancelled
  [*] --> placed: order.placed
  placed --> paid: order.paid [covers_amount]
  placed --> placed: order.paid [internal]
  placed --> cancelled: order.cancelled
  paid --> cancelled: order.cancelled
  packed --> cancelled: order.cancelled
  shipped --> cancelled: order.cancelled
  paid --> packed: order.packed
  packed --> shipped: order.shipped
  shipped --> delivered: order.delivered
  delivered --> [*]
  cancelled --> [*]
"""


def test_a_diagram_shows_states_beginnings_ends_events_and_guards() -> None:
    assert to_mermaid(orders) == ORDERS


def test_names_that_mermaid_would_stumble_over_are_escaped() -> None:
    flow = Pipeline("odd", Account, topics=["odd"])
    end = flow.state("end", initial=True)
    last = flow.state('la"st-one', final=True)
    flow.start(Opened, open_account)
    end.on(Event.named("a: b; #1"), to=last, when=lambda _account, _event: True)
    text = to_mermaid(flow)
    assert 'state "end" as state_0' in text
    assert 'state "la#quot;st-one" as state_1' in text
    assert "state_0 --> state_1: a#58; b#59; #35;1 [" in text
    assert "#lt;lambda#gt;]" in text


def test_of_a_pipeline_with_mistakes_the_part_that_is_right_is_drawn() -> None:
    flow = Pipeline("half", Account, topics=["half"])
    flow.state("only", initial=True).on(Event.named("lost"), to="nowhere")
    flow.start(Opened, open_account, to="nowhere")
    text = to_mermaid(flow)
    assert 'state "only" as only' in text
    assert "nowhere" not in text
