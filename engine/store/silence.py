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
from collections.abc import AsyncIterator

import asyncpg

from engine.errors import ServiceUnreachableError
from engine.store.connecting import LOCK_TIMEOUT_SECONDS, Connection, connect
from engine.store.queries import load

log = logging.getLogger("pointsman.engine")

_SQL = load("store")
LOOK_SECONDS = 4.0
"""How often to look who keeps us waiting; nearly all statements are done before the first look."""
SILENT_SECONDS = 8.0
"""How long a session must have asked nothing; with ``LOOK_SECONDS`` shorter than the wait for a lock."""
SPEAK_SECONDS = 2.0
"""How often one that holds locks while events are stepped says that it is there."""

assert LOOK_SECONDS + SILENT_SECONDS < LOCK_TIMEOUT_SECONDS


@contextlib.asynccontextmanager
async def ending_silent_blockers(connection: Connection, dsn: str) -> AsyncIterator[None]:
    """While this lasts, sessions of engines that block ``connection`` and stay silent are ended."""
    loop = asyncio.get_running_loop()
    watch: list[asyncio.Task[None]] = []
    pid = connection.get_server_pid()
    timer = loop.call_later(LOOK_SECONDS, lambda: watch.append(loop.create_task(_watch(pid, dsn))))
    try:
        yield
    finally:
        timer.cancel()
        for task in watch:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _watch(pid: int, dsn: str) -> None:
    # On a connection of its own: the others are in use.
    with contextlib.suppress(ServiceUnreachableError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        connection = await connect(dsn, name="pointsman engine, looking")
        try:
            come: dict[int, int | None] = {}
            while True:
                looked = pid, SILENT_SECONDS, list(come), list(come.values())
                found = await connection.fetch(_SQL["end_silent_blockers"], *looked)
                come = {blocker: size for blocker, size, _ in found}
                for blocker, ended in [(one, ended) for one, _, ended in found if ended is not None]:
                    log.warning(
                        "the session %s of an engine that is not heard of held locks that this engine waits for; %s",
                        blocker,
                        "it was ended" if ended else "it could not be ended",
                    )
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            connection.terminate()


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
