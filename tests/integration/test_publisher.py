"""Publishing to a real Kafka: what is confirmed can be read, and what fails says so."""

from __future__ import annotations

import asyncio
import io
import logging
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from connectors import publishing
from connectors.decode import Decoded, decode
from connectors.files import Choice, FileOptions, Publication, RefusedRow
from connectors.kafka.settings import KafkaSettings
from connectors.publisher import (
    Draft,
    EventRefusedError,
    KafkaUnreachableError,
    Publisher,
    PublishError,
    PublishLimits,
    PublishManyError,
)
from connectors.publishing import ConfirmingProducer
from engine.services.apache_kafka import ApacheKafka
from statemachines.definition import Topic
from statemachines.events import Event
from tests.kafka_reading import read_all
from tests.services import Kafka, TopicFactory, Topics

HASTY = PublishLimits(topic_seconds=1.0)
"""For a topic; a broker that is there has the time that it has."""
SHORT = PublishLimits(connect_seconds=6.0, confirm_seconds=6.0, close_seconds=2.0)
"""For a broker that goes away; one that has just been started is slow at first."""
IN_TIME_SECONDS = 120.0
"""More than anything here takes; what takes longer would take for ever."""
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class OrderPlaced(Event, type="order.placed", key="order_id"):
    order_id: str
    amount: int
    note: str = ""


class Ping(Event, type="ping"):
    pass


class Nameless(Event):
    pass


def order(number: int, note: str = "") -> OrderPlaced:
    return OrderPlaced(order_id=f"o-{number}", amount=number, note=note)


@pytest.fixture
async def publisher(kafka: Kafka) -> AsyncIterator[Publisher]:
    async with Publisher(kafka.bootstrap, source="/shop") as one:
        yield one


async def events(bootstrap: str, topic: str) -> list[Decoded]:
    found = []
    for record in await read_all(bootstrap, topic):
        event = decode(record, Topic(topic), "c1")
        assert isinstance(event, Decoded), event
        found.append(event)
    return found


async def test_what_is_published_is_read_as_the_same_event(
    kafka: Kafka, publisher: Publisher, topic: TopicFactory
) -> None:
    name = await topic()
    when = datetime(2024, 5, 1, 12, 0, 0, 7, UTC)
    receipt = await publisher.publish(
        order(1), topic=name, id="e-1", subject="s", time=when, traceparent=TRACE
    )
    assert (receipt.topic, receipt.partition, receipt.offset, receipt.id) == (name, 0, 0, "e-1")
    [found] = await events(kafka.bootstrap, name)
    envelope = found.envelope
    assert (envelope.id, envelope.source, envelope.type, envelope.key) == (
        "e-1",
        "/shop",
        "order.placed",
        "o-1",
    )
    assert (envelope.time, envelope.subject, envelope.traceparent) == (when, "s", TRACE)
    assert found.data == {"order_id": "o-1", "amount": 1, "note": ""}
    assert OrderPlaced.model_validate(found.data) == order(1)


async def test_without_more_the_id_is_new_and_the_time_is_now(kafka: Kafka, topic: TopicFactory) -> None:
    name = await topic()
    before = datetime.now(UTC)
    async with Publisher(KafkaSettings(kafka.bootstrap), source="/shop", topic=name) as publisher:
        first = await publisher.publish(order(1))
        second = await publisher.publish(Ping(), key="chosen")
    assert first.id != second.id
    placed, ping = await events(kafka.bootstrap, name)
    assert placed.envelope.id == first.id
    assert placed.envelope.time is not None
    assert before <= placed.envelope.time <= datetime.now(UTC)
    assert (ping.envelope.key, ping.data) == ("chosen", {})


async def test_many_are_published_in_order(kafka: Kafka, publisher: Publisher, topic: TopicFactory) -> None:
    name = await topic(partitions=4)
    drafts = [Draft(order(number), topic=name, id=f"e-{number}", key="one") for number in range(3_000)]
    receipts = await publisher.publish_many(drafts)
    assert [receipt.id for receipt in receipts] == [f"e-{number}" for number in range(3_000)]
    assert len({receipt.partition for receipt in receipts}) == 1
    assert [receipt.offset for receipt in receipts] == list(range(3_000))
    found = await events(kafka.bootstrap, name)
    assert [event.envelope.id for event in found] == [f"e-{number}" for number in range(3_000)]


