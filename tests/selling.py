"""Orders that are paid, reserved and sent by steps, and undone where they cannot be; for processes that are killed.

Each call outside is a line of a file. Topic and file are named by the environment, since each test has its own; so are
how often what undoes is tried, and whether it comes to an end.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import NamedTuple

from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.events import Event
from statemachines.step import Call, Retry, exponential

MODULE = "tests.selling:orders"
LEDGER = "SELLING_LEDGER"
UNDOING = "SELLING_UNDOING"
ENDLESS = "SELLING_ENDLESS"
ENOUGH = 50
UNDOES = {"refund": "pay", "release": "reserve"}


class Ordered(Event, type="order.placed", key="order"):
    order: str
    seconds: float = 0.0
    """How long each of its steps takes."""
    sold_out: bool = False
    """Whether it cannot be sent."""


class CalledOff(Event, type="order.called_off", key="order"):
    order: str


class Order(Context):
    seconds: float
    sold_out: bool


class SoldOutError(Exception):
    """There is none left."""


class Line(NamedTuple):
    """A call outside."""

    step: str
    order: str
    key: str
    of: str
    """The key of what it undoes."""
    attempt: int
    what: str
    """``begun`` or ``done``."""


def lines_of(ledger: Path) -> list[Line]:
    """All calls so far, in order."""
    found = [line.split("\t") for line in ledger.read_text().splitlines()] if ledger.exists() else []
    return [Line(step, order, key, of, int(attempt), what) for step, order, key, of, attempt, what in found]


def _write(call: Call, what: str) -> None:
    of = "" if call.undone is None else call.of.idempotency_key
    line = "\t".join((call.step, call.key, call.idempotency_key, of, str(call.attempt), what))
    file = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        # One write of a short line: whole, whoever else writes.
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


async def _work(order: Order, call: Call) -> None:
    _write(call, "begun")
    await asyncio.sleep(order.seconds)
    if call.undone is not None and ENDLESS in os.environ:
        await asyncio.Event().wait()
    _write(call, "done")


def place(event: Ordered) -> Order:
    return Order(seconds=event.seconds, sold_out=event.sold_out)


def orders_on(topic: str, undoing: int = ENOUGH) -> Pipeline[Order]:
    """Paid, reserved, sent; or cancelled, and nothing left of it. ``undoing``: in so many attempts."""
    flow = Pipeline("selling", Order, topics=[topic], unexpected="ignore", closed="ignore")
    patient = Retry(attempts=ENOUGH, wait=exponential(0.05, 0.2), unless=SoldOutError)
    undone = Retry(attempts=undoing, wait=patient.wait)

    @flow.step(retry=patient)
    async def pay(order: Order, call: Call) -> str:
        await _work(order, call)
        return call.idempotency_key

    @pay.compensate(retry=undone)
    async def refund(order: Order, made: str | None, call: Call) -> None:
        assert made in (None, call.of.idempotency_key)
        await _work(order, call)

    @flow.step(retry=patient)
    async def reserve(order: Order, call: Call) -> str:
        await _work(order, call)
        return call.idempotency_key

    @reserve.compensate(retry=undone)
    async def release(order: Order, made: str | None, call: Call) -> None:
        assert made in (None, call.of.idempotency_key)
        await _work(order, call)

    @flow.step(retry=patient)
    async def send(order: Order, call: Call) -> None:
        if order.sold_out:
            raise SoldOutError("none left")
        await _work(order, call)

    paying = flow.state("paying", run=pay, initial=True)
    reserving = flow.state("reserving", run=reserve)
    sending = flow.state("sending", run=send)
    sent = flow.state("sent", final=True)
    cancelled = flow.state("cancelled", final=True)
    flow.start(Ordered, place)
    paying.on(pay.done, to=reserving)
    reserving.on(reserve.done, to=sending)
    sending.on(send.done, to=sent)
    flow.on(CalledOff, to=cancelled, compensate=True)
    flow.on_failure(to=cancelled, compensate=True)
    return flow


orders = orders_on(os.environ.get("TIMED_TOPIC", "orders"), int(os.environ.get(UNDOING, ENOUGH)))
