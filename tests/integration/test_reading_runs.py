"""Runs, histories and single points of them, read by the reader's role."""

from __future__ import annotations

import pytest

from connectors.source import RawRecord
from engine.errors import UsageError
from engine.log import Kind
from engine.reading import NotFoundError, count_runs, history, list_runs, show
from engine.reading.catalog import SQL
from engine.store.connecting import Connection
from tests.feeding import CLUSTER, Clock, event, feed, raw
from tests.services import Database, execute
from tests.shop import shop


async def feed_three(database: Database) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(
            event("order.placed", {"order_id": "o1", "amount": 5}, id="placed-1"),
            event("order.placed", {"order_id": "o2", "amount": 7}),
            event("order.placed", {"order_id": "o3", "amount": 9}),
        )
        await feeding.records(
            event("order.noted", {"order_id": "o1", "text": "a gift"}, id="noted-1"),
            event("order.broken", {"order_id": "o2"}),
            event("order.noted", {"order_id": "o2", "text": "waits"}),
            event("order.paid", {"order_id": "o3", "amount": 9}),
        )
        await feeding.records(
            event("order.paid", {"order_id": "o1", "amount": 5}, id="paid-1"),
            event("order.shipped", {"order_id": "o3"}),
        )


async def test_runs_are_listed_newest_first_with_the_documented_fields(
    database: Database, reader: Connection
) -> None:
    await feed_three(database)
    runs = await list_runs(reader, "default")
    assert [(run.key, run.status, run.configuration, run.sequence, run.waiting) for run in runs] == [
        ("o3", "completed", ["shipped"], 3, 0),
        ("o2", "held", ["placed"], 3, 1),
        ("o1", "running", ["paid"], 3, 0),
    ]
    found = runs[2].as_json()
    assert found == {
        "namespace": "default",
        "pipeline": "shop",
        "key": "o1",
        "generation": 0,
        "version": 1,
        "loaded": None,
        "status": "running",
        "configuration": ["paid"],
        "sequence": 3,
        "context": {"amount": 5, "paid": 5, "notes": ["a gift"]},
        "started": "2026-03-01T12:00:01Z",
        "updated": "2026-03-01T12:00:03Z",
        "held": None,
        "waiting": 0,
        "next": None,
        "output": None,
        "attributes": {},
        "stuck": None,
    }


async def test_runs_are_filtered_by_pipeline_key_status_and_state(
    database: Database, reader: Connection
) -> None:
    await feed_three(database)

    async def keys(**filters: str) -> list[str]:
        return [run.key for run in await list_runs(reader, "default", **filters)]  # type: ignore[arg-type]  # by name

    assert await keys(pipeline="shop", status="running") == ["o1"]
    assert await keys(status="held") == ["o2"]
    assert await keys(status="completed") == ["o3"]
    assert await keys(state="placed") == ["o2"]
    assert await keys(key="o1") == ["o1"]
    assert await keys(key="no\0such") == []
    assert await keys(pipeline="other") == []
    assert [run.key for run in await list_runs(reader, "default", limit=1)] == ["o3"]
    assert len(await list_runs(reader, "default", limit=0)) == 3
    assert await list_runs(reader, "elsewhere") == []


async def test_runs_are_listed_by_their_start_whichever_engine_had_the_lower_numbers(
    database: Database, reader: Connection
) -> None:
    def placed(order: str) -> RawRecord:
        return event("order.placed", {"order_id": order, "amount": 1})

    clock = Clock()
    async with feed(database, shop(), clock=clock) as one, feed(database, shop(), clock=clock) as other:
        for feeding, order, partition in ((one, "o1", 0), (other, "o2", 1), (one, "o3", 0), (other, "o4", 1)):
            await feeding.records(placed(order)._replace(partition=partition))
    assert [run.key for run in await list_runs(reader, "default")] == ["o4", "o3", "o2", "o1"]


async def test_the_newest_of_many_runs_are_found_by_an_index(database: Database, reader: Connection) -> None:
    await feed_three(database)
    many = """
        insert into pointsman.runs (id, started, updated, pipeline, generation, sequence, definition, held, waiting,
            status, key, configuration, recent, hash, context)
        select id + n, started + n / 100 * interval '1 second', updated, pipeline, generation, sequence, definition,
            held, waiting, status, key || n, configuration, recent, hash, context
        from (select * from pointsman.runs order by id limit 1) as first, generate_series(100, 20000) as n
    """
    await execute(database.owner_dsn, many, "analyze pointsman.runs")
    filters = ("default", None, None, None, None, None)
    rest = (10, None, False, None, int(Kind.PAUSED), None, None, "", None)
    plan = await reader.fetch(f"explain (analyze, timing off) {SQL['list_runs']}", *filters, *rest)
    told = "\n".join(row[0] for row in plan)
    assert "using runs_started on runs" in told, told
    assert "Seq Scan on runs" not in told, told


async def test_a_status_that_there_is_not_is_refused(reader: Connection) -> None:
    with pytest.raises(UsageError, match=r"no status 'runing'. Did you mean 'running'"):
        await list_runs(reader, "default", status="runing")


async def test_a_state_that_no_version_has_is_refused(database: Database, reader: Connection) -> None:
    assert await list_runs(reader, "default", state="plac") == [], "nothing is known of any"
    await feed_three(database)
    with pytest.raises(
        UsageError, match=r"of any pipeline that was ever run has a state 'plac'. Did you mean 'placed'"
    ):
        await list_runs(reader, "default", state="plac")
    with pytest.raises(UsageError, match=r"No version of shop that was ever run has a state 'plac'"):
        await count_runs(reader, "default", pipeline="shop", state="plac")
    assert await list_runs(reader, "default", state="$compensating") == []


