"""The servers that `demo`, `dev` and the other tests stand on are real, durable, and leave nothing behind."""

from __future__ import annotations

import asyncpg

from tests.services import Database, Kafka, TopicFactory


async def test_a_fresh_database_has_the_schema_and_three_roles(database: Database) -> None:
    for dsn, user in (
        (database.owner_dsn, "postgres"),
        (database.engine_dsn, "pointsman"),
        (database.reader_dsn, "reader"),
    ):
        connection = await asyncpg.connect(dsn)
        try:
            assert await connection.fetchval("SELECT current_user") == user
            assert await connection.fetchval("SELECT max(number) FROM pointsman.migrations") >= 1
        finally:
            await connection.close()


async def test_topics_are_made_with_their_partitions(kafka: Kafka, topic: TopicFactory) -> None:
    name = await topic("orders", partitions=3, configs={"cleanup.policy": "compact"})
    assert name.startswith("orders-")
