"""Recorded events run through a definition again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from connectors.source import Partition, RawRecord
from engine.errors import UsageError
from engine.limits import EngineLimits
from engine.log import Kind
from engine.reading import (
    DeadLetterView,
    NotFoundError,
    ReplayReport,
    history,
    list_dead_letters,
    list_runs,
    replay,
    verify,
)
from engine.store.connecting import Connection, connect
from statemachines.definition import Pipeline, Topic
from statemachines.machine import compile_pipeline
from tests.errand import TOPIC as ERRANDS
from tests.errand import errand
from tests.feeding import Feeding, event, feed, raw
from tests.operators import ask
from tests.services import Database
from tests.shop import OrderContext, OrderNoted, OrderPaid, OrderPlaced, begin, shop
from tests.unit.early import door_pipeline


def placed(key: str = "o1", amount: int = 5) -> RawRecord:
    return event("order.placed", {"order_id": key, "amount": amount})


def paid(key: str = "o1", amount: int = 5) -> RawRecord:
    return event("order.paid", {"order_id": key, "amount": amount})


def noted(key: str = "o1", text: str = "x", **more: Any) -> RawRecord:
    return event("order.noted", {"order_id": key, "text": text}, **more)


def shipped(key: str = "o1") -> RawRecord:
    return event("order.shipped", {"order_id": key})


def breaking(key: str = "o1") -> RawRecord:
    return event("order.broken", {"order_id": key})


async def replayed(reader: Connection, *pipelines: Pipeline[Any], **more: Any) -> ReplayReport:
    return await replay(reader, "default", [compile_pipeline(one) for one in pipelines], **more)


def errand_event(kind: str, key: str = "e1") -> RawRecord:
    return event(f"errand.{kind}", {"errand": key}, topic=ERRANDS)


async def by_itself(feeding: Feeding) -> None:
    """Events wait for their run, too long or until it takes them, and fail; timers fire, and one of them fails."""
    began = feeding.clock.now
    await feeding.records(errand_event("forgotten", "e2"), errand_event("given"), errand_event("given", "e2"))
    await feeding.records(errand_event("stumbled"), errand_event("begun"), errand_event("forgotten"))
    await feeding.records(errand_event("begun", "e2"), errand_event("forgotten", "e2"))
    await feeding.records(errand_event("given", "e3"), errand_event("stumbled", "e3"))
    await feeding.drop(*[one.id for one in await open_letters(feeding)])
    for minutes in (2, 4, 20):
        await feeding.due(began + timedelta(minutes=minutes))
        await feeding.drop(*[one.id for one in await open_letters(feeding)])
    await feeding.due(began + timedelta(minutes=30))


async def open_letters(feeding: Feeding) -> list[DeadLetterView]:
    """Of errands."""
    connection = await connect(feeding.database.reader_dsn, for_engine=False)
    found = await list_dead_letters(connection, "default", status="open", pipeline="errand")
    await connection.close()
    return found


async def kinds_by_row(reader: Connection, key: str) -> dict[int, str]:
    return {row.sequence: row.event.kind for row in await history(reader, "default", "errand", key)}


async def test_a_definition_that_was_changed_is_told_at_the_row_that_came_by_itself(
    database: Database, reader: Connection
) -> None:
    async with feed(database, errand()) as feeding:
        await by_itself(feeding)
    kinds = await kinds_by_row(reader, "e1")
    assert {"moved deferred", "held fired", "fired", "passed", "held deferred"} <= set(kinds.values())
    counted = await replayed(reader, errand(steps=7), run=("errand", "e1", None))
    [mismatch] = counted.mismatches
    assert kinds[mismatch.sequence] == "fired"
    assert [one.as_json() for one in mismatch.differences] == [
        {"field": "context", "recorded": {"steps": 2}, "recomputed": {"steps": 8}}
    ]
    later = await replayed(reader, errand(soon=timedelta(days=1)), run=("errand", "e1", None))
    [mismatch] = later.mismatches
    assert kinds[mismatch.sequence] == "moved", "which sets the timers"
    assert [one.field for one in mismatch.differences] == ["effects", "memory"]


async def test_every_kind_of_row_comes_out_equal(database: Database, reader: Connection) -> None:
    by_one = EngineLimits(drain_events_max=1)
    async with feed(database, shop(unexpected="ignore"), errand(), limits=by_one) as feeding:
        await feeding.records(placed("o1"), placed("o2"), placed("o3"))
        await feeding.records(
            noted("o1"), breaking("o2"), noted("o2", id="twice"), shipped("o2"), breaking("o2"), paid("o2")
        )
        await feeding.records(paid("o1"), noted("o2", id="twice"), raw(b"nonsense"), shipped("o3"))
        await feeding.records(shipped("o1"), noted("o1"))
        await feeding.drop(1)
        await feeding.records(noted("o2"))
        await feeding.drop(4)
        await by_itself(feeding)
        await ask(feeding, "pause", "shop", "o3")
        await ask(feeding, "cancel", "shop", "o3")
    kinds = {row[0] for row in await reader.fetch("select distinct kind from pointsman.events")}
    # Runs that follow another definition are replayed in test_mapping.py.
    assert kinds == {int(kind) for kind in Kind if kind is not Kind.MAPPED}
    report = await replayed(reader, shop(unexpected="ignore"), errand())
    assert report.mismatches == ()
    assert report.notes == ()
    assert (await verify(reader, "default")).is_clean
    runs = await list_runs(reader, "default")
    assert report.as_json() == {
        "namespace": "default",
        "pipelines": ["shop", "errand"],
        "equal": True,
        "runs": 6,
        "equal_runs": 6,
        "rows": sum(run.sequence for run in runs),
        "equal_rows": sum(run.sequence for run in runs),
        "mismatches": [],
        "more": 0,
        "notes": [],
    }


async def test_a_redriven_event_fails_and_then_moves_as_recorded_only_with_the_code_of_each_time(
    database: Database, reader: Connection, broken: set[str]
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed(), breaking(), paid())
        broken.clear()
        await feeding.redrive(1)
    report = await replayed(reader, shop())
    [mismatch] = report.mismatches
    assert mismatch.sequence == 2
    assert mismatch.sentence.endswith("recorded as held): it is moved now (kind, context, digest).")
    assert (report.equal_rows, report.rows) == (1, 6)


async def test_an_event_that_is_put_back_before_one_of_the_same_business_key_comes_out_equal(
    database: Database, reader: Connection
) -> None:
    def fail(order: OrderContext, noted: OrderNoted) -> None:
        raise ValueError(noted.text)

    flow = Pipeline("order", OrderContext, topics=["orders"], closed="restart")
    noting, ended = flow.state("noting", initial=True), flow.state("ended", final=True)
    flow.start(OrderPlaced, begin)
    noting.on(OrderNoted, do=fail)
    noting.on(OrderPaid, to=ended)
    flow.policy(OrderNoted, duplicate_by=["order_id", "text"])
    async with feed(database, flow) as feeding:
        await feeding.records(placed(), paid(), placed(), noted(), noted())
        await feeding.redrive(1)
    rows = await history(reader, "default", "order", "o1")
    assert [row.event.kind for row in rows] == ["started", "held", "waited", "released", "held"]
    report = await replayed(reader, flow)
    assert report.is_equal, report.mismatches


async def test_a_long_history_with_forgotten_duplicates_comes_out_equal(
    database: Database, reader: Connection
) -> None:
    many = [noted(text=str(number)) for number in range(60)]
    async with feed(database, shop()) as feeding:
        await feeding.records(placed(), *many)
        await feeding.records(many[0], breaking(), many[1], noted(text="new"))
        await feeding.drop(1)
    report = await replayed(reader, shop())
    assert report.mismatches == ()
    assert report.rows == 1 + 60 + 4


async def test_plain_records_are_decoded_by_the_settings_of_their_topic(
    database: Database, reader: Connection
) -> None:
    topic = Topic("orders", type="what", id="number", key="order_id", time="when")
    record = raw(
        b'{"what": "order.placed", "number": 17, "order_id": "o1", "amount": 3, "when": "2026-01-01T00:00:00Z"}'
    )
    async with feed(database, shop(topic=topic)) as feeding:
        await feeding.records(record)
    assert (await replayed(reader, shop(topic=topic))).is_equal
    other = await replayed(reader, shop(topic=Topic("orders", type="what", key="order_id")))
    [mismatch] = other.mismatches
    assert [one.field for one in mismatch.differences] == ["event_id", "digest"]
    unread = await replayed(reader, shop(topic=Topic("orders")))
    assert "by the given settings of orders the record is no event" in unread.mismatches[0].sentence
    elsewhere = await replayed(reader, shop(topic=Topic("others")))
    assert "the given definition does not read the topic 'orders'" in elsewhere.mismatches[0].sentence


def add_other_note(context: OrderContext, event: OrderNoted) -> None:
    context.notes.append(event.text.upper())


def never(context: OrderContext, event: OrderPaid) -> bool:
    return False


def other_shop(version: int = 1) -> Pipeline[OrderContext]:
    pipeline = Pipeline("shop", OrderContext, version=version, topics=["orders"], unexpected="dead_letter")
    first = pipeline.state("placed", initial=True)
    last = pipeline.state("paid", final=True)
    pipeline.start(OrderPlaced, begin)
    first.on(OrderPaid, to=last, when=never)
    pipeline.on(OrderNoted, do=add_other_note)
    return pipeline


async def test_a_changed_action_is_told_with_both_contexts(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed(), noted(text="a gift"), noted(text="b"))
    report = await replayed(reader, other_shop())
    [mismatch] = report.mismatches
    found = mismatch.as_json()
    assert (found["pipeline"], found["key"], found["generation"], found["sequence"]) == ("shop", "o1", 0, 2)
    assert found["differences"] == [
        {
            "field": "context",
            "recorded": {"amount": 5, "paid": 0, "notes": ["a gift"]},
            "recomputed": {"amount": 5, "paid": 0, "notes": ["A GIFT"]},
        }
    ]
    assert report.notes == ("The structure of the given shop version 1 is not the recorded one.",)
    assert (report.equal_runs, report.runs, report.equal_rows, report.rows) == (0, 1, 1, 3)


async def test_an_event_that_moves_nothing_any_more_is_told_with_the_reason(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed(), paid())
    [mismatch] = (await replayed(reader, other_shop())).mismatches
    assert "it is a dead letter now and moves nothing: not accepted, no condition" in mismatch.sentence


async def test_an_event_that_the_definition_does_not_know_is_told(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed(), paid(), shipped())
    sentences = [
        one.sentence for one in (await replayed(reader, other_shop(), run=("shop", "o1", None))).mismatches
    ]
    assert len(sentences) == 1
    assert "row 2" in sentences[0]


async def test_a_definition_of_another_version_stands_in_and_it_is_said(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed(), paid())
    report = await replayed(reader, shop(version=3))
    assert report.is_equal, "the number that stands for a definition in the log is the recorded one"
    assert report.notes == ("Runs of shop version 1 are replayed with version 3, which is what is given.",)


async def test_each_run_is_replayed_by_its_own_version(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed("o1"))
    async with feed(database, shop(), other_shop(version=2)) as feeding:
        await feeding.records(placed("o2"), noted("o1", "a"), noted("o2", "b"))
    report = await replayed(reader, other_shop(version=2), shop())
    assert report.mismatches == ()
    assert report.notes == ()


async def test_events_that_waited_for_their_definition_come_out_equal(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed())
    async with feed(database, shop(version=2)) as feeding:
        await feeding.records(paid(), noted())
    async with feed(database, shop(), shop(version=2)) as feeding:
        await feeding.commands()
    kinds = [row[0] for row in await reader.fetch("select kind from pointsman.events order by sequence")]
    assert kinds == [1, 4, 4, 5, 6, 6]
    assert (await replayed(reader, shop(), shop(version=2))).mismatches == ()


async def test_an_event_that_is_older_than_what_was_applied_waited_for_its_definition_too(
    database: Database, reader: Connection
) -> None:
    def orders(version: int) -> Pipeline[OrderContext]:
        flow = Pipeline("order", OrderContext, version=version, topics=["orders"])
        open_ = flow.state("open", initial=True)
        flow.start(OrderPlaced, begin)
        open_.on(OrderPaid, do=lambda order, event: None)
        flow.policy(OrderPaid, order_by="amount")
        return flow

    async with feed(database, orders(1)) as feeding:
        await feeding.records(placed(), paid(amount=2))
    async with feed(database, orders(2)) as feeding:
        await feeding.records(paid(amount=3), paid(amount=1))
    report = await replayed(reader, orders(1), orders(2))
    assert report.is_equal, report.mismatches


async def test_an_event_whose_handler_never_returned_is_not_offered_again(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed())
        position = feeding.claims[Partition("orders", 0)].id
    async with feed(database, shop(), strikes={(position, 1): (2, "pay")}) as feeding:
        await feeding.records(paid())
    report = await replayed(reader, shop())
    assert (report.mismatches, report.rows) == ((), 2)


async def test_an_event_that_failed_for_another_reason_is_told(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed(), event("order.paid", {"order_id": "o1", "amount": "much"}))
    owner = await connect(database.owner_dsn, for_engine=False)
    await owner.execute("update pointsman.dead_letters set reason = 'guard raised'")
    await owner.close()
    [mismatch] = (await replayed(reader, shop())).mismatches
    assert [one.as_json() for one in mismatch.differences] == [
        {"field": "reason", "recorded": "guard raised", "recomputed": "invalid data"}
    ]


async def test_a_tampered_row_differs_in_its_hash_or_its_columns(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed(), paid())
    owner = await connect(database.owner_dsn, for_engine=False)
    await owner.execute("update pointsman.events set effects = '' where sequence = 2")
    [changed] = (await replayed(reader, shop())).mismatches
    assert [one.field for one in changed.differences] == ["effects"]
    await owner.execute("update pointsman.events set hash = sha256('') where sequence = 1")
    await owner.close()
    [sealed] = (await replayed(reader, shop())).mismatches
    assert (sealed.sequence, [one.field for one in sealed.differences]) == (1, ["hash"])


async def test_one_run_can_be_replayed_alone(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed("o1"), placed("o2"), paid("o2"))
    report = await replayed(reader, shop(), run=("shop", "o2", None))
    assert (report.runs, report.rows, report.is_equal) == (1, 2, True)


async def test_replay_says_what_is_not_there(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed())
    with pytest.raises(NotFoundError, match=r"None of these pipelines.*others. Run were: shop"):
        await replayed(reader, shop(name="others"))
    with pytest.raises(UsageError, match=r"'shopp' is not among those given. Did you mean 'shop'"):
        await replayed(reader, shop(), run=("shopp", "o1", None))
    with pytest.raises(NotFoundError, match="no run with the key 'o7'"):
        await replayed(reader, shop(), run=("shop", "o7", None))


async def test_replay_touches_nothing(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed(), paid(), breaking(), noted())
    tables = ("events", "runs", "outbox", "dead_letters", "dispositions", "waiting", "inbox", "positions")
    count = "select " + ", ".join(f"(select count(*) from pointsman.{table})" for table in tables)
    before = await reader.fetchrow(count)
    await replayed(reader, shop())
    assert await reader.fetchrow(count) == before


@pytest.mark.parametrize("number", ["whatever it is", "command/follow"])
async def test_an_event_may_be_called_what_a_row_of_the_engine_is(
    database: Database, reader: Connection, number: str
) -> None:
    async with feed(database, door_pipeline()) as feeding:
        for one in ("made", "painted", "opened"):
            await feeding.records(event(f"door.{one}", {"door": "d1"}, topic="doors"))
        await feeding.records(event("door.painted", {"door": "d1", "coat": 2}, topic="doors", id=number))
    assert (await replay(reader, "default", [compile_pipeline(door_pipeline())])).is_equal