async def test_history_tells_each_row_with_the_context_after_it(
    database: Database, reader: Connection
) -> None:
    await feed_three(database)
    rows = await history(reader, "default", "shop", "o1")
    assert [(row.sequence, row.from_states, row.to_states) for row in rows] == [
        (1, None, ["placed"]),
        (2, ["placed"], ["placed"]),
        (3, ["placed"], ["paid"]),
    ]
    assert [row.context["notes"] for row in rows] == [[], ["a gift"], ["a gift"]]
    last = rows[2].as_json()
    assert list(last) == [
        "sequence", "event", "from", "to", "at", "effects", "deferral", "attempt", "context", "hash",
    ]  # fmt: skip
    assert last["event"] == {
        "id": "paid-1",
        "type": "order.paid",
        "source": "/shop",
        "topic": "orders",
        "partition": 0,
        "offset": 7,
        "time": "2026-03-01T12:00:00Z",
        "kind": "moved",
    }
    [effect] = last["effects"]
    assert (effect["publish"], effect["type"], effect["data"]) == ("payments", "payment.seen", {"amount": 5})
    assert len(effect["id"]) == 36
    assert len(last["hash"]) == 24


async def test_a_limited_history_is_its_newest_rows_with_whole_contexts(
    database: Database, reader: Connection
) -> None:
    await feed_three(database)
    whole = await history(reader, "default", "shop", "o1")
    assert await history(reader, "default", "shop", "o1", limit=1) == whole[2:]


async def test_history_has_rows_of_holding_waiting_and_releasing(
    database: Database, reader: Connection
) -> None:
    await feed_three(database)
    async with feed(database, shop()) as feeding:
        await feeding.drop(1)
    rows = await history(reader, "default", "shop", "o2")
    assert [row.event.kind for row in rows] == ["started", "held", "waited", "released", "moved after wait"]
    assert rows[3].event.type == "pointsman.drop"
    assert rows[3].event.source is None
    assert rows[4].context["notes"] == ["waits"]


async def test_show_gives_the_run_the_event_and_the_record_at_a_point(
    database: Database, reader: Connection
) -> None:
    await feed_three(database)
    now = await show(reader, "default", "shop", "o1")
    assert (now.sequence, now.configuration, now.status) == (3, ["paid"], "running")
    then = await show(reader, "default", "shop", "o1", at_sequence=2)
    found = then.as_json()
    assert found["configuration"] == ["placed"]
    assert found["context"] == {"amount": 5, "paid": 0, "notes": ["a gift"]}
    assert found["latest"] == 3
    assert found["event"]["id"] == "noted-1"
    record = found["record"]
    assert (record["topic"], record["partition"], record["offset"]) == ("orders", 0, 3)
    assert record["time"] == "2026-03-01T12:00:00Z"
    assert record["key"] is None
    assert record["headers"] == [
        {"name": "content-type", "value": "application/cloudevents+json", "value_base64": None}
    ]
    assert '"type":"order.noted"' in record["value"]


async def test_show_gives_a_command_where_no_record_caused_the_row(
    database: Database, reader: Connection
) -> None:
    await feed_three(database)
    async with feed(database, shop()) as feeding:
        await feeding.drop(1, why="a test order")
    at = await show(reader, "default", "shop", "o2", at_sequence=4)
    assert at.record is None
    assert at.as_json()["command"] == {
        "command": "drop",
        "who": "ana",
        "reason": "a test order",
        "mapping": None,
    }


async def test_bytes_that_are_no_text_are_shown_in_base64(database: Database, reader: Connection) -> None:
    plain = raw(
        b'{"type": "order.placed", "order_id": "o1", "amount": 1}',
        key=b"\xff\x00",
        headers=[("trace\udcff", b"\xfe"), ("empty", None)],
    )
    async with feed(database, shop()) as feeding:
        await feeding.records(plain)
    at = await show(reader, "default", "shop", "o1")
    record = at.as_json()["record"]
    assert (record["key"], record["key_base64"]) == (None, "/wA=")
    assert record["headers"] == [
        {"name": "trace\\udcff", "value": None, "value_base64": "/g=="},
        {"name": "empty", "value": None, "value_base64": None},
    ]
    assert at.row.event.source == f"kafka://{CLUSTER}/orders"


async def test_what_is_not_there_is_said_with_what_is(database: Database, reader: Connection) -> None:
    await feed_three(database)
    with pytest.raises(NotFoundError, match=r"No pipeline 'shopp' was ever run.*Did you mean 'shop'"):
        await history(reader, "default", "shopp", "o1")
    with pytest.raises(NotFoundError, match="no run with the key 'o9'"):
        await show(reader, "default", "shop", "o9")
    with pytest.raises(NotFoundError, match="no generation 4; it has 0"):
        await history(reader, "default", "shop", "o1", 4)
    with pytest.raises(NotFoundError, match="no row 7; its rows are 1 to 3"):
        await show(reader, "default", "shop", "o1", at_sequence=7)


async def test_a_long_number_in_a_context_comes_back_whole(database: Database, reader: Connection) -> None:
    digits = "9" * 300
    async with feed(database, shop()) as feeding:
        await feeding.records(
            event("order.placed", None, data_json=f'{{"order_id": "o1", "amount": "{digits}"}}'.encode())
        )
    [run] = await list_runs(reader, "default")
    assert run.context["amount"] == int(digits)
