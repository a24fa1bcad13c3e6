"""What the broker refused of a run's published events is put back by a person: once, as it was, and at the end."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.outbox import OutRecord
from engine.reading import (
    ask_redrive,
    explain,
    list_dead_letters,
    show_dead_letter,
    verify,
    wait_until_taken,
)
from engine.store.connecting import Connection, connect
from tests.cli import pointsman, started
from tests.contract.sink_worlds import read_committed
from tests.feeding import event, feed
from tests.integration.test_cli_run import engine_on, pipeline, reader_on
from tests.outbox import running, within_deadline
from tests.relays import fetch, put, quick_relay
from tests.services import Database, Kafka, TopicFactory
from tests.teller import begun, set_bytes_max, teller, texts, told


@pytest.fixture
def namespace() -> str:
    return f"redrive-{uuid.uuid4().hex[:10]}"


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Connection]:
    connection = await connect(database.engine_dsn, for_engine=False)
    yield connection
    await connection.close()


async def published(database: Database, kafka: Kafka, namespace: str) -> None:
    """Relay all that was committed."""
    rows = await fetch(
        database.reader_dsn, "select ticket from pointsman.lanes where namespace = $1", namespace
    )
    async with running(quick_relay(database, kafka, namespace)) as relay:
        await relay.drained(rows[0]["ticket"])


async def test_it_is_published_as_it_was_and_behind_what_the_run_has_published_since(
    database: Database, engine: Connection, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    small = await topic("small", configs={"max.message.bytes": "2000"})
    async with feed(database, teller(), namespace=namespace) as feeding:
        await feeding.records(begun("r1"))
        await feeding.records(told("r1", small, "large" + "." * 5_000))
        await published(database, kafka, namespace)
        [letter] = await list_dead_letters(engine, namespace, topic=small)
        assert (letter.reason, letter.status, letter.publishing) == ("refused by broker", "open", "refused")
        before = await show_dead_letter(engine, namespace, letter.id)
        await feeding.records(told("r1", small, "since"))
        await set_bytes_max(kafka, small, 20_000)

        asked = await feeding.redrive(letter.id)
        [became] = await wait_until_taken(engine, namespace, asked, seconds=0)
        assert (became.taken, became.status) == (True, "redriven")
        assert "published after what its run has published since" in became.sentence
        assert (await show_dead_letter(engine, namespace, letter.id)).letter.publishing == "pending"
        await published(database, kafka, namespace)

    assert await texts(kafka, small) == ["since", "large"]
    [[_, record]] = await read_committed(kafka.bootstrap, small)
    assert (record.key, record.value, tuple(record.headers), record.timestamp) == (
        before.record.key,
        before.record.value,
        tuple(before.record.headers),
        before.record.time,
    )
    assert json.loads(record.value or b"")["id"] == letter.event_id
    after = await show_dead_letter(engine, namespace, letter.id)
    assert (after.letter.status, after.letter.publishing, after.publishing_error) == (
        "redriven",
        "published",
        "",
    )
    assert (after.who, after.why) == ("ana", "mended")
    told_of_it = await explain(engine, namespace, event_id=letter.event_id)
    assert told_of_it.sentences[0].endswith("mended. It was published then.")
    assert (await verify(engine, namespace)).is_clean


async def test_asking_twice_publishes_once_also_where_two_engines_take_it_up(
    database: Database, engine: Connection, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    small = await topic("small", configs={"max.message.bytes": "2000"})
    async with (
        feed(database, teller(), namespace=namespace) as one,
        feed(database, namespace=namespace) as without_the_pipeline,
    ):
        await one.records(begun("r1"))
        await one.records(told("r1", small, "large" + "." * 5_000))
        await published(database, kafka, namespace)
        [letter] = await list_dead_letters(engine, namespace)
        await set_bytes_max(kafka, small, 20_000)
        for _ in range(2):
            asked = await ask_redrive(engine, namespace, [letter.id], who="ana", why="mended")
            assert len(asked.commands) == 1
        await asyncio.gather(one.commands(), without_the_pipeline.commands())
        again = await one.redrive(letter.id)
        assert again.skipped == ((letter.id, "it is redriven already"),)
        await published(database, kafka, namespace)
    assert await fetch(database.reader_dsn, "select id from pointsman.inbox") == []
    assert await texts(kafka, small) == ["large"]


async def test_refused_again_it_is_a_dead_letter_again(
    database: Database, engine: Connection, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    small = await topic("small", configs={"max.message.bytes": "2000"})
    async with feed(database, teller(), namespace=namespace) as feeding:
        await feeding.records(begun("r1"))
        await feeding.records(told("r1", small, "large" + "." * 5_000))
        await published(database, kafka, namespace)
        [first] = await list_dead_letters(engine, namespace)
        await feeding.redrive(first.id)
        await published(database, kafka, namespace)
        second, first_then = await list_dead_letters(engine, namespace)
        assert (first_then.status, first_then.publishing) == ("redriven", "refused")
        assert (second.status, second.reason, second.topic) == ("open", "refused by broker", small)
        assert (second.event_id, second.key, second.pipeline) == (first.event_id, "r1", "teller")
        before, then = [(await show_dead_letter(engine, namespace, one.id)).record for one in (first, second)]
        assert then == before

        await set_bytes_max(kafka, small, 20_000)
        await feeding.redrive(second.id)
        await published(database, kafka, namespace)
    assert await texts(kafka, small) == ["large"]
    assert (await list_dead_letters(engine, namespace, status="open")) == []


async def test_dropped_it_is_never_published(
    database: Database, engine: Connection, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    small = await topic("small", configs={"max.message.bytes": "2000"})
    async with feed(database, teller(), namespace=namespace) as feeding:
        await feeding.records(begun("r1"))
        await feeding.records(told("r1", small, "large" + "." * 5_000))
        await published(database, kafka, namespace)
        [letter] = await list_dead_letters(engine, namespace)
        await feeding.drop(letter.id)
        await set_bytes_max(kafka, small, 20_000)
        assert (await feeding.redrive(letter.id)).skipped == ((letter.id, "it is dropped already"),)
        await published(database, kafka, namespace)
    assert await texts(kafka, small) == []


async def test_from_the_command_line_by_the_topic_that_takes_it_now(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    namespace = database.name
    small = await topic("small", configs={"max.message.bytes": "2000"})
    refused = event("test.said", {"text": "large" + "." * 5_000}, id="said-1").value
    await put(database.engine_dsn, namespace, [OutRecord(small, b"r1", refused, (), 5)])
    await published(database, kafka, namespace)
    await set_bytes_max(kafka, small, 20_000)
    on = engine_on(database, kafka)
    with started("run", pipeline(tmp_path, await topic("orders")), on=on) as running_engine:
        running_engine.wait_for("partitions: ")
        done = pointsman("dead-letters", "redrive", "--topic", small, "--json", on=on)
        assert done.code == 0, done.err
        [became] = done.json["became"]
        assert became["status"] == "redriven"

        def shown() -> str:
            found = pointsman("dead-letters", "show", became["id"], on=reader_on(database))
            return found.out

        await within_deadline(lambda: f"published, to {small}" in shown())
    assert await texts(kafka, small) == ["large"]
    told_again = pointsman("dead-letters", "redrive", became["id"], on=on)
    assert (told_again.code, told_again.out) == (0, f"{became['id']}: left alone, it is redriven already\n")
