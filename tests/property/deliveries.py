"""Orders in two versions: much of what pipelines may have, and work that fails.

Version 2 gives a state and a step other names, has other policies and another order of undoing, and is mended code.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from random import Random
from typing import Annotated, Any

from statemachines.bounds import Breaker, Limit
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.effects import Compensate, Out, Publish, Send
from statemachines.events import Event
from statemachines.later import Later
from statemachines.ordering import OrderBy
from statemachines.policies import Defer
from statemachines.renames import Renames
from statemachines.search import Searchable
from statemachines.step import Call, Retry, exponential

TOPIC = "orders"
MINUTE = timedelta(minutes=1)
RENAMES = Renames({"packing": "wrapping"}, {"pack": "wrap", "unpack": "unwrap"})
"""From version 1 to version 2."""
WAYS = ("done", "done", "done", "done", "fails", "refused", "slow", "heedless", "later", "later")
SOME = Retry(attempts=2, wait=exponential(0.1, 1), unless=PermissionError)


@dataclass
class Outside:
    """Where the work is done: how is drawn for each attempt, the same whenever it begins."""

    seed: int
    calm: bool = False
    """Whether all succeeds at once."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """What slow attempts wait for."""

    async def do(self, call: Call) -> str | Later:
        """Make an attempt; returns what comes of it."""
        way = "done" if self.calm else Random(f"{self.seed}{call.idempotency_key}{call.attempt}").choice(WAYS)
        match way:
            case "fails":
                raise OSError("away")
            case "refused":
                raise PermissionError("never")
            case "slow":
                await self.gate.wait()
            case "heedless":
                while not self.gate.is_set():
                    with contextlib.suppress(asyncio.CancelledError):
                        await self.gate.wait()
        return Later(call.idempotency_key, within=4 * MINUTE) if way == "later" else way


OUTSIDE: list[Outside] = []
"""The one that steps work in, last."""


class OfOrder(Event, type="order.*", key="order"):
    order: str


class Placed(OfOrder, type="order.placed"):
    tenant: str
    strict: bool


class Noted(OfOrder, type="order.noted"):
    number: int


class Poked(OfOrder, type="order.poked"):
    bad: bool


SUSPENDED, RESUMED, UNDONE, REDONE, CALLED_OFF, REMINDED = (
    OfOrder.named(f"order.{name}")
    for name in ("suspended", "resumed", "undone", "redone", "called_off", "reminded")
)


class Order(Context):
    order: str
    tenant: Annotated[str, Searchable()]
    strict: bool
    count: Annotated[int, Searchable()] = 0


def place(event: Placed) -> Order:
    return Order(order=event.order, tenant=event.tenant, strict=event.strict)


def remind(order: Order, event: Event) -> Out:
    reminded = REMINDED(order=order.order)
    return [Send(reminded), Send(reminded, after=MINUTE / 2, id="later"), Publish("announced", reminded)]


def count_one(order: Order, event: Event) -> None:
    order.count += 1


def fail_if_bad(order: Order, event: Poked) -> Out:
    if event.bad:
        raise ValueError("bad")
    return remind(order, event)


def remind_first(order: Order, event: Event) -> Out:
    return Send(REMINDED(order="first"), to="first", pipeline="order")


def step(name: str) -> Callable[[Any, Call], Coroutine[Any, Any, str | Later]]:
    """What does the work of a step of this name."""

    async def work(context: Any, call: Call) -> str | Later:
        return await OUTSIDE[-1].do(call)

    work.__name__ = name
    return work


def undo(name: str) -> Callable[[Any, str | None, Call], Coroutine[Any, Any, Later | None]]:
    """What does the work of a compensation of this name."""

    async def work(context: Any, made: str | None, call: Call) -> Later | None:
        said = await OUTSIDE[-1].do(call)
        return said if isinstance(said, Later) else None

    work.__name__ = name
    return work


@cache
def orders(version: int) -> Pipeline[Order]:
    """Packed and shipped in one region, charged in the other."""
    old = version == 1
    none, other = Defer(2 * MINUTE, then="ignore" if old else "dead_letter"), Defer(3 * MINUTE)
    more: Any = {"closed": "restart", "no_run": none, "unexpected": other}
    flow = Pipeline("order", Order, version=version, topics=[TOPIC], **more)
    packers = Breaker("packers", failures=4, open_for=MINUTE)
    pack = flow.step(timeout=MINUTE, retry=SOME, breaker=packers)(step("pack" if old else "wrap"))
    charge = flow.step(timeout=MINUTE, retry=SOME, limit=Limit("tenant", at_once=1))(step("charge"))
    ship = flow.step(timeout=MINUTE, retry=SOME)(step("ship"))
    pack.compensate(timeout=MINUTE, retry=SOME)(undo("unpack" if old else "unwrap"))
    charge.compensate(timeout=MINUTE, retry=SOME, on_error=True)(undo("refund"))
    ship.compensate(timeout=MINUTE, retry=SOME)(undo("fetch"))
    going = flow.state("going", initial=True)
    goods, money = going.region("goods"), going.region("money")
    work = goods.state("work", initial=True, undo="parallel" if old else ["fetch", "unwrap"])
    packing = work.state("packing" if old else "wrapping", run=pack, initial=True)
    packed, moving = work.state("packed"), work.state("moving", run=ship)
    before = work.history("before", deep=True)
    aside, gone = goods.state("aside"), goods.state("gone", final=True)
    charging = money.state("charging", run=charge, initial=True)
    charged = money.state("charged", final=True)
    settled, closed = flow.state("settled"), flow.state("closed", final=True)
    dropped = flow.state("dropped", final=True)
    flow.start(Placed, place, do=remind)
    packing.on(pack.done, to=packed)
    packed.after(MINUTE / 2, to=moving)
    moving.on(ship.done, to=gone)
    work.on(SUSPENDED, to=aside)
    work.on(UNDONE, to=aside, compensate=True)
    work.on(REDONE, to=packing, do=lambda order, event: Compensate(work) if order.count % 2 else None)
    aside.on(RESUMED, to=before)
    aside.policy(SUSPENDED, unexpected="ignore")
    charging.on(charge.done, to=charged)
    going.on(going.done, to=settled, do=remind_first)
    settled.after(MINUTE, to=closed)
    for quiet in (REMINDED, Noted):
        flow.on(quiet, do=count_one)
    flow.on(Poked, do=fail_if_bad if old else remind)
    flow.on(CALLED_OFF, to=dropped, compensate=True)
    flow.on_failure(to=dropped, compensate=True, when=lambda order, failed: not order.strict)
    flow.on_cancel(to=dropped, compensate=True)
    flow.after(40 * MINUTE, to=dropped, compensate=True)
    flow.policy(Placed, unexpected="ignore" if old else "defer")
    in_order = OrderBy("number", contiguous=True, gap=Defer(2 * MINUTE))
    flow.policy(Noted, order_by=in_order, duplicate_by=["order", "number"])
    return flow