async def test_many_tasks_publish_at_once(kafka: Kafka, publisher: Publisher, topic: TopicFactory) -> None:
    name = await topic(partitions=2)
    receipts = await asyncio.gather(*(publisher.publish(order(n), topic=name) for n in range(200)))
    found = await events(kafka.bootstrap, name)
    assert {event.envelope.id for event in found} == {receipt.id for receipt in receipts}
    assert len(found) == 200


async def test_a_topic_that_does_not_exist_is_said_so(kafka: Kafka, caplog: pytest.LogCaptureFixture) -> None:
    async with Publisher(kafka.bootstrap, source="/shop", limits=HASTY) as publisher:
        with pytest.raises(PublishError, match="has no topic 'missing-topic', and does not create it"):
            await publisher.publish(order(1), topic="missing-topic")
        with pytest.raises(EventRefusedError, match="'no/topic' cannot be a topic"):
            await publisher.publish(order(1), topic="no/topic")
        with pytest.raises(PublishManyError, match=r"0 of 3 events are published, then: .* has no topic"):
            await publisher.publish_many([Draft(order(n), topic="missing-topic") for n in range(3)])
    assert caplog.messages == [], "the error says it, and nothing else does"


def test_who_else_looks_for_topics_hears_of_them_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    missing, log = "Topic %s not found in cluster metadata", logging.getLogger("aiokafka.cluster")
    with publishing._missing_told_once("ours"):
        log.error(missing, "ours")
        log.error(missing, "theirs")
        log.error("Topic %s is not authorized for this client", "ours")
    log.error(missing, "ours")
    assert [(one.msg, one.args) for one in caplog.records] == [
        (missing, ("theirs",)),
        ("Topic %s is not authorized for this client", ("ours",)),
        (missing, ("ours",)),
    ]


async def test_an_event_that_is_too_large_for_the_publisher_is_refused(
    kafka: Kafka, publisher: Publisher, topic: TopicFactory
) -> None:
    name = await topic()
    with pytest.raises(EventRefusedError, match="is too large for"):
        await publisher.publish(order(1, "x" * 1_100_000), topic=name)
    await publisher.publish(order(2), topic=name)
    assert [event.data["amount"] for event in await events(kafka.bootstrap, name)] == [2]


async def test_an_event_that_is_too_large_for_the_topic_is_refused_and_others_go_on(
    kafka: Kafka, publisher: Publisher, topic: TopicFactory
) -> None:
    name = await topic(configs={"max.message.bytes": "5000"})
    await publisher.publish(order(0), topic=name)
    with pytest.raises(EventRefusedError, match=r"is too large for .*max\.message\.bytes"):
        await publisher.publish(order(1, "x" * 6_000), topic=name)
    await publisher.publish(order(2), topic=name)
    assert [event.data["amount"] for event in await events(kafka.bootstrap, name)] == [0, 2]


async def test_small_events_are_not_refused_because_their_batch_is_too_large(
    kafka: Kafka, publisher: Publisher, topic: TopicFactory
) -> None:
    name = await topic(configs={"max.message.bytes": "2000"})
    receipts = await publisher.publish_many(
        Draft(order(number, "x" * 300), topic=name, id=f"e-{number}") for number in range(100)
    )
    assert len(receipts) == 100
    found = await events(kafka.bootstrap, name)
    assert [event.envelope.id for event in found] == [f"e-{number}" for number in range(100)]


