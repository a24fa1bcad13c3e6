"""Three brokers, of which one dies and comes back, and then another: nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiokafka.client import CoordinationType

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink_progress import progress_topic
from connectors.publisher import Draft, Publisher
from engine.assembly import EngineSettings
from engine.homes import homes_topic
from engine.limits import EngineLimits
from engine.running import Running, run
from engine.services import ports
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.effects import Publish
from statemachines.events import Event
from statemachines.machine import compile_pipeline
from tests.chaos.oracle import Found
from tests.chaos.reading import ends, read_committed
from tests.cli import COMMAND, Done, environment, pointsman
from tests.cluster import KafkaCluster
from tests.services import Database

NAMES = [f"n-{number}" for number in range(20)]
PARTITIONS = 6
ROUNDS = 10
PACE_SECONDS, POLL_SECONDS = 0.1, 0.05
SECONDS = 60.0
LIMITS = EngineLimits(reconnect_seconds_max=0.5)


class Begun(Event, type="begun", key="name"):
    name: str


class Counted(Event, type="counted", key="name"):
    name: str
    number: int


class Told(Event, type="told", key="name"):
    name: str
    number: int


class Count(Context):
    number: int = 0


def begin(event: Begun) -> Count:
    return Count()


def follows(context: Count, event: Counted) -> bool:
    return event.number == context.number + 1


def counting(source: str, out: str) -> Pipeline[Count]:
    """Tells each number that follows the one before; any other would be a dead letter."""

    def tell(context: Count, event: Counted) -> Publish:
        context.number = event.number
        return Publish(out, Told(name=event.name, number=event.number))

    flow = Pipeline("count", Count, version=1, topics=[source])
    going = flow.state("going", initial=True)
    flow.start(Begun, begin)
    going.on(Counted, when=follows, do=tell)
    return flow


@dataclass(slots=True)
class Feed:
    """Counts up for every name, in order, and beside that sends what nobody began a run for."""

    bootstrap: str
    topic: str
    rounds: int = 0
    enough: bool = False
    grew: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self) -> None:
        async with Publisher(self.bootstrap, source="/count", topic=self.topic) as publisher:
            await publisher.publish_many([Draft(Begun(name=name), id=f"{name}/begun") for name in NAMES])
            while not self.enough:
                number = self.rounds + 1
                names = (*NAMES, f"stray-{number}")
                await publisher.publish_many(
                    [Draft(Counted(name=name, number=number), id=f"{name}/{number}") for name in names]
                )
                async with self.grew:
                    self.rounds = number
                    self.grew.notify_all()
                await asyncio.sleep(PACE_SECONDS)

    async def more(self) -> None:
        """Wait until so many more are confirmed that all brokers have some of them."""
        async with asyncio.timeout(SECONDS), self.grew:
            wanted = self.rounds + ROUNDS
            await self.grew.wait_for(lambda: self.rounds >= wanted)


@dataclass(slots=True)
class Scene:
    """Two engines on a cluster, and what they are fed with."""

    cluster: KafkaCluster
    dsn: str
    namespace: str
    source: str
    out: str
    feed: Feed
    feeding: asyncio.Task[None]
    engines: list[Running]
    tasks: list[asyncio.Task[Any]]

    async def published(self) -> None:
        """Wait until all that is confirmed by now is applied and published."""
        rounds = self.feed.rounds

        async def is_applied() -> bool:
            [(runs, least)] = await self.ask("select count(*), min(sequence) from pointsman.runs")
            return int(runs) == len(NAMES) and int(least) > rounds

        await self.until(is_applied)
        [(ticket,)] = await self.ask(
            "select ticket from pointsman.lanes where namespace = $1", self.namespace
        )
        async with asyncio.timeout(SECONDS):
            await self.engines[0].relay.drained(ticket)

    async def shared_out(self) -> None:
        """Wait until every engine has partitions, and each of those an engine."""

        async def is_shared_out() -> bool:
            sessions = [one.engine.session for one in self.engines]
            shares = [len(session.claims) for session in sessions if session is not None]
            return len(shares) == len(self.tasks) and min(shares) > 0 and sum(shares) == PARTITIONS

        await self.until(is_shared_out)

    async def ask(self, sql: str, *arguments: object) -> list[Any]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return list(await connection.fetch(sql, *arguments))
        finally:
            await connection.close()

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + SECONDS
        while not await holds():
            assert time.monotonic() < deadline
            for task in (self.feeding, *self.tasks):
                if task.done():
                    task.result()
            await asyncio.sleep(POLL_SECONDS)

    async def coordinators(self) -> list[int]:
        """Two brokers, those of the group and of the relay's transactions among them."""
        [(store,)] = await self.ask("select id from pointsman.store")
        group = await self.cluster.coordinates(CoordinationType.GROUP, f"pointsman.{self.namespace}")
        relay = await self.cluster.coordinates(
            CoordinationType.TRANSACTION, f"pointsman.{self.namespace}.0.{store}"
        )
        return list(dict.fromkeys((group, relay, *self.cluster.brokers)))[:2]


