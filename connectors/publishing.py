"""Sending records to Kafka so that each is confirmed by all in-sync replicas, or told to have failed.

aiokafka's idempotent producer leaves three things to do [aio-libs/aiokafka#1017, #1101]:

- A batch that the broker refuses leaves a gap in its sequence numbers, and from then on its partition takes
  nothing of this producer any more. So after a refusal a new producer takes over.
- A refusal is of a whole batch. So each record of it is sent once more, alone: only what is refused alone is
  refused.
- It tries for ever while a broker is away, and so does its ``stop``. So there are deadlines for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner

from connectors import publish_errors as errors
from connectors.kafka.addresses import answering
from connectors.kafka.settings import KafkaSettings
from connectors.producer_close import close_producer
from connectors.publish_errors import EventRefusedError, PublishError

_CLUSTER_LOG = logging.getLogger("aiokafka.cluster")


@dataclass(frozen=True, slots=True)
class PublishLimits:
    """How long publishing waits, and how much it has under way."""

    connect_seconds: float = 10.0
    """For the first answer of a broker."""
    topic_seconds: float = 5.0
    """For a topic to be there; brokers that create topics by themselves take a moment."""
    confirm_seconds: float = 30.0
    """For the confirmation of a record, from when it was sent."""
    close_seconds: float = 10.0
    """For the confirmation of what is under way when the producer is closed."""
    event_bytes_max: int = 1_000_000
    """Of a record with its key and headers. Kafka's own limit, message.max.bytes, is 1,048,588 by default."""
    batch_bytes_max: int = 65_536
    """Of records sent together to one partition."""
    in_flight_max: int = 1_000
    """How many records may wait for their confirmation."""


