"""Steps in a real Postgres: asked for in the log, begun once, tried again, lost, void; their results as moves."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from tenacity import RetryCallState
from tenacity.wait import wait_base

from connectors.source import RawRecord
from engine.homes import HOMES
from engine.limits import SILENT_SECONDS
from engine.reading import history, list_runs, replay, verify
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from tests.charging import (
    TOPIC,
    AwayError,
    CardRefusedError,
    Charge,
    Noted,
    World,
    charging_pipeline,
    clear,
)
from tests.feeding import Feeding, event, feed
from tests.services import Database, execute

SECRET = "4111-1111"


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


async def rows(reader: Connection, order: str = "o1") -> list[tuple[str, str, str]]:
    found = await history(reader, "default", "charging", order)
    return [(row.event.type, row.event.kind, " ".join(row.to_states)) for row in found]


async def ended(reader: Connection) -> dict[str, str]:
    newest_last = reversed(await list_runs(reader, "default"))
    return {run.key: " ".join(run.configuration) for run in newest_last}


DONE = [
    ("order.placed", "started", "charging"),
    ("done.step.charge", "fired", "packing"),
    ("done.step.pack", "fired", "shipped"),
]


async def test_steps_are_done_while_their_states_are_active_and_their_results_move_the_run(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("placed"), told("placed", "o2", amount=9))
        assert await reader.fetchval("select count(*) from pointsman.executions") == 2
        await feeding.work()
    assert await rows(reader) == await rows(reader, "o2") == DONE
    [one, two] = sorted(await list_runs(reader, "default"), key=lambda run: run.key)
    keys = {call.key: call.idempotency_key for step, call, _ in world.calls if step == "charge"}
    assert one.context["charge"] == {"id": keys["o1"], "amount": 7}
    assert two.context["charge"] == {"id": keys["o2"], "amount": 9}
    assert (one.context["parcels"], one.status) == (1, "completed")
    assert len({call.idempotency_key for _, call, _ in world.calls}) == 4
    assert await reader.fetchval("select count(*) from pointsman.executions") == 0
    await check_the_log(reader)


async def test_what_fails_is_tried_again_with_the_same_key_and_input_and_the_count_is_durable(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [AwayError("first"), AwayError("second")]
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        assert await feeding.take_results()
        await feeding.steps.close()
    # Another engine, and the run has another context by now.
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("noted", word="in between"))
        await feeding.work()
    assert world.attempts("charge") == [("o1", 1), ("o1", 2), ("o1", 3)]
    calls = [(call, order) for step, call, order in world.calls if step == "charge"]
    assert len({call.idempotency_key for call, _ in calls}) == 1
    assert [order.notes for _, order in calls] == [[], [], []], "the input is that of the first attempt"
    assert [call.last_error for call, _ in calls][1:] == [
        "AwayError: first",
        "AwayError: second",
    ]
    assert [kind for _, kind, _ in await rows(reader)] == [
        "started",
        "passed",
        "moved",
        "passed",
        "fired",
        "fired",
    ]
    await check_the_log(reader)


async def test_the_log_of_the_engine_has_the_calls_that_led_to_what_user_code_raised(
    database: Database, reader: Connection, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def fall() -> None:
        raise AwayError(SECRET)

    def note_badly(_order: Any, _event: Noted) -> None:
        fall()

    flow = charging_pipeline()
    next(one for one in flow.states if one.initial).on(Noted, do=note_badly)
    world.script["charge"] = [fall, fall, fall]
    async with feed(database, flow) as feeding:
        await feeding.records(told("placed"), told("placed", "o2"), told("noted", "o2"))
        await feeding.work()
    lines = [one for one in caplog.records if hasattr(one, "trace")]
    told_of = [(one.getMessage(), one.levelname, one.trace.text(with_messages=False)) for one in lines]
    assert [(said, level) for said, level, _ in told_of] == [
        ("dead letter; its run is held", "WARNING"),
        ("an attempt at the step raised; it is tried again", "WARNING"),
        ("an attempt at the step raised; it has failed for good", "ERROR"),
    ]
    for _, _, text in told_of:
        assert text.endswith("\n    raise AwayError(SECRET)\nAwayError")
    assert "in note_badly\n" in told_of[0][2]
    assert all("in charge\n" in text for _, _, text in told_of[1:])
    assert await ended(reader) == {"o1": "failed", "o2": "charging"}
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("raised", "attempts", "ends_in"),
    [
        (CardRefusedError("stolen"), 1, "refused"),
        (AwayError("down"), 3, "failed"),
        (SystemExit(3), 3, "failed"),
        (KeyboardInterrupt(), 3, "failed"),
    ],
)
async def test_a_failure_for_good_is_a_move_by_its_class(
    database: Database, reader: Connection, world: World, raised: BaseException, attempts: int, ends_in: str
) -> None:
    world.script["charge"] = [raised] * 3
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
    assert await ended(reader) == {"o1": ends_in}
    assert world.attempts("charge") == [("o1", one) for one in range(1, attempts + 1)]
    [run] = await list_runs(reader, "default")
    assert run.context["notes"][0].startswith(f"{type(raised).__name__} after {attempts}: ")
    await check_the_log(reader)


async def test_a_plain_function_may_call_sys_exit_and_only_fails(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["pack"] = [sys.exit] * 3
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
    assert await ended(reader) == {"o1": "failed"}
    assert world.attempts("pack") == [("o1", 1), ("o1", 2), ("o1", 3)]
    await check_the_log(reader)


async def test_a_failure_that_nothing_takes_holds_the_run_and_the_step_begins_anew_by_redrive(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [AwayError("down")] * 3
    options: dict[str, Any] = {"takes_failures": False}
    async with feed(database, charging_pipeline(**options)) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
        letters = await reader.fetch("select id, reason, error, status from pointsman.dead_letters")
        [(number, reason, error, status)] = [tuple(one) for one in letters]
        assert (reason, status) == ("step failed", "open")
        assert "charge" in error
        assert "down" in error
        [run] = await list_runs(reader, "default")
        assert (run.status, run.configuration) == ("held", ["charging"])
        assert await reader.fetchval("select count(*) from pointsman.executions") == 0
        await check_the_log(reader, **options)
        await feeding.redrive(number)
        letters = await reader.fetch("select reason, status from pointsman.dead_letters order by id")
        assert [tuple(one) for one in letters] == [("step failed", "redriven")]
        await feeding.work()
        assert world.attempts("charge") == [("o1", one) for one in range(1, 5)]
    await check_the_log(reader, **options)


async def test_an_attempt_that_takes_too_long_is_over_also_if_it_ignores_that(
    database: Database, reader: Connection, world: World
) -> None:
    cancelled: list[str] = []
    released = asyncio.Event()

    async def stubborn() -> Charge:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("ignored")
        await released.wait()
        return Charge(id="late", amount=0)

    world.script["charge"] = [lambda: asyncio.Event().wait(), stubborn]
    options: dict[str, Any] = {"timeout": timedelta(seconds=0.05), "attempts": 2}
    async with feed(database, charging_pipeline(**options)) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
        released.set()
    assert await ended(reader) == {"o1": "failed"}
    assert cancelled
    assert [type_ for type_, _, _ in await rows(reader)] == [
        "order.placed",
        "tried.step.charge",
        "failed.step.charge.timed_out",
    ]
    await check_the_log(reader, **options)


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        ({"id": "x", "amount": 1}, "ResultError"),
        (7, "ResultError"),
        (Charge(id="x" * 2_000_000, amount=1), "ResultError"),
        (Charge(id="x", amount=2**70), "ResultError"),
        (Charge(id="\ud800", amount=1), "ResultError"),
    ],
)
async def test_what_cannot_be_a_result_is_a_failure_and_not_tried_again(
    database: Database, reader: Connection, world: World, returned: Any, error: str
) -> None:
    world.script["charge"] = [lambda: returned]
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
    [run] = await list_runs(reader, "default")
    assert run.configuration == ["failed"]
    assert run.context["notes"][0].startswith(f"{error} after 1: charge returned ")
    assert world.attempts("charge") == [("o1", 1)]
    await check_the_log(reader)


async def test_a_step_cannot_change_the_context(database: Database, reader: Connection, world: World) -> None:
    def change() -> Charge:
        _, _, order = world.calls[-1]
        order.amount = 0
        raise AssertionError("it could be changed")

    world.script["charge"] = [change] * 3
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
    [run] = await list_runs(reader, "default")
    assert (run.configuration, run.context["amount"]) == (["failed"], 7)
    assert "a step cannot change the context, such as its 'amount'" in run.context["notes"][0]


async def test_the_result_for_a_state_that_was_left_is_void_and_changes_nothing(
    database: Database, reader: Connection, world: World
) -> None:
    going = asyncio.Event()

    async def slow() -> Charge:
        going.set()
        await asyncio.Event().wait()
        raise AssertionError("it is cancelled")

    world.script["charge"] = [slow]
    async with feed(database, charging_pipeline()) as feeding, feed(database, charging_pipeline()) as other:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await asyncio.wait_for(going.wait(), 60)
        # By an engine that knows nothing of the attempt.
        await other.records(told("cancelled"))
        await asyncio.wait_for(until_nothing_goes_on(feeding), 60)
        assert not await feeding.take_results()
    assert [kind for _, kind, _ in await rows(reader)] == ["started", "moved"]
    assert await reader.fetchval("select count(*) from pointsman.executions") == 0
    await check_the_log(reader)


async def turn(feeding: Feeding) -> None:
    """Wait until it was looked once more what may begin, and what is wanted no more."""
    feeding.steps.turned.clear()
    await asyncio.wait_for(feeding.steps.turned.wait(), 60)


async def until_nothing_goes_on(feeding: Feeding) -> None:
    while feeding.steps.are_going:
        await turn(feeding)


async def test_a_result_that_is_there_when_its_state_is_left_is_noted_as_void(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, charging_pipeline()) as feeding, feed(database, charging_pipeline()) as other:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        # The next generation of the key waits for a charge of its own, in a row of the same number.
        await other.records(told("cancelled"), told("placed"))
        while not await reader.fetchval("select count(*) from pointsman.dispositions"):
            if not await feeding.take_results():
                await turn(feeding)
        notes = await reader.fetch("select type, disposition, reason from pointsman.dispositions")
        assert [tuple(one) for one in notes] == [("done.step.charge", 10, "void")]
        await feeding.steps.close()
        await feeding.work()
    assert await ended(reader) == {"o1": "shipped"}
    assert len({call.idempotency_key for step, call, _ in world.calls if step == "charge"}) == 2
    await check_the_log(reader)


async def test_attempts_of_an_engine_that_is_silent_are_lost_and_count(
    database: Database, reader: Connection, world: World
) -> None:
    hang = asyncio.Event()
    world.script["charge"] = [hang.wait, hang.wait, hang.wait]
    for attempt in (1, 2, 3):
        async with feed(database, charging_pipeline()) as feeding:
            if attempt == 1:
                await feeding.records(told("placed"))
            await feeding.begin_steps()
            while len(world.attempts("charge")) < attempt:
                if await feeding.take_results():
                    continue
                await turn(feeding)
            # It is killed; the next one has its name.
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.work()
    assert world.attempts("charge") == [("o1", 1), ("o1", 2), ("o1", 3)]
    assert [type_ for type_, _, _ in await rows(reader)] == [
        "order.placed",
        "tried.step.charge",
        "tried.step.charge",
        "failed.step.charge",
    ]
    [run] = await list_runs(reader, "default")
    assert run.context["notes"][0].startswith("LostError after 3: ")
    await check_the_log(reader)


async def test_an_engine_is_heard_of_as_long_as_its_mark_is_not_older_than_is_asked_for(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [asyncio.Event().wait]
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        while not world.attempts("charge"):
            await turn(feeding)
        asked = (range(HOMES), [1], [1], list[int]())
        assert await feeding.store.begun_by_others(*asked, SILENT_SECONDS, 10) == []
        older = f"update pointsman.holders set seen = now() - interval '{SILENT_SECONDS + 5} seconds'"
        await feeding.steps.close()
        await execute(database.owner_dsn, older)
        assert [one.key for one in await feeding.store.begun_by_others(*asked, SILENT_SECONDS, 10)] == ["o1"]
        assert await feeding.store.begun_by_others(*asked, SILENT_SECONDS + 60, 10) == []
        # The clock was set back since.
        ahead = f"update pointsman.holders set seen = now() + interval '{SILENT_SECONDS + 5} seconds'"
        await execute(database.owner_dsn, ahead)
        [gone] = await feeding.store.begun_by_others(*asked, SILENT_SECONDS, 10)
        assert await feeding.store.take_executions([gone.id], feeding.steps.holder + 1, SILENT_SECONDS)


async def test_results_of_a_held_run_wait_behind_what_holds_it(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        await feeding.records(told("noted", word=7))
        [run] = await list_runs(reader, "default")
        assert run.status == "held"
        assert await feeding.take_results()
        await feeding.steps.close()
        assert (await rows(reader))[-1] == ("done.step.charge", "waited", "charging")
        [number] = [one["id"] for one in await reader.fetch("select id from pointsman.dead_letters")]
        await feeding.drop(number)
        await feeding.work()
    assert await ended(reader) == {"o1": "shipped"}
    assert [call.attempt for _, call, _ in world.calls] == [1, 1]
    await check_the_log(reader)


async def test_a_limit_is_never_exceeded_and_those_that_wait_go_in_order(
    database: Database, reader: Connection, world: World
) -> None:
    going, most = 0, 0

    async def counted() -> Charge:
        nonlocal going, most
        going += 1
        most = max(most, going)
        for _ in range(5):
            await asyncio.sleep(0)
        going -= 1
        return Charge(id="x", amount=1)

    orders = [f"o{number:02}" for number in range(30)]
    world.script["charge"] = [counted] * len(orders)
    async with feed(database, charging_pipeline(at_once=4)) as feeding:
        for order in orders:
            await feeding.records(told("placed", order))
        await feeding.work()
    assert most == 4
    assert [key for key, _ in world.attempts("charge")] == orders
    assert set((await ended(reader)).values()) == {"shipped"}
    await check_the_log(reader, at_once=4)


async def test_a_result_of_a_generation_that_is_not_known_here_yet_is_not_thrown_away(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, charging_pipeline()) as home, feed(database, charging_pipeline()) as events:
        await home.records(told("placed"), told("cancelled"))
        # The home knows of the run that has ended; the next one of its key is begun by another engine.
        await events.records(told("placed"))
        await home.begin_steps()
        await asyncio.wait_for(home.steps.arrived.wait(), 60)
        await home.steps.close()
        await home.work()
    assert await ended(reader) == {"o1": "shipped"}
    assert await reader.fetchval("select count(*) from pointsman.dispositions") == 0
    await check_the_log(reader)


async def test_a_wait_strategy_that_raises_is_a_usual_wait(
    database: Database, reader: Connection, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class ByError(wait_base):
        """As long as the error says, which not each does."""

        def __call__(self, retry_state: RetryCallState) -> float:
            assert retry_state.outcome is not None
            return float(retry_state.outcome.exception().retry_after)  # type: ignore[union-attr]  # that is it

    world.script["charge"] = [AwayError("down")]
    flow = charging_pipeline()
    object.__setattr__(flow.steps[0].retry, "wait", ByError())
    async with feed(database, flow) as feeding:
        await feeding.records(told("placed"))
        await feeding.work()
    assert await ended(reader) == {"o1": "shipped"}
    assert "the wait strategy of the step charge failed" in caplog.text
    await check_the_log(reader)


async def test_a_result_whose_commit_was_durable_and_not_heard_of_is_told_once(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        [result] = feeding.steps.take()
        draft = await feeding.committer.draft(None)
        await feeding.committer.extend_results(draft, [result])
        batch = feeding.committer.finish(draft)
        await feeding.committer.commit(batch)
        # Here the connection broke, and the next one begins.
        feeding.committer.forget(batch)
        await feeding.steps.close()
        await feeding.begin_steps()
        assert result.event_id not in [one.event_id for one in feeding.steps.take()]
        await feeding.steps.close()
    assert await reader.fetchval("select count(*) from pointsman.dispositions") == 0
    assert (await rows(reader))[1] == DONE[1]
