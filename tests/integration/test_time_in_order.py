"""What falls due happens in its turn: not before events that came earlier, and as recorded when it is replayed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from pydantic import Field

from connectors.source import RawRecord
from engine.homes import HOMES
from engine.limits import EngineLimits
from engine.reading import history, list_runs, replay, verify
from engine.routing import Route
from engine.session.backlog import Backlog
from engine.session.timers import Timers
from engine.store.connecting import Connection
from statemachines import Context, Event, Pipeline, Send
from statemachines.machine import compile_pipeline
from tests.feeding import BEGINS, Feeding, event, feed
from tests.services import Database

TOPIC = "orders"
MINUTE = timedelta(minutes=1)


class Placed(Event, type="placed", key="order"):
    order: str


class Paid(Event, type="paid", key="order"):
    order: str


class Gave(Event, type="gave", key="order"):
    order: str


class Got(Event, type="got", key="order"):
    order: str
    number: int


class Order(Context):
    notes: list[Any] = Field(default_factory=list)


def told(kind: str, order: str = "o1", **data: Any) -> RawRecord:
    return event(kind, {"order": order, **data}, topic=TOPIC)


def remind(order: Order, _event: Event) -> None:
    order.notes.append("reminded")


def fail(_order: Order, _event: Event) -> None:
    raise ValueError("no")


def payments() -> Pipeline[Order]:
    flow = Pipeline("payments", Order, topics=[TOPIC])
    placed = flow.state("placed", initial=True)
    flow.start(Placed, lambda _event: Order())
    placed.after(10 * MINUTE, do=remind)
    placed.after(30 * MINUTE, to=flow.state("lapsed", final=True))
    placed.on(Paid, to=flow.state("paid", final=True))
    return flow


class Come:
    """A pipeline's events have come so far."""

    def __init__(self, far: datetime) -> None:
        self.far = far

    def foresee(self) -> None:
        pass

    def nothing_waits(self) -> None:
        pass

    def close(self) -> None:
        pass

    async def passed(self, due: Mapping[Route, datetime]) -> dict[Route, datetime]:
        return dict.fromkeys(due, self.far)


async def fire(feeding: Feeding, far: datetime) -> None:
    """Let all happen that may, once the events have come so far."""
    limits = EngineLimits(timer_poll_seconds=0)
    timers = Timers(
        feeding.store, feeding.topics[TOPIC].routes, cast("Backlog", Come(far)), limits, feeding.clock
    )
    timers.homes = list(range(HOMES))
    while not (due := await timers.due(wait=True)):
        pass
    draft = await feeding.committer.draft(None)
    await feeding.committer.extend_due(draft, due)
    batch = feeding.committer.finish(draft)
    assert await feeding.committer.settle(feeding.committer.begin([], batch, draft.due))
    await timers.close()


async def check_the_log(reader: Connection, pipeline: Pipeline[Any]) -> None:
    """Folding gives the rows of the runs, and replaying gives the same log."""
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(pipeline)])
    assert replayed.is_equal, replayed


@pytest.mark.parametrize(("is_paid", "ends"), [(True, "paid"), (False, "lapsed")])
async def test_a_later_timer_waits_for_events_that_come_before_it_also_where_an_earlier_one_may_happen(
    database: Database, reader: Connection, *, is_paid: bool, ends: str
) -> None:
    pipeline = payments()
    async with feed(database, pipeline) as feeding:
        await feeding.records(told("placed"))
        feeding.clock.now = BEGINS + 60 * MINUTE
        await fire(feeding, BEGINS + 15 * MINUTE)
        [run] = await list_runs(reader, "default")
        assert (run.configuration, run.context["notes"]) == (["placed"], ["reminded"])
        if is_paid:
            await feeding.records(told("paid"))
        else:
            await fire(feeding, BEGINS + 31 * MINUTE)
    [run] = await list_runs(reader, "default")
    assert run.configuration == [ends]
    rows = await history(reader, "default", "payments", "o1")
    assert all(row.at >= BEGINS + 60 * MINUTE for row in rows[1:]), (
        "they have the time at which they happened"
    )
    await check_the_log(reader, pipeline)


async def test_a_timer_that_is_put_back_is_replayed_as_itself_while_another_one_is_due(
    database: Database, reader: Connection
) -> None:
    flow = Pipeline("payments", Order, topics=[TOPIC])
    placed, paid = flow.state("placed", initial=True), flow.state("paid")
    flow.start(Placed, lambda _event: Order())
    placed.after(5 * MINUTE, to=paid, do=fail)
    placed.after(6 * MINUTE, to=paid)
    open_ = "select id from pointsman.dead_letters where status = 'open'"
    async with feed(database, flow) as feeding:
        await feeding.records(told("placed"))
        await feeding.due(BEGINS + 60 * MINUTE)
        await feeding.redrive(await reader.fetchval(open_))
        await feeding.drop(await reader.fetchval(open_))
        await feeding.due(BEGINS + 90 * MINUTE)
    rows = await history(reader, "default", "payments", "o1")
    kinds = [row.event.kind for row in rows]
    assert kinds == ["started", "held fired", "released", "held fired", "released", "fired"]
    await check_the_log(reader, flow)


async def test_what_another_run_sends_again_is_known_by_its_business_key(
    database: Database, reader: Connection
) -> None:
    flow = Pipeline("payments", Order, topics=[TOPIC])
    placed = flow.state("placed", initial=True)
    flow.start(Placed, lambda _event: Order())
    placed.on(Gave, do=lambda _order, _event: Send(Got(order="o2", number=7), to="o2"))
    placed.on(Got, do=lambda order, got: order.notes.append(got.number))
    flow.policy(Got, duplicate_by="number")
    async with feed(database, flow) as feeding:
        await feeding.records(told("placed"), told("placed", "o2"), told("gave"), told("gave"))
        await feeding.commands()
        await feeding.records(told("got", "o2", number=7), told("got", "o2", number=8))
    runs = {run.key: run for run in await list_runs(reader, "default")}
    assert runs["o2"].context["notes"] == [7, 8]
    await check_the_log(reader, flow)