async def test_publishing_many_stops_at_the_one_that_is_refused(kafka: Kafka, topic: TopicFactory) -> None:
    name = await topic(configs={"max.message.bytes": "5000"})
    drafts = [Draft(order(n, "x" * (6_000 if n == 5 else 0)), id=f"e-{n}") for n in range(2_000)]
    limits = PublishLimits(in_flight_max=10)
    async with Publisher(kafka.bootstrap, source="/shop", topic=name, limits=limits) as publisher:
        with pytest.raises(PublishManyError, match="too large") as raised:
            await publisher.publish_many(drafts)
    confirmed = [receipt.id for receipt in raised.value.confirmed]
    assert confirmed[:5] == ["e-0", "e-1", "e-2", "e-3", "e-4"]
    assert "e-5" not in confirmed
    assert len(confirmed) < 50
    assert [event.envelope.id for event in await events(kafka.bootstrap, name)] == confirmed


@pytest.mark.parametrize(
    ("draft", "sentence"),
    [
        (Draft(order(1), id="a\0"), "id has a NUL character"),
        (Draft(order(1), id=""), "id is empty"),
        (Draft(order(1), id="\ud800"), "lone surrogate"),
        (Draft(order(1), key="k" * 2_000), "key takes 2,000 bytes, of 1,024 allowed"),
        (Draft(order(1), subject=""), "subject is empty"),
        (Draft(order(1), time=datetime(2024, 5, 1)), "time has no zone"),  # noqa: DTZ001 - that is the flaw
        (Draft(order(1), traceparent="odd"), "traceparent is none"),
        (
            Draft(OrderPlaced(order_id="", amount=1)),
            "OrderPlaced has no key: the field 'order_id' of the data",
        ),
        (Draft(order(1, "\ud800")), "cannot be written as JSON"),
        (Draft(Nameless()), "type is empty"),
    ],
)
async def test_a_flawed_event_is_refused_before_anything_is_sent(draft: Draft, sentence: str) -> None:
    publisher = Publisher("127.0.0.1:1", source="/shop", topic="orders")
    with pytest.raises(EventRefusedError, match=sentence):
        await publisher.publish_many([Draft(order(1)), draft])


async def test_a_file_is_published_row_by_row_and_what_the_topic_refuses_is_told(
    kafka: Kafka, topic: TopicFactory
) -> None:
    name = await topic(partitions=2, configs={"max.message.bytes": "3000"})
    lines = [f"o-{n % 7},order.placed,{'x' * (4_000 if n == 50 else 20)}\n" for n in range(300)]
    stream = io.BytesIO(("key,type,note\n" + "".join(lines)).encode())
    refused: list[RefusedRow] = []
    options = FileOptions(key=Choice.parse("key"), id=None)
    async with ConfirmingProducer(KafkaSettings(kafka.bootstrap), PublishLimits()) as producer:
        report = await Publication(
            producer, name, stream, "orders.csv", options, on_refused=refused.append
        ).run()
    assert (report.confirmed, report.refused, report.unconfirmed, report.failure) == (299, 1, 0, None)
    assert [row.place for row in refused] == ["orders.csv:52"]
    assert "too large" in refused[0].error
    found = await events(kafka.bootstrap, name)
    assert len({event.envelope.id for event in found}) == len(found) == 299
    assert {event.envelope.key for event in found} == {f"o-{n}" for n in range(7)}


async def test_a_topic_must_be_given_somewhere() -> None:
    with pytest.raises(EventRefusedError, match="OrderPlaced has no topic"):
        await Publisher("127.0.0.1:1", source="/shop").publish(order(1))


async def test_an_empty_topic_is_none_and_does_not_stand_for_that_of_the_publisher() -> None:
    with pytest.raises(EventRefusedError, match="OrderPlaced cannot be published: its topic is empty"):
        await Publisher("127.0.0.1:1", source="/shop", topic="orders").publish(order(1), topic="")


async def test_a_source_must_be_sound() -> None:
    with pytest.raises(ValueError, match="source is empty"):
        Publisher("127.0.0.1:1", source="")


async def test_an_address_where_nothing_listens_is_said_so() -> None:
    with socket.socket() as bound:
        # Nobody else is given its port, and nothing listens there.
        bound.bind(("127.0.0.1", 0))
        bootstrap = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(KafkaUnreachableError, match=f"Kafka at {bootstrap} does not answer"):
            async with Publisher(bootstrap, source="/shop", limits=PublishLimits(connect_seconds=2.0)):
                pass


