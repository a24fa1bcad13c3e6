"""What goes on beside an engine's session, whatever it is answered: it goes on, or the engine hears of its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import asyncpg
import pytest

from connectors.kafka.membership import KafkaMembership
from connectors.kafka.settings import KafkaSettings
from connectors.source import Partition
from engine import lookups
from engine.lookups import Look

SECONDS = 30.0
"""Whatever has not happened by then never will."""
BROKEN_OFF = (
    asyncpg.InternalClientError("got result for unknown protocol state 3"),
    RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed"),
    asyncpg.PostgresConnectionError("connection was closed in the middle of operation"),
)


@pytest.mark.parametrize(
    "error", [*BROKEN_OFF, KeyError("nobody has thought of it")], ids=lambda one: type(one).__name__
)
async def test_what_metrics_need_is_looked_up_again_however_it_broke_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    monkeypatch.setattr(lookups, "LOOKUP_SECONDS", 0)
    broken, again = [error], asyncio.Event()

    @asynccontextmanager
    async def connected() -> AsyncIterator[Look]:
        async def look() -> None:
            if broken:
                raise broken.pop()
            again.set()

        yield look

    looks = asyncio.create_task(lookups._keep_looking(connected))
    waits = asyncio.create_task(again.wait())
    await asyncio.wait({looks, waits}, timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED)
    assert again.is_set()
    looks.cancel()
    await asyncio.wait({looks})
    told = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert len(told) == (0 if error in BROKEN_OFF else 1)


@pytest.mark.parametrize(("took", "factor", "pause"), [(0.1, 20, 5), (2, 20, 40), (2, 0, 5)])
async def test_what_takes_long_to_look_up_is_looked_up_the_less_often(
    monkeypatch: pytest.MonkeyPatch, took: float, factor: float, pause: float
) -> None:
    now, pauses = 0.0, list[float]()

    @asynccontextmanager
    async def connected() -> AsyncIterator[Look]:
        async def look() -> None:
            nonlocal now
            now += took

        yield look

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr(lookups, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await lookups._keep_looking(connected, factor)
    assert pauses == [pause]


class Group(KafkaMembership):
    """A member of a group that is none, whose consumer fails as nobody has thought of."""

    async def _look_for_topics(self) -> None: ...

    async def _join(self, turns: object) -> None:
        del turns
        self._consumer = _Consumer()


class _Consumer:
    is_closed = False

    async def getmany(self, timeout_ms: int) -> None:
        raise AssertionError(f"within {timeout_ms}")

    async def stop(self) -> None:
        self.is_closed = True


async def _nothing(_: frozenset[Partition]) -> None: ...


async def test_who_watches_a_membership_hears_what_has_ended_it() -> None:
    group = Group(KafkaSettings("kafka:9092"), "group")
    await group.start({"orders"}, _nothing, _nothing)
    consumer = group._consumer
    with pytest.raises(AssertionError, match="within 1000"):
        async with asyncio.timeout(SECONDS):
            await group.watch()
    await group.stop()
    assert consumer.is_closed
