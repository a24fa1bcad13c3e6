"""The Mermaid text of a pipeline: what it shows, and names that Mermaid would stumble over."""

from __future__ import annotations

from statemachines import Event, Pipeline
from statemachines.diagram import Marks, to_mermaid
from tests.plain_orders import flow as orders
from tests.unit.machines import Account, Opened, open_account

ORDERS = """\
---
title: "order version 1: An order, from basket to door"
---
stateDiagram-v2
  direction LR
  state "placed" as placed
  placed: waits for the money
  state "paid" as paid
  paid: waits to be packed
  state "packed" as packed
  packed: waits for the carrier
  state "shipped" as shipped
  shipped: is on its way
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


def test_what_describes_a_pipeline_and_its_states_is_drawn() -> None:
    flow = Pipeline("told", Account, topics=["odd"], description='what "it" is for')
    both = flow.state("both", initial=True, description="all of it;\nat once")
    both.region("one", description="the first").state("in", initial=True, description="[inside]")
    both.region("two", description="a lone \ud800").state("out", initial=True)
    flow.start(Opened, open_account)
    lines = [line.strip() for line in to_mermaid(flow).splitlines()]
    assert lines[1] == 'title: "told version 1: what \\"it\\" is for"'
    assert 'state "both<br>all of it#59; at once" as both {' in lines
    assert 'state "one<br>the first" as one {' in lines
    assert "in: #91;inside#93;" in lines
    assert 'state "two" as two {' in lines, "what cannot be written is not drawn"


def test_of_a_pipeline_with_mistakes_the_part_that_is_right_is_drawn() -> None:
    flow = Pipeline("half", Account, topics=["half"])
    flow.state("only", initial=True).on(Event.named("lost"), to="nowhere")
    flow.start(Opened, open_account, to="nowhere")
    text = to_mermaid(flow)
    assert 'state "only" as only' in text
    assert "nowhere" not in text


def test_marks_are_said_behind_names_and_shown_by_classes() -> None:
    flow = Pipeline("marked", Account, topics=["odd"])
    end, last = flow.state("end", initial=True), flow.state("la;st", final=True)
    flow.start(Opened, open_account)
    end.on(Event.named("left"), to=last)
    marks = Marks(
        here=["la;st"],
        passed=["end", "la;st", "elsewhere"],
        states={"end": "1,000"},
        starts={flow.starts[0]: "row 1"},
        moves={("end", flow.moves[0]): "rows 2, 3?"},
    )
    lines = [line.strip() for line in to_mermaid(flow, marks).splitlines()]
    assert lines[5:] == [
        'state "end (1,000)" as state_0',
        'state "la#59;st" as state_1',
        "[*] --> state_0: opened (row 1)",
        "state_0 --> state_1: left (rows 2, 3?)",
        "state_1 --> [*]",
        "classDef here fill:#ffe082,stroke:#e65100,stroke-width:3px,color:#000",
        "class state_1 here",
        "classDef passed fill:#e3f2fd,stroke:#1565c0,color:#000",
        "class state_0 passed",
    ]
    assert "classDef" not in to_mermaid(flow)
