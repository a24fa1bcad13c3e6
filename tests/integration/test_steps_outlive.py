"""Attempts that outlive engines, on real Kafka and Postgres: processes go on while the engine is killed."""

from __future__ import annotations

import tempfile

import orjson

from connectors.encode import encode_structured
from connectors.kafka.settings import KafkaSettings
from engine.reading import replay, verify
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from tests.carrying import DESK, EXECUTORS, FOLDER, MODULE, carrying_on
from tests.desk import open_desk
from tests.services import Database, Kafka, TopicFactory
from tests.stuck import publish
from tests.timed import World, in_state, kill


def ordered(load: str) -> bytes:
    data = orjson.dumps({"load": load})
    return encode_structured(id=f"ordered-{load}", source="/test", type="load.ordered", data=data)


async def test_an_engine_that_was_killed_finds_what_it_has_begun(
    database: Database, kafka: Kafka, topic: TopicFactory, reader: Connection
) -> None:
    world = World(database.engine_dsn, database.owner_dsn, KafkaSettings(kafka.bootstrap), database.name)
    name = await topic("loads")
    # The names of sockets are short.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        async with open_desk() as desk:
            more = {"POINTSMAN_EXECUTORS": EXECUTORS, DESK: str(desk.port), FOLDER: folder}
            engine = await world.process(name, "one", MODULE, **more)
            try:
                await publish(kafka.bootstrap, name, *map(ordered, ("early", "late", "failing")))
                for load in ("early", "late", "failing"):
                    await desk.begun(f"{load}/1")
                await kill(engine)
                # It goes on; one of them ends while no engine is there.
                await desk.ask("late/1", "ping")
                desk.tell("early/1", "answer 1")
                await desk.gone("early/1")
                engine = await world.process(name, "one", MODULE, **more)
                await world.come_to(in_state("there", ["early"]))
                await desk.ask("late/1", "ping")
                desk.tell("late/1", "answer 2")
                desk.tell("failing/1", "raise a flat tyre")
                await desk.begun("failing/2")
                desk.tell("failing/2", "answer 3")
                await world.come_to(in_state("there", ["early", "late", "failing"]))
            finally:
                await kill(engine)
            assert {name: len(seats) for name, seats in desk.seats.items()} == {
                "early/1": 1,
                "late/1": 1,
                "failing/1": 1,
                "failing/2": 1,
            }
    tried = await world.ask(
        "select convert_from(payload, 'UTF8') from pointsman.events where type = 'tried.step.carry'"
    )
    assert [("LostError" in said, "a flat tyre" in said) for (said,) in tried] == [(False, True)]
    assert (await verify(reader, world.namespace)).is_clean
    machines = [compile_pipeline(carrying_on(name), namespace=world.namespace)]
    assert (await replay(reader, world.namespace, machines)).is_equal
