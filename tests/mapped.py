"""Orders whose runs are mapped to a version in which states and steps have other names, and what tests ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from connectors.source import RawRecord
from engine.reading import (
    ask_to_map,
    choose_to_map,
    list_runs,
    replay,
    verify,
    wait_until_done,
)
from engine.store.connecting import Connection, connect
from statemachines.bounds import Limit
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.events import Event
from statemachines.later import Later
from statemachines.machine import compile_pipeline
from statemachines.renames import Renames
from statemachines.step import Call, Retry, exponential
from tests.feeding import Feeding, event
from tests.operators import WHO, WHY

TOPIC = "orders"
MINUTES = timedelta(minutes=5)
RENAMES = Renames(
    {"charging": "billing", "order": "sale"}, {"charge": "bill", "refund": "reimburse", "pack": "wrap"}
)


class Placed(Event, type="order.placed", key="order"):
    order: str
    later: bool = False


class Noted(Event, type="order.noted", key="order"):
    order: str
    text: str = ""


class Withdrawn(Event, type="order.withdrawn", key="order"):
    order: str


class Order(Context):
    later: bool
    notes: int = 0


def place(event: Placed) -> Order:
    return Order(later=event.later)


def note(order: Order, event: Event) -> None:
    del event
    order.notes += 1


class World:
    """What was done outside."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Call]] = []
        self.fails: set[str] = set()
        self.hangs: set[str] = set()

    async def do(self, call: Call) -> None:
        self.calls.append((call.step, call))
        if call.step in self.hangs:
            await asyncio.Event().wait()
        if call.step in self.fails:
            raise OSError("away")

    def keys(self, *steps: str) -> list[str]:
        return [call.idempotency_key for step, call in self.calls if step in steps]


def orders(
    world: World, version: int, context: type[Order] = Order, *, limit: Limit | None = None
) -> Pipeline[Any]:
    """Charged and packed, in ``order``; from version 2 on all of that has other names."""
    flow: Pipeline[Any] = Pipeline("orders", context, version=version, topics=[TOPIC])

    def name(old: str) -> str:
        both = {**RENAMES.states, **RENAMES.steps}
        return both.get(old, old) if version > 1 else old

    async def charge(order: Order, call: Call) -> int | Later:
        await world.do(call)
        return Later(f"case {call.key}") if order.later else 7

    async def refund(order: Order, made: int | None, call: Call) -> None:
        del order, made
        await world.do(call)

    async def pack(order: Order, call: Call) -> int:
        del order
        await world.do(call)
        return 1

    for function in (charge, refund, pack):
        function.__name__ = name(function.__name__)
    charging = flow.step(limit=limit)(charge)
    charging.compensate()(refund)
    packing = flow.step(retry=Retry(attempts=9, wait=exponential(1, 1)))(pack)
    around = flow.state(name("order"), initial=True)
    charges = around.state(name("charging"), run=charging, initial=True)
    packs = around.state("packing", run=packing)
    before = around.history("before")
    paused, shipped = flow.state("paused"), flow.state("shipped", final=True)
    lost = flow.state("lost", final=True)
    flow.start(Placed, place)
    charges.on(charging.done, to=packs)
    charges.after(MINUTES, to=lost)
    packs.on(packing.done, to=shipped)
    around.on(Noted, do=note)
    around.on(Withdrawn, to=paused)
    paused.on(Noted, to=before)
    flow.on_cancel(to=lost, compensate=True)
    return flow


def told(kind: str, key: str, **data: Any) -> RawRecord:
    return event(f"order.{kind}", {"order": key, **data})


def reminders(*, swapped: bool = False) -> Pipeline[Any]:
    """Reminded soon and lost late; swapped, the timer that comes first is the one that leads to ``lost``."""
    flow: Pipeline[Any] = Pipeline("orders", Order, version=1 + swapped, topics=[TOPIC])
    idle = flow.state("idle", initial=True)
    reminded, lost = flow.state("reminded", final=True), flow.state("lost", final=True)
    flow.start(Placed, place)
    soon, late = (MINUTES, reminded), (10 * MINUTES, lost)
    for delay, to in (late, soon) if swapped else (soon, late):
        idle.after(delay, to=to)
    return flow


async def work_until(feeding: Feeding, is_so: Callable[[], bool]) -> None:
    """Take what becomes of steps until this is so."""
    await feeding.begin_steps()
    while not is_so():
        await feeding.steps.arrived.wait()
        await feeding.take_results()


async def map_all(
    feeding: Feeding, renames: Renames = RENAMES, to: int = 2, meanwhile: Sequence[RawRecord] = ()
) -> dict[str, tuple[bool, str]]:
    """By key, whether each open run of version 1 is mapped, and what is said of it; records may come meanwhile."""
    connection = await connect(feeding.database.engine_dsn, for_engine=False)
    try:
        chosen = await choose_to_map(connection, "default", "orders", 1, to, renames)
        said = "orders", chosen, 1, to, renames
        asked = await ask_to_map(connection, "default", *said, who=WHO, why=WHY)
        await feeding.records(*meanwhile)
        await feeding.commands()
        became = await wait_until_done(connection, "default", asked, seconds=0)
    finally:
        await connection.close()
    return {one.asked.key: (one.done, one.sentence) for one in became}


async def states(reader: Connection) -> dict[str, tuple[str, str]]:
    return {run.key: (run.status, " ".join(run.configuration)) for run in await list_runs(reader, "default")}


async def check_the_log(reader: Connection, *flows: Pipeline[Any]) -> None:
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(flow) for flow in flows])
    assert replayed.is_equal, replayed
