"""The topic in which sinks keep their progress: made where it is missing, and checked where it is not."""

from __future__ import annotations

from typing import Any

from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from connectors.kafka.sink_codes import Code, words
from connectors.kafka.sink_topics import Ask
from connectors.sink import SinkMisconfiguredError, SinkUnavailableError
from connectors.source import Partition

_CONFIG = {
    "cleanup.policy": "compact",
    # The cleaner leaves the newest segment alone: small ones give it something to clean.
    "segment.ms": str(3_600_000),
    "segment.bytes": str(16 * 1024 * 1024),
}
_AS_BROKERS_SAY = -1
_NOT_NOW = {Code.INVALID_REPLICATION_FACTOR, Code.REQUEST_TIMED_OUT, Code.NOT_CONTROLLER}
"""Too few brokers are there, or those that decide are just being chosen."""
_TIMEOUT_MS = 10_000
_TOPIC_RESOURCE = 2


async def ensure_topic(place: Partition, ask: Ask, ask_controller: Ask) -> None:
    """Make the topic with this partition, or check it.

    Raises:
        SinkUnavailableError: it cannot be done now.
        SinkMisconfiguredError: it is there and not fit, or may not be made.
    """
    try:
        count = await _count_partitions(place.topic, ask)
        if count == 0:
            await _create(place, ask_controller)
            return
        if count <= place.number:
            raise SinkMisconfiguredError(
                f"The relay's topic {place.topic} has {count} partitions, and shard {place.number} needs one "
                f"of its own. Add partitions, up to {place.number + 1} or more."
            )
        await _check_policy(place.topic, ask)
    except IncompatibleBrokerVersion:
        return  # a broker without such requests makes topics as they are first named


async def _count_partitions(topic: str, ask: Ask) -> int:
    answer = await ask(MetadataRequest([topic], allow_auto_topic_creation=False))
    return sum(len(partitions) for code, _, _, partitions in answer.topics if code == Code.NONE)


async def _create(place: Partition, ask_controller: Ask) -> None:
    wanted: Any = (place.topic, place.number + 1, _AS_BROKERS_SAY, [], list(_CONFIG.items()))
    answer = await ask_controller(CreateTopicsRequest([wanted], _TIMEOUT_MS, validate_only=False))
    _, code, *said = answer.topic_errors[0]
    if code in (Code.NONE, Code.TOPIC_ALREADY_EXISTS):
        return
    why = " ".join(filter(None, [words(code), *said]))
    if code in _NOT_NOW:
        # With fewer replicas than the brokers are to make, a lost disk would stop the relay for ever.
        raise SinkUnavailableError(f"The relay's topic {place.topic} cannot be made just now: {why}")
    if code == Code.TOPIC_AUTHORIZATION_FAILED:
        raise SinkMisconfiguredError(
            f"Kafka does not let this user see or make the relay's topic {place.topic}. Where it exists: allow READ "
            f"and WRITE on the topic {place.topic}. Where it does not: allow CREATE on the topic {place.topic}, too, "
            f"or create it with {place.number + 1} partitions or more and cleanup.policy=compact."
        )
    raise SinkMisconfiguredError(
        f"The relay's topic {place.topic} does not exist and cannot be made: {why} "
        f"Create it with {place.number + 1} partitions or more and cleanup.policy=compact."
    )


async def _check_policy(topic: str, ask: Ask) -> None:
    wanted: Any = (_TOPIC_RESOURCE, topic, ["cleanup.policy"])
    answer = await ask(DescribeConfigsRequest(resources=[wanted]))
    code, _, _, _, entries = answer.resources[0]
    if code != Code.NONE:
        return  # what one may not look at cannot be checked
    policy = next((entry[1] for entry in entries), "compact")
    if policy != "compact":
        raise SinkMisconfiguredError(
            f"The relay's topic {topic} has cleanup.policy={policy}, so that Kafka would delete the progress "
            "of the relay in time, and everything would stop. Set it to compact: "
            f"kafka-configs.sh --alter --topic {topic} --add-config cleanup.policy=compact"
        )
