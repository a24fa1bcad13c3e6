"""What is answered over HTTP, and what is said where nobody can listen."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from connectors.source import Partition
from engine.engine import Engine
from engine.errors import UsageError
from engine.health import Answers, HealthServer
from engine.observing import Silent
from engine.outside import TURN_SECONDS_MAX, Outside
from engine.parts import Parts
from engine.relay import Relay
from engine.session.claims import Claim
from tests.fakes.source import FakeMembership, FakeReader, FakeSource

LOOPBACK = "127.0.0.1"
ORDERS = Partition("orders", 0)


class StubRelay:
    halted: str | None = None

    def depth(self) -> int:
        return 3


def outside(source: FakeSource | None = None) -> tuple[Outside, Engine]:
    """An engine that serves one partition, as far as it knows."""
    source = source or FakeSource()

    async def never() -> Any:
        raise AssertionError

    parts = Parts(
        membership=FakeMembership(source, "group"),
        reader=FakeReader(source),
        open_store=never,
        prepare_store=lambda _: never(),
        topics=frozenset({"orders"}),
        cluster="c",
        first="earliest",
        observer=Silent(),
        beat=[0, 0, 0, 0],
        outbox_depth=lambda: 0,
        clock=lambda: datetime.now(UTC),
    )
    engine = Engine(parts)
    engine.assignment.partitions = frozenset({ORDERS})
    engine.ready = True
    seen = Outside(Silent())
    seen.show(engine, cast("Relay", StubRelay()))
    return seen, engine


@asynccontextmanager
async def served(seen: Outside) -> AsyncIterator[HealthServer]:
    server = await HealthServer.start(
        LOOPBACK, 0, Answers(seen.alive, seen.ready, lambda: (b"x 1\n", "text/plain; version=0.0.4"))
    )
    try:
        yield server
    finally:
        await server.close()


async def get(server: HealthServer, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(server.url + path) as answer:
        body = await answer.json() if answer.content_type == "application/json" else await answer.text()
        return answer.status, body


async def test_an_engine_that_serves_all_that_is_its_own_is_alive_and_ready() -> None:
    seen, _ = outside()
    async with served(seen) as server:
        assert await get(server, "/healthz") == (200, {"ok": True, "reasons": []})
        assert await get(server, "/readyz") == (200, {"ok": True, "reasons": []})
        assert await get(server, "/metrics") == (200, "x 1\n")
        assert (await get(server, "/other"))[0] == 404


async def test_an_engine_that_has_not_begun_is_alive_and_not_ready() -> None:
    async with served(Outside(Silent())) as server:
        assert (await get(server, "/healthz"))[0] == 200
        assert await get(server, "/readyz") == (503, {"ok": False, "reasons": ["The engine is starting."]})


async def test_an_engine_whose_loop_does_not_turn_is_not_alive() -> None:
    seen, engine = outside()
    engine.turned_at = time.monotonic() - TURN_SECONDS_MAX - 30
    async with served(seen) as server:
        status, body = await get(server, "/healthz")
    assert status == 503
    assert "has not turned for 150 s" in body["reasons"][0]


def test_a_service_that_is_away_a_partition_that_is_stopped_and_a_relay_that_waits_are_reasons() -> None:
    seen, engine = outside()
    relay = cast("StubRelay", seen.relay)
    relay.halted = "The relay has stopped."
    engine.stopped_partitions = {
        ORDERS: "position 9 of orders/0 is beyond",
        Partition("orders", 1): "not ours now",
    }
    assert seen.ready() == ["position 9 of orders/0 is beyond", "The relay has stopped."]
    engine.ready, engine.away = False, "Postgres is away"
    assert seen.ready() == ["Postgres is away", "The relay has stopped."]
    engine.stop()
    assert seen.ready()[0] == "The engine is stopping."


async def test_a_topic_that_cannot_be_read_is_a_reason() -> None:
    source = FakeSource()
    source.create_topic("orders")
    seen, engine = outside(source)
    reader = engine._parts.reader
    reader.assign({ORDERS: 0})
    assert seen.ready() == []
    source.delete_topic("orders")
    await reader.fetch(records_max=1, wait_seconds=0.0)
    [reason] = seen.ready()
    assert "orders" in reason


def test_lags_are_of_the_partitions_that_are_served_now() -> None:
    seen, engine = outside()
    assert seen.claims() == {}
    claims = {ORDERS: Claim(1, ORDERS, 1, 0)}
    engine.session = cast("Any", type("Session", (), {"claims": claims})())
    assert seen.claims() == claims
    engine.ready = False
    assert seen.claims() == {}


async def test_a_port_in_use_is_a_sentence() -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of {LOOPBACK}: another program uses it") as raised:
            await HealthServer.start(LOOPBACK, port, Answers(list, list, lambda: (b"", "")))
    assert raised.value.exit_code == 2


async def test_an_address_that_asyncio_says_without_a_number_is_not_there_is_the_same_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def start(_site: web.TCPSite) -> None:
        # As from Python 3.12 on.
        raise OSError("could not bind on any address out of [('192.0.2.1', 0)]")

    monkeypatch.setattr(web.TCPSite, "start", start)
    with pytest.raises(UsageError, match=r"192\.0\.2\.1: this machine has no such address"):
        await HealthServer.start("192.0.2.1", 0, Answers(list, list, lambda: (b"", "")))


async def test_an_address_that_this_machine_does_not_have_is_a_sentence() -> None:
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(UsageError, match=f"{host}: this machine has no such address"):
            await HealthServer.start(host, 0, Answers(list, list, lambda: (b"", "")))
