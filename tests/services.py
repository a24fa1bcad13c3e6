"""The real servers that tests run against: where they come from, and what a test is handed of them.

Postgres: `POINTSMAN_TEST_POSTGRES` (a superuser's address), else the embedded one.
Kafka: `POINTSMAN_TEST_KAFKA` (`host:port`), else a container where Docker answers, else Java with Maven.
What cannot be had is skipped with a reason, or fails where `POINTSMAN_REQUIRE` names it (`kafka,postgres`) or
`CI` is `true`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from engine.services import apache_kafka, ports
from engine.services.apache_kafka import ApacheKafka
from engine.services.errors import ServiceError
from engine.services.postgres import EmbeddedPostgres
from tests.cluster import KafkaCluster
from tests.scratch import scratch_folder

UNAVAILABLE = "not available here: "
CONTAINER_IMAGE = "apache/kafka:4.0.1"
CONTAINER_READY_SECONDS = 120
DOCKER_SECONDS = 2.0
TOPIC_READY_SECONDS = 60.0
DROP_SECONDS = 60.0


class Postgres(Protocol):
    """A server on which tests may make databases and roles."""

    def dsn(self, user: str = ..., database: str = ...) -> str:
        """An address without a password in it."""

    def add_login(self, role: str, *, member_of: str) -> None:
        """Let the role log in as a member of the group role."""


@dataclass(frozen=True, slots=True)
class Database:
    """One test's own database: the superuser who owns it, the engine's role, and one that may only read."""

    name: str
    owner_dsn: str
    engine_dsn: str
    reader_dsn: str


@dataclass(frozen=True, slots=True)
class Kafka:
    """A real Apache Kafka; `source` says where it came from."""

    bootstrap: str
    source: str


class TopicFactory(Protocol):
    """Makes topics of a test's own."""

    async def __call__(
        self, name: str = "topic", *, partitions: int = 1, configs: Mapping[str, str] | None = None
    ) -> str:
        """Make a topic whose name begins with `name`, wait until it can be used, and return its full name."""


def missing(service: str, reason: str) -> NoReturn:
    """Skip the test that asks for this service, or fail it where the service is required."""
    reason = f"{reason}\nTests take the address of a server of yours from POINTSMAN_TEST_{service.upper()}."
    required = re.split(r"[,\s]+", os.environ.get("POINTSMAN_REQUIRE", ""))
    if service in required or os.environ.get("CI") == "true":
        pytest.fail(f"{service} is required (by POINTSMAN_REQUIRE or CI) and {UNAVAILABLE}{reason}")
    pytest.skip(UNAVAILABLE + reason)


