"""The real Postgres and the real Apache Kafka that everything is measured on.

Ours, in a temporary folder, unless BENCHMARK_POSTGRES (a superuser's address without a password, which comes from
a passfile or PGPASSWORD) or BENCHMARK_KAFKA (``host:port``) names another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from benchmarks.topics import Topics
from engine.errors import UsageError
from engine.services.apache_kafka import ApacheKafka
from engine.services.postgres import EmbeddedPostgres
from engine.store.migrations import migrate

POSTGRES_SETTINGS = {
    # When each transaction was committed: the one clock for engine and baseline alike.
    "track_commit_timestamp": "on",
    "track_wal_io_timing": "on",
}
GATHERING_MILLISECONDS = 1_000
"""So long a new group waits for members; Kafka's own default is 3,000. Without it, the first of two engines would have
begun before the second is there."""
ENGINE_ROLE = "pointsman"
TEMPLATE = "benchmark_template"
CLOCK_SAMPLES = 20


class Postgres(Protocol):
    """A server on which we may make databases and roles."""

    def dsn(self, user: str = ..., database: str = ...) -> str:
        """An address without a password in it."""

    def add_login(self, role: str, *, member_of: str) -> None:
        """Let the role log in as a member of the group role."""


class Servers:
    """Both servers, the databases made on one, the topics made on the other."""

    def __init__(self, postgres: Postgres, topics: Topics, folder: Path, *, own_postgres: bool) -> None:
        self.postgres = postgres
        self.topics = topics
        self.folder = folder
        self.kafka = topics.bootstrap
        self.clock_ahead = 0.0
        """Seconds by which Postgres's clock is ahead of ours."""
        self._own_postgres = own_postgres
        self._made = 0

    async def prepare(self) -> None:
        """Make the database that all of the engine's are copies of."""
        await self.on_server(f"drop database if exists {TEMPLATE}", f"create database {TEMPLATE}")
        await migrate(self.postgres.dsn(database=TEMPLATE))
        await asyncio.to_thread(self.postgres.add_login, ENGINE_ROLE, member_of="pointsman_engine")
        if not self._own_postgres:
            self.clock_ahead = await self._measure_clock()

    async def new_database(self, template: str = "template1") -> str:
        """A copy of a database that nobody is connected to."""
        self._made += 1
        name = f"benchmark_{os.getpid()}_{self._made}"
        await self.on_server(f"create database {name} template {template} strategy file_copy", "checkpoint")
        return name

    async def drop_database(self, name: str) -> None:
        await self.on_server(f"drop database {name} with (force)")

    async def close(self) -> None:
        """Leave nothing behind on servers that are not ours."""
        if not self._own_postgres:
            await self.on_server(f"drop database if exists {TEMPLATE}")
        await asyncio.to_thread(self.topics.delete_all)

    async def on_server(self, *statements: str) -> None:
        async with self.connected("postgres") as connection:
            for statement in statements:
                await connection.execute(statement)

    @contextlib.asynccontextmanager
    async def connected(self, database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
        """A connection as superuser."""
        connection = await asyncpg.connect(self.postgres.dsn(database=database))
        try:
            yield connection
        finally:
            await connection.close()

    async def describe(self) -> dict[str, str]:
        """What was measured on."""
        async with self.connected("postgres") as connection:
            found = await connection.fetchrow(
                "select current_setting('server_version') as version, current_setting('fsync') as fsync, "
                "current_setting('track_commit_timestamp') as tracked"
            )
        assert found is not None
        if found["tracked"] != "on":
            raise UsageError(
                "That Postgres does not note when it commits. Set track_commit_timestamp = on and restart it."
            )
        return {"Postgres": f"{found['version']}, fsync {found['fsync']}", "Kafka": self.topics.source}

    async def _measure_clock(self) -> float:
        async with self.connected("postgres") as connection:
            samples = []
            for _ in range(CLOCK_SAMPLES):
                before = time.time()
                there = float(await connection.fetchval("select extract(epoch from clock_timestamp())"))
                after = time.time()
                samples.append((after - before, there - (before + after) / 2))
        return min(samples)[1]


class ExternalPostgres:
    """A server that someone else runs, by a superuser's address."""

    def __init__(self, address: str, folder: Path) -> None:
        self._parts = urlsplit(address)
        self._passfile = folder / "passfile"
        self._password = secrets.token_urlsafe(24)

    def dsn(self, user: str = "", database: str = "postgres") -> str:
        host = self._parts.netloc.rpartition("@")[2]
        name, query = self._parts.username or "postgres", self._parts.query
        if user:
            name = quote(user, safe="")
            query = "&".join(filter(None, [query, f"passfile={quote(str(self._passfile))}"]))
        return urlunsplit(("postgresql", f"{name}@{host}", f"/{quote(database, safe='')}", query, ""))

    def add_login(self, role: str, *, member_of: str) -> None:
        create = f"do $$ begin create role {role}; exception when duplicate_object then null; end $$"
        alter = f"alter role {role} login password '{self._password}'"
        asyncio.run(self._execute(create, alter, f"grant {member_of} to {role}"))
        self._passfile.touch(mode=0o600)
        self._passfile.write_text(f"*:*:*:{role}:{self._password}\n")

    async def _execute(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.dsn())
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


@contextlib.contextmanager
def start_servers(gathering_milliseconds: int = GATHERING_MILLISECONDS) -> Iterator[Servers]:
    """Both servers, ended and removed afterwards as far as they are ours. Raises ServiceError."""
    folder = Path(tempfile.mkdtemp(prefix="pointsman-benchmarks-"))
    folder.chmod(0o755)
    try:
        with contextlib.ExitStack() as stack:
            if address := os.environ.get("BENCHMARK_KAFKA"):
                topics = Topics(address, address)
            else:
                settings = {"group.initial.rebalance.delay.ms": str(gathering_milliseconds)}
                kafka = stack.enter_context(
                    ApacheKafka.start(folder / "kafka", settings=settings, heap="1g", optimize=True)
                )
                # Nothing of it is kept, so nothing is to be ended in order, which takes seconds.
                stack.callback(kafka.kill)
                topics = Topics(kafka.bootstrap, f"Apache Kafka {kafka.version}, C2")
            postgres: Postgres
            if address := os.environ.get("BENCHMARK_POSTGRES"):
                postgres = ExternalPostgres(address, folder)
            else:
                postgres = stack.enter_context(
                    EmbeddedPostgres.start(folder / "postgres", settings=POSTGRES_SETTINGS)
                )
            yield Servers(postgres, topics, folder, own_postgres=isinstance(postgres, EmbeddedPostgres))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
