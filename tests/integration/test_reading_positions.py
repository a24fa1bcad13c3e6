"""Positions listed, and set by a person."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from connectors.source import Partition
from engine.errors import UsageError
from engine.reading import NotFoundError, list_positions, set_position, set_positions
from engine.store.connecting import Connection, connect
from engine.store.contract import LostPositionsError
from engine.store.values import PositionMove
from tests.feeding import CLUSTER, event, feed
from tests.services import Database
from tests.shop import shop

PLACED = event("order.placed", {"order_id": "o1", "amount": 5})


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Connection]:
    connection = await connect(database.engine_dsn, for_engine=False)
    yield connection
    await connection.close()


async def test_positions_are_listed(database: Database, engine: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, event("order.noted", {"order_id": "o1"}, partition=1))
    found = await list_positions(engine, "default")
    assert [(one.topic, one.partition, one.position, one.epoch) for one in found] == [
        ("orders", 0, 1, 1),
        ("orders", 1, 1, 1),
    ]
    shown = found[0].as_json()
    assert (shown["group"], shown["cluster"], shown["namespace"]) == ("pointsman.default", CLUSTER, "default")
    assert await list_positions(engine, "default", topic="other") == []
    assert len(await list_positions(engine, "default", limit=1)) == 1
    assert len(await list_positions(engine, "default", group="pointsman.default", cluster=CLUSTER)) == 2
    assert await list_positions(engine, "default", group="another") == []
    assert await list_positions(engine, "default", cluster="another") == []


async def test_a_position_that_is_set_fences_whoever_held_it_and_is_kept(
    database: Database, engine: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED)
        done = await set_position(engine, "default", "orders", 0, 40, who="ana", why="a broken export")
        assert (done.old, done.new, done.epoch) == (1, 40, 2)
        claim = feeding.claims[Partition("orders", 0)]
        batch = await feeding.committer.new_batch(0)
        batch.commit.positions.append(PositionMove(claim.id, claim.epoch, 1, 2))
        with pytest.raises(LostPositionsError):
            await feeding.committer.commit(batch)
        feeding.let_go()
        [fed] = await feeding.records(event("order.noted", {"order_id": "o1"}))
    assert fed.offset == 40
    kept = await engine.fetch("select old, new, who, why from pointsman.position_changes")
    assert [tuple(row) for row in kept] == [(1, 40, "ana", "a broken export")]


async def test_what_cannot_be_set_is_refused_with_what_there_is(
    database: Database, engine: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED)
    async with feed(database, shop(), group="another") as feeding:
        await feeding.records(event("order.noted", {"order_id": "o1"}, partition=0))
    with pytest.raises(
        UsageError, match=r"--group=pointsman.default --cluster=test-cluster; --group=another"
    ):
        await set_position(engine, "default", "orders", 0, 3, who="ana", why="x")
    await set_position(engine, "default", "orders", 0, 3, who="ana", why="x", group="another")
    with pytest.raises(NotFoundError, match="no position of a partition 7"):
        await set_position(engine, "default", "orders", 7, 3, who="ana", why="x")
    with pytest.raises(NotFoundError, match=r"it has those of 0\.$"):
        await set_position(engine, "default", "orders", 7, 3, who="ana", why="x", cluster="nope")
    nowhere = "no position of the cluster 'nope' in the namespace 'default'. Known is 'test-cluster'."
    with pytest.raises(NotFoundError, match=f"^orders has {nowhere}$"):
        await set_positions(engine, "default", "orders", None, 3, who="ana", why="x", cluster="nope")
    with pytest.raises(NotFoundError, match=f"^orders/0 has {nowhere}$"):
        await set_position(engine, "default", "orders", 0, 3, who="ana", why="x", cluster="nope")
    with pytest.raises(NotFoundError, match=r"of the group 'anothr' .* Did you mean 'another'"):
        await set_position(engine, "default", "orders", 0, 3, who="ana", why="x", group="anothr")
    with pytest.raises(NotFoundError, match=r"topic 'order'. Did you mean 'orders'"):
        await set_position(engine, "default", "order", 0, 3, who="ana", why="x")
    with pytest.raises(UsageError, match="0 or more, not -1"):
        await set_position(engine, "default", "orders", 0, -1, who="ana", why="x")
    with pytest.raises(UsageError, match="and why"):
        await set_position(engine, "default", "orders", 0, 1, who="ana", why="")
