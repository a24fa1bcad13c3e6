"""What a run that is mapped keeps: an attempt that was lost under its old name, and what it is found by."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from engine.reading import (
    history,
    list_runs,
)
from engine.store.connecting import Connection
from statemachines.bounds import Limit
from statemachines.definition import Pipeline
from statemachines.renames import Renames
from statemachines.search import Searchable
from statemachines.step import Call
from tests.feeding import Feeding, feed
from tests.mapped import (
    TOPIC,
    Noted,
    Order,
    Placed,
    World,
    check_the_log,
    map_all,
    orders,
    place,
    states,
    told,
)
from tests.operators import ask
from tests.services import Database


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
