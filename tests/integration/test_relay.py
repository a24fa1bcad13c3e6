"""The relay on real Postgres and real Kafka: once, in order, and blocked by nobody."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson
import pytest

from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink import KafkaSink
from connectors.kafka.sink_limits import SinkLimits
from connectors.sink import Progress
from engine import outbox
from engine.errors import RefusedError
from engine.outbox import OutRecord, encode
from engine.relay import Published, Refused, Relay, RelayEvent, RelayLimits, Restarted, relay_status
from engine.relay.relay import OpenSink
from engine.relay.turn import try_turn
from engine.services.apache_kafka import ApacheKafka
from engine.services.mock_broker import MockBroker
from engine.store.connecting import connect
from tests.contract.sink_worlds import read_committed
from tests.fakes.sink import FakeBroker, FakeSink
from tests.outbox import DEADLINE_SECONDS, Writers, differences, running, within_deadline
from tests.services import Database, Kafka, TopicFactory

QUICK = RelayLimits(poll_seconds=0.1, clean_seconds=0.1, silence_seconds=1.0, halt_seconds=0.1)
TIME = 1_700_000_000_000


@pytest.fixture
def namespace() -> str:
    return f"relay-{uuid.uuid4().hex[:10]}"


def quick_sink(bootstrap: str, namespace: str, *, check_crcs: bool = True) -> OpenSink:
    limits = SinkLimits(topic_wait_seconds=0.3, topic_poll_seconds=0.05)
    settings = KafkaSettings(bootstrap, check_crcs=check_crcs)
    return lambda store: KafkaSink(settings, namespace, 0, store, limits)


def quick_relay(database: Database, kafka: Kafka, namespace: str, **options: Any) -> Relay:
    return Relay(
        database.engine_dsn, quick_sink(kafka.bootstrap, namespace), namespace, limits=QUICK, **options
    )


async def put(dsn: str, namespace: str, records: Sequence[OutRecord]) -> int:
    """Commit one transaction that publishes these; returns its sequence."""
    connection = await asyncpg.connect(dsn)
    async with connection.transaction():
        lane = await outbox.lane_for(connection, namespace, 0)
        sequence = await outbox.put(connection, lane, encode(records))
    await connection.close()
    return sequence


async def fetch(dsn: str, sql: str, *arguments: object) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(sql, *arguments)
    await connection.close()
    return [dict(row) for row in rows]


def record(topic: str, value: bytes | None, key: bytes | None = b"k", **more: Any) -> OutRecord:
    return OutRecord(topic, key, value, (), TIME, **more)


async def values(kafka: Kafka, topic: str) -> list[bytes | None]:
    return [found.value for partition in await read_committed(kafka.bootstrap, topic) for found in partition]


async def test_what_four_writers_commit_at_once_is_published_once_in_the_order_of_commits(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    topics = [await topic(partitions=3), await topic(partitions=1)]
    writers = Writers(database.engine_dsn, namespace, topics)
    await writers.prepare(database.owner_dsn)
    async with running(quick_relay(database, kafka, namespace)) as relay:
        await asyncio.gather(*(writers.write(number, lambda done: done < 60) for number in range(4)))
        async with asyncio.timeout(DEADLINE_SECONDS):
            await relay.drained(await writers.last())
        assert relay.depth() == 0
    assert writers.records > 1_000
    for name, partitions in zip(topics, (3, 1), strict=True):
        found = await read_committed(kafka.bootstrap, name)
        assert differences(found, await writers.expected(name, partitions)) == {}


async def test_a_transaction_that_stays_open_elsewhere_delays_nothing(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    name = await topic()
    idle = await asyncpg.connect(database.owner_dsn)
    async with idle.transaction(isolation="repeatable_read"):
        await idle.execute("select pg_current_xact_id()")
        async with running(quick_relay(database, kafka, namespace)) as relay:
            sequence = await put(database.engine_dsn, namespace, [record(name, b"1")])
            async with asyncio.timeout(DEADLINE_SECONDS):
                await relay.drained(sequence)
    await idle.close()
    assert await values(kafka, name) == [b"1"]


async def test_a_row_is_published_as_soon_as_it_is_committed(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    name = await topic()
    limits = RelayLimits(poll_seconds=30.0)
    relay = Relay(database.engine_dsn, quick_sink(kafka.bootstrap, namespace), namespace, limits=limits)
    async with running(relay):
        await relay.drained(await put(database.engine_dsn, namespace, [record(name, b"0")]))
        started = time.monotonic()
        await relay.drained(await put(database.engine_dsn, namespace, [record(name, b"1")]))
        assert time.monotonic() - started < 10


async def test_confirmed_rows_are_deleted_but_for_the_last(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    name = await topic()
    async with running(quick_relay(database, kafka, namespace)):
        for number in range(5):
            await put(database.engine_dsn, namespace, [record(name, b"%d" % number)])

        async def only_the_last_is_left() -> bool:
            rows = await fetch(database.reader_dsn, "select sequence from pointsman.outbox")
            return rows == [{"sequence": 5}]

        await within_deadline(only_the_last_is_left)
    assert await fetch(database.reader_dsn, "select ticket, deleted from pointsman.lanes") == [
        {"ticket": 5, "deleted": 4}
    ]


async def test_a_successor_publishes_nothing_twice(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    name = await topic()
    for number in range(1, 6):
        await put(database.engine_dsn, namespace, [record(name, b"%d" % number)])
        async with running(quick_relay(database, kafka, namespace)) as relay:
            await relay.drained(number)
    assert await values(kafka, name) == [b"1", b"2", b"3", b"4", b"5"]


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
    assert len([event for event in events if isinstance(event, Restarted)]) < 8


async def test_one_of_two_relays_has_the_turn_and_the_other_takes_over(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    name = await topic()
    events: list[list[RelayEvent]] = [[], []]
    first = quick_relay(database, kafka, namespace, on_event=events[0].append)
    second = quick_relay(database, kafka, namespace, on_event=events[1].append)
    async with running(second):
        async with running(first):
            sequence = await put(database.engine_dsn, namespace, [record(name, b"1")])
            async with asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.gather(first.drained(sequence), second.drained(sequence))
            at_work = [any(isinstance(event, Published) for event in told) for told in events]
            assert sorted(at_work) == [False, True]
        sequence = await put(database.engine_dsn, namespace, [record(name, b"2")])
        async with asyncio.timeout(DEADLINE_SECONDS):
            await second.drained(sequence)
    assert await values(kafka, name) == [b"1", b"2"]


async def test_a_relay_that_fell_silent_loses_its_turn(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    name = await topic()
    sequence = await put(database.engine_dsn, namespace, [record(name, b"1")])
    silent = await connect(database.engine_dsn)
    lane = await outbox.lane_for(silent, namespace, 0)
    assert await try_turn(silent, lane, QUICK)
    async with running(quick_relay(database, kafka, namespace)) as relay:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await relay.drained(sequence)
    await within_deadline(silent.is_closed)


async def test_what_the_predecessor_commits_until_it_is_fenced_is_not_published_again(
    database: Database, namespace: str
) -> None:
    broker = FakeBroker()
    broker.create_topic("out")
    rows = [[record("out", b"%d" % number)] for number in range(3)]
    for records in rows:
        await put(database.engine_dsn, namespace, records)

    class Late(FakeSink):
        """Its predecessor's transaction is on the way, and arrives just before this one fences it."""

        async def start(self) -> None:
            if not broker.committed:
                (blob,) = await fetch(
                    database.reader_dsn, "select blob from pointsman.outbox where sequence = 2"
                )
                (store,) = await fetch(database.reader_dsn, "select id::text as id from pointsman.store")
                broker.append(rows[0] + rows[1])
                broker.progress["lane"] = Progress(store["id"], 2, outbox.digest(blob["blob"]))
            await super().start()

    relay = Relay(database.engine_dsn, lambda _: Late(broker, "lane"), namespace, limits=QUICK)
    async with running(relay):
        await relay.drained(3)
    (found,) = broker.topics["out"].partitions
    assert [seen.value for seen in found] == [b"0", b"1", b"2"]


