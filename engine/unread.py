"""Topics that a group has read, and that no loaded pipeline reads any more, though records wait there.

A pipeline that reads another topic from some version on, or one that is not loaded any more, leaves them behind, and
nothing else says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping

import asyncpg

from connectors.kafka.reader import KafkaReader
from connectors.kafka.settings import KafkaSettings
from connectors.source import NotAllowedError, Partition, Reader, SourceError
from engine.errors import PointsmanError
from engine.reading.positions import list_positions
from engine.store.connecting import connect

log = logging.getLogger("pointsman.engine")

PATIENCE_SECONDS = 60.0
CURE = "Load one that does, too, until they are read; where nobody needs them, there is nothing to do."


async def find_unread(
    reader: Reader, positions: Mapping[Partition, int], topics: Collection[str]
) -> list[str]:
    """A sentence for each such topic, where ``topics`` are those that are read. Raises SourceError."""
    others = {one: at for one, at in positions.items() if one.topic not in topics}
    exist: set[Partition] = set()
    for topic in {one.topic for one in others}:
        # Of one that may be seen no more, nothing can be told.
        with contextlib.suppress(NotAllowedError):
            exist |= set(await reader.partitions_of(topic))
    here = exist & others.keys()
    earliest, ends = await reader.earliest(here), await reader.ends(here)
    waiting: dict[str, int] = {}
    for one, end in sorted(ends.items()):
        waiting[one.topic] = waiting.get(one.topic, 0) + max(0, end - max(others[one], earliest[one]))
    return [
        f"The topic {topic} was read by this group, and no pipeline that is loaded reads it any more. Records that "
        f"were not read there: {records:,}."
        for topic, records in waiting.items()
        if records
    ]


async def tell_unread(
    postgres: str, kafka: KafkaSettings, namespace: str, group: str, topics: Collection[str]
) -> None:
    """Warn of them in the log."""
    reader = KafkaReader(kafka)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            connection = await connect(postgres, name="pointsman engine, topics", for_engine=False)
            try:
                known = await list_positions(connection, namespace, group=group)
            finally:
                await connection.close()
            await reader.start()
            cluster = await reader.cluster_id()
            positions = {
                Partition(one.topic, one.partition): one.position for one in known if one.cluster == cluster
            }
            found = await find_unread(reader, positions, topics)
    except (
        *(PointsmanError, SourceError, asyncpg.PostgresError, asyncpg.InterfaceError),
        *(OSError, TimeoutError),
    ) as error:
        # The engine itself says that a service is away.
        log.debug("it cannot be told which topics are read no more: %s", error)
        return
    finally:
        await reader.stop()
    for sentence in found:
        log.warning("%s %s", sentence, CURE)
