"""Parcels that are paid, packed and sent by steps, in processes that are killed; each call outside is a line of a file.

Topic and file are named by the environment, since each test has its own.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import NamedTuple

from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.done import Done
from statemachines.events import Event
from statemachines.step import Call, Retry, exponential

MODULE = "tests.parcelling:parcels"
LEDGER = "PARCELLING_LEDGER"


class Ordered(Event, type="parcel.ordered", key="parcel"):
    parcel: str
    seconds: float = 0.0
    """How long each of its steps takes."""


class Parcel(Context):
    seconds: float
    paid_by: str = ""
    weight: int = 0


class Line(NamedTuple):
    """A call outside."""

    step: str
    parcel: str
    key: str
    attempt: int
    what: str
    """``begun`` or ``done``."""


def lines_of(ledger: Path) -> list[Line]:
    """All calls so far, in order."""
    found = [line.split("\t") for line in ledger.read_text().splitlines()] if ledger.exists() else []
    return [Line(step, parcel, key, int(attempt), what) for step, parcel, key, attempt, what in found]


def write_line(call: Call, what: str) -> None:
    """Append a call to the file."""
    file = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        # One write of a short line: whole, whoever else writes.
        os.write(file, f"{call.step}\t{call.key}\t{call.idempotency_key}\t{call.attempt}\t{what}\n".encode())
    finally:
        os.close(file)


def order(event: Ordered) -> Parcel:
    return Parcel(seconds=event.seconds)


def note_payment(parcel: Parcel, got: Done[str]) -> None:
    parcel.paid_by = got.result


def note_weight(parcel: Parcel, got: Done[int]) -> None:
    parcel.weight = got.result


def parcels_on(topic: str) -> Pipeline[Parcel]:
    """Paid, packed, sent."""
    flow = Pipeline("parcels", Parcel, topics=[topic])
    patient = Retry(attempts=50, wait=exponential(0.05, 0.2))

    @flow.step(retry=patient)
    async def pay(parcel: Parcel, call: Call) -> str:
        write_line(call, "begun")
        await asyncio.sleep(parcel.seconds)
        write_line(call, "done")
        return call.idempotency_key

    @flow.step(retry=patient, at_once=20)
    def pack(parcel: Parcel, call: Call) -> int:
        write_line(call, "begun")
        time.sleep(parcel.seconds)
        write_line(call, "done")
        return 3

    @flow.step(retry=patient)
    async def send(parcel: Parcel, call: Call) -> None:
        write_line(call, "begun")
        await asyncio.sleep(parcel.seconds)
        write_line(call, "done")

    paying = flow.state("paying", run=pay, initial=True)
    packing = flow.state("packing", run=pack)
    sending = flow.state("sending", run=send)
    sent = flow.state("sent", final=True)
    lost = flow.state("lost", final=True)
    flow.start(Ordered, order)
    paying.on(pay.done, to=packing, do=note_payment)
    packing.on(pack.done, to=sending, do=note_weight)
    sending.on(send.done, to=sent)
    flow.on_failure(to=lost)
    return flow


parcels = parcels_on(os.environ.get("TIMED_TOPIC", "parcels"))
