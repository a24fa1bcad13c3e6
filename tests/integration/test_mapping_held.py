"""Runs that a bug in a handler holds: mapped to the version without it, beside the one that others go on by."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.reading import explain, show
from engine.reading.mapping import ask_to_map, choose_to_map
from engine.reading.operating import wait_until_done
from engine.store.connecting import Connection, connect
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.events import Event
from statemachines.renames import Renames
from statemachines.step import Call
from tests.cli import pointsman
from tests.feeding import Feeding, event, feed
from tests.integration.test_definitions_listed import Loads, loads
from tests.mapped import TOPIC, check_the_log, map_all, states
from tests.operators import WHO, WHY, ask
from tests.services import Database

__all__ = ["loads"]


class Placed(Event, type="order.placed", key="order"):
    order: str


class Shared(Event, type="order.shared", key="order"):
    order: str
    by: int


class Order(Context):
    share: int = 0
    shared: int = 0


def place(event: Placed) -> Order:
    return Order()


class Bank:
    """Is asked, and answers when it may."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_asked, self.may = asyncio.Event(), asyncio.Event()

    async def charge(self, order: Order, call: Call) -> int:
        self.asked.append(call.idempotency_key)
        self.is_asked.set()
        await self.may.wait()
        return 7


def orders(bank: Bank, version: int, *, charging: str = "charging") -> Pipeline[Any]:
    """Charged at once; what is shared by nobody is divided by nothing, until version 2."""
    flow: Pipeline[Any] = Pipeline("orders", Order, version=version, topics=[TOPIC])

    async def charge(order: Order, call: Call) -> int:
        return await bank.charge(order, call)

    def share(order: Order, event: Shared) -> None:
        order.share = 100 // event.by
        order.shared += 1

    def share_or_keep(order: Order, event: Shared) -> None:
        order.share = 100 // event.by if event.by else 100
        order.shared += 1

    work = flow.step()(charge)
    charges = flow.state(charging, run=work, initial=True)
    flow.start(Placed, place)
    charges.on(Shared, do=share if version == 1 else share_or_keep)
    charges.on(work.done, to=flow.state("shipped", final=True))
    return flow


def told(kind: str, key: str, **data: Any) -> RawRecord:
    return event(f"order.{kind}", {"order": key, **data})


async def map_held(feeding: Feeding, key: str) -> tuple[bool, str]:
    connection = await connect(feeding.database.engine_dsn, for_engine=False)
    try:
        chosen = await choose_to_map(connection, "default", "orders", 1, 2, Renames(), key=key)
        assert [one.key for one in chosen] == [key]
        said = "orders", chosen, 1, 2, Renames()
        asked = await ask_to_map(connection, "default", *said, who=WHO, why=WHY)
        await feeding.commands()
        [done] = await wait_until_done(connection, "default", asked, seconds=0)
    finally:
        await connection.close()
    return done.done, done.sentence


async def test_a_run_that_a_bug_holds_goes_on_by_the_version_without_it(
    database: Database, reader: Connection
) -> None:
    bank = Bank()
    old, new = orders(bank, 1), orders(bank, 2)
    async with feed(database, old, new) as feeding:
        # Begun by an engine that has the old one alone.
        async with feed(database, old) as before:
            await before.records(told("placed", "o1"), told("placed", "o2"))
            await before.records(told("shared", "o1", by=0), told("shared", "o1", by=4))
        [letter] = await reader.fetch("select id from pointsman.dead_letters")
        await feeding.redrive(letter["id"], why="the same version")
        assert (await states(reader))["o1"] == ("held", "charging"), "it divides by nothing again"
        [letter] = await reader.fetch("select id from pointsman.dead_letters where status = 'open'")
        done, said = await map_held(feeding, "o1")
        assert done, said
        assert (await states(reader))["o1"] == ("held", "charging"), "what holds it is redriven by a person"
        await feeding.redrive(letter["id"])
        run = await show(reader, "default", "orders", "o1")
        assert (run.status, run.version, run.context) == ("running", 2, {"share": 25, "shared": 2})
        assert (await show(reader, "default", "orders", "o2")).version == 1
        bank.may.set()
        await feeding.work()
    assert set((await states(reader)).values()) == {("completed", "shipped")}
    await check_the_log(reader, old, new)


async def test_an_attempt_that_has_begun_before_counts_and_is_not_begun_again(
    database: Database, reader: Connection
) -> None:
    bank = Bank()
    old, new = orders(bank, 1), orders(bank, 2)
    async with feed(database, old) as before:
        await before.records(told("placed", "o1"))
    async with feed(database, old, new) as feeding:
        await feeding.begin_steps()
        await bank.is_asked.wait()
        await feeding.records(told("shared", "o1", by=0))
        done, said = await map_held(feeding, "o1")
        assert done, said
        bank.may.set()
        await feeding.steps.arrived.wait()
        await feeding.take_results()
        assert (await states(reader))["o1"] == ("held", "charging"), "what became of it waits"
        [letter] = await reader.fetch("select id from pointsman.dead_letters")
        await feeding.redrive(letter["id"])
        await feeding.work()
    assert (await states(reader))["o1"] == ("completed", "shipped")
    assert len(bank.asked) == 1
    await check_the_log(reader, old, new)


