"""Membership of a group on real Kafka: members that stand still, lost brokers, partitions that are added."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from connectors.kafka import membership as module
from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.membership import KafkaMembership
from connectors.kafka.settings import KafkaSettings
from connectors.source import Partition
from engine.services.apache_kafka import ApacheKafka
from engine.services.mock_broker import MockBroker
from tests import services
from tests.contract.test_membership import Witness
from tests.contract.test_source import DEADLINE_SECONDS
from tests.integration.test_kafka_source import producing, reading
from tests.services import Kafka, TopicFactory

MEMBER = """
import asyncio, sys
from connectors.kafka.membership import KafkaMembership
from connectors.kafka.settings import KafkaSettings

async def tell(what, partitions):
    print(what, *sorted(partition.number for partition in partitions), flush=True)

async def main(bootstrap, group, topic):
    member = KafkaMembership(KafkaSettings(bootstrap), group, session_seconds=2.0, heartbeat_seconds=0.3)
    await member.start([topic], lambda got: tell("assigned", got), lambda lost: tell("revoked", lost))
    await member.watch()

asyncio.run(main(*sys.argv[1:]))
"""


SOON_SECONDS = 2.0
"""A session so short that the broker gives up within it who is not there any more."""
NOT_WAITED_SECONDS = module.STOP_SECONDS + 2
"""A member that waited for an answer would do so for as long as a rebalance may take."""


@contextlib.asynccontextmanager
async def joined(
    bootstrap: str, group: str, topic: str, witness: Witness, **options: Any
) -> AsyncIterator[KafkaMembership]:
    """A member, until the end of the block; on a busy machine it may be silent for long, and stays one."""
    options = {"session_seconds": 30.0, "heartbeat_seconds": 0.2, **options}
    membership = KafkaMembership(KafkaSettings(bootstrap), group, **options)
    await membership.start([topic], witness.on_assigned, witness.on_revoked)
    try:
        yield membership
    finally:
        await membership.stop()


async def add_partitions(bootstrap: str, topic: str, count: int) -> None:
    admin: Any = AIOKafkaAdminClient  # aiokafka is not typed
    partitions: Any = NewPartitions
    client = admin(bootstrap_servers=bootstrap)
    await client.start()
    try:
        await client.create_partitions({topic: partitions(count)})
    finally:
        await client.close()


async def test_a_member_that_stands_still_loses_its_partitions_and_comes_back(
    kafka: Kafka, topic: TopicFactory
) -> None:
    name = await topic("still", partitions=4)
    witness = Witness("here")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEMBER, kafka.bootstrap, name, name, stdout=asyncio.subprocess.PIPE
    )
    stdout = process.stdout
    assert stdout is not None

    async def says(what: bytes, partitions: int) -> None:
        """Wait until it has said so; where it stood still for a moment by itself, it says the same once more."""
        said: list[bytes] = []
        while (said[:1], len(said)) != ([what], 1 + partitions):
            said = (await stdout.readline()).split()
            assert said, "it has ended"

    try:
        async with asyncio.timeout(3 * DEADLINE_SECONDS):
            await says(b"assigned", 4)
            async with joined(kafka.bootstrap, name, name, witness):
                await witness.until(lambda: len(witness.has or ()) == 2)
                await says(b"revoked", 4)
                await says(b"assigned", 2)
                os.kill(process.pid, signal.SIGSTOP)
                await witness.until(lambda: len(witness.has or ()) == 4)
                os.kill(process.pid, signal.SIGCONT)
                await says(b"revoked", 2)
                await witness.until(lambda: len(witness.has or ()) == 2)
                await says(b"assigned", 2)
    finally:
        process.kill()
        await process.wait()


async def test_a_member_that_never_reads_stays_a_member(
    kafka: Kafka, topic: TopicFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEVER_MILLISECONDS", 1500)
    monkeypatch.setattr(module, "KEEP_MILLISECONDS", 300)
    name = await topic("idle", partitions=2)
    witness = Witness("idle")
    async with joined(kafka.bootstrap, name, name, witness) as membership:
        await witness.until(lambda: len(witness.has or ()) == 2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4):
                await membership.watch()
        assert [what for _, what, _ in witness.history] == ["assigned"]
        async with joined(kafka.bootstrap, name, name, Witness("other")):
            await witness.until(lambda: len(witness.has or ()) == 1)


async def test_a_membership_outlives_its_broker(restartable_kafka: ApacheKafka) -> None:
    bootstrap = restartable_kafka.bootstrap
    name = await services.Topics(bootstrap)("outlived", partitions=2)
    witness, other = Witness("first"), Witness("other")
    # Who could not say goodbye is not waited for.
    soon = {"session_seconds": SOON_SECONDS}
    async with joined(bootstrap, name, name, witness, **soon) as membership:
        await witness.until(lambda: len(witness.has or ()) == 2)
        restartable_kafka.kill()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await membership.watch()
        await asyncio.to_thread(restartable_kafka.start_again)
        async with joined(bootstrap, name, name, other, **soon):
            await other.until(lambda: len(other.has or ()) == 1)
            await witness.until(lambda: len(witness.has or ()) == 1)
        await witness.until(lambda: len(witness.has or ()) == 2)


async def test_stopping_does_not_wait_for_a_broker_that_is_away(restartable_kafka: ApacheKafka) -> None:
    bootstrap = restartable_kafka.bootstrap
    name = await services.Topics(bootstrap)("away", partitions=1)
    witness = Witness("only")
    async with joined(bootstrap, name, name, witness) as membership:
        await witness.until(lambda: bool(witness.has))
        restartable_kafka.pause()
        try:
            async with asyncio.timeout(NOT_WAITED_SECONDS):
                await membership.stop()
        finally:
            restartable_kafka.resume()
    assert witness.history[-1][1] == "gave back"


async def test_stopping_does_not_wait_for_members_that_take_their_time(
    kafka: Kafka, topic: TopicFactory
) -> None:
    name = await topic("slow", partitions=2)
    slow = Witness("slow")
    slow.may_give_back.clear()
    async with joined(kafka.bootstrap, name, name, slow):
        await slow.until(lambda: len(slow.has or ()) == 2)
        hasty = KafkaMembership(KafkaSettings(kafka.bootstrap), name)
        other = Witness("hasty")
        joining = asyncio.create_task(hasty.start([name], other.on_assigned, other.on_revoked))
        await slow.until(lambda: len(slow.history) == 2)
        async with asyncio.timeout(NOT_WAITED_SECONDS):
            joining.cancel()
            await asyncio.wait({joining})
            assert joining.cancelled()
            await hasty.stop()
        slow.may_give_back.set()


@pytest.mark.parametrize("instances", [(None, None), ("a", "b")], ids=["dynamic", "static"])
async def test_added_partitions_are_shared_out(
    kafka: Kafka, topic: TopicFactory, instances: tuple[str | None, str | None]
) -> None:
    name = await topic("grows", partitions=2)
    first, second, again = Witness("first"), Witness("second"), Witness("again")
    leader, follower = ({"instance": instance, "metadata_seconds": 0.5} for instance in instances)
    async with contextlib.AsyncExitStack() as stack:
        before = await stack.enter_async_context(joined(kafka.bootstrap, name, name, first, **leader))
        await stack.enter_async_context(joined(kafka.bootstrap, name, name, second, **follower))
        await first.until(lambda: len(first.has or ()) == 1)
        await second.until(lambda: len(second.has or ()) == 1)
        # The leader of a group is who shares out, and looks for new partitions.
        await before.stop()
        await stack.enter_async_context(joined(kafka.bootstrap, name, name, again, **leader))
        await again.until(lambda: len(again.has or ()) == 1)
        await second.until(lambda: len(second.has or ()) == 1)
        await add_partitions(kafka.bootstrap, name, 6)
        await again.until(lambda: len(again.has or ()) == 3)
        await second.until(lambda: len(second.has or ()) == 3)


async def test_two_members_of_one_instance_name_do_not_fight_for_ever(
    kafka: Kafka, topic: TopicFactory
) -> None:
    name = await topic("twins", partitions=1)
    first, second = Witness("first"), Witness("second")
    async with (
        joined(kafka.bootstrap, name, name, first, instance="same") as one,
        joined(kafka.bootstrap, name, name, second, instance="same") as other,
    ):
        watching = [asyncio.create_task(each.watch()) for each in (one, other)]
        done, still = await asyncio.wait(
            watching, timeout=DEADLINE_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        assert [str(task.exception()) for task in done] == [module.DISPLACED]
        survivor = second if watching[1] in still else first
        await survivor.until_it_has(Partition(name, 0))
        for task in still:
            task.cancel()


async def test_the_small_broker_takes_a_member() -> None:
    with MockBroker.start() as broker:
        settings = KafkaSettings(broker.bootstrap, check_crcs=False)
        async with KafkaAdmin(settings) as admin:
            assert await admin.create_topic("small")
            assert await admin.topic_config("small") == {}
        witness = Witness("only")
        async with joined(broker.bootstrap, "group", "small", witness, session_seconds=10.0):
            await witness.until(lambda: len(witness.has or ()) == 4)


async def test_all_of_it_works_over_tls_with_a_password(sasl_ssl_kafka: ApacheKafka) -> None:
    settings = KafkaSettings(
        sasl_ssl_kafka.bootstrap,
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        username=sasl_ssl_kafka.username,
        password_file=sasl_ssl_kafka.password_file,
        ca_file=sasl_ssl_kafka.ca_file,
    )
    async with KafkaAdmin(settings) as admin:
        assert await admin.create_topic("secret", partitions=1, configs={"max.message.bytes": "12345"})
        assert not await admin.create_topic("secret")
        assert (await admin.topic_config("secret"))["max.message.bytes"] == "12345"
        (broker,) = await admin.brokers()
        assert broker.release is not None
        assert broker.release >= (4, 0)
        assert await admin.topic_exists("secret")
        assert not await admin.topic_exists("other")
    options = settings.client_options()
    del options["bootstrap_servers"]
    witness = Witness("only")
    membership = KafkaMembership(settings, "secret")
    async with producing(settings.bootstrap, **options) as producer, reading(settings) as reader:
        await membership.start(["secret"], witness.on_assigned, witness.on_revoked)
        try:
            await witness.until_it_has(Partition("secret", 0))
            await producer.send_and_wait("secret", b"told")
            reader.assign({Partition("secret", 0): 0})
            chunk = await reader.fetch(records_max=10, wait_seconds=DEADLINE_SECONDS)
            assert [record.value for record in chunk.records[Partition("secret", 0)]] == [b"told"]
        finally:
            await membership.stop()
