"""What is asked of a Kafka cluster beside reading and writing: its topics, their settings, its brokers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    InvalidReplicationFactorError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest

from connectors.kafka.allowing import may_not, may_not_see
from connectors.kafka.queries import PATIENCE_SECONDS, RETRY_SECONDS, Queries, connect
from connectors.kafka.releases import VersionsRequest, release_of
from connectors.kafka.rights import NOT_TOLD, TopicRightsRequest, operations
from connectors.kafka.settings import KafkaSettings
from connectors.source import (
    NoSuchTopicError,
    NotAllowedError,
    Partition,
    SourceError,
    SourceUnreachableError,
)

REQUEST_SECONDS = 20.0
BROKER_PATIENCE_SECONDS = 2.0
"""So long one broker is asked again, of which only that is wanted whether it answers."""
TOPIC_RESOURCE = 2
BROKER_RESOURCE = 4
AS_BROKERS_SAY = -1


class Broker(NamedTuple):
    """A broker of the cluster."""

    id: int
    host: str
    port: int
    release: tuple[int, int] | None
    """Such as (4, 0); None where it does not tell."""
    answers: bool = True
    """Others may still name one that is gone, for some seconds, or for as long as too few are left to decide."""


class Kept(NamedTuple):
    """Who keeps a partition."""

    leader: int
    """-1 where nobody leads it."""
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


class KafkaAdmin:
    """A connection for questions and topics; an async context manager. All methods may raise SourceError."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self.bootstrap = settings.bootstrap
        self._client: Any = None

    async def start(self) -> None:
        """Raises SourceUnreachableError."""
        self._client = await connect(self._settings, request_timeout_ms=round(REQUEST_SECONDS * 1000))
        self._queries = Queries(self._client, self._settings)

    async def stop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def cluster_id(self) -> str:
        """What tells this cluster from every other one."""
        return await self._queries.cluster_id()

    async def partitions_of(self, topic: str) -> set[Partition]:
        """All partitions of a topic; empty where there is no such topic. Asking does not create it."""
        return set(await self._queries.leaders_of(topic))

    async def topic_exists(self, topic: str) -> bool:
        return bool(await self.partitions_of(topic))

    async def kept_by(self, topic: str) -> dict[Partition, Kept]:
        """The brokers that keep each partition of a topic; empty where there is no such topic."""
        ((code, _, _, partitions),) = (await self._queries.metadata([topic])).topics
        if code:
            return {}
        return {
            Partition(topic, number): Kept(leader, tuple(replicas), tuple(in_sync))
            for _, number, leader, replicas, in_sync, *_ in partitions
        }

    async def create_topic(
        self, topic: str, *, partitions: int = AS_BROKERS_SAY, configs: Mapping[str, str] | None = None
    ) -> bool:
        """Make a topic, with as many replicas as the brokers say; False where it is there already.

        librdkafka's built-in broker makes no topics by request: there, naming one creates it.
        """
        wanted: Any = (topic, partitions, AS_BROKERS_SAY, [], list((configs or {}).items()))
        request = CreateTopicsRequest([wanted], round(REQUEST_SECONDS * 1000), validate_only=False)
        try:
            code, message = await self._create(request)
        except IncompatibleBrokerVersion:
            return await self._queries.create_by_naming(topic)
        if for_code(code) is TopicAlreadyExistsError:
            return False
        if for_code(code) is TopicAuthorizationFailedError:
            raise NotAllowedError(
                may_not(self._settings.bootstrap, f"make the topic {topic}", "CREATE", f"topic {topic}")
            )
        if code:
            raise SourceError(f"Kafka did not create the topic {topic}: {for_code(code)()} {message}")
        await self._queries.until_known(topic)
        return True

    async def _create(self, request: Any) -> tuple[int, str]:
        """What comes of it; asked again for a while where brokers are missing, which may be about to be there."""
        began = time.monotonic()
        while True:
            answer = await self._queries.ask_controller(request)
            ((_, code, *message),) = answer.topic_errors
            is_short = for_code(code) is InvalidReplicationFactorError
            if not is_short or time.monotonic() - began > PATIENCE_SECONDS:
                return code, (message or [""])[0] or ""
            await asyncio.sleep(RETRY_SECONDS)

    async def topic_config(self, topic: str) -> dict[str, str]:
        """All settings of a topic in force, such as `max.message.bytes`. Raises NoSuchTopicError.

        Empty where the broker tells none, as librdkafka's does.
        """
        try:
            answer = await self._queries.ask(DescribeConfigsRequest([(TOPIC_RESOURCE, topic, None)]))
        except IncompatibleBrokerVersion:
            return {}
        ((code, message, _, _, entries),) = answer.resources
        if code:
            error: KafkaError = for_code(code)()
            if isinstance(error, UnknownTopicOrPartitionError) or not await self.topic_exists(topic):
                raise NoSuchTopicError(f"The topic {topic} does not exist on {self._settings.bootstrap}.")
            if isinstance(error, TopicAuthorizationFailedError):
                what = f"look at the settings of the topic {topic}"
                raise NotAllowedError(
                    may_not(self._settings.bootstrap, what, "DESCRIBE_CONFIGS", f"topic {topic}")
                )
            raise SourceError(f"Kafka does not tell the settings of {topic}: {error} {message or ''}")
        return {key: value for key, value, *_ in entries if value is not None}

    async def broker_config(self, broker: int) -> dict[str, str]:
        """All settings of a broker in force; empty where it tells none, or not to us."""
        request = DescribeConfigsRequest([(BROKER_RESOURCE, str(broker), None)])
        try:
            ((_, _, _, _, entries),) = (await self._queries.ask(request, broker)).resources
        except IncompatibleBrokerVersion:
            return {}
        return {key: value for key, value, *_ in entries if value is not None}

    async def topic_rights(self, topic: str) -> frozenset[str] | None:
        """What this user may do with a topic, such as READ; None where there is none, or that is not told.

        Raises NotAllowedError: not even to see it.
        """
        try:
            answer = await self._queries.ask(TopicRightsRequest(topic))
        except (IncompatibleBrokerVersion, NotImplementedError):
            return None
        ((code, *_, bits),) = answer.topics
        if for_code(code) is TopicAuthorizationFailedError:
            raise NotAllowedError(may_not_see(self.bootstrap, topic))
        return None if code or bits == NOT_TOLD else operations(bits)

    async def group_rights(self, group: str) -> frozenset[str] | None:
        """What this user may do with a consumer group; None where that is not told.

        Raises SourceUnreachableError: no broker that answers has the group, so that nobody can join it.
        """
        try:
            bits = await self._queries.group_rights(group)
        except GroupAuthorizationFailedError:
            return frozenset()
        except (IncompatibleBrokerVersion, NotImplementedError):
            return None
        return None if bits == NOT_TOLD else operations(bits)

    async def brokers(self) -> list[Broker]:
        """All brokers, each with its release as far as it tells."""
        metadata = await self._queries.metadata([])
        return await asyncio.gather(*(self._broker(*found) for found in metadata.brokers))

    async def _broker(self, number: int, host: str, port: int, *_: object) -> Broker:
        one = Queries(self._client, self._settings, patience_seconds=BROKER_PATIENCE_SECONDS)
        try:
            release = release_of(await one.ask(VersionsRequest(), number))
        except NotImplementedError:  # what aiokafka raises where the broker knows only older forms
            release = None
        except SourceUnreachableError:
            return Broker(number, host, port, None, answers=False)
        return Broker(number, host, port, release)
