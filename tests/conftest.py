"""Fixtures of the real servers, and the last lines of a run: what could not be tested here, and why."""

from __future__ import annotations

import gc
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator

import hypothesis
import pytest

from engine.services.apache_kafka import ApacheKafka
from engine.services.postgres import EmbeddedPostgres
from tests import services
from tests.cluster import KafkaCluster
from tests.scratch import scratch_folder
from tests.services import Database, Kafka, Postgres, TopicFactory

# How long an example takes says nothing on a machine that others use, too.
hypothesis.settings.register_profile("pointsman", deadline=None)
hypothesis.settings.load_profile("pointsman")

LONGEST = {"test_benchmarks.py", "test_compiled.py", "test_sagas.py", "test_road.py"}
FOLDERS = ["chaos", "integration", "property", "scxml", "contract", "unit"]
NEEDS = {
    "postgres": {"postgres", "empty_database", "database", "restartable_postgres"},
    "kafka": {"kafka", "topic", "restartable_kafka", "sasl_ssl_kafka", "kafka_cluster"},
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the services that it needs, so that `-m "not kafka"` is right by itself.

    What takes longest comes first, so that nobody works alone at the end where several share the files.
    """
    items.sort(key=_turn)
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        for service, fixtures in NEEDS.items():
            if used & fixtures:
                item.add_marker(service)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was made by now stays to the end: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What earlier tests have left is collected before one that holds what is logged: asyncio speaks of it then."""
    if "caplog" in getattr(item, "fixturenames", ()):
        gc.collect()


def _turn(item: pytest.Item) -> int:
    folder = item.path.parent.name
    return 0 if item.path.name in LONGEST else FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    """Say last what could not run on this machine, once for each reason."""
    yield
    reasons: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ").removeprefix(services.UNAVAILABLE)
        # On one line: whoever repeats it, as `python -m tests` does, has all of it.
        reasons[" ".join(reason.split())] += 1
    if reasons:
        terminalreporter.section("not run here")
        for reason, count in reasons.items():
            terminalreporter.write_line(f"{count} test{'s' if count > 1 else ''} not run: {reason}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres for the whole session; make no role or setting on it that another test would notice."""
    with services.open_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A real Apache Kafka for the whole session."""
    with services.open_kafka() as server:
        yield server


@pytest.fixture
def restartable_postgres() -> Iterator[EmbeddedPostgres]:
    """A Postgres of the test's own, to be stopped and started again."""
    with scratch_folder("postgres") as folder, services.embedded_postgres(folder) as server:
        yield server


@pytest.fixture(scope="module")
def restartable_kafka() -> Iterator[ApacheKafka]:
    """A Kafka of the module's own, to be killed, paused and started again; leave it running."""
    with scratch_folder("kafka") as folder, services.java_kafka(folder) as server:
        yield server


@pytest.fixture(scope="module")
def kafka_cluster() -> Iterator[KafkaCluster]:
    """Three brokers of the module's own, any of which may be killed; leave them running, and in sync."""
    with scratch_folder("cluster") as folder, services.java_cluster(folder) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def sasl_ssl_kafka() -> Iterator[ApacheKafka]:
    """A Kafka of the module's own that asks for TLS and a password."""
    with (
        scratch_folder("kafka") as folder,
        services.java_kafka(folder, "sasl_ssl", services.STEADY) as server,
    ):
        yield server


@pytest.fixture
async def topic(kafka: Kafka) -> AsyncIterator[TopicFactory]:
    """Makes topics on `kafka`; they are deleted after the test."""
    topics = services.Topics(kafka.bootstrap)
    yield topics
    await topics.delete_all()


@pytest.fixture
def empty_database(postgres: Postgres) -> Iterator[str]:
    """The superuser's address of a fresh database without anything in it."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    services.run_apart(services.execute(postgres.dsn(), f"CREATE DATABASE {name}"))
    yield postgres.dsn(database=name)
    services.run_apart(services.drop_database(postgres.dsn(), name))


@pytest.fixture(scope="session")
def template_database(postgres: Postgres) -> Iterator[str]:
    """The name of a database with all migrations applied, of which each test gets a copy."""
    from engine.store.migrations import migrate  # noqa: PLC0415 - only tests with a database need it

    name = f"template_{uuid.uuid4().hex[:12]}"
    services.run_apart(services.execute(postgres.dsn(), f"CREATE DATABASE {name}"))
    services.run_apart(migrate(postgres.dsn(database=name)))
    postgres.add_login("pointsman", member_of="pointsman_engine")
    postgres.add_login("reader", member_of="pointsman_reader")
    yield name
    services.run_apart(services.drop_database(postgres.dsn(), name))


@pytest.fixture
def database(postgres: Postgres, template_database: str) -> Iterator[Database]:
    """A fresh database of the test's own, with all migrations applied and without any rows."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    services.run_apart(
        services.execute(postgres.dsn(), f"CREATE DATABASE {name} TEMPLATE {template_database}")
    )
    yield Database(
        name=name,
        owner_dsn=postgres.dsn(database=name),
        engine_dsn=postgres.dsn("pointsman", name),
        reader_dsn=postgres.dsn("reader", name),
    )
    services.run_apart(services.drop_database(postgres.dsn(), name))
