"""The relay on real Postgres and real Kafka: once, in order, and blocked by nobody."""

from __future__ import annotations

import asyncio
import time
import uuid

import asyncpg
import pytest

from connectors.kafka.settings import KafkaSettings
from connectors.sink import Progress
from engine import outbox
from engine.errors import RefusedError, ServiceUnreachableError
from engine.relay import Published, Relay, RelayEvent, RelayLimits, Restarted, relay_status
from engine.relay.turn import try_turn
from engine.services.apache_kafka import ApacheKafka
from engine.services.mock_broker import MockBroker
from engine.store.connecting import Connection, connect
from tests.contract.sink_worlds import read_committed
from tests.fakes.sink import FakeBroker, FakeSink
from tests.outbox import DEADLINE_SECONDS, Writers, differences, running, within_deadline
from tests.relays import QUICK, fetch, put, quick_relay, quick_sink, record, values
from tests.services import Database, Kafka, TopicFactory


@pytest.fixture
def namespace() -> str:
    return f"relay-{uuid.uuid4().hex[:10]}"


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
    limits = RelayLimits(poll_seconds=300.0)
    relay = Relay(database.engine_dsn, quick_sink(kafka.bootstrap, namespace), namespace, limits=limits)
    async with running(relay):
        await relay.drained(await put(database.engine_dsn, namespace, [record(name, b"0")]))
        started = time.monotonic()
        await relay.drained(await put(database.engine_dsn, namespace, [record(name, b"1")]))
        assert time.monotonic() - started < 100, "it was not waited until it is looked again"


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

    def is_fenced() -> bool:
        return any(isinstance(event, Restarted) and "Fenced" in event.error for event in events)

    async with running(relays[0]), running(relays[1]):
        async with asyncio.timeout(DEADLINE_SECONDS):
            # One of them may begin so late that the other has nothing left to do.
            some = (writers.write(number, lambda done: done < 50 or not is_fenced()) for number in range(2))
            await asyncio.gather(*some)
        last = await writers.last()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.wait(
                [asyncio.create_task(relay.drained(last)) for relay in relays],
                return_when=asyncio.FIRST_COMPLETED,
            )
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


async def test_a_postgres_that_breaks_away_in_the_middle_of_an_answer_is_one_that_is_away(
    database: Database, kafka: Kafka, topic: TopicFactory, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = asyncpg.InternalClientError("got result for unknown protocol state 3")
    errors = [broken, ServiceUnreachableError("away"), broken]

    async def postgres() -> Connection:
        if errors:
            raise errors.pop()
        return await connect(database.engine_dsn, name="pointsman relay")

    sequence = await put(database.engine_dsn, namespace, [record(await topic(), b"1")])
    async with running(
        Relay(postgres, quick_sink(kafka.bootstrap, namespace), namespace, limits=QUICK)
    ) as relay:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await relay.drained(sequence)
    assert not errors
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == []


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
    database: Database, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    await put(database.engine_dsn, namespace, [record("anywhere", b"1")])
    events: list[RelayEvent] = []
    relay = Relay(
        database.engine_dsn,
        # A port that no program is given by chance.
        KafkaSettings("127.0.0.1:1"),
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
