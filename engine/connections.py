"""A few connections to Postgres that many tasks ask on, one at a time each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg

from engine.errors import RefusedError, ServiceUnreachableError, UsageError
from engine.store.connecting import Connection, connect, hang_up, translate
from engine.store.contract import StoreUnavailableError
from engine.store.migrations import check_schema


class Connections:
    """Those of a client."""

    def __init__(self, postgres: str, name: str, number: int) -> None:
        """So many at most, made as they are needed; ``name`` is what Postgres shows of them."""
        self._postgres = postgres
        self._name = name
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._room = asyncio.Semaphore(number)
        self._closed = False

    def check_open(self) -> None:
        """Raises UsageError: they were closed."""
        if self._closed:
            raise UsageError("This client is closed. Make another one.")

    async def close(self) -> None:
        """Give them up, and break off what is being asked."""
        self._closed = True
        while self._idle:
            await hang_up(self._idle.pop())
        for one in [*self._busy]:
            one.terminate()

    async def connect(self) -> Connection:
        """One more, for whoever keeps it. Raises PointsmanError: nobody answers there, or it is another version."""
        connection = await connect(self._postgres, name=self._name, for_engine=False)
        try:
            await check_schema(connection)
        except BaseException:
            await hang_up(connection)
            raise
        return connection

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[Connection]:
        """A connection that nobody else asks on meanwhile."""
        self.check_open()
        async with self._room:
            while self._idle and self._idle[-1].is_closed():
                self._idle.pop()
            connection = self._idle.pop() if self._idle else await self.connect()
            self._busy.add(connection)
            try:
                yield connection
            except asyncpg.InsufficientPrivilegeError as error:
                message = f"This role may only look ({error}). To ask for something, it needs GRANT pointsman_engine."
                raise RefusedError(message) from error
            except BaseException as error:
                if not isinstance(translate(error), StoreUnavailableError):
                    raise
                connection.terminate()
                message = (
                    f"Postgres broke away while it was asked ({type(error).__name__}). Whether it has taken what was "
                    "asked is not known: ask again, an event under the same id."
                )
                raise ServiceUnreachableError(message) from error
            finally:
                self._busy.discard(connection)
                if self._closed:
                    await hang_up(connection)
                elif not connection.is_closed():
                    self._idle.append(connection)
