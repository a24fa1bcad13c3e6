"""Relays are killed, stopped and set against each other: nothing is missing, doubled, or out of order."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
import uuid
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from connectors.kafka.settings import KafkaSettings
from engine.relay import relay_status
from engine.services.apache_kafka import ApacheKafka
from engine.services.postgres import EmbeddedPostgres
from engine.store.migrations import migrate
from tests.chaos.relay_process import LIMITS, Orders
from tests.contract.sink_worlds import read_committed
from tests.outbox import Writers, differences, within_deadline
from tests.services import Database, Kafka, TopicFactory, Topics

WRITERS = 3
PARTITIONS = {"first": 3, "second": 1}
PROCESS_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, and how often what is done to the relays."""

    seconds: float
    pause_seconds_max: float
    """Between two faults."""
    faults: dict[str, int]
    """Each kind at least so often."""
    commits_per_second: float = 60.0


SHORT = Plan(15.0, 0.8, {"kill": 5, "die after publishing": 2, "die in commit": 3, "zombie": 3})
LONG = Plan(240.0, 1.5, {"kill": 40, "die after publishing": 15, "die in commit": 25, "zombie": 20})
SERVICES = Plan(120.0, 3.0, {"kill": 10, "zombie": 5, "kill kafka": 5, "crash postgres": 6})


class Relays:
    """Two relay processes at all times, and what was done to them."""

    def __init__(self, orders: Orders, seed: int) -> None:
        self._orders = orders
        self._random = random.Random(seed)
        self._processes: list[asyncio.subprocess.Process] = []
        self.done: Counter[str] = Counter()

    async def keep_two(self) -> None:
        """Replace those that died; one may not wait for its turn, so that they get at each other."""
        for process in list(self._processes):
            if process.returncode is not None:
                assert process.returncode == -signal.SIGKILL, "a relay may only end by being killed"
                self._processes.remove(process)
        while len(self._processes) < 2:
            await self._start(replace(self._orders, wait_for_turn=self._random.random() < 0.5))

    async def torment(self, fault: str) -> None:
        """Do one thing to one process."""
        victim = self._random.choice(self._processes)
        match fault:
            case "kill":
                victim.kill()
                await victim.wait()
            case "zombie":
                victim.send_signal(signal.SIGSTOP)
                await asyncio.sleep(LIMITS.silence_seconds * self._random.uniform(0.2, 2.0))
                victim.send_signal(signal.SIGCONT)
            case "die after publishing":
                await self._let_die(replace(self._orders, die_after_publishing=self._random.randint(1, 4)))
            case "die in commit":
                await self._let_die(replace(self._orders, die_in_commit=self._random.randint(1, 4)))
            case _:
                raise AssertionError(fault)
        self.done[fault] += 1

    async def end_all(self) -> None:
        """Kill all."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._processes.clear()

    async def _start(self, orders: Orders) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(*orders.argv())
        self._processes.append(process)
        return process

    async def _let_die(self, orders: Orders) -> None:
        # Alone, so that it gets to publish and to die of it.
        await self.end_all()
        process = await self._start(replace(orders, wait_for_turn=False))
        async with asyncio.timeout(PROCESS_SECONDS):
            await process.wait()


class Servers:
    """The servers of a test's own, to be killed while relays are at work."""

    def __init__(self, kafka: ApacheKafka, postgres: EmbeddedPostgres) -> None:
        self._kafka = kafka
        self._postgres = postgres

    async def torment(self, fault: str) -> None:
        """End a server as a crash would, and start it again."""
        match fault:
            case "kill kafka":
                await asyncio.to_thread(self._kafka.kill)
                await asyncio.to_thread(self._kafka.start_again)
            case "crash postgres":
                await asyncio.to_thread(self._postgres.stop, "immediate")
                await asyncio.to_thread(self._postgres.start_again)
            case _:
                raise AssertionError(fault)


async def survive(
    plan: Plan, orders: Orders, owner_dsn: str, topics: dict[str, str], *, servers: Servers | None = None
) -> None:
    """Commit and torment as planned, wait until all is published, and compare."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chosen = random.Random(seed)
    writers = Writers(orders.dsn, orders.namespace, list(topics.values()), seed=seed)
    await writers.prepare(owner_dsn)
    stop = asyncio.Event()
    relays = Relays(orders, seed)
    try:
        writing = [
            asyncio.create_task(
                writers.write(
                    number,
                    lambda _: not stop.is_set(),
                    transactions_per_second=plan.commits_per_second / WRITERS,
                )
            )
            for number in range(WRITERS)
        ]
        end = time.monotonic() + plan.seconds
        while (wanting := _wanting(plan, relays.done)) or time.monotonic() < end:
            await relays.keep_two()
            fault = chosen.choice(wanting or list(plan.faults))
            if fault in ("kill kafka", "crash postgres"):
                assert servers is not None
                await servers.torment(fault)
                relays.done[fault] += 1
            else:
                await relays.torment(fault)
            await asyncio.sleep(chosen.uniform(0.0, plan.pause_seconds_max))
        stop.set()
        await asyncio.gather(*writing)
        await _until_published(relays, orders, await writers.last())
    finally:
        stop.set()
        await relays.end_all()
    for name, topic in topics.items():
        found = await read_committed(orders.bootstrap, topic)
        assert differences(found, await writers.expected(topic, PARTITIONS[name])) == {}
    print(f"{writers.records} records; {dict(relays.done)}")


def _wanting(plan: Plan, done: Counter[str]) -> list[str]:
    return [fault for fault, count in plan.faults.items() if done[fault] < count]


async def _until_published(relays: Relays, orders: Orders, last: int) -> None:
    async def is_published() -> bool:
        await relays.keep_two()
        status = await relay_status(orders.dsn, KafkaSettings(orders.bootstrap), orders.namespace)
        assert status.healthy, status.reason
        return status.progress == last

    await within_deadline(is_published)


@pytest.fixture
async def topics(topic: TopicFactory) -> dict[str, str]:
    return {name: await topic(name, partitions=number) for name, number in PARTITIONS.items()}


@pytest.fixture
def orders(database: Database, kafka: Kafka) -> Orders:
    return Orders(database.engine_dsn, kafka.bootstrap, f"chaos-{uuid.uuid4().hex[:10]}")


async def test_killed_and_stopped_relays_publish_everything_once_and_in_order(
    database: Database, orders: Orders, topics: dict[str, str]
) -> None:
    await survive(SHORT, orders, database.owner_dsn, topics)


@pytest.mark.long
async def test_relays_killed_a_hundred_times_publish_everything_once_and_in_order(
    database: Database, orders: Orders, topics: dict[str, str]
) -> None:
    await survive(LONG, orders, database.owner_dsn, topics)


@pytest.mark.long
async def test_relays_between_crashing_servers_publish_everything_once_and_in_order(
    restartable_kafka: ApacheKafka, restartable_postgres: EmbeddedPostgres
) -> None:
    dsn = restartable_postgres.dsn()
    await migrate(dsn)
    restartable_postgres.add_login("pointsman", member_of="pointsman_engine")
    topics = Topics(restartable_kafka.bootstrap)
    orders = Orders(restartable_postgres.dsn("pointsman"), restartable_kafka.bootstrap, "chaos")
    made = {name: await topics(name, partitions=number) for name, number in PARTITIONS.items()}
    servers = Servers(restartable_kafka, restartable_postgres)
    await survive(SERVICES, orders, dsn, made, servers=servers)
