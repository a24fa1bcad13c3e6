"""Sessions that keep others waiting, on a real Postgres: those of silent engines are ended, and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from engine.store import silence
from engine.store.connecting import CopyingConnection, connect
from engine.store.queries import load
from tests.chaos.slots import until
from tests.services import Database

LOOK = load("store")["end_silent_blockers"]
PIECE = b"n\t\\\\x00\n" * 10_000
"""Rows of the inbox, as text."""


class Copying:
    """A session that holds a lock and copies, a piece at a time."""

    def __init__(self, connection: CopyingConnection) -> None:
        self.connection = connection
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def begin(self) -> None:
        await self.connection.execute("begin; create temporary table copied (name text, body bytea)")
        await self.connection.execute("select pg_advisory_xact_lock(1)")
        self._task = asyncio.create_task(
            self.connection.copy_to_table("copied", source=self._given(), schema_name="pg_temp")
        )

    async def _given(self) -> AsyncIterator[bytes]:
        while True:
            yield await self._pieces.get()

    async def come_on(self, by: asyncpg.Connection[Any]) -> None:
        """Copy one more piece, and wait until Postgres has it."""
        pid = self.connection.get_server_pid()
        asked = "select sum(bytes_processed) from pg_stat_progress_copy where pid = $1"
        before = await by.fetchval(asked, pid) or 0

        async def has_come() -> bool:
            return bool((await by.fetchval(asked, pid) or 0) >= before + len(PIECE))

        self._pieces.put_nowait(PIECE)
        await until(has_come, 60, "the next piece of a COPY")

    async def end(self) -> None:
        self.connection.terminate()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await self._task


@contextlib.asynccontextmanager
async def waiting_for_the_lock(database: Database) -> AsyncIterator[int]:
    """A session that waits for it; its number."""
    connection = await connect(database.engine_dsn, name="pointsman engine, writing")
    waits = asyncio.create_task(connection.execute("select pg_advisory_xact_lock(1)"))
    try:
        yield connection.get_server_pid()
    finally:
        connection.terminate()
        with contextlib.suppress(Exception):
            await waits


@pytest.fixture
async def looker(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(database.engine_dsn)
    yield connection
    await connection.close()


async def test_an_engine_that_copies_for_long_is_ended_only_where_no_more_comes_of_it(
    database: Database, looker: asyncpg.Connection[Any]
) -> None:
    copying = Copying(await connect(database.engine_dsn, name="pointsman engine, writing"))
    pid = copying.connection.get_server_pid()
    await copying.begin()
    try:
        async with waiting_for_the_lock(database) as waits:

            async def look(*come: int) -> tuple[int, int, bool | None]:
                """What a look finds, for which any time is long enough, after one that had found so many bytes."""
                found: list[Any] = []

                async def is_blocked() -> bool:
                    found[:] = await looker.fetch(LOOK, waits, 0.0, [pid] * len(come), [*come], 60.0)
                    return bool(found)

                await until(is_blocked, 60, "a session that waits")
                [one] = found
                return tuple(one)[:3]

            await copying.come_on(looker)
            number, first, ended = await look()
            assert (number, ended) == (pid, None), "nobody knows whether more comes"
            await copying.come_on(looker)
            _, second, ended = await look(first)
            assert (second - first, ended) == (len(PIECE), None)
            assert await look(second) == (pid, second, True)
    finally:
        await copying.end()


@pytest.mark.parametrize("name", ["psql", "pg_dump", "pointsman", ""])
async def test_the_session_of_a_person_is_never_ended_but_told_of(
    database: Database,
    looker: asyncpg.Connection[Any],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for limit in ("LOOK_SECONDS", "SILENT_SECONDS", "STATEMENT_SECONDS_MAX"):
        monkeypatch.setattr(silence, limit, 0.05)
    person = await asyncpg.connect(database.engine_dsn, server_settings={"application_name": name})
    pid = person.get_server_pid()
    waiting = await connect(database.engine_dsn, name="pointsman engine, writing")
    try:
        await person.execute("begin; select pg_advisory_xact_lock(1)")
        async with silence.ending_silent_blockers(waiting, database.engine_dsn):
            waits = asyncio.create_task(waiting.execute("select pg_advisory_xact_lock(1)"))

            async def is_told() -> bool:
                return bool(caplog.messages)

            await until(is_told, 60, "word of who holds the lock")
            assert not waits.done()
            await person.execute("commit")
            await waits
        [said] = caplog.messages
        assert said.startswith(
            f"this engine waits for locks that the session {pid} of Postgres holds ({name!r} from"
        )
        assert "idle in transaction, ClientRead, in a transaction for 0 s" in said
        assert said.endswith(f"or end it: select pg_terminate_backend({pid})")
    finally:
        waiting.terminate()
        await person.close()


async def test_an_engine_whose_statement_lasts_longer_than_it_waits_for_one_is_ended(
    database: Database, looker: asyncpg.Connection[Any]
) -> None:
    engine = await asyncpg.connect(
        database.engine_dsn, server_settings={"application_name": "pointsman engine, writing"}
    )
    pid = engine.get_server_pid()
    await engine.execute("begin; select pg_advisory_xact_lock(1)")
    lasts = asyncio.create_task(engine.execute("select pg_sleep(600)"))
    try:
        async with waiting_for_the_lock(database) as waits:

            async def look(seconds: float) -> list[tuple[int, bool | None]]:
                found = await looker.fetch(LOOK, waits, 0.0, [pid], [None], seconds)
                return [(one["pid"], one["ended"]) for one in found if one["wait_event"] == "PgSleep"]

            async def is_found() -> bool:
                return await look(60.0) == [(pid, None)]

            await until(is_found, 60, "a session that waits")
            assert await look(0.0) == [(pid, True)]
        with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
            await lasts
    finally:
        engine.terminate()


async def test_a_silent_engine_is_ended_by_who_waits_for_one_that_waits_for_it(
    database: Database, looker: asyncpg.Connection[Any]
) -> None:
    silent = await connect(database.engine_dsn, name="pointsman engine, writing")
    between = await asyncpg.connect(database.engine_dsn, server_settings={"application_name": "psql"})
    first, second = silent.get_server_pid(), between.get_server_pid()
    try:
        await silent.execute("begin; select pg_advisory_xact_lock(2)")
        await between.execute("begin; select pg_advisory_xact_lock(1)")
        blocked = asyncio.create_task(between.execute("select pg_advisory_xact_lock(2)"))
        async with waiting_for_the_lock(database) as waits:

            async def is_ended() -> bool:
                found = await looker.fetch(LOOK, waits, 0.0, [], [], 60.0)
                return {(one["pid"], one["ended"], one["waits"]) for one in found} == {
                    (first, True, False),
                    (second, None, True),
                }

            await until(is_ended, 60, "the session at the end of the queue")
            await blocked
    finally:
        silent.terminate()
        await between.close()


async def test_the_relay_of_a_silent_engine_keeps_nobody_from_publishing_either(
    database: Database, looker: asyncpg.Connection[Any]
) -> None:
    relay = await connect(database.engine_dsn, name="pointsman relay")
    pid = relay.get_server_pid()
    try:
        # As where it deletes what was published, which locks the lane of the outbox.
        await relay.execute("begin; select pg_advisory_xact_lock(1)")
        async with waiting_for_the_lock(database) as waits:

            async def is_ended() -> bool:
                found = await looker.fetch(LOOK, waits, 0.0, [], [], 60.0)
                return [tuple(one)[:3] for one in found] == [(pid, None, True)]

            await until(is_ended, 60, "the session of the relay")
    finally:
        relay.terminate()
