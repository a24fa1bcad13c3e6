"""What the broker will never take is kept and left out; what it took is noted."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import orjson
import pytest
from aiokafka.protocol.metadata import MetadataRequest

from connectors.kafka.sink_transactions import Transactions
from engine.outbox import OutRecord
from engine.relay import Refused, Relay, RelayEvent, RelayLimits, Restarted
from tests.outbox import DEADLINE_SECONDS, running, within_deadline
from tests.relays import TIME, fetch, put, quick_relay, quick_sink, record, values
from tests.services import Database, Kafka, TopicFactory


@pytest.fixture
def namespace() -> str:
    return f"relay-{uuid.uuid4().hex[:10]}"


async def add_dead_letters(database: Database, namespace: str, number: int) -> list[int]:
    rows = await fetch(
        database.owner_dsn,
        "insert into pointsman.dead_letters (namespace, disposition, reason, error, details, record_time,"
        " record_headers, at) select $1, 7, 'unreadable', '', '', 0, '', now() from generate_series(1, $2)"
        " returning id",
        namespace,
        number,
    )
    return [row["id"] for row in rows]


async def publishing(database: Database) -> dict[int, tuple[str, str]]:
    rows = await fetch(
        database.reader_dsn, "select id, publishing, publishing_error from pointsman.dead_letters order by id"
    )
    return {row["id"]: (row["publishing"], row["publishing_error"]) for row in rows}


async def test_dead_letters_are_noted_as_published_or_as_refused(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    name = await topic(configs={"max.message.bytes": "2000"})
    first, large, last = await add_dead_letters(database, namespace, 3)
    sequence = await put(
        database.engine_dsn,
        namespace,
        [
            record(name, b"1", dead_letter=first),
            record(name, bytes(5_000), dead_letter=large),
            record(name, b"3", dead_letter=last),
        ],
    )
    async with running(quick_relay(database, kafka, namespace)) as relay:
        await relay.drained(sequence)
    found = await publishing(database)
    assert [found[first][0], found[large][0], found[last][0]] == ["published", "refused", "published"]
    assert "MESSAGE_TOO_LARGE" in found[large][1]
    assert await values(kafka, name) == [b"1", b"3"]


async def test_a_dead_letter_whose_relay_did_not_live_to_note_it_is_noted_by_the_next(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    name = await topic()
    (number,) = await add_dead_letters(database, namespace, 1)
    sequence = await put(database.engine_dsn, namespace, [record(name, b"1", dead_letter=number)])
    never_cleans = RelayLimits(clean_seconds=1_000)
    relay = Relay(database.engine_dsn, quick_sink(kafka.bootstrap, namespace), namespace, limits=never_cleans)
    task = asyncio.create_task(relay.run())
    await relay.drained(sequence)
    task.cancel()
    await asyncio.wait({task})
    assert (await publishing(database))[number][0] == "pending"
    async with running(quick_relay(database, kafka, namespace)) as relay:
        await relay.drained(sequence)
    assert (await publishing(database))[number][0] == "published"


async def test_a_refused_event_becomes_a_dead_letter_and_blocks_nobody(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    name = await topic()
    event = {"id": "e-1", "type": "Placed", "subject": "o-1", "source": f"/pointsman/{namespace}/orders"}
    value = orjson.dumps(event)
    await fetch(
        database.owner_dsn,
        "insert into pointsman.pipelines (namespace, name) values ($1, 'orders')",
        namespace,
    )
    headers = (("content-type", b"application/cloudevents+json"), ("odd", None))
    refused = OutRecord("there-is-no-such-topic", b"o-1", value, headers, TIME)
    events: list[RelayEvent] = []
    async with running(quick_relay(database, kafka, namespace, on_event=events.append)) as relay:
        await put(database.engine_dsn, namespace, [record(name, b"1"), refused, record(name, b"2")])
        sequence = await put(database.engine_dsn, namespace, [refused, record(name, b"3")])
        async with asyncio.timeout(DEADLINE_SECONDS):
            await relay.drained(sequence)
    assert await values(kafka, name) == [b"1", b"2", b"3"]
    assert [event.topic for event in events if isinstance(event, Refused)] == ["there-is-no-such-topic"] * 2
    letters = await fetch(database.reader_dsn, "select * from pointsman.dead_letters order by id")
    assert len(letters) == 2
    letter = letters[0]
    assert (letter["reason"], letter["status"], letter["publishing"]) == (
        "refused by broker",
        "open",
        "refused",
    )
    assert (letter["key"], letter["event_id"], letter["type"]) == ("o-1", "e-1", "Placed")
    assert (letter["record_key"], letter["record_value"], letter["record_time"]) == (b"o-1", value, TIME)
    assert letter["pipeline"] is not None
    assert "there-is-no-such-topic" in letter["error"]
    assert orjson.loads(letter["details"]) == {
        "topic": "there-is-no-such-topic",
        "outbox": {"sequence": 1, "index": 1},
    }
    noted = await fetch(
        database.reader_dsn, "select sequence, index from pointsman.outbox_refusals order by 1"
    )
    assert noted == [{"sequence": 1, "index": 1}, {"sequence": 2, "index": 0}]


async def test_a_small_limit_of_a_topic_is_learnt_and_refuses_nothing_that_fits(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    name = await topic(configs={"max.message.bytes": "10000"})
    events: list[RelayEvent] = []
    async with running(quick_relay(database, kafka, namespace, on_event=events.append)) as relay:
        for number in range(5):
            records = [record(name, b"%d-%03d" % (number, index) + bytes(900)) for index in range(100)]
            await relay.drained(await put(database.engine_dsn, namespace, records))
    found = [bytes(value or b"")[:5] for value in await values(kafka, name)]
    assert found == [b"%d-%03d" % (number, index) for number in range(5) for index in range(100)]
    assert not [event for event in events if isinstance(event, Refused)]
    smaller = [one for one in events if isinstance(one, Restarted) and "smaller batches" in one.error]
    assert 0 < len(smaller) < 8


async def test_a_topic_with_a_partition_offline_refuses_nothing_and_is_not_overtaken(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await topic()
    offline = {name}
    ask = Transactions.ask

    async def ask_with_partitions_offline(self: Transactions, request: Any) -> Any:
        answer = await ask(self, request)
        if isinstance(request, MetadataRequest):
            answer.topics = [
                (code, about, internal, [(5, number, -1, *rest) for _, number, _, *rest in partitions])
                if about in offline
                else (code, about, internal, partitions)
                for code, about, internal, partitions in answer.topics
            ]
        return answer

    monkeypatch.setattr(Transactions, "ask", ask_with_partitions_offline)
    events: list[RelayEvent] = []
    async with running(quick_relay(database, kafka, namespace, on_event=events.append)) as relay:
        await put(database.engine_dsn, namespace, [record(name, b"1")])
        await within_deadline(lambda: len(_waits(events)) >= 3)
        sequence = await put(database.engine_dsn, namespace, [record(name, b"2")])
        offline.clear()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await relay.drained(sequence)
    assert await values(kafka, name) == [b"1", b"2"]
    assert not [event for event in events if isinstance(event, Refused)]


def _waits(events: list[RelayEvent]) -> list[RelayEvent]:
    return [event for event in events if isinstance(event, Restarted) and "LEADER_NOT_AVAIL" in event.error]


@pytest.mark.parametrize("name", ["x" * 40_000, "half \udc80"])
async def test_a_row_of_an_older_version_with_a_name_that_no_topic_can_have_holds_up_nothing(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str, name: str
) -> None:
    sound = await topic()
    await put(database.engine_dsn, namespace, [record(sound, b"1"), record(name, b"kept")])
    async with running(quick_relay(database, kafka, namespace)) as relay:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await relay.drained(await put(database.engine_dsn, namespace, [record(sound, b"2")]))
    assert await values(kafka, sound) == [b"1", b"2"]
    [letter] = await fetch(database.reader_dsn, "select * from pointsman.dead_letters")
    assert (letter["reason"], letter["record_value"]) == ("refused by broker", b"kept")
    assert letter["error"].startswith("topic ")
