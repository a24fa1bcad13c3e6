"""Why something could not be published, as sentences: what happened, and what to do now."""

from __future__ import annotations

import re
from typing import Final

from aiokafka import errors as kafka
from aiokafka.errors import KafkaError

from connectors.kafka.reaching import why_not
from connectors.kafka.settings import KafkaSettings

_TOPIC_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}", re.ASCII)
_AGAIN: Final = "may still arrive; publish it again with the same source and id, which makes it one event."


class PublishError(Exception):
    """An event is not known to have been published; the message is a sentence for a person."""


class EventRefusedError(PublishError):
    """This event was certainly not published, and trying again will not help; others may be published."""


class KafkaUnreachableError(PublishError):
    """Kafka does not answer. What was under way may still arrive; the same source and id make it one event."""


def check_topic_name(topic: str) -> None:
    """Refuse what Kafka would not take as the name of a topic.

    Raises:
        EventRefusedError: the name cannot be.
    """
    if not _TOPIC_NAME.fullmatch(topic) or topic in {".", ".."}:
        raise EventRefusedError(
            f"{topic!r} cannot be a topic: names have up to 249 letters of a-z, A-Z, 0-9, '.', '_' and '-'."
        )


def no_topic(topic: str, bootstrap: str) -> PublishError:
    """The topic is not there."""
    return PublishError(
        f"Kafka at {bootstrap} has no topic {topic!r}, and does not create it by itself. "
        "Create it first, or check its name."
    )


def closed() -> PublishError:
    """Used after its end."""
    return PublishError("The publisher is closed. Publish within its 'async with' block.")


def unreachable(bootstrap: str, seconds: float, event_id: str | None) -> KafkaUnreachableError:
    """No answer."""
    again = (
        "Check the address and whether the broker runs." if event_id is None else f"Event {event_id} {_AGAIN}"
    )
    return KafkaUnreachableError(f"Kafka at {bootstrap} has not answered within {seconds:g} s. {again}")


def not_confirmed(topic: str, event_id: str, bootstrap: str, seconds: float) -> PublishError:
    """The broker answers, but not this."""
    return PublishError(
        f"Kafka at {bootstrap} answers, but has not confirmed event {event_id} on {topic} within "
        f"{seconds:g} s: it may have too few replicas in sync, or be overloaded. The event {_AGAIN}"
    )


def unusable(bootstrap: str, failure: Exception) -> PublishError:
    """The settings cannot even be tried."""
    return PublishError(
        f"The settings for Kafka at {bootstrap} cannot be used: {failure}. Check files and names in them."
    )


async def not_started(settings: KafkaSettings, failure: Exception, seconds: float) -> PublishError:
    """No producer could be started; whether the address or the security is to blame is found out here."""
    bootstrap = settings.bootstrap
    if isinstance(failure, (kafka.ClusterAuthorizationFailedError, kafka.TopicAuthorizationFailedError)):
        return PublishError(
            f"Kafka at {bootstrap} does not let this user publish. Allow WRITE on the topic, and "
            "IDEMPOTENT_WRITE on the cluster where it asks for that."
        )
    if isinstance(failure, TimeoutError):
        return KafkaUnreachableError(
            f"Kafka at {bootstrap} cannot be reached within {seconds:g} s. "
            "Check the address and whether the broker runs."
        )
    return KafkaUnreachableError(await why_not(settings, failure))


def translated(failure: KafkaError, topic: str, event_id: str | None, bootstrap: str) -> PublishError:
    """What aiokafka raised, as a sentence."""
    event = "the event" if event_id is None else f"event {event_id}"
    match failure:
        case kafka.MessageSizeTooLargeError():
            return EventRefusedError(
                f"{event} is too large for {topic}: {_said(failure)} Publish less data, or raise the topic's "
                "max.message.bytes and the publisher's event_bytes_max."
            )
        case kafka.TopicAuthorizationFailedError():
            return PublishError(
                f"Kafka at {bootstrap} does not let this user write to {topic}. "
                "Allow WRITE and DESCRIBE on it."
            )
        case kafka.UnknownTopicOrPartitionError():
            return no_topic(topic, bootstrap)
        case kafka.InvalidTopicError():
            return EventRefusedError(f"Kafka at {bootstrap} does not take {topic!r} as the name of a topic.")
        case kafka.ProducerClosed():
            return closed()
        case kafka.KafkaTimeoutError() | kafka.KafkaConnectionError() | kafka.NodeNotReadyError():
            return KafkaUnreachableError(
                f"Kafka at {bootstrap} does not take {event} for {topic}: {_said(failure)} "
                "Check whether the broker runs."
            )
        case (
            kafka.CorruptRecordException()
            | kafka.InvalidTimestampError()
            | kafka.PolicyViolationError()
            | kafka.RecordListTooLargeError()
        ):
            return EventRefusedError(f"Kafka at {bootstrap} refused {event} for {topic}: {_said(failure)}")
        case _:
            return PublishError(
                f"Kafka at {bootstrap} did not confirm {event} for {topic}: {_said(failure)} "
                "On a compacted topic every record needs a key; else see the broker's log."
            )


def may_pass_alone(failure: KafkaError) -> bool:
    """Whether a record of a batch that failed like this may be taken when it is sent alone."""
    return not isinstance(
        failure, (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError)
    )


def _said(failure: Exception) -> str:
    text = str(failure).strip() or type(failure).__name__
    return text if text.endswith((".", ")")) else f"{text}."
