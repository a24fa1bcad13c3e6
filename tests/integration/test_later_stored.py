"""Steps that go on outside, in a real Postgres: they wait as rows, and are completed once, by their tokens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import orjson
import pytest

from connectors.source import RawRecord
from engine.batch import Batch
from engine.cli.working import step_words
from engine.commands import in_portions
from engine.errors import UsageError
from engine.reading import (
    AskedOfRun,
    NotFoundError,
    ask_complete,
    explain,
    history,
    list_dead_letters,
    list_runs,
    replay,
    show,
    verify,
)
from engine.store.connecting import Connection, connect
from engine.store.contract import LostRunsError
from engine.store.values import Command
from statemachines.later import Later
from statemachines.limits import TOKEN_CHARACTERS_MAX
from statemachines.machine import compile_pipeline
from statemachines.step import Call
from tests.feeding import BEGINS, Feeding, event, feed
from tests.lending import TOPIC, Verdict, World, clear, lending_pipeline, token_of
from tests.operators import WHO, WHY, ask, ask_pipeline, complete
from tests.services import Database, execute

VERDICT = {"by": "bo", "amount": 5}
TOKEN = "case l1/1"


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


def told(kind: str, loan: str = "l1") -> RawRecord:
    return event(f"loan.{kind}", {"loan": loan}, topic=TOPIC)


async def check_the_log(reader: Connection, **options: Any) -> None:
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(lending_pipeline(**options))])
    assert replayed.is_equal, replayed


async def rows(reader: Connection, loan: str = "l1") -> list[tuple[str, str, str]]:
    found = await history(reader, "default", "lending", loan)
    return [(row.event.type, row.event.kind, " ".join(row.to_states)) for row in found]


async def states(reader: Connection) -> dict[str, str]:
    return {run.key: " ".join(run.configuration) for run in await list_runs(reader, "default")}


async def waits(feeding: Feeding, *loans: str) -> None:
    """These are applied for, and reviewed outside by now."""
    await feeding.records(*(told("applied", loan) for loan in loans or ("l1",)))
    await feeding.work()


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
    options: dict[str, Any] = {"within": timedelta(hours=1), "attempts": 2, "undone": True}
    async with feed(database, lending_pipeline(**options)) as feeding:
        await waits(feeding)
        feeding.clock.now += timedelta(minutes=59)
        await feeding.work()
        assert len(world.calls) == 1
        feeding.clock.now += timedelta(minutes=2)
        await feeding.begin_steps()
        while len(world.calls) < 2:
            await feeding.steps.arrived.wait()
            await feeding.take_results()
        await feeding.steps.close()
        await feeding.work()
        late = await complete(feeding, TOKEN, VERDICT)
        assert late.disposition == "void"
        assert late.sentence.endswith("it was not completed in time. Nothing was changed.")
        assert await states(reader) == {"l1": "reviewing"}
        feeding.clock.now += timedelta(hours=2)
        await feeding.begin_steps()
        while await states(reader) != {"l1": "failed"}:
            await feeding.steps.arrived.wait()
            await feeding.take_results()
        await feeding.steps.close()
    [run] = await list_runs(reader, "default")
    assert run.context["notes"] == [
        "TimeoutError after 2: it was not completed within the time that its Later gave"
    ]
    assert world.made == [("l1", None)], "what took too long may have been done"
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


async def test_a_token_is_known_although_its_run_is_held(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        await feeding.records(told("applied"))
        await feeding.begin_steps()
        await feeding.steps.arrived.wait()
        await ask(feeding, "pause", "lending", "l1")
        await feeding.take_results()
        await feeding.steps.close()
        assert (await complete(feeding, TOKEN, VERDICT)).disposition == "held"
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


async def test_a_token_that_was_told_when_its_state_had_been_left_is_no_unknown_one(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        await feeding.records(told("applied"))
        await feeding.begin_steps()
        await feeding.steps.arrived.wait()
        await feeding.records(told("withdrawn"))
        await feeding.take_results()
        await feeding.steps.close()
        assert (await complete(feeding, TOKEN, VERDICT)).disposition == "void"
    await check_the_log(reader)


async def test_a_token_of_an_attempt_that_was_stopped_is_no_unknown_one(
    database: Database, reader: Connection, world: World
) -> None:
    begun = asyncio.Event()

    async def hand_over_all_the_same(call: Call) -> Later:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return Later(token_of(call))

    world.script.append(hand_over_all_the_same)
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
    begun = asyncio.Event()

    async def hand_over_all_the_same(call: Call) -> Later:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return Later(token_of(call))

    world.script.append(hand_over_all_the_same)
    async with feed(database, lending_pipeline()) as feeding:
        await feeding.records(told("applied"))
        await feeding.begin_steps()
        await begun.wait()
        await feeding.records(told("withdrawn"))
        await asyncio.wait_for(feeding.steps.arrived.wait(), 10)
        await feeding.take_results()
        late = await complete(feeding, TOKEN, VERDICT)
        assert (late.failed, late.disposition) == (True, "void")
        assert not feeding.steps.are_going
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
        await waits(feeding)
        shown = await show(reader, "default", "lending", "l1")
        [step] = shown.steps
        until = feeding.clock.now + within
        assert (step.status, step.attempts, step.token, step.again) == ("later", 1, TOKEN, None)
        assert step.until is not None
        assert abs(step.until - until) < timedelta(minutes=1)
        assert step_words(step).startswith(f"attempt 1 goes on outside: token '{TOKEN}', until ")
        assert step.as_json()["token"] == TOKEN
        heard = (await history(reader, "default", "lending", "l1"))[1].heard
        assert heard is not None
        assert (heard.outcome, heard.token, heard.until) == ("outside", TOKEN, step.until)
        key = world.calls[0].idempotency_key
        by_key = await explain(reader, "default", event_id=key)
        assert by_key.notes[-1].startswith(
            f"Attempt 1 goes on outside, to be completed by the token '{TOKEN}', by "
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


async def test_many_are_completed_in_one_commit_and_one_by_one_where_that_is_lost(
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
        assert tried == [10, *[1] * 10]
    assert set((await states(reader)).values()) == {"granted"}
    await check_the_log(reader)


def test_only_completions_of_different_runs_are_taken_together_and_in_their_order() -> None:
    def command(number: int, what: str, key: str, pipeline: int = 1) -> Command:
        return Command(number, pipeline, what, orjson.dumps({"key": key}), WHO, WHY, BEGINS)

    asked = [
        command(1, "complete", "a"),
        command(2, "fail", "b"),
        command(3, "complete", "a", 2),
        command(4, "complete", "b"),
        command(5, "pause", "c"),
        command(6, "send", "d"),
        command(7, "complete", "b"),
    ]
    assert [[one.id for one in several] for several in in_portions(asked)] == [[1, 2, 3], [4], [5], [6], [7]]
    assert in_portions([]) == []
