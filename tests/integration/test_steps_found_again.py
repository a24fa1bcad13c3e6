"""Attempts that outlive their engines, on a real Postgres: the next one goes on with them, where they are found."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from connectors.executor import Ended
from connectors.source import RawRecord
from engine.batch.by_itself import OF_STEP
from engine.homes import HOMES
from engine.limits import EngineLimits
from engine.reading import history, list_runs, replay, verify
from engine.steps import executors as executors_module
from engine.steps.result import StepResult
from engine.store.connecting import Connection, connect
from engine.store.contract import StoreUnavailableError
from engine.store.queries import load
from engine.store.values import BegunExecution
from statemachines.machine import compile_pipeline
from tests.feeding import Feeding, event, feed
from tests.services import Database, execute
from tests.yard import TOPIC, Yard, executors_of, hauling

LIMITS = EngineLimits(step_poll_seconds=0.01, step_cancel_seconds=0.1, step_stop_seconds=60)
PATIENT = EngineLimits(step_poll_seconds=0.01, step_cancel_seconds=600)
"""So that whoever was told to end is waited for until it does."""


@pytest.fixture
async def yard() -> Yard:
    return Yard()


def told(kind: str, load: str = "l1", **data: Any) -> RawRecord:
    return event(f"haul.{kind}", {"load": load, **data}, topic=TOPIC)


async def turn(feeding: Feeding) -> None:
    """Wait until it was looked once more what may begin."""
    feeding.steps.turned.clear()
    await asyncio.wait_for(feeding.steps.turned.wait(), 60)


async def heard(feeding: Feeding) -> None:
    """Have the run take what became of an attempt next."""
    await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
    assert await feeding.take_results()


async def ended(feeding: Feeding) -> StepResult:
    """What became of an attempt next, which no run is told of."""
    await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
    [result] = feeding.steps.take()
    return result


async def call_off(database: Database, yard: Yard) -> None:
    """Have the state be left while no engine begins attempts, or hears of any."""
    async with feed(database, hauling(), executors=executors_of(yard)) as feeding:
        await feeding.records(told("called_off"))


async def rows(reader: Connection) -> list[tuple[str, str]]:
    found = await history(reader, "default", "hauling", "l1")
    return [(row.event.type, row.event.kind) for row in found]


async def check_the_log(reader: Connection, **options: Any) -> None:
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(hauling(**options))])
    assert replayed.is_equal, replayed


@contextlib.asynccontextmanager
async def gone(database: Database, yard: Yard, **options: Any) -> AsyncIterator[None]:
    """After an engine that has begun to haul a load, and is heard of no more: the next one has its name."""
    async with feed(database, hauling(**options), limits=LIMITS, executors=executors_of(yard)) as feeding:
        await feeding.records(told("ordered"))
        await feeding.begin_steps()
        await yard.until(1)
        await turn(feeding)
    yield
    assert yard.asked.count("haul/1") == 1, "the outside was asked once"


@contextlib.asynccontextmanager
async def found_by(
    database: Database, yard: Yard, limits: EngineLimits = LIMITS, **options: Any
) -> AsyncIterator[Feeding]:
    """The next engine, once it has looked for what the one before has begun."""
    async with feed(database, hauling(**options), limits=limits, executors=executors_of(yard)) as feeding:
        await feeding.begin_steps()
        await yard.until(len(yard.asked) + len(yard.looked_for) + 1)
        yield feeding


async def test_an_attempt_of_an_engine_that_is_gone_goes_on_here(
    database: Database, reader: Connection, yard: Yard
) -> None:
    async with gone(database, yard), found_by(database, yard) as feeding:
        await turn(feeding)
        assert not feeding.steps.has_results
        yard.job.end(Ended(7))
        await heard(feeding)
    [run] = await list_runs(reader, "default")
    assert (run.context["tons"], run.status) == (7, "completed")
    assert await rows(reader) == [("haul.ordered", "started"), ("done.step.haul", "fired")]
    assert yard.looked_for == ["haul/1"]
    assert await reader.fetchval("select count(*) from pointsman.executions") == 0
    await check_the_log(reader)


async def test_one_that_ended_meanwhile_is_told_of(
    database: Database, reader: Connection, yard: Yard
) -> None:
    async with gone(database, yard):
        yard.job.end(Ended(7))
        async with found_by(database, yard) as feeding:
            await heard(feeding)
    assert await rows(reader) == [("haul.ordered", "started"), ("done.step.haul", "fired")]


async def test_an_engine_that_has_the_next_version_beside_goes_on_with_it(
    database: Database, reader: Connection, yard: Yard
) -> None:
    async with feed(database, hauling(), limits=LIMITS, executors=executors_of(yard)) as feeding:
        await feeding.records(told("ordered"))
        await feeding.begin_steps()
        await yard.until(1)
        await feeding.steps.stop()
        await feeding.steps.let_go()
    versions = hauling(), hauling(version=2)
    async with feed(database, *versions, limits=LIMITS, executors=executors_of(yard)) as feeding:
        await feeding.begin_steps()
        await yard.until(2)
        assert yard.looked_for == ["haul/1"]
        await feeding.records(told("ordered", "l2"))
        await yard.until(3)
        for tons, job in enumerate(yard.jobs.values(), 1):
            job.end(Ended(tons))
            await heard(feeding)
    assert yard.asked == ["haul/1", "haul/1"], "each load is hauled once"
    assert {run.key: run.context["tons"] for run in await list_runs(reader, "default")} == {"l1": 1, "l2": 2}
    followed = (
        "select r.key, d.version from pointsman.runs r join pointsman.definitions d on d.id = r.definition"
    )
    assert {row["key"]: row["version"] for row in await reader.fetch(followed)} == {"l1": 1, "l2": 2}
    assert (await verify(reader, "default")).is_clean
    assert (await replay(reader, "default", [compile_pipeline(one) for one in versions])).is_equal


async def test_what_fails_after_that_is_tried_again(
    database: Database, reader: Connection, yard: Yard
) -> None:
    async with gone(database, yard), found_by(database, yard) as feeding:
        yard.job.end(Ended(error=OSError("a flat tyre")))
        await heard(feeding)
        await yard.until(3)
        [_, second] = yard.jobs.values()
        second.end(Ended(8))
        await heard(feeding)
    assert yard.asked == ["haul/1", "haul/2"]
    kinds = [("haul.ordered", "started"), ("tried.step.haul", "passed"), ("done.step.haul", "fired")]
    assert await rows(reader) == kinds
    await check_the_log(reader)


async def test_what_nobody_knows_of_is_lost(database: Database, reader: Connection, yard: Yard) -> None:
    async with gone(database, yard):
        yard.jobs.clear()
        async with found_by(database, yard) as feeding:
            lost = await ended(feeding)
    assert (lost.event_type, lost.data["error"], lost.data["lost"]) == ("tried.step.haul", "LostError", True)


async def test_what_has_kept_the_loop_of_an_engine_for_ever_is_lost_and_not_looked_for(
    database: Database, reader: Connection, yard: Yard
) -> None:
    async with gone(database, yard):
        number = await reader.fetchval("select id from pointsman.executions")
        connection = await connect(database.engine_dsn)
        try:
            [told] = await connection.fetch(load("store")["strike_step"], OF_STEP, number, "says (x.py:1)")
            assert tuple(told) == ("hauling", "l1", "haul", 1)
        finally:
            await connection.close()
        async with feed(database, hauling(), limits=LIMITS, executors=executors_of(yard)) as feeding:
            await feeding.begin_steps()
            await heard(feeding)
            await yard.until(2)
            assert yard.asked == ["haul/1", "haul/2"]
        # The next attempt may be gone on with.
        async with found_by(database, yard):
            assert yard.looked_for == ["haul/2"]
    assert await rows(reader) == [("haul.ordered", "started"), ("tried.step.haul", "passed")]
    await check_the_log(reader)


async def test_what_cannot_be_found_out_is_asked_again(
    database: Database,
    reader: Connection,
    yard: Yard,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(executors_module, "ASK_AGAIN_SECONDS", 0.01)
    async with gone(database, yard):
        yard.away = 2
        async with found_by(database, yard) as feeding:
            await yard.until(4)
            yard.job.end(Ended(7))
            await heard(feeding)
    assert yard.looked_for == ["haul/1"] * 3
    assert await rows(reader) == [("haul.ordered", "started"), ("done.step.haul", "fired")]
    assert "attempt 1 of the step haul, which another engine has begun, cannot be looked for" in caplog.text
    assert "ConnectionError: the yard does not answer" in caplog.text


async def test_one_whose_state_was_left_is_told_to_end_and_is_undone_as_it_ended(
    database: Database, reader: Connection, yard: Yard
) -> None:
    async with gone(database, yard):
        await call_off(database, yard)
        assert yard.job.told_to_end == 0
        yard.job.heeds = False
        async with found_by(database, yard, PATIENT) as feeding:
            await asyncio.sleep(0)
            while yard.job.told_to_end < 1:
                await turn(feeding)
            assert yard.asked == ["haul/1"], "nothing is undone beside it"
            yard.job.end(Ended(7))
            await heard(feeding)
            await yard.until(3)
            _, undoing = yard.jobs.values()
            assert undoing.work.arguments[1] == 7
            undoing.end(Ended())
            await heard(feeding)
    assert yard.asked == ["haul/1", "bring_back/1"]
    assert [type_ for type_, _ in await rows(reader)] == [
        "haul.ordered",
        "haul.called_off",
        "stopped.step.haul",
        "done.step.bring_back",
    ]
    await check_the_log(reader)


async def test_one_that_ended_before_it_could_be_told_to_has_made_what_it_made(
    database: Database, reader: Connection, yard: Yard
) -> None:
    async with gone(database, yard):
        await call_off(database, yard)
        yard.job.end(Ended(7))
        async with found_by(database, yard) as feeding:
            stopped = await ended(feeding)
    said = stopped.event_type, stopped.data["how"], stopped.data["data"]
    assert said == ("stopped.step.haul", "ended", 7)


async def test_one_whose_state_was_left_and_that_nobody_knows_of_is_unknown(
    database: Database, reader: Connection, yard: Yard
) -> None:
    async with gone(database, yard):
        await call_off(database, yard)
        yard.jobs.clear()
        async with found_by(database, yard) as feeding:
            stopped = await ended(feeding)
    assert (stopped.event_type, stopped.data["how"]) == ("stopped.step.haul", "unknown")


async def test_its_time_goes_on_from_when_it_began(
    database: Database, reader: Connection, yard: Yard
) -> None:
    options: dict[str, Any] = {"timeout": timedelta(minutes=1)}
    async with gone(database, yard, **options):
        yard.now += 60
        async with found_by(database, yard, **options) as feeding:
            result = await ended(feeding)
            assert yard.job.told_to_end == 1
    assert (result.event_type, result.data["error"]) == ("tried.step.haul", "TimeoutError")
    assert "not done within 1 min" in result.data["message"]


async def test_an_engine_that_stops_lets_it_go_on_for_the_next_one(
    database: Database, reader: Connection, yard: Yard
) -> None:
    async with feed(database, hauling(), limits=LIMITS, executors=executors_of(yard)) as feeding:
        await feeding.records(told("ordered"))
        await feeding.begin_steps()
        await yard.until(1)
        await asyncio.wait_for(feeding.steps.stop(), 60)
        assert not feeding.steps.has_results
        assert yard.job.told_to_end == 0
        await feeding.steps.let_go()
    async with found_by(database, yard) as feeding:
        yard.job.end(Ended(7))
        await heard(feeding)
    assert await rows(reader) == [("haul.ordered", "started"), ("done.step.haul", "fired")]
    assert yard.asked == ["haul/1"]


async def test_only_one_engine_goes_on_with_it(database: Database, reader: Connection, yard: Yard) -> None:
    async with gone(database, yard):
        given = executors_of(yard)
        async with (
            feed(database, hauling(), limits=LIMITS, executors=given) as one,
            feed(database, hauling(), limits=LIMITS, executors=given) as two,
        ):
            two.steps._instance = "another"
            await one.begin_steps()
            await two.begin_steps()
            await yard.until(2)
            await turn(one)
            await turn(two)
            assert len(yard.looked_for) == 1
            assert len(yard.job.watched) == 2, "the engine that is gone, and one of the others"


async def test_what_was_begun_and_never_heard_of_is_not_done_twice(
    database: Database, reader: Connection, yard: Yard
) -> None:
    next_one = feed(database, hauling(), limits=LIMITS, executors=executors_of(yard))
    async with gone(database, yard), next_one as feeding:
        await execute(database.owner_dsn, "update pointsman.executions set holder = null")
        await feeding.begin_steps()
        while len(yard.job.watched) < 2:
            await turn(feeding)
        yard.job.end(Ended(7))
        await heard(feeding)
    assert yard.looked_for == []


async def test_one_that_was_taken_by_an_engine_that_did_not_hear_so_goes_on_with_that_one(
    database: Database, reader: Connection, yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gone(database, yard):
        await call_off(database, yard)
        job = yard.job
        async with feed(database, hauling(), limits=LIMITS, executors=executors_of(yard)) as feeding:
            takes = feeding.store.take_executions

            async def breaks(*asked: Any) -> list[BegunExecution]:
                assert len(await takes(*asked)) == 1
                raise StoreUnavailableError("the connection broke")

            monkeypatch.setattr(feeding.store, "take_executions", breaks)
            await feeding.begin_steps()
            assert feeding.steps._serving is not None
            with pytest.raises(StoreUnavailableError):
                await asyncio.wait_for(feeding.steps._serving, 60)
            monkeypatch.undo()
            await feeding.begin_steps()
            await heard(feeding)
            # It is undone by now, perhaps, and the yard has another job.
            assert job.told_to_end == 1
    kinds = ["haul.ordered", "haul.called_off", "stopped.step.haul"]
    assert [type_ for type_, _ in await rows(reader)][:3] == kinds
    [stopped] = await reader.fetch("select payload from pointsman.events where type = 'stopped.step.haul'")
    assert b'"how":"unknown"' in stopped["payload"].replace(b" ", b"")


async def test_one_that_cannot_be_told_to_end_is_unknown_and_the_engine_goes_on(
    database: Database, reader: Connection, yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    def is_away() -> None:
        raise ConnectionError("the yard does not answer")

    async with feed(database, hauling(), limits=LIMITS, executors=executors_of(yard)) as feeding:
        await feeding.records(told("ordered"))
        await feeding.begin_steps()
        await yard.until(1)
        [watched] = yard.job.watched
        watched._check = is_away
        await feeding.records(told("called_off"))
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        feeding.steps.check()
        [stopped] = feeding.steps.take()
    assert (stopped.event_type, stopped.data["how"]) == ("stopped.step.haul", "unknown")
    assert "an attempt at the step haul cannot be told to end (_Watched raised ConnectionError" in caplog.text


async def test_what_is_taken_over_is_not_put_back_meanwhile(
    database: Database, reader: Connection, yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gone(database, yard):
        pass
    async with feed(database, hauling(), limits=LIMITS, executors=executors_of(yard)) as feeding:
        steps = feeding.steps
        await steps.open(
            feeding.store, list({id(one): one for t in feeding.topics.values() for one in t.routes}.values())
        )
        steps._homes = list(range(HOMES))
        await steps.close()
        plain, taking = feeding.store.put_held_back, list[asyncio.Task[None]]()

        async def put_held_back(holder: int, ours: Sequence[tuple[int, int]]) -> None:
            await plain(holder, ours)
            taking.append(asyncio.create_task(steps.find_kept()))
            await asyncio.wait(taking, timeout=0.5)

        monkeypatch.setattr(feeding.store, "put_held_back", put_held_back)
        await steps._put_back(feeding.store)
        await asyncio.gather(*taking)
        assert [one.begun.step for one in steps._going] == ["haul"]
        assert await reader.fetchval("select holder from pointsman.executions") == steps.holder


async def test_batches_are_read_for_while_it_is_looked_what_goes_on_of_engines_that_are_gone(
    database: Database, reader: Connection, yard: Yard
) -> None:
    async with gone(database, yard):
        pass
    async with feed(database, hauling(), limits=LIMITS, executors=executors_of(yard)) as feeding:
        steps = feeding.steps
        await steps.open(feeding.store, feeding.topics.pipelines)
        steps._homes = list(range(HOMES))
        await steps.close()
        finding = asyncio.create_task(steps.find_kept())
        while not finding.done():
            await feeding.store.load_runs(feeding.topics.pipelines[0].pipeline, ["l1"])
        await finding
        assert [one.begun.step for one in steps._going] == ["haul"]
