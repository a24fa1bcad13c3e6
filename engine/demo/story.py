"""What happens in the demo: a little shop's orders, in the order and at the pace in which they are published.

Most go well. Some are undone: cards are refused, customers think better of it, a parcel is lost. Some events come
twice, as they do where a producer tries again. And five are not as they should be, each in a way of its own.
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
from statemachines.shipped.outside import REFUSED_CARD, SLOW_CARD

PIPELINES = "statemachines.shipped.orders"
NAMESPACE = "demo"
INSTANCE = "demo-1"
TOPIC = "orders"
OUT = "orders-out"
TOPICS = (TOPIC, OUT, f"{TOPIC}.dead-letters")
SOURCE = "/demo/shop"

ORDERS = 48
SECONDS_BETWEEN_ORDERS = 0.16
SECONDS_UNTIL_DELIVERED = (0.4, 1.5)
SECONDS_UNTIL_CANCELLED = 0.3
DOUBLED = 0.25
"""Which part of the events comes twice."""
REFUSED_EVERY = 16
CANCELLED_EVERY = 9
FIRST = 1001
SEED = 2

LOST = "o-1008"
"""Its parcel is lost, long after the card was charged."""
EARLY = "o-1011"
"""Its parcel is delivered before it was placed: the record of the order was late."""
UNREADABLE = "o-1014"
"""The carrier tells of its delivery, signed by nobody; and then again, as it should."""
TORN = "o-1022"
"""A record about it is cut off in the middle."""
TOO_LATE = "o-1025"
"""Called off when the carrier has the parcel."""
KILLED = "o-1028"
"""The bank has taken its money, and the engine is killed before it hears of that."""
UNKNOWN = "o-1030"
"""Something happens to it that no pipeline has heard of."""
HASTY = "o-1033"
"""Its parcel is delivered before the carrier has it, by the order of events; so that waits."""
SPECIAL = (LOST, EARLY, UNREADABLE, TORN, TOO_LATE, KILLED, UNKNOWN, HASTY)

EXPLAINED = f"{TOO_LATE}-cancelled"
UNDER_WAY = orders.under_way.name

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
    """A record, and when it is published."""

    after: float
    """Seconds after the one before it of the same order, or after ``state``."""
    record: Outgoing
    state: str | None = None
    """The state that the order must be in before: the carrier tells of a parcel once it has it."""


class Life(NamedTuple):
    """What is published of one order."""

    order: str
    at: float
    """Seconds from the start."""
    posts: list[Post]


def tell(now: datetime | None = None) -> list[Life]:
    """All that is published; the same in every demo but for its times."""
    now = now or datetime.now(UTC)
    dice = random.Random(SEED)  # noqa: S311 - a story, not a secret
    lives = []
    for number in range(ORDERS):
        order = f"o-{FIRST + number}"
        posts = []
        for post in _life(order, number, dice, now):
            posts.append(post)
            if order not in SPECIAL and dice.random() < DOUBLED:
                posts.append(Post(dice.uniform(0.05, 0.2), post.record))
        lives.append(Life(order, number * SECONDS_BETWEEN_ORDERS, posts))
    return lives


def _life(order: str, number: int, dice: random.Random, now: datetime) -> Iterator[Post]:
    ordinary = order not in SPECIAL
    refused = ordinary and number % REFUSED_EVERY == REFUSED_EVERY - 1
    cancelled = ordinary and number % CANCELLED_EVERY == CANCELLED_EVERY - 1
    placed = orders.OrderPlaced(
        order_id=order,
        customer=dice.choice(_CUSTOMERS),
        card=REFUSED_CARD if refused else SLOW_CARD if cancelled or order == KILLED else "card-good",
        amount=dice.randrange(15, 200) * 100,
        items=[dice.choice(_THINGS)],
    )
    delivered = _record(orders.ParcelDelivered(order_id=order, signed_by=placed.customer), "delivered", now)
    later = dice.uniform(*SECONDS_UNTIL_DELIVERED)
    if order == EARLY:
        yield Post(0.0, delivered)
        yield Post(1.0, _record(placed, "placed", now))
        return
    yield Post(0.0, _record(placed, "placed", now))
    yield from _oddities(order, now)
    if cancelled:
        event = orders.OrderCancelled(order_id=order, why="found it cheaper")
        yield Post(SECONDS_UNTIL_CANCELLED, _record(event, "cancelled", now))
    elif order == LOST:
        lost = orders.ParcelLost(order_id=order, where="Crewe")
        yield Post(later, _record(lost, "lost", now), UNDER_WAY)
    elif order == HASTY:
        yield Post(0.0, delivered)
    elif not refused:
        yield Post(later, delivered, UNDER_WAY)


def _oddities(order: str, now: datetime) -> Iterator[Post]:
    """What comes between an order and its delivery, and should not."""
    if order == UNREADABLE:
        unsigned = b'{"order_id":"%s","signed_by":null}' % order.encode()
        yield Post(0.1, _raw(order, "unsigned", "parcel.delivered", unsigned, now), UNDER_WAY)
    elif order == TORN:
        whole = _record(orders.ParcelDelivered(order_id=order, signed_by="?"), "torn", now)
        value = whole.value or b""
        yield Post(0.2, whole._replace(value=value[: len(value) // 2]))
    elif order == TOO_LATE:
        late = orders.OrderCancelled(order_id=order, why="never mind")
        yield Post(0.1, _record(late, "cancelled", now), UNDER_WAY)
    elif order == UNKNOWN:
        yield Post(0.2, _raw(order, "gift-wrapped", "order.gift_wrapped", b'{"paper":"striped"}', now))


def _record(event: Event, name: str, now: datetime) -> Outgoing:
    data = event.__pydantic_serializer__.to_json(event)
    return _raw(str(event.order_id), name, type(event).event_type(), data, now)  # type: ignore[attr-defined]  # all have one


def _raw(order: str, name: str, event_type: str, data: bytes, now: datetime) -> Outgoing:
    event_id = f"{order}-{name}"
    value = encode_structured(id=event_id, source=SOURCE, type=event_type, data=data, time=now)
    return Outgoing(TOPIC, order.encode(), value, STRUCTURED_HEADERS, event_id)