async def test_two_relays_that_disregard_the_turn_fence_each_other_and_publish_once(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    name = await topic()
    writers = Writers(database.engine_dsn, namespace, [name])
    await writers.prepare(database.owner_dsn)

    async def always(*_: object) -> bool:
        return True

    events: list[RelayEvent] = []
    relays = [
        quick_relay(database, kafka, namespace, take_turn=always, on_event=events.append) for _ in range(2)
    ]
    async with running(relays[0]), running(relays[1]):
        await asyncio.gather(*(writers.write(number, lambda done: done < 50) for number in range(2)))
        last = await writers.last()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.wait(
                [asyncio.create_task(relay.drained(last)) for relay in relays],
                return_when=asyncio.FIRST_COMPLETED,
            )
    assert any(isinstance(event, Restarted) and "Fenced" in event.error for event in events)
    found = await read_committed(kafka.bootstrap, name)
    assert differences(found, await writers.expected(name, 1)) == {}


async def test_a_session_of_postgres_that_is_ended_changes_nothing(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str
) -> None:
    name = await topic()
    end_sessions = (
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'pointsman relay' and datname = current_database()"
    )
    async with running(quick_relay(database, kafka, namespace)) as relay:
        for number in range(1, 6):
            sequence = await put(database.engine_dsn, namespace, [record(name, b"%d" % number)])
            await within_deadline(lambda: fetch(database.owner_dsn, end_sessions))
            async with asyncio.timeout(DEADLINE_SECONDS):
                await relay.drained(sequence)
    assert await values(kafka, name) == [b"1", b"2", b"3", b"4", b"5"]


async def test_who_waits_for_a_relay_that_is_stopped_is_told(
    database: Database, kafka: Kafka, namespace: str
) -> None:
    relay = quick_relay(database, kafka, namespace)
    async with running(relay):
        waiting = asyncio.create_task(relay.drained(1_000))
        await within_deadline(lambda: relay.depth() == 0)
    with pytest.raises(RefusedError, match="stopped before row 1000"):
        await waiting


async def test_a_broker_that_is_not_there_is_waited_for(
    database: Database, namespace: str, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    await put(database.engine_dsn, namespace, [record("anywhere", b"1")])
    events: list[RelayEvent] = []
    relay = Relay(
        database.engine_dsn,
        KafkaSettings(f"127.0.0.1:{unused_tcp_port}"),
        namespace,
        limits=QUICK,
        on_event=events.append,
    )
    async with running(relay):
        await within_deadline(lambda: len(events) >= 4)
        assert relay.depth() == 1
    said = [entry for entry in caplog.records if entry.name == "pointsman.engine"]
    assert len(said) == 1


async def test_a_broker_that_asks_for_tls_and_a_password_is_published_to(
    database: Database, sasl_ssl_kafka: ApacheKafka, namespace: str
) -> None:
    settings = KafkaSettings(
        sasl_ssl_kafka.bootstrap,
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        username=sasl_ssl_kafka.username,
        password_file=sasl_ssl_kafka.password_file,
        ca_file=sasl_ssl_kafka.ca_file,
    )
    async with running(Relay(database.engine_dsn, settings, namespace, limits=QUICK)) as relay:
        # The topic does not exist; what is refused is confirmed all the same, by a transaction of its own.
        sequence = await put(database.engine_dsn, namespace, [record("missing", b"1")])
        async with asyncio.timeout(DEADLINE_SECONDS):
            await relay.drained(sequence)
    status = await relay_status(database.reader_dsn, settings, namespace)
    assert (status.progress, status.healthy) == (1, True)


async def test_the_small_broker_for_one_machine_is_enough_to_publish(
    database: Database, namespace: str
) -> None:
    with MockBroker.start() as broker:
        relay = Relay(
            database.engine_dsn,
            quick_sink(broker.bootstrap, namespace, check_crcs=False),
            namespace,
            limits=QUICK,
        )
        async with running(relay):
            for number in range(1, 4):
                records = [record("out", b"%d-%d" % (number, index)) for index in range(200)]
                sequence = await put(database.engine_dsn, namespace, records)
                async with asyncio.timeout(DEADLINE_SECONDS):
                    await relay.drained(sequence)
        found = await read_committed(broker.bootstrap, "out", check_crcs=False)
    assert sorted(len(partition) for partition in found) == [0, 0, 0, 600]
