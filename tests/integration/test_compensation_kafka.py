"""Sagas on real Kafka and Postgres, while engines are killed or stopped: each effect stands, or is undone, and once."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import orjson
import pytest

from connectors.encode import encode_structured
from connectors.kafka.settings import KafkaSettings
from engine.reading import replay, verify
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from tests.chaos.slots import until
from tests.selling import ENDLESS, LEDGER, MODULE, UNDOES, UNDOING, Line, lines_of, orders_on
from tests.services import Database, Kafka, TopicFactory
from tests.stuck import publish
from tests.timed import World, kill

ORDERS = 60
KILLS = 4
SECONDS = 120.0


@pytest.fixture
def world(database: Database, kafka: Kafka) -> World:
    return World(database.engine_dsn, database.owner_dsn, KafkaSettings(kafka.bootstrap), database.name)


def told(kind: str, order: str, **data: object) -> bytes:
    written = orjson.dumps({"order": order, **data})
    return encode_structured(id=f"{kind}-{order}", source="/test", type=f"order.{kind}", data=written)


def check_order(lines: list[Line], state: str) -> None:
    """What was done for one order stands if it was sent, and was undone if it was cancelled."""
    keys: dict[str, set[str]] = {}
    for line in lines:
        keys.setdefault(line.step, set()).add(line.key)
    assert all(len(several) == 1 for several in keys.values()), f"one key for each execution: {keys}"
    done = {line.key for line in lines if line.what == "done"}
    undone = {line.of for line in lines if line.of and line.what == "done"}
    compensations = [line for line in lines if line.of]
    if state == "sent":
        assert keys.keys() == {"pay", "reserve", "send"}
        assert not compensations
        assert all(several <= done for several in keys.values())
        return
    owed = {line.key for line in lines if line.step in UNDOES.values() and line.key in done}
    assert owed <= undone, "what was done is undone"
    begun = {line.key for line in lines if line.step in UNDOES.values()}
    assert undone <= begun, "and nothing else"
    for line in compensations:
        at = lines.index(line)
        assert not [one for one in lines[at:] if one.key == line.of], "no attempt goes on once it is undone"
    order = [line.step for line in compensations if line.what == "done"]
    assert order == sorted(order, key=["release", "refund"].index), "in reverse order"


async def test_each_order_is_sent_or_undone_however_often_engines_are_killed(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection, tmp_path: Path
) -> None:
    name, ledger = await topic("orders", partitions=2), tmp_path / "ledger"
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    orders = [f"o{number:02}" for number in range(ORDERS)]
    sold_out = set(orders[::3])
    more = {LEDGER: str(ledger)}
    engines = [await world.process(name, which, MODULE, **more) for which in ("one", "two")]
    try:
        placed = [told("placed", one, seconds=0.2, sold_out=one in sold_out) for one in orders]
        await publish(kafka.bootstrap, name, *placed)
        called_off = chance.sample(orders, 20)
        for number in range(KILLS):
            at = len(lines_of(ledger)) + chance.randrange(15, 40)

            async def has_come_on(by: int = at) -> bool:
                return len(lines_of(ledger)) >= by or not await world.ask(
                    "select 1 from pointsman.executions"
                )

            await until(has_come_on, SECONDS, "steps begun", 0.01)
            some = called_off[number::KILLS]
            await publish(kafka.bootstrap, name, *(told("called_off", one) for one in some))
            which = chance.randrange(2)
            await kill(engines[which])
            engines[which] = await world.process(name, ("one", "two")[which], MODULE, **more)

        async def all_ended() -> bool:
            states = await world.states()
            return len(states) == ORDERS and set(states.values()) <= {"sent", "cancelled"}

        await until(all_ended, 2 * SECONDS, "all orders sent or cancelled")
    finally:
        for engine in engines:
            with contextlib.suppress(ProcessLookupError):
                await kill(engine)
    states, lines = await world.states(), lines_of(ledger)
    for one in orders:
        check_order([line for line in lines if line.order == one], states[one])
    assert {states[one] for one in sold_out} == {"cancelled"}
    assert [line for line in lines if line.of], "something was undone"
    assert await world.ask("select * from pointsman.executions") == []
    assert await world.ask("select * from pointsman.dead_letters") == []
    assert (await verify(reader, world.namespace)).is_clean
    machines = [compile_pipeline(orders_on(name), namespace=world.namespace)]
    assert (await replay(reader, world.namespace, machines)).is_equal
    ended = sorted(states.values())
    print(
        f"{ended.count('sent')} sent, {ended.count('cancelled')} cancelled, {len(lines)} calls outside, {KILLS} kills"
    )


async def test_what_is_being_undone_as_its_engine_is_stopped_is_undone_by_the_next_one(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection, tmp_path: Path
) -> None:
    name, ledger = await topic("orders"), tmp_path / "ledger"
    more = {LEDGER: str(ledger), UNDOING: "2", "POINTSMAN_LIMIT_STEP_STOP_SECONDS": "0.1"}

    def begun() -> list[int]:
        """The attempts at undoing the reservation so far."""
        return [line.attempt for line in lines_of(ledger) if (line.step, line.what) == ("release", "begun")]

    await publish(kafka.bootstrap, name, told("placed", "o1", sold_out=True))
    for attempt in (1, 2, 3):
        engine = await world.process(name, "one", MODULE, **more, **{ENDLESS: "yes"})
        try:

            async def is_undone(last: int = attempt) -> bool:
                return begun()[-1:] == [last]

            await until(is_undone, SECONDS, f"attempt {attempt} at the compensation")
            engine.terminate()
            assert await engine.wait() == 0
        finally:
            await kill(engine)
    assert await world.states() == {"o1": "$compensating"}
    engine = await world.process(name, "one", MODULE, **more)
    try:
        await world.come_to({"o1": "cancelled"})
    finally:
        await kill(engine)
    assert begun() == [1, 2, 3, 4]
    check_order(lines_of(ledger), "cancelled")
    assert await world.ask("select * from pointsman.dead_letters") == []
    assert (await verify(reader, world.namespace)).is_clean
    machines = [compile_pipeline(orders_on(name, 2), namespace=world.namespace)]
    assert (await replay(reader, world.namespace, machines)).is_equal
