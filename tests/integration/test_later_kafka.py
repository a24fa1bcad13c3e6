"""Steps that go on outside, on real Kafka and Postgres: engines are killed, and none of them is lost or done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import orjson
import pytest

from connectors.encode import encode_structured
from connectors.kafka.settings import KafkaSettings
from engine.reading import Done, ask_complete, replay, verify, wait_until_done
from engine.store.connecting import Connection, connect
from statemachines.machine import compile_pipeline
from tests.chaos.slots import until
from tests.cli import pointsman
from tests.handing import MODULE, loans_on, token_of
from tests.parcelling import LEDGER, lines_of
from tests.services import Database, Kafka, TopicFactory
from tests.stuck import publish
from tests.timed import World, in_state, kill

SECONDS = 120.0
WAITING = "select count(*) from pointsman.executions where token <> '' and holder is null"


@pytest.fixture
def world(database: Database, kafka: Kafka) -> World:
    return World(database.engine_dsn, database.owner_dsn, KafkaSettings(kafka.bootstrap), database.name)


def applied(loan: str) -> bytes:
    data = orjson.dumps({"loan": loan})
    return encode_structured(id=f"applied-{loan}", source="/test", type="loan.applied", data=data)


async def complete(world: World, loans: Iterable[str], amount: int, seconds: float) -> list[Done]:
    """Ask for these to be completed, one after the other, and then wait for all of them."""
    connection = await connect(world.postgres, for_engine=False)
    try:
        asked = [
            await ask_complete(
                connection, world.namespace, token_of(one), result=orjson.dumps(amount), who="the desk"
            )
            for one in loans
        ]
        return await wait_until_done(connection, world.namespace, asked, seconds=seconds)
    finally:
        await connection.close()


async def waits(world: World, number: int) -> None:
    async def are() -> bool:
        return await world.ask(WAITING) == [(number,)]

    await until(are, SECONDS, f"{number} that wait", 0.02)


async def test_what_waits_outlives_engines_that_are_killed_and_is_completed_once(
    world: World, kafka: Kafka, topic: TopicFactory, reader: Connection, tmp_path: Path
) -> None:
    name, ledger = await topic("loans", partitions=2), tmp_path / "ledger"
    loans = [f"l{number:02}" for number in range(60)]
    more = {LEDGER: str(ledger)}
    engine = await world.process(name, "one", MODULE, **more)
    try:
        await publish(kafka.bootstrap, name, *(applied(one) for one in loans))
        for number in (10, 30):

            async def has_come_on(by: int = number) -> bool:
                return len(lines_of(ledger)) >= by

            await until(has_come_on, SECONDS, "steps handed over", 0.005)
            await kill(engine)
            engine = await world.process(name, "one", MODULE, **more)
        await waits(world, len(loans))
        handed_over = len(lines_of(ledger))
        await kill(engine)
        engine = await world.process(name, "two", MODULE, **more)
        # Each twice, with other results; and the engine is killed in the middle of it: of these some are done by then,
        # and for the others it is not even asked.
        asked, left = loans[:40], loans[40:]
        completing = [asyncio.create_task(complete(world, asked, amount, SECONDS)) for amount in (1, 2)]

        async def some_are_done() -> bool:
            [(waiting,)] = await world.ask(WAITING)
            return bool(waiting < len(loans) - 5)

        await until(some_are_done, SECONDS, "some that are completed", 0.002)
        completing += [asyncio.create_task(complete(world, left, amount, SECONDS)) for amount in (1, 2)]
        await kill(engine)
        engine = await world.process(name, "two", MODULE, **more)
        done = [one for several in await asyncio.gather(*completing) for one in several]
        await world.come_to(in_state("granted", loans), SECONDS)
    finally:
        await kill(engine)
    assert len(lines_of(ledger)) == handed_over, "what waits is not begun again"
    assert sorted(one.asked.key for one in done if one.done) == loans, "each is completed once"
    assert {one.disposition for one in done if not one.done} <= {"void", None}
    for one in done:
        [(row,)] = await world.ask("select context from pointsman.runs where key = $1", one.asked.key)
        assert not one.done or orjson.loads(row)["amount"] in (1, 2)
    assert await world.ask("select * from pointsman.executions") == []
    assert await world.ask("select * from pointsman.tokens where waits") == []
    noted = await world.ask("select count(*) from pointsman.dispositions where disposition = 10")
    assert noted[0][0] >= len(loans), "what came second is noted as void"
    assert (await verify(reader, world.namespace)).is_clean
    machines = [compile_pipeline(loans_on(name), namespace=world.namespace)]
    assert (await replay(reader, world.namespace, machines)).is_equal


async def test_it_is_completed_on_the_command_line(
    world: World, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("loans")
    engine = await world.process(name, "one", MODULE, **{LEDGER: str(tmp_path / "ledger")})
    on = {"POSTGRES": world.postgres, "NAMESPACE": world.namespace}

    def ask(*words: str, input: str | None = None) -> tuple[int, str]:
        done = pointsman("complete", *words, "--wait", SECONDS, on=on, input=input)
        return done.code, done.out or done.err

    try:
        await publish(kafka.bootstrap, name, applied("a"), applied("b"))
        await waits(world, 2)
        code, said = await asyncio.to_thread(ask, token_of("a"), "--result", '"much"')
        assert (code, "and still waits: that is no result of review" in said) == (1, True), said
        code, said = await asyncio.to_thread(ask, token_of("a"), "--result", "-", input="7")
        assert code == 0, said
        assert said == (
            "review of the run 'a' of loans is completed (row 3), and the run has ended in granted.\n"
        )
        code, said = await asyncio.to_thread(ask, token_of("a"), "--result", "8", "--json")
        assert (code, orjson.loads(said)["disposition"]) == (1, "void")
        code, said = await asyncio.to_thread(ask, token_of("b"), "--error", "no paper")
        assert (code, "attempt 1 has failed (row 3), and the step is to be tried again" in said) == (0, True)
        code, said = await asyncio.to_thread(ask, "nobody's", "--result", "7")
        assert (code, said.startswith("No step in the namespace")) == (1, True), said
        for words, sentence in (
            ([], "Say how the step ended: --result JSON, or --error TEXT."),
            (["--result", "7", "--error", "no"], "Give --result or --error, not both"),
        ):
            code, said = await asyncio.to_thread(ask, token_of("b"), *words)
            assert (code, sentence in said) == (2, True)
    finally:
        await kill(engine)