@contextlib.asynccontextmanager
async def scene(
    cluster: KafkaCluster, database: Database, *, port: int | None = None
) -> AsyncIterator[Scene]:
    """Engines that serve, and a feed that goes on; all of it ends with this."""
    source, out = f"count-{database.name}", f"told-{database.name}"
    async with KafkaAdmin(KafkaSettings(cluster.bootstrap)) as admin:
        for topic in (source, out):
            await admin.create_topic(topic, partitions=PARTITIONS)
    machine = compile_pipeline(counting(source, out), namespace=database.name)
    settings = EngineSettings(
        database.engine_dsn,
        KafkaSettings(cluster.bootstrap),
        namespace=database.name,
        limits=LIMITS,
        listen=None if port is None else ("127.0.0.1", port),
    )
    engines: list[Running] = []
    tasks = [
        asyncio.create_task(run(settings, [machine], began=engines.append)) for _ in range(1 if port else 2)
    ]
    feed = Feed(cluster.bootstrap, source)
    feeding = asyncio.create_task(feed.run())
    found = Scene(cluster, database.owner_dsn, database.name, source, out, feed, feeding, engines, tasks)
    try:
        await feed.more()

        async def all_began() -> bool:
            return len(engines) == len(tasks)

        await found.until(all_began)
        yield found
    finally:
        feed.enough = True
        for one in engines:
            one.stop()
        if len(engines) < len(tasks):
            for task in tasks:
                task.cancel()
        ended = await asyncio.gather(feeding, *tasks, return_exceptions=True)
    assert not [one for one in ended if isinstance(one, BaseException)], ended


