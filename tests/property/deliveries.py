"""Orders in two versions: much of what pipelines may have, and work that fails.

Version 2 gives a state and a step other names, has other policies and another order of undoing, and is mended code.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
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
from statemachines.step import AsyncStep, Call, Retry, exponential
from tests.feeding import TOPIC
from tests.property.waiting import MINUTE

KEYS = ("first", "second", "third")
BAD = 4
"""Version 1 fails for a note of this number."""
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


SUSPENDED, RESUMED, UNDONE, REDONE, CALLED_OFF, REMINDED = (
    OfOrder.named(f"order.{name}")
    for name in ("suspended", "resumed", "undone", "redone", "called_off", "reminded")
)


class Order(Context):
    order: str
    tenant: Annotated[str, Searchable()]
    strict: bool
    count: Annotated[int, Searchable()] = 0


def remind(order: Order, event: Event) -> Out:
    own, first = REMINDED(order=order.order), REMINDED(order=KEYS[0])
    later = Send(own, after=MINUTE / 2, id="later")
    return [Send(own), later, Send(first, to=KEYS[0], pipeline="order"), Publish("announced", own)]


def count(order: Order, event: Event) -> None:
    order.count += 1


def count_or_fail(order: Order, event: Noted) -> None:
    if event.number == BAD:
        raise ValueError("bad")
    order.count += 1


def add_step(flow: Pipeline[Order], name: str, undoing: str, **bounds: Any) -> AsyncStep[Order, str]:
    """One of this name, and what undoes it."""

    async def do(order: Order, call: Call) -> str | Later:
        return await OUTSIDE[-1].do(call)

    async def undo(order: Order, made: str | None, call: Call) -> Later | None:
        result = await OUTSIDE[-1].do(call)
        return result if isinstance(result, Later) else None

    do.__name__, undo.__name__ = name, undoing
    step: AsyncStep[Order, str] = flow.step(timeout=MINUTE, retry=SOME, **bounds)(do)
    step.compensate(timeout=MINUTE, retry=SOME, on_error=name == "charge")(undo)
    return step


@cache
def orders(version: int) -> Pipeline[Order]:
    """Packed and shipped in one region, charged in the other."""
    old = version == 1
    early = Defer(2 * MINUTE, then="ignore" if old else "dead_letter")
    policies: Any = {"closed": "restart", "no_run": early, "unexpected": Defer(3 * MINUTE)}
    flow = Pipeline("order", Order, version=version, topics=[TOPIC], **policies)
    packers = Breaker("packers", failures=4, open_for=MINUTE)
    pack = add_step(flow, *(("pack", "unpack") if old else ("wrap", "unwrap")), breaker=packers)
    charge = add_step(flow, "charge", "refund", limit=Limit("tenant", at_once=1))
    ship = add_step(flow, "ship", "fetch")
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
    flow.start(Placed, lambda event: Order.model_validate(event.model_dump()), do=remind)
    packing.on(pack.done, to=packed)
    packed.after(MINUTE / 2, to=moving)
    moving.on(ship.done, to=gone)
    work.on(SUSPENDED, to=aside)
    work.on(UNDONE, to=aside, compensate=True)
    work.on(REDONE, to=packing, do=lambda order, event: Compensate(work) if order.count % 2 else None)
    aside.on(RESUMED, to=before)
    aside.policy(SUSPENDED, unexpected="ignore")
    charging.on(charge.done, to=charged)
    going.on(going.done, to=settled, do=remind)
    settled.after(MINUTE, to=closed)
    flow.on(REMINDED, do=count)
    flow.on(Noted, do=count_or_fail if old else count)
    flow.on(CALLED_OFF, to=dropped, compensate=True)
    flow.on_failure(to=dropped, compensate=True, when=lambda order, failed: not order.strict)
    flow.on_cancel(to=dropped, compensate=True)
    flow.after(40 * MINUTE, to=dropped, compensate=True)
    flow.policy(Placed, unexpected="ignore" if old else "defer")
    in_order = OrderBy("number", contiguous=True, gap=Defer(2 * MINUTE))
    flow.policy(Noted, order_by=in_order, duplicate_by=["order", "number"])
    return flow
