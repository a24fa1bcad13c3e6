"""Time, deferral and events between runs in a real Postgres: stored, loaded again, folded, replayed and shown."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import Partition, RawRecord
from engine.batch import by_itself
from engine.log import Kind
from engine.reading import history, list_runs, replay, verify
from engine.session.claims import Slice
from engine.session.timers import Due
from engine.store.connecting import Connection
from statemachines.limits import FOLLOWING_MAX
from statemachines.machine import compile_pipeline
from tests import journey
from tests.chaos.test_refusals import IN_THE_LOG, REFUSE
from tests.feeding import BEGINS, event, feed
from tests.journey import LATEST, PAY_WITHIN, REMIND_AFTER, TOPIC, journey_pipeline, ledger_pipeline
from tests.services import Database, execute
from tests.unit.early import door_pipeline


def told(kind: str, **data: Any) -> RawRecord:
    return event(f"journey.{kind}", {"journey": "j1", **data}, topic=TOPIC)


async def check_the_log(reader: Connection) -> None:
    """Folding gives the rows of the runs, and replaying gives the same log."""
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    machines = [compile_pipeline(journey_pipeline()), compile_pipeline(ledger_pipeline())]
    replayed = await replay(reader, "default", machines)
    assert replayed.is_equal, replayed


async def states(reader: Connection) -> list[tuple[str, str]]:
    rows = await history(reader, "default", "journey", "j1")
    return [(row.event.kind, " ".join(row.to_states)) for row in rows]


@pytest.mark.parametrize("reloaded", [True, False])
async def test_early_events_wait_and_what_a_run_sends_to_itself_comes_before_newer_events(
    database: Database, reader: Connection, *, reloaded: bool
) -> None:
    records = [told("boarded"), told("booked"), told("paid"), told("arrived")]
    for some in [[one] for one in records] if reloaded else [records]:
        async with feed(database, journey_pipeline(), ledger_pipeline()) as feeding:
            await feeding.records(*some)
            await feeding.commands()
    assert await states(reader) == [
        ("deferred", ""),
        ("started", "booked"),
        ("moved", "paid"),
        ("fired", "paid"),
        ("fired", "paid"),
        ("fired", "ready"),
        ("moved deferred", "aboard"),
        ("moved", "arrived"),
    ]
    runs = {run.pipeline: run for run in await list_runs(reader, "default")}
    assert runs["journey"].context["notes"] == ["paid", "checked 1", "checked 2", "checked 3", "boarded"]
    assert runs["ledger"].context == {"journeys": ["j1"]}
    await check_the_log(reader)


async def test_a_timer_fires_once_it_is_due_and_not_when_its_state_was_left(
    database: Database, reader: Connection
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked"))
        assert await feeding.due(BEGINS + REMIND_AFTER - timedelta(seconds=5)) == 0
        assert await feeding.due(BEGINS + REMIND_AFTER + timedelta(seconds=5)) == 1
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("paid"), told("boarded"))
        # The time to pay within is over, and means nothing any more; that to arrive within is not.
        assert await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1)) == 0
        assert await feeding.due(BEGINS + timedelta(hours=2)) == 1
    assert (await states(reader))[-2:] == [("moved", "aboard"), ("fired", "late")]
    [run] = await list_runs(reader, "default")
    assert run.context["notes"][:2] == ["reminded", "paid"]
    assert await reader.fetchval("select count(*) from pointsman.outbox") == 1
    await check_the_log(reader)


async def test_a_timer_fires_also_where_another_engine_has_the_run_s_events(
    database: Database, reader: Connection
) -> None:
    async with feed(database, journey_pipeline()) as home, feed(database, journey_pipeline()) as events:
        await home.records(told("booked"))
        # From now on the home knows the run as it was, without the timer of where it is then.
        await events.records(told("paid"), told("boarded"))
        assert await home.due(BEGINS + timedelta(hours=2)) == 1
    assert (await states(reader))[-1] == ("fired", "late")
    await check_the_log(reader)


async def test_a_timer_that_the_store_does_not_take_is_no_fault_of_the_record_beside_it(
    database: Database, reader: Connection
) -> None:
    fired = IN_THE_LOG.replace("new.event_id like 'bad%'", f"new.kind = {int(Kind.FIRED)}")
    await execute(database.owner_dsn, REFUSE, fired)
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked"))
        feeding.clock.now = BEGINS + PAY_WITHIN + timedelta(minutes=1)
        claim = await feeding.claim(Partition(TOPIC, 0))
        record = event("journey.booked", {"journey": "j2"}, topic=TOPIC)._replace(offset=claim.read_to)
        claim.read_to += 1
        slices = [Slice(claim, [record], record.offset, claim.read_to)]
        due = [Due(feeding.topics[TOPIC].routes[0], "j1", 0, 1, feeding.clock.now)]
        batch = await feeding.committer.prepare(slices, None, due)
        assert not await feeding.committer.settle(feeding.committer.begin(slices, batch, due))
    letters = await reader.fetch("select reason, type, key from pointsman.dead_letters")
    assert [tuple(one) for one in letters] == [("refused by store", "journey.reminded", "j1")]
    runs = {run.key: (run.status, *run.configuration) for run in await list_runs(reader, "default")}
    assert runs == {"j1": ("held", "booked"), "j2": ("running", "booked")}
    await check_the_log(reader)


async def test_the_run_s_own_timer_ends_it_and_all_that_was_to_come(
    database: Database, reader: Connection
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked"), told("paid"))
        assert await feeding.due(BEGINS + LATEST + timedelta(minutes=1)) == 1
        assert await feeding.due(BEGINS + 2 * LATEST) == 0
    [run] = await list_runs(reader, "default")
    assert (run.status, run.configuration) == ("completed", ["lapsed"])
    assert await reader.fetchval("select wake_at from pointsman.runs") is None
    await check_the_log(reader)


async def test_what_waits_for_a_run_that_never_begins_is_a_dead_letter_in_the_end(
    database: Database, reader: Connection
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("paid"))
        [run] = await list_runs(reader, "default")
        assert (run.status, run.configuration, run.waiting) == ("expected", [], 1)
        assert await feeding.due(BEGINS + timedelta(minutes=11)) == 1
    [letter] = await reader.fetch("select reason, type, event_id, status from pointsman.dead_letters")
    assert tuple(letter)[:2] == ("waited too long", "journey.paid")
    assert await states(reader) == [("deferred", ""), ("left deferred", "")]
    await check_the_log(reader)
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked"))
    assert (await states(reader))[-1] == ("started", "booked")
    await check_the_log(reader)


async def test_a_closed_run_s_key_starts_again_and_duplicates_stay_duplicates(
    database: Database, reader: Connection
) -> None:
    first, again = told("booked"), told("booked", hours=2)
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(first)
        await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1))
        await feeding.records(first)
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(again, first, again)
    rows = await reader.fetch("select generation, status from pointsman.runs order by generation")
    assert [tuple(row) for row in rows] == [(0, 2), (1, 1)]
    assert await reader.fetchval("select count(*) from pointsman.dispositions where disposition = 4") == 3
    await check_the_log(reader)


async def test_a_timer_s_handler_that_fails_holds_the_run_until_it_is_redriven(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journey, "NOTED", None)
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked"))
        await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1))
        await feeding.records(told("paid"))
    [run] = await list_runs(reader, "default")
    assert (run.status, run.waiting) == ("held", 1)
    kinds = [row[0] for row in await reader.fetch("select kind from pointsman.events order by sequence")]
    assert kinds[-2:] == [int(Kind.HELD_FIRED), int(Kind.WAITED)]
    monkeypatch.undo()
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.redrive(1)
    run = (await list_runs(reader, "default"))[-1]
    assert (run.status, run.context["notes"]) == ("completed", ["reminded", "lapsed"])
    # What waited behind it came to a run that had ended by then, and waits for the next one as soon as it is wanted.
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.redrive(2)
    rows = await reader.fetch("select generation, status, waiting from pointsman.runs order by generation")
    assert [tuple(row) for row in rows] == [(0, 2, 0), (1, 0, 1)]
    assert (await verify(reader, "default")).is_clean


async def test_more_than_a_run_takes_at_once_goes_on_to_the_next_generation(
    database: Database, reader: Connection
) -> None:
    early = FOLLOWING_MAX + 20
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked"), *[told("boarded") for _ in range(early)])
        await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1))
        await feeding.commands()
    rows = await reader.fetch(
        "select generation, status, waiting, held from pointsman.runs order by generation"
    )
    assert [tuple(row) for row in rows] == [(0, 2, 0, 0), (1, 0, early, 0)]
    assert (await verify(reader, "default")).is_clean


async def test_a_replay_rests_where_the_run_did_whatever_the_limit_was_then(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_itself, "FOLLOWING_MAX", 7)
    async with feed(database, door_pipeline()) as feeding:
        await feeding.records(event("door.made", {"door": "d1"}, topic="doors"))
        early = [event("door.painted", {"door": "d1", "coat": one}, topic="doors") for one in range(20)]
        await feeding.records(*early, event("door.opened", {"door": "d1"}, topic="doors"))
        await feeding.commands()
    monkeypatch.undo()
    rows = await history(reader, "default", "door", "d1")
    assert [row.sequence for row in rows if row.event.kind == "draining"] == [1 + 20 + 1 + 7 + 1]
    replayed = await replay(reader, "default", [compile_pipeline(door_pipeline())])
    assert replayed.is_equal, replayed


@pytest.mark.parametrize(
    "many", [FOLLOWING_MAX, FOLLOWING_MAX + 1, 2 * FOLLOWING_MAX, 2 * FOLLOWING_MAX + 30]
)
async def test_more_than_a_run_takes_at_once_is_taken_before_newer_events(
    database: Database, reader: Connection, many: int
) -> None:
    def door(kind: str, **data: Any) -> RawRecord:
        return event(f"door.{kind}", {"door": "d1", **data}, topic="doors")

    early = [door("painted", coat=number) for number in range(many)]
    async with feed(database, door_pipeline()) as feeding:
        await feeding.records(door("made"), *early)
        await feeding.records(door("opened"), door("painted", coat=many))
        for _ in range(many // FOLLOWING_MAX + 1):
            await feeding.commands()
    [run] = await list_runs(reader, "default")
    assert (run.status, run.waiting) == ("running", 0)
    assert run.context["coats"] == list(range(many + 1))
    rows = await history(reader, "default", "door", "d1")
    taken = Counter(row.at for row in rows if row.event.kind == "moved deferred")
    assert max(taken.values()) == FOLLOWING_MAX, "in one commit"
    rests = [row for row in rows if row.event.kind == "draining"]
    assert len(rests) == (many - 1) // FOLLOWING_MAX, "only where more was to come"
    assert (await verify(reader, "default")).is_clean
