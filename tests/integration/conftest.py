"""What these tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from engine.store.connecting import Connection, connect
from tests.services import Database
from tests.shop import BROKEN


@pytest.fixture
async def reader(database: Database) -> AsyncIterator[Connection]:
    """Someone who may only read."""
    connection = await connect(database.reader_dsn, for_engine=False)
    yield connection
    await connection.close()


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Connection]:
    """A connection as engines have them."""
    connection = await connect(database.engine_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[Connection]:
    """Who may do everything."""
    connection = await connect(database.owner_dsn, for_engine=False)
    yield connection
    await connection.close()


@pytest.fixture
def broken() -> Iterator[set[str]]:
    """The event types that the shop's code breaks on; a test may mend some."""
    yield BROKEN
    BROKEN.add("order.broken")
