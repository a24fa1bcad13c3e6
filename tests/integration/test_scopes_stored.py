"""A state that is undone beside another one, in a real Postgres: as logs, lists and the command line tell of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from connectors.source import RawRecord
from engine.cli.looking import effect_words
from engine.cli.working import print_steps
from engine.reading import history, list_runs, replay, show, verify
from engine.store.connecting import Connection
from statemachines import Call, Event, Pipeline, Settle
from statemachines.effects import Out
from statemachines.machine import compile_pipeline
from tests.feeding import event, feed
from tests.integration.test_compensation_stored import until_going
from tests.operators import ask
from tests.saga import RETRY, TOPIC, WORLD, Cancelled, Order, OutOfStockError, Placed, World, clear, place
from tests.services import Database


class Sent(Event, type="order.sent", key="order"):
    order: str


class Lost(Event, type="order.lost", key="order"):
    order: str


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


def parcels() -> Pipeline[Order]:
    """Goods are reserved and shipped while a bill is written; they may be undone alone, and settled."""
    flow: Pipeline[Order] = Pipeline("parcels", Order, topics=[TOPIC])

    @flow.step()
    async def reserve(order: Order, call: Call) -> str:
        del order
        return await WORLD.do(call)

    @reserve.compensate()
    async def release(order: Order, made: str | None, call: Call) -> None:
        WORLD.made.append((order.order, made))
        await WORLD.do(call)

    @flow.step(retry=RETRY)
    async def ship(order: Order, call: Call) -> str:
        del order
        return await WORLD.do(call)

    @flow.step()
    async def bill(order: Order, call: Call) -> str:
        del order
        return await WORLD.do(call)

    @bill.compensate()
    async def write_off(order: Order, made: str | None, call: Call) -> None:
        WORLD.made.append((order.order, made))
        await WORLD.do(call)

    def keep(order: Order, event: Sent) -> Out:
        del order, event
        return Settle(goods)

    both = flow.state("both", initial=True)
    goods, papers = both.region("goods"), both.region("papers")
    packing = goods.state("packing", initial=True)
    reserving = packing.state("reserving", run=reserve, initial=True)
    shipping = packing.state("shipping", run=ship)
    ready, back = goods.state("ready"), goods.state("back")
    billing, billed = papers.state("billing", run=bill, initial=True), papers.state("billed")
    lost, cancelled = flow.state("lost"), flow.state("cancelled", final=True)
    flow.start(Placed, place)
    reserving.on(reserve.done, to=shipping)
    shipping.on(ship.done, to=ready)
    packing.on(ship.failed, to=back, compensate=True)
    ready.on(Sent, do=keep)
    billing.on(bill.done, to=billed)
    both.on(Lost, to=lost)
    flow.on(Cancelled, to=cancelled, compensate=True)
    flow.on_cancel(to=cancelled, compensate=True)
    flow.on_failure(to=cancelled, compensate=True)
    return flow


def told(kind: str, order: str = "o1") -> RawRecord:
    return event(f"order.{kind}", {"order": order}, topic=TOPIC)


async def check_the_log(reader: Connection) -> None:
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(parcels())])
    assert replayed.is_equal, replayed


async def undoing_of(reader: Connection) -> dict[str, str]:
    """By step, how far it is undone."""
    found = await show(reader, "default", "parcels", "o1")
    return {one.of.name: one.compensation.status for one in found.steps if one.compensation is not None}


BESIDE = ["both", "goods", "packing", "$compensating", "papers", "billed"]


async def test_goods_are_undone_beside_papers_and_nothing_else_is(
    database: Database, reader: Connection, world: World
) -> None:
    seen: list[list[str]] = []

    async def look() -> None:
        runs = await list_runs(reader, "default", status="compensating", state="packing")
        seen.extend(run.configuration for run in runs)

    world.script |= {"ship": [OutOfStockError("none left")], "release": [look]}
    async with feed(database, parcels()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
        assert seen == [BESIDE]
        assert sorted(world.steps()) == ["bill", "release", "reserve"]
        [run] = await list_runs(reader, "default")
        assert run.configuration == ["both", "goods", "back", "papers", "billed"]
        assert await list_runs(reader, "default", status="compensating") == []
        assert await undoing_of(reader) == {"reserve": "undone", "bill": "owed"}
        await check_the_log(reader)
        await feeding.records(told("cancelled"))
        await feeding.work()
    assert world.steps().count("release") == world.steps().count("write_off") == 1
    assert await undoing_of(reader) == {"reserve": "undone", "bill": "undone"}
    await check_the_log(reader)


async def test_what_is_settled_is_told_and_not_undone(
    database: Database, reader: Connection, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    async with feed(database, parcels()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
        await feeding.records(told("sent"))
        assert await undoing_of(reader) == {"reserve": "settled", "bill": "owed"}
        print_steps((await show(reader, "default", "parcels", "o1")).steps)
        assert "release: settled (row 5)" in " ".join(capsys.readouterr().out.split())
        row = (await history(reader, "default", "parcels", "o1"))[-1]
        assert [effect_words(one) for one in row.effects] == ["settle reserve"]
        await feeding.records(told("cancelled"))
        await feeding.work()
    assert "release" not in world.steps()
    assert world.steps()[-1] == "write_off"
    assert await undoing_of(reader) == {"reserve": "settled", "bill": "undone"}
    await check_the_log(reader)


async def test_a_cancel_meanwhile_leaves_the_attempt_alone_that_undoes(
    database: Database, reader: Connection, world: World
) -> None:
    goes_on = asyncio.Event()

    async def wait() -> None:
        await goes_on.wait()

    world.script |= {"ship": [OutOfStockError("none left")], "release": [wait]}
    async with feed(database, parcels()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await until_going(feeding, "release", reader)
        await feeding.records(told("cancelled"))
        [run] = await list_runs(reader, "default", status="compensating")
        assert run.configuration == ["$compensating"]
        assert await reader.fetchval(
            "select holder is not null from pointsman.executions where step = 'release'"
        )
        goes_on.set()
        await feeding.steps.close()
        await feeding.work()
    assert world.steps().count("release") == world.steps().count("write_off") == 1
    [run] = await list_runs(reader, "default")
    assert (run.status, run.configuration) == ("completed", ["cancelled"])
    await check_the_log(reader)


async def test_a_compensation_that_is_given_up_is_not_dropped(
    database: Database, reader: Connection, world: World
) -> None:
    world.script |= {"ship": [OutOfStockError("none left")], "release": [OutOfStockError("nobody there")] * 5}
    async with feed(database, parcels()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
        asked = await feeding.drop(1)
        assert "holds a run that is being undone" in str(asked)
        world.script.clear()
        await feeding.redrive(1)
        await feeding.work()
    [run] = await list_runs(reader, "default")
    assert run.configuration == ["both", "goods", "back", "papers", "billed"]
    await check_the_log(reader)


async def test_a_run_that_is_cancelled_while_a_compensation_is_given_up_tries_it_again(
    database: Database, reader: Connection, world: World
) -> None:
    world.script |= {"ship": [OutOfStockError("none left")], "release": [OutOfStockError("nobody there")] * 5}
    async with feed(database, parcels()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
        assert (await show(reader, "default", "parcels", "o1")).status == "held"
        world.script.clear()
        assert (await ask(feeding, "cancel", "parcels", "o1")).done
        [run] = await list_runs(reader, "default")
        assert (run.status, run.configuration) == ("running", ["$compensating"])
        await check_the_log(reader)
        await feeding.work()
    [run] = await list_runs(reader, "default")
    assert (run.status, run.configuration) == ("completed", ["cancelled"])
    assert world.steps().count("write_off") == 1
    assert await undoing_of(reader) == {"reserve": "undone", "bill": "undone"}
    await check_the_log(reader)


async def test_a_run_whose_states_are_undone_after_they_were_left_is_not_cancelled_meanwhile(
    database: Database, reader: Connection, world: World
) -> None:
    goes_on = asyncio.Event()

    async def wait() -> None:
        await goes_on.wait()

    world.script |= {"ship": [OutOfStockError("none left")], "release": [wait]}
    async with feed(database, parcels()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await until_going(feeding, "release", reader)
        await feeding.records(told("lost"))
        answer = await ask(feeding, "cancel", "parcels", "o1")
        assert answer.sentence == (
            "The run 'o1' of parcels is being undone already, and nothing cuts that short."
        )
        goes_on.set()
        await feeding.steps.close()
        await feeding.work()
    [run] = await list_runs(reader, "default")
    assert run.configuration == ["lost"]
    await check_the_log(reader)
