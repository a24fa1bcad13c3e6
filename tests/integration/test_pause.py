"""Runs that operators pause and resume."""

from __future__ import annotations

from datetime import timedelta

import pytest

from connectors.source import RawRecord
from engine.errors import UsageError
from engine.limits import EngineLimits
from engine.log import Kind
from engine.reading import NotFoundError, explain, history, list_dead_letters, list_runs, replay, show, verify
from engine.reading.way import passages_of
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from tests.errand import TOPIC as ERRANDS
from tests.errand import errand
from tests.feeding import BEGINS, Feeding, event, feed
from tests.integration.test_draining import REFUSES, REFUSING
from tests.operators import ask, ask_pipeline, send
from tests.services import Database, execute
from tests.shop import shop

ORDER = {"order_id": "o1"}
PLACED = {"order_id": "o1", "amount": 5}


def noted(text: str, key: str = "o1") -> RawRecord:
    return event("order.noted", {"order_id": key, "text": text}, id=text)


async def kinds(reader: Connection, pipeline: str = "shop", key: str = "o1") -> list[str]:
    return [row.event.kind for row in await history(reader, "default", pipeline, key)]


async def status(reader: Connection, key: str = "o1") -> str:
    (run,) = await list_runs(reader, "default", key=key)
    return run.status


async def check_books(reader: Connection) -> None:
    """Nothing is wrong with what is stored, and replayed it comes out equal."""
    found = await verify(reader, "default")
    assert found.is_clean, found.findings
    replayed = await replay(reader, "default", [compile_pipeline(one) for one in (shop(), errand())])
    assert replayed.is_equal, replayed.mismatches


async def begin(feeding: Feeding, key: str = "o1") -> None:
    await feeding.records(event("order.placed", PLACED | {"order_id": key}))


async def test_events_wait_in_order_behind_a_pause_and_go_on_after_it(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), errand()) as feeding:
        await begin(feeding)
        paused = await ask(feeding, "pause", "shop", "o1", why="to look at it")
        first, second = noted("first"), noted("second")
        await feeding.records(first, second)
        await feeding.records(first)
        await send(feeding, "shop", "o1", "order.noted", {"order_id": "o1", "text": "third"})
        await check_books(reader)
        assert await status(reader) == "paused"
        assert await kinds(reader) == ["started", "paused", "waited", "waited", "waited"]
        (run,) = await list_runs(reader, "default")
        assert (run.context["notes"], run.waiting, run.held) == ([], 3, 2)
        resumed = await ask(feeding, "resume", "shop", "o1")
    assert paused.as_json() == {
        "command": "pause",
        "pipeline": "shop",
        "key": "o1",
        "taken": True,
        "done": True,
        "dead_letter": None,
        "sentence": (
            "The run 'o1' of shop is paused (row 2): what comes for it waits, and its timers do not fire. To let it go "
            "on: pointsman resume shop o1 --reason TEXT."
        ),
    }
    assert (resumed.done, resumed.sentence) == (
        True,
        "The run 'o1' of shop goes on (row 6); 3 events had waited.",
    )
    (run,) = await list_runs(reader, "default")
    assert (run.status, run.context["notes"], run.waiting) == ("running", ["first", "second", "third"], 0)
    assert (await kinds(reader))[5:] == ["released", *["moved after wait"] * 3]
    await check_books(reader)


async def test_nothing_of_a_paused_run_falls_due_before_it_is_resumed(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), errand()) as feeding:
        for kind in ("given", "begun"):
            await feeding.records(event(f"errand.{kind}", {"errand": "e1"}, topic=ERRANDS))
        await feeding.records(event("errand.forgotten", {"errand": "e1"}, topic=ERRANDS, id="forgotten"))
        await ask(feeding, "pause", "errand", "e1")
        before = await kinds(reader, "errand", "e1")
        # Timers, what it sent to itself, and the end of a deferral.
        assert await feeding.due(BEGINS + timedelta(hours=1)) == 0
        assert await kinds(reader, "errand", "e1") == before
        await check_books(reader)
        await ask(feeding, "resume", "errand", "e1")
        assert await feeding.due(BEGINS + timedelta(hours=1)) > 0
    after = (await kinds(reader, "errand", "e1"))[len(before) :]
    assert after[0] == "released"
    assert "held fired" in after
    await check_books(reader)


async def test_a_pause_survives_engines_redeliveries_and_generations(
    database: Database, reader: Connection
) -> None:
    pipeline = shop(closed="restart")
    begins = event("order.placed", PLACED, id="next")
    async with feed(database, pipeline) as feeding:
        await begin(feeding)
        await feeding.records(event("order.paid", PLACED), event("order.shipped", {"order_id": "o1"}))
        await feeding.records(begins)
        await ask(feeding, "pause", "shop", "o1")
        await feeding.records(noted("before"))
    async with feed(database, pipeline) as feeding:
        await feeding.commands()
        await feeding.records(begins, noted("before"), noted("after"))
        found = await show(reader, "default", "shop", "o1")
        assert (found.generation, found.status, found.waiting) == (1, "paused", 2)
        await ask(feeding, "resume", "shop", "o1")
        await feeding.records(begins)
    found = await show(reader, "default", "shop", "o1")
    assert (found.generation, found.status, found.context["notes"]) == (1, "running", ["before", "after"])
    assert (await verify(reader, "default")).is_clean


