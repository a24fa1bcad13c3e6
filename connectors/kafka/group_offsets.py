"""Offsets of a consumer group that has no members: kept for tools that show lag, and read by nobody else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, for_code
from aiokafka.protocol.commit import OffsetCommitRequest

from connectors.kafka.allowing import may_not_join
from connectors.kafka.queries import connect, expect_brokers, unreachable
from connectors.kafka.settings import KafkaSettings
from connectors.source import NotAllowedError, Partition, SourceError

NO_MEMBER = ""


class GroupOffsets:
    """A connection that writes them; an attempt that fails may be made again."""

    def __init__(self, settings: KafkaSettings, group: str) -> None:
        self._settings = settings
        self._group = group
        self._client: Any = None
        self._coordinator: int | None = None

    async def start(self) -> None:
        """Raises SourceUnreachableError."""
        self._client = await connect(self._settings)

    async def stop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Have the group be at these, the next to be read of each partition.

        Raises:
            SourceError: Kafka does not take them, or cannot be reached.
        """
        topics: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for partition, offset in sorted(offsets.items()):
            topics[partition.topic].append((partition.number, offset, ""))
        request = OffsetCommitRequest(
            self._group,
            OffsetCommitRequest.DEFAULT_GENERATION_ID,
            NO_MEMBER,
            OffsetCommitRequest.DEFAULT_RETENTION_TIME,
            list(topics.items()),
        )
        try:
            answer = await self._client.send(await self._found(), request, group=ConnectionGroup.COORDINATION)
            codes = {code for _, partitions in answer.topics for _, code in partitions if code}
            if codes:
                raise for_code(min(codes))(self._group)
        except KafkaError as error:
            # Another broker may have the group by now.
            self._coordinator = None
            if error.retriable:
                raise await unreachable(self._settings, error) from error
            if isinstance(error, GroupAuthorizationFailedError):
                raise NotAllowedError(may_not_join(self._settings.bootstrap, self._group)) from error
            raise SourceError(f"Kafka keeps no offsets of the group {self._group}: {error}.") from error

    async def _found(self) -> int:
        """The broker that has the group, with a connection to it."""
        if self._coordinator is None:
            expect_brokers(self._client)
            found = int(await self._client.coordinator_lookup(CoordinationType.GROUP, self._group))
            await self._client.ready(found, group=ConnectionGroup.COORDINATION)
            self._coordinator = found
        return self._coordinator
