"""Runs that operators cancel."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.limits import EngineLimits
from engine.log import digest_number, digest_of
from engine.reading import (
    Answer,
    explain,
    history,
    list_dead_letters,
    list_runs,
    replay,
    show,
    show_dead_letter,
    verify,
)
from engine.reading.way import count_states, passages_of
from engine.store.connecting import Connection
from engine.store.values import Commit
from statemachines import Cancelled, Context, Event, Pipeline, Send
from statemachines.machine import compile_pipeline
from statemachines.way import find_way
from tests.errand import TOPIC as ERRANDS
from tests.errand import errand
from tests.feeding import BEGINS, event, feed
from tests.operators import ask
from tests.parcel import BROKEN, TOPIC, parcel
from tests.services import Database, execute
from tests.shop import shop

PLACED = {"order_id": "o1", "amount": 5}


@pytest.fixture(autouse=True)
def carrier() -> Iterator[set[str]]:
    """Parcels that the carrier does not call back."""
    BROKEN.clear()
    yield BROKEN
    BROKEN.clear()


def on_parcel(kind: str, key: str = "p1", **more: Any) -> RawRecord:
    return event(f"parcel.{kind}", {"parcel": key, **more}, topic=TOPIC)


def noted(text: str, key: str = "p1") -> RawRecord:
    return event("parcel.noted", {"parcel": key, "text": text}, id=text, topic=TOPIC)


async def kinds(reader: Connection, pipeline: str, key: str, generation: int = 0) -> list[str]:
    return [row.event.kind for row in await history(reader, "default", pipeline, key, generation)]


async def check_books(reader: Connection, *pipelines: Pipeline[Any]) -> None:
    """Nothing is wrong with what is stored, and replayed it comes out equal."""
    found = await verify(reader, "default")
    assert found.is_clean, found.findings
    machines = [compile_pipeline(one) for one in pipelines or (parcel(), shop(), errand())]
    replayed = await replay(reader, "default", machines)
    assert replayed.is_equal, replayed.mismatches


async def explained(reader: Connection, event_id: str) -> Answer:
    (answer,) = (await explain(reader, "default", event_id=event_id)).answers
    return answer


async def test_a_run_ends_where_it_is_and_nothing_of_it_falls_due(
    database: Database, reader: Connection
) -> None:
    async with feed(database, parcel(), shop(), errand()) as feeding:
        for kind in ("given", "begun"):
            await feeding.records(event(f"errand.{kind}", {"errand": "e1"}, topic=ERRANDS))
        cancelled = await ask(feeding, "cancel", "errand", "e1", why="nobody wants it")
        assert await feeding.due(BEGINS + timedelta(hours=1)) == 0
        await feeding.records(event("errand.begun", {"errand": "e1"}, topic=ERRANDS, id="late"))
        again = await ask(feeding, "cancel", "errand", "e1")
    assert (cancelled.done, cancelled.dead_letter) == (True, None)
    assert cancelled.sentence.startswith("This is a cancellation by ana at 2026-03-01T12:0")
    assert cancelled.sentence.endswith(
        "(command/1: nobody wants it): the run 'e1' of errand ended where it was, in going (row 4)."
    )
    assert again.done
    assert again.sentence.startswith(
        "The run 'e1' of errand has ended in going. It was cancelled by ana at 2026-03"
    )
    assert again.sentence.endswith(", nobody wants it.")
    (run,) = await list_runs(reader, "default", status="cancelled")
    assert (run.status, run.configuration, run.memory.due) == ("cancelled", ["going"], [])
    assert await list_runs(reader, "default", status="running") == []
    assert (await kinds(reader, "errand", "e1"))[-1] == "cancelled"
    shown = await show(reader, "default", "errand", "e1")
    assert (shown.status, shown.row.event.type) == ("cancelled", "cancel.run")
    assert shown.record is not None
    assert b'"who":"ana","why":"nobody wants it"' in (shown.record.value or b"")
    late = await explained(reader, "late")
    assert (late.current.disposition, late.current.reason) == ("late", "run closed")
    await check_books(reader)


async def test_a_run_goes_where_its_pipeline_says_and_ends_there(
    database: Database, reader: Connection
) -> None:
    async with feed(database, parcel(), shop(), errand()) as feeding:
        await feeding.records(on_parcel("packed"), on_parcel("sent"))
        cancelled = await ask(feeding, "cancel", "parcel", "p1", why="lost")
        assert cancelled.sentence.endswith(
            "(command/1: lost). It moved the run 'p1' of parcel from sent to called_back (row 3). It asked for 1 event "
            "to be published to carrier."
        )
        (run,) = await list_runs(reader, "default")
        assert (run.status, run.context["notes"]) == (
            "running",
            ["left the house", "ana: lost", "on its way back"],
        )
        assert run.memory.due == []
        await check_books(reader)
        await feeding.records(on_parcel("returned"))
        ended = await ask(feeding, "cancel", "parcel", "p1")
    assert ended.done
    assert ended.sentence.startswith(
        "The run 'p1' of parcel has ended in back. It was cancelled by ana at 2026-03-01"
    )
    assert (await explained(reader, "command/1")).current.disposition == "applied"
    found = await passages_of(reader, "default", "parcel", "p1")
    way = find_way(compile_pipeline(parcel()), found.passages)
    assert [(source, move.event_type, rows.first) for (source, move), rows in way.moves.items()] == [
        ("packed", "parcel.sent", [2]),
        ("sent", "cancel.run", [3]),
        ("called_back", "parcel.returned", [4]),
    ]
    assert way.unexplained.times == 0
    await check_books(reader)


async def test_a_state_that_declines_goes_on(database: Database, reader: Connection) -> None:
    async with feed(database, parcel()) as feeding:
        await feeding.records(on_parcel("packed"), on_parcel("sent"), on_parcel("arrived"))
        declined = await ask(feeding, "cancel", "parcel", "p1")
    assert declined.sentence.endswith("The run 'p1' of parcel took it and stayed in handed_over (row 4).")
    (run,) = await list_runs(reader, "default")
    assert (run.status, run.context["notes"][-1]) == ("running", "ana came too late")


async def test_what_fails_holds_the_run_until_it_is_redriven(
    database: Database, reader: Connection, carrier: set[str]
) -> None:
    carrier.add("p1")
    async with feed(database, parcel(), shop(), errand()) as feeding:
        await feeding.records(on_parcel("packed"))
        failed = await ask(feeding, "cancel", "parcel", "p1")
        await feeding.records(noted("behind"))
        await check_books(reader)
        assert (failed.failed, failed.dead_letter) == (True, 1)
        assert "the carrier does not answer" in failed.sentence
        (run,) = await list_runs(reader, "default")
        assert (run.status, run.waiting, run.configuration) == ("held", 1, ["packed"])
        carrier.clear()
        await feeding.redrive(1)
    (run,) = await list_runs(reader, "default")
    assert (run.status, run.configuration, run.waiting) == ("running", ["called_back"], 0)
    assert run.context["notes"] == [
        "left the house",
        "ana: the customer called",
        "on its way back",
        "behind",
    ]
    assert await kinds(reader, "parcel", "p1") == [
        "started",
        "held",
        "waited",
        "released",
        "cancelled",
        "moved after wait",
    ]
    assert (await verify(reader, "default")).is_clean


async def test_a_run_that_a_dead_letter_holds_is_cancelled_and_the_letter_stays_open(
    database: Database, reader: Connection, broken: set[str]
) -> None:
    async with feed(database, shop(), parcel(), errand()) as feeding:
        await feeding.records(event("order.placed", PLACED))
        await feeding.records(
            event("order.broken", {"order_id": "o1"}, id="broken"),
            event("order.noted", {"order_id": "o1"}, id="behind"),
        )
        cancelled = await ask(feeding, "cancel", "shop", "o1")
        assert not cancelled.failed
        assert await kinds(reader, "shop", "o1") == ["started", "held", "waited", "cancelled", "left waiting"]
        await check_books(reader)
        (run,) = await list_runs(reader, "default")
        assert (run.status, run.held, run.waiting) == ("cancelled", None, 0)
        letter = await show_dead_letter(reader, "default", 1)
        assert (letter.letter.status, letter.holds) == ("open", False)
        told = await explained(reader, "broken")
        assert "It held the run 'o1' of shop from row 2 until the run was cancelled." in told.current.sentence
        assert "It is open: pointsman dead-letters redrive 1 (or drop)." in told.current.sentence
        behind = await explained(reader, "behind")
        assert (behind.current.disposition, behind.current.reason) == ("late", "run closed")
        broken.clear()
        await feeding.redrive(1)
    told = await explained(reader, "broken")
    assert (told.current.disposition, told.current.reason) == ("late", "run closed")
    assert (await verify(reader, "default")).is_clean


async def test_a_paused_run_is_cancelled_and_what_waited_goes_where_the_run_went(
    database: Database, reader: Connection
) -> None:
    async with feed(database, parcel(), shop(), errand(), limits=EngineLimits(drain_events_max=2)) as feeding:
        await feeding.records(on_parcel("packed"))
        await ask(feeding, "pause", "parcel", "p1")
        await feeding.records(*(noted(str(number)) for number in range(5)), on_parcel("returned"))
        await ask(feeding, "cancel", "parcel", "p1")
        await feeding.commands()
    (run,) = await list_runs(reader, "default")
    assert (run.status, run.configuration, run.waiting) == ("completed", ["back"], 0)
    assert run.context["notes"][3:] == list("01234")
    told = (await explained(reader, "0")).current.sentence
    assert "After it had waited until a cancellation by ana at 2026-03-01" in told
    await check_books(reader)


async def test_what_waited_for_a_run_that_is_cancelled_meets_the_policy_for_ended_runs(
    database: Database, reader: Connection
) -> None:
    pipeline = shop(closed="restart", unexpected="defer")
    by_one = EngineLimits(drain_events_max=1)
    async with feed(database, pipeline, limits=by_one) as feeding:
        await feeding.records(
            event("order.placed", PLACED), event("order.shipped", {"order_id": "o1"}, id="early")
        )
        await feeding.records(event("order.placed", PLACED, id="next"))
        await ask(feeding, "pause", "shop", "o1")
        await feeding.records(event("order.noted", {"order_id": "o1"}, id="one"))
        await feeding.records(event("order.noted", {"order_id": "o1"}, id="two"))
        await feeding.records(event("order.placed", PLACED, id="behind"))
        await ask(feeding, "cancel", "shop", "o1")
        await feeding.commands()
        await feeding.records(event("order.paid", PLACED))
    first, second = [await show(reader, "default", "shop", "o1", number) for number in (0, 1)]
    assert (first.status, first.configuration, first.waiting) == ("cancelled", ["placed"], 0)
    assert (second.status, second.configuration) == ("running", ["paid"])
    assert {one.event_id: one.reason for one in await list_dead_letters(reader, "default")} == {
        "early": "no run",
        "one": "no run",
        "two": "no run",
        "behind": "run closed",
    }
    await check_books(reader, pipeline)


async def test_a_key_whose_run_was_cancelled_begins_its_next_generation(
    database: Database, reader: Connection
) -> None:
    pipeline = shop(closed="restart")
    async with feed(database, pipeline) as feeding:
        await feeding.records(event("order.placed", PLACED, id="first"))
        await ask(feeding, "cancel", "shop", "o1")
        await feeding.records(event("order.placed", PLACED, id="first"))
        await feeding.records(event("order.placed", PLACED, id="second"))
    async with feed(database, pipeline) as feeding:
        again = await ask(feeding, "cancel", "shop", "o1")
        assert again.done
    dispositions = [
        one.current.disposition for one in (await explain(reader, "default", event_id="first")).answers
    ]
    assert dispositions == ["started", "duplicate"]
    for generation in (0, 1):
        assert (await show(reader, "default", "shop", "o1", generation)).status == "cancelled"
    await check_books(reader, pipeline)


async def test_what_waits_for_the_next_run_goes_on_to_it_once_one_is_cancelled(
    database: Database, reader: Connection
) -> None:
    pipeline = shop(closed="restart", unexpected="defer", no_run="defer")
    async with feed(database, pipeline) as feeding:
        await feeding.records(
            event("order.placed", PLACED), event("order.shipped", {"order_id": "o1"}, id="early")
        )
        await ask(feeding, "cancel", "shop", "o1")
        await feeding.records(event("order.paid", PLACED, id="later"))
        (run, _) = await list_runs(reader, "default")
        assert (run.generation, run.status, run.waiting) == (1, "expected", 2)
        await feeding.records(event("order.placed", PLACED))
    (run, _) = await list_runs(reader, "default")
    assert (run.generation, run.status, run.configuration) == (1, "completed", ["shipped"])
    await check_books(reader, pipeline)


async def test_a_verdict_on_a_run_that_another_engine_moved_meanwhile_is_made_again(
    database: Database, reader: Connection, carrier: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, parcel()) as feeding, feed(database, parcel()) as other:
        await feeding.records(on_parcel("packed"), noted("breaks"))
        carrier.add("p1")
        commit, calls = feeding.store.commit, 0

        async def after_the_other(one: Commit) -> int | None:
            nonlocal calls
            calls += 1
            if calls == 1:
                await other.records(noted("behind"))
            return await commit(one)

        monkeypatch.setattr(feeding.store, "commit", after_the_other)
        failed = await ask(feeding, "cancel", "parcel", "p1")
    assert (failed.failed, calls) == (True, 2)
    (run,) = await list_runs(reader, "default")
    assert (run.status, run.held, run.waiting) == ("held", 2, 1)
    assert (await verify(reader, "default")).is_clean


async def test_a_cancellation_that_failed_waits_for_the_version_of_its_run(
    database: Database, reader: Connection, carrier: set[str]
) -> None:
    async with feed(database, parcel()) as feeding:
        await feeding.records(on_parcel("packed"), noted("breaks"))
        carrier.add("p1")
        await ask(feeding, "cancel", "parcel", "p1")
        carrier.clear()
    async with feed(database, parcel(version=2)) as feeding:
        await feeding.redrive(2)
        assert [one.status for one in await list_dead_letters(reader, "default")] == ["open", "open"]
    assert await kinds(reader, "parcel", "p1") == ["started", "held"]


async def test_what_cannot_be_cancelled_says_why(database: Database, reader: Connection) -> None:
    async with feed(database, shop(no_run="defer")) as feeding:
        await feeding.records(event("order.placed", PLACED), event("order.paid", PLACED))
        await feeding.records(event("order.shipped", {"order_id": "o1"}))
        await feeding.records(event("order.noted", {"order_id": "o2"}))
        await feeding.records(event("order.placed", PLACED | {"order_id": "o3"}))
        completed = await ask(feeding, "cancel", "shop", "o1")
        expected = await ask(feeding, "cancel", "shop", "o2")
    async with feed(database, shop(version=2)) as feeding:
        missing = await ask(feeding, "cancel", "shop", "o3")
    assert (completed.failed, completed.sentence) == (True, "The run 'o1' of shop has ended in shipped.")
    assert (expected.failed, "was not begun yet" in expected.sentence) == (True, True)
    assert missing.failed
    assert "The run 'o3' of shop is not cancelled: it follows a version of its pipeline" in missing.sentence
    assert (await verify(reader, "default")).is_clean


async def test_a_cancellation_that_fails_leaves_a_run_held_by_what_held_it(
    database: Database, reader: Connection, carrier: set[str]
) -> None:
    async with feed(database, parcel(), shop(), errand()) as feeding:
        await feeding.records(on_parcel("packed"), noted("breaks"), noted("behind"))
        carrier.add("p1")
        failed = await ask(feeding, "cancel", "parcel", "p1")
        (run,) = await list_runs(reader, "default")
        assert (failed.failed, failed.dead_letter, run.status, run.held) == (True, 2, "held", 2)
        await check_books(reader)
        carrier.clear()
        await feeding.redrive(2)
        (run,) = await list_runs(reader, "default")
        assert (run.status, run.configuration, run.waiting) == ("running", ["called_back"], 0)
        assert (await verify(reader, "default")).is_clean
        await feeding.drop(1)
    assert (await verify(reader, "default")).is_clean


async def test_a_cancellation_whose_handler_does_not_return_is_a_dead_letter(
    database: Database, reader: Connection
) -> None:
    digest = digest_number(digest_of("/pointsman/default/operators", "command/1"))
    async with feed(database, parcel(), shop(), errand()) as feeding:
        await feeding.records(on_parcel("packed"))
        await execute(
            database.owner_dsn, f"insert into pointsman.strikes values (0, {digest}, 2, 'f', now())"
        )
        stuck = await ask(feeding, "cancel", "parcel", "p1")
    assert (stuck.failed, "handler never returned" in stuck.sentence) == (True, True)
    assert await reader.fetchval("select count(*) from pointsman.strikes") == 0
    await check_books(reader)


async def test_cancelled_runs_are_in_no_state_that_is_counted(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        for key in ("o1", "o2"):
            await feeding.records(event("order.placed", PLACED | {"order_id": key}))
        await ask(feeding, "cancel", "shop", "o1")
    counted = await count_states(reader, "default", ["shop"])
    assert counted["shop", 1].states == {"placed": 1}
    found = await passages_of(reader, "default", "shop", "o1")
    assert (found.status, found.sequence, len(found.passages)) == ("cancelled", 2, 1)


class Case(Context):
    pass


class Opened(Event, type="case.opened", key="case"):
    case: str


class Asked(Event, type="case.asked", key="case"):
    case: str


def cases() -> Pipeline[Case]:
    """One that asks another one to be cancelled, which only an operator can."""
    flow = Pipeline("case", Case, topics=["cases"])
    opened = flow.state("opened", initial=True)
    gone = flow.state("gone", final=True)
    flow.start(Opened, lambda _: Case())
    opened.on(Asked, do=lambda _case, _event: Send(Cancelled(who="a run", why="it can"), to="c2"))
    opened.on(Event.named("*"))
    flow.on_cancel(to=gone)
    return flow


async def test_neither_a_topic_nor_a_run_cancels_a_run(database: Database, reader: Connection) -> None:
    async with feed(database, cases()) as feeding:
        for key in ("c1", "c2"):
            await feeding.records(event("case.opened", {"case": key}, topic="cases"))
        await feeding.records(event("case.asked", {"case": "c1"}, topic="cases"))
        await feeding.commands()
        source = "/pointsman/default/operators"
        await feeding.records(event("cancel.run", {}, source=source, key="c2", topic="cases"))
        letters = await list_dead_letters(reader, "default")
        assert [one.reason for one in letters] == ["unknown type", "unknown type"]
        await feeding.redrive(*(one.id for one in letters))
        await feeding.commands()
    for run in await list_runs(reader, "default"):
        assert (run.status, run.configuration) == ("running", ["opened"])
    assert (await verify(reader, "default")).is_clean


async def test_a_run_that_goes_on_when_it_is_cancelled_can_be_cancelled_again(
    database: Database, reader: Connection
) -> None:
    async with feed(database, parcel(), shop(), errand()) as feeding:
        await feeding.records(on_parcel("packed"))
        for why in ("once", "twice"):
            assert (await ask(feeding, "cancel", "parcel", "p1", why=why)).done
    (run,) = await list_runs(reader, "default")
    assert [one for one in run.context["notes"] if one.startswith("ana")] == ["ana: once", "ana: twice"]
    await check_books(reader)
