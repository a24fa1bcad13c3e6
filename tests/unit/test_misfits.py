"""What of a run does not fit another definition of its pipeline, which it is to follow."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest

from statemachines.canonical import canonical_bytes
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.events import Event
from statemachines.machine import compile_pipeline
from statemachines.mapping import misfits
from statemachines.memory import Delayed, Execution, Memory, Owed, write_memory
from statemachines.renames import Renames, other_timers
from statemachines.run import Run
from statemachines.step import Call
from tests.unit.machines import begun

SOON, LATE = timedelta(minutes=5), timedelta(days=30)
RENAMES = Renames({"waiting": "sleeping"}, {"pack": "wrap"})
NOWHERE = Renames()


class Placed(Event, type="order.placed", key="order"):
    order: str


class Order(Context):
    notes: int = 0


async def charge(order: Order, call: Call) -> int:
    return order.notes + call.attempt


async def refund(order: Order, made: int | None, call: Call) -> None:
    del order, made, call


async def pack(order: Order, call: Call) -> None:
    del order, call


async def wrap(order: Order, call: Call) -> None:
    del order, call


def orders(waits: str = "waiting", *, swapped: bool = False, name: str = "pack") -> Pipeline[Any]:
    flow: Pipeline[Any] = Pipeline("orders", Order, topics=["orders"])
    pays = flow.step()(charge)
    pays.compensate()(refund)
    packs = flow.step()(pack if name == "pack" else wrap)
    waiting = flow.state(waits, initial=True)
    paying, packing = flow.state("paying", run=pays), flow.state("packing", run=packs)
    gone, lost = flow.state("gone", final=True), flow.state("lost", final=True)
    flow.start(Placed, lambda _: Order())
    ends = (lost, paying) if swapped else (paying, lost)
    waiting.after(SOON, to=ends[0])
    waiting.after(LATE, to=ends[1])
    flow.after(LATE, to=gone if swapped else lost)
    paying.on(pays.done, to=packing)
    packing.on(packs.done, to=gone)
    return flow


def run_with(memory: Memory) -> Run:
    run = begun(compile_pipeline(orders()), Placed(order="acme"))
    return run._replace(memory=write_memory(memory))


def of_itself(event_type: str, state: str = "", data: Any = None) -> Memory:
    return Memory(delayed=(Delayed(7, 1, 0, event_type, data, state),))


@pytest.mark.parametrize(
    ("memory", "misfit"),
    [
        (Memory(), ""),
        (of_itself("after.waiting.0", "waiting"), ""),
        (of_itself("after.0"), ""),
        (of_itself("order.placed", data={"order": "acme"}), ""),
        (
            of_itself("after.waiting.2", "waiting"),
            "a timer of the state 'sleeping' goes on, which version 1 does not have",
        ),
        (of_itself("after.1"), "a timer of the whole run goes on, which version 1 does not have"),
        (
            of_itself("order.lost", data={}),
            "it has sent itself 'order.lost', a type that version 1 does not know",
        ),
        (Memory(executions=(Execution(1, 0, "charge", "paying"),)), ""),
        (Memory(executions=(Execution(1, 0, "pack", "packing"),)), ""),
        (
            Memory(executions=(Execution(1, 0, "deliver", "paying"),)),
            "it waits for the step 'deliver', which version 1 does not have. Known are 'charge' and 'wrap'",
        ),
        (
            Memory(executions=(Execution(1, 0, "refund", "paying"),)),
            "it waits for the step 'refund', which version 1 does not have. Known are 'charge' and 'wrap'",
        ),
        (
            Memory(executions=(Execution(1, 0, "charge", "paying", of="1.0"),)),
            "it waits for the compensation 'charge', which version 1 does not have. Known is 'refund'",
        ),
        (
            Memory(executions=(Execution(1, 0, "charge", "payin"),)),
            "it waits for the step 'charge' of 'payin', which is no state of version 1",
        ),
        (Memory(executions=(Execution(1, 0, "charge", "paying", stopping=1),)), ""),
        (
            Memory(executions=(Execution(1, 0, "pack", "packing", stopping=1),)),
            "it may have to undo 'wrap', which has no compensation in version 1",
        ),
        (
            Memory(executions=(Execution(1, 0, "charge", "paying", scope="payin"),)),
            "what it may have to undo belongs to 'payin', which is no state of version 1",
        ),
        (Memory(owed=(Owed(1, 0, "charge", 2, "paying"),)), ""),
        (
            Memory(owed=(Owed(1, 0, "pack"),)),
            "it may have to undo 'wrap', for which version 1 has no compensation. Known is 'charge'",
        ),
        (
            Memory(owed=(Owed(1, 0, "charge", scope="payin"),)),
            "what it may have to undo belongs to 'payin', which is no state of version 1",
        ),
        (
            Memory(undoing=0),
            "it is being undone",
        ),
    ],
)
def test_each_thing_that_does_not_fit_is_told(memory: Memory, misfit: str) -> None:
    found = misfits(compile_pipeline(orders("sleeping", name="wrap")), run_with(memory), RENAMES)
    assert [one[: len(misfit)] for one in found] == ([misfit] if misfit else [])


def test_a_timer_that_leads_elsewhere_does_not_fit() -> None:
    machine = compile_pipeline(orders(swapped=True))
    memory = Memory(
        delayed=(
            *of_itself("after.waiting.0", "waiting").delayed,
            *of_itself("after.waiting.1", "waiting").delayed,
        )
    )
    assert misfits(machine, run_with(memory), NOWHERE, ["after.waiting.1", "after.0"]) == [
        "its timer 'after.waiting.1' leads elsewhere in version 1"
    ]
    named_alike = of_itself("after.waiting.1", "waiting").delayed[0]._replace(data={})
    assert "leads elsewhere" not in str(
        misfits(machine, run_with(Memory(delayed=(named_alike,))), NOWHERE, ["after.waiting.1"])
    )


@pytest.mark.parametrize(
    ("after", "renames", "others"),
    [
        (orders(), NOWHERE, []),
        (orders("sleeping"), RENAMES, []),
        (orders("sleeping"), NOWHERE, []),
        (orders(swapped=True), NOWHERE, ["after.waiting.0", "after.waiting.1", "after.0"]),
        (orders("sleeping", swapped=True), RENAMES, ["after.waiting.0", "after.waiting.1", "after.0"]),
        (orders(swapped=True), Renames({"paying": "lost", "lost": "paying"}), ["after.0"]),
    ],
)
def test_timers_that_lead_elsewhere(after: Pipeline[Any], renames: Renames, others: list[str]) -> None:
    before, then = (
        orjson.loads(canonical_bytes(compile_pipeline(one).pipeline)) for one in (orders(), after)
    )
    assert other_timers(before, then, renames) == others