async def test_what_fails_once_a_run_is_resumed_holds_it_and_the_rest_waits(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), errand()) as feeding:
        await begin(feeding)
        await ask(feeding, "pause", "shop", "o1")
        broken = event("order.broken", {"order_id": "o1"})
        await feeding.records(noted("first"), broken, noted("last"))
        await ask(feeding, "resume", "shop", "o1")
        assert await status(reader) == "held"
        assert (await kinds(reader))[5:] == ["released", "moved after wait", "held after wait"]
        refused = await ask(feeding, "pause", "shop", "o1")
        stays = await ask(feeding, "resume", "shop", "o1")
        await check_books(reader)
        await feeding.drop(1)
        assert (await ask(feeding, "pause", "shop", "o1")).done
        assert await status(reader) == "paused"
        await check_books(reader)
    cure = (
        "The run 'o1' of shop is not paused: it is held by dead letter 1 (action raised) since row 8, and what comes "
        "for it waits. Redrive or drop that one: pointsman dead-letters redrive 1."
    )
    assert (refused.failed, refused.sentence) == (True, cure)
    assert (stays.failed, stays.sentence) == (True, cure)


async def test_asking_twice_changes_nothing_the_second_time(database: Database, reader: Connection) -> None:
    async with feed(database, shop(), errand()) as feeding:
        await begin(feeding)
        not_paused = await ask(feeding, "resume", "shop", "o1")
        await ask(feeding, "pause", "shop", "o1", why="once")
        again = await ask(feeding, "pause", "shop", "o1", why="twice")
    assert (not_paused.done, not_paused.sentence) == (
        True,
        "The run 'o1' of shop is not paused: nothing was to be done.",
    )
    assert again.done
    assert again.sentence.startswith("The run 'o1' of shop is paused already: by ana at 2026-03-01T12:00:0")
    assert again.sentence.endswith(", once (row 2).")
    assert await kinds(reader) == ["started", "paused"]


async def test_what_waited_is_taken_in_several_commits_where_it_is_much(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), errand(), limits=EngineLimits(drain_events_max=2)) as feeding:
        await begin(feeding)
        await ask(feeding, "pause", "shop", "o1")
        await feeding.records(*(noted(str(number)) for number in range(5)))
        await ask(feeding, "resume", "shop", "o1")
        await feeding.commands()
    (run,) = await list_runs(reader, "default")
    assert (run.status, run.context["notes"]) == ("running", list("01234"))
    assert (await kinds(reader)).count("draining") == 2
    await check_books(reader)


async def test_what_the_store_does_not_take_of_what_waited_holds_the_run_once_it_is_resumed(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), errand()) as feeding:
        await begin(feeding)
        await ask(feeding, "pause", "shop", "o1")
        await feeding.records(*(event("order.noted", ORDER, id=f"note-{one}") for one in range(6)))
        await execute(database.owner_dsn, REFUSES, REFUSING)
        assert (await ask(feeding, "resume", "shop", "o1")).done
    (run,) = await list_runs(reader, "default")
    assert (run.status, run.waiting) == ("held", 1)
    (letter,) = await list_dead_letters(reader, "default")
    assert (letter.event_id, letter.reason) == ("note-4", "refused by store")
    await check_books(reader)


async def test_what_cannot_be_paused_says_why(database: Database, reader: Connection) -> None:
    async with feed(database, shop(no_run="defer"), errand()) as feeding:
        await begin(feeding)
        await feeding.records(event("order.paid", PLACED), event("order.shipped", {"order_id": "o1"}))
        await feeding.records(noted("early", "o2"))
        ended = [await ask(feeding, what, "shop", "o1") for what in ("pause", "resume")]
        expected = await ask(feeding, "pause", "shop", "o2")
        with pytest.raises(NotFoundError, match="no run with the key 'o3'"):
            await ask(feeding, "pause", "shop", "o3")
        with pytest.raises(UsageError, match="Say why"):
            await ask(feeding, "pause", "shop", "o1", why="")
    for one in ended:
        assert (one.failed, one.sentence) == (True, "The run 'o1' of shop has ended in shipped.")
    assert (expected.failed, expected.sentence) == (
        True,
        "The run 'o2' of shop was not begun yet: events wait for the one that begins it.",
    )
    assert await reader.fetchval("select count(*) from pointsman.operations where not done") == 3


