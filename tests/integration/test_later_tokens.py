"""The tokens of steps that go on outside, in a real Postgres: whose they are, and which are known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from engine.errors import UsageError
from engine.reading import (
    NotFoundError,
    list_runs,
)
from engine.store.connecting import Connection
from statemachines.later import Later
from statemachines.limits import TOKEN_CHARACTERS_MAX
from tests.feeding import STEP_SECONDS_MAX, feed
from tests.lending import World, clear, lending_pipeline
from tests.lent import (
    TOKEN,
    VERDICT,
    check_the_log,
    handed_over,
    states,
    stubborn,
    told,
    waits,
)
from tests.operators import ask, complete
from tests.services import Database


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


async def test_two_that_wait_cannot_have_one_token(
    database: Database, reader: Connection, world: World
) -> None:
    world.script[:] = [lambda _call: Later("same")] * 3
    async with feed(database, lending_pipeline()) as feeding:
        await waits(feeding, "l1")
        await waits(feeding, "l2", "l3")
    assert await states(reader) == {"l1": "reviewing", "l2": "failed", "l3": "failed"}
    said = {run.key: run.context["notes"] for run in await list_runs(reader, "default")}
    assert said["l2"] == [
        "ResultError after 1: another step waits to be completed by the token 'same' already"
    ]
    await check_the_log(reader)


async def test_two_that_come_to_wait_in_one_commit_cannot_either(
    database: Database, reader: Connection, world: World
) -> None:
    world.script[:] = [lambda _call: Later("same")] * 2
    async with feed(database, lending_pipeline()) as feeding:
        await waits(feeding, "l1", "l2")
        assert sorted((await states(reader)).values()) == ["failed", "reviewing"]
        assert (await complete(feeding, "same", VERDICT)).done
    await check_the_log(reader)


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (Later(""), "review returned Later with the token ''"),
        (Later("x" * (TOKEN_CHARACTERS_MAX + 1)), f"a text of at most {TOKEN_CHARACTERS_MAX} characters"),
        (Later("a\0b"), "all of them printable"),
        (Later(7), "review returned Later with the token 7"),  # type: ignore[arg-type]  # that is the mistake
        (Later("a", timedelta(0)), "review returned Later(within=datetime.timedelta(0))"),
    ],
)
async def test_what_cannot_be_waited_for_fails_the_step(
    database: Database, reader: Connection, world: World, later: Later, said: str
) -> None:
    world.script[:] = [later]
    async with feed(database, lending_pipeline()) as feeding:
        await waits(feeding)
    [run] = await list_runs(reader, "default")
    assert said in run.context["notes"][0]
    assert len(world.calls) == 1, "it would return that again"
    await check_the_log(reader)


async def test_a_token_is_known_although_its_run_is_held(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        async with handed_over(feeding):
            await ask(feeding, "pause", "lending", "l1")
        assert (await complete(feeding, TOKEN, VERDICT)).disposition == "held"
        await ask(feeding, "resume", "lending", "l1")
    assert await states(reader) == {"l1": "granted"}
    await check_the_log(reader)


async def test_a_token_that_was_told_when_its_state_had_been_left_is_no_unknown_one(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        async with handed_over(feeding):
            await feeding.records(told("withdrawn"))
        assert (await complete(feeding, TOKEN, VERDICT)).disposition == "void"
    await check_the_log(reader)


async def test_a_token_of_an_attempt_that_was_stopped_is_no_unknown_one(
    database: Database, reader: Connection, world: World
) -> None:
    begun = stubborn(world)
    async with feed(database, lending_pipeline(undone=True)) as feeding:
        await feeding.records(told("applied"))
        await feeding.begin_steps()
        await begun.wait()
        await feeding.records(told("withdrawn"))
        await feeding.work()
        assert (await complete(feeding, TOKEN, VERDICT)).disposition == "void"
    assert world.made == [("l1", None)], "nobody knows what it did, so it is undone"
    await check_the_log(reader, undone=True)


async def test_a_token_of_an_attempt_that_nobody_waits_for_is_no_unknown_one(
    database: Database, reader: Connection, world: World
) -> None:
    begun = stubborn(world)
    async with feed(database, lending_pipeline()) as feeding:
        await feeding.records(told("applied"))
        await feeding.begin_steps()
        await begun.wait()
        await feeding.records(told("withdrawn"))
        await asyncio.wait_for(feeding.steps.arrived.wait(), STEP_SECONDS_MAX)
        await feeding.take_results()
        late = await complete(feeding, TOKEN, VERDICT)
        assert (late.failed, late.disposition) == (True, "void")
        assert not feeding.steps.are_going
    await check_the_log(reader)


async def test_a_token_that_nobody_knows_is_said_to_be_unknown(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        for token in ("nobody's", "", "x" * 1_000, "a\0b"):
            with pytest.raises(
                NotFoundError, match="No step in the namespace 'default' waits to be completed"
            ):
                await complete(feeding, token, VERDICT)
        with pytest.raises(UsageError, match="Say why it failed"):
            await complete(feeding, TOKEN, error="")
    assert await reader.fetchval("select count(*) from pointsman.inbox") == 0
