"""Runs of a version that is not loaded any more: mapped to another one, in which states and steps have other names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Annotated, Any

import pytest

from connectors.source import RawRecord
from engine import mapping
from engine.errors import UsageError
from engine.reading import (
    ask_to_map,
    choose_to_map,
    explain,
    history,
    list_runs,
    replay,
    show,
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
from statemachines.search import Searchable
from statemachines.step import Call, Retry, exponential
from tests.cli import pointsman
from tests.documented import Page
from tests.feeding import Feeding, event, feed
from tests.operators import WHO, WHY, ask, ask_pipeline, complete
from tests.services import Database

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


async def test_runs_go_on_where_they_are_by_the_new_names(database: Database, reader: Connection) -> None:
    world = World()
    old, new = orders(world, 1), orders(world, 2)
    world.fails.add("pack")
    async with feed(database, old) as feeding:
        await feeding.records(told("placed", "o1"), told("placed", "o2", later=True))
        await work_until(feeding, lambda: min(len(world.keys("pack")), len(world.keys("charge"))) >= 2)
    first = world.keys("pack")
    async with feed(database, new) as feeding:
        # Nothing of theirs goes on, and what comes for them waits.
        await feeding.records(told("noted", "o1"))
        assert (await states(reader))["o1"] == ("held", "order packing")
        became = await map_all(feeding)
        assert became["o1"][0], became
        assert became["o1"][1].startswith("The run 'o1' of orders follows version 2 (row ")
        assert became["o1"][1].endswith("1 events had waited.")
        assert became["o2"][0], became
        assert await states(reader) == {
            "o1": ("running", "sale packing"),
            "o2": ("running", "sale billing"),
        }
        await check_the_log(reader, old, new)
        done = await complete(feeding, "case o2", 9)
        assert done.done, done
        await feeding.work()
        assert (await states(reader))["o1"] == ("completed", "shipped")
    assert {call.idempotency_key for step, call in world.calls if (step, call.key) == ("wrap", "o1")} == set(
        first
    )
    assert (await states(reader))["o2"] == ("completed", "shipped")
    await check_the_log(reader, old, new)
    rows = await history(reader, "default", "orders", "o1")
    (at,) = [row.sequence for row in rows if row.event.kind == "mapped"]
    shown = await show(reader, "default", "orders", "o1", at_sequence=at)
    assert (shown.version, shown.command) == (
        2,
        {
            "command": "map",
            "who": WHO,
            "why": WHY,
            "mapping": {"from": 1, "to": 2, "states": RENAMES.states, "steps": RENAMES.steps},
        },
    )


async def test_what_was_done_is_undone_by_the_new_name(database: Database, reader: Connection) -> None:
    world = World()
    world.fails.add("pack")
    old, new = orders(world, 1), orders(world, 2)
    async with feed(database, old) as feeding:
        await feeding.records(told("placed", "o1"))
        await work_until(feeding, lambda: bool(world.keys("pack")))
    async with feed(database, new) as feeding:
        assert (await map_all(feeding))["o1"][0]
        (charged, packed) = (await show(reader, "default", "orders", "o1")).steps
        assert (charged.of.name, packed.of.name) == ("charge", "wrap"), "one was done under its old name"
        assert charged.compensation is not None
        assert (charged.compensation.name, charged.compensation.status) == ("reimburse", "owed")
        assert (await ask(feeding, "cancel", "orders", "o1")).done
        await feeding.work()
    assert (await states(reader))["o1"] == ("completed", "lost")
    (undone,) = [call for step, call in world.calls if step == "reimburse"]
    assert undone.of.idempotency_key == world.keys("charge")[0]
    await check_the_log(reader, old, new)


async def leave_one_going(database: Database, world: World, old: Pipeline[Any]) -> None:
    """An engine that is killed in the midst of an attempt to charge."""
    world.hangs.add("charge")
    async with feed(database, old) as feeding:
        await feeding.records(told("placed", "o1"))
        await feeding.begin_steps()
        while not world.calls:
            await next_look(feeding)


async def next_look(feeding: Feeding) -> None:
    """Until the engine has looked once more what is to begin, and what is lost."""
    feeding.steps.check()
    feeding.steps.turned.clear()
    await feeding.steps.turned.wait()


LIMITS = [(None, None), (Limit(at_once=1), Limit(at_once=1)), (None, Limit("later", at_once=1))]


@pytest.mark.parametrize(("before", "after"), LIMITS)
async def test_an_attempt_that_was_lost_is_known_by_its_new_name_and_numbered_on(
    database: Database, reader: Connection, before: Limit | None, after: Limit | None
) -> None:
    world = World()
    old, new = orders(world, 1, limit=before), orders(world, 2, limit=after)
    await leave_one_going(database, world, old)
    async with feed(database, new) as feeding:
        assert (await map_all(feeding))["o1"][0]
        await feeding.work()
    assert await states(reader) == {"o1": ("completed", "shipped")}
    charged = [(step, call.attempt, call.last_error[:9]) for step, call in world.calls if step != "wrap"]
    assert charged == [("charge", 1, ""), ("bill", 2, "LostError")]
    assert len({*world.keys("charge", "bill")}) == 1
    types = [row.event.type for row in await history(reader, "default", "orders", "o1")]
    assert "tried.step.bill" in types
    await check_the_log(reader, old, new)


@pytest.mark.parametrize(("before", "after"), LIMITS)
async def test_what_was_lost_under_its_old_name_is_owed_and_undone_by_the_new_one(
    database: Database, reader: Connection, before: Limit | None, after: Limit | None
) -> None:
    world = World()
    old, new = orders(world, 1, limit=before), orders(world, 2, limit=after)
    await leave_one_going(database, world, old)
    async with feed(database, new) as feeding:
        assert (await map_all(feeding))["o1"][0]
        assert (await ask(feeding, "cancel", "orders", "o1")).done
        await feeding.work()
    assert await states(reader) == {"o1": ("completed", "lost")}
    assert [step for step, _ in world.calls] == ["charge", "reimburse"]
    assert world.calls[1][1].of.idempotency_key == world.keys("charge")[0]
    await check_the_log(reader, old, new)


async def test_an_attempt_is_lost_as_well_where_only_its_state_has_another_name(
    database: Database, reader: Connection
) -> None:
    def trip(version: int) -> Pipeline[Any]:
        flow: Pipeline[Any] = Pipeline("orders", Order, version=version, topics=[TOPIC])

        @flow.step()
        async def charge(order: Order, call: Call) -> int:
            await world.do(call)
            return 7

        charges = flow.state("charging" if version == 1 else "billing", initial=True, run=charge)
        flow.start(Placed, place)
        charges.on(charge.done, to=flow.state("shipped", final=True))
        return flow

    world, old, new = World(), trip(1), trip(2)
    await leave_one_going(database, world, old)
    world.hangs.clear()
    async with feed(database, new) as feeding:
        assert (await map_all(feeding, Renames({"charging": "billing"})))["o1"][0]
        await feeding.work()
    assert [call.attempt for _, call in world.calls] == [1, 2]
    await check_the_log(reader, old, new)


class Tagged(Order):
    later: bool = False
    tags: Annotated[str | None, Searchable()] = None


class TaggedNow(Tagged):
    tags: str | None = None


def tag(order: Any, event: Noted) -> None:
    order.tags = event.text or None


def tagged(version: int, context: type[Order] = Tagged) -> Pipeline[Any]:
    """Found by what it was tagged with."""
    flow: Pipeline[Any] = Pipeline("orders", context, version=version, topics=[TOPIC])
    flow.start(Placed, lambda placed: context(later=placed.later))
    flow.state("opened", initial=True).on(Noted, do=tag)
    return flow


@pytest.mark.parametrize(
    ("texts", "context", "found"),
    [
        (["", "new"], Tagged, ["o1"]),
        (["old", "new"], Tagged, ["o1"]),
        (["old", ""], Tagged, []),
        (["new"], Tagged, ["o1"]),
        (["old", "new"], TaggedNow, []),
    ],
    ids=["it comes", "another comes", "it goes", "it stays", "it is not searched for any more"],
)
async def test_a_run_is_found_by_what_it_is_after_the_events_that_waited(
    database: Database, reader: Connection, texts: list[str], context: type[Order], found: list[str]
) -> None:
    first, *waited = texts
    async with feed(database, tagged(1)) as feeding:
        await feeding.records(told("placed", "o1"), told("noted", "o1", text=first))
    async with feed(database, tagged(2, context)) as feeding:
        await feeding.records(*(told("noted", "o1", text=one) for one in waited))
        assert (await map_all(feeding, Renames()))["o1"][0]
    runs = await list_runs(reader, "default", where=[("tags", "new")])
    assert [run.key for run in runs] == found
    await check_the_log(reader, tagged(1), tagged(2, context))


async def test_timers_and_what_histories_remember_go_by_the_new_names(
    database: Database, reader: Connection
) -> None:
    world = World()
    old, new = orders(world, 1), orders(world, 2)
    async with feed(database, old) as feeding:
        await feeding.records(told("placed", "o1", later=True), told("placed", "o2", later=True))
        await feeding.records(told("withdrawn", "o2"))
        falls_due = feeding.clock.now + 2 * MINUTES
    async with feed(database, new) as feeding:
        became = await map_all(feeding)
        assert (became["o1"][0], became["o2"][0]) == (True, True), became
        await feeding.records(told("noted", "o2"))
        assert (await states(reader))["o2"] == ("running", "sale billing")
        await feeding.due(falls_due)
        assert (await states(reader))["o1"] == ("completed", "lost")
    await check_the_log(reader, old, new)


async def test_what_does_not_fit_is_told_and_left_as_it_is(database: Database, reader: Connection) -> None:
    class Strict(Order):
        customer: str

    world = World()
    old, new, strict = orders(world, 1), orders(world, 2), orders(world, 3, Strict)
    async with feed(database, old) as feeding:
        await feeding.records(told("placed", "o1", later=True))
        await feeding.begin_steps()
        await feeding.steps.arrived.wait()
        await feeding.take_results()
        await feeding.steps.close()
    before = await history(reader, "default", "orders", "o1")
    async with feed(database, new, strict) as feeding:
        done, said = (await map_all(feeding, Renames()))["o1"]
        assert not done
        assert said.startswith(
            "The run 'o1' of orders stays as it is: it is in 'order', which is no state of version 2"
        )
        assert (
            "it waits for the step 'charge', which version 2 does not have. Known are 'bill' and 'wrap'"
            in said
        )
        assert "a timer of the state 'charging' goes on, which version 2 does not have" in said
        done, said = (await map_all(feeding, RENAMES, to=3))["o1"]
        assert not done
        assert said.startswith(
            "The run 'o1' of orders stays as it is: its context is none of version 3: customer: "
        )
        done, said = (
            await map_all(feeding, RENAMES._replace(states={"charging": "packing", "order": "sale"}))
        )["o1"]
        assert "a timer of the state 'packing' goes on, which version 2 does not have" in said
        done, said = (
            await map_all(feeding, RENAMES._replace(states={"charging": "billing", "order": "lost"}))
        )["o1"]
        assert "'lost billing' is not where a run of version 2 can be" in said
    assert await history(reader, "default", "orders", "o1") == before
    await check_the_log(reader, old, new)


async def test_a_run_that_is_undone_comes_to_its_end_by_its_own_version(
    database: Database, reader: Connection
) -> None:
    world = World()
    world.fails |= {"pack"}
    old, new = orders(world, 1), orders(world, 2)
    async with feed(database, old) as feeding:
        await feeding.records(told("placed", "o1"))
        await work_until(feeding, lambda: bool(world.keys("pack")))
        await feeding.steps.close()
        await ask(feeding, "cancel", "orders", "o1")
    async with feed(database, new) as feeding:
        done, said = (await map_all(feeding))["o1"]
        assert (done, "it is being undone" in said) == (False, True)
    await check_the_log(reader, old, new)


async def test_a_timer_that_would_lead_elsewhere_is_not_taken_over(
    database: Database, reader: Connection
) -> None:
    async with feed(database, reminders()) as feeding:
        await feeding.records(told("placed", "o1"))
    async with feed(database, reminders(swapped=True)) as feeding:
        done, said = (await map_all(feeding, Renames()))["o1"]
        assert not done
        assert said == (
            "The run 'o1' of orders stays as it is: its timer 'after.idle.0' leads elsewhere in version 2; "
            "its timer 'after.idle.1' leads elsewhere in version 2."
        )
    async with feed(database, reminders()) as feeding:
        await feeding.due(feeding.clock.now + 2 * MINUTES)
    assert await states(reader) == {"o1": ("completed", "reminded")}


async def test_a_run_for_which_more_comes_meanwhile_is_mapped_all_the_same(
    database: Database, reader: Connection
) -> None:
    world = World()
    old, new = orders(world, 1), orders(world, 2)
    async with feed(database, old) as feeding:
        await feeding.records(told("placed", "o1", later=True))
    async with feed(database, new) as feeding:
        became = await map_all(feeding, meanwhile=[told("noted", "o1"), told("noted", "o1", at=2)])
        assert became["o1"][0], became
    assert (await show(reader, "default", "orders", "o1")).context == {"later": True, "notes": 2}
    await check_the_log(reader, old, new)


async def test_how_a_renamed_step_ended_is_taken_by_the_version_that_knows_it(
    database: Database, reader: Connection
) -> None:
    world = World()
    old, new = orders(world, 1), orders(world, 2)
    async with feed(database, old) as feeding:
        await feeding.records(told("placed", "o1"))
        await feeding.begin_steps()
        await feeding.steps.arrived.wait()
        assert (await ask_pipeline(feeding, "pause", "orders")).done
        await feeding.take_results()
    async with feed(database, new) as feeding:
        assert (await ask_pipeline(feeding, "resume", "orders")).done
        done, said = (await map_all(feeding))["o1"]
        assert not done
        assert said == (
            "The run 'o1' of orders stays as it is: how 'charge' ended waits for it, under that name: "
            "load the version that it follows until that was taken."
        )
    async with feed(database, old, new) as feeding:
        assert (await ask(feeding, "resume", "orders", "o1")).done
        await feeding.work()
    assert await states(reader) == {"o1": ("completed", "shipped")}
    await check_the_log(reader, old, new)


async def test_a_run_for_which_more_waits_than_is_looked_at_is_not_mapped(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    async with feed(database, orders(world, 1)) as feeding:
        await feeding.records(told("placed", "o1", later=True))
    monkeypatch.setattr(mapping, "WAITING_BYTES_MAX", 1)
    async with feed(database, orders(world, 2)) as feeding:
        await feeding.records(told("noted", "o1"), told("noted", "o1", at=2))
        assert (await map_all(feeding))["o1"] == (
            False,
            (
                "The run 'o1' of orders stays as it is: more waits for it than can be looked at: "
                "load the version that it follows until that was taken."
            ),
        )


async def test_a_version_that_is_loaded_is_left_alone(database: Database, reader: Connection) -> None:
    world = World()
    old, new = orders(world, 1), orders(world, 2)
    async with feed(database, old, new) as feeding:
        await feeding.records(told("placed", "o0"))
    async with feed(database, old) as feeding:
        await feeding.records(told("placed", "o1", later=True))
        assert "version 2 is not loaded here, but 1. Load it" in (await map_all(feeding))["o1"][1]
    async with feed(database, old, new) as feeding:
        done, said = (await map_all(feeding))["o1"]
        assert (done, "is loaded here, and it goes on by that" in said) == (False, True)
    async with feed(database, new) as feeding:
        assert (await map_all(feeding))["o1"][0]
        assert await map_all(feeding) == {}
    await check_the_log(reader, old, new)


@pytest.mark.parametrize(
    ("to", "renames", "said"),
    [
        (3, RENAMES, "orders was never run with version 3, but with 1, 2"),
        (2, Renames({"chargin": "billing"}), "Version 1 has no state 'chargin'. Did you mean 'charging'?"),
        (2, Renames({"charging": "biling"}), "Version 2 has no state 'biling'. Did you mean 'billing'?"),
        (2, Renames({}, {"charge": "billing"}), "Version 2 has no step 'billing'."),
    ],
)
async def test_what_cannot_be_asked(
    database: Database, reader: Connection, to: int, renames: Renames, said: str
) -> None:
    world = World()
    async with feed(database, orders(world, 1), orders(world, 2)) as feeding:
        with pytest.raises(UsageError, match=re.escape(said)):
            await map_all(feeding, renames, to)


async def test_it_is_explained(database: Database, reader: Connection) -> None:
    world = World()
    async with feed(database, orders(world, 1)) as feeding:
        await feeding.records(told("placed", "o1", later=True))
    async with feed(database, orders(world, 2)) as feeding:
        [noted] = await feeding.records(told("noted", "o1"))
        waits = await explain(reader, "default", topic=TOPIC, partition=0, offset=noted.offset)
        assert (
            "pointsman definitions map orders --from 1 --to VERSION --reason TEXT."
            in waits.answers[0].current.sentence
        )
        await map_all(feeding)
    rows = await history(reader, "default", "orders", "o1")
    (mapped,) = [row.event.id for row in rows if row.event.kind == "mapped"]
    found = await explain(reader, "default", event_id=mapped)
    sentences = " ".join(one.current.sentence for one in found.answers)
    assert "follows version 2 instead of version 1 from there on (row 3)" in sentences


async def test_the_command_counts_first_and_maps_then(database: Database, reader: Connection) -> None:
    world, on, page = World(), {"POSTGRES": database.engine_dsn}, Page.read()
    command = "definitions", "map", "orders", "--from", "1", "--to", "2", "--reason", WHY, "--json"
    renames = [f"--state={old}={new}" for old, new in RENAMES.states.items()]
    renames += [f"--step={old}={new}" for old, new in RENAMES.steps.items()]
    async with feed(database, orders(world, 1)) as feeding:
        await feeding.records(told("placed", "o1", later=True), told("placed", "o2", later=True))
    async with feed(database, orders(world, 2)) as feeding:
        counted = await asyncio.to_thread(pointsman, *command, *renames, "--dry-run", on=on)
        page.check("definitions map", counted.json)
        assert (counted.json["runs"], counted.json["dry_run"], counted.json["became"]) == (2, True, [])
        asked = await asyncio.to_thread(pointsman, *command, *renames, "--yes", "--wait", "0", on=on)
        assert [one["taken"] for one in asked.json["became"]] == [False, False]
        await feeding.records(told("noted", "o1"))
        held = await asyncio.to_thread(pointsman, "show", "o1", on=on)
        assert "pointsman definitions map orders --from 1 --to VERSION --reason TEXT" in held.out
        await feeding.commands()
        assert await map_all(feeding) == {}
        held = await asyncio.to_thread(pointsman, "show", "o1", on=on)
        assert "definitions map" not in held.out
    assert {state for _, state in (await states(reader)).values()} == {"sale billing"}
    shown = await asyncio.to_thread(pointsman, "show", "o2", "--json", on=on)
    page.check("show", shown.json)
    assert shown.json["command"]["mapping"]["steps"] == RENAMES.steps
