"""``pointsman run`` on a real Postgres and a real Kafka: how it starts, how it ends, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from engine.store.connecting import connect
from tests.cli import Done, pointsman, started
from tests.services import Database, Kafka, TopicFactory, execute

STOP_SECONDS = 10.0
PLAIN_ORDERS = Path(__file__).parents[1] / "plain_orders.py"


def pipeline(folder: Path, topic: str, *, more: str = "") -> Path:
    """Plain orders, reading a topic of the test's own."""
    folder.mkdir(exist_ok=True)
    file = folder / "pipeline.py"
    file.write_text(f"{PLAIN_ORDERS.read_text()}\nflow.topics = [{topic!r}]\n{more}")
    return file


def rows(*orders: str) -> str:
    """JSON lines: each order is placed and paid."""
    placed = [
        {"type": "order.placed", "order_id": one, "customer": "Ada", "amount": 5, "items": []}
        for one in orders
    ]
    paid = [{"type": "order.paid", "order_id": one, "amount": 5} for one in orders]
    return "".join(f"{json.dumps(row)}\n" for row in placed + paid)


def publish(kafka: Kafka, topic: str, text: str) -> None:
    done = pointsman("publish", topic, "-", "--key", "order_id", input=text, on={"KAFKA": kafka.bootstrap})
    assert done.code == 0, done.err


def engine_on(database: Database, kafka: Kafka) -> dict[str, str]:
    """The settings of an engine; the namespace is the test's own, since Kafka keeps the relay's progress by it."""
    return {"POSTGRES": database.engine_dsn, "KAFKA": kafka.bootstrap, "NAMESPACE": database.name}


def reader_on(database: Database) -> dict[str, str]:
    """The settings of somebody who may only look."""
    return {"POSTGRES": database.reader_dsn, "NAMESPACE": database.name}


def run(file: Path, database: Database, kafka: Kafka, *more: str) -> Done:
    return pointsman("run", file, "--until-idle", *more, on=engine_on(database, kafka))


