"""Locks held by engines that are not heard of any more.

An engine that is stopped in its tracks (a paused machine, SIGSTOP) keeps its connection, and with it the locks of
its open transaction. Postgres ends it by ``idle_in_transaction_session_timeout``, but not while it waits for the
rest of a COPY. So whoever waits for such locks ends the session that holds them: what it had not committed was not
going to be, and its next statement finds the connection gone, which begins it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import asyncpg

from engine.errors import ServiceUnreachableError
from engine.store.connecting import (
    IDLE_IN_TRANSACTION_SECONDS,
    LOCK_TIMEOUT_SECONDS,
    TOGETHER_SECONDS_MAX,
    Connection,
    connect,
)
from engine.store.queries import load

log = logging.getLogger("pointsman.engine")

_SQL = load("store")
LOOK_SECONDS = 4.0
"""How often to look who keeps us waiting; nearly all statements are done before the first look."""
SILENT_SECONDS = 8.0
"""How long a session must have asked nothing; with ``LOOK_SECONDS`` shorter than the wait for a lock."""
ANSWER_SECONDS = 1.0
"""So long at most it is waited for the answer to a look once the locks are there."""
SPEAK_SECONDS = 2.0
"""How often one that holds locks while events are stepped says that it is there."""

STATEMENT_SECONDS_MAX = TOGETHER_SECONDS_MAX + IDLE_IN_TRANSACTION_SECONDS
"""No statement of an engine lasts longer: by then it has given it up, however long its loop was kept busy."""

assert LOOK_SECONDS + SILENT_SECONDS < LOCK_TIMEOUT_SECONDS

_AWAY = (
    ServiceUnreachableError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


@contextlib.asynccontextmanager
async def ending_silent_blockers(connection: Connection, dsn: str) -> AsyncIterator[None]:
    """While this lasts, sessions of engines that block ``connection`` and stay silent are ended."""
    loop = asyncio.get_running_loop()
    watch = _Watch(connection.get_server_pid(), dsn)
    timer = loop.call_later(LOOK_SECONDS, watch.begin)
    try:
        yield
    finally:
        timer.cancel()
        await watch.end()


class _Watch:
    """Looks now and then who blocks a session."""

    def __init__(self, pid: int, dsn: str) -> None:
        self._pid = pid
        self._dsn = dsn
        self._task: asyncio.Task[None] | None = None
        self._asks = False
        self._is_over = False

    def begin(self) -> None:
        """From now on."""
        self._task = asyncio.create_task(self._watch(), name="looking who holds locks")

    async def end(self) -> None:
        """Look no more. What is being asked may have ended a session, which is to be said."""
        if self._task is None:
            return
        self._is_over = True
        if self._asks:
            await asyncio.wait({self._task}, timeout=ANSWER_SECONDS)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        # On a connection of its own: the others are in use.
        try:
            connection = await connect(self._dsn, name="pointsman engine, looking")
            try:
                come: dict[int, str] = {}
                told: set[int] = set()
                while not self._is_over:
                    come = await self._look(connection, come, told)
                    if not self._is_over:
                        await asyncio.sleep(LOOK_SECONDS)
            finally:
                connection.terminate()
        except _AWAY as error:
            log.info(
                "whose locks this engine waits for could not be asked (%s: %s)", type(error).__name__, error
            )

    async def _look(self, connection: Connection, come: Mapping[int, str], told: set[int]) -> dict[int, str]:
        """End those that are silent, and tell of the others; what has come of each by now."""
        looked = self._pid, SILENT_SECONDS, list(come), list(come.values()), STATEMENT_SECONDS_MAX
        self._asks = True
        try:
            found = await connection.fetch(_SQL["end_silent_blockers"], *looked)
        finally:
            self._asks = False
        for one in found:
            if one["ended"] is not None:
                log.warning(
                    "the session %s of an engine that is not heard of held locks that this engine waits for; %s",
                    one["pid"],
                    "it was ended" if one["ended"] else "it could not be ended",
                )
            elif one["pid"] in come and not one["waits"] and one["pid"] not in told:
                told.add(one["pid"])
                log.warning("this engine waits for locks %s", _held_by(one))
        return {one["pid"]: one["come"] for one in found}


def _held_by(session: Mapping[str, Any]) -> str:
    """Who holds them, and what now."""
    pid, seconds = session["pid"], session["seconds"]
    if not pid:
        return "that a prepared transaction holds: pg_prepared_xacts has it, and commit or rollback prepared ends it"
    known = [f"{session['name'] or ''!r} of the role {session['role']}"]
    if session["state"] is None:
        known.append("what it does is hidden from the role of this engine")
    else:
        address = session["address"]
        known.append("on Postgres's own machine" if address is None else f"from {address}")
        known.append(session["state"])
        if session["wait_event"] is not None:
            known.append(session["wait_event"])
        if seconds is not None:
            known.append(f"in a transaction for {seconds:.0f} s")
    return (
        f"that the session {pid} of Postgres holds ({', '.join(known)}); where that is no engine, let it end its "
        f"transaction, or end it: select pg_terminate_backend({pid})"
    )


class Speaking:
    """Says now and then, on a connection that holds locks and has nothing else to say, that its engine is there."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Speak from now on, until ``end``."""
        self._task = asyncio.create_task(self._speak(), name="speaking")

    async def end(self) -> None:
        """Have the connection for other things again."""
        if self._task is not None:
            async with self._turn:
                self._task.cancel()
            self._task = None

    async def _speak(self) -> None:
        # Who works on the connection next hears that it is lost.
        with contextlib.suppress(Exception):
            while True:
                await asyncio.sleep(SPEAK_SECONDS)
                async with self._turn:
                    await self._connection.execute("select")
