"""Orders whose goods and papers go on side by side in a simulated world, and of which states are undone alone.

``good``       is packed and billed
``refused``    cannot be shipped: its goods are taken back while the bill is written, and stays written
``withdrawn``  cannot be shipped either, and is cancelled while its goods are taken back
``bare``       cannot be covered: its insurance alone is called off, and it is packed
``recalled``   cannot be covered either, and its goods are taken back while its insurance is called off
``kept``       is cancelled once it is shipped: its goods are settled, and only its bill is undone
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from statemachines.definition import Pipeline
from statemachines.effects import Compensate, Out, Settle
from statemachines.events import STEP_TRIED, Event, StepFailed
from statemachines.machine import Machine, compile_pipeline
from statemachines.memory import EMPTY, read_memory
from statemachines.run import Status
from statemachines.step import Call, Retry, exponential
from tests.property.crashing import (
    DONE,
    ENOUGH,
    NOTHING,
    OUTSIDE,
    SLOW,
    TOPIC,
    UNDOING,
    WORK_SECONDS,
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
from tests.property.stories import story_of
from tests.simulated import Fate, Simulated, check_alive

ORDERS = ("good", "refused", "withdrawn", "bare", "recalled", "kept")
CANCELLED = ("withdrawn", "kept")
AWAY = 2
"""In so many attempts."""
UNDOES = {"reserve": "release", "insure": "call_off", "bill": "cancel_bill"}
SIDES = {
    "goods": ("reserve", "release", "insure", "call_off", "stamp", "ship", "track"),
    "papers": ("bill", "cancel_bill", "file"),
}
"""The steps and compensations of each; all else is of both."""
MEET = {"withdrawn": ("call_off", "file"), "recalled": ("call_off", "file"), "kept": ("track", "file")}
"""Once both are at work, and not before, the order is told something; and both wait until it has heard that."""
GOODS_UNDONE = f"work goods {UNDOING} papers"
PACKING_UNDONE = f"work goods packing {UNDOING} papers"
COVER_UNDONE = f"work goods packing covering {UNDOING} papers"
"""How the configuration of an order begins of which this is undone beside its papers."""
ENDS = {
    "closed": "over",
    "goods sent": "over",
    "goods back": "over",
    "papers filed": "over",
    "cancelled": UNDOING,
}
"""What is told of a side where it has ended, or is undone: which of the two is the last is another one in each life."""


class Recalled(Event, type="order.recalled", key="order"):
    order: str


class Parcels(Outside):
    """Where the work is done of which only some is undone."""

    def _raise(self, call: Call, *, first: bool) -> None:
        refused = call.key in ("refused", "withdrawn") and call.step == "ship"
        if refused or (call.key in ("bare", "recalled") and call.step == "stamp"):
            raise OutOfStockError("none left")
        # So that it is done only while the goods are undone.
        del first
        if call.step in ("release", "file") and call.attempt <= AWAY:
            raise RuntimeError("away for a moment")

    def _tell(self, call: Call) -> None:
        pair = MEET.get(call.key, ())
        if call.step in pair and {one.step for one in self.ledger if one.order == call.key}.issuperset(pair):
            self._tell_of(call, _kind_of(call.key))

    async def _go_on(self, call: Call, *, first: bool) -> None:
        del first
        while call.step in MEET.get(call.key, ()) and not self._has_heard(call.key):
            await asyncio.sleep(WORK_SECONDS)
            check_alive()

    def _has_heard(self, order: str) -> bool:
        """Or all of it is undone for another reason, and it hears of nothing."""
        heard, tables = f"{_kind_of(order)} {order}", self.world.tables
        at_work = any(
            run.key == order and run.configuration.startswith("work") for _, run in tables.runs.values()
        )
        return not at_work or any(row.event_id == heard for row in tables.rows.values())


def _kind_of(order: str) -> str:
    return "cancelled" if order in CANCELLED else "recalled"


def call_off_cover(order: Order, failed: StepFailed) -> Out:
    note_failure(order, failed)
    return Compensate("covering")


def take_back(order: Order, event: Recalled) -> Out:
    del event
    order.notes.append("recalled")
    return Compensate("packing")


def keep_goods(order: Order, event: Event) -> Out:
    del event
    order.notes.append("shipped")
    return Settle("packing")


@lru_cache
def parcels(attempts: int) -> Machine:
    """Goods are reserved, covered and shipped, and undone alone, or their cover is; papers are written beside them."""
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
    async def stamp(order: Order, call: Call) -> str:
        return await OUTSIDE[-1].do(order, call)

    @flow.step(retry=retry)
    async def ship(order: Order, call: Call) -> str:
        return await OUTSIDE[-1].do(order, call)

    @flow.step(retry=retry)
    async def track(order: Order, call: Call) -> str:
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
    covering = packing.state("covering")
    insuring = covering.state("insuring", run=insure, initial=True)
    stamping = covering.state("stamping", run=stamp)
    bare = covering.state("bare")
    shipping = packing.state("shipping", run=ship)
    tracking = packing.state("tracking", run=track)
    sent, back = goods.state("sent", final=True), goods.state("back", final=True)
    billing = papers.state("billing", run=bill, initial=True)
    filing = papers.state("filing", run=file)
    filed = papers.state("filed", final=True)
    closed = flow.state("closed", final=True)
    cancelled = flow.state("cancelled", final=True)
    flow.start(Placed, place)
    reserving.on(reserve.done, to=covering)
    insuring.on(insure.done, to=stamping)
    stamping.on(stamp.done, to=shipping)
    stamping.on(stamp.failed_with(OutOfStockError), to=bare, do=call_off_cover)
    bare.always(to=shipping)
    shipping.on(ship.done, to=tracking, do=keep_goods)
    tracking.on(track.done, to=sent)
    packing.on(ship.failed_with(OutOfStockError), to=back, do=note_failure, compensate=True)
    packing.on(Recalled, to=back, do=take_back)
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
    engines: int = 1,
    instance: str | None = None,
    draw: random.Random | None = None,
    crash_turn: int = 0,
    freeze_turn: int = 0,
) -> Lived:
    """All orders, from the beginning to the end, with this in between."""
    world = Simulated(parcels(attempts), TOPIC, fates, draw, engines, instance, crash_turn)
    world.freeze_turn = freeze_turn
    outside = Parcels(world)
    if draw is not None:
        outside.pace = draw.choice([1.0, 1.0, SLOW])
    for order in ORDERS:
        world.source.append(told("placed", order))
    OUTSIDE.append(outside)
    try:
        world.live(lambda: is_over(world, ORDERS) and not outside.at_work.total())
    finally:
        OUTSIDE.pop()
    return Lived(world, outside.ledger)


def check(lived: Lived, attempts: int = ENOUGH) -> None:
    """All that must hold, whatever has happened in between."""
    world = lived.world
    assert not world.tables.executions.rows
    assert not world.tables.letters
    assert not world.tables.waiting
    for order in ORDERS:
        run = lived.runs[order]
        assert run.status == Status.COMPLETED
        assert read_memory(run.memory) == EMPTY
        check_the_log(lived, order)
        entries = [one for one in lived.ledger if one.order == order]
        # What a stop cuts does not count.
        check_attempts(entries, attempts + world.stops)
        check_what_was_undone(entries, _undone_of(lived, order))
        if not was_in(lived, order, COVER_UNDONE):
            goods = [one.step for one in entries if one.of and one.thawed_at is None]
            goods = [step for step in goods if step != "cancel_bill"]
            assert goods == sorted(goods, key=["release", "call_off"].index), f"undone were {goods}"
    breaks = sum(one is Fate.BREAK for one in world.fates.values())
    # What is away raises as often, and each crash may lose one; so may a stop whose connection breaks.
    if attempts > world.deaths + world.silences + min(world.stops, breaks) + AWAY:
        cancelled = {order for order in ORDERS if lived.runs[order].configuration == "cancelled"}
        assert cancelled == {*CANCELLED}
        for order, undone in (
            ("refused", PACKING_UNDONE),
            ("bare", COVER_UNDONE),
            ("recalled", GOODS_UNDONE),
        ):
            assert was_in(lived, order, undone), f"{order} was not undone beside its papers"


def was_in(lived: Lived, order: str, configuration: str) -> bool:
    """Whether the configuration of an order ever began so."""
    return any(row.configuration.startswith(configuration) for row in lived.rows(order))


def _undone_of(lived: Lived, order: str) -> set[str]:
    """The steps of which all that they did is to be undone."""
    steps: set[str] = set()
    if was_in(lived, order, COVER_UNDONE):
        steps |= {"insure"}
    if was_in(lived, order, PACKING_UNDONE) or was_in(lived, order, GOODS_UNDONE):
        steps |= {"reserve", "insure"}
    if lived.runs[order].configuration == "cancelled":
        is_settled = any(row.type == "done.step.ship" for row in lived.rows(order))
        steps |= {"bill"} if is_settled else {"bill", "reserve", "insure"}
    return steps


def check_what_was_undone(entries: list[Entry], steps: set[str]) -> None:
    """What these steps have done, under one key each, and no others."""
    done = {one.key: one.step for one in entries if one.what == DONE and not one.of}
    undone = {one.of: one.key for one in entries if one.what == DONE and one.of}
    owed = {key for key, step in done.items() if step in steps}
    assert owed <= undone.keys(), f"{owed - undone.keys()} is not undone"
    compensations = {(one.of, one.key) for one in entries if one.of}
    assert len(compensations) == len(undone), "something is undone under several keys, or not to its end"
    assert {one.step for one in entries if one.of} <= {UNDOES[step] for step in steps}


def check_the_stories(lived: Lived, usual: Lived) -> None:
    """Of each order, its goods and its papers have come the usual way, whichever of them came first."""
    for order in ORDERS:
        assert lived.runs[order].configuration == usual.runs[order].configuration
        story = sides(usual, order)
        for side, came in sides(lived, order).items():
            assert came == story[side], f"the story of {order} and its {side} is {came}"


def check_the_usual_stories(lived: Lived, usual: Lived) -> int:
    """Where goods or papers have come the usual way, all that was written of them is usual; returns for how many."""
    compared = 0
    for order in ORDERS:
        story = sides(usual, order)
        for side, came in sides(lived, order).items():
            if [one[:2] for one in came] == [one[:2] for one in story[side]]:
                assert came == story[side], f"the story of {order} and its {side} is {came}"
                compared += 1
    return compared


def sides(lived: Lived, order: str) -> dict[str, list[tuple[Any, ...]]]:
    """What happened to the goods of an order, where it led, and what it asked for; and to its papers."""
    found: dict[str, list[tuple[Any, ...]]] = {side: [] for side in SIDES}
    for row in story_of(lived.rows(order), lambda row: row.type.startswith(STEP_TRIED)):
        for side in _sides_of(row.type):
            # Its papers do not change an order, but others do meanwhile.
            context = row.context if side == "goods" else {}
            where = _part_of(row.configuration, side)
            found[side].append((row.type, where, row.known_as, row.said, context))
        for asked in row.asked:
            for side in _sides_of(f"asked.step.{asked.get('step') or asked.get('settle')}"):
                found[side].append(("asked", "", asked))
    return found


def _sides_of(kind: str) -> list[str]:
    """Of whose step it is, or of both."""
    _, is_step, name = kind.partition(".step.")
    step = name.partition(".")[0]
    return [side for side, steps in SIDES.items() if not is_step or step in steps]


def _part_of(configuration: str, side: str) -> str:
    part = configuration
    if configuration.startswith("work goods "):
        goods, _, papers = configuration.removeprefix("work ").partition(" papers ")
        part = goods if side == "goods" else f"papers {papers}"
    return ENDS.get(part, part)
