"""Runs that are stuck on a step, or on a compensation: begun anew, skipped or resolved by an operator."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.errors import UsageError
from engine.limits import EngineLimits
from engine.reading import (
    choose_runs,
    explain,
    history,
    list_dead_letters,
    list_runs,
    replay,
    show,
    verify,
)
from engine.store.connecting import Connection
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.done import Done as StepDone
from statemachines.events import Event
from statemachines.machine import compile_pipeline
from statemachines.step import Call, Retry, exponential
from tests.feeding import Feeding, event, feed
from tests.operators import ask
from tests.saga import TOPIC, OutOfStockError, World, clear, forever, saga_pipeline
from tests.services import Database

PARCELS = "parcels"


class Sent(Event, type="parcel.sent", key="parcel"):
    parcel: str


class Noted(Event, type="parcel.noted", key="parcel"):
    parcel: str


class Fetched(Event, type="parcel.fetched", key="parcel"):
    parcel: str


class Parcel(Context):
    parcel: str
    grams: int = 0
    notes: int = 0


def note_weight(parcel: Parcel, got: StepDone[int]) -> None:
    if got.result < 0:
        raise ValueError("nothing weighs less than nothing")
    parcel.grams = got.result


def note(parcel: Parcel, event: Noted) -> None:
    del event
    parcel.notes += 1


def parcels(
    tries: list[tuple[int, str]], fails: list[bool], version: int = 1, *, may_leave: bool = True
) -> Pipeline[Parcel]:
    """Weighed, and nothing takes it where that cannot be."""
    flow = Pipeline("parcels", Parcel, version=version, topics=[PARCELS])

    @flow.step(retry=Retry(attempts=2, wait=exponential(1, 60)))
    async def weigh(parcel: Parcel, call: Call) -> int:
        del parcel
        tries.append((call.attempt, call.idempotency_key))
        if fails and fails.pop(0):
            raise OSError(f"no scales at attempt {call.attempt}")
        return 300

    weighing = flow.state("weighing", run=weigh, initial=True)
    weighed = flow.state("weighed", final=True)
    flow.start(Sent, lambda event: Parcel(parcel=event.parcel))
    weighing.on(weigh.done, to=weighed, do=note_weight)
    weighing.on(Noted, do=note)
    if may_leave:
        weighing.on(Fetched, to=weighed)
    return flow


def told(kind: str, key: str = "p1") -> RawRecord:
    return event(f"parcel.{kind}", {"parcel": key}, topic=PARCELS)


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


async def rows(
    reader: Connection, pipeline: str = "parcels", key: str = "p1"
) -> list[tuple[str, str, list[str]]]:
    found = await history(reader, "default", pipeline, key)
    return [(row.event.kind, row.event.type, row.to_states) for row in found]


async def check_the_log(reader: Connection, pipeline: Pipeline[Any]) -> None:
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(pipeline)])
    assert replayed.is_equal, replayed


async def letters(reader: Connection) -> list[tuple[str, str]]:
    return [(one.reason, one.status) for one in await list_dead_letters(reader, "default", limit=0)]


async def keys(reader: Connection, status: str) -> list[str]:
    return [run.key for run in await list_runs(reader, "default", status=status, limit=0)]


async def get_stuck(feeding: Feeding, *names: str) -> None:
    for name in names or ("p1",):
        await feeding.records(told("sent", name))
    await feeding.work()


async def test_a_step_begins_anew_with_its_attempts_from_the_beginning_and_the_same_key(
    database: Database, reader: Connection
) -> None:
    tries: list[tuple[int, str]] = []
    flow = parcels(tries, [True, True, True, True])
    async with feed(database, flow) as feeding:
        await get_stuck(feeding)
        assert await keys(reader, "stuck") == ["p1"]
        assert [attempt for attempt, _ in tries] == [1, 2]
        await feeding.records(told("noted"))
        done = await ask(feeding, "retry", "parcels", "p1", why="the scales are back")
        assert (done.done, done.sentence) == (
            True,
            "The run 'p1' of parcels has weigh begin anew, with attempt 3 (row 6). 1 events had waited.",
        )
        assert await letters(reader) == [("step failed", "redriven")]
        assert (await keys(reader, "stuck"), await keys(reader, "running")) == ([], ["p1"])
        await check_the_log(reader, flow)
        # Its two attempts are used up once more, and one of the next two is enough.
        await feeding.work()
        assert await keys(reader, "stuck") == ["p1"]
        assert (await ask(feeding, "retry", "parcels", "p1")).done
        await feeding.work()
    assert [attempt for attempt, _ in tries] == [1, 2, 3, 4, 5]
    assert len({key for _, key in tries}) == 1
    (run,) = await list_runs(reader, "default")
    assert (run.status, run.context) == ("completed", {"parcel": "p1", "grams": 300, "notes": 1})
    assert (await rows(reader))[3:7] == [
        ("waited", "parcel.noted", ["weighing"]),
        ("released", "pointsman.retry", ["weighing"]),
        ("passed", "retried.step.weigh", ["weighing"]),
        ("moved after wait", "parcel.noted", ["weighing"]),
    ]
    await check_the_log(reader, flow)


async def test_it_waits_between_attempts_as_from_the_beginning_and_is_told_the_last_error(
    database: Database, reader: Connection
) -> None:
    flow = parcels([], [True] * 3)
    async with feed(database, flow) as feeding:
        await get_stuck(feeding)
        (step,) = (await show(reader, "default", "parcels", "p1")).steps
        assert (step.status, step.attempts) == ("failed", 2)
        await ask(feeding, "retry", "parcels", "p1")
        (step,) = (await show(reader, "default", "parcels", "p1")).steps
        assert (step.status, step.attempts, step.ended) == ("waiting", 2, None)
        row = await reader.fetchrow("select attempt, error, since, holder from pointsman.executions")
        assert tuple(row or ()) == (3, "OSError: no scales at attempt 2", 2, None)
        await feeding.work()
    (step,) = (await show(reader, "default", "parcels", "p1")).steps
    assert (step.status, step.attempts, step.result) == ("done", 4, 300)
    tried = [row for row in await history(reader, "default", "parcels", "p1") if row.heard]
    waits = [
        (one.heard.again - one.event.time).total_seconds()
        for one in tried
        if one.heard and one.heard.again and one.event.time
    ]
    assert len(waits) == 2
    assert waits[0] == pytest.approx(waits[1], abs=2), "the second time is no longer than the first"


async def test_redrive_of_its_dead_letter_does_the_same(database: Database, reader: Connection) -> None:
    tries: list[tuple[int, str]] = []
    flow = parcels(tries, [True] * 3)
    async with feed(database, flow) as feeding:
        await get_stuck(feeding)
        await feeding.redrive(1)
        await feeding.work()
    assert [attempt for attempt, _ in tries] == [1, 2, 3, 4]
    assert await keys(reader, "completed") == ["p1"]
    await check_the_log(reader, flow)


async def test_a_run_goes_on_without_a_step_where_it_is(database: Database, reader: Connection) -> None:
    flow = parcels([], [True, True])
    async with feed(database, flow) as feeding:
        await get_stuck(feeding)
        await feeding.records(told("noted"))
        done = await ask(feeding, "skip", "parcels", "p1", why="nobody needs it")
        assert (done.done, done.sentence) == (
            True,
            "The run 'p1' of parcels goes on without weigh, in weighing (row 6). 1 events had waited.",
        )
        await feeding.records(told("noted"))
        assert await feeding.work() == 0
    (run,) = await list_runs(reader, "default")
    assert (run.status, run.configuration, run.context["notes"]) == ("running", ["weighing"], 2)
    assert await letters(reader) == [("step failed", "dropped")]
    (step,) = (await show(reader, "default", "parcels", "p1")).steps
    assert (step.status, step.by, step.ended and step.ended.sequence) == ("skipped", "ana", 6)
    assert await reader.fetchval("select count(*) from pointsman.executions") == 0
    await check_the_log(reader, flow)


async def test_a_run_stays_stuck_that_would_wait_for_nothing_without_its_step(
    database: Database, reader: Connection
) -> None:
    flow = parcels([], [True, True], may_leave=False)
    async with feed(database, flow) as feeding:
        await get_stuck(feeding)
        (run,) = await list_runs(reader, "default")
        assert run.stuck is not None
        assert list(run.stuck.commands) == ["retry", "resolve"]
        assert (await show(reader, "default", "parcels", "p1")).stuck == run.stuck
        skipped = await ask(feeding, "skip", "parcels", "p1", why="nobody needs it")
        stays = "nothing but how weigh ends leads on from weighing, so that it would stay there"
        assert not skipped.done
        assert skipped.sentence == (
            f"The run 'p1' of parcels is not released: {stays}. Say what weigh has made "
            "(pointsman resolve --result JSON parcels p1 --reason TEXT), have it begin anew "
            "(pointsman retry parcels p1 --reason TEXT), or end the run (pointsman cancel parcels p1 --reason TEXT). "
            "Nothing was done."
        )
        [(letter, why_not)] = (await feeding.drop(1)).skipped
        assert (letter, why_not.startswith(f"{stays}: say what weigh has made, by pointsman resolve")) == (
            1,
            True,
        )
        assert (await letters(reader), await keys(reader, "stuck")) == ([("step failed", "open")], ["p1"])
        assert (await ask(feeding, "resolve", "parcels", "p1", result=b"250")).done
    assert await keys(reader, "completed") == ["p1"]
    await check_the_log(reader, flow)


async def test_dropping_its_dead_letter_does_the_same(database: Database, reader: Connection) -> None:
    flow = parcels([], [True, True])
    async with feed(database, flow) as feeding:
        await get_stuck(feeding)
        await feeding.drop(1)
    assert [kind for _, kind, _ in await rows(reader)][3:] == ["pointsman.drop", "skipped.step.weigh"]
    assert await keys(reader, "running") == ["p1"]
    await check_the_log(reader, flow)


async def test_a_step_counts_as_done_with_the_result_that_is_given(
    database: Database, reader: Connection
) -> None:
    flow = parcels([], [True, True])
    async with feed(database, flow) as feeding:
        await get_stuck(feeding)
        wrong = await ask(feeding, "resolve", "parcels", "p1", result=b'"heavy"')
        assert wrong.failed
        assert wrong.sentence.startswith(
            "The run 'p1' of parcels is not resolved: weigh does not return that: "
        )
        assert wrong.sentence.endswith("Nothing was done.")
        assert (await rows(reader))[-1][1] == "failed.step.weigh"
        assert await letters(reader) == [("step failed", "open")]
        done = await ask(feeding, "resolve", "parcels", "p1", result=b"250", why="weighed by hand")
    assert (done.done, done.sentence) == (True, "The run 'p1' of parcels counts weigh as done (row 5).")
    (run,) = await list_runs(reader, "default")
    assert (run.status, run.configuration, run.context["grams"]) == ("completed", ["weighed"], 250)
    assert await letters(reader) == [("step failed", "resolved")]
    assert (await rows(reader))[3:] == [
        ("released", "pointsman.resolve", ["weighing"]),
        ("fired", "done.step.weigh", ["weighed"]),
    ]
    shown = await show(reader, "default", "parcels", "p1", at_sequence=4)
    assert shown.command == {"command": "resolve", "who": "ana", "why": "weighed by hand"}
    (step,) = (await show(reader, "default", "parcels", "p1")).steps
    assert (step.status, step.result, step.by) == ("done", 250, "ana")
    await check_the_log(reader, flow)


async def test_on_what_a_run_is_stuck_is_told_with_the_commands_that_decide_of_it(
    database: Database, reader: Connection
) -> None:
    flow = parcels([], [True, True, True, True])
    async with feed(database, flow) as feeding:
        await get_stuck(feeding, "-p 1", "p2")
        first, other = sorted(await list_runs(reader, "default"), key=lambda run: run.key)
        assert first.stuck is not None
        assert other.stuck is not None
        assert (first.stuck.step, first.stuck.undoes, first.stuck.attempts) == ("weigh", None, 2)
        assert first.stuck.error == "OSError: no scales at attempt 2"
        assert other.stuck.commands == {
            "retry": "pointsman retry --reason 'it is mended' parcels p2",
            "skip": "pointsman skip --reason 'it is not needed' parcels p2",
            "resolve": "pointsman resolve --result JSON --reason 'it was done by hand' parcels p2",
        }
        assert first.stuck.commands["retry"].endswith(" -- parcels '-p 1'")
        shown = await show(reader, "default", "parcels", "p2")
        assert shown.stuck == other.stuck
        assert (await show(reader, "default", "parcels", "p2", at_sequence=1)).stuck is None
        await ask(feeding, "skip", "parcels", "p2")
        await ask(feeding, "pause", "parcels", "p2")
        assert (await show(reader, "default", "parcels", "p2")).stuck is None
        assert (
            await show(reader, "default", "parcels", "p2", at_sequence=shown.sequence)
        ).stuck == other.stuck
        assert [run.key for run in await list_runs(reader, "default") if run.stuck is not None] == ["-p 1"]


async def test_what_the_run_cannot_take_of_a_result_holds_it_again(
    database: Database, reader: Connection
) -> None:
    flow = parcels([], [True, True])
    async with feed(database, flow) as feeding:
        await get_stuck(feeding)
        done = await ask(feeding, "resolve", "parcels", "p1", result=b"-1")
        assert done.failed
        assert "is not resolved, for it cannot take that (action raised)" in done.sentence
        assert await letters(reader) == [("action raised", "open"), ("step failed", "resolved")]
        assert (await keys(reader, "held"), await keys(reader, "stuck")) == (["p1"], [])
        again = await ask(feeding, "retry", "parcels", "p1")
        assert again.failed
        assert "is not stuck on a step: it is held by dead letter 2 (action raised)" in again.sentence
    await check_the_log(reader, flow)


async def test_what_is_not_stuck_is_told_why(database: Database, reader: Connection) -> None:
    async with feed(database, parcels([], [])) as feeding:
        await feeding.records(told("sent"))
        goes_on = await ask(feeding, "retry", "parcels", "p1")
        await ask(feeding, "pause", "parcels", "p1")
        paused = await ask(feeding, "skip", "parcels", "p1")
        await ask(feeding, "resume", "parcels", "p1")
        await feeding.work()
        ended = await ask(feeding, "resolve", "parcels", "p1", result=b"1")
        with pytest.raises(UsageError, match="The result is no JSON"):
            await ask(feeding, "resolve", "parcels", "p1", result=b"{")
    assert [one.failed for one in (goes_on, paused, ended)] == [True] * 3
    assert goes_on.sentence == "The run 'p1' of parcels is not stuck: nothing holds it."
    assert "is not stuck on a step: it is paused by ana at" in paused.sentence
    assert ended.sentence == "The run 'p1' of parcels has ended in weighed."


async def test_runs_whose_definition_is_not_loaded_stay_stuck(database: Database, reader: Connection) -> None:
    async with feed(database, parcels([], [True, True])) as feeding:
        await get_stuck(feeding)
    async with feed(database, parcels([], [], version=2)) as feeding:
        done = await ask(feeding, "retry", "parcels", "p1")
    assert done.failed
    assert "is not tried again: it follows a version of its pipeline that is not loaded here" in done.sentence
    assert await keys(reader, "stuck") == ["p1"]


async def test_filters_choose_those_that_are_stuck(database: Database, reader: Connection) -> None:
    async with feed(database, parcels([], [True] * 8)) as feeding:
        await get_stuck(feeding, "p1", "p2", "p3", "p4")
        await ask(feeding, "resolve", "parcels", "p4", result=b"-1")
        await ask(feeding, "skip", "parcels", "p2")
        await ask(feeding, "pause", "parcels", "p2")
    for what in ("retry", "skip", "resolve"):
        chosen = await choose_runs(reader, "default", what, pipeline="parcels")
        assert sorted(one.key for one in chosen) == ["p1", "p3"]
    assert await choose_runs(reader, "default", "retry", status="paused") == []
    assert sorted(await keys(reader, "held")) == ["p1", "p3", "p4"], "the last by something else"


async def get_stuck_undoing(feeding: Feeding, world: World) -> None:
    world.script["ship"] = [OutOfStockError("none left")]
    world.script["release"] = [RuntimeError("away")] * 3
    await feeding.records(event("order.placed", {"order": "o1"}, topic=TOPIC))
    await feeding.work()
    assert world.steps() == ["charge", "reserve"]


async def test_a_compensation_begins_anew(database: Database, reader: Connection, world: World) -> None:
    async with feed(database, saga_pipeline()) as feeding:
        await get_stuck_undoing(feeding, world)
        assert (await keys(reader, "stuck"), await keys(reader, "compensating")) == (["o1"], [])
        cancelled = await ask(feeding, "cancel", "saga", "o1")
        assert cancelled.done
        assert cancelled.sentence == (
            "The run 'o1' of saga is being undone already, and nothing cuts that short. But it is held by dead letter "
            "1 (step failed) since row 7, for a step of it has failed. Have that begin anew: pointsman retry saga o1 "
            "--reason TEXT (or skip, or resolve)."
        )
        world.script["release"] = [RuntimeError("still away")] * 2
        done = await ask(feeding, "retry", "saga", "o1")
        assert done.sentence == (
            "The run 'o1' of saga has the compensation release begin anew, with attempt 4 (row 9)."
        )
        await feeding.work()
    assert world.steps() == ["charge", "reserve", "release", "refund"]
    assert await keys(reader, "completed") == ["o1"]
    await check_the_log(reader, saga_pipeline())


async def test_what_a_skipped_compensation_was_to_undo_is_not_undone_and_owed_no_more(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, saga_pipeline()) as feeding:
        await get_stuck_undoing(feeding, world)
        done = await ask(feeding, "skip", "saga", "o1", why="the depot burned down")
        assert done.sentence == (
            "The run 'o1' of saga goes on, with reserve not undone and owed no more (row 9)."
        )
        await check_the_log(reader, saga_pipeline())
        await feeding.work()
    assert world.steps() == ["charge", "reserve", "refund"]
    found = await show(reader, "default", "saga", "o1")
    assert (found.status, found.configuration) == ("completed", ["cancelled"])
    undone = {one.of.name: one.compensation for one in found.steps}
    charge, reserve = undone["charge"], undone["reserve"]
    assert charge is not None
    assert reserve is not None
    assert (charge.status, charge.by) == ("undone", None)
    assert (reserve.status, reserve.by, reserve.attempts, reserve.error) == (
        "skipped", "ana", 3, "RuntimeError: away",
    )  # fmt: skip
    assert ("fired", "skipped.step.release", ["$compensating"]) in await rows(reader, "saga", "o1")
    await check_the_log(reader, saga_pipeline())


async def test_a_resolved_compensation_counts_as_having_undone_it(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, saga_pipeline()) as feeding:
        await get_stuck_undoing(feeding, world)
        done = await ask(feeding, "resolve", "saga", "o1", result=b"null")
        assert done.sentence == "The run 'o1' of saga counts reserve as undone (row 9)."
        await feeding.work()
    assert world.steps() == ["charge", "reserve", "refund"]
    found = await show(reader, "default", "saga", "o1")
    reserve = next(one.compensation for one in found.steps if one.of.name == "reserve")
    assert reserve is not None
    assert (reserve.status, reserve.by) == ("undone", "ana")
    await check_the_log(reader, saga_pipeline())


async def test_a_step_of_which_nobody_knows_is_owed_also_where_it_is_skipped(
    database: Database, reader: Connection, world: World
) -> None:
    options: dict[str, Any] = {"timeout": timedelta(seconds=0.05), "attempts": 1, "takes_failures": False}
    world.script["charge"] = [forever]
    async with feed(database, saga_pipeline(**options)) as feeding:
        await feeding.records(event("order.placed", {"order": "o1"}, topic=TOPIC))
        await feeding.work()
        assert (await ask(feeding, "skip", "saga", "o1")).done
        await feeding.records(event("order.cancelled", {"order": "o1"}, topic=TOPIC))
        await feeding.work()
    assert world.steps() == ["refund"]
    assert world.made == [("refund", None)]
    await check_the_log(reader, saga_pipeline(**options))


async def test_explain_tells_what_holds_and_what_was_decided(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, saga_pipeline()) as feeding:
        await get_stuck_undoing(feeding, world)
        failed = (await history(reader, "default", "saga", "o1"))[-1].event.id
        (held,) = (await explain(reader, "default", event_id=failed)).answers
        assert held.current.sentence.endswith(
            "To have the step begin anew: pointsman retry saga o1 --reason TEXT (or skip, or resolve)."
        )
        paused = await ask(feeding, "pause", "saga", "o1")
        assert "pointsman retry saga o1 --reason TEXT (or skip, or resolve)" in paused.sentence
        await ask(feeding, "retry", "saga", "o1", why="it is back")
        retried = (await history(reader, "default", "saga", "o1"))[-1].event.id
        world.script["release"] = [RuntimeError("away")] * 3
        await feeding.work()
        await ask(feeding, "skip", "saga", "o1")
    skipped = next(
        row.event.id
        for row in await history(reader, "default", "saga", "o1")
        if row.event.type == "skipped.step.release"
    )
    (told_of,) = (await explain(reader, "default", event_id=retried)).answers
    assert told_of.current.sentence.startswith(
        "Ana has had release, which undoes reserve, begin anew after attempt 3 (row 9 of"
    )
    (without,) = (await explain(reader, "default", event_id=skipped)).answers
    assert without.current.sentence.startswith(
        "Ana has had the run go on without release: reserve is not undone, and owed no more. The run"
    )
    execution = skipped.partition("/")[0]
    notes = " ".join((await explain(reader, "default", event_id=execution)).notes)
    assert "ana has had release, which undoes reserve, begin anew after attempt 3" in notes


async def test_what_begins_anew_waits_for_an_attempt_that_goes_on_here_all_the_same(
    database: Database, reader: Connection
) -> None:
    flow: Pipeline[Parcel] = Pipeline("parcels", Parcel, topics=[PARCELS])
    going: list[int] = []
    begun: list[tuple[int, int]] = []
    release = threading.Event()

    @flow.step(timeout=timedelta(seconds=0.05), retry=Retry(attempts=1))
    def weigh(parcel: Parcel, call: Call) -> int:
        del parcel
        begun.append((call.attempt, len(going)))
        going.append(call.attempt)
        if call.attempt == 1:
            release.wait(120)
        going.remove(call.attempt)
        return 7

    weighing = flow.state("weighing", run=weigh, initial=True)
    weighed = flow.state("weighed", final=True)
    flow.start(Sent, lambda event: Parcel(parcel=event.parcel))
    weighing.on(weigh.done, to=weighed, do=note_weight)
    limits = EngineLimits(step_poll_seconds=0.01)
    async with feed(database, flow, limits=limits) as feeding:
        try:
            await feeding.records(event("parcel.sent", {"parcel": "p1"}, topic=PARCELS))
            await feeding.begin_steps()
            while not await feeding.take_results():
                await turn(feeding)
            assert (await ask(feeding, "retry", "parcels", "p1")).done
            for _ in range(5):
                await turn(feeding)
            assert begun == [(1, 0)], "its thread goes on, though it has taken too long"
        finally:
            release.set()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        for _ in range(5):
            await turn(feeding)
        assert await feeding.take_results()
    assert begun == [(1, 0)], "what it has made in the end is taken, and no other one begins for it"
    assert (await show(reader, "default", "parcels", "p1")).configuration == ["weighed"]


async def turn(feeding: Feeding) -> None:
    """Until it was looked once more what may begin."""
    feeding.steps.turned.clear()
    async with asyncio.timeout(60):
        await feeding.steps.turned.wait()
