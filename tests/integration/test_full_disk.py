"""A disk that is full under Postgres: the engine says so, loses nothing, and goes on by itself once there is room."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from engine.services.postgres import EmbeddedPostgres
from engine.services.postgres_binaries import unprivileged_user
from engine.store.migrations import migrate
from tests.cli import pointsman, started
from tests.integration.test_cli_run import pipeline, publish
from tests.outbox import within_deadline
from tests.scratch import scratch_folder
from tests.services import (
    UNAVAILABLE,
    Database,
    Kafka,
    TopicFactory,
    embedded_postgres,
    execute,
    run_apart,
)

MEGABYTE = 1 << 20
ORDERS = 12
ITEM_CHARACTERS = 300_000
NO_ROOM = "Postgres has no room left; nothing is lost"
SAID_MAX = 2
SIMULATED = (
    """
    create function public.is_full() returns trigger language plpgsql as $$
    begin raise 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$
    """,
    "create trigger is_full before insert on pointsman.events execute function public.is_full()",
)


class SmallDisk:
    """A file system of its own size, that can be filled up and freed again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, leaving: int) -> None:
        free = shutil.disk_usage(self.folder).free
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - leaving)

    def free(self) -> None:
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """Mount one; only root can."""
    folder = Path(tempfile.mkdtemp(prefix="pointsman-test-disk-"))
    try:
        folder.chmod(0o755)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder)]
        try:
            done = subprocess.run(mount, capture_output=True, text=True, check=False)
            refused = done.stderr.strip() if done.returncode else None
        except OSError as error:
            refused = str(error)
        if refused is not None:
            pytest.skip(f"{UNAVAILABLE}a disk that can be filled up needs the right to mount one: {refused}")
        try:
            yield SmallDisk(folder)
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    finally:
        folder.rmdir()


async def database_on(server: EmbeddedPostgres, tablespace: str = "pg_default") -> Database:
    """A database with the schema, on a server of the test's own."""
    name = f"full_{secrets.token_hex(6)}"
    await execute(server.dsn(), f"create database {name} tablespace {tablespace}")
    await migrate(server.dsn(database=name))
    server.add_login("pointsman", member_of="pointsman_engine")
    server.add_login("reader", member_of="pointsman_reader")
    return Database(name, *(server.dsn(user, name) for user in ("postgres", "pointsman", "reader")))


def orders() -> str:
    """Orders of random text, which does not compress."""
    placed = [
        {
            "type": "order.placed",
            "order_id": f"o-{number}",
            "customer": "Ada",
            "amount": 5,
            "items": [secrets.token_hex(ITEM_CHARACTERS // 2)],
        }
        for number in range(ORDERS)
    ]
    return "".join(f"{json.dumps(one)}\n" for one in placed)


@dataclass(frozen=True, slots=True)
class Trouble:
    """How a disk becomes full, what the engine says then, and how there is room again."""

    begin: Callable[[], None]
    says: str
    end: Callable[[], None]


async def goes_on_when_there_is_room(
    database: Database, kafka: Kafka, topic: TopicFactory, folder: Path, trouble: Trouble
) -> None:
    """Run an engine into the trouble and out of it; each order has begun once, and nothing is wrong."""
    name = await topic("orders")
    on = {"POSTGRES": database.engine_dsn, "KAFKA": kafka.bootstrap, "NAMESPACE": database.name}
    reader = {"POSTGRES": database.reader_dsn, "NAMESPACE": database.name}
    with started("run", pipeline(folder, name), on={**on, "LOG_FORMAT": "text"}) as engine:
        engine.wait_for("partitions: ")
        trouble.begin()
        publish(kafka, name, orders())
        engine.wait_for(trouble.says)
        trouble.end()

        def all_done() -> bool:
            assert engine.process.poll() is None, "it goes on by itself"
            listed = pointsman("runs", "--json", "--limit", 0, on=reader)
            return listed.code == 0 and len(listed.json) == ORDERS

        await within_deadline(all_done)
        engine.process.send_signal(signal.SIGTERM)
        done = engine.end()
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert done.err.count(trouble.says) <= SAID_MAX, "it is said once a minute"
    assert {one["sequence"] for one in pointsman("runs", "--json", "--limit", 0, on=reader).json} == {1}
    assert pointsman("dead-letters", "list", "--json", on=reader).json == []
    verified = pointsman("verify", on=reader)
    assert verified.code == 0, verified.out


async def test_postgres_says_that_its_disk_is_full(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    def begin() -> None:
        run_apart(execute(database.owner_dsn, *SIMULATED))

    def end() -> None:
        run_apart(execute(database.owner_dsn, "drop trigger is_full on pointsman.events"))

    await goes_on_when_there_is_room(database, kafka, topic, tmp_path, Trouble(begin, NO_ROOM, end))


async def test_the_disk_of_the_tables_is_full(kafka: Kafka, topic: TopicFactory, tmp_path: Path) -> None:
    with (
        small_disk(48) as disk,
        scratch_folder("postgres") as folder,
        embedded_postgres(folder) as server,
    ):
        place = disk.folder / "tables"
        place.mkdir()
        if (user := unprivileged_user()) is not None:
            os.chown(place, user.uid, user.gid)
        await execute(server.dsn(), f"create tablespace small location '{place}'")
        database = await database_on(server, "small")
        await goes_on_when_there_is_room(
            database, kafka, topic, tmp_path, Trouble(partial(disk.fill, MEGABYTE), NO_ROOM, disk.free)
        )


async def test_the_disk_of_the_journal_is_full_and_postgres_crashes(
    kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    settings = {"max_wal_size": "32MB", "min_wal_size": "32MB"}
    with (
        small_disk(256) as disk,
        embedded_postgres(disk.folder, settings) as server,
    ):
        database = await database_on(server)

        def begin() -> None:
            disk.fill(MEGABYTE)
            with pytest.raises((asyncpg.PostgresError, OSError)):
                run_apart(fill_journal(server.dsn()))

        def end() -> None:
            disk.free()
            # Its keeper starts it anew, where it could not do so by itself.
            server.stop("immediate")
            server.start_again()

        await goes_on_when_there_is_room(
            database, kafka, topic, tmp_path, Trouble(begin, "Postgres is away", end)
        )


async def fill_journal(dsn: str) -> None:
    """Write to the journal alone, until there is no room for it."""
    connection = await asyncpg.connect(dsn)
    try:
        while True:
            await connection.execute("select pg_logical_emit_message(true, 'ballast', repeat('x', 1000000))")
    finally:
        connection.terminate()
