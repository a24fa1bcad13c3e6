"""Orders that are placed, and called off while a step is at work for them."""

from __future__ import annotations

from statemachines import Context, Event


class Placed(Event, type="order.placed", key="order"):
    order: str


class Off(Event, type="order.off", key="order"):
    order: str


class Order(Context):
    order: str
