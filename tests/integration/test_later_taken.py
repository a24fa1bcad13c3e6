"""What completes steps that go on outside, in a real Postgres: behind holds and pauses, and many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import orjson
import pytest

from engine.batch.batch import Batch
from engine.commands.operating import RUN_WHATS
from engine.commands.together import in_portions
from engine.reading import (
    AskedOfRun,
    ask_complete,
    list_dead_letters,
    list_runs,
)
from engine.store.connecting import Connection, connect
from engine.store.contract import LostRunsError
from engine.store.values import Command
from tests.feeding import BEGINS, Feeding, feed
from tests.lending import World, clear, lending_pipeline
from tests.lent import (
    TOKEN,
    VERDICT,
    check_the_log,
    states,
    waits,
)
from tests.operators import WHO, WHY, ask, ask_pipeline, complete
from tests.services import Database, execute


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


async def test_of_a_held_run_it_waits_behind_the_hold_and_is_taken_once(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        await waits(feeding)
        await ask(feeding, "pause", "lending", "l1")
        done = await complete(feeding, TOKEN, VERDICT)
        assert (done.done, done.disposition) == (True, "held")
        assert "until the run goes on" in done.sentence
        again = await complete(feeding, TOKEN, VERDICT)
        assert (again.done, again.disposition) == (False, "void")
        assert await states(reader) == {"l1": "reviewing"}
        await check_the_log(reader)
        await ask(feeding, "resume", "lending", "l1")
    assert await states(reader) == {"l1": "granted"}
    await check_the_log(reader)


async def test_a_result_that_the_run_cannot_take_holds_it_and_is_redriven(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        await waits(feeding)
        done = await complete(feeding, TOKEN, {"by": "bo", "amount": -1})
        assert (done.failed, done.disposition) == (True, "dead-lettered")
        assert "nobody lends less than nothing" in done.sentence
        [letter] = await list_dead_letters(reader, "default")
        assert done.dead_letter == letter.id
        again = await complete(feeding, TOKEN, error="never mind")
        assert (again.failed, again.disposition) == (True, "void")
        assert "could not take: it is held by a dead letter" in again.sentence
        await check_the_log(reader)
        await feeding.redrive(letter.id)
    [letter, _] = await list_dead_letters(reader, "default", status=None)
    await check_the_log(reader)


async def test_what_completes_it_while_its_pipeline_is_paused_comes_before_the_end_of_its_time(
    database: Database, reader: Connection, world: World
) -> None:
    flow = lending_pipeline(within=timedelta(hours=1))
    async with feed(database, flow) as feeding:
        await waits(feeding)
        await ask_pipeline(feeding, "pause", "lending")
        assert not (await complete(feeding, TOKEN, VERDICT)).taken
        feeding.clock.now += timedelta(hours=2)
        # It goes on, and who looks after steps is the first to know.
        await execute(database.owner_dsn, "delete from pointsman.pauses")
        await feeding.committer.learn_pauses()
        await feeding.begin_steps()
        await feeding.steps.turned.wait()
        await feeding.steps.close()
        assert not feeding.steps.has_results
        await feeding.commands()
    (run,) = await list_runs(reader, "default")
    assert run.configuration == ["granted"]


async def ask_all(feeding: Feeding, loans: list[str]) -> list[AskedOfRun]:
    connection = await connect(feeding.database.engine_dsn, for_engine=False)
    try:
        return [
            await ask_complete(
                connection,
                feeding.namespace,
                f"case {loan}/1",
                result=orjson.dumps(VERDICT),
                who=WHO,
                why=WHY,
            )
            for loan in loans
        ]
    finally:
        await connection.close()


async def test_many_are_completed_in_one_commit_and_in_halves_where_that_is_lost(
    database: Database, reader: Connection, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    loans = [f"l{number:02}" for number in range(20)]
    async with feed(database, lending_pipeline()) as feeding:
        await waits(feeding, *loans)
        await ask_all(feeding, [*loans[:10], loans[0]])
        await feeding.commands()
        commits = (
            "select count(distinct at), count(*) filter (where done), count(*) from pointsman.operations"
        )
        assert tuple(await reader.fetchrow(commits) or ()) == (2, 10, 11)
        commit, tried = feeding.committer.commit, list[int]()

        async def lose_the_first(batch: Batch) -> None:
            tried.append(len(batch.commit.commands))
            if len(tried) == 1:
                raise LostRunsError("another engine moved a run first")
            await commit(batch)

        monkeypatch.setattr(feeding.committer, "commit", lose_the_first)
        await ask_all(feeding, loans[10:])
        await feeding.commands()
        assert tried == [10, 5, 5]
    assert set((await states(reader)).values()) == {"granted"}
    await check_the_log(reader)


async def test_between_them_the_loop_turns_and_no_event_is_blamed_for_what_it_does(
    database: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, blamed = asyncio.sleep, list[int]()
    loans = [f"l{number:02}" for number in range(10)]
    async with feed(database, lending_pipeline()) as feeding:
        await waits(feeding, *loans)
        await ask_all(feeding, loans)
        beat = feeding.committer._beat

        async def looked_at(seconds: float) -> None:
            blamed.append(beat[2])
            await turn(seconds)

        monkeypatch.setattr("engine.commands.together.asyncio.sleep", looked_at)
        await feeding.commands()
    assert len(blamed) >= len(loans)
    assert set(blamed) == {0}


def test_commands_of_one_kind_and_different_runs_are_taken_together_and_in_their_order() -> None:
    def command(number: int, what: str, key: str, pipeline: int = 1, **said: int) -> Command:
        return Command(number, pipeline, what, orjson.dumps({"key": key, **said}), WHO, WHY, BEGINS)

    asked = [
        command(1, "complete", "a"),
        command(2, "fail", "b"),
        command(3, "complete", "a", 2),
        command(4, "complete", "b"),
        command(5, "pause", "c"),
        command(6, "send", "d"),
        command(7, "map", "c", 2),
        command(8, "cancel", "c"),
        command(9, "pause_pipeline", ""),
        command(10, "resume_pipeline", ""),
        command(11, "redrive", "", dead_letter=1),
        command(12, "release", "", run=1, held=2),
        command(13, "release", "", run=2, held=2),
        command(14, "release", "", run=1, held=3),
        command(15, "complete", "b"),
    ]
    portions = [[one.id for one in several] for several in in_portions(asked, RUN_WHATS)]
    assert portions == [[1, 2, 3], [4], [5, 6, 7], [8], [9], [10], [11], [12, 13], [14], [15]]
    assert in_portions([], RUN_WHATS) == []
