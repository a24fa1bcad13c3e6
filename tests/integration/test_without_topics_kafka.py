"""Engines with a pipeline that reads no topic, on real Kafka and Postgres: beside one that does, and alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from connectors.encode import encode_structured
from connectors.kafka.settings import KafkaSettings
from engine.client import Client, NotDoneError
from engine.reading import list_definitions, list_runs, replay, verify
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from tests.chaos.slots import until
from tests.cli import pointsman
from tests.integration.test_cli_run import engine_on
from tests.riding import Refused, Taken, Wanted, bookings_on, rides
from tests.services import Database, Kafka, TopicFactory
from tests.stuck import publish
from tests.timed import Clock, World

LATER = timedelta(hours=2)
MODULES = {
    "booking": "from tests.riding import bookings_on\n\nflow = bookings_on({!r})\n",
    "ride": "from tests.riding import rides\n\nflow = rides()\n",
}


@pytest.fixture
def world(database: Database, kafka: Kafka) -> World:
    return World(database.engine_dsn, database.owner_dsn, KafkaSettings(kafka.bootstrap), database.name)


def told(kind: str, booking: str, **data: str) -> bytes:
    said = orjson.dumps({"booking": booking, **data})
    known_as = "-".join((kind, booking, *data.values()))
    return encode_structured(id=known_as, source="/test", type=f"booking.{kind}", data=said)


def modules(folder: Path, topic: str) -> dict[str, Path]:
    """The two pipelines, as files."""
    made = {name: folder / f"{name}_flow.py" for name in MODULES}
    for name, file in made.items():
        file.write_text(MODULES[name].format(topic))
    return made


async def of_rides(reader: Connection, world: World) -> dict[str, str]:
    found = await list_runs(reader, world.namespace, pipeline="ride")
    return {run.key: " ".join(run.configuration) for run in found}


async def check_the_log(reader: Connection, world: World, topic: str) -> None:
    assert (await verify(reader, world.namespace)).is_clean
    machines = [compile_pipeline(one, namespace=world.namespace) for one in (bookings_on(topic), rides())]
    replayed = await replay(reader, world.namespace, machines)
    assert replayed.is_equal, replayed


async def test_what_runs_of_another_pipeline_send_is_taken_and_timers_and_steps_are_served(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection
) -> None:
    name, clock = await topic("bookings"), Clock()
    both = (told("booked", key) for key in ("late", "taken"))
    wanted = (told("confirmed", key) for key in ("late", "taken"))
    await publish(kafka.bootstrap, name, *both, *wanted, told("confirmed", "taken", told="taken"))
    async with world.engine(bookings_on(name), rides(), clock=clock):
        await world.come_to({"late": "wanted", "taken": "paid"}, pipeline="ride")
        clock.shift = LATER
        await world.come_to({"late": "given-up", "taken": "paid"}, pipeline="ride")
    await check_the_log(reader, world, name)


async def test_an_engine_that_has_it_alone_takes_what_clients_send_and_serves_timers_and_steps(
    world: World, topic: TopicFactory, reader: Connection
) -> None:
    clock = Clock()
    async with (
        world.engine(rides(), clock=clock),
        Client(world.postgres, who="the till", namespace=world.namespace) as client,
    ):

        async def is_loaded() -> bool:
            return [one.engines for one in await list_definitions(reader, world.namespace)] == [1]

        await until(is_loaded, 60, "an engine that has it loaded")
        for key in ("late", "taken", "held"):
            assert (await client.start("ride", key, Wanted(ride=key))).configuration == ["wanted"]
        await client.send("ride", "taken", Taken(ride="taken"))
        with pytest.raises(NotDoneError, match="action raised"):
            await client.send("ride", "held", Refused(ride="held"))
        await world.come_to({"taken": "paid"})
        clock.shift = LATER
        await world.come_to({"late": "given-up", "held": "wanted"})
    letters = await world.ask("select dead_letter_topic from pointsman.dead_letters")
    assert letters == [(f"pointsman.{world.namespace}.dead-letters",)]
    await check_the_log(reader, world, await topic("bookings"))


async def test_until_idle_what_runs_have_sent_to_one_another_is_taken(
    world: World, database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path, reader: Connection
) -> None:
    name = await topic("bookings")
    flows, on = modules(tmp_path, name), engine_on(database, kafka)
    sent = (told("confirmed", f"b{number}") for number in range(3))
    await publish(kafka.bootstrap, name, *(told("booked", f"b{number}") for number in range(3)), *sent)
    alone = pointsman("run", flows["booking"], "--until-idle", on=on)
    assert alone.code == 0, alone.err
    assert await of_rides(reader, world) == {}
    await publish(kafka.bootstrap, name, told("confirmed", "b0", told="taken"))
    done = pointsman("run", flows["ride"], "--until-idle", on=on)
    assert done.code == 0, done.err
    assert await of_rides(reader, world) == {"b0": "wanted", "b1": "wanted", "b2": "wanted"}
    both = pointsman("run", *flows.values(), "--until-idle", on=on)
    assert both.code == 0, both.err
    assert await of_rides(reader, world) == {"b0": "paid", "b1": "wanted", "b2": "wanted"}
    await check_the_log(reader, world, name)


async def test_doctor_looks_at_what_an_engine_of_it_needs_and_at_no_topic_of_others(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("bookings")
    flows, on = modules(tmp_path, name), engine_on(database, kafka)
    for flow in flows.values():
        done = pointsman("run", flow, "--until-idle", on=on)
        assert done.code == 0, done.err
    found = pointsman("doctor", flows["ride"], "--json", on=on)
    assert found.code == 0, found.out
    names = {one["name"] for one in found.json["checks"] if one["area"] == "kafka"}
    assert f"pointsman.{database.name}.dead-letters" in names
    assert name not in names
