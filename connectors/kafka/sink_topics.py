"""Topics as the sink knows them: leaders, since when they refuse, how large batches may be.

Records are refused for good where it may be the records that are at fault, since they name the topic: it does not
exist, or may not be written to. That a topic is there and one of its partitions has no leader is never their fault:
that passes, and until then everything waits, so that nothing overtakes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

from aiokafka.protocol.metadata import MetadataRequest

from connectors.kafka.sink_codes import NO_TOPIC, Code, words
from connectors.kafka.sink_limits import SinkLimits
from connectors.sink import SinkUnavailableError

Ask = Callable[[Any], Awaitable[Any]]
_NO_LEADER = -1


class TopicsRefusedError(Exception):
    """Topics that will not take records: topic -> why, in words."""

    def __init__(self, refused: Mapping[str, str]) -> None:
        self.refused = refused
        super().__init__(f"{len(refused)} topics refused")


class Topics:
    """Outlives the connection, so that what was learnt once is not waited for again."""

    def __init__(self, limits: SinkLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._leaders: dict[str, list[int]] = {}
        self._asked: dict[str, float] = {}
        self._refusing: dict[str, tuple[int, float]] = {}
        """Topic -> what was answered, and since when without a break."""
        self._bytes_max: dict[str, int] = {}

    def forget_leaders(self, topics: Collection[str] | None = None) -> None:
        """Ask anew about these topics, or about all."""
        for topic in list(self._leaders if topics is None else topics):
            self._leaders.pop(topic, None)

    async def leaders(self, topics: Collection[str], ask: Ask) -> Mapping[str, list[int]]:
        """The leader of each partition, by topic; waits for topics that do not exist yet, or are not in order.

        Raises:
            TopicsRefusedError: these have been missing or forbidden for too long.
            SinkUnavailableError: one is still not in order after ``topic_wait_seconds``.
        """
        since: float | None = None
        while unknown := [topic for topic in topics if not self._is_fresh(topic)]:
            missing = self._learn(await ask(MetadataRequest(unknown)))
            if missing:
                self.refuse(missing)
                if Code.TOPIC_AUTHORIZATION_FAILED in missing.values():
                    # Whoever is to allow it should hear of it now.
                    raise SinkUnavailableError(f"Kafka does not take records for {told(missing)}")
                since = self._clock() if since is None else since
                if self._clock() - since >= self._limits.topic_wait_seconds:
                    raise SinkUnavailableError(f"Kafka does not take records for {told(missing)}")
                await asyncio.sleep(self._limits.topic_poll_seconds)
        return self._leaders

    def refuse(self, codes: Mapping[str, int]) -> None:
        """Note that topics do not take records.

        Raises:
            TopicsRefusedError: for those that have been missing or forbidden for too long, or cannot ever be.
        """
        now = self._clock()
        refused = {}
        for topic, code in codes.items():
            self._leaders.pop(topic, None)
            if code not in NO_TOPIC:
                self._refusing.pop(topic, None)
                continue
            if self._refusing.get(topic, (None,))[0] != code:
                self._refusing[topic] = (code, now)
            seconds = now - self._refusing[topic][1]
            if code == Code.INVALID_TOPIC or seconds >= self._patience(code):
                refused[topic] = (
                    f"topic {topic!r}: {words(code)} for {seconds:.0f} seconds{_cure(topic, code)}"
                )
        if refused:
            raise TopicsRefusedError(refused)

    def admitted(self, topics: Iterable[str]) -> None:
        """Note that topics are there and may be written to: what they refused before counts no more."""
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

    def _patience(self, code: int) -> float:
        if code == Code.TOPIC_AUTHORIZATION_FAILED:
            return self._limits.topic_forbidden_seconds
        return self._limits.topic_wait_seconds

    def _is_fresh(self, topic: str) -> bool:
        return (
            topic in self._leaders and self._clock() - self._asked[topic] < self._limits.metadata_age_seconds
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
                self._asked[topic] = self._clock()
                self._found(topic)
        return missing

    def _found(self, topic: str) -> None:
        """It exists. That says nothing of whether it may be written to: only a transaction can tell."""
        if self._refusing.get(topic, (None,))[0] != Code.TOPIC_AUTHORIZATION_FAILED:
            self._refusing.pop(topic, None)


def told(codes: Mapping[str, int]) -> str:
    """Topics with what they answered, for a person."""
    return ", ".join(f"{topic}: {words(code)}{_cure(topic, code)}" for topic, code in codes.items())


def _cure(topic: str, code: int) -> str:
    return f" Allow WRITE on the topic {topic}." if code == Code.TOPIC_AUTHORIZATION_FAILED else ""
