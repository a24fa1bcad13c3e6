"""What came from one cluster stays the same event when an engine that reads another one takes it up again."""

from __future__ import annotations

from typing import Any

import orjson

from connectors.source import RawRecord
from engine.reading import history, list_dead_letters, list_runs, replay, verify
from engine.store.connecting import Connection
from statemachines.definition import Topic
from statemachines.machine import compile_pipeline
from tests.feeding import feed, raw
from tests.services import Database
from tests.shop import shop


def plain(**fields: Any) -> RawRecord:
    """A record without an id of its own: where it came from is its id."""
    return raw(orjson.dumps({"order_id": "o1", **fields}))


async def ids(reader: Connection, pipeline: str = "shop") -> list[str]:
    rows = await history(reader, "default", pipeline, "o1")
    return [row.event.id for row in rows if row.event.kind != "released"]


async def test_redriven_and_waiting_events_keep_the_ids_that_they_came_with(
    database: Database, reader: Connection, broken: set[str]
) -> None:
    async with feed(database, shop(), cluster="old") as feeding:
        await feeding.records(
            plain(type="order.placed", amount=5),
            plain(type="order.broken"),
            plain(type="order.noted", text="waited"),
        )
    broken.clear()
    async with feed(database, shop(), cluster="new") as feeding:
        await feeding.redrive(1)
        # The first has the offset of the first of the other cluster; it is another event all the same.
        await feeding.records(
            plain(type="order.noted", text="a"),
            plain(type="order.noted", text="b"),
            plain(type="order.noted", text="c"),
        )
    assert await ids(reader) == [
        "old/orders/0/0",
        "old/orders/0/1",
        "old/orders/0/2",
        "old/orders/0/1",
        "old/orders/0/2",
        "new/orders/0/0",
        "new/orders/0/1",
        "new/orders/0/2",
    ]
    [run] = await list_runs(reader, "default")
    assert run.context["notes"] == ["mended", "waited", "a", "b", "c"]
    assert (await verify(reader, "default")).is_clean


async def test_events_that_waited_are_replayed_as_what_they_were(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), cluster="old") as feeding:
        await feeding.records(
            plain(type="order.placed", amount=5), plain(type="order.broken"), plain(type="order.noted")
        )
    async with feed(database, shop(), cluster="new") as feeding:
        await feeding.drop(1)
    assert await ids(reader) == ["old/orders/0/0", "old/orders/0/1", "old/orders/0/2", "old/orders/0/2"]
    report = await replay(reader, "default", [compile_pipeline(shop())])
    assert (report.equal_runs, report.mismatches) == (1, ())


async def test_what_concerned_all_pipelines_is_the_same_event_for_each(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), shop(name="second"), cluster="old") as feeding:
        await feeding.records(plain(amount=5))
    [letter] = await list_dead_letters(reader, "default")
    assert (letter.pipeline, letter.reason, letter.event_id) == (None, "unreadable", "old/orders/0/0")
    orders = Topic("orders", type_default="order.placed")
    async with feed(
        database, shop(topic=orders), shop(name="second", topic=orders), cluster="new"
    ) as feeding:
        await feeding.redrive(1)
    assert await ids(reader) == await ids(reader, "second") == ["old/orders/0/0"]
