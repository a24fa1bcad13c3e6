"""What happens in the demo: a little shop's orders, in the order and at the pace in which they are published.

Most go well. Some events come twice, as they do where a producer tries again. And five are not as they should be, each
in a way of its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from connectors.encode import STRUCTURED_HEADERS, encode_structured
from connectors.publishing import Outgoing
from statemachines.events import Event
from statemachines.shipped import orders

TOPIC = "orders"
OUT = "orders-out"
TOPICS = (TOPIC, OUT, f"{TOPIC}.dead-letters")
SOURCE = "/demo/shop"

ORDERS = 48
SECONDS_BETWEEN_ORDERS = 0.16
SECONDS_BETWEEN_EVENTS = (0.4, 1.5)
DOUBLED = 0.12
"""Which part of the events comes twice."""
CANCELLED_EVERY = 9
PAID_IN_PARTS_EVERY = 6
FIRST = 1001
SEED = 2

EARLY = "o-1011"
"""Its payment comes before it was placed."""
UNREADABLE_AMOUNT = "o-1017"
"""Its payment has words where the amount should be."""
TORN = "o-1021"
"""A record about it is cut off in the middle."""
TOO_SOON = "o-1025"
"""Said to be shipped before it was packed."""
UNKNOWN = "o-1030"
"""Something happens to it that no pipeline has heard of."""
SPECIAL = (EARLY, UNREADABLE_AMOUNT, TORN, TOO_SOON, UNKNOWN)

_CUSTOMERS = (
    "Ada",
    "Blaise",
    "Edsger",
    "Grace",
    "Hedy",
    "Katherine",
    "Leslie",
    "Margaret",
    "Niklaus",
    "Radia",
)
_THINGS = (
    "lamp",
    "kettle",
    "signal flag",
    "pocket watch",
    "lantern",
    "whistle",
    "ticket punch",
    "switch lever",
)


class Post(NamedTuple):
    """A record, and when it is published: in seconds from the start."""

    at: float
    record: Outgoing


def tell(now: datetime | None = None) -> list[Post]:
    """All records, in the order in which they are published; the same in every demo but for their times."""
    now = now or datetime.now(UTC)
    dice = random.Random(SEED)  # noqa: S311 - a story, not a secret
    posts: list[Post] = []
    for number in range(ORDERS):
        order = f"o-{FIRST + number}"
        for post in _life(order, number, dice, now):
            posts.append(post)
            if order not in SPECIAL and dice.random() < DOUBLED:
                posts.append(Post(post.at + dice.uniform(0.05, 0.3), post.record))
    return sorted(posts, key=lambda post: post.at)


def _life(order: str, number: int, dice: random.Random, now: datetime) -> Iterator[Post]:
    at = number * SECONDS_BETWEEN_ORDERS
    amount = dice.randrange(15, 200) * 100
    placed = orders.OrderPlaced(
        order_id=order, customer=dice.choice(_CUSTOMERS), amount=amount, items=[dice.choice(_THINGS)]
    )
    if order == EARLY:
        yield Post(at, _record(orders.OrderPaid(order_id=order, amount=amount), "paid", now))
        yield Post(at + 2.0, _record(placed, "placed", now))
        return
    yield Post(at, _record(placed, "placed", now))
    events: list[tuple[str, Event]] = [*_payments(order, number, amount), *_delivery(order)]
    if number % CANCELLED_EVERY == CANCELLED_EVERY - 1:
        events = [*events[:1], ("cancelled", orders.OrderCancelled(order_id=order, why="found it cheaper"))]
    for name, event in events:
        at += dice.uniform(*SECONDS_BETWEEN_EVENTS)
        yield Post(at, _broken_amount(order, now) if _is_broken(order, name) else _record(event, name, now))
        if order == TOO_SOON and name == "paid":
            early = orders.OrderShipped(order_id=order, tracking="T-0000")
            yield Post(at + 0.2, _record(early, "shipped-too-soon", now))
        if order == TORN and name == "paid":
            whole = _record(event, "torn", now)
            yield Post(at + 0.2, whole._replace(value=whole.value[: len(whole.value) // 2]))
        if order == UNKNOWN and name == "paid":
            yield Post(at + 0.2, _gift_wrapped(order, now))


def _payments(order: str, number: int, amount: int) -> list[tuple[str, Event]]:
    if number % PAID_IN_PARTS_EVERY or order in SPECIAL:
        return [("paid", orders.OrderPaid(order_id=order, amount=amount))]
    half = amount // 2
    return [
        ("paid-half", orders.OrderPaid(order_id=order, amount=half)),
        ("paid-rest", orders.OrderPaid(order_id=order, amount=amount - half)),
    ]


def _delivery(order: str) -> list[tuple[str, Event]]:
    return [
        ("packed", orders.OrderPacked(order_id=order)),
        ("shipped", orders.OrderShipped(order_id=order, tracking=f"T-{order[2:]}")),
        ("delivered", orders.OrderDelivered(order_id=order)),
    ]


def _is_broken(order: str, name: str) -> bool:
    return order == UNREADABLE_AMOUNT and name == "paid"


def _record(event: Event, name: str, now: datetime) -> Outgoing:
    data = event.__pydantic_serializer__.to_json(event)
    return _raw(str(event.order_id), name, type(event).event_type(), data, now)  # type: ignore[attr-defined]  # all have one


def _broken_amount(order: str, now: datetime) -> Outgoing:
    data = b'{"order_id":"%s","amount":"forty-two euros"}' % order.encode()
    return _raw(order, "paid", "order.paid", data, now)


def _gift_wrapped(order: str, now: datetime) -> Outgoing:
    data = b'{"order_id":"%s","paper":"striped"}' % order.encode()
    return _raw(order, "gift-wrapped", "order.gift_wrapped", data, now)


def _raw(order: str, name: str, event_type: str, data: bytes, now: datetime) -> Outgoing:
    event_id = f"{order}-{name}"
    value = encode_structured(id=event_id, source=SOURCE, type=event_type, data=data, time=now)
    return Outgoing(TOPIC, order.encode(), value, STRUCTURED_HEADERS, event_id)
