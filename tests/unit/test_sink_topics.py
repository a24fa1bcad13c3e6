"""When the Kafka sink refuses a topic's records for good, and when it only waits: told by a cluster's answers."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from connectors.kafka.sink_codes import Code
from connectors.kafka.sink_limits import SinkLimits
from connectors.kafka.sink_topics import Topics, TopicsRefusedError
from connectors.sink import SinkUnavailableError

LIMITS = SinkLimits(topic_wait_seconds=10, topic_forbidden_seconds=300, topic_poll_seconds=0)
IN_ORDER = (Code.NONE, (1, 2))
ONE_WITHOUT_LEADER = (Code.NONE, (1, -1))
MISSING = (Code.UNKNOWN_TOPIC_OR_PARTITION, ())
FORBIDDEN = (Code.TOPIC_AUTHORIZATION_FAILED, ())

Answer = tuple[int, Sequence[int]]


class Cluster:
    """Answers what it is told to about every topic, a second after it was asked."""

    def __init__(self) -> None:
        self.now = 0.0
        self.says: Answer = IN_ORDER
        self.topics = Topics(LIMITS, self.clock)

    def clock(self) -> float:
        return self.now

    async def ask(self, request: Any) -> Any:
        self.now += 1
        code, leaders = self.says
        partitions: list[tuple[int, int, int, list[int], list[int]]] = [
            (0, number, leader, [], []) for number, leader in enumerate(leaders)
        ]
        return SimpleNamespace(topics=[(code, topic, False, partitions) for topic in request._topics])

    async def publish(self, says: Answer, written: int = Code.NONE) -> str:
        """What becomes of a record for the topic, if its transaction is answered ``written``."""
        self.says = says
        self.topics.forget_leaders()
        try:
            await self.topics.leaders(["t"], self.ask)
            if written != Code.NONE:
                self.topics.refuse({"t": written})
                return "waits"
        except TopicsRefusedError as error:
            return error.refused["t"]
        except SinkUnavailableError:
            return "waits"
        self.topics.admitted(["t"])
        return "published"


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.mark.parametrize("says", [ONE_WITHOUT_LEADER, (Code.LEADER_NOT_AVAILABLE, ()), (Code.NONE, (-1,))])
async def test_a_partition_without_a_leader_refuses_nothing_however_long(
    cluster: Cluster, says: Answer
) -> None:
    while cluster.now < 3_600:
        assert await cluster.publish(says) == "waits"
    assert await cluster.publish(IN_ORDER) == "published"


async def test_a_call_comes_back_while_a_partition_has_no_leader(cluster: Cluster) -> None:
    assert await cluster.publish(ONE_WITHOUT_LEADER) == "waits"
    assert cluster.now == LIMITS.topic_wait_seconds + 1


async def test_a_topic_that_stays_missing_is_refused_and_then_at_once(cluster: Cluster) -> None:
    assert "UNKNOWN_TOPIC_OR_PARTITION (3)" in await cluster.publish(MISSING)
    refused_at = cluster.now
    assert refused_at == LIMITS.topic_wait_seconds + 1
    assert "UNKNOWN_TOPIC_OR_PARTITION (3)" in await cluster.publish(MISSING)
    assert cluster.now == refused_at + 1


async def test_only_time_without_a_break_counts_for_a_missing_topic(cluster: Cluster) -> None:
    cluster.topics.refuse({"t": Code.UNKNOWN_TOPIC_OR_PARTITION})
    cluster.now += LIMITS.topic_wait_seconds
    # It is there now, and its transaction fails all the same, for something else.
    cluster.says = IN_ORDER
    await cluster.topics.leaders(["t"], cluster.ask)
    cluster.topics.refuse({"t": Code.UNKNOWN_TOPIC_OR_PARTITION})


async def test_time_without_a_leader_does_not_count_as_missing(cluster: Cluster) -> None:
    cluster.topics.refuse({"t": Code.UNKNOWN_TOPIC_OR_PARTITION})
    assert await cluster.publish(ONE_WITHOUT_LEADER) == "waits"
    cluster.topics.refuse({"t": Code.UNKNOWN_TOPIC_OR_PARTITION})


@pytest.mark.parametrize(
    ("says", "written"), [(FORBIDDEN, Code.NONE), (IN_ORDER, Code.TOPIC_AUTHORIZATION_FAILED)]
)
async def test_a_right_may_be_away_for_minutes_and_is_not_waited_for_for_ever(
    cluster: Cluster, says: Answer, written: int
) -> None:
    while cluster.now < LIMITS.topic_forbidden_seconds - 60:
        assert await cluster.publish(says, written) == "waits"
    assert await cluster.publish(IN_ORDER) == "published"
    given_back = cluster.now
    while cluster.now < given_back + LIMITS.topic_forbidden_seconds - 60:
        assert await cluster.publish(says, written) == "waits"
    while (became := await cluster.publish(says, written)) == "waits":
        assert cluster.now < given_back + 2 * LIMITS.topic_forbidden_seconds
    assert "TOPIC_AUTHORIZATION_FAILED (29)" in became


async def test_a_name_that_no_topic_can_have_is_refused_at_once(cluster: Cluster) -> None:
    assert "INVALID_TOPIC (17)" in await cluster.publish((Code.INVALID_TOPIC, ()))
    assert cluster.now == 1


async def test_a_topic_that_may_not_be_seen_is_told_at_once_with_the_right(cluster: Cluster) -> None:
    cluster.says = FORBIDDEN
    with pytest.raises(SinkUnavailableError, match=r"Allow WRITE on the topic t\."):
        await cluster.topics.leaders(["t"], cluster.ask)
    assert cluster.now == 1
