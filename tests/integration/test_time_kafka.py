"""Time, deferral and events between runs, on real Kafka and Postgres: downtimes, kills, clocks that jump."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from datetime import datetime, timedelta

import pytest

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.settings import KafkaSettings
from connectors.source import Changed, Partition, SourceError, Trouble
from connectors.turns import Turns
from engine.engine import Engine
from engine.errors import RefusedError
from engine.homes import HOMES, homes_topic
from engine.reading import replay, verify
from engine.services.mock_broker import MockBroker
from engine.store.connecting import Connection
from engine.topics import prepare_topics
from statemachines.machine import compile_pipeline
from tests.chaos.slots import until
from tests.services import Database, Kafka, TopicFactory
from tests.stuck import publish
from tests.timed import Clock, World, book_on, in_state, kill, orders_on, told

HOUR = timedelta(hours=1)


@pytest.fixture
def world(database: Database, kafka: Kafka) -> World:
    return World(database.engine_dsn, database.owner_dsn, KafkaSettings(kafka.bootstrap), database.name)


async def check_the_log(world: World, reader: Connection, topic: str) -> None:
    """Clean, the same when it is replayed, never backwards in time; nothing fell due for nothing."""
    assert (await verify(reader, world.namespace)).is_clean
    machines = [
        compile_pipeline(one, namespace=world.namespace) for one in (orders_on(topic), book_on(topic))
    ]
    replayed = await replay(reader, world.namespace, machines)
    assert replayed.is_equal, replayed
    times: dict[int, datetime] = {}
    for run, at in await world.ask("select run, at from pointsman.events order by run, sequence"):
        assert times.setdefault(run, at) <= at, "the time of a run goes backwards"
        times[run] = at


async def lapses(world: World) -> Counter[str]:
    """How often time was over, by key; a timer that comes for nothing counts, too."""
    sql = "select r.key from pointsman.events e join pointsman.runs r on r.id = e.run where e.type like 'after.%'"
    return Counter(key for (key,) in await world.ask(sql))


async def test_a_payment_that_waited_in_kafka_beats_a_timeout_that_is_long_past(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection
) -> None:
    name = await topic("orders")
    clock = Clock()
    # What waits is more than one commit takes.
    world.limits["batch_records_max"] = 5
    others = [f"other-{number}" for number in range(100)]
    await publish(kafka.bootstrap, name, told("placed", "paid"), told("placed", "unpaid"))
    async with world.engine(orders_on(name), clock=clock):
        await world.come_to(in_state("placed", ["paid", "unpaid"]))
    await publish(kafka.bootstrap, name, *(told("placed", key) for key in others), told("paid", "paid"))
    clock.shift = 2 * HOUR
    async with world.engine(orders_on(name), clock=clock):
        await world.come_to({"paid": "paid", "unpaid": "lapsed"})
    assert await lapses(world) == {"unpaid": 1}
    await check_the_log(world, reader, name)


class Given:
    """A membership of a group that gives these partitions, and no others to anybody."""

    def __init__(self, *partitions: Partition) -> None:
        self._partitions = frozenset(partitions)
        self._turns: Turns

    async def start(self, topics: object, on_assigned: Changed, on_revoked: Changed) -> None:
        del topics
        self._turns = Turns(on_assigned, on_revoked, 5.0)
        self._turns.assign(self._partitions)

    async def watch(self) -> None:
        await asyncio.shield(self._turns.failed)

    async def stop(self) -> None:
        await self._turns.revoke()
        self._turns.failed.set_result(None)

    def trouble(self) -> Trouble | None:
        return None


def homes_of(engine: Engine) -> int:
    return len(engine.session.homes) if engine.session is not None else 0


async def test_a_payment_beats_a_timeout_also_where_another_engine_has_its_partition(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection
) -> None:
    name = await topic("orders", partitions=2)
    homes = [Partition(homes_topic(world.namespace), number) for number in range(HOMES)]
    first, second = Given(Partition(name, 0), *homes), Given(Partition(name, 1))
    clock = Clock()
    world.limits["batch_records_max"] = 5
    others = [f"other-{number}" for number in range(100)]
    await publish(kafka.bootstrap, name, told("placed", "paid"), told("placed", "unpaid"))
    async with world.engine(orders_on(name), clock=clock, membership=first):
        await world.come_to(in_state("placed", ["paid", "unpaid"]))
    late = [*(told("placed", key) for key in others), told("paid", "paid")]
    await publish(kafka.bootstrap, name, *late, partition=1)
    clock.shift = 2 * HOUR
    async with world.engine(orders_on(name), clock=clock, membership=first) as serving:

        async def serves() -> bool:
            return homes_of(serving) == HOMES

        await until(serves, 60, "all homes served")
        assert await lapses(world) == {}
        # Before the payment it has twenty commits to make.
        async with world.engine(orders_on(name), clock=clock, membership=second):
            await world.come_to({"paid": "paid", "unpaid": "lapsed"})
    assert await lapses(world) == {"unpaid": 1}
    await check_the_log(world, reader, name)


async def test_a_partition_that_nobody_has_delays_timers_for_a_while_only_and_then_that_is_said(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    name = await topic("orders", partitions=2)
    homes = [Partition(homes_topic(world.namespace), number) for number in range(HOMES)]
    async with world.engine(orders_on(name), membership=Given(Partition(name, 0), *homes)):
        await publish(kafka.bootstrap, name, told("placed", "a", seconds=0.1))
        await world.come_to({"a": "lapsed"})
        assert not [one for one in caplog.messages if "does not get on" in one], "it is empty"
    world.limits["backlog_seconds_max"] = wait_seconds = 2.0
    async with world.engine(orders_on(name), membership=Given(Partition(name, 0), *homes)):
        await publish(kafka.bootstrap, name, told("placed", "elsewhere"), partition=1)
        with caplog.at_level(logging.WARNING, "pointsman.engine"):
            await publish(kafka.bootstrap, name, told("placed", "b", seconds=0.1))
            await world.come_to({"b": "lapsed"})
    [[waited]] = await world.ask(
        "select extract(epoch from max(e.at) - min(e.at))::float from pointsman.events e "
        "join pointsman.runs r on r.id = e.run where r.key = 'b'"
    )
    assert wait_seconds <= waited < wait_seconds + 5
    [said] = [one for one in caplog.messages if "does not get on" in one]
    found = re.match(rf"{name}/1 does not get on for (\d+) seconds, and is behind ", said)
    assert found is not None, said
    assert int(found[1]) >= wait_seconds
    await check_the_log(world, reader, name)


async def test_early_events_outlive_a_kill_and_are_taken_once_in_order_before_newer_ones(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection
) -> None:
    name = await topic("orders")
    keys = [f"o{number}" for number in range(20)]
    early = [told(kind, key) for kind in ("packed", "paid") for key in keys]
    engine = await world.process(name, "one")
    try:
        await publish(kafka.bootstrap, name, *early)

        async def all_wait() -> bool:
            return await world.ask("select count(*) from pointsman.waiting") == [(len(early),)]

        await until(all_wait, 60, "all early events deferred")
        await kill(engine)
        newer = [told("noted", key, number=number) for number in (1, 2) for key in keys]
        await publish(kafka.bootstrap, name, *early, *(told("placed", key) for key in keys), *newer, *early)
        engine = await world.process(name, "one")
        await world.come_to(in_state("packed", keys))

        async def all_noted() -> bool:
            return all(len(one) == 5 for one in (await world.seen()).values())

        await until(all_noted, 60, "newer events taken, too")
    finally:
        await kill(engine)
    taken = ["placed", "paid", "packed", "noted 1", "noted 2"]
    assert await world.seen() == dict.fromkeys(keys, taken)
    assert await world.ask("select count(*) from pointsman.waiting") == [(0,)]
    assert await world.ask("select * from pointsman.dead_letters") == []
    await check_the_log(world, reader, name)


async def test_who_is_left_of_two_engines_takes_over_the_other_s_timers(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection
) -> None:
    name = await topic("orders", partitions=2)
    first = [f"first-{number}" for number in range(40)]
    second = [f"second-{number}" for number in range(40)]
    async with world.engine(orders_on(name)) as engine:
        other = await world.process(name, "other")
        try:

            async def are_shared() -> bool:
                return homes_of(engine) == HOMES // 2

            await until(are_shared, 120, "homes shared by two engines")
            await publish(kafka.bootstrap, name, *(told("placed", key, seconds=0.5) for key in first))
            await world.come_to(in_state("lapsed", first))
            # Their time is over by the time at which the homes are taken over.
            await publish(kafka.bootstrap, name, *(told("placed", key, seconds=8) for key in second))

            async def are_there() -> bool:
                return (await world.states()).keys() >= {*second}

            await until(are_there, 120, "all orders placed")
        finally:
            await kill(other)
        killed_at = time.monotonic()

        async def are_ours() -> bool:
            return homes_of(engine) == HOMES

        await until(are_ours, 60, "all homes taken over")
        took = time.monotonic() - killed_at
        await world.come_to(in_state("lapsed", second))
    # The session of the one that was killed has to end first (10 s).
    assert took < 25, took
    print(f"homes taken over after {took:.1f} s")
    assert await lapses(world) == dict.fromkeys([*first, *second], 1)
    await check_the_log(world, reader, name)


async def test_a_clock_that_jumps_forward_and_back_fires_each_timer_once(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection
) -> None:
    name = await topic("orders")
    clock = Clock()
    async with world.engine(orders_on(name), clock=clock):
        await publish(kafka.bootstrap, name, told("placed", "a"))
        await world.come_to({"a": "placed"})
        clock.shift = 2 * HOUR
        await world.come_to({"a": "lapsed"})
        await publish(kafka.bootstrap, name, told("placed", "b"), told("placed", "c"))
        await world.come_to(in_state("placed", "bc"))
        # Back to before they were placed: what happens to them is not before that, and the timer is none too early.
        clock.shift = -HOUR
        await publish(kafka.bootstrap, name, told("paid", "b"), told("placed", "d"))
        await world.come_to({"b": "paid", "c": "placed", "d": "placed"})
        clock.shift = 1.5 * HOUR
        await world.come_to({"d": "lapsed", "c": "placed"})
        clock.shift = 4 * HOUR
        await world.come_to({"c": "lapsed"})
        clock.shift = -HOUR
        await publish(kafka.bootstrap, name, told("placed", "e"))
        await world.come_to({"e": "placed"})
        clock.shift = 4 * HOUR
        await world.come_to({"e": "lapsed"})
    assert await lapses(world) == dict.fromkeys("acde", 1)
    await check_the_log(world, reader, name)


async def test_events_come_to_runs_of_another_group_s_engine_also_where_nobody_has_loaded_them_yet(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection
) -> None:
    name, books = await topic("orders"), await topic("books")

    async def ship(*keys: str) -> None:
        kinds = ("placed", "paid", "packed", "shipped")
        await publish(kafka.bootstrap, name, *(told(kind, key) for key in keys for kind in kinds))

    async with world.engine(orders_on(name)):
        await ship("a", "b")
        await world.come_to(in_state("shipped", "ab"))
        assert await world.ask("select count(*) from pointsman.inbox") == [(2,)]
        assert "all" not in await world.states()
        async with world.engine(book_on(books), group="other"):
            await world.come_to({"all": "open"})
            await ship("c")

            async def all_sold() -> bool:
                sql = "select convert_from(context, 'UTF8')::jsonb ->> 'orders' from pointsman.runs where key = 'all'"
                return await world.ask(sql) == [('["a", "b", "c"]',)]

            await until(all_sold, 60, "all orders in the book")
    assert await world.ask("select count(*) from pointsman.inbox") == [(0,)]
    await check_the_log(world, reader, name)


async def test_timers_of_all_homes_fire_on_the_small_broker_whose_topics_have_fewer_partitions(
    database: Database,
) -> None:
    pytest.importorskip("confluent_kafka")
    with MockBroker.start() as broker:
        settings = KafkaSettings(broker.bootstrap, check_crcs=False)
        world = World(database.engine_dsn, database.owner_dsn, settings, database.name)
        machines = [compile_pipeline(orders_on("orders"), namespace=world.namespace)]
        await prepare_topics(settings, machines, homes_topic(world.namespace), create_sources=True)
        keys = [f"o{number}" for number in range(60)]
        async with world.engine(orders_on("orders")):
            await publish(broker.bootstrap, "orders", *(told("placed", key, seconds=0.2) for key in keys))
            await world.come_to(in_state("lapsed", keys))
        homes = await world.ask("select count(distinct pointsman.home_of(key)) from pointsman.runs")
        assert homes == [(HOMES,)], "there is a run of each home"


async def test_a_topic_of_homes_that_may_not_be_made_is_a_clear_refusal(
    world: World, topic: TopicFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await topic("orders")

    async def refuse(self: KafkaAdmin, topic: str, **_: object) -> None:
        raise SourceError(f"This user may not create the topic {topic}.")

    monkeypatch.setattr(KafkaAdmin, "create_topic", refuse)
    machines = [compile_pipeline(orders_on(name), namespace=world.namespace)]
    homes = homes_topic(world.namespace)
    with pytest.raises(RefusedError) as refused:
        await prepare_topics(world.kafka, machines, homes)
    assert str(refused.value) == (
        f"The topic {homes}, whose partitions say which engine serves which timers, does not exist and cannot be made: "
        f"This user may not create the topic {homes}. Create it with 16 partitions, or allow it."
    )
