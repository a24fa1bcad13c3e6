"""The progress of a sink: the last record of a partition of its own in a compacted topic."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from connectors.kafka.addresses import answering
from connectors.kafka.allowing import may_not_see
from connectors.kafka.reaching import why_not
from connectors.kafka.settings import CredentialsError, KafkaSettings
from connectors.kafka.sink_limits import SinkLimits
from connectors.sink import Progress, SinkMisconfiguredError, SinkUnavailableError
from connectors.source import Partition

_TAIL_RECORDS = 64
"""How far from the end the first look is; further back where all of that was given up."""


def progress_topic(namespace: str) -> str:
    """The topic in which a namespace's relays keep their progress, a partition for each shard."""
    return f"pointsman.{namespace}.relay"


class ProgressRecord(NamedTuple):
    """A progress as a record of its topic."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int


def encode_progress(partition: Partition, progress: Progress, timestamp: int) -> ProgressRecord:
    """Readable as JSON by whoever looks into the topic."""
    value = orjson.dumps(
        {"store": progress.store, "sequence": progress.sequence, "digest": progress.digest.hex()}
    )
    return ProgressRecord(partition.topic, str(partition.number).encode(), value, (), timestamp)


def decode_progress(partition: Partition, value: bytes | None) -> Progress:
    """Read a record of the topic.

    Raises:
        SinkMisconfiguredError: someone else wrote it.
    """
    try:
        found = orjson.loads(value or b"")
        return Progress(str(found["store"]), int(found["sequence"]), bytes.fromhex(found["digest"]))
    except (ValueError, KeyError, TypeError) as error:
        raise SinkMisconfiguredError(
            f"The last record of {partition} is not a progress record of the relay ({error}). Nobody may "
            "write there but the relay. Find out who does, then run: pointsman relay accept --reason ..."
        ) from error


async def read_progress(
    settings: KafkaSettings, partition: Partition, limits: SinkLimits, *, to_the_end: bool
) -> Progress | None:
    """The last committed progress, None where there is none, or no such topic.

    ``to_the_end``: only once no transaction is open behind it.

    Raises:
        SinkUnavailableError, SinkMisconfiguredError: it cannot be known.
    """
    deadline = asyncio.get_running_loop().time() + limits.progress_seconds
    consumer = await _consumer(settings)
    try:
        async with asyncio.timeout_at(deadline):
            await _start(settings, consumer)
            # Naming a topic that is not there might make it; whoever started a sink knows that it is.
            if not to_the_end and partition.topic not in await consumer.topics():
                return None
            return await _read_last(consumer, partition, to_the_end=to_the_end)
    except TimeoutError as error:
        raise SinkUnavailableError(
            f"Kafka at {settings.bootstrap} did not say within {limits.progress_seconds:.0f} s what is in {partition}"
        ) from error
    except TopicAuthorizationFailedError as error:
        raise SinkMisconfiguredError(may_not_see(settings.bootstrap, partition.topic, "READ")) from error
    except (KafkaError, OSError) as error:
        raise SinkUnavailableError(
            f"Kafka at {settings.bootstrap} did not say what is in {partition}: {type(error).__name__}: {error}"
        ) from error
    finally:
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(limits.close_seconds):
                await consumer.stop()


async def _consumer(settings: KafkaSettings) -> Any:
    try:
        return AIOKafkaConsumer(  # type: ignore[no-untyped-call]  # aiokafka is untyped
            **(await answering(settings)).client_options(),
            group_id=None,
            auto_offset_reset="none",
            enable_auto_commit=False,
            isolation_level="read_committed",
            check_crcs=settings.check_crcs,
            fetch_max_wait_ms=10,
            retry_backoff_ms=20,
        )
    except CredentialsError as error:
        raise SinkUnavailableError(f"Kafka at {settings.bootstrap} is not asked: {error}") from error


async def _start(settings: KafkaSettings, consumer: Any) -> None:
    try:
        await consumer.start()
    except KafkaError as error:
        raise SinkUnavailableError(await why_not(settings, error)) from error


async def _read_last(consumer: Any, partition: Partition, *, to_the_end: bool) -> Progress | None:
    tp = TopicPartition(*partition)
    consumer.assign([tp])
    earliest = (await consumer.beginning_offsets([tp]))[tp]
    end = (await consumer.end_offsets([tp]))[tp]
    back = _TAIL_RECORDS
    while True:
        first = max(earliest, end - back)
        consumer.seek(tp, first)
        last = None
        while True:
            for record in (await consumer.getmany(tp, timeout_ms=100)).get(tp, ()):
                last = record
            position = await consumer.position(tp)
            known = consumer.highwater(tp)
            if position >= end and (not to_the_end or (known is not None and position >= known)):
                break
        if last is not None:
            return decode_progress(partition, last.value)
        if first == earliest:
            return None
        back *= 8
