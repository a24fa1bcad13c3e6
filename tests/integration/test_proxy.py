"""The proxy of the chaos tests cuts a commit where it says it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.proxy import FaultProxy, When, is_commit

LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError)


@pytest.fixture
async def direct(empty_database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(empty_database)
    await connection.execute("CREATE TABLE booked (n int)")
    yield connection
    await connection.close()


@pytest.fixture
async def proxy(empty_database: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(urlsplit(empty_database).port or 5432) as running:
        yield running


async def through(proxy: FaultProxy, dsn: str) -> asyncpg.Connection[Any]:
    return await asyncpg.connect(dsn, host=proxy.host, port=proxy.port, timeout=60)


async def book(connection: asyncpg.Connection[Any], n: int) -> None:
    async with connection.transaction():
        await connection.execute("INSERT INTO booked VALUES ($1)", n)


async def test_it_forwards_until_told_otherwise(
    proxy: FaultProxy, empty_database: str, direct: asyncpg.Connection[Any]
) -> None:
    connection = await through(proxy, empty_database)
    await book(connection, 1)
    large = "x" * 5_000_000
    assert await connection.fetchval("SELECT $1::text", large) == large
    await connection.close()
    assert await direct.fetchval("SELECT count(*) FROM booked") == 1
    assert proxy.cuts == 0


@pytest.mark.parametrize(("when", "booked"), [(When.BEFORE, 0), (When.AFTER, 1)])
async def test_a_commit_is_cut_on_the_chosen_side_of_the_server(
    proxy: FaultProxy, empty_database: str, direct: asyncpg.Connection[Any], when: When, booked: int
) -> None:
    connection = await through(proxy, empty_database)
    proxy.cut_when(is_commit, when)
    with pytest.raises(LOST):
        await book(connection, 1)
    await proxy.cut_happened()
    assert proxy.cuts == 1
    assert await direct.fetchval("SELECT count(*) FROM booked") == booked
    again = await through(proxy, empty_database)
    await book(again, 2)
    await again.close()
    assert await direct.fetchval("SELECT count(*) FROM booked") == booked + 1


async def test_a_commit_in_flight_is_lost_for_the_client_and_settled_on_the_server(
    proxy: FaultProxy, empty_database: str, direct: asyncpg.Connection[Any]
) -> None:
    connection = await through(proxy, empty_database)
    proxy.cut_when(is_commit, When.IN_FLIGHT)
    with pytest.raises(LOST):
        await book(connection, 1)
    async with direct.transaction():
        await direct.execute("LOCK TABLE booked IN ACCESS EXCLUSIVE MODE")
        assert await direct.fetchval("SELECT count(*) FROM booked") in (0, 1)


async def test_it_cuts_as_many_requests_as_it_was_asked_to(proxy: FaultProxy, empty_database: str) -> None:
    proxy.cut_when(lambda request: b"pg_sleep" in request, times=2)
    for _ in range(2):
        connection = await through(proxy, empty_database)
        with pytest.raises(LOST):
            await connection.execute("SELECT pg_sleep(0)")
    await proxy.cut_happened()
    connection = await through(proxy, empty_database)
    await connection.execute("SELECT pg_sleep(0)")
    await connection.close()


async def test_cut_breaks_what_is_open_and_refuse_what_would_be_opened(
    proxy: FaultProxy, empty_database: str
) -> None:
    connection = await through(proxy, empty_database)
    waiting = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
    proxy.refuse(True)
    with pytest.raises(LOST):
        await through(proxy, empty_database)
    assert not waiting.done()
    proxy.cut()
    with pytest.raises(LOST):
        await waiting
    proxy.refuse(False)
    fresh = await through(proxy, empty_database)
    assert await fresh.fetchval("SELECT 1") == 1
    await fresh.close()
