"""What is done to engines and servers, and how often it was done."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random

from aiokafka.client import CoordinationType

from engine.services.apache_kafka import ApacheKafka
from engine.services.postgres import EmbeddedPostgres
from tests.chaos.engine_process import FREEZE, GO_ON
from tests.chaos.parcels import PARCELS
from tests.chaos.slots import Slot, World, until
from tests.cluster import KafkaCluster
from tests.proxy import When

log = logging.getLogger("chaos")

SESSION_SECONDS = 10.0
"""Of the engines' membership; who is silent for longer loses its partitions."""
AIM_TRIES = 40
PATIENCE_SECONDS = 240.0
"""For what comes sooner or later, whatever else is being killed meanwhile."""
COPY_DONE = b"c\0\0\0\4"
LEADER, GROUP, RELAY = "a leader killed", "the group's coordinator killed", "the relay's coordinator killed"
PARTS = (LEADER, GROUP, RELAY)
"""What the broker that is killed was for."""
_TERMINATE = """
select application_name, pg_terminate_backend(pid) from pg_stat_activity
where client_port = any ($1::int[]) and backend_xid is not null
"""


def is_engine_commit(request: bytes) -> bool:
    """Whether these bytes carry the COMMIT of an engine's batch, to their end: behind its message are rows to copy."""
    if b"from stdin" in request:
        return b"commit\0" in request and request.endswith(COPY_DONE)
    return request.endswith(b"commit\0")