class Outgoing(NamedTuple):
    """A record to be sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    id: str
    """The id of the event in it, or what else it is called by in sentences."""


class Receipt(NamedTuple):
    """Where the broker put an event, confirmed by all in-sync replicas."""

    topic: str
    partition: int
    offset: int
    """-1 where the broker only knows that it had the record already."""
    id: str


class Sent(NamedTuple):
    """What became of a record."""

    outgoing: Outgoing
    outcome: Receipt | PublishError


class _Pending(NamedTuple):
    outgoing: Outgoing
    producer: Any
    future: asyncio.Future[Any] | None
    """None: it failed before it was sent, as ``error`` says."""
    error: PublishError | None
    deadline: float


class ConfirmingProducer:
    """A producer of confirmed records; safe to be used by many tasks at once.

    Every failure is a ``PublishError``, whose message is a sentence that says what to do.
    """

    def __init__(self, settings: KafkaSettings, limits: PublishLimits) -> None:
        self._settings = settings
        self._limits = limits
        self._producer: Any = None
        self._broken: Any = None
        """The producer that must not be used any more."""
        self._turn = asyncio.Lock()
        self._partition_of = DefaultPartitioner()

    async def start(self) -> None:
        """Connect.

        Raises:
            PublishError: there is no way to Kafka, or it refuses us.
        """
        assert self._producer is None, "started already"
        self._producer = await self._open()

    async def stop(self) -> None:
        """Wait for what is under way, for a while, and disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_producer(producer, self._limits.close_seconds)

    async def __aenter__(self) -> Self:
        """``start``."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """``stop``."""
        await self.stop()

    async def send(self, outgoing: Outgoing) -> Receipt:
        """Send a record and wait until it is confirmed.

        Raises:
            EventRefusedError: Kafka will not take this record; others may still be taken.
            PublishError: it is not known to have been taken; the message says why.
        """
        outcome, _ = await self._outcome(await self._begin(outgoing), None)
        if isinstance(outcome, PublishError):
            raise outcome
        return outcome

    async def send_all(self, records: AsyncIterable[Outgoing]) -> AsyncGenerator[Sent]:
        """Send records in order, a limited number at a time, and tell what became of each, in the same order.

        A record that is refused is told as such, and the others go on. After any other failure no further
        record is taken from ``records``, and what is under way is waited for.
        """
        waiting: deque[_Pending] = deque()
        over = False
        async for record in records:
            waiting.append(await self._begin(record))
            async for sent in self._settle(waiting, everything=False):
                over = over or _ends_all(sent.outcome)
                yield sent
            if over:
                return
        async for sent in self._settle(waiting, everything=True):
            yield sent

    async def _settle(self, waiting: deque[_Pending], *, everything: bool) -> AsyncIterator[Sent]:
        """What became of those that are due, in order; where one failed or was sent again, of all."""
        failure: PublishError | None = None
        while waiting and (everything or self._is_due(waiting)):
            pending = waiting.popleft()
            outcome, again = await self._outcome(pending, failure)
            if failure is None and isinstance(outcome, PublishError) and _ends_all(outcome):
                failure = outcome
            # What comes after a record that was sent again must not overtake those between.
            everything = everything or again or failure is not None
            yield Sent(pending.outgoing, outcome)

    def _is_due(self, waiting: deque[_Pending]) -> bool:
        first = waiting[0].future
        if first is None or first.done() or len(waiting) >= self._limits.in_flight_max:
            return True
        return _ends_all(waiting[-1].error)

    async def _begin(self, outgoing: Outgoing) -> _Pending:
        deadline = time.monotonic() + self._limits.confirm_seconds
        future, error, producer = None, None, None
        try:
            producer = await self._healthy()
            await self._topic_ready(producer, outgoing.topic)
            future = await producer.send(
                outgoing.topic, outgoing.value, key=outgoing.key, headers=list(outgoing.headers)
            )
            future.add_done_callback(_retrieved)
        except PublishError as failure:
            error = failure
        except KafkaError as failure:
            error = errors.translated(failure, outgoing.topic, outgoing.id, self._settings.bootstrap)
        return _Pending(outgoing, producer, future, error, deadline)

    async def _outcome(
        self, pending: _Pending, failure: PublishError | None
    ) -> tuple[Receipt | PublishError, bool]:
        """What became of a record, and whether it was sent again.

        ``failure`` is what is known to be wrong already, and is not found out once more.
        """
        if pending.future is None:
            assert pending.error is not None
            return pending.error, False
        outgoing = pending.outgoing
        try:
            return await self._confirmed(pending.future, outgoing, pending.deadline), False
        except TimeoutError:
            return failure or await self._unconfirmed(pending.producer, outgoing), False
        except KafkaError as raised:
            self._retire(pending.producer)
            if not errors.may_pass_alone(raised):
                return errors.translated(raised, outgoing.topic, outgoing.id, self._settings.bootstrap), True
        try:
            return await self._send_alone(outgoing), True
        except PublishError as error:
            return error, True

    async def _send_alone(self, outgoing: Outgoing) -> Receipt:
        """Send a record as the only one of its batch, by a producer without gaps."""
        deadline = time.monotonic() + self._limits.confirm_seconds
        async with self._turn:
            producer = await self._renewed()
            await self._topic_ready(producer, outgoing.topic)
            batch = producer.create_batch()
            batch.append(
                timestamp=None, key=outgoing.key, value=outgoing.value, headers=list(outgoing.headers)
            )
            batch.close()
            partitions = sorted(await producer.partitions_for(outgoing.topic))
            partition = self._partition_of(outgoing.key, partitions, partitions)
            try:
                future = await producer.send_batch(batch, outgoing.topic, partition=partition)
                future.add_done_callback(_retrieved)
                return await self._confirmed(future, outgoing, deadline)
            except TimeoutError:
                raise await self._unconfirmed(producer, outgoing) from None
            except KafkaError as failure:
                self._retire(producer)
                raise errors.translated(
                    failure, outgoing.topic, outgoing.id, self._settings.bootstrap
                ) from failure

    async def _confirmed(self, future: asyncio.Future[Any], outgoing: Outgoing, deadline: float) -> Receipt:
        if not future.done():
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                # Not by awaiting it, which would cancel it: a record that was sent cannot be called back.
                await asyncio.wait([future])
        metadata = future.result()
        return Receipt(metadata.topic, metadata.partition, metadata.offset, outgoing.id)

    async def _unconfirmed(self, producer: Any, outgoing: Outgoing) -> PublishError:
        bootstrap = self._settings.bootstrap
        if not await self._answers(producer):
            return errors.unreachable(bootstrap, self._limits.confirm_seconds, outgoing.id)
        if not producer.client.cluster.partitions_for_topic(outgoing.topic):
            return errors.no_topic(outgoing.topic, bootstrap)
        return errors.not_confirmed(outgoing.topic, outgoing.id, bootstrap, self._limits.confirm_seconds)

    def _retire(self, producer: Any) -> None:
        # Records of a predecessor fail late, and say nothing of its successor, sound or broken.
        if producer is self._producer:
            self._broken = producer

    async def _healthy(self) -> Any:
        if self._producer is not None and self._broken is not self._producer:
            return self._producer
        async with self._turn:
            return await self._renewed()

    async def _renewed(self) -> Any:
        """The producer, or its successor where it was broken; to be called in turn."""
        broken = self._producer
        if broken is None:
            raise errors.closed()
        if self._broken is broken:
            made = await self._open()
            if self._producer is not broken:
                # The end has come meanwhile, and has seen to the broken one alone.
                await close_producer(made, self._limits.close_seconds)
                raise errors.closed()
            self._producer = made
            await close_producer(broken, self._limits.close_seconds)
        return self._producer

    async def _open(self) -> Any:
        limits, bootstrap = self._limits, self._settings.bootstrap
        deadline = asyncio.get_running_loop().time() + limits.connect_seconds
        make: Any = AIOKafkaProducer
        try:
            producer = make(
                **(await answering(self._settings, limits.connect_seconds / 2)).client_options(),
                enable_idempotence=True,
                acks="all",
                max_request_size=limits.event_bytes_max,
                max_batch_size=limits.batch_bytes_max,
                request_timeout_ms=int(limits.connect_seconds * 1_000),
            )
        except (OSError, ValueError) as failure:
            raise errors.unusable(bootstrap, failure) from failure
        try:
            async with asyncio.timeout_at(deadline):
                await producer.start()
        except (KafkaError, OSError, TimeoutError) as failure:
            await close_producer(producer, limits.close_seconds)
            raise await errors.not_started(self._settings, failure, limits.connect_seconds) from failure
        except BaseException:
            await close_producer(producer, limits.close_seconds)
            raise
        return producer

    async def _topic_ready(self, producer: Any, topic: str) -> None:
        if producer.client.cluster.partitions_for_topic(topic):
            return
        errors.check_topic_name(topic)
        with _missing_told_once(topic):
            try:
                async with asyncio.timeout(self._limits.topic_seconds):
                    await producer.partitions_for(topic)
            except TimeoutError:
                if await self._answers(producer):
                    raise errors.no_topic(topic, self._settings.bootstrap) from None
                raise errors.unreachable(self._settings.bootstrap, self._limits.topic_seconds, None) from None
            except KafkaError as failure:
                raise errors.translated(failure, topic, None, self._settings.bootstrap) from failure

    async def _answers(self, producer: Any) -> bool:
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                return bool(await producer.client.force_metadata_update())
        except TimeoutError:
            return False


@contextlib.contextmanager
def _missing_told_once(topic: str) -> Iterator[None]:
    """Have aiokafka not log at each look that a topic is not there, while it is looked for: an error says it then."""

    def is_more(record: logging.LogRecord) -> bool:
        return (record.msg, record.args) != ("Topic %s not found in cluster metadata", (topic,))

    _CLUSTER_LOG.addFilter(is_more)
    try:
        yield
    finally:
        _CLUSTER_LOG.removeFilter(is_more)


def _ends_all(outcome: Receipt | PublishError | None) -> bool:
    return isinstance(outcome, PublishError) and not isinstance(outcome, EventRefusedError)


def _retrieved(future: asyncio.Future[Any]) -> None:
    # Nobody may be waiting any more; asyncio would complain of an exception that nobody saw.
    if not future.cancelled():
        future.exception()
