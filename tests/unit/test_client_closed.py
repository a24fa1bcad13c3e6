"""A client that is closed while Postgres stands still, on connections that are none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import connections as connections_module
from engine.awaiting import Watch
from engine.connections import Connections
from engine.errors import UsageError
from engine.store import connecting

SECONDS = 30.0
"""Whatever has not happened by then never will."""


class Standing:
    """A connection to a Postgres that answers nothing any more."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.is_given_up = False

    async def fetch(self, *_asked: Any) -> list[Any]:
        self.asked.set()
        return await asyncio.Future()

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's has it
        async with asyncio.timeout(timeout):
            await asyncio.Future()

    def is_closed(self) -> bool:
        return self.is_given_up

    def terminate(self) -> None:
        self.is_given_up = True


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> Standing:
    """The one that is made next."""
    made = Standing()

    async def connect(*_address: Any, **_how: Any) -> Standing:
        return made

    async def check_schema(_connection: Any) -> None: ...

    monkeypatch.setattr(connections_module, "connect", connect)
    monkeypatch.setattr(connections_module, "check_schema", check_schema)
    monkeypatch.setattr(connecting, "CLOSE_SECONDS", 0.0)
    return made


async def test_connections_that_nobody_asks_on_are_given_up_though_nobody_takes_leave(
    standing: Standing,
) -> None:
    connections = Connections("postgresql://nobody@localhost/none", "client", 1)
    async with connections.asking():
        pass
    async with asyncio.timeout(SECONDS):
        await connections.close()
    assert standing.is_given_up
    with pytest.raises(UsageError, match="closed"):
        async with connections.asking():
            pass


async def test_who_looks_for_those_who_wait_gives_up_as_well(standing: Standing) -> None:
    connections = Connections("postgresql://nobody@localhost/none", "client", 1)
    watch = Watch(connections.connect)
    waits = asyncio.create_task(watch.command(1, SECONDS))
    await standing.asked.wait()
    async with asyncio.timeout(SECONDS):
        await watch.close()
    assert standing.is_given_up
    with pytest.raises(asyncio.CancelledError):
        await waits