@dataclass(slots=True)
class Faults:
    """Each method is one fault; ``counts`` says what happened."""

    world: World
    random: Random
    slots: list[Slot]
    postgres: EmbeddedPostgres
    kafka: ApacheKafka | KafkaCluster
    counts: Counter[str] = field(default_factory=Counter)

    def engines(self) -> list[Slot]:
        """Those that run and that nobody else is doing something to."""
        return [slot for slot in self.slots if slot.process is not None and not slot.busy.locked()]

    @contextlib.asynccontextmanager
    async def _one(self) -> AsyncIterator[Slot]:
        found: list[Slot] = []

        async def somebody() -> bool:
            found[:] = self.engines()
            return bool(found)

        await until(somebody, PATIENCE_SECONDS, "an engine that runs")
        slot = self.random.choice(found)
        async with slot.busy:
            yield slot

    async def kill(self, *, aimed: bool) -> None:
        """SIGKILL at a random moment, or at a random one among those in which a transaction is open."""
        async with self._one() as slot:
            hit = await self._freeze(slot, aimed=aimed)
            self.counts["kill"] += 1
            self.counts["kill in an open transaction"] += hit
            await slot.kill()
            slot.instance = slot.name if self.random.random() < 0.8 else None
            await slot.start()

    async def _freeze(self, slot: Slot, *, aimed: bool) -> bool:
        """Stop the engine's time; whether it has a transaction open then. While frozen it cannot end it."""
        tries = AIM_TRIES if aimed else 1
        for left in range(tries - 1, -1, -1):
            await asyncio.sleep(self.random.uniform(0, 0.15))
            await slot.runs()
            slot.freeze()
            if await slot.in_transaction():
                return True
            if left:
                slot.thaw()
        return False

    async def zombie(self, *, aimed: bool) -> None:
        """SIGSTOP until the group has given its partitions to others and they were taken, then SIGCONT."""
        if len(self.engines()) < 2:
            return
        async with self._one() as slot:
            await slot.said("partitions: ", PATIENCE_SECONDS)
            hit = await self._freeze(slot, aimed=aimed)
            began = time.monotonic()
            before = await self._epochs()
            try:
                await until(
                    lambda: self._all_taken(before), PATIENCE_SECONDS, f"{slot.name}'s partitions taken", 0.2
                )
                lasted = time.monotonic() - began
                if lasted < SESSION_SECONDS:
                    await asyncio.sleep(SESSION_SECONDS + 0.5 - lasted)
            finally:
                slot.thaw()
            self.counts["zombie"] += 1
            self.counts["zombie in an open transaction"] += hit
            log.info("zombie %s back after %.1f s", slot.name, time.monotonic() - began)

    async def _epochs(self) -> dict[int, int]:
        rows = await self.world.ask(
            "select id, epoch from pointsman.positions where namespace = $1", self.world.namespace
        )
        return dict(rows)

    async def _all_taken(self, before: dict[int, int]) -> bool:
        now = await self._epochs()
        return all(now[number] > epoch for number, epoch in before.items())

    async def cut_commit(self, when: When) -> None:
        """Break the connection of an engine at its COMMIT."""
        async with self._one() as slot:
            slot.proxy.cut_when(is_engine_commit, when)
            try:
                await slot.proxy.cut_happened(30)
            except TimeoutError:
                slot.proxy.cut_when(lambda _: False, when)
                self.counts["cut that found no commit"] += 1
                return
            self.counts[f"cut at commit: {when.name.lower()}"] += 1

    async def terminate(self) -> None:
        """pg_terminate_backend on an engine's connection while a transaction is open on it."""
        async with self._one() as slot:
            ended: list[str] = []

            async def has_ended() -> bool:
                rows = await self.world.ask(_TERMINATE, slot.backend_ports())
                ended.extend(row[0] for row in rows)
                return bool(ended)

            with contextlib.suppress(AssertionError):
                await until(has_ended, 10, "a transaction", 0.003)
            self.counts["terminate in an open transaction"] += bool(ended)

    async def join_and_leave(self, joiner: Slot) -> None:
        """A third engine comes, works, and goes in order."""
        async with joiner.busy:
            joiner.instance = None
            await joiner.start()
            await joiner.said("partitions: ", PATIENCE_SECONDS)
            await joiner.stop()
            self.counts["joined and left"] += 1

    async def restart_in_order(self) -> None:
        """SIGTERM, and a new start."""
        async with self._one() as slot:
            await slot.said("partitions: ", PATIENCE_SECONDS)
            await slot.stop()
            await slot.start()
            self.counts["stopped in order"] += 1

    async def crash_postgres(self) -> None:
        """All backends end as in a crash; recovery follows."""
        await asyncio.to_thread(self.postgres.stop, "immediate")
        await asyncio.sleep(self.random.uniform(0, 1))
        await asyncio.to_thread(self.postgres.start_again)
        self.counts["postgres immediate"] += 1

    async def kill_kafka(self) -> None:
        assert isinstance(self.kafka, ApacheKafka)
        await asyncio.to_thread(self.kafka.kill)
        await asyncio.sleep(self.random.uniform(0, 1))
        await asyncio.to_thread(self.kafka.start_again)
        self.counts["kafka killed"] += 1

    async def kill_kafka_between(self) -> None:
        """Kill Kafka after the relay's commit there and before its clean-up in Postgres."""
        assert isinstance(self.kafka, ApacheKafka)
        async with contextlib.AsyncExitStack() as held:
            # All of them, zombies when they are back: any may be the one whose turn it is to relay.
            for slot in self.slots:
                await held.enter_async_context(slot.busy)
            asked: dict[asyncio.subprocess.Process, int] = {}
            row = await self._first_frozen(asked)
            rows = await self.world.ask(
                "select deleted from pointsman.lanes where namespace = $1", self.world.namespace
            )
            is_between = rows[0][0] < row - 1
            await asyncio.to_thread(self.kafka.kill)
            for process in asked:
                # Whoever did not come to it must not stop later; one that was started since knows nothing of it.
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(GO_ON)
                    process.send_signal(signal.SIGCONT)
            await asyncio.to_thread(self.kafka.start_again)
        self.counts["kafka killed"] += 1
        self.counts["kafka killed between the relay's commit and its clean-up"] += is_between

    async def kill_broker(self, part: str) -> None:
        """Kill one of three brokers, the one that has this part; it comes back when others have taken that over."""
        cluster = self.kafka
        assert isinstance(cluster, KafkaCluster)
        namespace = self.world.namespace
        if part == GROUP:
            number = await cluster.coordinates(CoordinationType.GROUP, f"pointsman.{namespace}")
        elif part == RELAY:
            ((store,),) = await self.world.ask("select id from pointsman.store")
            number = await cluster.coordinates(
                CoordinationType.TRANSACTION, f"pointsman.{namespace}.0.{store}"
            )
        else:
            number = await cluster.leader(PARCELS + self.world.suffix)
        await cluster.kill(number)
        await asyncio.sleep(self.random.uniform(1, 4))
        await cluster.start_again(number)
        self.counts[part] += 1

    async def move_leaders(self) -> None:
        """Have the partitions be led by those that are meant to, though nobody is away."""
        assert isinstance(self.kafka, KafkaCluster)
        await self.kafka.elect_preferred()
        self.counts["leaders moved"] += 1

    async def _first_frozen(self, asked: dict[asyncio.subprocess.Process, int]) -> int:
        """Ask engines to freeze until one has; returns the row after which it did.

        ``asked`` has those that were, and how many lines they had said by then. One that finds a server away ends by
        itself, and another takes its place, which the signal would end before it says that it can be frozen.
        """
        rows: list[int] = []

        async def one_is_frozen() -> bool:
            for slot in self.slots:
                process = slot.process
                if process is None or not any("can be frozen" in line for line in slot.lines):
                    continue
                if process not in asked:
                    asked[process] = len(slot.lines)
                    slot.send(FREEZE)
                said = slot.lines[asked[process] :]
                rows.extend(int(line.rsplit(" ", 1)[1]) for line in said if "frozen after row" in line)
            return bool(rows)

        await until(one_is_frozen, PATIENCE_SECONDS, "an engine frozen after a commit of its relay")
        return rows[0]
