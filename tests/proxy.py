"""A TCP proxy on loopback that breaks connections to Postgres at a chosen byte."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Callable
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536
REQUEST_BYTES_MAX = 1_048_576
READY_BYTES = 6


class When(enum.Enum):
    """At which moment of a matching request the connection is cut."""

    BEFORE = "the server never sees the request"
    IN_FLIGHT = (
        "the server has been sent the request, and may or may not have done it when the cut is noticed"
    )
    AFTER = "the server has answered, and the client never sees the answer"


def is_commit(request: bytes) -> bool:
    """Whether these bytes to Postgres carry a COMMIT as a simple query, as asyncpg's transactions end."""
    return b"COMMIT;\0" in request or b"COMMIT\0" in request


def is_ready(answer: bytes) -> bool:
    """Whether these bytes of Postgres end with its word that it is ready for the next query."""
    return answer[-READY_BYTES:-1] == b"Z\0\0\0\5"


class _Connection:
    """One client, one server connection, and what the client has sent since the server last answered."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.request = b""
        self.answer = b""
        """The end of what the server has sent."""
        self.withholds_answer = False

    def cut(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class FaultProxy:
    """Forwards a port of loopback to a Postgres until told otherwise. An async context manager.

    `cuts` counts the connections that were broken by `cut_when`.
    """

    def __init__(self, target_port: int, target_host: str = HOST) -> None:
        self.host = HOST
        self.port = 0
        self.cuts = 0
        self._target = (target_host, target_port)
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refuses = False
        self._matches: Callable[[bytes], bool] | None = None
        self._when = When.BEFORE
        self._times = 0
        self._happened = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Break every connection now, without a farewell to either side."""
        for connection in tuple(self._connections):
            connection.cut()

    def refuse(self, refuses: bool) -> None:
        """Whether new connections are broken at once; those that exist go on."""
        self._refuses = refuses

    def cut_when(self, matches: Callable[[bytes], bool], when: When = When.BEFORE, *, times: int = 1) -> None:
        """Break the connection of the next `times` requests that match.

        `matches` is given all that one client has sent since the server last answered, so that a message in pieces is
        seen whole.
        """
        self._matches, self._when, self._times = matches, when, times
        self._happened.clear()

    async def cut_happened(self, timeout_seconds: float = 60.0) -> None:
        """Wait until the last of the cuts that `cut_when` asked for has been made."""
        async with asyncio.timeout(timeout_seconds):
            await self._happened.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._refuses:
            writer.transport.abort()
            return
        try:
            answers, upstream = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, upstream)
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward_requests(reader, connection))
                group.create_task(self._forward_answers(answers, connection))
        finally:
            connection.cut()
            self._connections.discard(connection)

    async def _forward_requests(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(CHUNK_BYTES):
                connection.request = (connection.request + chunk)[-REQUEST_BYTES_MAX:]
                match self._verdict(connection):
                    case When.BEFORE:
                        self._count_cut()
                        break
                    case When.IN_FLIGHT:
                        await _pass_on(chunk, connection.server)
                        self._count_cut()
                        break
                    case When.AFTER:
                        connection.withholds_answer = True
                    case None:
                        pass
                await _pass_on(chunk, connection.server)
        # What is left in the buffers goes out where the client ended by itself; aborting would lose it.
        if not connection.client.transport.is_closing() and reader.at_eof():
            with contextlib.suppress(OSError, RuntimeError):
                connection.server.write_eof()
            return
        connection.cut()

    async def _forward_answers(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(CHUNK_BYTES):
                connection.answer = (connection.answer + chunk)[-READY_BYTES:]
                if is_ready(connection.answer):
                    if connection.withholds_answer:
                        self._count_cut()
                        break
                    connection.request = b""
                await _pass_on(chunk, connection.client)
            else:
                with contextlib.suppress(OSError, RuntimeError):
                    connection.client.write_eof()
                return
        connection.cut()

    def _verdict(self, connection: _Connection) -> When | None:
        if self._matches is None or connection.withholds_answer or not self._matches(connection.request):
            return None
        self._times -= 1
        if self._times == 0:
            self._matches = None
        return self._when

    def _count_cut(self) -> None:
        self.cuts += 1
        if self._matches is None:
            self._happened.set()


async def _pass_on(chunk: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(chunk)
    await writer.drain()
