"""Orders that are charged, reserved and shipped, and undone where one of them cannot be; their world keeps a ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

from pydantic import Field

from statemachines import events as operators
from statemachines.bounds import Limit
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.done import Done
from statemachines.effects import Out
from statemachines.events import Event, StepFailed
from statemachines.step import Call, Retry, exponential

TOPIC = "sagas"


class Placed(Event, type="order.placed", key="order"):
    order: str


class Cancelled(Event, type="order.cancelled", key="order"):
    order: str


class Order(Context):
    order: str
    charge: str = ""
    notes: list[str] = Field(default_factory=list)


class OutOfStockError(Exception):
    """There is none."""


Script = BaseException | Callable[[], Awaitable[None]]


@dataclass
class World:
    """What was done outside: (step, the run's key, idempotency key, what it undoes)."""

    ledger: list[tuple[str, str, str, str]] = field(default_factory=list)
    made: list[tuple[str, str | None]] = field(default_factory=list)
    """What each compensation was told that its step had made."""
    script: dict[str, list[Script]] = field(default_factory=dict)
    odd: bool = False
    """Whether the action on a charge raises."""
    wrong: bool = False
    """Whether the next step returns what it should not."""

    async def do(self, call: Call) -> str:
        script = self.script.get(call.step)
        asked = script.pop(0) if script else None
        if isinstance(asked, BaseException):
            raise asked
        if asked is not None:
            await asked()
        undone = "" if call.undone is None else call.of.idempotency_key
        self.ledger.append((call.step, call.key, call.idempotency_key, undone))
        if self.wrong:
            self.wrong = False
            return 7  # type: ignore[return-value]  # that is the mistake
        return call.idempotency_key

    def steps(self) -> list[str]:
        return [step for step, _, _, _ in self.ledger]


WORLD = World()
RETRY = Retry(attempts=3, wait=exponential(1, 60), unless=OutOfStockError)


def clear() -> World:
    """An empty world."""
    WORLD.ledger.clear()
    WORLD.made.clear()
    WORLD.script.clear()
    WORLD.odd = WORLD.wrong = False
    return WORLD


def place(event: Placed) -> Order:
    return Order(order=event.order)


def note_charge(order: Order, got: Done[str]) -> None:
    if WORLD.odd:
        raise RuntimeError("odd")
    order.charge = got.result


def note_cancel(order: Order, event: Cancelled) -> Out:
    del event
    order.notes.append("cancelled")
    return None


def note_who(order: Order, event: operators.Cancelled) -> None:
    order.notes.append(f"cancelled by {event.who}: {event.why}")


def note_failure(order: Order, failed: StepFailed) -> None:
    order.notes.append(f"{failed.error} after {failed.attempts}")


def saga_pipeline(
    *,
    timeout: timedelta | None = None,
    attempts: int = 3,
    takes_cancel: bool = True,
    takes_failures: bool = True,
    limit: Limit | None = None,
) -> Pipeline[Order]:
    """Charged, reserved, shipped; cancelled, with all of it undone, for any reason. ``limit`` is that of reserving."""
    flow = Pipeline("saga", Order, topics=[TOPIC])
    retry = Retry(attempts=attempts, wait=RETRY.wait, unless=RETRY.unless)

    @flow.step(retry=retry, timeout=timeout)
    async def charge(order: Order, call: Call) -> str:
        del order
        return await WORLD.do(call)

    @charge.compensate(retry=retry)
    async def refund(order: Order, made: str | None, call: Call) -> None:
        del order
        WORLD.made.append(("refund", made))
        await WORLD.do(call)

    @flow.step(retry=retry, limit=limit)
    async def reserve(order: Order, call: Call) -> str:
        del order
        return await WORLD.do(call)

    @reserve.compensate(retry=retry)
    async def release(order: Order, made: str | None, call: Call) -> None:
        del order
        WORLD.made.append(("release", made))
        await WORLD.do(call)

    @flow.step(retry=retry)
    async def ship(order: Order, call: Call) -> str:
        del order
        return await WORLD.do(call)

    charging = flow.state("charging", run=charge, initial=True)
    reserving = flow.state("reserving", run=reserve)
    shipping = flow.state("shipping", run=ship)
    shipped = flow.state("shipped", final=True)
    cancelled = flow.state("cancelled", final=True)
    flow.start(Placed, place)
    charging.on(charge.done, to=reserving, do=note_charge)
    reserving.on(reserve.done, to=shipping)
    shipping.on(ship.done, to=shipped)
    flow.on(Cancelled, to=cancelled, do=note_cancel, compensate=True)
    if takes_failures:
        flow.on_failure(to=cancelled, do=note_failure, compensate=True)
    if takes_cancel:
        flow.on_cancel(to=cancelled, do=note_who, compensate=True)
    return flow


async def forever() -> None:
    """What never ends by itself."""
    await asyncio.Event().wait()