async def test_a_paused_run_whose_version_is_not_loaded_stays_paused(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await begin(feeding)
        await ask(feeding, "pause", "shop", "o1")
    async with feed(database, shop(version=2)) as feeding:
        await feeding.records(noted("later"))
        refused = await ask(feeding, "resume", "shop", "o1")
    assert refused.failed
    assert "stays paused: it follows a version of its pipeline that is not loaded here." in refused.sentence
    async with feed(database, shop(), shop(version=2)) as feeding:
        await feeding.commands()
        assert await status(reader) == "paused"
        await ask(feeding, "resume", "shop", "o1")
    (run,) = await list_runs(reader, "default")
    assert (run.status, run.context["notes"]) == ("running", ["later"])
    assert (await verify(reader, "default")).is_clean


async def test_a_run_that_waits_for_its_version_cannot_be_paused_nor_resumed(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await begin(feeding)
    async with feed(database, shop(version=2)) as feeding:
        await feeding.records(noted("later"))
        told = [await ask(feeding, what, "shop", "o1") for what in ("pause", "resume")]
    assert await status(reader) == "held"
    for one in told:
        assert one.failed
        assert (
            "it is held since row 2 because it follows a version of its pipeline that was not loaded"
            in one.sentence
        )


async def test_a_pause_is_told_by_every_command_that_looks(database: Database, reader: Connection) -> None:
    async with feed(database, shop(), errand()) as feeding:
        await begin(feeding)
        await begin(feeding, "o2")
        await ask(feeding, "pause", "shop", "o1", why="to look at it")
        await feeding.records(noted("first"))
        broken = event("order.broken", {"order_id": "o2"})
        await feeding.records(broken)
        found = {
            name: await list_runs(reader, "default", status=name) for name in ("paused", "held", "running")
        }
        assert {name: [one.key for one in runs] for name, runs in found.items()} == {
            "paused": ["o1"],
            "held": ["o2"],
            "running": [],
        }
        shown = await show(reader, "default", "shop", "o1", at_sequence=2)
        assert (shown.status, shown.command, shown.record) == (
            "paused",
            {"command": "pause", "who": "ana", "why": "to look at it"},
            None,
        )
        assert shown.as_json()["command"]["reason"] == "to look at it"
        assert (await show(reader, "default", "shop", "o1")).status == "paused"
        assert (await passages_of(reader, "default", "shop", "o1")).status == "paused"
        (waits,) = (await explain(reader, "default", event_id="first")).answers
        assert waits.current.disposition == "held"
        assert waits.current.sentence.startswith("It waits (row 3) behind a pause by ana at 2026-03-01")
        assert waits.current.sentence.endswith(
            "to look at it), which holds the run 'o1' of shop. To let the run go on: pointsman "
            "resume shop o1 --reason TEXT."
        )
        (pause,) = (await explain(reader, "default", event_id=(await rows_of(reader))[1])).answers
        assert pause.current.sentence.startswith("This is a pause by ana at 2026-03-01")
        assert pause.current.sentence.endswith("to look at it); it holds the run 'o1' of shop (row 2).")
        await ask(feeding, "resume", "shop", "o1", why="seen")
    (taken,) = (await explain(reader, "default", event_id="first")).answers
    assert taken.earlier[0].sentence.startswith("It waited (row 3) behind a pause by ana")
    assert "After it had waited until a resume by ana at 2026-03-01" in taken.current.sentence
    assert (await show(reader, "default", "shop", "o1", at_sequence=2)).status == "paused"
    assert (await show(reader, "default", "shop", "o1")).status == "running"


async def rows_of(reader: Connection) -> list[str]:
    return [row.event.id for row in await history(reader, "default", "shop", "o1")]


async def test_dead_letters_that_hold_nothing_are_redriven_behind_a_pause(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), errand()) as feeding:
        await begin(feeding)
        await feeding.records(event("order.shipped", {"order_id": "o1"}, id="early"))
        await ask(feeding, "pause", "shop", "o1")
        await feeding.redrive(1)
        assert await kinds(reader) == ["started", "paused", "waited"]
        await feeding.records(event("order.paid", PLACED))
        await ask(feeding, "resume", "shop", "o1")
    assert await status(reader) == "running"
    assert (await verify(reader, "default")).is_clean


async def test_what_holds_a_run_is_counted_as_paused_or_held(database: Database, reader: Connection) -> None:
    from engine.store.queries import load  # noqa: PLC0415 - as the metrics look it up

    async with feed(database, shop(), errand()) as feeding:
        for key in ("o1", "o2", "o3"):
            await begin(feeding, key)
        await ask(feeding, "pause", "shop", "o1")
        await feeding.records(event("order.broken", {"order_id": "o2"}))
        await ask_pipeline(feeding, "pause", "errand")
    rows = await reader.fetch(load("observing")["held_runs"], "default", int(Kind.PAUSED))
    assert sorted(map(tuple, rows)) == [("errand", 0, 0, True), ("shop", 2, 1, False)]
