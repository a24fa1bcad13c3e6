"""The life of an order, from the basket to the door, and back again where something goes wrong on the way.

Read it from top to bottom: what happens outside, what a run remembers, the work and how it is undone, the states, the
rules, and last the table of moves, which is the process itself. Each function is a plain one; call it in a test as it
is. What the work is done with, a bank, a warehouse and a carrier, is ``outside.py``, which stands for the clients of
real services.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, PositiveInt

from statemachines import (
    Call,
    Cancelled,
    Context,
    Done,
    Event,
    Pipeline,
    Publish,
    Retry,
    StepFailed,
    exponential,
)
from statemachines.shipped import outside
from statemachines.shipped.outside import CardRefused

# What happens outside. Amounts are in cents.


class OrderPlaced(Event, type="order.placed", key="order_id"):
    """A customer has sent off a basket."""

    order_id: str
    customer: str
    card: str
    amount: PositiveInt
    items: list[str]


class OrderCancelled(Event, type="order.cancelled", key="order_id"):
    """The customer has called it off."""

    order_id: str
    why: str


class ParcelDelivered(Event, type="parcel.delivered", key="order_id"):
    """The customer has the parcel."""

    order_id: str
    signed_by: str


class ParcelLost(Event, type="parcel.lost", key="order_id"):
    """The carrier cannot find the parcel any more."""

    order_id: str
    where: str


# What others hear from us, on the topic orders-out.


class OrderCompleted(Event, type="order.completed", key="order_id"):
    """An order has reached its customer."""

    order_id: str
    customer: str
    amount: int
    tracking: str


class OrderCalledOff(Event, type="order.called_off", key="order_id"):
    """An order has come to nothing, and what was done for it is undone."""

    order_id: str
    customer: str
    why: str


# What a run remembers.


class Order(Context):
    """One order; it has its data from the event that placed it."""

    order_id: str
    customer: str
    card: str
    amount: int
    items: list[str]
    payment: str | None = None
    shelf: str | None = None
    tracking: str | None = None
    why: str = ""


flow = Pipeline(
    "order", Order, version=1, topics=["orders"], description="An order, from the basket to the door"
)


# The work, and how it is undone. It may be begun more than once, under one key: so it is done once all the same.


class Payment(BaseModel):
    """What the bank says of a charge."""

    number: str
    amount: int


@flow.step(
    timeout=timedelta(seconds=30), retry=Retry(attempts=5, wait=exponential(1, 60), unless=CardRefused)
)
async def charge(order: Order, call: Call) -> Payment:
    """Take the money."""
    number = await outside.charge(order.order_id, order.card, order.amount, key=call.idempotency_key)
    return Payment(number=number, amount=order.amount)


@charge.compensate(retry=Retry(attempts=20, wait=exponential(1, 600)))
async def refund(order: Order, _: Payment | None, call: Call) -> None:
    """Give it back, if it was taken: the bank knows that by the key of the charge, also where we never heard."""
    await outside.refund(order.order_id, charged_as=call.of.idempotency_key, key=call.idempotency_key)


@flow.step(timeout=timedelta(seconds=30))
async def reserve(order: Order, call: Call) -> str:
    """Have the goods put aside."""
    return await outside.reserve(order.order_id, order.items, key=call.idempotency_key)


@reserve.compensate(retry=Retry(attempts=20, wait=exponential(1, 600)))
async def release(order: Order, _: str | None, call: Call) -> None:
    """Have them put back."""
    await outside.release(order.order_id, reserved_as=call.of.idempotency_key, key=call.idempotency_key)


@flow.step(timeout=timedelta(seconds=30))
async def ship(order: Order, call: Call) -> str:
    """Hand the parcel to the carrier. Nothing calls it back: so no customer cancels an order once this is asked for."""
    return await outside.ship(order.order_id, key=call.idempotency_key)


# The states.

charging = flow.state("charging", run=charge, initial=True)
reserving = flow.state("reserving", run=reserve)
shipping = flow.state("shipping", run=ship)
under_way = flow.state("under_way", description="the carrier has the parcel")
delivered = flow.state("delivered", final=True)
refused = flow.state("refused", final=True, description="there was nothing to undo")
cancelled = flow.state("cancelled", final=True)
lost = flow.state("lost", final=True)
failed = flow.state("failed", final=True)


# The rules.


def open_order(event: OrderPlaced) -> Order:
    """A new order, nothing done for it yet."""
    return Order(
        order_id=event.order_id,
        customer=event.customer,
        card=event.card,
        amount=event.amount,
        items=event.items,
    )


def note_payment(order: Order, got: Done[Payment]) -> None:
    """Remember what the bank said."""
    order.payment = got.result.number


def note_shelf(order: Order, got: Done[str]) -> None:
    """Remember where the goods are."""
    order.shelf = got.result


def note_tracking(order: Order, got: Done[str]) -> None:
    """Remember how the parcel is found."""
    order.tracking = got.result


def is_with_us(order: Order, _: OrderCancelled) -> bool:
    """Whether the goods are not on their way to the carrier yet."""
    return order.shelf is None


def note_wish(order: Order, event: OrderCancelled) -> None:
    """Remember what the customer said."""
    order.why = event.why


def note_loss(order: Order, event: ParcelLost) -> None:
    """Remember where it was seen last."""
    order.why = f"the parcel was lost in {event.where}"


def note_failure(order: Order, event: StepFailed) -> None:
    """Remember what could not be done."""
    order.why = event.message


def note_who(order: Order, event: Cancelled) -> None:
    """Remember which of us called it off."""
    order.why = f"{event.who}: {event.why}"


def announce(order: Order, _: ParcelDelivered) -> Publish:
    """Tell the others that the order is complete."""
    completed = OrderCompleted(
        order_id=order.order_id,
        customer=order.customer,
        amount=order.amount,
        tracking=order.tracking or "",
    )
    return Publish("orders-out", completed)


def apologise(order: Order, _: Event) -> Publish:
    """Tell the others that it has come to nothing; by then all is undone."""
    return Publish(
        "orders-out", OrderCalledOff(order_id=order.order_id, customer=order.customer, why=order.why)
    )


# The moves, in the order of the process; and then, from any of its states, the ways back.

flow.start(OrderPlaced, open_order)
charging.on(charge.done, to=reserving, do=note_payment)
charging.on(charge.failed_with(CardRefused), to=refused, do=note_failure)
reserving.on(reserve.done, to=shipping, do=note_shelf)
shipping.on(ship.done, to=under_way, do=note_tracking)
under_way.on(ParcelDelivered, to=delivered, do=announce)

flow.on(OrderCancelled, to=cancelled, when=is_with_us, do=note_wish, compensate=True)
flow.on(ParcelLost, to=lost, do=note_loss, compensate=True)
flow.on_failure(to=failed, do=note_failure, compensate=True)
flow.on_cancel(to=cancelled, do=note_who, compensate=True)

for too_late in (shipping, under_way):
    too_late.policy(OrderCancelled, unexpected="dead_letter")
for end in (refused, cancelled, lost, failed):
    end.entry(apologise)
