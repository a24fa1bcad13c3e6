"""Types of events that several fields or a function make; what is stored of such events is read without that."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest

from connectors.source import RawRecord
from engine.errors import UsageError
from engine.reading import (
    ask_edit,
    explain,
    history,
    list_dead_letters,
    list_runs,
    replay,
    verify,
    wait_until_taken,
)
from engine.store.connecting import Connection, connect
from statemachines import Context, Event, Pipeline, Topic
from statemachines.machine import compile_pipeline
from statemachines.topic import TypeBy
from tests.feeding import feed, raw
from tests.services import Database

FIELDS = ("table", "op")


class Created(Event, type="orders.c", key="id"):
    id: str
    amount: int


class Updated(Created, type="orders.u"):
    pass


class Kept(Context):
    amounts: list[int]


def keep(event: Created) -> Kept:
    return Kept(amounts=[event.amount])


def add(kept: Kept, event: Updated) -> None:
    kept.amounts.append(event.amount)


def joined(data: dict[str, Any]) -> str:
    return f"{data.pop('table')}.{data.pop('op')}"


def other(_data: dict[str, Any]) -> str:
    return "orders.d"


def changes(by: TypeBy, version: int = 1) -> Pipeline[Kept]:
    flow = Pipeline("changes", Kept, version=version, topics=[Topic("orders", type=by)])
    there = flow.state("there", initial=True)
    flow.start(Created, keep)
    there.on(Updated, do=add)
    return flow


def sent(op: str, amount: object = 5, **data: Any) -> RawRecord:
    return raw(orjson.dumps({"table": "orders", "op": op, "id": "o1", "amount": amount} | data))


@pytest.mark.parametrize("by", [FIELDS, joined])
async def test_such_events_are_told_edited_and_replayed_as_any(
    database: Database, reader: Connection, by: TypeBy
) -> None:
    async with feed(database, changes(by)) as feeding:
        await feeding.records(sent("c"), sent("u", "much"), sent("u", 7))
        [letter] = await list_dead_letters(reader, "default")
        assert (letter.type, letter.key, letter.reason) == ("orders.u", "o1", "invalid data")
        engine = await connect(database.engine_dsn, for_engine=False)
        asked = await ask_edit(
            engine, "default", letter.id, changes={"amount": 6}, who="ana", why="they meant six"
        )
        await feeding.commands()
        [became] = await wait_until_taken(engine, "default", asked, seconds=0)
        await engine.close()
    assert became.disposition == "applied"
    [run] = await list_runs(reader, "default")
    assert run.context["amounts"] == [5, 6, 7]
    rows = await history(reader, "default", "changes", "o1")
    assert [row.event.type for row in rows if not row.event.type.startswith("pointsman")] == [
        "orders.c", "orders.u", "orders.u", "orders.u", "orders.u",
    ]  # fmt: skip
    [answer] = (await explain(reader, "default", topic="orders", partition=0, offset=1)).answers
    assert (answer.type, answer.source) == ("orders.u", "kafka://test-cluster/orders")
    assert (await verify(reader, "default")).is_clean
    assert (await replay(reader, "default", [compile_pipeline(changes(by))])).is_equal
    [mismatch] = (await replay(reader, "default", [compile_pipeline(changes(other))])).mismatches
    assert "orders.d" in str(mismatch)


@pytest.mark.parametrize("by", [FIELDS, joined])
async def test_what_waits_is_the_event_that_it_was_though_another_function_tells_types_by_now(
    database: Database, reader: Connection, by: TypeBy
) -> None:
    async with feed(database, changes(by)) as feeding:
        await feeding.records(sent("c"), sent("u", "much"), sent("u", 7))
    async with feed(database, changes(by), changes(other, version=2)) as feeding:
        await feeding.drop(1)
    [run] = await list_runs(reader, "default")
    assert run.context["amounts"] == [5, 7]
    machines = [compile_pipeline(changes(by)), compile_pipeline(changes(other, version=2))]
    assert (await replay(reader, "default", machines)).is_equal
    assert (await replay(reader, "default", machines[:1])).is_equal


async def test_a_record_whose_type_no_function_could_tell_is_redriven_by_a_better_one(
    database: Database, reader: Connection
) -> None:
    lacking = raw(orjson.dumps({"op": "c", "id": "o1", "amount": 5}))
    async with feed(database, changes(joined)) as feeding:
        await feeding.records(lacking)
    [letter] = await list_dead_letters(reader, "default")
    assert (letter.reason, letter.pipeline) == ("unreadable", None)
    assert "joined raised KeyError: 'table'" in letter.error
    async with feed(database, changes(lambda data: f"orders.{data['op']}", version=2)) as feeding:
        await feeding.redrive(letter.id)
    [run] = await list_runs(reader, "default")
    assert run.context["amounts"] == [5]
    assert (await verify(reader, "default")).is_clean


@pytest.mark.parametrize("by", [FIELDS, joined])
async def test_what_waits_is_the_event_that_it_was_though_a_field_has_no_name(
    database: Database, reader: Connection, by: TypeBy
) -> None:
    async with feed(database, changes(by)) as feeding:
        await feeding.records(sent("c"), sent("u", "much"), sent("u", 7, **{"": "orders.c"}))
        await feeding.drop(1)
    [run] = await list_runs(reader, "default")
    assert run.context["amounts"] == [5, 7]
    assert (await replay(reader, "default", [compile_pipeline(changes(by))])).is_equal


@pytest.mark.parametrize(("by", "default"), [(FIELDS, None), (joined, None), (joined, "orders.c")])
async def test_a_record_of_which_nobody_knows_the_type_is_not_edited(
    database: Database, reader: Connection, by: TypeBy, default: str | None
) -> None:
    flow = changes(by)
    flow.topics = [Topic("orders", type=by, type_default=default)]
    lacking = raw(orjson.dumps({"op": "c", "id": "o1", "amount": 5}))
    async with feed(database, flow) as feeding:
        await feeding.records(lacking)
        [letter] = await list_dead_letters(reader, "default")
        [answer] = (await explain(reader, "default", topic="orders", partition=0, offset=0)).answers
        assert (letter.reason, answer.source) == ("unreadable", None)
        engine = await connect(database.engine_dsn, for_engine=False)
        data = orjson.dumps({"table": "orders", "op": "c", "id": "o2", "amount": 9})
        with pytest.raises(UsageError, match="it cannot be read as one event"):
            await ask_edit(engine, "default", letter.id, data=data, who="ana", why="it lacks its table")
        await engine.close()


async def test_a_function_that_answers_differently_the_second_time_ends_no_replay(
    database: Database, reader: Connection
) -> None:
    asked = itertools.count()

    def once(data: dict[str, Any]) -> str:
        assert next(asked) == 0, "it is asked again"
        return joined(data)

    async with feed(database, changes(joined)) as feeding:
        await feeding.records(sent("c"))
    assert (await replay(reader, "default", [compile_pipeline(changes(once))])).is_equal
