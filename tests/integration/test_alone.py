"""Who is alone on a broker has all partitions from the first moment, also after a predecessor was killed."""

from __future__ import annotations

import asyncio

import pytest

from connectors.kafka.alone import AloneMembership
from connectors.kafka.settings import KafkaSettings
from connectors.source import NoSuchTopicError, Partition
from tests.contract.test_membership import Witness
from tests.services import Kafka, TopicFactory


async def test_all_partitions_are_had_at_once_and_given_back_at_the_end(
    kafka: Kafka, topic: TopicFactory
) -> None:
    names = [await topic("one", partitions=2), await topic("two", partitions=1)]
    all_of_them = frozenset({Partition(names[0], 0), Partition(names[0], 1), Partition(names[1], 0)})
    settings = KafkaSettings(kafka.bootstrap)
    before, witness = Witness("before"), Witness("only")
    never_stopped = AloneMembership(settings)
    await never_stopped.start(names, before.on_assigned, before.on_revoked)
    membership = AloneMembership(settings)
    await membership.start(names, witness.on_assigned, witness.on_revoked)
    await witness.until_it_has(*all_of_them)
    watching = asyncio.create_task(membership.watch())
    await membership.stop()
    await watching
    told = [(what, partitions) for _, what, partitions in witness.history]
    assert told == [
        ("assigned", all_of_them),
        ("asked to give back", all_of_them),
        ("gave back", all_of_them),
    ]
    assert membership.trouble() is None


async def test_what_a_callback_raises_is_raised_by_watch(kafka: Kafka, topic: TopicFactory) -> None:
    async def fail(partitions: frozenset[Partition]) -> None:
        raise ValueError("no room")

    membership = AloneMembership(KafkaSettings(kafka.bootstrap))
    await membership.start([await topic("one")], fail, Witness("only").on_revoked)
    with pytest.raises(ValueError, match="no room"):
        await membership.watch()


async def test_a_topic_that_does_not_exist_is_named(kafka: Kafka) -> None:
    membership = AloneMembership(KafkaSettings(kafka.bootstrap))
    with pytest.raises(NoSuchTopicError, match="there-is-none"):
        await membership.start(["there-is-none"], Witness("a").on_assigned, Witness("a").on_revoked)
