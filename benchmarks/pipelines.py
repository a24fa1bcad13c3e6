"""The pipelines that are measured; each move validates its event and changes the run's context.

BENCHMARK_TOPIC names the topic that they read, BENCHMARK_OUT the one that they publish to.
"""

from __future__ import annotations

import os

from statemachines import Context, Event, Pipeline, Publish, in_state

TOPIC = os.environ.get("BENCHMARK_TOPIC", "orders")
OUT = os.environ.get("BENCHMARK_OUT", "orders-out")


class Amounted(Event):
    amount: int
    items: list[int]


class Placed(Amounted, type="order.placed"):
    pass


class Charged(Amounted, type="order.charged"):
    pass


class Packed(Amounted, type="order.packed"):
    pass


class Shipped(Amounted, type="order.shipped"):
    pass


class Delivered(Amounted, type="order.delivered"):
    pass


class OrderMoved(Event, type="order.moved"):
    amount: int
    moves: int


class Order(Context):
    amount: int
    moves: int


def begin(event: Placed) -> Order:
    return Order(amount=event.amount, moves=1)


def note(order: Order, event: Amounted) -> None:
    order.amount = event.amount
    order.moves += 1


def announce(order: Order, event: Amounted) -> Publish:
    del event
    return Publish(OUT, OrderMoved(amount=order.amount, moves=order.moves))


def note_and_announce(order: Order, event: Amounted) -> Publish:
    note(order, event)
    return announce(order, event)


def order_pipeline(name: str, *, publishing: bool) -> Pipeline[Order]:
    flow = Pipeline(name, Order, version=1, topics=[TOPIC])
    do = note_and_announce if publishing else note
    placed = flow.state("placed", initial=True)
    charged, packed, shipped = flow.state("charged"), flow.state("packed"), flow.state("shipped")
    delivered = flow.state("delivered", final=True)
    flow.start(Placed, begin, do=announce if publishing else None)
    placed.on(Charged, to=charged, do=do)
    charged.on(Packed, to=packed, do=do)
    packed.on(Shipped, to=shipped, do=do)
    shipped.on(Delivered, to=delivered, do=do)
    return flow


orders = order_pipeline("order", publishing=False)
orders_publishing = order_pipeline("order-publishing", publishing=True)


def order_chart() -> Pipeline[Order]:
    """The same life with two regions in a state: what is packed and shipped, and what is charged."""
    flow = Pipeline("order-chart", Order, version=1, topics=[TOPIC])
    live = flow.state("live", initial=True)
    goods, money = live.region("goods"), live.region("money")
    placed = goods.state("placed", initial=True)
    packed, shipped = goods.state("packed"), goods.state("shipped")
    unpaid, charged = money.state("unpaid", initial=True), money.state("charged")
    delivered = flow.state("delivered", final=True)
    flow.start(Placed, begin)
    unpaid.on(Charged, to=charged, do=note)
    placed.on(Packed, to=packed, do=note, when=in_state(charged))
    packed.on(Shipped, to=shipped, do=note)
    live.on(Delivered, to=delivered, do=note)
    return flow


orders_chart = order_chart()


class Opened(Amounted, type="ledger.opened"):
    pass


class Entered(Amounted, type="ledger.entered"):
    pass


class Closed(Amounted, type="ledger.closed"):
    pass


class Ledger(Context):
    balance: int
    entries: int


def open_ledger(event: Opened) -> Ledger:
    return Ledger(balance=event.amount, entries=1)


def enter(ledger: Ledger, event: Entered) -> None:
    ledger.balance += event.amount
    ledger.entries += 1


ledgers = Pipeline("ledger", Ledger, version=1, topics=[TOPIC])
opened = ledgers.state("open", initial=True)
closed = ledgers.state("closed", final=True)
ledgers.start(Opened, open_ledger)
opened.on(Entered, do=enter)
opened.on(Closed, to=closed)
