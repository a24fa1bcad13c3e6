"""Steps that change in place the context that they are given: each of them is named once, and nothing is kept of it."""

from __future__ import annotations

import logging
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

import pytest
from pydantic import Field, field_serializer

from engine.steps.untouched import is_plain
from statemachines import Call, Context, Event, Pipeline
from statemachines.machine import compile_pipeline
from tests.feeding import event
from tests.simulated import BEGINS_SECONDS, Simulated

TOPIC = "carts"


class Placed(Event, type="cart.placed", key="cart"):
    cart: str


class Item(Context):
    name: str


class Cart(Context):
    cart: str
    items: list[Item] = Field(default_factory=list)
    odd: int = 0

    @field_serializer("odd")
    def written_otherwise_than_read(self, odd: int) -> int:
        return odd + 1


class Colour(StrEnum):
    RED = "red"


class Plain(Context):
    cart: str
    at: datetime | None = None
    colour: Colour = Colour.RED
    size: Annotated[int, Field(gt=0)] = 1
    kind: Literal["a", "b"] = "a"


def carts(*, changes: bool) -> Pipeline[Cart]:
    flow = Pipeline("carts", Cart, topics=[TOPIC])

    @flow.step()
    async def price(cart: Cart, call: Call) -> None:
        del call
        if changes:
            cart.items.append(Item(name="a pear"))

    @flow.step()
    def pack(cart: Cart, call: Call) -> None:
        del call
        if changes:
            cart.items[0].name = "a pear"

    pricing, packing = flow.state("pricing", run=price, initial=True), flow.state("packing", run=pack)
    packed = flow.state("packed")
    flow.start(Placed, lambda event: Cart(cart=event.cart, items=[Item(name="an apple")]))
    pricing.on(price.done, to=packing)
    packing.on(pack.done, to=packed)
    return flow


def lived(flow: Pipeline[Cart]) -> set[str]:
    world = Simulated(compile_pipeline(flow), TOPIC)
    for cart in ("c1", "c2"):
        world.source.append(event("cart.placed", {"cart": cart}, topic=TOPIC))
    world.live(lambda: world.seconds() > BEGINS_SECONDS + 20)
    return {run.configuration for _, run in world.tables.runs.values()}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_each_step_that_changes_its_context_in_place_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    assert lived(carts(changes=True)) == {"packed"}
    first, second = warnings(caplog)
    assert first.startswith(
        "the step price of the run 'c1' has changed the context in place (items), and that is lost: what a step is "
    )
    assert second.startswith("the step pack of the run 'c1' has changed the context in place (items)")


def test_one_that_leaves_it_as_it_is_is_not(caplog: pytest.LogCaptureFixture) -> None:
    assert lived(carts(changes=False)) == {"packed"}
    assert not warnings(caplog)


def test_what_has_nothing_within_that_can_be_changed_is_not_looked_at() -> None:
    assert is_plain(Plain)
    assert not is_plain(Cart)
