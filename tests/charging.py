"""Orders that are charged and packed by steps, whose world is scripted by the tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, Field

from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.done import Done
from statemachines.events import Event, StepFailed
from statemachines.step import Call, Retry, exponential

TOPIC = "charging"


class Placed(Event, type="order.placed", key="order"):
    order: str
    amount: int = 7


class Noted(Event, type="order.noted", key="order"):
    order: str
    word: str = ""


class Cancelled(Event, type="order.cancelled", key="order"):
    order: str


class Charge(BaseModel):
    id: str
    amount: int


class Order(Context):
    order: str
    amount: int
    charge: Charge | None = None
    parcels: int = 0
    notes: list[str] = Field(default_factory=list)


class CardRefusedError(Exception):
    """Nothing is to be got from this card."""


class AwayError(Exception):
    """Try again."""


@dataclass
class World:
    """What happened outside, and what is to happen next."""

    calls: list[tuple[str, Call, Order]] = field(default_factory=list)
    script: dict[str, list[Any]] = field(default_factory=dict)
    """By step: what it does in turn: raises an exception, or returns what a function returns; then it succeeds."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, step: str, order: Order, call: Call) -> Any:
        with self.lock:
            self.calls.append((step, call, order))
            script = self.script.get(step)
            return script.pop(0) if script else None

    def attempts(self, step: str) -> list[tuple[str, int]]:
        """(run, attempt) of each call, in order."""
        return [(call.key, call.attempt) for name, call, _ in self.calls if name == step]


WORLD = World()


def clear() -> World:
    """An empty world."""
    WORLD.calls.clear()
    WORLD.script.clear()
    return WORLD


def placed(event: Placed) -> Order:
    return Order(order=event.order, amount=event.amount)


def note_charge(order: Order, got: Done[Charge]) -> None:
    order.charge = got.result


def note_parcels(order: Order, got: Done[int]) -> None:
    order.parcels = got.result


def note(order: Order, event: Noted) -> None:
    order.notes.append(event.word)


def note_failure(order: Order, failed: StepFailed) -> None:
    order.notes.append(f"{failed.error} after {failed.attempts}: {failed.message}")


def charging_pipeline(
    *,
    attempts: int = 3,
    timeout: timedelta | None = None,
    at_once: int | None = None,
    takes_failures: bool = True,
    **bounds: Any,
) -> Pipeline[Order]:
    """Charged, then packed; refused where the card is, failed for any other reason. ``bounds`` are of charging."""
    flow = Pipeline("charging", Order, topics=[TOPIC], closed="restart")

    @flow.step(
        timeout=timeout,
        retry=Retry(attempts=attempts, wait=exponential(1, 60), unless=CardRefusedError),
        at_once=at_once,
        **bounds,
    )
    async def charge(order: Order, call: Call) -> Charge:
        asked = WORLD.next("charge", order, call)
        if isinstance(asked, BaseException):
            raise asked
        if callable(asked):
            asked = asked()
            if asyncio.iscoroutine(asked):
                asked = await asked
        made: Any = Charge(id=call.idempotency_key, amount=order.amount) if asked is None else asked
        return made  # type: ignore[no-any-return]  # the script may return what it should not

    @flow.step(retry=Retry(attempts=attempts, wait=exponential(1, 60)))
    def pack(order: Order, call: Call) -> int:
        asked = WORLD.next("pack", order, call)
        if isinstance(asked, BaseException):
            raise asked
        if isinstance(asked, Callable):  # type: ignore[arg-type]  # it is a class of the standard library
            asked = asked()
        return 1 if asked is None else asked

    charging = flow.state("charging", run=charge, initial=True)
    packing = flow.state("packing", run=pack)
    shipped = flow.state("shipped", final=True)
    refused = flow.state("refused", final=True)
    cancelled = flow.state("cancelled", final=True)
    flow.start(Placed, placed)
    charging.on(charge.done, to=packing, do=note_charge)
    charging.on(charge.failed_with(CardRefusedError), to=refused, do=note_failure)
    packing.on(pack.done, to=shipped, do=note_parcels)
    if takes_failures:
        flow.on_failure(to=flow.state("failed", final=True), do=note_failure)
    flow.on(Noted, do=note)
    flow.on(Cancelled, to=cancelled)
    return flow
