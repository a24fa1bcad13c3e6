"""A small pipeline with everything that can happen to an event."""

from __future__ import annotations

from pydantic import Field

from statemachines.context import Context
from statemachines.definition import Pipeline, Topic
from statemachines.effects import Publish
from statemachines.events import Event
from statemachines.policies import Closed, NoRun, Unexpected


class OrderPlaced(Event, type="order.placed", key="order_id"):
    order_id: str
    amount: int


class OrderPaid(Event, type="order.paid", key="order_id"):
    order_id: str
    amount: int


class OrderNoted(Event, type="order.noted", key="order_id"):
    order_id: str
    text: str = ""


class OrderShipped(Event, type="order.shipped", key="order_id"):
    order_id: str


class OrderBroken(Event, type="order.broken", key="order_id"):
    order_id: str


class OrderImported(Event, type="order.imported", key="order_id"):
    order_id: str
    amount: int


class PaymentSeen(Event, type="payment.seen"):
    amount: int


class OrderContext(Context):
    amount: int
    paid: int = 0
    notes: list[str] = Field(default_factory=list)


BROKEN = {"order.broken"}
"""The types whose action raises, for as long as they are in here: a test mends it by taking it out."""


def begin(event: OrderPlaced) -> OrderContext:
    return OrderContext(amount=event.amount)


def take_over(event: OrderImported) -> OrderContext:
    return OrderContext(amount=event.amount)


def covers(context: OrderContext, event: OrderPaid) -> bool:
    return context.paid + event.amount >= context.amount


def is_part(context: OrderContext, event: OrderPaid) -> bool:
    return 0 < event.amount < context.amount


def pay(context: OrderContext, event: OrderPaid) -> Publish:
    context.paid += event.amount
    return Publish("payments", PaymentSeen(amount=event.amount))


def add_note(context: OrderContext, event: OrderNoted) -> None:
    context.notes.append(event.text)


def breaks(context: OrderContext, event: OrderBroken) -> None:
    if "order.broken" in BROKEN:
        raise ValueError(f"order {event.order_id} cannot be mended")
    context.notes.append("mended")


def shop(
    *,
    name: str = "shop",
    version: int = 1,
    topic: Topic | None = None,
    unexpected: Unexpected = "dead_letter",
    no_run: NoRun = "dead_letter",
    closed: Closed = "dead_letter",
) -> Pipeline[OrderContext]:
    """placed -> paid -> shipped, with notes in any state, and an event whose action raises."""
    pipeline = Pipeline(
        name,
        OrderContext,
        version=version,
        topics=[topic or Topic("orders")],
        unexpected=unexpected,
        no_run=no_run,
        closed=closed,
    )
    placed = pipeline.state("placed", initial=True)
    paid = pipeline.state("paid")
    shipped = pipeline.state("shipped", final=True)
    pipeline.start(OrderPlaced, begin)
    placed.on(OrderPaid, to=paid, when=covers, do=pay)
    placed.on(OrderPaid, when=is_part, do=pay)
    paid.on(OrderShipped, to=shipped)
    pipeline.on(OrderNoted, do=add_note)
    pipeline.on(OrderBroken, do=breaks)
    return pipeline


def blind_shop(topic: Topic) -> Pipeline[OrderContext]:
    """The shop as it might have begun: it knows imported orders, and none that were placed."""
    pipeline = Pipeline("shop", OrderContext, topics=[topic])
    pipeline.state("placed", initial=True)
    closed = pipeline.state("closed", final=True)
    pipeline.start(OrderImported, take_over)
    pipeline.on(OrderNoted, to=closed)
    return pipeline
