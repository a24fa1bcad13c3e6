"""``/healthz``, ``/readyz`` and ``/metrics`` over HTTP, for what looks after engines.

``/healthz``   200 while the engine's loop turns; else 503: restart it
``/readyz``    200 while all that is this engine's is served; else 503 and why, which mostly goes by itself
``/metrics``   what ``engine.metrics`` counts, as Prometheus reads it

The first two answer with one JSON object: ``{"ok": false, "reasons": ["Postgres is away; ..."]}``. Nothing here changes
anything, and nobody is asked for a password, so let only those reach the port who may know that much.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from engine.errors import UsageError

SHUTDOWN_SECONDS = 0.5
"""For answers that are being written when the engine ends."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Reasons = Callable[[], list[str]]
"""Why not, as sentences; empty where all is well."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Where the answers come from."""

    alive: Reasons
    ready: Reasons
    metrics: Callable[[], tuple[bytes, str]]
    """The body, and its content type."""


class HealthServer:
    """Serves until it is closed."""

    def __init__(self, runner: web.AppRunner, url: str) -> None:
        self._runner = runner
        self.url = url
        """Where it listens, such as ``http://127.0.0.1:8080``."""

    @classmethod
    async def start(cls, host: str, port: int, answers: Answers) -> HealthServer:
        """Listen; port 0 takes a free one.

        Raises:
            UsageError: nobody can listen there.
        """
        app = web.Application()
        app.router.add_get("/healthz", _answering(answers.alive))
        app.router.add_get("/readyz", _answering(answers.ready))
        app.router.add_get("/metrics", _metrics(answers.metrics))
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            raise UsageError(_cannot_listen(host, port, error)) from error
        name, number, *_ = runner.addresses[0]
        return cls(runner, f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}")

    async def close(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()


def _answering(ask: Reasons) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        reasons = ask()
        return web.json_response({"ok": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    return answer


def _metrics(ask: Callable[[], tuple[bytes, str]]) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        body, content_type = ask()
        return web.Response(body=body, headers={"Content-Type": content_type})

    return answer


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    where = f"port {port} of {host}"
    # From Python 3.12 on asyncio itself says that of each address that it was given, and without a number.
    if isinstance(error, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, None):
        return f"Cannot listen on {where}: this machine has no such address. Give another one with --host."
    if error.errno == errno.EADDRINUSE:
        return (
            f"Cannot listen on {where}: another program uses it, perhaps another engine. "
            "Give another one with --port; 0 takes a free one."
        )
    if error.errno == errno.EACCES:
        return f"Cannot listen on {where}: this user may not. Give a port above 1023 with --port."
    return f"Cannot listen on {where}: {error}. Give another one with --port or --host."
