"""Events of types that only a pattern names, through a real Postgres: routed, held, redriven, folded, replayed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from connectors.source import RawRecord
from engine.reading import explain, history, list_runs, replay, verify
from engine.store.connecting import Connection
from statemachines import Context, Event, Pipeline, Publish
from statemachines.machine import compile_pipeline
from tests.feeding import event, feed
from tests.services import Database


class Placed(Event, type="order.placed", key="order_id"):
    order_id: str


class AnyOrder(Event, type="order.*", key="order_id"):
    order_id: str


class Paid(AnyOrder, type="order.paid"):
    amount: int


class Closed(Event, type="closed", key="order_id"):
    order_id: str


class Order(Context):
    seen: list[str] = Field(default_factory=list)


def note(order: Order, event: AnyOrder) -> Publish | None:
    order.seen.append(f"{type(event).__name__} {event.meta.type}")
    if order.seen[-1] == "AnyOrder order.broken":
        raise LookupError("on purpose")
    return Publish("seen", event) if type(event) is AnyOrder else None


def pipeline(*, flat: bool, version: int = 1) -> Pipeline[Order]:
    flow = Pipeline("orders", Order, topics=["orders"], version=version)
    open_ = flow.state("open", initial=True)
    noted = open_ if flat else open_.state("noted", initial=True)
    flow.start(Placed, lambda _event: Order())
    noted.on(Paid, do=note)
    noted.on(AnyOrder, do=note)
    open_.on(Closed, to=flow.state("done", final=True))
    return flow


def sent(kind: str, **data: Any) -> RawRecord:
    return event(kind, {"order_id": "o1", **data}, id=kind)


LIFE = [
    sent("order.placed"),
    sent("order.paid", amount=3),
    sent("order.sent"),
    sent("order.sent.late"),
    sent("closed"),
]


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("reloaded", [True, False])
async def test_a_type_that_only_a_pattern_names_moves_a_run_the_same_way_in_whatever_engine(
    database: Database, reader: Connection, *, flat: bool, reloaded: bool
) -> None:
    for some in [[one] for one in LIFE] if reloaded else [LIFE]:
        async with feed(database, pipeline(flat=flat)) as feeding:
            await feeding.records(*some)
    rows = await history(reader, "default", "orders", "o1")
    assert [row.event.type for row in rows] == [
        "order.placed",
        "order.paid",
        "order.sent",
        "order.sent.late",
        "closed",
    ]
    [run] = await list_runs(reader, "default", status="completed")
    assert run.as_json()["context"]["seen"] == [
        "Paid order.paid",
        "AnyOrder order.sent",
        "AnyOrder order.sent.late",
    ]
    published = await reader.fetchval("select effects from pointsman.events where type = 'order.sent.late'")
    assert '"order.sent.late"' in str(published)
    [answer] = (await explain(reader, "default", event_id="order.sent")).answers
    assert answer.current.sentence.startswith("The run 'o1' of orders took it and stayed in open")
    assert (await verify(reader, "default")).is_clean
    replayed = await replay(reader, "default", [compile_pipeline(pipeline(flat=flat))])
    assert replayed.is_equal, replayed


async def test_an_event_of_a_pattern_that_fails_holds_its_run_and_can_be_dropped(
    database: Database, reader: Connection
) -> None:
    async with feed(database, pipeline(flat=False)) as feeding:
        await feeding.records(LIFE[0], sent("order.broken"), sent("order.sent"))
        letter = await reader.fetchval("select id from pointsman.dead_letters")
        assert await reader.fetchval("select waiting from pointsman.runs") == 1
        await feeding.redrive(letter)
        assert await reader.fetchval("select held > 0 from pointsman.runs")
        letter = await reader.fetchval("select max(id) from pointsman.dead_letters")
        await feeding.drop(letter)
    [run] = await list_runs(reader, "default")
    assert run.as_json()["context"]["seen"] == ["AnyOrder order.sent"]
    assert (await verify(reader, "default")).is_clean
    replayed = await replay(reader, "default", [compile_pipeline(pipeline(flat=False))])
    assert replayed.is_equal, replayed


async def test_without_its_key_an_event_of_a_pattern_is_a_dead_letter_and_others_are_of_no_known_type(
    database: Database, reader: Connection
) -> None:
    async with feed(database, pipeline(flat=True)) as feeding:
        await feeding.records(
            event("order.sent", {}), event("orders.x", {"order_id": "o1"}), event("done.state.x", {})
        )
    rows = await reader.fetch("select reason, error from pointsman.dead_letters order by id")
    assert [row["reason"] for row in rows] == ["no key", "unknown type", "unknown type"]
    assert "which AnyOrder names as the key" in rows[0]["error"]
    assert "known are closed, order.*, order.paid, order.placed" in rows[1]["error"]
