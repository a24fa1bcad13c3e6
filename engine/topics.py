"""The topics that an engine needs: what it reads must exist, its dead-letter topics are made where they do not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.allowing import may_not_see
from connectors.kafka.settings import KafkaSettings
from connectors.source import NotAllowedError, SourceError, SourceUnreachableError
from engine.dead_letters import topic_of_the_rest
from engine.errors import RefusedError, UsageError
from engine.homes import HOMES
from statemachines.machine import Machine
from statemachines.suggest import listed

log = logging.getLogger("pointsman.engine")

RECORD_BYTES_DEFAULT = 1_000_000
"""Where the broker does not say how large a record may be: a little below its own default."""
RECORD_BYTES_KEPT = 1_000
"""Less than the topic's ``max.message.bytes``, for what surrounds a record in a batch."""
RETENTION_FOR_EVER = "-1"
"""A dead letter waits for a person, who may be on holiday."""


def source_topics(machines: Iterable[Machine]) -> list[str]:
    """What these pipelines read, sorted."""
    return sorted({topic.name for machine in machines for topic in machine.pipeline.read_topics})


def dead_letter_topics(machines: Iterable[Machine]) -> list[str]:
    """Where their dead letters go, sorted."""
    read: dict[tuple[str, str], set[str]] = {}
    for machine in machines:
        topics = {topic.dead_letter_topic for topic in machine.pipeline.read_topics}
        read.setdefault((machine.namespace, machine.name), set()).update(topics)
    # A pipeline of which any version reads topics has those.
    return sorted(set().union(*(topics or {topic_of_the_rest(where)} for (where, _), topics in read.items())))


async def prepare_topics(
    settings: KafkaSettings,
    machines: Sequence[Machine],
    homes: str,
    *,
    create_sources: bool = False,
    partitions: int = -1,
) -> dict[str, int]:
    """Check or make what the engine needs; returns how large a record may be on each dead-letter topic, in bytes.

    ``homes`` is the topic whose partitions say who serves which timers. ``create_sources`` makes the topics that are
    read, too, with so many partitions (-1: as the brokers say).

    Raises:
        UsageError: a topic that is read does not exist.
        RefusedError: a dead-letter topic does not exist and cannot be made.
        SourceUnreachableError: Kafka is away.
    """
    async with KafkaAdmin(settings) as admin:
        sources = source_topics(machines)
        exist = await asyncio.gather(*(_exists(admin, topic, "READ") for topic in sources))
        missing = [topic for topic, exists in zip(sources, exist, strict=True) if not exists]
        if missing and not create_sources:
            raise UsageError(_missing(missing, settings.bootstrap))
        for topic in missing:
            await admin.create_topic(topic, partitions=partitions)
            log.info("made the topic %s", topic)
        await _prepare_homes(admin, homes)
        topics = dead_letter_topics(machines)
        return dict(
            zip(topics, await asyncio.gather(*(_prepare(admin, topic) for topic in topics)), strict=True)
        )


async def _exists(admin: KafkaAdmin, topic: str, operation: str) -> bool:
    """Raises RefusedError: it cannot be seen, and is needed for this."""
    try:
        return await admin.topic_exists(topic)
    except NotAllowedError as error:
        raise RefusedError(may_not_see(admin.bootstrap, topic, operation)) from error


async def _prepare_homes(admin: KafkaAdmin, topic: str) -> None:
    """Make the topic whose partitions say who serves which timers; nothing is ever written to it."""
    if await _exists(admin, topic, "READ"):
        return
    try:
        await admin.create_topic(topic, partitions=HOMES)
    except SourceUnreachableError:
        raise
    except SourceError as error:
        raise RefusedError(
            f"The topic {topic}, whose partitions say which engine serves which timers, does not exist and cannot be "
            f"made: {error} Create it with {HOMES} partitions, or allow it."
        ) from error
    log.info("made the topic %s", topic)


async def _prepare(admin: KafkaAdmin, topic: str) -> int:
    if not await _exists(admin, topic, "WRITE"):
        try:
            await admin.create_topic(topic, configs={"retention.ms": RETENTION_FOR_EVER})
        except SourceUnreachableError:
            raise
        except SourceError as error:
            raise RefusedError(
                f"The dead-letter topic {topic} does not exist and cannot be made: {error} Create it, or allow it."
            ) from error
        log.info("made the dead-letter topic %s", topic)
    return await record_bytes_max(admin, topic)


async def record_bytes_max(admin: KafkaAdmin, topic: str) -> int:
    """How large a record may be on a topic, in bytes."""
    try:
        configs = await admin.topic_config(topic)
    except SourceUnreachableError:
        raise
    except SourceError:
        return RECORD_BYTES_DEFAULT  # one may write to topics whose settings one may not see
    try:
        return max(0, int(configs["max.message.bytes"]) - RECORD_BYTES_KEPT)
    except (KeyError, ValueError):
        return RECORD_BYTES_DEFAULT


def _missing(topics: list[str], bootstrap: str) -> str:
    what = f"topic {topics[0]!r} does" if len(topics) == 1 else f"topics {listed(topics)} do"
    return (
        f"The {what} not exist on {bootstrap}, or this user may not see it. Create it (kafka-topics.sh "
        f"--create --topic {topics[0]} --partitions 8), or correct the pipeline's name for it."
    )
