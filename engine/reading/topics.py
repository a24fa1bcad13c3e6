"""Which topics pipelines read, by what they were registered as."""

from __future__ import annotations

from engine.reading.catalog import SQL
from engine.reading.values import json_of
from engine.store.connecting import Connection


async def topics_read(connection: Connection, namespace: str) -> set[str]:
    """Those that the newest version of each pipeline reads that was ever run."""
    rows = await connection.fetch(SQL["newest_structures"], namespace)
    found = [json_of(row["structure"]) for row in rows]
    # A structure that was tampered with is what verify finds.
    topics = (one["topics"] for one in found if isinstance(one, dict) and isinstance(one.get("topics"), list))
    return {str(topic["name"]) for several in topics for topic in several if isinstance(topic, dict)}
