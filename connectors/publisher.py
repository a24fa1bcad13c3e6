"""Publishing events from a service, as CloudEvents, built from the same classes that pipelines read.

async with Publisher("kafka:9092", source="/shop", topic="orders") as publisher:
    await publisher.publish(OrderPlaced(order_id="o-1", amount=5))
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import NamedTuple, Self

import orjson

from connectors import identity
from connectors.encode import STRUCTURED_HEADERS, encode_structured
from connectors.identity import text_flaw
from connectors.kafka.settings import KafkaSettings
from connectors.publish_errors import EventRefusedError, KafkaUnreachableError, PublishError
from connectors.publishing import ConfirmingProducer, Outgoing, PublishLimits, Receipt
from connectors.traces import is_traceparent
from statemachines.events import Event
from statemachines.handlers import HandlerError
from statemachines.keys import how_keyed, key_of, why_no_key
from statemachines.patterns import is_pattern

__all__ = [
    "Draft",
    "EventRefusedError",
    "KafkaUnreachableError",
    "PublishError",
    "PublishLimits",
    "PublishManyError",
    "Publisher",
    "Receipt",
]


class Draft(NamedTuple):
    """An event with what shall be said of it beside its data."""

    event: Event
    topic: str | None = None
    """None: the publisher's."""
    id: str | None = None
    """Unique within the source; None: a new one. Whoever publishes again after a failure gives the same."""
    key: str | None = None
    """The Kafka key; None: the field that the event's class names as its key."""
    subject: str | None = None
    time: datetime | None = None
    """When it happened, with a zone; None: now."""
    traceparent: str | None = None


class PublishManyError(PublishError):
    """An event of several could not be published."""

    def __init__(self, message: str, confirmed: tuple[Receipt, ...]) -> None:
        self.confirmed = confirmed
        """What was published, in order."""
        super().__init__(message)


class Publisher:
    """Publishes events; an asynchronous context manager, to be used by any number of tasks.

    Args:
        kafka: the settings, or ``host:port`` of a cluster without security.
        source: who says so: the CloudEvents ``source``, such as ``/shop`` or a URI.
        topic: where to, unless an event is published to another.
        limits: how long to wait, and for how much.
    """

    def __init__(
        self,
        kafka: KafkaSettings | str,
        *,
        source: str,
        topic: str | None = None,
        limits: PublishLimits | None = None,
    ) -> None:
        flaw = text_flaw("source", source, identity.SOURCE_BYTES_MAX)
        if flaw is not None:
            raise ValueError(f"a publisher needs a source that is a sound CloudEvents source: {flaw}")
        settings = KafkaSettings(kafka) if isinstance(kafka, str) else kafka
        self._producer = ConfirmingProducer(settings, limits or PublishLimits())
        self._source = source
        self._topic = topic

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            PublishError: there is no way to Kafka, or it refuses us.
        """
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is under way, and disconnect."""
        await self._producer.stop()

    async def publish(
        self,
        event: Event,
        *,
        topic: str | None = None,
        id: str | None = None,
        key: str | None = None,
        subject: str | None = None,
        time: datetime | None = None,
        traceparent: str | None = None,
    ) -> Receipt:
        """Publish an event and wait until all in-sync replicas have it.

        The arguments are those of a ``Draft``.

        Raises:
            EventRefusedError: it was not published and never will be: it has a flaw, or is too large.
            PublishError: it is not known to have been published; the message says why, and what to do.
        """
        draft = Draft(event, topic, id, key, subject, time, traceparent)
        return await self._producer.send(self._outgoing(draft))

    async def publish_many(self, events: Iterable[Event | Draft]) -> list[Receipt]:
        """Publish events in order, many under way at a time, and wait until all are confirmed.

        Raises:
            EventRefusedError: one of them has a flaw; nothing was published.
            PublishManyError: one of them failed. What was under way has been waited for, and nothing further
                was begun; ``confirmed`` has the receipts.
        """
        records = [self._outgoing(event if isinstance(event, Draft) else Draft(event)) for event in events]
        confirmed: list[Receipt] = []
        failed: list[PublishError] = []

        async def until_failure() -> AsyncIterator[Outgoing]:
            for record in records:
                if failed:
                    return
                yield record

        async for sent in self._producer.send_all(until_failure()):
            if isinstance(sent.outcome, Receipt):
                confirmed.append(sent.outcome)
            else:
                failed.append(sent.outcome)
        if failed:
            message = f"{len(confirmed):,} of {len(records):,} events are published, then: {failed[0]}"
            raise PublishManyError(message, tuple(confirmed)) from failed[0]
        return confirmed

    def _outgoing(self, draft: Draft) -> Outgoing:
        event, topic = draft.event, self._topic if draft.topic is None else draft.topic
        name, event_type = type(event).__name__, type(event).event_type()
        if topic is None:
            raise EventRefusedError(f"{name} has no topic: give one to publish(), or to the Publisher.")
        if not topic:
            raise EventRefusedError(f"{name} cannot be published: its topic is empty.")
        if is_pattern(event_type):
            why = f"{name} stands for all of {event_type!r}, and an event has one type"
            raise EventRefusedError(f"{why}: make it of {name}.named('the.type').")
        try:
            data = event.__pydantic_serializer__.to_json(event, warnings=False, by_alias=True)
        except ValueError as error:
            raise EventRefusedError(f"{name} cannot be written as JSON: {error}") from error
        key = _key(draft, data)
        event_id = str(uuid.uuid4()) if draft.id is None else draft.id
        _check(draft, name, event_id, event_type, key)
        value = encode_structured(
            id=event_id,
            source=self._source,
            type=event_type,
            data=data,
            subject=draft.subject,
            time=draft.time or datetime.now(UTC),
            traceparent=draft.traceparent,
        )
        return Outgoing(topic, None if key is None else key.encode(), value, STRUCTURED_HEADERS, event_id)


_how_keyed = lru_cache(maxsize=1_000)(how_keyed)


def _key(draft: Draft, data: bytes) -> str | None:
    if draft.key is not None:
        return draft.key
    event_class = type(draft.event)
    how = _how_keyed(event_class)
    if how is None:
        return None
    # Read as the engine will read it, unless a pipeline has the last word.
    try:
        key = key_of(how, orjson.loads(data), None)
    except HandlerError as error:
        raise EventRefusedError(f"{event_class.__name__} has no key: {error}.") from error
    if key is None:
        raise EventRefusedError(
            f"{event_class.__name__} has no key: {why_no_key(how, event_class.__name__)}."
        )
    return key


def _check(draft: Draft, name: str, event_id: str, event_type: str, key: str | None) -> None:
    flaw = (
        text_flaw("id", event_id, identity.ID_BYTES_MAX)
        or text_flaw("type", event_type, identity.TYPE_BYTES_MAX)
        or (None if key is None else identity.key_flaw(key))
        or (
            None if draft.subject is None else text_flaw("subject", draft.subject, identity.SUBJECT_BYTES_MAX)
        )
    )
    if flaw is None and draft.time is not None and draft.time.tzinfo is None:
        flaw = "time has no zone"
    if flaw is None and draft.traceparent is not None and not is_traceparent(draft.traceparent):
        flaw = "traceparent is none by W3C's Trace Context"
    if flaw is not None:
        raise EventRefusedError(f"{name} cannot be published: {flaw}.")