async def test_a_run_that_is_paused_is_mapped_and_goes_on_once_it_is_resumed(
    database: Database, reader: Connection
) -> None:
    bank = Bank()
    old, new = orders(bank, 1), orders(bank, 2)
    async with feed(database, old) as before:
        await before.records(told("placed", "o1"))
    async with feed(database, old, new) as feeding:
        await ask(feeding, "pause", "orders", "o1")
        assert (await map_held(feeding, "o1"))[0]
        await ask(feeding, "resume", "orders", "o1")
        await feeding.records(told("shared", "o1", by=0))
    run = await show(reader, "default", "orders", "o1")
    assert (run.status, run.version, run.context) == ("running", 2, {"share": 100, "shared": 1})
    await check_the_log(reader, old, new)


@pytest.mark.parametrize(
    ("is_held", "renames"), [(False, Renames()), (True, Renames({"charging": "billing"}))]
)
async def test_a_run_that_goes_on_by_its_version_is_left_and_so_is_what_would_have_another_name(
    database: Database, reader: Connection, *, is_held: bool, renames: Renames
) -> None:
    bank = Bank()
    old, new = orders(bank, 1), orders(bank, 2, charging="billing" if renames.states else "charging")
    async with feed(database, old) as before:
        await before.records(told("placed", "o1"))
        if is_held:
            await before.records(told("shared", "o1", by=0))
    async with feed(database, old, new) as feeding:
        done, said = (await map_all(feeding, renames))["o1"]
    assert not done
    assert said == (
        "The run 'o1' of orders is not mapped: version 1, which it follows, is loaded in an engine, and it goes on by "
        "that; from there only a run that is held or paused is mapped, with nothing renamed."
    )


async def test_the_command_chooses_by_key_and_status_and_a_dry_run_says_that_it_counts(
    database: Database, reader: Connection
) -> None:
    bank = Bank()
    async with feed(database, orders(bank, 1)) as before:
        await before.records(told("placed", "o1"), told("placed", "o2"), told("placed", "o3"))
        await before.records(told("shared", "o1", by=0), told("shared", "o2", by=0))
    async with feed(database, orders(bank, 2)):
        pass
    command = "definitions", "map", "orders", "--from", "1", "--to", "2", "--reason", WHY, "--dry-run"

    def counted(*words: str) -> int:
        done = pointsman(*command, *words, "--json", on={"POSTGRES": database.engine_dsn})
        assert "whether each of the others fits, an engine sees as it maps it." in done.err
        return int(done.json["runs"])

    assert (counted(), counted("--status", "held"), counted("--key", "o3")) == (3, 2, 1)
    assert counted("--key", "o3", "--status", "held") == 0
    wrong = pointsman(*command, "--status", "hld", on={"POSTGRES": database.engine_dsn})
    assert (wrong.code, "Did you mean 'held'" in wrong.err) == (2, True)


async def test_a_dead_letter_of_a_handler_says_that_its_version_fails_again(
    database: Database, reader: Connection
) -> None:
    async with feed(database, orders(Bank(), 1)) as feeding:
        await feeding.records(told("placed", "o1"))
        [shared] = await feeding.records(told("shared", "o1", by=0))
    [letter] = await reader.fetch("select id from pointsman.dead_letters")
    found = await explain(reader, "default", topic=TOPIC, partition=0, offset=shared.offset)
    cure = (
        "Redriven, it fails again as long as the run follows the same version. Load one that is mended, too, and have "
        "the run follow that first: pointsman definitions map orders --key=o1 --from VERSION --to VERSION "
        "--reason TEXT."
    )
    assert cure in found.answers[0].current.sentence
    shown = pointsman("dead-letters", "show", letter["id"], on={"POSTGRES": database.reader_dsn})
    assert cure in shown.out


async def test_a_dry_run_tells_which_runs_would_stay_as_they_are_and_why(
    database: Database, engine: Connection, loads: Loads
) -> None:
    old, new = orders(Bank(), 1), orders(Bank(), 2, charging="billing")
    async with feed(database, old) as before:
        await before.records(told("placed", "o1"), told("placed", "o2"))
        await before.records(told("shared", "o1", by=0))
    async with feed(database, new):
        pass
    command = "definitions", "map", "orders", "--from", "1", "--to", "2", "--reason", WHY, "--dry-run"
    on = {"POSTGRES": database.engine_dsn}

    def left(*words: str) -> dict[str, str]:
        done = pointsman(*command, *words, "--json", on=on)
        assert "whether each of the others fits, an engine sees as it maps it." in done.err
        return {one["key"]: one["sentence"] for one in done.json["became"]}

    strange = "would stay as it is: it is in 'charging', which is no state of version 2."
    assert {key: strange in said for key, said in left().items()} == {"o1": True, "o2": True}
    assert left("--state", "charging=billing") == {}
    shown = pointsman(*command, on=on)
    assert "2 of 2 runs would stay as they are." in shown.err
    await loads(old)
    said = left("--state", "charging=billing")
    goes_on = "version 1, which it follows, is loaded in an engine, and it goes on by that"
    assert {key: goes_on in why for key, why in said.items()} == {"o1": True, "o2": True}
    said = left()
    assert (strange in said["o1"], goes_on in said["o2"]) == (True, True)
    assert await engine.fetchval("select count(*) from pointsman.inbox") == 0
