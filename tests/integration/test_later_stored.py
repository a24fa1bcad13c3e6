"""Steps that go on outside, in a real Postgres: they wait as rows, and are completed once, by their tokens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from engine.cli.working import step_words
from engine.limits import EngineLimits
from engine.reading import (
    explain,
    history,
    list_runs,
    show,
)
from engine.store.connecting import Connection
from statemachines.step import Call
from tests.feeding import STEP_SECONDS_MAX, Feeding, feed
from tests.lending import Verdict, World, clear, lending_pipeline
from tests.lent import (
    TOKEN,
    VERDICT,
    check_the_log,
    rows,
    states,
    take_until,
    told,
    waits,
)
from tests.operators import WHO, WHY, ask, complete
from tests.services import Database


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


async def turn(feeding: Feeding) -> None:
    """Wait until it was looked once more what may begin."""
    feeding.steps.turned.clear()
    await asyncio.wait_for(feeding.steps.turned.wait(), STEP_SECONDS_MAX)


async def test_what_goes_on_outside_waits_as_a_row_and_takes_no_room(
    database: Database, reader: Connection, world: World
) -> None:
    loans = [f"l{number}" for number in range(7)]
    async with feed(database, lending_pipeline()) as feeding:
        await waits(feeding, *loans)
        # Two of it may go on at once, and seven wait.
        assert len(world.calls) == 7
        assert not feeding.steps.are_going
        assert not feeding.steps._going
        assert not feeding.steps._results
        asked = "select count(*) from pointsman.executions where holder is null and token <> ''"
        assert await reader.fetchval(asked) == 7
    # An engine that comes later begins none of them again, and takes none for lost.
    async with feed(database, lending_pipeline()) as feeding:
        await feeding.work()
        assert len(world.calls) == 7
        done = await complete(feeding, "case l3/1", VERDICT)
    assert (done.done, done.disposition) == (True, "applied")
    assert (
        done.sentence == "review of the run 'l3' of lending is completed (row 3), and the run is in granted."
    )
    [run] = await list_runs(reader, "default", key="l3")
    assert run.context["verdict"] == VERDICT
    assert await rows(reader, "l3") == [
        ("loan.applied", "started", "reviewing"),
        ("waits.step.review", "passed", "reviewing"),
        ("done.step.review", "fired", "granted"),
    ]
    assert await rows(reader) == [
        ("loan.applied", "started", "reviewing"),
        ("waits.step.review", "passed", "reviewing"),
    ]
    await check_the_log(reader)


async def test_who_completed_it_and_why_is_in_the_log(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        await waits(feeding)
        done = await complete(feeding, TOKEN, VERDICT)
    assert done.event_id is not None
    assert done.event_id.partition("/")[0] == world.calls[0].idempotency_key
    payload = await reader.fetchval("select payload from pointsman.events where event_id = $1", done.event_id)
    assert f'"who":"{WHO}","why":"{WHY}"'.encode() in payload
    told_of = await explain(reader, "default", event_id=done.event_id)
    [answer] = told_of.answers
    assert answer.sender is not None
    assert (answer.sender.who, answer.sender.why) == (WHO, WHY)
    assert answer.current.sentence == (
        "Attempt 1 of review was done. It moved the run 'l1' of lending from reviewing to granted (row 3)."
    )


async def test_a_result_that_is_none_of_the_step_leaves_it_waiting(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        await waits(feeding)
        wrong = await complete(feeding, TOKEN, {"by": "bo", "amount": "much"})
        assert (wrong.failed, wrong.event_id) == (True, None)
        assert wrong.sentence == (
            "review of the run 'l1' of lending is not completed, and still waits: that is no result of review: amount: "
            "Input should be a valid integer, unable to parse string as an integer."
        )
        assert len(await rows(reader)) == 2
        assert (await complete(feeding, TOKEN, VERDICT)).done
    await check_the_log(reader)


async def test_it_is_completed_once_and_the_second_time_is_void(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        await waits(feeding)
        await complete(feeding, TOKEN, VERDICT)
        before = await rows(reader)
        again = await complete(feeding, TOKEN, {"by": "cy", "amount": 9})
    assert (again.done, again.failed, again.disposition) == (False, True, "void")
    assert again.sentence.startswith("review of the run 'l1' of lending was completed already, by ana at ")
    assert again.sentence.endswith(f"({WHY}). Nothing was changed.")
    assert await rows(reader) == before
    await check_the_log(reader)


async def test_for_a_state_that_was_left_and_a_run_that_has_ended_it_is_void(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        await waits(feeding)
        await feeding.records(told("withdrawn"))
        ended = await complete(feeding, TOKEN, VERDICT)
        assert (ended.failed, ended.disposition) == (True, "void")
        assert ended.sentence == (
            "review of the run 'l1' of lending is not waited for any more: that run has ended in withdrawn. Nothing "
            "was changed."
        )
        # The next run of the key has a token of its own, and the same for the same attempt.
        await waits(feeding)
        assert (await complete(feeding, TOKEN, VERDICT)).done
    runs = await list_runs(reader, "default")
    assert {run.generation: " ".join(run.configuration) for run in runs} == {0: "withdrawn", 1: "granted"}
    await check_the_log(reader)


async def test_an_error_from_outside_is_tried_again_as_any_and_fails_for_good_in_the_end(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline(attempts=2)) as feeding:
        await waits(feeding)
        first = await complete(feeding, TOKEN, error="the desk burns")
        assert (first.done, first.disposition) == (True, "applied")
        assert first.sentence == (
            "review of the run 'l1' of lending: attempt 1 has failed (row 3), and the step is to be tried again."
        )
        await feeding.work()
        assert [(call.attempt, call.last_error) for call in world.calls] == [
            (1, ""),
            (2, "OutsideError: the desk burns"),
        ]
        late = await complete(feeding, TOKEN, VERDICT)
        assert late.disposition == "void"
        last = await complete(feeding, "case l1/2", error="it still burns")
        assert last.sentence == (
            "review of the run 'l1' of lending has failed for good (row 5), and the run has ended in failed."
        )
    [run] = await list_runs(reader, "default")
    assert run.context["notes"] == ["OutsideError after 2: it still burns"]
    await check_the_log(reader, attempts=2)


async def test_what_is_not_completed_in_time_has_timed_out_as_any_step(
    database: Database, reader: Connection, world: World
) -> None:
    # Days, since time goes on while it is waited for Postgres.
    options: dict[str, Any] = {"within": timedelta(days=10), "attempts": 2, "undone": True}

    async def is_tried_again() -> bool:
        return len(world.calls) == 2

    async def has_failed() -> bool:
        return await states(reader) == {"l1": "failed"}

    async with feed(database, lending_pipeline(**options)) as feeding:
        await waits(feeding)
        feeding.clock.now += timedelta(days=9)
        await feeding.work()
        assert len(world.calls) == 1
        feeding.clock.now += timedelta(days=2)
        await take_until(feeding, is_tried_again)
        await feeding.work()
        late = await complete(feeding, TOKEN, error="the desk burns")
        assert late.disposition == "void"
        assert late.sentence == (
            "Attempt 1 of review of the run 'l1' of lending is not waited for any more: it was not completed in time. "
            "Nothing was changed."
        )
        assert await states(reader) == {"l1": "reviewing"}
        feeding.clock.now += timedelta(days=11)
        await take_until(feeding, has_failed)
    [run] = await list_runs(reader, "default")
    assert run.context["notes"] == [
        "TimeoutError after 2: it was not completed within the time that its Later gave"
    ]
    assert world.made == [("l1", None)], "what took too long may have been done"
    await check_the_log(reader, **options)


@pytest.mark.parametrize("is_tried_again", [False, True])
async def test_what_an_earlier_attempt_has_made_is_taken_as_long_as_the_step_is_waited_for(
    database: Database, reader: Connection, world: World, *, is_tried_again: bool
) -> None:
    options: dict[str, Any] = {"within": timedelta(days=10), "attempts": 2, "undone": True}
    options["pause"] = timedelta(days=0 if is_tried_again else 1)

    async def has_timed_out() -> bool:
        return len(await rows(reader)) == 3

    async with feed(database, lending_pipeline(**options)) as feeding:
        await waits(feeding)
        feeding.clock.now += timedelta(days=11)
        await take_until(feeding, has_timed_out)
        if is_tried_again:
            await feeding.work()
        assert len(world.calls) == 1 + is_tried_again
        late = await complete(feeding, TOKEN, VERDICT)
        assert (late.done, late.disposition) == (True, "applied")
        assert late.sentence == (
            f"review of the run 'l1' of lending is completed (row {4 + is_tried_again}), and the run is in granted."
        )
        again = await complete(feeding, TOKEN, {"by": "cy", "amount": 9})
        assert (again.failed, again.disposition) == (True, "void")
        assert "was completed already, by ana" in again.sentence
        if is_tried_again:
            second = await complete(feeding, "case l1/2", {"by": "cy", "amount": 9})
            assert (second.failed, second.disposition) == (True, "void")
        assert await reader.fetchval("select count(*) from pointsman.executions") == 0
        assert await reader.fetchval("select count(*) from pointsman.tokens where waits") == 0
        await feeding.records(told("withdrawn"))
        await feeding.work()
    [run] = await list_runs(reader, "default")
    assert run.context["verdict"] == VERDICT
    assert world.made == [("l1", Verdict(by="bo", amount=5))], "it is known what was made"
    await check_the_log(reader, **options)


@pytest.mark.parametrize("is_past_its_time", [False, True])
async def test_it_is_not_undone_while_a_later_attempt_that_was_begun_goes_on_and_has_time(
    database: Database, reader: Connection, world: World, *, is_past_its_time: bool
) -> None:
    options: dict[str, Any] = {"within": timedelta(days=10), "attempts": 2, "undone": True}
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def heeds_nothing(_call: Call) -> Verdict:
        begun.set()
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()
        return Verdict(by="cy", amount=9)

    async def is_withdrawn() -> bool:
        return await states(reader) == {"l1": "withdrawn"}

    limits = EngineLimits(step_poll_seconds=0.01, step_cancel_seconds=0.05 if is_past_its_time else 120.0)
    async with feed(database, lending_pipeline(**options), limits=limits) as feeding:
        await waits(feeding)
        world.script.append(heeds_nothing)
        feeding.clock.now += timedelta(days=11)
        await feeding.begin_steps()
        while not begun.is_set():
            await feeding.take_results()
            await turn(feeding)
        await complete(feeding, TOKEN, VERDICT)
        await feeding.records(told("withdrawn"))
        assert await states(reader) == {"l1": "$compensating"}
        if not is_past_its_time:
            for _ in range(10):
                await turn(feeding)
            made = [*world.made]
            may_end.set()
            assert made == []
        await feeding.steps.close()
        try:
            async with asyncio.timeout(60):
                await take_until(feeding, is_withdrawn)
        finally:
            may_end.set()
    assert world.made == [("l1", Verdict(by="bo", amount=5))]
    await check_the_log(reader, **options)


async def test_what_an_earlier_attempt_has_made_waits_behind_a_hold_once(
    database: Database, reader: Connection, world: World
) -> None:
    options: dict[str, Any] = {"within": timedelta(days=10), "attempts": 2}

    async def is_tried_again() -> bool:
        return len(world.calls) == 2

    async with feed(database, lending_pipeline(**options)) as feeding:
        await waits(feeding)
        feeding.clock.now += timedelta(days=11)
        await take_until(feeding, is_tried_again)
        await feeding.work()
        await ask(feeding, "pause", "lending", "l1")
        assert (await complete(feeding, TOKEN, VERDICT)).disposition == "held"
        again = await complete(feeding, TOKEN, {"by": "cy", "amount": 9})
        assert "was completed already, by ana" in again.sentence
        await ask(feeding, "resume", "lending", "l1")
    [run] = await list_runs(reader, "default")
    assert (run.configuration, run.context["verdict"]) == (["granted"], VERDICT)
    await check_the_log(reader, **options)


async def test_what_is_left_while_it_waits_is_undone_at_once_and_nobody_knows_what_it_made(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline(undone=True)) as feeding:
        await waits(feeding, "l1", "l2")
        await complete(feeding, "case l2/1", VERDICT)
        await feeding.records(told("withdrawn"), told("withdrawn", "l2"))
        late = await complete(feeding, TOKEN, VERDICT)
        assert late.disposition == "void"
        assert "its state was left" in late.sentence
        await feeding.work()
    assert sorted(world.made, key=str) == [("l1", None), ("l2", Verdict(by="bo", amount=5))]
    assert await states(reader) == {"l1": "withdrawn", "l2": "withdrawn"}
    await check_the_log(reader, undone=True)


async def test_the_version_that_the_run_follows_must_be_loaded(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        await waits(feeding)
    async with feed(database, lending_pipeline(version=2)) as feeding:
        refused = await complete(feeding, TOKEN, VERDICT)
    assert (refused.failed, refused.event_id) == (True, None)
    assert "follows a version of its pipeline that is not loaded here" in refused.sentence
    async with feed(database, lending_pipeline()) as feeding:
        assert (await complete(feeding, TOKEN, VERDICT)).done
    await check_the_log(reader)


async def test_show_history_and_explain_tell_of_what_goes_on_outside(
    database: Database, reader: Connection, world: World
) -> None:
    within = timedelta(hours=1)
    async with feed(database, lending_pipeline(within=within, undone=True)) as feeding:
        before = feeding.clock.now
        await waits(feeding)
        shown = await show(reader, "default", "lending", "l1")
        [step] = shown.steps
        assert (step.status, step.attempts, step.token, step.again) == ("later", 1, TOKEN, None)
        assert step.until is not None
        assert before + within < step.until < feeding.committer.steady() + within
        assert step_words(step).startswith(f"attempt 1 goes on outside: token '{TOKEN}', until ")
        assert step.as_json()["token"] == TOKEN
        heard = (await history(reader, "default", "lending", "l1"))[1].heard
        assert heard is not None
        assert (heard.outcome, heard.token, heard.until) == ("outside", TOKEN, step.until)
        key = world.calls[0].idempotency_key
        by_key = await explain(reader, "default", event_id=key)
        assert by_key.notes[-2].startswith(
            f"Attempt 1 goes on outside, to be completed by the token '{TOKEN}', by "
        )
        assert by_key.notes[-1] == (
            "It is not known what was done of it: the compensation close is to undo it if the run is undone."
        )
        by_id = await explain(reader, "default", event_id=f"{key}/1/waits")
        assert by_id.answers[0].current.sentence.startswith(
            f"Attempt 1 of review goes on outside, and is to be completed by the token '{TOKEN}', by "
        )
        await feeding.records(told("withdrawn"))
        [step] = (await show(reader, "default", "lending", "l1")).steps
        assert (step.status, step.attempts, step.token, step.outcome) == ("stopped", 1, None, "left")
        assert step.compensation is not None
        assert step.compensation.status == "waiting"
        void = await complete(feeding, TOKEN, VERDICT)
        assert void.event_id is not None
        answer = (await explain(reader, "default", event_id=void.event_id)).answers[0]
        assert answer.current.disposition == "void"
        assert "had ended it by leaving its state" in answer.current.sentence
