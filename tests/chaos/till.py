"""What is outside: a service that takes payments and keeps goods, and behaves as badly as services do.

``python -m tests.chaos.till DSN SEED`` prints its port. It fails, never answers, answers too late, answers twice, and
does what it was asked without an answer. Whatever it was asked and did is a row of its ledger, in its own Postgres,
before anybody hears of it. It does nothing twice for one key, and nothing for a key that was undone. It ends when
standard input does.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from collections import Counter
from typing import Any, NamedTuple

import asyncpg
from aiohttp import web

LATE_SECONDS = 2.5
"""Longer than a step's attempt may take."""
FAULTS_MAX = 8
"""After so many calls with one key it behaves."""
CREATE = """
create table calls (
    number bigint generated always as identity primary key,
    step text not null,
    sale text not null,
    key text not null,
    undoes text not null,
    attempt int not null,
    engine int not null,
    began double precision not null,
    what text not null,
    at double precision not null
)
"""
INSERT = """
insert into calls (step, sale, key, undoes, attempt, engine, began, what, at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""

DONE, AGAIN, FAILED, SILENT, REFUSED = "done", "again", "failed", "silent", "refused"
UNDONE, NOTHING, FENCED = "undone", "nothing to undo", "fenced"
ANSWERS = ["well", "failed", "silent", "late", "cut", "twice"]
WEIGHTS = [70, 8, 5, 7, 5, 5]


class Asked(NamedTuple):
    """A call."""

    step: str
    sale: str
    key: str
    undoes: str
    """The key of what is to be undone; empty where something is to be done."""
    attempt: int
    engine: int
    """Its process."""
    began: float
    """When the attempt did, by ``time.monotonic``, which is the same clock for all processes."""
    refuse: bool = False
    """Whether it is never to be done."""


class Till:
    """Takes the calls, one at a time."""

    def __init__(self, connection: asyncpg.Connection[Any], seed: str) -> None:
        self._connection = connection
        self._seed = seed
        self._turn = asyncio.Lock()
        self._calls: Counter[str] = Counter()
        self._done: set[str] = set()
        self._undone: set[str] = set()

    async def call(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(**await request.json())
        async with self._turn:
            answers = self._answers(asked.key)
            what = self._what(asked, answers)
            await self._connection.execute(INSERT, *asked[:7], what, time.monotonic())
            self._do(asked, what)
        return await self._answer(request, answers, what)

    def _answers(self, key: str) -> str:
        """How it behaves: by chance, but the same for the same seed and call."""
        self._calls[key] += 1
        number = self._calls[key]
        if number > FAULTS_MAX:
            return "well"
        return random.Random(f"{self._seed} {key} {number}").choices(ANSWERS, WEIGHTS)[0]

    def _what(self, asked: Asked, answers: str) -> str:
        if answers in (FAILED, SILENT):
            return answers
        if asked.undoes:
            return UNDONE if asked.undoes in self._done - self._undone else NOTHING
        if asked.key in self._undone:
            return FENCED
        if asked.refuse:
            return REFUSED
        return AGAIN if asked.key in self._done else DONE

    def _do(self, asked: Asked, what: str) -> None:
        if what == DONE:
            self._done.add(asked.key)
        elif what in (UNDONE, NOTHING):
            self._undone.add(asked.undoes)

    async def _answer(self, request: web.Request, answers: str, what: str) -> web.StreamResponse:
        if answers == "failed":
            return web.json_response({"error": "not now"}, status=503)
        if answers in ("silent", "late"):
            await asyncio.sleep(LATE_SECONDS)
        transport = request.transport
        if transport is None:  # whoever asked waits no more
            return web.Response()
        if answers in ("silent", "cut"):
            transport.abort()
        statuses = {REFUSED: 402, FENCED: 409}
        response = web.json_response({"what": what}, status=statuses.get(what, 200))
        if answers == "twice":
            await response.prepare(request)
            await response.write_eof()
            transport.write(b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"what": "done"}')
        return response


async def main(dsn: str, seed: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(CREATE)
    app = web.Application()
    app.router.add_post("/", Till(connection, seed).call)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    asyncio.run(main(*sys.argv[1:]))
