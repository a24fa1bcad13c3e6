"""The pipelines that are measured; each move validates its event and changes the run's context.

Steps write into a ledger (``benchmarks.ledger``), which tells afterwards what was done.

BENCHMARK_TOPIC names the topic that they read, BENCHMARK_OUT the one that they publish to, BENCHMARK_REMINDERS the one
that the pipeline with timers reads.
"""

from __future__ import annotations

import os
from datetime import datetime

from benchmarks import ledger
from benchmarks.sizes import STEPS_AT_ONCE
from statemachines import (
    After,
    Call,
    Context,
    Done,
    Event,
    Pipeline,
    Publish,
    Retry,
    exponential,
    in_state,
)
from statemachines.policies import NoRun

TOPIC = os.environ.get("BENCHMARK_TOPIC", "orders")
OUT = os.environ.get("BENCHMARK_OUT", "orders-out")
REMINDERS = os.environ.get("BENCHMARK_REMINDERS", "reminders")


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


def begin(event: Amounted) -> Order:
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


def order_pipeline(name: str, *, publishing: bool = False, no_run: NoRun = "dead_letter") -> Pipeline[Order]:
    flow = Pipeline(name, Order, version=1, topics=[TOPIC], no_run=no_run)
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


orders = order_pipeline("order")
orders_publishing = order_pipeline("order-publishing", publishing=True)
orders_early = order_pipeline("order-early", no_run="defer")


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


class Refused(Exception):  # noqa: N818 - it is what the carrier says
    """It does not take the parcel."""


def order_saga() -> Pipeline[Order]:
    """W2: started by an event; then three steps, of which the carrier refuses the third for one order in ten."""
    flow = Pipeline("order-saga", Order, version=1, topics=[TOPIC])
    once = Retry(attempts=1)

    @flow.step(retry=once)
    async def charge(order: Order, call: Call) -> int:
        ledger.write(call)
        return order.amount

    @charge.compensate(retry=once)
    async def refund(order: Order, made: int | None, call: Call) -> None:
        del order, made
        ledger.write(call)

    @flow.step(retry=once)
    async def reserve(order: Order, call: Call) -> int:
        ledger.write(call)
        return order.amount + 1

    @reserve.compensate(retry=once)
    async def release(order: Order, made: int | None, call: Call) -> None:
        del order, made
        ledger.write(call)

    @flow.step(retry=once)
    async def ship(order: Order, call: Call) -> int:
        ledger.write(call)
        if ledger.is_refused(call.key):
            raise Refused(call.key)
        return order.amount + 2

    placed = flow.state("placed", run=charge, initial=True)
    charged, reserved = flow.state("charged", run=reserve), flow.state("reserved", run=ship)
    shipped, undone = flow.state("shipped", final=True), flow.state("undone", final=True)
    flow.start(Placed, begin)
    placed.on(charge.done, to=charged, do=note_result)
    charged.on(reserve.done, to=reserved, do=note_result)
    reserved.on(ship.done, to=shipped, do=note_result)
    flow.on_failure(to=undone, compensate=True)
    return flow


def note_result(order: Order, got: Done[int]) -> None:
    order.amount = got.result
    order.moves += 1


orders_saga = order_saga()


def order_waiting(*, at_once: int | None, attempts: int) -> Pipeline[Order]:
    """Started by an event; then one step, which is done once it is let go, or after a moment.

    What is charged first has no step to wait for, and rests.
    """
    flow = Pipeline("order-waiting", Order, version=1, topics=[TOPIC])

    @flow.step(at_once=at_once, retry=Retry(attempts=attempts, wait=exponential(0.1, 1)))
    async def ship(order: Order, call: Call) -> int:
        ledger.write(call)
        await ledger.may_end()
        ledger.write(call, ends=True)
        return order.amount

    placed = flow.state("placed", run=ship, initial=True)
    shipped = flow.state("shipped", final=True)
    resting = flow.state("resting")
    flow.start(Placed, begin)
    flow.start(Charged, begin, to=resting)
    resting.on(Packed, to=shipped)
    placed.on(ship.done, to=shipped, do=note_result)
    flow.on_failure(to=flow.state("failed", final=True))
    return flow


orders_limited = order_waiting(at_once=STEPS_AT_ONCE, attempts=1)
orders_held = order_waiting(at_once=None, attempts=10)


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


class Asked(Event, type="reminder.asked"):
    due: datetime


class Reminder(Context):
    due: datetime
    moves: int


def ask(event: Asked) -> Reminder:
    return Reminder(due=event.due, moves=1)


def remind(reminder: Reminder, event: After) -> None:
    del event
    reminder.moves += 1


def when_due(reminder: Reminder) -> datetime:
    return reminder.due


def reminder_pipeline(topic: str) -> Pipeline[Reminder]:
    """Runs that wait for a time, each for its own, and do something then."""
    flow = Pipeline("reminder", Reminder, version=1, topics=[topic])
    pending = flow.state("pending", initial=True)
    reminded = flow.state("reminded")
    flow.start(Asked, ask)
    pending.after(when_due, to=reminded, do=remind)
    return flow


reminders = reminder_pipeline(REMINDERS)
