"""A proxy that speaks TLS before a Postgres that does not: it answers SSLRequest, and lets nobody in without.

It has a thread and an event loop of its own, so that commands may run to their end in the thread of a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.authority import Certificate
from tests.proxy import CHUNK_BYTES, HOST

SSL_REQUEST = struct.pack("!ll", 8, 80877103)
READY_SECONDS = 20.0


class TlsProxy:
    """What came, and where it listens."""

    def __init__(self, target_port: int, context: ssl.SSLContext) -> None:
        self.port = 0
        self.encrypted: list[str] = []
        """Of each connection that came in: the common name of its certificate, or nothing."""
        self.plain = 0
        """Connections that asked for something without TLS; none of them got it."""
        self._target_port = target_port
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._end = asyncio.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[TlsProxy]:
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        thread.start()
        assert self._ready.wait(READY_SECONDS)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._end.set)
            thread.join(READY_SECONDS)
            self._loop.close()

    async def _serve(self) -> None:
        # Who does not trust whom is what tests are about, and nothing to be told.
        self._loop.set_exception_handler(lambda *_: None)
        server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.readexactly(len(SSL_REQUEST)) != SSL_REQUEST:
                self.plain += 1
                return
            writer.write(b"S")
            await writer.start_tls(self._context)
            names = dict(one[0] for one in (writer.get_extra_info("peercert") or {}).get("subject", ()))
            self.encrypted.append(names.get("commonName", ""))
            answers, upstream = await asyncio.open_connection(HOST, self._target_port)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(reader, upstream))
                    group.create_task(_pump(answers, writer))
            finally:
                upstream.transport.abort()
        except* (OSError, EOFError):
            pass
        finally:
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    raise EOFError


@contextlib.contextmanager
def tls_proxy(target_port: int, shown: Certificate, clients: Path | None = None) -> Iterator[TlsProxy]:
    """Show this certificate; ``clients`` is the authority of those that clients must show, where they must."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.file, shown.key)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    with TlsProxy(target_port, context).running() as proxy:
        yield proxy
