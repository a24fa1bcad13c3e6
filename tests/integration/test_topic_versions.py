"""The settings of a topic change with a new version of its pipeline; what was read before stays what it was."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from connectors.source import RawRecord
from engine.reading import explain, history, list_runs, replay, verify
from engine.store.connecting import Connection
from statemachines.definition import Pipeline, Topic
from statemachines.machine import compile_pipeline
from tests.feeding import CLUSTER, feed, raw
from tests.services import Database
from tests.shop import OrderContext, shop

BEFORE = Topic("orders")
AFTER = Topic("orders", type="what", id="number", time="when")
LATER = Topic("orders", type="what", id="serial")
NOON = "2026-03-01T12:00:00Z"


def now() -> datetime:
    """As the database has it, which knows when a version was registered."""
    return datetime.now(UTC)


def plain(**fields: Any) -> RawRecord:
    return raw(orjson.dumps({"order_id": "o1", **fields}))


def versions(*numbers: int) -> list[Pipeline[OrderContext]]:
    settings = {1: BEFORE, 2: AFTER, 3: LATER}
    return [shop(version=number, topic=settings[number]) for number in numbers]


async def replays(reader: Connection, *numbers: int) -> Sequence[str]:
    report = await replay(reader, "default", [compile_pipeline(one) for one in versions(*numbers)])
    return [one.sentence for one in report.mismatches]


async def ids(reader: Connection, key: str = "o1") -> list[str]:
    rows = await history(reader, "default", "shop", key)
    return [row.event.id for row in rows if row.event.kind != "released"]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_the_newest_version_decides_for_the_runs_of_all_versions(
    database: Database, reader: Connection, order: tuple[int, int]
) -> None:
    async with feed(database, *versions(1), clock=now) as feeding:
        await feeding.records(plain(type="order.placed", amount=5, number="n-0", what="order.noted"))
    async with feed(database, *versions(*order), clock=now) as feeding:
        await feeding.records(
            plain(what="order.noted", number="n-1", when=NOON, text="new", type="order.shipped"),
            plain(what="order.noted", number="n-1", when=NOON, text="twice"),
            plain(what="order.placed", number="n-2", when=NOON, order_id="o2", amount=7),
        )
    assert await ids(reader) == [f"{CLUSTER}/orders/0/0", "n-1"]
    assert await ids(reader, "o2") == ["n-2"]
    runs = {run.key: run for run in await list_runs(reader, "default")}
    assert (runs["o1"].context["notes"], runs["o2"].context["amount"]) == (["new"], 7)
    followed = await reader.fetch(
        "select r.key, d.version from pointsman.runs r join pointsman.definitions d on d.id = r.definition"
    )
    assert {row["key"]: row["version"] for row in followed} == {"o1": 1, "o2": 2}
    for event_id, became in zip(await ids(reader), ("started", "applied"), strict=True):
        found = await explain(reader, "default", event_id=event_id, source=f"kafka://{CLUSTER}/orders")
        assert found.answers[0].current.disposition == became
    times = [row.event.time for row in await history(reader, "default", "shop", "o1")]
    assert times == [datetime(2026, 3, 1, 12, tzinfo=UTC)] * 2
    assert (await verify(reader, "default")).is_clean


async def test_old_rows_are_replayed_by_the_settings_that_they_were_read_by(
    database: Database, reader: Connection
) -> None:
    async with feed(database, *versions(1), clock=now) as feeding:
        await feeding.records(plain(type="order.placed", amount=5))
    async with feed(database, *versions(1, 2), clock=now) as feeding:
        await feeding.records(plain(what="order.noted", number="n-1", when=NOON))
    assert await replays(reader, 1, 2) == []
    assert await replays(reader, 2, 1) == []
    assert await replays(reader, 1) == [], "what the later version decided is recorded"
    [sentence] = await replays(reader, 2)
    assert "differs first in row 1" in sentence


async def test_what_waited_stays_the_event_that_it_was(database: Database, reader: Connection) -> None:
    async with feed(database, *versions(1), clock=now) as feeding:
        await feeding.records(
            plain(type="order.placed", amount=5),
            plain(type="order.broken"),
            plain(type="order.noted", text="of before", what="order.shipped", number="n-9"),
        )
    async with feed(database, *versions(1, 2), clock=now) as feeding:
        await feeding.records(plain(what="order.noted", number="n-1", when=NOON, text="of after"))
        await feeding.drop(1)
    here = f"{CLUSTER}/orders/0"
    assert await ids(reader) == [f"{here}/0", f"{here}/1", f"{here}/2", "n-1", f"{here}/2", "n-1"]
    [run] = await list_runs(reader, "default")
    assert run.context["notes"] == ["of before", "of after"]
    assert await replays(reader, 1, 2) == []


async def test_what_waited_stays_the_event_that_it_was_where_the_version_it_was_read_by_is_gone(
    database: Database, reader: Connection
) -> None:
    async with feed(database, *versions(1), clock=now) as feeding:
        await feeding.records(plain(type="order.placed", amount=5), plain(type="order.broken"))
    async with feed(database, *versions(1, 2), clock=now) as feeding:
        await feeding.records(plain(what="order.noted", number="n-1", when=NOON, text="waits"))
    async with feed(database, *versions(1, 3), clock=now) as feeding:
        await feeding.drop(1)
        await feeding.records(plain(what="order.noted", serial="s-1", text="after it"))
    assert (await ids(reader))[-2:] == ["n-1", "s-1"]
    [run] = await list_runs(reader, "default")
    assert run.context["notes"] == ["waits", "after it"]
    assert (await verify(reader, "default")).is_clean


async def test_a_dead_letter_is_put_back_by_the_settings_that_hold_now(
    database: Database, reader: Connection
) -> None:
    async with feed(database, *versions(1)) as feeding:
        await feeding.records(plain(what="order.placed", number="n-1", amount=5))
    async with feed(database, *versions(1, 2)) as feeding:
        await feeding.redrive(1)
    assert await ids(reader) == ["n-1"]
