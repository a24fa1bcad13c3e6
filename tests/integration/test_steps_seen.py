"""What people see of steps and of what undoes them: ``show``, ``history``, ``explain``, ``runs``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.cli.looking import effect_words, row_words
from engine.cli.working import print_steps
from engine.limits import SILENT_SECONDS
from engine.reading import Change, HistoryRow, explain, history, list_runs, show
from engine.reading.values import shown_time
from engine.reading.working import StepView
from engine.store.connecting import Connection
from tests import charging
from tests.charging import AwayError, charging_pipeline
from tests.feeding import BEGINS, Feeding, event, feed
from tests.saga import TOPIC, OutOfStockError, World, clear, forever, saga_pipeline
from tests.services import Database, execute


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


@pytest.fixture
def charged() -> Iterator[charging.World]:
    yield charging.clear()
    charging.clear()


def told(kind: str, topic: str = TOPIC, **data: Any) -> RawRecord:
    return event(f"order.{kind}", {"order": "o1", **data}, topic=topic)


async def until_going(feeding: Feeding, step: str, reader: Connection) -> None:
    sql = "select count(*) from pointsman.executions where step = $1 and holder is not null"
    while not await reader.fetchval(sql, step):
        if not await feeding.take_results():
            feeding.steps.turned.clear()
            await asyncio.wait_for(feeding.steps.turned.wait(), 60)


async def steps_of(reader: Connection, pipeline: str = "saga", at: int | None = None) -> dict[str, StepView]:
    found = await show(reader, "default", pipeline, "o1", at_sequence=at)
    return {one.of.name: one for one in found.steps}


async def explained(reader: Connection, event_id: str) -> list[str]:
    found = await explain(reader, "default", event_id=event_id)
    assert found.known, found.notes
    return [*found.sentences]


async def states_of(reader: Connection, at: int | None = None) -> dict[str, tuple[str, str | None]]:
    """By step: its status, and that of what undoes it."""
    steps = await steps_of(reader, at=at)
    return {
        name: (one.status, None if one.compensation is None else one.compensation.status)
        for name, one in steps.items()
    }


async def printed(reader: Connection, capsys: pytest.CaptureFixture[str], pipeline: str = "saga") -> str:
    capsys.readouterr()
    print_steps((await show(reader, "default", pipeline, "o1")).steps)
    return capsys.readouterr().out


def again_in(row: HistoryRow) -> str:
    """When the next attempt may begin, as shown."""
    assert row.heard is not None
    return str(shown_time(row.heard.again))


async def undo_in_part(feeding: Feeding, world: World) -> None:
    """The charge is done at the second attempt, and not refunded; the goods are reserved, and released at the third."""
    world.script["charge"] = [RuntimeError("slow")]
    world.script["ship"] = [OutOfStockError("none left")]
    world.script["release"] = [RuntimeError("away"), RuntimeError("away")]
    world.script["refund"] = [RuntimeError(f"bank {number}") for number in range(3)]
    await feeding.records(told("placed"))
    await feeding.work()


async def test_show_has_the_steps_of_a_run_and_how_far_they_are_undone_after_each_row(
    database: Database, reader: Connection, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    async with feed(database, saga_pipeline()) as feeding:
        await undo_in_part(feeding, world)
    charge, reserve, ship = ("charge", "reserve", "ship")
    assert [await states_of(reader, at) for at in range(1, 9)] == [
        {charge: ("waiting", "none")},
        {charge: ("waiting", "none")},
        {charge: ("done", "owed"), reserve: ("waiting", "none")},
        {charge: ("done", "owed"), reserve: ("done", "owed"), ship: ("waiting", None)},
        *[{charge: ("done", "owed"), reserve: ("done", "waiting"), ship: ("failed", None)}] * 3,
        {charge: ("done", "waiting"), reserve: ("done", "undone"), ship: ("failed", None)},
    ]
    steps = await steps_of(reader)
    assert {name: one.attempts for name, one in steps.items()} == {charge: 2, reserve: 1, ship: 1}
    assert steps[charge].result == world.ledger[0][2] == steps[charge].of.idempotency_key
    failed = steps[ship].ended
    assert failed is not None
    assert (steps[ship].error, failed.sequence) == ("OutOfStockError: none left", 5)
    refund, release = steps[charge].compensation, steps[reserve].compensation
    assert refund is not None
    assert release is not None
    assert (refund.status, refund.attempts, refund.error) == ("failed", 3, "RuntimeError: bank 2")
    assert (release.status, release.attempts, release.error) == ("undone", 3, "RuntimeError: away")
    assert release.ended is not None
    assert (release.execution, release.ended.sequence) == ("5.0", 8)
    assert release.idempotency_key == next(key for step, _, key, _ in world.ledger if step == "release")
    again = (await steps_of(reader, at=2))[charge]
    assert (again.attempts, again.error) == (1, "RuntimeError: slow")
    assert again.again is not None
    assert again.again > BEGINS
    told_of = await printed(reader, capsys)
    assert "refund: given up (row 11); RuntimeError: bank 2" in told_of
    assert "release: undone (row 8)" in told_of
    assert "failed (row 5)" in told_of


async def test_history_tells_which_attempt_ended_and_how_and_what_is_undone(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, saga_pipeline()) as feeding:
        await undo_in_part(feeding, world)
    rows = await history(reader, "default", "saga", "o1")
    assert [row_words(row) for row in rows[:5]] == [
        "started",
        f"attempt 1 of charge failed (RuntimeError: slow), and is tried again from {again_in(rows[1])} on",
        "fired: attempt 2 of charge was done",
        "fired: attempt 1 of reserve was done",
        "fired: attempt 1 of ship failed (OutOfStockError: none left), and is not tried again",
    ]
    assert row_words(rows[7]) == "fired: attempt 3 of release, which undoes reserve, was done"
    assert row_words(rows[10]).startswith("held fired: attempt 3 of refund, which undoes charge, failed (")
    assert [effect_words(one) for row in rows for one in row.effects] == [
        "run charge",
        "run reserve",
        "run ship",
        "run release to undo reserve",
        "run refund to undo charge",
    ]
    tried = rows[5].as_json()["attempt"]
    assert (tried["name"], tried["undoes"]["name"], tried["attempt"]) == ("release", "reserve", 1)
    assert (tried["outcome"], tried["final"], tried["again"]) == ("failed", False, again_in(rows[5]))


async def test_results_are_explained_and_so_are_their_keys(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, saga_pipeline()) as feeding:
        await undo_in_part(feeding, world)
    rows = await history(reader, "default", "saga", "o1")
    ids = [row.event.id for row in rows]
    origin, said = await explained(reader, ids[1])
    assert origin.startswith(
        "It is what became of the step charge, which the run 'o1' of saga asked for in row 1 ("
    )
    assert said == (
        f"Attempt 1 of charge failed (RuntimeError: slow), and is tried again from {again_in(rows[1])} on (row 2 of "
        "the run 'o1' of saga)."
    )
    assert ids[2].endswith("/2/done")
    assert (await explained(reader, ids[2]))[1] == (
        "Attempt 2 of charge was done. It moved the run 'o1' of saga from charging to reserving (row 3). It asked for "
        "the step reserve."
    )
    origin, said = await explained(reader, ids[7])
    assert origin.startswith(
        "It is what became of the compensation release, which undoes the step reserve, and which the run 'o1' of saga "
        "asked for in row 5 ("
    )
    assert said == (
        "Attempt 3 of release, which undoes reserve, was done. The run 'o1' of saga took it and stayed in "
        "$compensating (row 8). It asked for the compensation refund."
    )
    _, said = await explained(reader, ids[10])
    assert said.startswith(
        "It could not be applied (dead letter 1, step failed): the compensation refund failed"
    )
    [answer] = (await explain(reader, "default", event_id=ids[7])).answers
    assert answer.origin is not None
    assert answer.origin.as_json()["undoes"]["name"] == "reserve"
    assert answer.current.disposition == "applied"

    key, refund = ids[2].partition("/")[0], ids[10].partition("/")[0]
    first, second, third, undone = await explained(reader, key)
    assert first.startswith(
        "It is the idempotency key of the step charge, which the run 'o1' of saga asked for in "
    )
    assert second.startswith("Row 2 (")
    assert third.endswith("): attempt 2 of charge was done.")
    assert undone.startswith(
        f"The compensation refund ({refund}), which was to undo it, failed for good in row 11"
    )
    told_of = await explained(reader, refund)
    assert told_of[0].startswith(
        "It is the idempotency key of the compensation refund, which undoes the step charge"
    )
    assert len(told_of) == 4
    assert (await explained(reader, f"{key}/7"))[0].startswith(
        "Nothing has come under this id. It would tell how"
    )
    unknown = await explain(reader, "default", event_id=f"{ids[10][:-6]}0000/1")
    assert not unknown.known


async def test_what_has_not_ended_is_told_by_its_key_and_in_show_as_it_goes_on(
    database: Database, reader: Connection, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.script["reserve"] = [forever]
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        charge = (await steps_of(reader))["charge"].of.idempotency_key
        assert (await explained(reader, charge))[1:] == ["Attempt 1 waits for its turn."]
        assert await list_runs(reader, "default", status="compensating") == []
        await feeding.begin_steps()
        await until_going(feeding, "reserve", reader)
        assert "attempt 1 goes on" in await printed(reader, capsys)
        assert (await states_of(reader))["reserve"] == ("going", "none")
        assert (await states_of(reader, at=1)) == {"charge": ("waiting", "none")}
        reserve = (await steps_of(reader))["reserve"]
        assert reserve.attempts == 1
        key = reserve.of.idempotency_key
        assert (await explained(reader, key))[1:] == ["Attempt 1 goes on."]
        assert (await explained(reader, charge))[-1] == (
            "It is owed: the compensation refund is to undo it if the run is undone."
        )

        await feeding.records(told("cancelled"))
        assert "to be stopped: attempt 1 goes on" in await printed(reader, capsys)
        assert (await steps_of(reader))["reserve"].stopping
        assert (await explained(reader, key))[-1] == (
            "Its state was left, and the run waits to hear what became of it."
        )
        [undone] = await list_runs(reader, "default", status="compensating")
        assert (undone.status, undone.configuration) == ("running", ["$compensating"])
        assert await list_runs(reader, "default", status="compensating", state="charging") == []
        await feeding.steps.close()
        await feeding.work()
    assert await list_runs(reader, "default", status="compensating") == []
    assert await states_of(reader) == {"charge": ("done", "undone"), "reserve": ("stopped", "undone")}
    reserve = (await steps_of(reader))["reserve"]
    assert (reserve.outcome, reserve.stopping, reserve.attempts) == ("unknown", False, 1)
    assert "stopped (row 4): what it did is not known" in await printed(reader, capsys)
    rows = await history(reader, "default", "saga", "o1")
    assert [effect_words(one) for one in rows[2].effects] == ["stop reserve"]
    assert row_words(rows[3]) == "fired: it is not known what attempt 1 of reserve did before it was stopped"
    assert rows[3].event.id.endswith("/1/stopped")
    assert (await explained(reader, rows[3].event.id))[1].startswith(
        "It is not known what attempt 1 of reserve did"
    )


async def test_what_nobody_began_and_what_is_owed_no_more_is_not_to_be_undone(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.records(told("cancelled"))
        await feeding.work()
        never = (await steps_of(reader))["charge"]
        assert (never.status, never.outcome, never.attempts) == ("stopped", "not begun", 0)
        assert never.compensation is not None
        assert never.compensation.status == "none"
    told_of = await explained(reader, never.of.idempotency_key)
    assert told_of[1].endswith("): attempt 1 of charge was not begun before its state was left.")
    assert told_of[2:] == ["It is not owed: nothing of it is to be undone."]


async def test_attempts_that_took_too_long_or_were_lost_are_told_as_that(
    database: Database, reader: Connection, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"timeout": timedelta(seconds=0.05), "attempts": 1}
    world.script["charge"] = [forever]
    world.script["refund"] = [forever]
    async with feed(database, saga_pipeline(**options)) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await until_going(feeding, "refund", reader)
        assert (await states_of(reader)) == {"charge": ("failed", "going")}
        assert "timed out (row 2)" in await printed(reader, capsys)
        assert "refund: attempt 1 goes on" in await printed(reader, capsys)
        silent = f"update pointsman.holders set seen = now() - interval '{SILENT_SECONDS + 1} seconds'"
        await execute(database.owner_dsn, silent)
    async with feed(database, saga_pipeline(**options)) as feeding:
        await feeding.work()
    rows = await history(reader, "default", "saga", "o1")
    assert row_words(rows[1]).startswith("fired: attempt 1 of charge took too long (TimeoutError: ")
    assert row_words(rows[2]).startswith(
        "held fired: attempt 1 of refund, which undoes charge, was lost with its engine (LostError: "
    )


async def test_a_result_that_came_too_late_tells_why_it_is_void(
    database: Database, reader: Connection, charged: charging.World
) -> None:
    async with feed(database, charging_pipeline()) as feeding, feed(database, charging_pipeline()) as other:
        await feeding.records(told("placed", charging.TOPIC))
        key = (await steps_of(reader, "charging"))["charge"].of.idempotency_key
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        # By another engine, which does not know of the attempt; and the next run of the key begins.
        await other.records(told("cancelled", charging.TOPIC), told("placed", charging.TOPIC))
        while not await reader.fetchval("select count(*) from pointsman.dispositions"):
            await feeding.take_results()
        await feeding.steps.close()
    assert charged.attempts("charge")
    [event_id] = [
        one["event_id"] for one in await reader.fetch("select event_id from pointsman.dispositions")
    ]
    assert event_id == f"{key}/1/done"
    origin, said = await explained(reader, event_id)
    assert origin.startswith(
        "It is what became of the step charge, which the run 'o1' of charging asked for in row 1"
    )
    assert said.startswith(
        "It is void, and changed nothing: the run 'o1' of charging did not wait for it any more, for order.cancelled "
    )
    assert " had ended it by leaving its state, in row 2 (" in said
    first, left = await explained(reader, key)
    assert first.startswith("It is the idempotency key of the step charge")
    assert left.startswith("Its state was left in row 2 (")
    found = await show(reader, "default", "charging", "o1", 0)
    [charge] = found.steps
    assert (charge.status, charge.outcome, charge.compensation) == ("stopped", "left", None)


async def test_a_result_that_waits_behind_a_hold_says_so_and_counts_once_that_is_lifted(
    database: Database, reader: Connection, charged: charging.World, capsys: pytest.CaptureFixture[str]
) -> None:
    charged.script["charge"] = [AwayError("first")]
    async with feed(database, charging_pipeline()) as feeding:
        await feeding.records(told("placed", charging.TOPIC))
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        await feeding.records(told("noted", charging.TOPIC, word=7))
        assert await feeding.take_results()
        await feeding.steps.close()
        charge = (await steps_of(reader, "charging"))["charge"]
        assert (charge.status, charge.behind, charge.attempts) == ("waiting", 3, 1)
        assert "ended, and waits behind the hold of the run (row 3)" in await printed(
            reader, capsys, "charging"
        )
        key = charge.of.idempotency_key
        assert (await explained(reader, key))[-1] == (
            "It has ended, and that waits behind what holds the run since row 3."
        )
        await feeding.drop(1)
        charge = (await steps_of(reader, "charging"))["charge"]
        assert (charge.behind, charge.attempts, charge.error) == (None, 1, "AwayError: first")
        told_of = await explained(reader, f"{key}/1")
        assert told_of[-1].startswith(
            "Attempt 1 of charge failed (AwayError: first), and is tried again from "
        )
        assert [one.disposition for one in await changes(reader, f"{key}/1")] == ["held", "applied"]
        await feeding.work()
    done = await steps_of(reader, "charging")
    assert [(one.status, one.attempts) for one in done.values()] == [("done", 2), ("done", 1)]


async def changes(reader: Connection, event_id: str) -> list[Change]:
    [answer] = (await explain(reader, "default", event_id=event_id)).answers
    return [*answer.earlier, answer.current]
