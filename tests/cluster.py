"""A real cluster of three brokers on loopback, any of which may be killed and started again.

Three replicas, two of which must have a record before it counts: so with one broker away nothing is broken, and with
two away nothing can be written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import KafkaError
from confluent_kafka import ElectionType, KafkaException
from confluent_kafka.admin import AdminClient

from engine.services import ports
from engine.services.apache_kafka import ApacheKafka, new_cluster
from engine.services.errors import ServiceError

BROKERS = (1, 2, 3)
HEAP = "256m"
SETTINGS = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "transaction.state.log.num.partitions": "3",
    # Where the controller dies, another one is chosen soon.
    "controller.quorum.fetch.timeout.ms": "1000",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.election.backoff.max.ms": "200",
    # Who leads what is for the tests to say.
    "auto.leader.rebalance.enable": "false",
}
SETTLED_SECONDS = 60.0
ASK_SECONDS = 5.0
POLL_SECONDS = 0.05


class KafkaCluster:
    """Three brokers; a context manager that stops those that run."""

    def __init__(self, brokers: Mapping[int, ApacheKafka]) -> None:
        self.brokers = brokers
        self.away: set[int] = set()

    @classmethod
    def start(cls, folder: Path) -> Self:
        """Start all three at once, since none of them is ready before the others are. Raises ServiceError."""
        what, option = "Apache Kafka", "--kafka-port"
        clients = {number: ports.choose(0, what, option) for number in BROKERS}
        controllers = {number: ports.choose(0, what, option) for number in BROKERS}
        voters = ",".join(f"{number}@{ports.HOST}:{port}" for number, port in controllers.items())
        cluster = new_cluster()

        def begin(number: int) -> ApacheKafka:
            listeners = [
                f"{name}://{ports.HOST}:{many[number]}"
                for name, many in (("PLAINTEXT", clients), ("CONTROLLER", controllers))
            ]
            own = {
                "node.id": str(number),
                "controller.quorum.voters": voters,
                "listeners": ",".join(listeners),
            }
            return ApacheKafka.start(
                folder / f"broker-{number}",
                port=clients[number],
                settings={**SETTINGS, **own},
                heap=HEAP,
                cluster=cluster,
            )

        brokers: dict[int, ApacheKafka] = {}
        failed: list[ServiceError] = []
        with ThreadPoolExecutor(len(BROKERS)) as pool:
            for number, starting in {number: pool.submit(begin, number) for number in BROKERS}.items():
                try:
                    brokers[number] = starting.result()
                except ServiceError as error:
                    failed.append(error)
        started = cls(brokers)
        if failed:
            started.stop()
            raise failed[0]
        return started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """The addresses of all, whether they are there or not."""
        return ",".join(broker.bootstrap for broker in self.brokers.values())

    def stop(self) -> None:
        """End all that are there, at once: the last ones could not end in order any more."""
        for broker in self.brokers.values():
            if broker.is_started:
                broker.kill()

    async def kill(self, number: int) -> None:
        """End a broker as a crash would."""
        self.away.add(number)
        await asyncio.to_thread(self.brokers[number].kill)

    async def start_again(self, number: int) -> None:
        """Start it once more; returns when every partition is where it should be, and in sync."""
        await asyncio.to_thread(self.brokers[number].start_again)
        self.away.discard(number)
        await self.in_sync()

    async def pause(self, number: int) -> None:
        """Stop a broker's time, as where its machine is gone: what is connected to it is not told."""
        self.away.add(number)
        await asyncio.to_thread(self.brokers[number].pause)

    async def resume(self, number: int) -> None:
        """Let it go on; returns when every partition is in sync."""
        self.brokers[number].resume()
        self.away.discard(number)
        await self.in_sync()

    async def in_sync(self) -> None:
        """Wait until every partition has a leader and all its replicas in sync."""
        await self._until(_in_sync)

    async def _until(self, is_settled: Callable[[Any], bool]) -> None:
        """Wait until this is so of every partition."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while left := await asyncio.to_thread(self._left, is_settled):
            assert time.monotonic() < deadline, f"not settled within {SETTLED_SECONDS:.0f} s: {left}"
            await asyncio.sleep(POLL_SECONDS)

    async def leader(self, topic: str, partition: int = 0) -> int:
        """The broker that leads a partition."""
        return (await self.leaders(topic))[partition]

    async def leaders(self, topic: str) -> list[int]:
        """The brokers that lead its partitions, in their order, once all brokers know of them and say the same."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while True:
            told = [(await asyncio.to_thread(self._topics, one)).get(topic) for one in self._there()]
            found = [
                [int(one.leader) for _, one in sorted(each.partitions.items())] if each else []
                for each in told
            ]
            leaders = found[0]
            if leaders and min(leaders) >= 0 and all(one == leaders for one in found):
                return leaders
            assert time.monotonic() < deadline, f"{topic} is led by {found}"
            await asyncio.sleep(POLL_SECONDS)

    async def elect_preferred(self) -> None:
        """Have every partition be led by the broker that is meant to, in an orderly way, and wait until all are."""

        def elect() -> None:
            admin = self._admin(self._there()[0])
            admin.elect_leaders(ElectionType.PREFERRED, None).result(SETTLED_SECONDS)

        await asyncio.to_thread(elect)
        await self._until(_as_preferred)

    async def coordinates(self, kind: CoordinationType, key: str) -> int:
        """The broker that coordinates a group, or the transactions of a producer."""
        make: Any = AIOKafkaClient  # aiokafka is not typed
        client = make(bootstrap_servers=self.bootstrap)
        await client.bootstrap()
        try:
            async with asyncio.timeout(SETTLED_SECONDS):
                while True:
                    with contextlib.suppress(KafkaError):
                        return int(await client.coordinator_lookup(kind, key))
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            await client.close()

    def _admin(self, number: int) -> Any:
        silent = logging.Logger(__name__, level=logging.CRITICAL + 1)  # noqa: LOG001 - of nobody else
        return AdminClient({"bootstrap.servers": self.brokers[number].bootstrap}, logger=silent)

    def _topics(self, number: int) -> Mapping[str, Any]:
        """As this broker knows them; the one that a client begins with is the first that it asks."""
        found: Mapping[str, Any] = self._admin(number).list_topics(timeout=ASK_SECONDS).topics
        return found

    def _there(self) -> list[int]:
        return sorted(self.brokers.keys() - self.away)

    def _left(self, is_settled: Callable[[Any], bool]) -> list[str]:
        """The partitions that are not settled, as words; every broker is asked, since each hears of it by itself."""
        try:
            views = {number: self._topics(number) for number in self._there()}
        except KafkaException as error:
            return [str(error)]
        return [
            f"{name}/{one.id} to broker {number}: led by {one.leader}, in sync {one.isrs} of {one.replicas}"
            for number, topics in views.items()
            for name, topic in topics.items()
            for one in topic.partitions.values()
            if not is_settled(one)
        ]


def _in_sync(partition: Any) -> bool:
    return partition.leader >= 0 and len(partition.isrs) == len(partition.replicas)


def _as_preferred(partition: Any) -> bool:
    return bool(partition.leader == partition.replicas[0])