def run_apart(work: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine to its end in a thread of its own, whether or not this one has a running loop."""
    failures: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            failures.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


async def execute(dsn: str, *statements: str) -> None:
    """Run statements, each on its own, outside a transaction."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def drop_database(dsn: str, name: str) -> None:
    """Drop it with all who are connected; Postgres gives up where one of them ends only after a few seconds."""
    deadline = time.monotonic() + DROP_SECONDS
    while True:
        try:
            await execute(dsn, f"DROP DATABASE {name} WITH (FORCE)")
        except asyncpg.ObjectInUseError:
            if time.monotonic() > deadline:
                raise
        else:
            return


class ExternalPostgres:
    """A server that someone else runs, by a superuser's address; passwords go to a passfile of our own."""

    ROLES_LOCK = 7_102_026

    def __init__(self, address: str, folder: Path) -> None:
        self._parts = urlsplit(address)
        self._passfile = folder / "passfile"
        self._superuser = unquote(self._parts.username or "postgres")
        password = unquote(self._parts.password or os.environ.get("PGPASSWORD", ""))
        # The same in every session, since sessions at the same time share the server's roles.
        self._password = hashlib.sha256(f"pointsman tests {password}".encode()).hexdigest()
        self._passfile.touch(mode=0o600)
        self._remember(self._superuser, password)

    def dsn(self, user: str = "", database: str = "postgres") -> str:
        host = self._parts.netloc.rpartition("@")[2]
        query = "&".join(filter(None, [self._parts.query, f"passfile={quote(str(self._passfile))}"]))
        name = quote(user or self._superuser, safe="")
        return urlunsplit(("postgresql", f"{name}@{host}", f"/{quote(database, safe='')}", query, ""))

    def add_login(self, role: str, *, member_of: str) -> None:
        create = f"DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        alter = f"ALTER ROLE {role} LOGIN PASSWORD '{self._password}'"
        # One session after the other: two that alter a role at the same moment are refused.
        alone = f"SELECT pg_advisory_lock({self.ROLES_LOCK})"
        run_apart(execute(self.dsn(), alone, create, alter, f"GRANT {member_of} TO {role}"))
        self._remember(role, self._password)

    def _remember(self, role: str, password: str) -> None:
        escaped = [part.replace("\\", "\\\\").replace(":", "\\:") for part in (role, password)]
        with self._passfile.open("a") as file:
            file.write(f"*:*:*:{escaped[0]}:{escaped[1]}\n")


@contextlib.contextmanager
def open_postgres() -> Iterator[Postgres]:
    """The Postgres of a session."""
    with scratch_folder("postgres") as folder:
        if address := os.environ.get("POINTSMAN_TEST_POSTGRES"):
            yield ExternalPostgres(address, folder)
            return
        with embedded_postgres(folder) as server:
            yield server


@contextlib.contextmanager
def embedded_postgres(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[EmbeddedPostgres]:
    """A Postgres of our own, for tests that stop it."""
    settings = {"shared_buffers": "64MB", "max_wal_size": "512MB", **(settings or {})}
    try:
        server = EmbeddedPostgres.start(folder / "postgres", settings=settings)
    except ServiceError as error:
        missing("postgres", str(error))
    with server:
        yield server


STEADY = {"broker.session.timeout.ms": "60000"}
"""Of brokers that are not started again: else one that stands still for two seconds leaves its own cluster, which then
has no brokers and no controller, and comes back to it."""


@contextlib.contextmanager
def open_kafka() -> Iterator[Kafka]:
    """The Kafka of a session."""
    if address := os.environ.get("POINTSMAN_TEST_KAFKA"):
        yield Kafka(address, "POINTSMAN_TEST_KAFKA")
    elif docker_answers():
        with _container() as kafka:
            yield kafka
    else:
        with scratch_folder("kafka") as folder, java_kafka(folder, settings=STEADY) as server:
            yield Kafka(server.bootstrap, "Java and Maven")


@contextlib.contextmanager
def java_kafka(
    folder: Path,
    security: apache_kafka.SecurityProtocol = "plaintext",
    settings: Mapping[str, str] | None = None,
    port: int = 0,
) -> Iterator[ApacheKafka]:
    """A Kafka of our own, for tests that kill or pause it, or that need its certificates."""
    try:
        server = ApacheKafka.start(folder / "kafka", security=security, settings=settings, port=port)
    except ServiceError as error:
        missing("kafka", str(error))
    with server:
        yield server


@contextlib.contextmanager
def java_cluster(folder: Path) -> Iterator[KafkaCluster]:
    """Three brokers of our own, for tests that kill some of them."""
    try:
        cluster = KafkaCluster.start(folder)
    except ServiceError as error:
        missing("kafka", str(error))
    with cluster:
        yield cluster


def docker_answers() -> bool:
    """Whether a Docker engine is there to run containers."""
    where = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    over_unix = where.scheme == "unix"
    with socket.socket(socket.AF_UNIX if over_unix else socket.AF_INET) as connection:
        connection.settimeout(DOCKER_SECONDS)
        try:
            connection.connect(where.path if over_unix else (where.hostname, where.port or 2375))
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False


def container_environment(port: int) -> dict[str, str]:
    """What the image `apache/kafka` is told, in its own spelling, so that it behaves as our broker does."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": "1@localhost:9093",
        "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://{ports.HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        **apache_kafka.SETTINGS,
        **STEADY,
    }
    return {"KAFKA_" + name.upper().replace(".", "_"): value for name, value in settings.items()}


@contextlib.contextmanager
def _container() -> Iterator[Kafka]:
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - only where there is Docker
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy  # noqa: PLC0415 - as above

    port = ports.choose(0, "Apache Kafka", "POINTSMAN_TEST_KAFKA")
    ready = LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(CONTAINER_READY_SECONDS)
    container = DockerContainer(CONTAINER_IMAGE).with_bind_ports(9092, port).waiting_for(ready)
    for name, value in container_environment(port).items():
        container = container.with_env(name, value)
    try:
        container.start()
    except Exception as error:  # noqa: BLE001 - pulling and starting fail in many ways, all with a message
        missing("kafka", f"Docker answers, but {CONTAINER_IMAGE} does not start on it: {error}")
    try:
        yield Kafka(f"{ports.HOST}:{port}", f"container {CONTAINER_IMAGE}")
    finally:
        container.stop()


@contextlib.asynccontextmanager
async def _admin(settings: Mapping[str, Any]) -> AsyncIterator[Any]:
    admin: Any = AIOKafkaAdminClient(**settings)
    await admin.start()
    try:
        async with asyncio.timeout(TOPIC_READY_SECONDS):
            # One that stood still is in its cluster again in a moment.
            while admin._client.cluster.controller is None:
                await admin._client.force_metadata_update()
                await asyncio.sleep(0.05)
        yield admin
    finally:
        await admin.close()


class Topics:
    """Topics of one test; `delete_all` removes them. `settings` are aiokafka's for a client."""

    def __init__(self, bootstrap: str, *, replicas: int = 1, **settings: Any) -> None:
        self._replicas = replicas
        self._settings = {"bootstrap_servers": bootstrap, **settings}
        self._made: list[str] = []

    async def __call__(
        self, name: str = "topic", *, partitions: int = 1, configs: Mapping[str, str] | None = None
    ) -> str:
        full = f"{name}-{uuid.uuid4().hex[:10]}"
        await self._make(full, partitions, configs)
        return full

    async def delete(self, topic: str) -> None:
        """Delete a topic of one partition, and wait until it is not there any more."""
        async with _admin(self._settings) as admin:
            await admin.delete_topics([topic])
            while (await admin.describe_topics([topic]))[0]["error_code"] == 0:  # noqa: ASYNC110 - Kafka tells nobody
                await asyncio.sleep(0.02)
        self._made.remove(topic)

    async def make_again(self, topic: str) -> None:
        """Make another topic of the name of one that was deleted."""
        await self._make(topic, 1, None)

    async def _make(self, full: str, partitions: int, configs: Mapping[str, str] | None) -> None:
        new_topic: Any = NewTopic  # aiokafka's client is not typed
        async with _admin(self._settings) as admin:
            answer = await admin.create_topics(
                [new_topic(full, partitions, self._replicas, topic_configs=dict(configs or {}))]
            )
            # The client reports a refusal in its answer and does not raise.
            for _, code, *message in answer.topic_errors:
                if code:
                    raise for_code(code)(f"{full}: {message}")
            self._made.append(full)
            deadline = time.monotonic() + TOPIC_READY_SECONDS
            while not _has_leaders(await admin.describe_topics([full]), partitions):
                assert time.monotonic() < deadline, f"{full} has no leaders after {TOPIC_READY_SECONDS} s"
                await asyncio.sleep(0.02)

    async def delete_all(self) -> None:
        if self._made:
            async with _admin(self._settings) as admin:
                await admin.delete_topics(self._made)
            self._made.clear()


def _has_leaders(described: list[dict[str, Any]], partitions: int) -> bool:
    found = [partition for topic in described for partition in topic["partitions"]]
    return len(found) == partitions and all(partition["leader"] >= 0 for partition in found)