async def test_until_idle_ends_with_0_when_all_is_committed_and_published(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("orders", partitions=3)
    publish(
        kafka, name, rows("o-1", "o-2", "o-3") + '{"type": "order.paid", "order_id": "o-9", "amount": 1}\n'
    )
    done = run(pipeline(tmp_path, name), database, kafka)
    assert done.code == 0, done.err
    assert done.out == ""
    runs = pointsman("runs", "--json", on=reader_on(database)).json
    assert sorted((one["key"], *one["configuration"]) for one in runs) == [
        ("o-1", "paid"),
        ("o-2", "paid"),
        ("o-3", "paid"),
    ]
    (letter,) = pointsman("dead-letters", "list", "--json", on=reader_on(database)).json
    assert (letter["reason"], letter["publishing"]) == ("no run", "published")
    again = run(pipeline(tmp_path, name), database, kafka)
    assert again.code == 0, again.err
    assert len(pointsman("runs", "--json", on=reader_on(database)).json) == 3


@contextlib.asynccontextmanager
async def endless(kafka: Kafka, topic: str) -> AsyncIterator[None]:
    """Orders are placed without end, faster than an engine takes them that commits each by itself."""
    made: Any = AIOKafkaProducer  # aiokafka's client is not typed
    producer = made(bootstrap_servers=kafka.bootstrap, linger_ms=5)
    await producer.start()

    async def place() -> None:
        for number in itertools.count():
            many = [
                await producer.send(topic, rows(f"more-{number}-{one}").splitlines()[0].encode())
                for one in range(100)
            ]
            await asyncio.gather(*many)
            await asyncio.sleep(0.05)

    placing = asyncio.create_task(place())
    try:
        yield
    finally:
        placing.cancel()
        await asyncio.wait([placing])
        await producer.stop()


async def test_until_idle_ends_though_records_keep_arriving(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("orders", partitions=2)
    orders = [f"o-{number}" for number in range(150)]
    publish(kafka, name, '{"type": "order.paid", "order_id": "none", "amount": 1}\n' + rows(*orders))
    settings = {**engine_on(database, kafka), "LIMIT_BATCH_RECORDS_MAX": "1"}
    with started("run", pipeline(tmp_path, name), "--until-idle", on=settings) as engine:
        await asyncio.to_thread(engine.wait_for, f"reading {name}")
        async with endless(kafka, name):
            done = await asyncio.to_thread(engine.end)
    assert done.code == 0, done.err
    runs = pointsman("runs", "--limit", 0, "--json", on=reader_on(database)).json
    assert {one["key"] for one in runs} >= set(orders)
    [letter] = pointsman("dead-letters", "list", "--json", on=reader_on(database)).json
    assert (letter["reason"], letter["publishing"]) == ("no run", "published")


async def test_its_log_is_json_lines_without_the_data_of_events(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("orders")
    secret = {
        "type": "order.placed",
        "order_id": "o-1",
        "customer": "Sesame",
        "amount": "Sesame",
        "items": [],
    }
    publish(kafka, name, f"{json.dumps(secret)}\n")
    done = run(pipeline(tmp_path, name), database, kafka)
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.err.splitlines()]
    (told,) = [line for line in lines if line["message"].startswith("dead letter")]
    assert told["run"] == "o-1"
    assert told["event"]
    assert "Sesame" not in done.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_in_order_within_ten_seconds(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path, number: signal.Signals
) -> None:
    name = await topic("orders", partitions=2)
    publish(kafka, name, rows("o-1", "o-2"))
    file = pipeline(tmp_path, name)
    with started("run", file, on=engine_on(database, kafka)) as engine:
        engine.wait_for("partitions: ")
        began = time.monotonic()
        engine.process.send_signal(number)
        done = engine.end(STOP_SECONDS)
        assert time.monotonic() - began < STOP_SECONDS
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert run(file, database, kafka).code == 0
    assert {one["sequence"] for one in pointsman("runs", "--json", on=reader_on(database)).json} == {2}


WORK = """
import re, sys, time
from pathlib import Path

AT_WORK = Path({flag!r})


class OrderWorked(Event, type="order.worked", key="order_id"):
    order_id: str


def works(order: Order, event: OrderWorked) -> None:
    if AT_WORK.exists():
        print("at work", file=sys.stderr, flush=True)
        {handler}


flow.on(OrderWorked, do=works)
"""
SLEEPS = "time.sleep(3_600)"
HOLDS_THE_LOCK = "re.match(r'(a+)+$', 'a' * 60 + 'b')"


@pytest.mark.parametrize(
    ("handler", "code", "said"),
    [
        (SLEEPS, 0, "did not end in time"),
        (HOLDS_THE_LOCK, -signal.SIGKILL, "was asked to end, and has not got to it"),
    ],
)
async def test_a_signal_ends_it_within_ten_seconds_while_a_handler_is_at_work_and_nothing_is_lost(
    database: Database,
    kafka: Kafka,
    topic: TopicFactory,
    tmp_path: Path,
    handler: str,
    code: int,
    said: str,
) -> None:
    name, flag = await topic("orders"), tmp_path / "at_work"
    publish(kafka, name, rows("o-1") + '{"type": "order.worked", "order_id": "o-1"}\n')
    flag.touch()
    file = pipeline(tmp_path, name, more=WORK.format(flag=str(flag), handler=handler))
    with started("run", file, on=engine_on(database, kafka)) as engine:
        engine.wait_for("at work")
        began = time.monotonic()
        engine.process.send_signal(signal.SIGTERM)
        done = engine.end(2 * STOP_SECONDS)
        assert time.monotonic() - began < STOP_SECONDS
    assert (done.code, said in done.err) == (code, True), done.err
    flag.unlink()
    again = run(file, database, kafka)
    assert again.code == 0, again.err
    [one] = pointsman("runs", "--json", on=reader_on(database)).json
    assert (one["sequence"], one["status"]) == (3, "running")
    owner = await connect(database.owner_dsn, for_engine=False)
    try:
        assert await owner.fetch("select * from pointsman.strikes") == []
    finally:
        await owner.close()


async def test_a_named_instance_finds_its_partitions_again(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("orders", partitions=2)
    words = ("run", pipeline(tmp_path, name), "--instance", "first")
    for _ in range(2):
        with started(*words, on=engine_on(database, kafka)) as engine:
            engine.wait_for(f"partitions: {name}/0, {name}/1")
            engine.process.send_signal(signal.SIGTERM)
            assert engine.end().code == 0


async def test_a_partition_that_is_stopped_is_named_and_the_others_are_read(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("orders", partitions=2)
    file = pipeline(tmp_path, name)
    publish(kafka, name, rows("o-1", "o-2", "o-3", "o-4"))
    assert run(file, database, kafka).code == 0
    moved = pointsman(
        "positions", "set", name, 0, 9_999, "--reason", "to see it stop", on=engine_on(database, kafka)
    )
    assert moved.code == 0, moved.err
    publish(kafka, name, rows("o-5", "o-6", "o-7", "o-8"))
    done = run(file, database, kafka)
    assert done.code == 1
    assert f"{name}/0" in done.err
    on = engine_on(database, kafka)
    assert f"positions set {name} 0 POSITION --group=pointsman.{on['NAMESPACE']} --cluster=" in done.err
    positions = pointsman("positions", "list", "--json", on=reader_on(database)).json
    ends = {one["partition"]: one["position"] for one in positions}
    assert ends[0] == 9_999
    assert ends[1] > 0


async def test_a_pipeline_that_is_added_begins_where_its_group_is_and_one_with_a_group_of_its_own_at_the_beginning(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("orders", partitions=2)
    file, added, apart = (
        pipeline(tmp_path / which, name, more=f"flow.name = {which!r}\n")
        for which in ("first", "added", "apart")
    )

    def keys(which: str) -> set[str]:
        listed = pointsman("runs", "--pipeline", which, "--json", on=reader_on(database)).json
        return {one["key"] for one in listed}

    publish(kafka, name, rows("o-1"))
    assert run(file, database, kafka).code == 0
    publish(kafka, name, rows("o-2"))
    done = run(file, database, kafka, str(added))
    assert done.code == 0, done.err
    done = run(apart, database, kafka, "--group", f"{name}.apart")
    assert done.code == 0, done.err
    assert (keys("first"), keys("added"), keys("apart")) == ({"o-1", "o-2"}, {"o-2"}, {"o-1", "o-2"})


async def test_a_topic_that_does_not_exist_is_bad_input(
    database: Database, kafka: Kafka, tmp_path: Path
) -> None:
    done = run(pipeline(tmp_path, "there-is-no-such-topic"), database, kafka)
    assert done.code == 2
    assert "'there-is-no-such-topic' does not exist" in done.err


async def test_a_service_that_is_not_there_ends_with_3_and_is_named(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    file = pipeline(tmp_path, await topic("orders"))
    without_kafka = pointsman("run", file, on={**engine_on(database, kafka), "KAFKA": "127.0.0.1:1"})
    assert (without_kafka.code, "127.0.0.1:1" in without_kafka.err) == (3, True)
    elsewhere = "postgresql://pointsman@127.0.0.1:1/x"
    without_postgres = pointsman("run", file, on={"POSTGRES": elsewhere, "KAFKA": kafka.bootstrap})
    assert (without_postgres.code, elsewhere in without_postgres.err) == (3, True)
    for done in (without_kafka, without_postgres):
        assert "Traceback" not in done.err


async def test_it_refuses_to_be_owner(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    file = pipeline(tmp_path, await topic("orders"))
    done = pointsman("run", file, on={**engine_on(database, kafka), "POSTGRES": database.owner_dsn})
    assert done.code == 2
    assert "IN ROLE pointsman_engine" in done.err


async def test_a_database_of_another_version_is_refused_with_what_to_do(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    file = pipeline(tmp_path, await topic("orders"))
    await execute(database.owner_dsn, "insert into pointsman.migrations (number, name) values (999, 'later')")
    done = run(file, database, kafka)
    assert done.code == 2
    assert "version 999, newer than this program's" in done.err


async def test_a_database_without_a_schema_is_migrated_by_the_command_that_it_names(
    empty_database: str, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    file = pipeline(tmp_path, await topic("orders"))
    done = pointsman("run", file, on={"POSTGRES": empty_database, "KAFKA": kafka.bootstrap})
    assert done.code == 2
    assert "pointsman migrate" in done.err
    first = pointsman("migrate", "--json", on={"POSTGRES": empty_database})
    assert first.code == 0, first.err
    assert [one["number"] for one in first.json["applied"]] == list(range(1, first.json["version"] + 1))
    assert pointsman("migrate", "--json", on={"POSTGRES": empty_database}).json["applied"] == []


async def test_engines_of_a_group_load_the_same_pipelines(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("orders")
    file = pipeline(tmp_path, name)
    other = tmp_path / "other"
    other.mkdir()
    changed = pipeline(other, name, more="flow.version = 2\nflow.description = 'another'\n")
    with started("run", file, on=engine_on(database, kafka)) as engine:
        engine.wait_for("partitions: ")
        done = run(changed, database, kafka)
        assert done.code == 2
        assert "has loaded other pipelines" in done.err
        same = run(file, database, kafka)
        assert same.code == 0, same.err
        assert "has another engine already, which this one shares the partitions with" in same.err
        engine.process.send_signal(signal.SIGTERM)
        assert engine.end().code == 0
