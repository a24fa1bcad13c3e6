"""Topics as the sink knows them: leaders, since when they refuse, how large batches may be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

from aiokafka.protocol.metadata import MetadataRequest

from connectors.kafka.sink_codes import Code, words
from connectors.kafka.sink_limits import SinkLimits

Ask = Callable[[Any], Awaitable[Any]]
_NO_LEADER = -1


class TopicsRefusedError(Exception):
    """Topics that will not take records: topic -> why, in words."""

    def __init__(self, refused: Mapping[str, str]) -> None:
        self.refused = refused
        super().__init__(f"{len(refused)} topics refused")


class Topics:
    """Outlives the connection, so that what was learnt once is not waited for again."""

    def __init__(self, limits: SinkLimits) -> None:
        self._limits = limits
        self._leaders: dict[str, list[int]] = {}
        self._asked: dict[str, float] = {}
        self._refusing: dict[str, float] = {}
        self._bytes_max: dict[str, int] = {}

    def forget_leaders(self, topics: Collection[str] | None = None) -> None:
        """Ask anew about these topics, or about all."""
        for topic in list(self._leaders if topics is None else topics):
            self._leaders.pop(topic, None)

    async def leaders(self, topics: Collection[str], ask: Ask) -> Mapping[str, list[int]]:
        """The leader of each partition, by topic; waits for topics that do not exist yet.

        Raises:
            TopicsRefusedError: these have been missing or forbidden for too long.
        """
        while unknown := [topic for topic in topics if not self._is_fresh(topic)]:
            missing = self._learn(await ask(MetadataRequest(unknown)))
            if missing:
                self.refuse(missing)
                await asyncio.sleep(self._limits.topic_poll_seconds)
        return self._leaders

    def refuse(self, codes: Mapping[str, int]) -> None:
        """Note that topics do not take records.

        Raises:
            TopicsRefusedError: for those that have not for too long, or cannot ever.
        """
        now = time.monotonic()
        refused = {}
        for topic, code in codes.items():
            self._leaders.pop(topic, None)
            since = self._refusing.setdefault(topic, now)
            if code == Code.INVALID_TOPIC or now - since >= self._limits.topic_wait_seconds:
                refused[topic] = f"topic {topic!r}: {words(code)} for {now - since:.0f} seconds"
        if refused:
            raise TopicsRefusedError(refused)

    def took(self, topics: Iterable[str]) -> None:
        """Note that topics took records."""
        if self._refusing:
            for topic in topics:
                self._refusing.pop(topic, None)

    def bytes_max(self, topic: str) -> int:
        """How large a batch may be."""
        return self._bytes_max.get(topic, self._limits.batch_bytes_max)

    def limit_bytes(self, topic: str, bytes_max: int | None) -> None:
        """Make batches for a topic smaller; None: as large as others."""
        if bytes_max is None:
            self._bytes_max.pop(topic, None)
        else:
            self._bytes_max[topic] = bytes_max

    def _is_fresh(self, topic: str) -> bool:
        return (
            topic in self._leaders
            and time.monotonic() - self._asked[topic] < self._limits.metadata_age_seconds
        )

    def _learn(self, answer: Any) -> dict[str, int]:
        missing: dict[str, int] = {}
        for code, topic, _, partitions in answer.topics:
            leaders = {number: leader for _, number, leader, *_ in partitions}
            ready = sorted(leaders) == list(range(len(leaders))) and _NO_LEADER not in leaders.values()
            if code != Code.NONE or not leaders or not ready:
                missing[topic] = code or Code.LEADER_NOT_AVAILABLE
            else:
                self._leaders[topic] = [leaders[number] for number in range(len(leaders))]
                self._asked[topic] = time.monotonic()
        return missing
