"""What an engine keeps of attempts until it is durable, and what it does where that goes wrong, on a real Postgres."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.batch.inside import execution_of
from engine.errors import UsageError
from engine.limits import SILENT_SECONDS, EngineLimits
from engine.reading import ask_edit, history, list_runs, replay, verify
from engine.session.claims import Slice
from engine.steps import steps as steps_module
from engine.steps.hearing import SPEAK_SECONDS
from engine.steps.result import StepResult
from engine.store.connecting import Connection, connect
from statemachines.machine import compile_pipeline
from tests.charging import TOPIC, AwayError, Charge, World, charging_pipeline, clear
from tests.feeding import Feeding, event, feed
from tests.operators import ask
from tests.services import Database, execute


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


def told(kind: str, order: str = "o1", **data: Any) -> RawRecord:
    return event(f"order.{kind}", {"order": order, **data}, topic=TOPIC)


async def check_the_log(reader: Connection, **options: Any) -> None:
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(charging_pipeline(**options))])
    assert replayed.is_equal, replayed


async def turn(feeding: Feeding) -> None:
    """Wait until it was looked once more what may begin."""
    feeding.steps.turned.clear()
    await asyncio.wait_for(feeding.steps.turned.wait(), 60)


async def result_of(feeding: Feeding) -> StepResult:
    """What became of the one attempt that is made, handed out."""
    await feeding.begin_steps()
    await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
    [result] = feeding.steps.take()
    return result


async def test_a_result_that_waits_behind_a_hold_already_waits_once(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("placed"))
        result = await result_of(feeding)
        await feeding.records(told("noted", word=7))
        draft = await feeding.committer.draft(None)
        await feeding.committer.extend_results(draft, [result])
        await feeding.committer.commit(feeding.committer.finish(draft))
        # It was never heard that this is durable.
        feeding.let_go()
        for topic in feeding.topics.values():
            for route in topic.routes:
                route.cache.clear()
        feeding.steps.give_back([result])
        assert await feeding.take_results()
        assert not feeding.steps.has_results
        await feeding.steps.close()
    rows = [(row.event.type, row.event.kind) for row in await history(reader, "default", "charging", "o1")]
    assert rows[-1] == ("done.step.charge", "waited")
    assert [type_ for type_, _ in rows].count("done.step.charge") == 1
    await check_the_log(reader)


async def test_where_results_do_not_become_durable_no_more_is_begun(
    database: Database, reader: Connection, world: World
) -> None:
    limits = EngineLimits(step_poll_seconds=0.01, steps_at_once_max=2)
    async with feed(database, charging_pipeline(), limits=limits) as feeding:
        await feeding.records(*(told("placed", f"o{number}") for number in range(5)))
        await feeding.begin_steps()
        while len(world.attempts("charge")) < 2:
            await turn(feeding)
        for _ in range(5):
            await turn(feeding)
        assert len(world.attempts("charge")) == 2
        await feeding.steps.close()
        await feeding.work()
    assert {" ".join(run.configuration) for run in await list_runs(reader, "default")} == {"shipped"}


async def test_a_later_result_is_not_forgotten_with_an_earlier_one(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("placed"))
        result = await result_of(feeding)
        earlier = result._replace(event_id=f"{result.event_id}/before")
        draft = await feeding.committer.draft(None)
        feeding.steps.settle([earlier], draft.batch.commit)
        assert feeding.steps.has_results
        [again] = feeding.steps.take()
        assert again.event_id == result.event_id
        await feeding.steps.close()


async def test_only_a_result_that_was_alone_is_taken_for_what_the_store_refuses(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("placed"))
        result = await result_of(feeding)
        feeding.steps.give_back([result])
        assert feeding.steps.are_alone
        [again] = feeding.steps.take()
        assert again.event_type == "done.step.charge"
        feeding.steps.give_back([again], alone=True)
        [refused] = feeding.steps.take()
        assert refused.event_type == "failed.step.charge"
        assert "Postgres refuses" in refused.data["message"]
        await feeding.steps.close()


async def test_a_commit_without_results_that_comes_to_nothing_keeps_what_is_found_out_of_others(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, charging_pipeline()) as feeding, feed(database, charging_pipeline()) as other:
        steps = feeding.steps
        await feeding.records(told("placed"), told("placed", "o2"), told("placed", "o3"))
        await feeding.begin_steps()
        while len(steps._results) < 3:
            await turn(feeding)
        results = steps.take()
        assert len(results) == 3
        # The store did not take them together.
        steps.give_back(results)
        # What another engine has taken meanwhile is lost.
        [(partition, claim)] = feeding.claims.items()
        await other.claim(partition)
        record = told("placed", "o4")._replace(offset=claim.read_to)
        slices = [Slice(claim, [record], claim.read_to, claim.read_to + 1)]
        pending = feeding.committer.begin(slices, await feeding.committer.prepare(slices, None))
        assert not await feeding.committer.settle(pending)
        assert (claim.lost, pending.came_to_nothing) == (True, True)
        steps.give_back(pending.results)
        for one in results:
            assert steps.are_alone
            assert steps.take() == [one]
        assert not steps.are_alone
        await steps.close()


async def test_an_engine_that_was_away_itself_waits_to_hear_of_silent_ones(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [asyncio.Event().wait]
    async with feed(database, charging_pipeline()) as other, feed(database, charging_pipeline()) as feeding:
        other.steps._instance, feeding.steps._instance = "other", "ours"
        await other.records(told("placed"))
        await other.begin_steps()
        while not world.attempts("charge"):
            await turn(other)
        await other.steps.close()
        silent = f"update pointsman.holders set seen = now() - interval '{SILENT_SECONDS + 1} seconds'"
        await execute(database.owner_dsn, silent)
        await feeding.begin_steps()
        await turn(feeding)
        assert not feeding.steps.has_results, "Postgres may have been away for all"
        feeding.steps._hearing.listens_since -= SILENT_SECONDS
        feeding.steps._spoke_at -= SPEAK_SECONDS
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        [lost] = feeding.steps.take()
        assert (lost.event_type, lost.data["error"]) == ("tried.step.charge", "LostError")
        await feeding.steps.close()


async def test_what_goes_on_here_is_not_lost_where_another_of_the_same_name_takes_the_mark_away(
    database: Database, reader: Connection, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.steps.steps.LOST_AT_ONCE_MAX", 1)
    world.script["charge"] = [asyncio.Event().wait] * 2
    async with feed(database, charging_pipeline()) as feeding:
        steps = feeding.steps
        await feeding.records(told("placed"), told("placed", "o2"))
        await feeding.begin_steps()
        while len(world.attempts("charge")) < 2:
            await turn(feeding)
        hold = feeding.store.hold

        async def taken_away(*said: Any) -> datetime:
            heard = await hold(*said)
            await feeding.store.let_go(steps.holder)
            return heard

        monkeypatch.setattr(feeding.store, "hold", taken_away)
        for _ in range(3):
            steps._spoke_at -= SPEAK_SECONDS
            await turn(feeding)
        assert not steps.has_results
        assert not steps._are_more_lost, "it would look for more again and again"
        assert len(world.attempts("charge")) == 2
        await steps.close()


async def until_released(released: asyncio.Event) -> None:
    """Though it is cancelled, as attempts are once."""
    with contextlib.suppress(asyncio.CancelledError):
        await released.wait()
    await released.wait()


async def charged_late(released: asyncio.Event) -> Charge:
    await until_released(released)
    return Charge(id="late", amount=0)


LATE: dict[str, Any] = {"timeout": timedelta(seconds=0.05)}
HASTY = EngineLimits(step_poll_seconds=0.01, step_cancel_seconds=0.05)


@pytest.mark.parametrize("is_done", [True, False])
async def test_an_attempt_that_was_told_of_keeps_its_place_until_it_is_over_and_counts_if_it_was_done(
    database: Database, reader: Connection, world: World, *, is_done: bool
) -> None:
    going, released = 0, asyncio.Event()

    async def stubborn() -> Charge:
        nonlocal going
        going += 1
        assert going == 1, "two attempts at once"
        await until_released(released)
        going -= 1
        if not is_done:
            raise AwayError("down")
        return Charge(id="late", amount=0)

    world.script["charge"] = [stubborn]
    flow = charging_pipeline(**LATE)
    async with feed(database, flow, limits=HASTY) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        assert await feeding.take_results()
        for _ in range(10):
            await turn(feeding)
        assert world.attempts("charge") == [("o1", 1)]
        # The next one, if there is one, has all the time of this machine.
        flow.steps[0].timeout = None
        released.set()
        await feeding.steps.close()
        await feeding.work()
    assert world.attempts("charge") == [("o1", 1)] + ([] if is_done else [("o1", 2)])
    [run] = await list_runs(reader, "default")
    assert (run.configuration, run.context["charge"]["id"] == "late") == (["shipped"], is_done)
    types = [row.event.type for row in await history(reader, "default", "charging", "o1")]
    assert types[1:3] == ["tried.step.charge", "done.step.charge"]
    await check_the_log(reader, **LATE)


async def test_what_is_done_once_its_run_is_stuck_waits_and_is_taken_where_the_step_is_to_begin_anew(
    database: Database, reader: Connection, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    released = asyncio.Event()
    world.script["charge"] = [partial(charged_late, released)]
    options = {**LATE, "attempts": 1, "takes_failures": False}
    async with feed(database, charging_pipeline(**options), limits=HASTY) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        assert await feeding.take_results()
        [run] = await list_runs(reader, "default")
        assert run.status == "held"
        released.set()
        while not await feeding.take_results():
            await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        assert (await ask(feeding, "retry", "charging", "o1")).done
        await feeding.steps.close()
        await feeding.work()
    assert world.attempts("charge") == [("o1", 1)]
    [run] = await list_runs(reader, "default")
    assert (run.configuration, run.context["charge"]["id"]) == (["shipped"], "late")
    assert not [one for one in caplog.records if "was done after its run" in one.getMessage()]
    await check_the_log(reader, **options)


async def test_what_is_done_once_its_step_has_failed_is_void_and_the_log_says_whose_it_is(
    database: Database, reader: Connection, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    released = asyncio.Event()
    world.script["charge"] = [partial(charged_late, released)]
    options = {**LATE, "attempts": 1}
    async with feed(database, charging_pipeline(**options), limits=HASTY) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        assert await feeding.take_results()
        released.set()
        while not await feeding.take_results():
            await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        await turn(feeding)
        await turn(feeding)
    [note] = await reader.fetch("select type, event_id, reason from pointsman.dispositions")
    assert (note["type"], note["reason"]) == ("done.step.charge", "void")
    [warning] = [one for one in caplog.records if "was done after its run" in one.getMessage()]
    said: Any = warning
    assert (said.pipeline, said.run, said.step, said.attempt) == ("charging", "o1", "charge", 1)
    assert said.idempotency_key == world.calls[0][1].idempotency_key
    await check_the_log(reader, **options)


async def test_how_a_step_ended_is_not_edited(database: Database, reader: Connection, world: World) -> None:
    world.script["charge"] = [AwayError("down")] * 3
    async with feed(database, charging_pipeline(takes_failures=False)) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
    [number] = [one["id"] for one in await reader.fetch("select id from pointsman.dead_letters")]
    connection = await connect(database.engine_dsn, for_engine=False)
    try:
        with pytest.raises(UsageError, match="tells how a step ended, which nobody can change"):
            await ask_edit(connection, "default", number, data=b'{"place": "shop"}', who="ana", why="a try")
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "data", [None, {}, {"execution": "1"}, {"execution": "1.0"}, {"execution": 5, "attempt": 1}]
)
def test_what_names_no_execution_is_for_none(data: Any) -> None:
    assert execution_of("failed.step.charge", data)[:3] == (0, 0, "charge")


async def test_what_a_step_does_once_it_was_cancelled_is_not_cut_short(
    database: Database, reader: Connection, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_module, "LOOK_AFTER_SECONDS", 0.0)
    going, leaving, told_the_bank = asyncio.Event(), asyncio.Event(), asyncio.Event()
    left: list[str] = []

    async def slow() -> None:
        going.set()
        try:
            await asyncio.Event().wait()
        finally:
            leaving.set()
            await told_the_bank.wait()
            left.append("in good order")

    world.script["charge"] = [slow]
    async with feed(database, charging_pipeline()) as feeding, feed(database, charging_pipeline()) as other:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await asyncio.wait_for(going.wait(), 60)
        # By an engine that knows nothing of the attempt.
        await other.records(told("cancelled"))
        await asyncio.wait_for(leaving.wait(), 60)
        for _ in range(3):
            await turn(feeding)
        told_the_bank.set()
        while feeding.steps.are_going:
            await turn(feeding)
    assert left == ["in good order"]
