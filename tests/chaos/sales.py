"""Sales: charged, reserved parcel by parcel, sent; or undone. All of it is done by a service outside (``till.py``)."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from datetime import timedelta

import aiohttp

from statemachines import Call, Context, Event, Pipeline, Retry, StepFailed, exponential
from tests.chaos.till import Asked

SUFFIX = os.environ.get("CHAOS_SUFFIX", "")
TILL = "CHAOS_TILL"
"""Names the service's address."""
SALES = "sales"
ATTEMPT = timedelta(seconds=1)
UNDOES = {"refund": "charge", "release": "reserve"}


class Placed(Event, type="sale.placed", key="sale"):
    sale: str
    parcels: int
    refused: bool
    """Whether it cannot be sent."""


class CalledOff(Event, type="sale.called_off", key="sale"):
    sale: str


class Sale(Context):
    parcels: int
    refused: bool
    reserved: int = 0
    why: str = ""


class RefusedError(Exception):
    """It is never done."""


def place(event: Placed) -> Sale:
    return Sale(parcels=event.parcels, refused=event.refused)


def count(sale: Sale, _: Event) -> None:
    sale.reserved += 1


def is_more(sale: Sale, _: Event) -> bool:
    return sale.reserved + 1 < sale.parcels


def keep_why(sale: Sale, failed: StepFailed) -> None:
    sale.why = failed.error


def _asked(call: Call, *, refuse: bool = False) -> Asked:
    undoes = "" if call.undone is None else call.of.idempotency_key
    named = call.step, call.key, call.idempotency_key, undoes, call.attempt
    return Asked(*named, os.getpid(), time.monotonic(), refuse)


async def _ask(call: Call, *, refuse: bool = False) -> str:
    asked = _asked(call, refuse=refuse)._asdict()
    async with aiohttp.ClientSession() as session, session.post(os.environ[TILL], json=asked) as response:
        return _answer(response.status, await response.read())


def _ask_in_thread(call: Call) -> str:
    request = urllib.request.Request(os.environ[TILL], json.dumps(_asked(call)._asdict()).encode())
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return _answer(response.status, response.read())
    except urllib.error.HTTPError as error:
        return _answer(error.code, error.read())


def _answer(status: int, body: bytes) -> str:
    if status == 402:
        raise RefusedError("it is not to be had")
    if status != 200:
        raise OSError(f"the service answers {status}")
    return str(json.loads(body)["what"])


flow = Pipeline("sale", Sale, topics=[SALES + SUFFIX], unexpected="ignore", closed="ignore")
some = Retry(attempts=3, wait=exponential(0.05, 0.2), unless=RefusedError)
patient = Retry(attempts=200, wait=exponential(0.05, 0.2))


@flow.step(timeout=ATTEMPT, retry=some)
async def charge(sale: Sale, call: Call) -> str:
    await _ask(call)
    return call.idempotency_key


@charge.compensate(timeout=ATTEMPT, retry=patient, on_error=True)
async def refund(sale: Sale, made: str | None, call: Call) -> None:
    assert made in (None, call.of.idempotency_key)
    await _ask(call)


@flow.step(timeout=ATTEMPT, retry=some)
def reserve(sale: Sale, call: Call) -> str:
    _ask_in_thread(call)
    return call.idempotency_key


@reserve.compensate(timeout=ATTEMPT, retry=patient, on_error=True)
def release(sale: Sale, made: str | None, call: Call) -> None:
    assert made in (None, call.of.idempotency_key)
    _ask_in_thread(call)


@flow.step(timeout=ATTEMPT, retry=some)
async def send(sale: Sale, call: Call) -> None:
    await _ask(call, refuse=sale.refused)


charging = flow.state("charging", run=charge, initial=True)
reserving = flow.state("reserving", run=reserve)
sending = flow.state("sending", run=send)
sent = flow.state("sent", final=True)
cancelled = flow.state("cancelled", final=True)
flow.start(Placed, place)
charging.on(charge.done, to=reserving)
reserving.on(reserve.done, to=reserving, when=is_more, do=count, reenter=True)
reserving.on(reserve.done, to=sending, do=count)
sending.on(send.done, to=sent)
flow.on(CalledOff, to=cancelled, compensate=True)
flow.on_failure(to=cancelled, compensate=True, do=keep_why)
flow.on_cancel(to=cancelled, compensate=True)
