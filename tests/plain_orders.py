"""The life of an order, from the basket to the door, by events alone: nothing is done in the world.

Read it from top to bottom: what happens outside, what a run remembers, the states, the rules, and last the
table of moves, which is the process itself. Each rule is a plain function; call it in a test as it is.
"""

from __future__ import annotations

from pydantic import PositiveInt

from statemachines import Context, Event, Pipeline, Publish

# What happens outside. Amounts are in cents.


class OrderPlaced(Event, type="order.placed", key="order_id"):
    """A customer has sent off a basket."""

    order_id: str
    customer: str
    amount: PositiveInt
    items: list[str]


class OrderPaid(Event, type="order.paid", key="order_id"):
    """Money has come in: all of it, or a part."""

    order_id: str
    amount: PositiveInt


class OrderPacked(Event, type="order.packed", key="order_id"):
    """The parcel is closed."""

    order_id: str


class OrderShipped(Event, type="order.shipped", key="order_id"):
    """The carrier has taken the parcel."""

    order_id: str
    tracking: str


class OrderDelivered(Event, type="order.delivered", key="order_id"):
    """The customer has the parcel."""

    order_id: str


class OrderCancelled(Event, type="order.cancelled", key="order_id"):
    """The customer, or we, called it off."""

    order_id: str
    why: str


# What others hear from us, on the topic orders-out.


class OrderCompleted(Event, type="order.completed", key="order_id"):
    """An order has reached its customer."""

    order_id: str
    customer: str
    amount: int
    tracking: str


class RefundDue(Event, type="order.refund_due", key="order_id"):
    """An order was called off after money had come in."""

    order_id: str
    customer: str
    amount: int
    why: str


# What a run remembers.


class Order(Context):
    """One order; it has its data from the event that placed it."""

    order_id: str
    customer: str
    amount: int
    items: list[str]
    received: int = 0
    tracking: str | None = None


flow = Pipeline(
    "order",
    Order,
    version=1,
    topics=["orders"],
    unexpected="dead_letter",
    description="An order, from basket to door",
)

placed = flow.state("placed", initial=True, description="waits for the money")
paid = flow.state("paid", description="waits to be packed")
packed = flow.state("packed", description="waits for the carrier")
shipped = flow.state("shipped", description="is on its way")
delivered = flow.state("delivered", final=True)
cancelled = flow.state("cancelled", final=True)


# The rules.


def open_order(event: OrderPlaced) -> Order:
    """A new order, nothing paid yet."""
    return Order(order_id=event.order_id, customer=event.customer, amount=event.amount, items=event.items)


def covers_amount(order: Order, event: OrderPaid) -> bool:
    """Whether the order is paid for with this payment."""
    return order.received + event.amount >= order.amount


def take_payment(order: Order, event: OrderPaid) -> None:
    """Add a payment to those before it."""
    order.received += event.amount


def note_tracking(order: Order, event: OrderShipped) -> None:
    """Remember how the parcel is found."""
    order.tracking = event.tracking


def announce(order: Order, _: OrderDelivered) -> Publish:
    """Tell the others that the order is complete."""
    completed = OrderCompleted(
        order_id=order.order_id,
        customer=order.customer,
        amount=order.amount,
        tracking=order.tracking or "",
    )
    return Publish("orders-out", completed)


def refund(order: Order, event: OrderCancelled) -> Publish | None:
    """Ask for what was paid to be given back, if anything was."""
    if not order.received:
        return None
    due = RefundDue(order_id=order.order_id, customer=order.customer, amount=order.received, why=event.why)
    return Publish("orders-out", due)


# The moves, in the order of the process.

flow.start(OrderPlaced, open_order)
placed.on(OrderPaid, to=paid, when=covers_amount, do=take_payment)
placed.on(OrderPaid, do=take_payment)
paid.on(OrderPacked, to=packed)
packed.on(OrderShipped, to=shipped, do=note_tracking)
shipped.on(OrderDelivered, to=delivered, do=announce)
flow.on(OrderCancelled, to=cancelled, do=refund)