async def test_whichever_broker_dies_the_road_goes_on_and_all_is_published_once_and_in_order(
    kafka_cluster: KafkaCluster, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(kafka_cluster, database) as on:
        await on.published()
        for number in await on.coordinators():
            await kafka_cluster.kill(number)
            await on.feed.more()
            await on.published()
            await kafka_cluster.start_again(number)
        led = await kafka_cluster.leaders(on.source)
        caplog.clear()
        await kafka_cluster.elect_preferred()
        assert await kafka_cluster.leaders(on.source) != led, "no leader moved"
        await on.feed.more()
        on.feed.enough = True
        await on.feeding
        await on.published()
        assert "the relay begins anew" not in caplog.text, "nobody died"
        rounds = on.feed.rounds
        letters = f"{on.source}.dead-letters"

        async def dead_letters_are_published() -> bool:
            [(count,)] = await on.ask(
                "select count(*) from pointsman.dead_letters where publishing = 'published'"
            )
            return int(count) == rounds

        await on.until(dead_letters_are_published)
        found = await asyncio.to_thread(read_committed, kafka_cluster.bootstrap, [on.out, letters])
    told = told_in(one for one in found if one.topic == on.out)
    strays = told_in(one for one in found if one.topic == letters)
    assert told == {name: list(range(1, rounds + 1)) for name in NAMES}
    assert strays == {f"stray-{number}": [number] for number in range(1, rounds + 1)}
    wrong = [
        one for one in caplog.records if one.levelname == "ERROR" and not one.name.startswith("aiokafka")
    ]
    assert not wrong, wrong
    async with KafkaAdmin(KafkaSettings(kafka_cluster.bootstrap)) as admin:
        for topic in (letters, progress_topic(on.namespace), homes_topic(on.namespace)):
            assert {len(one.replicas) for one in (await admin.kept_by(topic)).values()} == {3}, topic


def told_in(found: Iterable[Found]) -> dict[str, list[int]]:
    """The numbers of each name, in the order of the records."""
    told: dict[str, list[int]] = defaultdict(list)
    for record in found:
        data = json.loads(record.value or b"")["data"]
        told[data["name"]].append(data["number"])
    return told


def doctor(cluster: KafkaCluster, database: Database, folder: Path, topic: str) -> Done:
    """What it says of an engine that would read this topic."""
    file = folder / "pipeline.py"
    file.write_text(
        f"from tests.integration.test_cluster import counting\nflow = counting({topic!r}, 'out')\n"
    )
    on = {"KAFKA": cluster.bootstrap, "POSTGRES": database.engine_dsn, "NAMESPACE": database.name}
    return pointsman("doctor", file, "--json", on=on)


async def group_rights(cluster: KafkaCluster, group: str) -> frozenset[str] | None:
    """What the cluster says of a group, from now on."""
    async with KafkaAdmin(KafkaSettings(cluster.bootstrap)) as admin:
        return await admin.group_rights(group)


async def has_some(bootstrap: str, topic: str) -> None:
    """Wait until there are records."""
    deadline = time.monotonic() + SECONDS
    while not any((await asyncio.to_thread(ends, bootstrap, [topic])).values()):
        assert time.monotonic() < deadline, f"nothing was published to {topic}"


@contextlib.asynccontextmanager
async def publishing(cluster: KafkaCluster, topic: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`pointsman publish`, which is killed in the end if it still runs."""
    words = ("publish", topic, "-", "--key", "name", "--type", "=counted", "--id", "id")
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *words,
        env={**environment({}), "POINTSMAN_KAFKA": cluster.bootstrap},
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def write(process: asyncio.subprocess.Process, numbers: Iterable[int], *, last: bool = False) -> None:
    assert process.stdin is not None
    rows = [{"id": f"{one}/{number}", "name": one, "number": number} for number in numbers for one in NAMES]
    process.stdin.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    await process.stdin.drain()
    if last:
        process.stdin.close()


async def test_publish_goes_on_when_a_broker_dies_and_doctor_says_that_nothing_is_broken(
    kafka_cluster: KafkaCluster, database: Database, tmp_path: Path
) -> None:
    name = f"published-{database.name}"
    async with KafkaAdmin(KafkaSettings(kafka_cluster.bootstrap)) as admin:
        await admin.create_topic(name, partitions=PARTITIONS)
    # It leads partitions of the topic, and has the group that doctor asks about.
    group = f"pointsman.{database.name}"
    killed = await kafka_cluster.coordinates(CoordinationType.GROUP, group)
    assert killed in await kafka_cluster.leaders(name)
    async with publishing(kafka_cluster, name) as process:
        await write(process, range(1, 101))
        await has_some(kafka_cluster.bootstrap, name)
        await kafka_cluster.kill(killed)
        asking = asyncio.create_task(group_rights(kafka_cluster, group))
        await write(process, range(101, 201), last=True)
        doctoring = asyncio.to_thread(doctor, kafka_cluster, database, tmp_path, name)
        rights, done, (_, said) = await asyncio.gather(asking, doctoring, process.communicate())
        assert process.returncode == 0, said
    await kafka_cluster.start_again(killed)
    found = await asyncio.to_thread(read_committed, kafka_cluster.bootstrap, [name])
    assert told_in(found) == {one: list(range(1, 201)) for one in NAMES}
    kafka = [one for one in done.json["checks"] if one["area"] == "kafka"]
    assert done.code == 0, done.out
    assert rights is not None
    assert "READ" in rights
    assert {one["verdict"] for one in kafka} == {"ok", "warn"}
    assert any(f"roker {killed}" in one["sentence"] + one["cure"] for one in kafka), kafka


@pytest.mark.long
async def test_whichever_broker_stands_still_the_road_goes_on(
    kafka_cluster: KafkaCluster, database: Database
) -> None:
    async with scene(kafka_cluster, database) as on:
        await on.published()
        for number in await on.coordinators():
            # Who joins a group just as its coordinator falls silent waits as long as joining may take.
            await on.shared_out()
            await kafka_cluster.pause(number)
            await on.feed.more()
            await on.published()
            await kafka_cluster.resume(number)
        await on.feed.more()
        on.feed.enough = True
        await on.feeding
        await on.published()
        rounds = on.feed.rounds
        found = await asyncio.to_thread(read_committed, kafka_cluster.bootstrap, [on.out])
    assert told_in(found) == {name: list(range(1, rounds + 1)) for name in NAMES}


@pytest.mark.long
async def test_with_one_of_three_away_an_engine_is_ready_and_with_two_it_says_why_not(
    kafka_cluster: KafkaCluster, database: Database, tmp_path: Path
) -> None:
    port = ports.choose(0, "the engine", "--port")

    async def is_ready(wanted: bool, reason: str = "") -> bool:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/readyz") as answer,
        ):
            told = await answer.json()
            return bool(told["ok"]) is wanted and reason in " ".join(told["reasons"])

    async with scene(kafka_cluster, database, port=port) as on:
        await on.published()
        await on.until(lambda: is_ready(True))
        await kafka_cluster.kill(1)
        await on.feed.more()
        await on.published()
        await on.until(lambda: is_ready(True))
        on.feed.enough = True
        await on.feeding
        await on.published()
        await kafka_cluster.kill(2)
        await on.until(lambda: is_ready(False, "Broker 2 does not answer"))
        done = await asyncio.to_thread(doctor, kafka_cluster, database, tmp_path, on.source)
        failed = [one for one in done.json["checks"] if one["area"] == "kafka" and one["verdict"] == "fail"]
        assert (done.code, bool(failed)) in ((1, True), (3, True)), done.out
        await asyncio.gather(*(kafka_cluster.start_again(number) for number in (1, 2)))
        await on.until(lambda: is_ready(True))
