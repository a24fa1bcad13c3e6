"""A real Postgres and a broker on this machine, ready for an engine: what ``dev`` and ``demo`` run on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.settings import KafkaSettings
from engine.errors import RefusedError
from engine.relay import relay_accept, relay_status
from engine.services.apache_kafka import ApacheKafka
from engine.services.mock_broker import MockBroker
from engine.services.postgres import EmbeddedPostgres
from engine.store.migrations import migrate

BrokerKind = Literal["mock", "apache"]

ENGINE_ROLE = "pointsman"
READER_ROLE = "reader"
MOCK_LIMITS = (
    "This small broker is no Kafka: it forgets everything when it stops, serves one engine only, keeps about 5 MB "
    "a partition, and cannot hide aborted transactions, so publishing out is at least once on it."
)


@dataclass(frozen=True, slots=True)
class Embedded:
    """The addresses of what runs; none has a password in it, the passfile is named instead."""

    postgres: EmbeddedPostgres
    kafka: KafkaSettings
    broker: BrokerKind

    @property
    def owner(self) -> str:
        """Of the role that owns the schema."""
        return self.postgres.dsn()

    @property
    def engine(self) -> str:
        """Of the role that an engine runs as."""
        return self.postgres.dsn(ENGINE_ROLE)

    @property
    def reader(self) -> str:
        """Of a role that may only look."""
        return self.postgres.dsn(READER_ROLE)


@contextlib.contextmanager
def embedded(
    folder: Path,
    *,
    broker: BrokerKind = "mock",
    topics: Sequence[str] = (),
    postgres_port: int = 0,
    kafka_port: int = 0,
) -> Iterator[Embedded]:
    """Start both on this folder, migrated, with roles and topics; both are stopped at the end, also by Ctrl-C.

    The small broker chooses its port itself.

    Raises:
        ServiceError: one of them cannot be started here.
    """
    with contextlib.ExitStack() as stack:
        with ThreadPoolExecutor(2, "pointsman-start") as pool:
            starting_postgres = pool.submit(EmbeddedPostgres.start, folder / "postgres", port=postgres_port)
            starting_broker = pool.submit(_start_broker, broker, folder, kafka_port, topics)
            # Registered before waiting: whatever interrupts the waiting, what has started is stopped.
            stack.callback(_stop, starting_broker)
            stack.callback(_stop, starting_postgres)
            postgres, server = starting_postgres.result(), starting_broker.result()
        asyncio.run(migrate(postgres.dsn()))
        postgres.add_login(ENGINE_ROLE, member_of="pointsman_engine")
        postgres.add_login(READER_ROLE, member_of="pointsman_reader")
        yield Embedded(postgres, _settings(broker, server), broker)


def _start_broker(
    kind: BrokerKind, folder: Path, port: int, topics: Sequence[str]
) -> MockBroker | ApacheKafka:
    server = MockBroker.start() if kind == "mock" else ApacheKafka.start(folder / "kafka", port=port)
    try:
        asyncio.run(_make_topics(_settings(kind, server), topics))
    except BaseException:
        server.stop()
        raise
    return server


def _settings(kind: BrokerKind, server: MockBroker | ApacheKafka) -> KafkaSettings:
    return KafkaSettings(server.bootstrap, check_crcs=kind == "apache")


async def _make_topics(settings: KafkaSettings, topics: Sequence[str]) -> None:
    async with KafkaAdmin(settings) as admin:
        await asyncio.gather(*(admin.create_topic(topic) for topic in topics))


def _stop(
    starting: Future[EmbeddedPostgres] | Future[MockBroker | ApacheKafka] | Future[MockBroker],
) -> None:
    if starting.cancelled() or starting.exception() is not None:
        return
    starting.result().stop()


async def accept_new_broker(services: Embedded, namespace: str) -> None:
    """Let the relay go on on a broker that has forgotten how far it was, as the small one has at each start.

    What waits to be published is published; nothing else could be meant by a folder that is kept.
    """
    place = (services.engine, services.kafka, namespace)
    try:
        if not (await relay_status(*place)).healthy:
            await relay_accept(*place, who="pointsman dev", reason="the small broker forgets when it stops")
    except RefusedError:
        return  # no engine has run in this folder yet
