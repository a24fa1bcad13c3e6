"""The brokers that `demo`, `dev` and the tests stand on do what the engine asks of them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from engine.services.apache_kafka import ApacheKafka
from engine.services.errors import ServiceError
from engine.services.mock_broker import MockBroker
from tests import services
from tests.scratch import scratch_folder
from tests.services import Kafka, TopicFactory

READ_SECONDS = 60.0


@contextlib.asynccontextmanager
async def producer(bootstrap: str, **settings: Any) -> AsyncIterator[Any]:
    make: Any = AIOKafkaProducer  # aiokafka is not typed
    client = make(bootstrap_servers=bootstrap, **settings)
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


async def values(bootstrap: str, topic: str, count: int, **settings: Any) -> list[bytes]:
    """The first `count` values of partition 0, and whatever came with them."""
    make: Any = AIOKafkaConsumer  # aiokafka is not typed
    consumer = make(bootstrap_servers=bootstrap, isolation_level="read_committed", **settings)
    try:
        await consumer.start()
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        found: list[bytes] = []
        async with asyncio.timeout(READ_SECONDS):
            while len(found) < count:
                found.append((await consumer.getone()).value)
        return found
    finally:
        await consumer.stop()


def secured(server: ApacheKafka, mechanism: str) -> dict[str, Any]:
    return {
        "security_protocol": "SASL_SSL",
        "ssl_context": ssl.create_default_context(cafile=server.ca_file),
        "sasl_mechanism": mechanism,
        "sasl_plain_username": server.username,
        "sasl_plain_password": server.password_file.read_text().strip(),
    }


async def test_kafka_shows_committed_transactions_and_hides_aborted_ones(
    kafka: Kafka, topic: TopicFactory
) -> None:
    name = await topic("transactions")
    async with producer(kafka.bootstrap, transactional_id=name) as client:
        for value, commits in ((b"first", True), (b"never", False), (b"second", True)):
            await client.begin_transaction()
            await client.send_and_wait(name, value, partition=0)
            await (client.commit_transaction() if commits else client.abort_transaction())
    assert await values(kafka.bootstrap, name, 2) == [b"first", b"second"]


async def test_kafka_keeps_acknowledged_records_over_sigkill_and_answers_after_a_pause(
    restartable_kafka: ApacheKafka,
) -> None:
    bootstrap = restartable_kafka.bootstrap
    name = await services.Topics(bootstrap)("kept")
    async with producer(bootstrap, enable_idempotence=True) as client:
        await client.send_and_wait(name, b"before", partition=0)
    killed = restartable_kafka.pid
    restartable_kafka.kill()
    restartable_kafka.start_again()
    assert restartable_kafka.pid != killed
    async with producer(bootstrap, enable_idempotence=True) as client:
        restartable_kafka.pause()
        sent = await client.send(name, b"after", partition=0)
        assert not sent.done()
        restartable_kafka.resume()
        await sent
    assert await values(bootstrap, name, 2) == [b"before", b"after"]


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
async def test_kafka_over_tls_takes_the_user_with_the_password(
    sasl_ssl_kafka: ApacheKafka, mechanism: str
) -> None:
    bootstrap, settings = sasl_ssl_kafka.bootstrap, secured(sasl_ssl_kafka, mechanism)
    name = await services.Topics(bootstrap, **settings)("secured")
    async with producer(bootstrap, **settings) as client:
        await client.send_and_wait(name, b"sealed", partition=0)
    assert await values(bootstrap, name, 1, **settings) == [b"sealed"]


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
async def test_kafka_over_tls_refuses_another_password(sasl_ssl_kafka: ApacheKafka, mechanism: str) -> None:
    settings = secured(sasl_ssl_kafka, mechanism) | {"sasl_plain_password": "guess"}
    with pytest.raises(KafkaError):
        async with producer(sasl_ssl_kafka.bootstrap, **settings):
            pass


async def test_kafka_over_tls_refuses_a_client_that_does_not_trust_its_authority(
    sasl_ssl_kafka: ApacheKafka,
) -> None:
    settings = secured(sasl_ssl_kafka, "PLAIN") | {"ssl_context": ssl.create_default_context()}
    with pytest.raises(KafkaError):
        async with producer(sasl_ssl_kafka.bootstrap, **settings):
            pass


def test_the_files_of_a_secured_kafka_are_for_its_owner_alone(sasl_ssl_kafka: ApacheKafka) -> None:
    assert sasl_ssl_kafka.password_file.stat().st_mode & 0o777 == 0o600
    assert (sasl_ssl_kafka.folder / "server.properties").stat().st_mode & 0o777 == 0o600
    command_line = Path(f"/proc/{sasl_ssl_kafka.pid}/cmdline").read_text()
    assert sasl_ssl_kafka.password_file.read_text().strip() not in command_line


def test_kafka_on_a_port_in_use_gives_a_sentence(restartable_kafka: ApacheKafka) -> None:
    taken = restartable_kafka.port
    with (
        scratch_folder("kafka") as folder,
        pytest.raises(ServiceError, match=rf"cannot listen on 127.0.0.1:{taken}: the port is in use"),
    ):
        ApacheKafka.start(folder, port=taken)


def test_a_setting_that_kafka_refuses_is_named(restartable_kafka: ApacheKafka) -> None:
    with (
        scratch_folder("kafka") as folder,
        pytest.raises(ServiceError, match=r"num\.io\.threads"),
    ):
        ApacheKafka.start(folder, settings={"num.io.threads": "many"})


async def test_the_mock_broker_takes_and_gives_records() -> None:
    with MockBroker.start() as broker:
        async with producer(broker.bootstrap) as client:
            sent = [await client.send("orders", b"%d" % n, partition=0) for n in range(1000)]
            for acknowledged in sent:
                await acknowledged
        assert await values(broker.bootstrap, "orders", 1000) == [b"%d" % n for n in range(1000)]


async def test_two_mock_brokers_know_nothing_of_each_other() -> None:
    with MockBroker.start() as one, MockBroker.start() as other:
        async with producer(one.bootstrap) as client:
            await client.send_and_wait("orders", b"here", partition=0)
        async with producer(other.bootstrap) as client:
            assert (await client.send_and_wait("orders", b"there", partition=0)).offset == 0


def test_a_container_is_told_what_our_own_broker_is_told() -> None:
    environment = services.container_environment(29092)
    assert environment["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://127.0.0.1:29092"
    assert environment["KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS"] == "0"
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