async def test_a_publisher_is_not_used_after_its_end(kafka: Kafka, topic: TopicFactory) -> None:
    name = await topic()
    async with Publisher(kafka.bootstrap, source="/shop", topic=name) as publisher:
        await publisher.publish(order(1))
    with pytest.raises(PublishError, match="The publisher is closed"):
        await publisher.publish(order(2))


async def test_all_replicas_in_sync_confirm_a_record_and_have_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def made(**options: Any) -> Any:
        asked.update(options)
        raise ValueError("that is enough")

    monkeypatch.setattr(publishing, "AIOKafkaProducer", made)
    with pytest.raises(PublishError, match="that is enough"):
        await ConfirmingProducer(KafkaSettings("127.0.0.1:1"), PublishLimits()).start()
    assert (asked["acks"], asked["enable_idempotence"]) == ("all", True)


async def test_a_broker_that_goes_away_is_said_so_and_publishing_goes_on_when_it_is_back(
    restartable_kafka: ApacheKafka,
) -> None:
    topics = Topics(restartable_kafka.bootstrap)
    name = await topics(configs={"min.insync.replicas": "1"})
    async with Publisher(restartable_kafka.bootstrap, source="/shop", topic=name, limits=SHORT) as publisher:
        await publisher.publish(order(0), id="e-0")
        restartable_kafka.kill()
        started = time.monotonic()
        with pytest.raises(KafkaUnreachableError, match="Event e-1 may still arrive"):
            await publisher.publish(order(1), id="e-1")
        assert time.monotonic() - started < SHORT.confirm_seconds + 12
        restartable_kafka.start_again()
        started = time.monotonic()
        while True:
            try:
                await publisher.publish(order(2), id="e-2")
                break
            except PublishError:
                assert time.monotonic() - started < 120
    found = [event.envelope.id for event in await events(restartable_kafka.bootstrap, name)]
    assert found[0] == "e-0"
    assert set(found) == {"e-0", "e-1", "e-2"}
    assert found.count("e-1") == 1


async def test_publishing_many_stops_when_the_broker_goes_away_and_closes_in_time(
    restartable_kafka: ApacheKafka,
) -> None:
    name = await Topics(restartable_kafka.bootstrap)()
    publisher = Publisher(restartable_kafka.bootstrap, source="/shop", topic=name, limits=SHORT)
    async with asyncio.timeout(IN_TIME_SECONDS), publisher:
        await publisher.publish(order(0), id="e-0")
        restartable_kafka.pause()
        try:
            started = time.monotonic()
            with pytest.raises(PublishManyError, match="0 of 100 events are published") as raised:
                await publisher.publish_many(Draft(order(n), id=f"e-{n}") for n in range(1, 101))
            assert raised.value.confirmed == ()
            await publisher.__aexit__(None, None, None)
            assert time.monotonic() - started < SHORT.confirm_seconds + SHORT.close_seconds + 16
        finally:
            restartable_kafka.resume()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_wrong_password_is_said_so(sasl_ssl_kafka: ApacheKafka, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("wrong")
    settings = KafkaSettings(
        sasl_ssl_kafka.bootstrap,
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        username=sasl_ssl_kafka.username,
        password_file=password,
        ca_file=sasl_ssl_kafka.ca_file,
    )
    with pytest.raises(
        KafkaUnreachableError,
        match="does not let us in: it does not take the user pointsman with this password",
    ):
        async with Publisher(settings, source="/shop"):
            pass
    with pytest.raises(PublishError, match=r"settings for Kafka at .* cannot be used: .*nowhere"):
        async with Publisher(replace(settings, password_file=tmp_path / "nowhere"), source="/shop"):
            pass
    name = await Topics(sasl_ssl_kafka.bootstrap, **_right(settings, sasl_ssl_kafka).client_options())()
    async with Publisher(_right(settings, sasl_ssl_kafka), source="/shop", topic=name) as publisher:
        assert (await publisher.publish(order(1))).offset == 0


def _right(settings: KafkaSettings, kafka: ApacheKafka) -> KafkaSettings:
    return replace(settings, password_file=kafka.password_file)
