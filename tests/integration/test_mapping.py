"""Runs of a version that is not loaded any more: mapped to another one, in which states and steps have other names."""

from __future__ import annotations

import asyncio
import re

import pytest

from engine.commands import mapping
from engine.errors import UsageError
from engine.reading import (
    explain,
    history,
    show,
)
from engine.store.connecting import Connection
from statemachines.renames import Renames
from tests.cli import pointsman
from tests.documented import Page
from tests.feeding import feed
from tests.mapped import (
    MINUTES,
    RENAMES,
    TOPIC,
    Order,
    World,
    check_the_log,
    map_all,
    orders,
    reminders,
    states,
    told,
    work_until,
)
from tests.operators import WHO, WHY, ask, ask_pipeline, complete
from tests.services import Database


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
        await feeding.records(told("noted", "o1"))
        held = (await ask(feeding, "resume", "orders", "o1")).sentence
        assert held.endswith("was not loaded. It goes on once an engine has that loaded.")
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
        assert (done, "is loaded in an engine, and it goes on by that" in said) == (False, True)
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
        assert (asked.code, [one["taken"] for one in asked.json["became"]]) == (1, [False, False])
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
