"""Orders whose goods and papers go on side by side in a simulated world, and whose goods alone are undone.

``good``       is packed and billed
``refused``    cannot be shipped: its goods are taken back while the bill is written, and stays written
``withdrawn``  cannot be shipped either, and is cancelled while its goods are taken back
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import lru_cache

from statemachines.definition import Pipeline
from statemachines.machine import Machine, compile_pipeline
from statemachines.memory import EMPTY, read_memory
from statemachines.run import Status
from statemachines.step import Call, Retry, exponential
from tests.property.crashing import (
    DONE,
    ENOUGH,
    LATE_SECONDS,
    NOTHING,
    OUTSIDE,
    SLOW,
    TOPIC,
    Cancelled,
    Entry,
    Lived,
    Order,
    OutOfStockError,
    Outside,
    Placed,
    check_attempts,
    check_the_log,
    is_over,
    note_cancel,
    note_failure,
    place,
    told,
)
from tests.simulated import Fate, Simulated

ORDERS = ("good", "refused", "withdrawn")
AWAY = 2
"""In so many attempts."""
UNDOES = {"reserve": "release", "insure": "call_off", "bill": "cancel_bill"}
BESIDE = "work goods packing $compensating papers"
"""How the configuration of an order begins whose goods are undone beside its papers."""


class Parcels(Outside):
    """Where the work is done of which only some is undone."""

    def _raise(self, call: Call, *, first: bool) -> None:
        if call.key != "good" and call.step == "ship":
            raise OutOfStockError("none left")
        # So that it is done only while the goods are undone.
        del first
        if call.step in ("release", "file") and call.attempt <= AWAY:
            raise RuntimeError("away for a moment")

    def _tell(self, call: Call) -> None:
        draw = self.world.draw
        if (call.key, call.step) == ("withdrawn", "call_off"):
            after = 0.0 if draw is None else draw.uniform(0, LATE_SECONDS * self.pace)
            self.world.source.append(told("cancelled", call.key), after=after)


@lru_cache
def parcels(attempts: int) -> Machine:
    """Goods are reserved, insured and shipped, and undone alone; papers are written beside them."""
    flow = Pipeline("parcels", Order, topics=[TOPIC], closed="ignore", undo=["release"])
    wait = exponential(0.05, 1)
    retry = Retry(attempts=attempts, wait=wait, unless=OutOfStockError)
    stubborn = Retry(attempts=1_000, wait=wait)

    @flow.step(retry=retry)
    async def reserve(order: Order, call: Call) -> str:
        return await OUTSIDE[-1].do(order, call)

    @reserve.compensate(retry=stubborn)
    async def release(order: Order, made: str | None, call: Call) -> None:
        await OUTSIDE[-1].do(order, call, made)

    @flow.step(retry=retry)
    async def insure(order: Order, call: Call) -> str:
        return await OUTSIDE[-1].do(order, call)

    @insure.compensate(retry=stubborn)
    async def call_off(order: Order, made: str | None, call: Call) -> None:
        await OUTSIDE[-1].do(order, call, made)

    @flow.step(retry=retry)
    async def ship(order: Order, call: Call) -> str:
        return await OUTSIDE[-1].do(order, call)

    @flow.step(retry=retry)
    async def bill(order: Order, call: Call) -> str:
        return await OUTSIDE[-1].do(order, call)

    @bill.compensate(retry=stubborn)
    async def cancel_bill(order: Order, made: str | None, call: Call) -> None:
        await OUTSIDE[-1].do(order, call, made)

    @flow.step(retry=retry)
    async def file(order: Order, call: Call) -> str:
        return await OUTSIDE[-1].do(order, call)

    work = flow.state("work", initial=True)
    goods, papers = work.region("goods"), work.region("papers")
    packing = goods.state("packing", initial=True, undo=[reserve, call_off])
    reserving = packing.state("reserving", run=reserve, initial=True)
    insuring = packing.state("insuring", run=insure)
    shipping = packing.state("shipping", run=ship)
    sent, back = goods.state("sent", final=True), goods.state("back", final=True)
    billing = papers.state("billing", run=bill, initial=True)
    filing = papers.state("filing", run=file)
    filed = papers.state("filed", final=True)
    closed = flow.state("closed", final=True)
    cancelled = flow.state("cancelled", final=True)
    flow.start(Placed, place)
    reserving.on(reserve.done, to=insuring)
    insuring.on(insure.done, to=shipping)
    shipping.on(ship.done, to=sent)
    packing.on(ship.failed_with(OutOfStockError), to=back, do=note_failure, compensate=True)
    billing.on(bill.done, to=filing)
    filing.on(file.done, to=filed)
    work.on(work.done, to=closed)
    flow.on(Cancelled, to=cancelled, do=note_cancel, compensate=True)
    flow.on_failure(to=cancelled, do=note_failure, compensate=True)
    return compile_pipeline(flow, namespace="default")


def live(
    fates: Mapping[int, Fate] = NOTHING,
    *,
    attempts: int = ENOUGH,
    instance: str | None = None,
    draw: random.Random | None = None,
    crash_turn: int = 0,
) -> Lived:
    """All orders, from the beginning to the end, with this in between."""
    world = Simulated(parcels(attempts), TOPIC, fates, draw, 1, instance, crash_turn)
    outside = Parcels(world)
    if draw is not None:
        outside.pace = draw.choice([1.0, 1.0, SLOW])
    for order in ORDERS:
        world.source.append(told("placed", order))
    OUTSIDE.append(outside)
    try:
        world.live(lambda: is_over(world, ORDERS))
    finally:
        OUTSIDE.pop()
    return Lived(world, outside.ledger)


def check(lived: Lived, attempts: int = ENOUGH) -> None:
    """All that must hold, whatever has happened in between."""
    tables = lived.world.tables
    assert not tables.executions.rows
    assert not tables.letters
    assert not tables.waiting
    for order in ORDERS:
        run = lived.runs[order]
        assert run.status == Status.COMPLETED
        assert read_memory(run.memory) == EMPTY
        check_the_log(lived, order)
        entries = [one for one in lived.ledger if one.order == order]
        check_attempts(entries, attempts)
        goods = ("reserve", "insure") if _went_back(lived, order) else ()
        check_what_was_undone(entries, UNDOES if run.configuration == "cancelled" else goods)
    # What is away raises as often, and each crash may lose one.
    if attempts > lived.world.deaths + AWAY:
        assert lived.runs["good"].configuration == lived.runs["refused"].configuration == "closed"
        assert _went_back(lived, "refused")


def _went_back(lived: Lived, order: str) -> bool:
    return any(row.configuration.startswith(BESIDE) for row in lived.rows(order))


def check_what_was_undone(entries: list[Entry], steps: Mapping[str, str] | tuple[str, ...]) -> None:
    """What these steps have done, under one key each, of the goods what is named first; and no others."""
    done = {one.key: one.step for one in entries if one.what == DONE and not one.of}
    undone = {one.of: one.key for one in entries if one.what == DONE and one.of}
    owed = {key for key, step in done.items() if step in steps}
    assert owed <= undone.keys(), f"{owed - undone.keys()} is not undone"
    compensations = {(one.of, one.key) for one in entries if one.of}
    assert len(compensations) == len(undone), "something is undone under several keys, or not to its end"
    assert {one.step for one in entries if one.of} <= {UNDOES[step] for step in steps}
    order = [one.step for one in entries if one.of and one.step != "cancel_bill"]
    assert order == sorted(order, key=["release", "call_off"].index), f"undone were {order}"
