"""Sessions that keep others waiting, on a real Postgres: those of silent engines are ended, and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from engine.store import silence
from engine.store.connecting import CopyingConnection, connect
from engine.store.queries import load
from tests.chaos.slots import until
from tests.services import Database, execute

LOOK = load("store")["end_silent_blockers"]
PIECE = b"n\t\\\\x00\n" * 10_000
"""Rows of the inbox, as text."""


def bytes_of(come: str) -> int:
    """How much has come of a COPY."""
    return int(come.split()[1])


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

            async def look(*come: str) -> tuple[int, str, bool | None]:
                """What a look finds, for which any time is long enough, after one that had found that so much came."""
                found: list[Any] = []

                async def is_blocked() -> bool:
                    found[:] = await looker.fetch(LOOK, waits, 0.0, [pid] * len(come), [*come], 60.0)
                    return [one["wait_event"] for one in found] == ["ClientRead"] or any(
                        one["ended"] for one in found
                    )

                await until(is_blocked, 60, "a session that waits")
                [one] = found
                return one["pid"], one["come"], one["ended"]

            await copying.come_on(looker)
            number, first, ended = await look()
            assert (number, ended) == (pid, None), "nobody knows whether more comes"
            await copying.come_on(looker)
            _, second, ended = await look(first)
            assert (bytes_of(second) - bytes_of(first), ended) == (len(PIECE), None)
            *_, ended = await look(f"1 {bytes_of(second)}")
            assert ended is None, "as much has come of another COPY"
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
        assert re.fullmatch(
            rf"this engine waits for locks that the session {pid} of Postgres holds \({name!r} of the role \w+, "
            r"from [0-9a-f.:]+, idle in transaction, ClientRead, in a transaction for \d+ s\); "
            r"where that is no engine, let it end its transaction, "
            rf"or end it: select pg_terminate_backend\({pid}\)",
            said,
        )
    finally:
        waiting.terminate()
        await person.close()


@pytest.mark.parametrize("may_see", [False, True])
async def test_what_may_not_be_ended_is_told_of_and_keeps_no_other_from_being_ended(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    may_see: bool,
) -> None:
    for limit in ("LOOK_SECONDS", "SILENT_SECONDS", "STATEMENT_SECONDS_MAX"):
        monkeypatch.setattr(silence, limit, 0.05)
    name = "pointsman engine, writing"
    owner = await asyncpg.connect(database.owner_dsn, server_settings={"application_name": name})
    silent = await asyncpg.connect(database.engine_dsn, server_settings={"application_name": name})
    waiting = await connect(database.engine_dsn, name=name)
    role = await waiting.fetchval("select current_user")
    if may_see:
        await owner.execute(f"grant pg_read_all_stats to {role}")
    try:
        for one in (owner, silent):
            await one.execute("begin; select pg_advisory_xact_lock_shared(1)")
        async with silence.ending_silent_blockers(waiting, database.engine_dsn):
            waits = asyncio.create_task(waiting.execute("select pg_advisory_xact_lock(1)"))

            async def both_are_told() -> bool:
                return len({*caplog.messages}) == 2

            await until(both_are_told, 60, "word of both sessions")
            await owner.execute("commit")
            await waits
        # That it was ended may be said again until it is gone.
        ended, told = sorted({*caplog.messages})
        assert ended.startswith(
            f"the session {silent.get_server_pid()} of an engine that is not heard of held"
        )
        assert ended.endswith("it was ended")
        assert f"the session {owner.get_server_pid()} of Postgres holds ({name!r} of the role" in told
        assert ("what it does is hidden from the role of this engine" in told) is not may_see
        assert ("idle in transaction, ClientRead" in told) is may_see
    finally:
        for session in (owner, silent, waiting):
            session.terminate()
        if may_see:
            await execute(database.owner_dsn, f"revoke pg_read_all_stats from {role}")


async def test_the_session_of_a_silent_engine_of_another_role_is_ended_by_who_may(database: Database) -> None:
    name = "pointsman engine, writing"
    silent = await asyncpg.connect(database.reader_dsn, server_settings={"application_name": name})
    looker = await asyncpg.connect(database.engine_dsn)
    pid = silent.get_server_pid()
    rights = "pg_read_all_stats, pg_signal_backend"
    role = await looker.fetchval("select current_user")
    try:
        await silent.execute("begin; select pg_advisory_xact_lock(1)")
        async with waiting_for_the_lock(database) as waits:

            async def look() -> list[tuple[int, bool | None]]:
                found = await looker.fetch(LOOK, waits, 0.0, [], [], 60.0)
                return [(one["pid"], one["ended"]) for one in found]

            async def is_found() -> bool:
                return await look() == [(pid, None)]

            async def is_ended() -> bool:
                return await look() == [(pid, True)]

            await until(is_found, 60, "a session that waits")
            await execute(database.owner_dsn, f"grant {rights} to {role}")
            await until(is_ended, 60, "the session of another role")
    finally:
        await execute(database.owner_dsn, f"revoke {rights} from {role}")
        silent.terminate()
        looker.terminate()


def test_locks_of_a_prepared_transaction_are_told_of() -> None:
    said = silence._held_by({"pid": 0, "seconds": None, "name": None, "role": None, "state": None})
    assert said.startswith("that a prepared transaction holds: pg_prepared_xacts has it")


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
                found = await looker.fetch(LOOK, waits, 0.0, [], [], seconds)
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


async def test_an_engine_that_has_a_lock_for_as_long_as_it_lasts_and_nothing_to_ask_is_not_ended(
    database: Database, looker: asyncpg.Connection[Any]
) -> None:
    idle = await connect(database.engine_dsn, name="pointsman engine, writing")
    try:
        await idle.execute("select pg_advisory_lock(1)")
        async with waiting_for_the_lock(database) as waits:

            async def is_found() -> bool:
                found = await looker.fetch(LOOK, waits, 0.0, [], [], 0.0)
                return [(one["pid"], one["ended"]) for one in found] == [(idle.get_server_pid(), None)]

            await until(is_found, 60, "a session that waits")
    finally:
        idle.terminate()


@pytest.mark.parametrize("answers", [True, False], ids=["an answer that comes late", "one that never comes"])
async def test_that_a_session_was_ended_is_said_also_where_the_lock_is_there_before_the_answer(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answers: bool
) -> None:
    monkeypatch.setattr(silence, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(silence, "SILENT_SECONDS", 0.05)
    has_lock = asyncio.Event()

    class Late(CopyingConnection):
        """Hears only then whom it has ended."""

        async def fetch(self, *asked: Any, **how: Any) -> Any:
            found = await super().fetch(*asked, **how)
            if any(one["ended"] for one in found):
                await has_lock.wait()
            return found

    async def connect_late(dsn: str, *, name: str) -> CopyingConnection:
        made = await connect(dsn, name=name)
        made.__class__ = Late
        return made

    monkeypatch.setattr(silence, "connect", connect_late)
    silent = await connect(database.engine_dsn, name="pointsman engine, writing")
    waiting = await connect(database.engine_dsn, name="pointsman engine, writing")
    try:
        await silent.execute("begin; select pg_advisory_xact_lock(1)")
        async with asyncio.timeout(60), silence.ending_silent_blockers(waiting, database.engine_dsn):
            await waiting.execute("select pg_advisory_xact_lock(1)")
            if answers:
                asyncio.get_running_loop().call_soon(has_lock.set)
    finally:
        silent.terminate()
        waiting.terminate()
    said = [one for one in caplog.messages if "is not heard of" in one]
    assert [one.endswith("it was ended") for one in said] == [True] * answers, (
        "nor is it waited for without end"
    )


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
                return [(one["pid"], one["ended"]) for one in found] == [(pid, True)]

            await until(is_ended, 60, "the session of the relay")
    finally:
        relay.terminate()
