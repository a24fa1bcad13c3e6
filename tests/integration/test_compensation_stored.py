"""Compensation in a real Postgres: registered before its step, never beside an attempt of it, once each, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.limits import EngineLimits
from engine.reading import history, list_runs, replay, verify
from engine.steps import steps as steps_module
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from tests.feeding import STEP_SECONDS_MAX, Feeding, event, feed
from tests.operators import ask
from tests.saga import TOPIC, OutOfStockError, World, clear, forever, saga_pipeline
from tests.services import Database, execute


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


def told(kind: str, order: str = "o1") -> RawRecord:
    return event(f"order.{kind}", {"order": order}, topic=TOPIC)


async def check_the_log(reader: Connection, **options: Any) -> None:
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(saga_pipeline(**options))])
    assert replayed.is_equal, replayed


async def rows(reader: Connection) -> list[tuple[str, str]]:
    found = await history(reader, "default", "saga", "o1")
    return [(row.event.type, " ".join(row.to_states)) for row in found]


async def turn(feeding: Feeding) -> None:
    feeding.steps.turned.clear()
    await asyncio.wait_for(feeding.steps.turned.wait(), STEP_SECONDS_MAX)


async def until_going(feeding: Feeding, step: str, reader: Connection) -> None:
    """Take results until this step is at work."""
    sql = "select count(*) from pointsman.executions where step = $1 and holder is not null"
    while not await reader.fetchval(sql, step):
        if not await feeding.take_results():
            await turn(feeding)


def keys_of(world: World) -> dict[str, str]:
    return {step: key for step, _, key, _ in world.ledger}


async def test_what_was_done_is_undone_in_reverse_order_before_the_target_is_entered(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["ship"] = [OutOfStockError("none left")]
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
    assert world.steps() == ["charge", "reserve", "release", "refund"]
    keys = keys_of(world)
    undone = {step: of for step, _, _, of in world.ledger if of}
    assert undone == {"release": keys["reserve"], "refund": keys["charge"]}
    assert world.made == [("release", keys["reserve"]), ("refund", keys["charge"])]
    assert len(set(keys.values())) == 4
    assert await rows(reader) == [
        ("order.placed", "charging"),
        ("done.step.charge", "reserving"),
        ("done.step.reserve", "shipping"),
        ("failed.step.ship", "$compensating"),
        ("done.step.release", "$compensating"),
        ("done.step.refund", "cancelled"),
    ]
    [run] = await list_runs(reader, "default")
    assert (run.status, run.context["notes"]) == ("completed", ["OutOfStockError after 1"])
    assert await reader.fetchval("select count(*) from pointsman.executions") == 0
    await check_the_log(reader)


async def test_what_succeeds_owes_nothing(database: Database, reader: Connection, world: World) -> None:
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
    assert world.steps() == ["charge", "reserve", "ship"]
    assert (await rows(reader))[-1] == ("done.step.ship", "shipped")
    await check_the_log(reader)


async def test_a_cancel_waits_for_the_attempt_that_goes_on_and_undoes_what_nobody_saw(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["reserve"] = [forever]
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await until_going(feeding, "reserve", reader)
        await feeding.records(told("cancelled"))
        assert (await rows(reader))[-1] == ("order.cancelled", "$compensating")
        assert "release" not in world.steps()
        await feeding.steps.close()
        await feeding.work()
    # What the attempt did that was stopped is not known: it is undone first, and told that there is nothing to go by.
    assert world.steps() == ["charge", "release", "refund"]
    assert world.made == [("release", None), ("refund", keys_of(world)["charge"])]
    assert [type_ for type_, _ in await rows(reader)][2:] == [
        "order.cancelled",
        "stopped.step.reserve",
        "done.step.release",
        "done.step.refund",
    ]
    await check_the_log(reader)


async def test_a_step_that_was_never_begun_owes_nothing(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        # Nobody has begun the charge.
        await feeding.records(told("cancelled"))
        await feeding.work()
    assert world.ledger == []
    assert [type_ for type_, _ in await rows(reader)] == [
        "order.placed",
        "order.cancelled",
        "stopped.step.charge",
    ]
    assert (await rows(reader))[-1][1] == "cancelled"
    await check_the_log(reader)


async def test_an_attempt_that_ends_while_it_is_stopped_is_undone_with_what_it_made(
    database: Database, reader: Connection, world: World
) -> None:
    async def stubborn() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            return

    world.script["reserve"] = [stubborn]
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await until_going(feeding, "reserve", reader)
        await feeding.records(told("cancelled"))
        await feeding.steps.close()
        await feeding.work()
    assert world.steps() == ["charge", "reserve", "release", "refund"]
    assert world.made[0] == ("release", keys_of(world)["reserve"])
    await check_the_log(reader)


async def test_what_does_not_end_though_it_is_stopped_has_its_time_before_it_is_undone(
    database: Database, reader: Connection, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_module, "LOOK_AFTER_SECONDS", 0.0)
    cancelled, released = asyncio.Event(), asyncio.Event()

    async def deaf() -> None:
        try:
            await released.wait()
        except asyncio.CancelledError:
            cancelled.set()
            await released.wait()

    world.script["charge"] = [deaf]
    options: dict[str, Any] = {"timeout": timedelta(minutes=5)}
    limits = EngineLimits(step_poll_seconds=0.01, step_cancel_seconds=0.01)
    async with feed(database, saga_pipeline(**options), limits=limits) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await until_going(feeding, "charge", reader)
        await feeding.records(told("cancelled"))
        await asyncio.wait_for(cancelled.wait(), STEP_SECONDS_MAX)
        for _ in range(10):
            await turn(feeding)
        assert not feeding.steps.has_results
        released.set()
        await feeding.steps.close()
        await feeding.work()
    assert world.steps() == ["charge", "refund"]
    assert world.made == [("refund", keys_of(world)["charge"])]
    await check_the_log(reader, **options)


async def test_a_compensation_is_tried_again_and_one_that_fails_for_good_holds_the_run(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["ship"] = [OutOfStockError("none left")]
    world.script["release"] = [RuntimeError("away"), RuntimeError("away")]
    world.script["refund"] = [RuntimeError(f"bank {number}") for number in range(6)]
    still_open = "select id, reason, error from pointsman.dead_letters where status = 'open'"
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
        assert world.steps() == ["charge", "reserve", "release"]
        [run] = await list_runs(reader, "default")
        assert (run.status, run.configuration) == ("held", ["$compensating"])
        [letter] = await reader.fetch(still_open)
        assert letter["reason"] == "step failed"
        assert "the compensation refund failed after 3 attempts" in letter["error"]
        assert "bank 2" in letter["error"]
        await check_the_log(reader)
        # Without it the run would never end; put back, it begins anew, and fails three times more, and once more.
        dropped = await feeding.drop(letter["id"])
        assert (dropped.commands, [number for number, _ in dropped.skipped]) == ((), [letter["id"]])
        assert "redrive it, to have it tried again" in dropped.skipped[0][1]
        # Nor where it was asked for before that.
        asked = "insert into pointsman.inbox (namespace, pipeline, command, body, who, why) "
        body = f"""'{{"dead_letter": {letter["id"]}}}'"""
        await execute(
            database.owner_dsn, asked + f"values ('default', 1, 'drop', {body}, 'ana', 'not wanted')"
        )
        await feeding.commands()
        assert [one["id"] for one in await reader.fetch(still_open)] == [letter["id"]]
        await feeding.redrive(letter["id"])
        await feeding.work()
        [again] = await reader.fetch(still_open)
        assert "refund failed after 6 attempts" in again["error"]
        await feeding.redrive(again["id"])
        await feeding.work()
    assert world.steps() == ["charge", "reserve", "release", "refund"]
    assert (await rows(reader))[-1] == ("done.step.refund", "cancelled")
    await check_the_log(reader)


async def test_engines_that_are_killed_while_they_undo_leave_nothing_undone_or_undone_twice(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["ship"] = [OutOfStockError("none left")]
    world.script["release"] = [forever]
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await until_going(feeding, "release", reader)
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.work()
    assert world.steps() == ["charge", "reserve", "release", "refund"]
    assert [step for step, _ in world.made] == ["release", "release", "refund"], "one attempt was lost"
    await check_the_log(reader)


async def test_an_attempt_that_was_lost_may_have_done_it_so_that_it_is_undone(
    database: Database, reader: Connection, world: World
) -> None:
    options: dict[str, Any] = {"attempts": 1}
    world.script["reserve"] = [forever]
    async with feed(database, saga_pipeline(**options)) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await until_going(feeding, "reserve", reader)
    async with feed(database, saga_pipeline(**options)) as feeding:
        await feeding.work()
    assert world.steps() == ["charge", "release", "refund"]
    assert world.made == [("release", None), ("refund", keys_of(world)["charge"])]
    await check_the_log(reader, **options)


async def test_a_step_that_timed_out_may_have_done_it_so_that_it_is_undone(
    database: Database, reader: Connection, world: World
) -> None:
    options: dict[str, Any] = {"timeout": timedelta(seconds=0.05), "attempts": 1}
    world.script["charge"] = [forever]
    async with feed(database, saga_pipeline(**options)) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
    assert world.steps() == ["refund"]
    assert world.made == [("refund", None)]
    assert (await rows(reader))[-1] == ("done.step.refund", "cancelled")
    await check_the_log(reader, **options)


async def test_a_step_all_of_whose_attempts_raised_owes_nothing(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["reserve"] = [RuntimeError("no")] * 3
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
    assert world.steps() == ["charge", "refund"]
    await check_the_log(reader)


async def test_a_second_cancel_and_other_events_change_nothing_while_a_run_is_undone(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["reserve"] = [forever]
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await until_going(feeding, "reserve", reader)
        await feeding.records(told("cancelled"))
        await feeding.records(told("cancelled"))
        await feeding.steps.close()
        await feeding.work()
    assert world.steps() == ["charge", "release", "refund"]
    [run] = await list_runs(reader, "default")
    assert (run.status, run.configuration, run.context["notes"]) == (
        "completed",
        ["cancelled"],
        ["cancelled"],
    )
    await check_the_log(reader)


async def test_an_event_that_is_not_valid_is_dropped_while_a_run_is_undone(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["reserve"] = [forever]
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed", "7"))
        await feeding.begin_steps()
        await until_going(feeding, "reserve", reader)
        await feeding.records(told("cancelled", "7"))
        await feeding.records(event("order.cancelled", {"order": 7}, topic=TOPIC))
        [run] = await list_runs(reader, "default")
        assert (run.status, run.configuration) == ("held", ["$compensating"])
        dropped = await feeding.drop(1)
        assert dropped.skipped == ()
        await feeding.steps.close()
        await feeding.work()
    assert world.steps() == ["charge", "release", "refund"]
    [run] = await list_runs(reader, "default")
    assert (run.status, run.configuration) == ("completed", ["cancelled"])
    await check_the_log(reader)


async def test_an_operator_s_cancel_undoes_the_run_and_a_second_one_changes_nothing(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["reserve"] = [forever]
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await until_going(feeding, "reserve", reader)
        await feeding.steps.close()
        assert (await ask(feeding, "cancel", "saga", "o1", why="nobody wants it")).done
        again = await ask(feeding, "cancel", "saga", "o1")
        assert again.done
        assert "is being undone already" in again.sentence
        await feeding.work()
    assert world.steps() == ["charge", "release", "refund"]
    [run] = await list_runs(reader, "default")
    assert (run.configuration, run.context["notes"]) == (["cancelled"], ["cancelled by ana: nobody wants it"])
    await check_the_log(reader)


async def test_a_run_that_owes_something_is_not_cancelled_where_its_pipeline_does_not_say_how(
    database: Database, reader: Connection, world: World
) -> None:
    options: dict[str, Any] = {"takes_cancel": False}
    world.script["reserve"] = [forever]
    async with feed(database, saga_pipeline(**options)) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await until_going(feeding, "reserve", reader)
        answer = await ask(feeding, "cancel", "saga", "o1")
        assert not answer.done
        assert "on_cancel(to=..., compensate=True)" in answer.sentence
        [run] = await list_runs(reader, "default")
        assert (run.status, run.configuration) == ("running", ["reserving"])
    await check_the_log(reader, **options)


async def test_a_step_that_was_done_is_undone_also_where_its_end_was_refused(
    database: Database, reader: Connection, world: World
) -> None:
    async def odd() -> None:
        world.odd = True

    world.script["charge"] = [odd]
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
        [run] = await list_runs(reader, "default")
        assert (run.status, run.configuration) == ("held", ["charging"]), "its action raised"
        assert (await ask(feeding, "cancel", "saga", "o1")).done
        await feeding.work()
    assert world.steps() == ["charge", "refund"]
    assert world.made == [("refund", None)]
    await check_the_log(reader)


async def test_what_a_step_returned_by_mistake_may_have_been_done_so_that_it_is_undone(
    database: Database, reader: Connection, world: World
) -> None:
    async def wrong() -> None:
        world.wrong = True

    world.script["reserve"] = [wrong]
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
    assert world.steps() == ["charge", "reserve", "release", "refund"]
    assert world.made[0] == ("release", None)
    await check_the_log(reader)


async def test_what_waits_behind_a_hold_is_not_begun_again_nor_taken_for_lost(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), STEP_SECONDS_MAX)
        assert (await ask(feeding, "pause", "saga", "o1")).done
        assert await feeding.take_results()
        await feeding.steps.close()
        assert [type_ for type_, _ in await rows(reader)][-1] == "done.step.charge"
        # The same engine with another connection, which puts back what it does not know of.
        await feeding.begin_steps()
        await turn(feeding)
        await turn(feeding)
        await feeding.steps.close()
        assert world.steps() == ["charge"]
    async with feed(database, saga_pipeline()) as feeding:
        # By the same name: what the one before had begun is lost, but for that.
        await feeding.begin_steps()
        await turn(feeding)
        await turn(feeding)
        assert not await feeding.take_results()
        await feeding.steps.close()
        assert world.steps() == ["charge"]
        assert (await ask(feeding, "resume", "saga", "o1")).done
        await feeding.work()
    assert world.steps() == ["charge", "reserve", "ship"]
    await check_the_log(reader)
