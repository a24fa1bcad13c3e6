"""Questions to a cluster that change nothing: which topics and partitions there are, and offsets by time."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    LeaderNotAvailableError,
    NotControllerError,
    RequestTimedOutError,
    StaleMetadata,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from connectors.kafka.addresses import answering
from connectors.kafka.allowing import may_not_see
from connectors.kafka.reaching import why_not
from connectors.kafka.rights import GroupRightsRequest
from connectors.kafka.settings import CredentialsError, KafkaSettings
from connectors.kafka.topic_ids import TopicIdsRequest, shown
from connectors.source import (
    NoSuchTopicError,
    NotAllowedError,
    Partition,
    SourceError,
    SourceUnreachableError,
)

READ_COMMITTED = 1
EARLIEST = -2
LATEST = -1
NOT_FOUND = -1
RETRY_SECONDS = 0.1
PATIENCE_SECONDS = 20.0
"""So long a question is asked again while the cluster cannot answer it."""
DECIDE_SECONDS = 20.0
"""So long the one has that decides about topics: cut short, it may still do what it was asked for."""
LEADERS_SECONDS = 5.0
"""So long who leads partitions is not asked again: one that is cut off from the others may go on answering."""
ANSWER_SECONDS = 5.0
"""So long one broker has for its answer; then it may be that its machine is gone, and another one is asked."""
MISSING_PATIENCE_SECONDS = 2.0
"""So long a topic that nobody knows is asked for: one just made takes a moment to be known everywhere."""

Answer = TypeVar("Answer")


async def connect(settings: KafkaSettings, **options: Any) -> Any:
    """A client of aiokafka that has reached the cluster. Raises SourceUnreachableError."""
    try:
        begun = (await answering(settings)).client_options()
    except CredentialsError as error:
        raise SourceUnreachableError(await why_not(settings, error)) from error
    client: Any = AIOKafkaClient(**begun, **options)  # type: ignore[no-untyped-call]  # aiokafka is untyped
    try:
        await client.bootstrap()
    except KafkaError as error:
        await client.close()
        raise SourceUnreachableError(await why_not(settings, error)) from error
    except BaseException:
        await client.close()
        raise
    return client


def expect_brokers(client: Any) -> None:
    """Raises StaleMetadata where no broker is known, as when all were started a moment ago: aiokafka asserts that."""
    if not client.cluster.brokers():
        client.force_metadata_update()
        raise StaleMetadata("none of its brokers is in the cluster just now")


async def unreachable(settings: KafkaSettings, error: Exception) -> SourceUnreachableError:
    """It was reached before, and is not now."""
    if settings.security_protocol != "PLAINTEXT":
        # What we are known by may have ended.
        return SourceUnreachableError(await why_not(settings, error))
    return SourceUnreachableError(
        f"Kafka at {settings.bootstrap} does not answer ({error}). Look whether it runs there, and whether the "
        "address is right."
    )


class Queries:
    """Questions over a client that is connected; each is repeated while the cluster is busy with itself."""

    def __init__(
        self,
        client: Any,
        settings: KafkaSettings,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        group: int = ConnectionGroup.DEFAULT,
    ) -> None:
        """``group`` tells the client's connections to one broker apart, which answers those of each in their order."""
        self._client = client
        self._settings = settings
        self._patience_seconds = patience_seconds
        self._answer_seconds = answer_seconds
        self._group = group
        self._silent: set[int] = set()
        """Brokers that did not answer when they were asked last."""
        self._leaders: dict[Partition, int] = {}
        """Of topics whose offsets were asked for; all are forgotten once one does not answer, and in time."""
        self._leaders_at = 0.0

    async def why_not_let_in(self, error: Exception) -> str:
        """Why we are not let in, where we have to be known; empty where we need not."""
        return "" if self._settings.security_protocol == "PLAINTEXT" else await why_not(self._settings, error)

    async def cluster_id(self) -> str:
        return str((await self.metadata([])).cluster_id)

    async def metadata(self, topics: Iterable[str]) -> Any:
        """Kafka's own answer about brokers and these topics."""
        return await self._patiently(lambda: self._metadata(topics))

    async def learn_leaders(self, topics: Iterable[str]) -> None:
        """Have the client know anew who leads the partitions of these topics, which are all that it follows."""
        self._client.cluster.update_metadata(await self.metadata(topics))

    async def ask(self, request: Any, broker: int | None = None) -> Any:
        """The answer of a broker, or of any. Raises IncompatibleBrokerVersion for what it does not know."""

        async def ask() -> Any:
            return await self._send(self._any_broker() if broker is None else broker, request)

        return await self._patiently(ask)

    async def ask_controller(self, request: Any) -> Any:
        """The answer of the broker that decides about topics."""

        async def ask() -> Any:
            controller = self._client.cluster.controller
            node = self._any_broker() if controller is None else controller.nodeId
            answer = await self._send(node, request, DECIDE_SECONDS)
            if any(code == NotControllerError.errno for _, code, *_ in answer.topic_errors):
                raise NotControllerError
            return answer

        return await self._patiently(ask)

    async def group_rights(self, group: str) -> int:
        """Bits, as Kafka tells them, of what this user may do with a consumer group.

        Raises GroupAuthorizationFailedError, and IncompatibleBrokerVersion where that is not told.
        """

        async def ask() -> int:
            # Looked up each time: another broker may have the group by now.
            found = await self._send(
                self._any_broker(), FindCoordinatorRequest(group, CoordinationType.GROUP)
            )
            if found.error_code:
                raise for_code(found.error_code)(group)
            answer = await self._send(found.coordinator_id, GroupRightsRequest(group))
            ((code, *_, bits),) = answer.groups
            if code:
                raise for_code(code)(group)
            return int(bits)

        return await self._patiently(ask)

    async def create_by_naming(self, topic: str) -> bool:
        """Ask about a topic so that it comes to be, where the brokers do so; False where it was there."""
        if await self.leaders_of(topic):
            return False
        await self.ask(MetadataRequest([topic], allow_auto_topic_creation=True))
        await self.until_known(topic)
        return True

    async def until_known(self, topic: str) -> None:
        """Wait until all partitions of a topic that was just made have leaders."""

        async def ask() -> None:
            ((code, _, _, partitions),) = (await self._metadata([topic])).topics
            if code or any(leader < 0 for _, _, leader, *_ in partitions):
                raise LeaderNotAvailableError(topic)

        await self._patiently(ask)

    async def leaders_of(self, topic: str) -> dict[Partition, int]:
        """The broker that leads each partition of a topic; empty where there is no such topic."""

        async def ask() -> dict[Partition, int]:
            answer = await self._metadata([topic])
            (found,) = answer.topics
            if error := found[0]:
                raise for_code(error)(topic)
            return {Partition(topic, number): leader for _, number, leader, *_ in found[3]}

        try:
            return await self._patiently(ask)
        except NoSuchTopicError:
            return {}

    async def topic_ids(
        self, topics: Collection[str], broker: int | None = None, *, beside: int | None = None
    ) -> dict[str, str | SourceError]:
        """What tells topics from others that have had their names, as this broker knows them, or any, but rather not
        the one ``beside`` which it is asked; empty where it does not tell. Of each that it does not know, why.

        It is asked once. Raises SourceUnreachableError.
        """
        try:
            node = self._any_broker(beside) if broker is None else broker
            answer = await self._send(node, TopicIdsRequest(topics))
        except IncompatibleBrokerVersion:
            return dict.fromkeys(topics, "")
        except KafkaError as error:
            self._client.force_metadata_update()
            raise await unreachable(self._settings, error) from error
        told = {topic: (code, topic_id) for code, topic, topic_id, *_ in answer.topics}
        return {topic: self._id_of(topic, *told[topic]) for topic in topics}

    def _id_of(self, topic: str, code: int, topic_id: bytes) -> str | SourceError:
        error = for_code(code)
        if error is UnknownTopicOrPartitionError:
            return self._no_such(topic)
        if error is TopicAuthorizationFailedError:
            return NotAllowedError(may_not_see(self._settings.bootstrap, topic))
        return SourceError(f"{topic} cannot be read just now: {error()}") if code else shown(topic_id)

    def _no_such(self, name: object) -> NoSuchTopicError:
        return NoSuchTopicError(
            f"{name} does not exist on {self._settings.bootstrap}, or this user "
            "may not see it. Create it, or correct its name."
        )

    async def offsets(self, timestamps: Mapping[Partition, int]) -> dict[Partition, int]:
        """For each partition the first offset at or after a time in milliseconds, or of EARLIEST or LATEST.

        What an open transaction holds back counts as not there: LATEST is the last stable offset. NOT_FOUND
        where there is no record so late. Raises NoSuchTopicError, SourceUnreachableError or SourceError.
        """
        return await self._patiently(lambda: self._offsets(timestamps)) if timestamps else {}

    async def _offsets(self, timestamps: Mapping[Partition, int]) -> dict[Partition, int]:
        try:
            by_leader = await self._by_leader(timestamps)
            answers = await asyncio.gather(
                *(
                    self._send(leader, OffsetRequest(-1, READ_COMMITTED, list(topics.items())))
                    for leader, topics in by_leader.items()
                )
            )
            found: dict[Partition, int] = {}
            for answer in answers:
                for topic, partitions in answer.topics:
                    for number, code, _, offset in partitions:
                        if code:
                            error = for_code(code)
                            where = topic if error is TopicAuthorizationFailedError else f"{topic}/{number}"
                            raise error(where)
                        found[Partition(topic, number)] = offset
        except KafkaError:
            # Others may lead by now.
            self._leaders = {}
            raise
        return found

    async def _by_leader(
        self, timestamps: Mapping[Partition, int]
    ) -> Mapping[int, Mapping[str, list[tuple[int, int]]]]:
        if time.monotonic() - self._leaders_at > LEADERS_SECONDS:
            self._leaders, self._leaders_at = {}, time.monotonic()
        leaders = self._leaders
        if topics := sorted({partition.topic for partition in timestamps.keys() - leaders.keys()}):
            answer = await self._metadata(topics)
            told: dict[Partition, int] = {}
            for code, topic, _, partitions in answer.topics:
                if code:
                    raise for_code(code)(topic)
                told |= {Partition(topic, number): leader for _, number, leader, *_ in partitions}
            leaders = leaders | told
            self._leaders |= {partition: leader for partition, leader in told.items() if leader >= 0}
        by_leader: dict[int, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for partition, timestamp in timestamps.items():
            leader = leaders.get(partition)
            if leader is None:
                raise UnknownTopicOrPartitionError(str(partition))
            if leader < 0:
                raise LeaderNotAvailableError(str(partition))
            by_leader[leader][partition.topic].append((partition.number, timestamp))
        return by_leader

    async def _metadata(self, topics: Iterable[str]) -> Any:
        # Asking about a topic must not create it.
        request = MetadataRequest(list(topics), allow_auto_topic_creation=False)
        return await self._send(self._any_broker(), request)

    def _any_broker(self, beside: int | None = None) -> int:
        """One of those that are known, and rather one that answers, and another one than this."""
        known = [broker.nodeId for broker in self._client.cluster.brokers()]
        if not known:
            raise StaleMetadata
        answering = [one for one in known if one not in self._silent]
        others = [one for one in answering if one != beside]
        return int(random.choice(others or answering or known))  # noqa: S311 - no secret

    async def _send(self, node: int, request: Any, seconds: float | None = None) -> Any:
        seconds = self._answer_seconds if seconds is None else seconds
        try:
            async with asyncio.timeout(seconds):
                answer = await self._client.send(node, request, group=self._group)
        except IncompatibleBrokerVersion:
            raise
        except (KafkaError, TimeoutError) as error:
            self._silent.add(node)
            if isinstance(error, TimeoutError):
                raise RequestTimedOutError(f"broker {node} did not answer within {seconds:.0f} s") from error
            raise
        self._silent.discard(node)
        return answer

    async def _patiently(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        began = time.monotonic()
        while True:
            try:
                return await ask()
            except UnknownTopicOrPartitionError as error:
                if time.monotonic() - began > min(MISSING_PATIENCE_SECONDS, self._patience_seconds):
                    raise self._no_such(error.args[0]) from error
            except (IncompatibleBrokerVersion, GroupAuthorizationFailedError):
                raise
            except TopicAuthorizationFailedError as error:
                raise NotAllowedError(may_not_see(self._settings.bootstrap, error.args[0])) from error
            except KafkaError as error:
                if not error.retriable:
                    raise SourceError(f"Kafka at {self._settings.bootstrap} refused: {error}.") from error
                if time.monotonic() - began > self._patience_seconds:
                    raise await unreachable(self._settings, error) from error
                self._client.force_metadata_update()
            await asyncio.sleep(RETRY_SECONDS)
