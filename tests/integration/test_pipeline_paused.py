"""Whole pipelines, paused while others on the same topics go on: what comes is kept in order, and nothing begins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.homes import HOMES
from engine.reading import (
    explain,
    history,
    list_dead_letters,
    list_pauses,
    list_runs,
    replay,
    show,
    verify,
    wait_until_taken,
)
from engine.session.timers import Due
from engine.store import writing
from engine.store.connecting import Connection
from engine.store.values import Commit
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.effects import Send
from statemachines.machine import compile_pipeline
from tests.errand import TOPIC as ERRANDS
from tests.errand import errand
from tests.feeding import BEGINS, TOPIC, Feeding, event, feed
from tests.operators import ask, ask_pipeline, send
from tests.saga import TOPIC as SAGAS
from tests.saga import World, clear, saga_pipeline
from tests.services import Database, execute
from tests.shop import OrderNoted, OrderPlaced, shop


class Count(Context):
    notes: int = 0


def counts() -> Pipeline[Count]:
    """Reads what the shop reads, and counts notes; each of them is told to the shop once more."""
    flow = Pipeline("counts", Count, topics=[TOPIC])
    going = flow.state("going", initial=True)
    flow.start(OrderPlaced, lambda _event: Count())
    going.on(OrderNoted, do=count)
    return flow


def count(counted: Count, event: OrderNoted) -> Send | None:
    counted.notes += 1
    if event.text != "tell":
        return None
    told = OrderNoted(order_id=event.order_id, text="told")
    return Send(told, to=event.order_id, pipeline="shop")


def placed(key: str = "o1") -> RawRecord:
    return event("order.placed", {"order_id": key, "amount": 5})


def noted(text: str, key: str = "o1") -> RawRecord:
    return event("order.noted", {"order_id": key, "text": text}, id=f"{key}-{text}")


async def kinds(reader: Connection, pipeline: str = "shop", key: str = "o1") -> list[str]:
    return [row.event.kind for row in await history(reader, "default", pipeline, key)]


async def notes(reader: Connection, key: str = "o1") -> tuple[str, Any]:
    (run,) = await list_runs(reader, "default", pipeline="shop", key=key)
    return run.status, run.context and run.context["notes"]


async def check_books(reader: Connection, *pipelines: Pipeline[Any]) -> None:
    found = await verify(reader, "default")
    assert found.is_clean, found.findings
    replayed = await replay(reader, "default", [compile_pipeline(one) for one in pipelines])
    assert replayed.is_equal, replayed.mismatches


async def drain(feeding: Feeding, reader: Connection) -> None:
    """Take up all that is in the inbox."""
    while await reader.fetchval("select exists (select from pointsman.inbox)"):
        await feeding.commands()


async def test_what_comes_waits_in_order_while_other_pipelines_of_the_topic_go_on(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), counts()) as feeding:
        await feeding.records(placed())
        done = await ask_pipeline(feeding, "pause", "shop", why="its prices are wrong")
        assert done.done
        assert done.sentence == (
            "shop is paused: what comes for its runs waits, of which at most 1,000 events of one run may, no timer "
            "fires and no step begins. To let it go on: pointsman resume --pipeline shop --reason TEXT."
        )
        first = noted("first")
        await feeding.records(first, noted("second"), placed("o2"), noted("third", "o2"), first)
        assert await notes(reader) == ("paused", [])
        (one, two) = await list_runs(reader, "default", pipeline="counts")
        assert [one.context["notes"], two.context["notes"]] == [1, 2]
        assert await kinds(reader) == ["started", "paused", "waited", "waited"]
        assert await kinds(reader, key="o2") == ["deferred", "paused", "waited"]
        assert await notes(reader, "o2") == ("paused", None)
        await check_books(reader, shop(), counts())
    # Also in engines that begin now.
    async with feed(database, shop(), counts()) as feeding:
        await feeding.records(noted("fourth"), placed("o3"))
        assert await kinds(reader, key="o3") == ["deferred", "paused"]
        done = await ask_pipeline(feeding, "resume", "shop")
        assert done.sentence == ("shop goes on; runs for which something has waited, one after the other.")
        # What comes meanwhile comes behind the rest.
        await feeding.records(noted("fifth"), noted("sixth", "o2"))
        await drain(feeding, reader)
        await feeding.records(noted("last"))
    assert await notes(reader) == ("running", ["first", "second", "fourth", "fifth", "last"])
    assert await notes(reader, "o2") == ("running", ["third", "sixth"])
    assert await notes(reader, "o3") == ("running", [])
    assert (await kinds(reader, key="o2"))[3:] == [
        "waited",
        "released",
        "left deferred",
        "started",
        "moved after wait",
        "moved after wait",
    ]
    await check_books(reader, shop(), counts())


async def test_what_comes_again_holds_nothing(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        begins = placed()
        await feeding.records(begins)
        await ask_pipeline(feeding, "pause", "shop")
        await feeding.records(begins)
        # Nobody would take it, paused or not.
        await feeding.records(event("order.shipped", {"order_id": "o9"}, id="too-early"))
    assert await kinds(reader) == ["started"]
    (early,) = (await explain(reader, "default", event_id="too-early")).answers
    assert early.current.reason == "no run"
    await check_books(reader, shop())


async def test_what_a_batch_has_of_one_run_stays_in_order(database: Database, reader: Connection) -> None:
    async with feed(database, shop(no_run="defer")) as feeding:
        await ask_pipeline(feeding, "pause", "shop")
        await feeding.records(noted("early"), placed(), noted("late"))
        found = [(row.event.kind, row.event.type) for row in await history(reader, "default", "shop", "o1")]
        assert found == [
            ("deferred", "order.noted"),
            ("paused", "pointsman.pause_pipeline"),
            ("waited", "order.placed"),
            ("waited", "order.noted"),
        ]
        await ask_pipeline(feeding, "resume", "shop")
        await drain(feeding, reader)
    assert await notes(reader) == ("running", ["early", "late"])
    await check_books(reader, shop(no_run="defer"))


async def test_the_next_run_of_a_key_waits_until_its_pipeline_goes_on(
    database: Database, reader: Connection
) -> None:
    pipeline = shop(closed="restart")
    async with feed(database, pipeline) as feeding:
        await feeding.records(placed(), event("order.paid", {"order_id": "o1", "amount": 5}))
        await feeding.records(event("order.shipped", {"order_id": "o1"}))
        await ask_pipeline(feeding, "pause", "shop")
        await feeding.records(placed(), noted("of the next"))
        found = await show(reader, "default", "shop", "o1")
        assert (found.generation, found.status, found.waiting) == (1, "paused", 2)
        await check_books(reader, pipeline)
        await ask_pipeline(feeding, "resume", "shop")
        await drain(feeding, reader)
    found = await show(reader, "default", "shop", "o1")
    assert (found.generation, found.status, found.context["notes"]) == (1, "running", ["of the next"])
    await check_books(reader, pipeline)


async def test_what_is_expected_already_is_held_and_begins_by_what_waited(
    database: Database, reader: Connection
) -> None:
    pipeline = shop(no_run="defer")
    async with feed(database, pipeline) as feeding:
        await feeding.records(noted("early"))
        await ask_pipeline(feeding, "pause", "shop")
        await feeding.records(placed(), noted("late"))
        assert await kinds(reader) == ["deferred", "paused", "waited", "waited"]
        await check_books(reader, pipeline)
        await ask_pipeline(feeding, "resume", "shop")
        await drain(feeding, reader)
    assert await notes(reader) == ("running", ["early", "late"])
    assert (await kinds(reader))[4:7] == ["released", "left waiting", "started"]
    await check_books(reader, pipeline)


async def test_a_run_that_has_not_begun_begins_by_the_version_that_is_loaded_then(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await ask_pipeline(feeding, "pause", "shop")
        await feeding.records(placed(), placed("o2"), noted("early", "o2"))
    async with feed(database, shop(version=2)) as feeding:
        # It waits in the inbox, before what lets both runs go on.
        assert not (await ask(feeding, "resume", "shop", "o2")).taken
        await ask_pipeline(feeding, "resume", "shop")
        await drain(feeding, reader)
    assert await notes(reader) == ("running", [])
    assert await notes(reader, "o2") == ("running", ["early"])
    for key in ("o1", "o2"):
        assert (await show(reader, "default", "shop", key)).version == 2
    answer = await reader.fetchval("select answer from pointsman.operations where what = 'resume'")
    assert answer == "The run 'o2' of shop goes on (row 4); 1 events had waited."
    await check_books(reader, shop(), shop(version=2))


async def test_what_holds_or_pauses_one_run_alone_stays_when_its_pipeline_goes_on(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed(), placed("o2"))
        await ask(feeding, "pause", "shop", "o1")
        await feeding.records(event("order.broken", {"order_id": "o2"}))
        await ask_pipeline(feeding, "pause", "shop")
        await feeding.records(noted("first"), noted("second", "o2"))
        await ask_pipeline(feeding, "resume", "shop")
        await drain(feeding, reader)
        assert [await notes(reader, key) for key in ("o1", "o2")] == [("paused", []), ("held", [])]
        await ask(feeding, "resume", "shop", "o1")
        await feeding.drop(1)
    assert [await notes(reader, key) for key in ("o1", "o2")] == [
        ("running", ["first"]),
        ("running", ["second"]),
    ]
    await check_books(reader, shop())


async def test_a_run_that_is_to_be_paused_for_itself_stays_so_when_its_pipeline_goes_on(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed())
        await ask_pipeline(feeding, "pause", "shop")
        await feeding.records(noted("first"))
        # Both wait in the inbox, before what lets the run go on.
        assert not (await ask(feeding, "pause", "shop", "o1")).taken
        await ask_pipeline(feeding, "resume", "shop")
        await drain(feeding, reader)
        assert await notes(reader) == ("paused", [])
        assert (await ask(feeding, "resume", "shop", "o1")).done
    assert await notes(reader) == ("running", ["first"])
    assert await kinds(reader) == ["started", "paused", "waited", "paused", "released", "moved after wait"]
    await check_books(reader, shop())


async def test_a_command_that_was_found_before_it_was_heard_of_the_pause_waits_too(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding, feed(database, shop()) as other:
        await feeding.records(placed(), event("order.broken", {"order_id": "o1"}), noted("first"))
        put = "insert into pointsman.inbox (namespace, pipeline, command, body, who, why) "
        body = """'{"dead_letter": 1}'"""
        await execute(database.owner_dsn, put + f"values ('default', 1, 'drop', {body}, 'ana', 'x')")
        other.inbox.wanted.set()
        assert await other.inbox.look()
        # Without its taking up what the other one has found.
        await execute(
            database.owner_dsn,
            "insert into pointsman.pauses (pipeline, command, who, why, at) values (1, 99, 'ana', 'x', now())",
        )
        await other.committer.learn_pauses()
        await other.inbox.work()
        assert await notes(reader) == ("held", [])
        await ask_pipeline(feeding, "resume", "shop")
        await drain(feeding, reader)
    assert await notes(reader) == ("running", ["first"])


PUT = """
    insert into pointsman.inbox (namespace, pipeline, command, body, who, why)
    values ('default', $1, $2, convert_to($3, 'UTF8'), 'ana', 'a look')
"""


PAUSE = (
    "insert into pointsman.pauses (pipeline, command, who, why, at) values ($1, 99, 'ana', 'a look', now())"
)


async def test_a_command_that_was_found_beside_the_pause_waits_too(
    database: Database, reader: Connection, owner: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed())
        [route] = feeding.topics.pipelines
        await owner.execute(PUT, route.pipeline, "pause_pipeline", '{"key": ""}')
        await owner.execute(PUT, route.pipeline, "cancel", '{"key": "o1"}')
        await feeding.commands()
        assert await reader.fetch("select command from pointsman.inbox") == [("cancel",)]
        assert await kinds(reader) == ["started"]
        await ask_pipeline(feeding, "resume", "shop")
        await drain(feeding, reader)
    assert await kinds(reader) == ["started", "cancelled"]


async def test_a_command_that_is_lost_to_the_pause_waits_too(
    database: Database, reader: Connection, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, shop()) as feeding, feed(database, shop()) as other:
        await feeding.records(placed())
        [route] = feeding.topics.pipelines
        await owner.execute(PUT, route.pipeline, "cancel", '{"key": "o1"}')
        feeding.let_go()
        commit = feeding.store.commit

        async def late(one: Commit) -> int | None:
            monkeypatch.undo()
            await owner.execute(PAUSE, route.pipeline)
            await other.committer.learn_pauses()
            await other.records(noted("meanwhile"))
            return await commit(one)

        monkeypatch.setattr(feeding.store, "commit", late)
        await feeding.commands()
        assert await reader.fetch("select command from pointsman.inbox") == [("cancel",)]
        assert await kinds(reader) == ["started", "paused", "waited"]
        await ask_pipeline(feeding, "resume", "shop")
        await drain(feeding, reader)
    assert "cancelled" in await kinds(reader)


async def test_commands_and_events_of_other_runs_wait_in_the_inbox_and_stop_nobody_else(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), counts()) as feeding:
        await feeding.records(placed(), noted("lost", "o9"))
        await ask_pipeline(feeding, "pause", "shop")
        await feeding.records(noted("tell"))
        sent = await send(feeding, "shop", "o1", "order.noted", {"order_id": "o1", "text": "sent"})
        assert not sent.taken
        assert sent.sentence == (
            "shop is paused, and the send waits in the inbox until that goes on: pointsman resume --pipeline shop "
            "--reason TEXT. Nothing need be done again."
        )
        assert not (await ask(feeding, "cancel", "shop", "o1")).taken
        (told,) = (await history(reader, "default", "counts", "o1"))[-1].effects
        for event_id in (sent.asked.event_id, told["id"]):
            (note,) = (await explain(reader, "default", event_id=event_id)).notes
            assert note.endswith(
                "until shop goes on, which is paused: pointsman resume --pipeline shop --reason TEXT."
            )
        assert (await ask(feeding, "pause", "counts", "o1")).done
        (lost,) = await list_dead_letters(reader, "default", pipeline="shop")
        dropped = await feeding.drop(lost.id)
        (became,) = await wait_until_taken(reader, "default", dropped, seconds=0)
        assert became.sentence.startswith(
            "shop is paused, and the drop waits in the inbox until that goes on: "
        )
        assert await reader.fetchval("select count(*) from pointsman.inbox") == 4
        assert (await ask_pipeline(feeding, "resume", "shop")).done
        await drain(feeding, reader)
    (run,) = await list_runs(reader, "default", pipeline="shop")
    assert run.status == "cancelled", "whatever holds it, and before what had waited"
    for event_id in ("o1-tell", sent.asked.event_id):
        (late,) = [
            one
            for one in (await explain(reader, "default", event_id=event_id)).answers
            if one.pipeline == "shop"
        ]
        assert late.current.disposition == "late"
    assert (await verify(reader, "default")).is_clean


async def due_now(feeding: Feeding) -> list[Due]:
    """As the engine's timers find it."""
    (route,) = feeding.topics[ERRANDS].routes
    now = feeding.clock.now
    found = await feeding.store.due_runs(range(HOMES), {route.pipeline: now}, list(route.machines), 100)
    return [Due(route, one.key, one.generation, one.sequence, now, one.run) for one in found]


async def test_no_timer_fires_and_nothing_expires_until_it_goes_on(
    database: Database, reader: Connection
) -> None:
    async with feed(database, errand()) as feeding:
        for kind in ("given", "begun", "forgotten"):
            await feeding.records(event(f"errand.{kind}", {"errand": "e1"}, topic=ERRANDS))
        feeding.clock.now = BEGINS + timedelta(hours=1)
        due = await due_now(feeding)
        assert due
        await ask_pipeline(feeding, "pause", "errand")
        before = await kinds(reader, "errand", "e1")
        # What was found before, and is only taken up now.
        draft = await feeding.committer.draft(None)
        await feeding.committer.extend_due(draft, due)
        assert draft.is_empty
        assert await feeding.due(BEGINS + timedelta(hours=1)) == 0
        assert await kinds(reader, "errand", "e1") == before
        await ask_pipeline(feeding, "resume", "errand")
        await drain(feeding, reader)
        assert await feeding.due(BEGINS + timedelta(hours=1)) > 0
    await check_books(reader, errand())


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


async def test_no_step_begins_and_what_becomes_of_one_that_goes_on_waits(
    database: Database, reader: Connection, world: World
) -> None:
    told = [event("order.placed", {"order": key}, topic=SAGAS) for key in ("o1", "o2")]
    going = asyncio.Event()

    async def waits() -> None:
        going.set()
        await release.wait()

    release = asyncio.Event()
    world.script["charge"] = [waits]
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told[0])
        await feeding.begin_steps()
        await asyncio.wait_for(going.wait(), 60)
        await ask_pipeline(feeding, "pause", "saga")
        release.set()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        assert await feeding.take_results()
        await feeding.records(told[1])
        for _ in range(2):
            feeding.steps.turned.clear()
            await asyncio.wait_for(feeding.steps.turned.wait(), 60)
        assert world.steps() == ["charge"]
        assert await kinds(reader, "saga") == ["started", "paused", "waited"]
        assert await kinds(reader, "saga", "o2") == ["deferred", "paused"]
        await check_books(reader, saga_pipeline())
        await ask_pipeline(feeding, "resume", "saga")
        await drain(feeding, reader)
        await feeding.steps.close()
        await feeding.work()
    assert sorted(world.steps()) == sorted(["charge", "reserve", "ship"] * 2)
    await check_books(reader, saga_pipeline())


async def test_a_step_that_is_asked_for_begins_once_its_pipeline_goes_on(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(event("order.placed", {"order": "o1"}, topic=SAGAS))
        await ask_pipeline(feeding, "pause", "saga")
        await feeding.begin_steps()
        feeding.steps.turned.clear()
        await asyncio.wait_for(feeding.steps.turned.wait(), 60)
        assert (
            await reader.fetchval("select count(*) from pointsman.executions where holder is not null") == 0
        )
        await feeding.steps.close()
        await ask_pipeline(feeding, "resume", "saga")
        await feeding.work()
    assert world.steps() == ["charge", "reserve", "ship"]


async def test_who_has_not_heard_of_a_resume_holds_nothing_for_the_pause_that_has_ended(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding, feed(database, shop()) as other:
        await feeding.records(placed(), placed("o2"))
        await ask_pipeline(feeding, "pause", "shop")
        await other.committer.learn_pauses()
        assert other.committer.paused
        await ask_pipeline(feeding, "resume", "shop")
        await drain(feeding, reader)
        feeding.let_go()
        slow = other.committer
        draft = await slow.draft(None)
        claim = await other.claim(_partition())
        record = noted("first")._replace(offset=claim.read_to)
        await slow.extend(draft, [_slice(claim, record)])
        batch: Batch = slow.finish(draft)
        assert batch.commit.under_pauses
        pending = slow.begin(draft.slices, batch)
        assert not await slow.settle(pending), "it was computed again"
    assert await notes(reader) == ("running", ["first"])
    assert "paused" not in await kinds(reader)
    await check_books(reader, shop())


def _partition() -> Any:
    from connectors.source import Partition  # noqa: PLC0415 - of this test alone

    return Partition(TOPIC, 0)


def _slice(claim: Any, record: RawRecord) -> Any:
    from engine.session.claims import Slice  # noqa: PLC0415 - of this test alone

    return Slice(claim, [record], record.offset, record.offset + 1)


async def test_asking_twice_changes_nothing(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        assert (await ask_pipeline(feeding, "resume", "shop")).sentence == (
            "shop is not paused: nothing was to be done."
        )
        await ask_pipeline(feeding, "pause", "shop", why="once")
        again = await ask_pipeline(feeding, "pause", "shop", why="twice")
        assert again.done
        assert again.sentence.startswith("shop is paused already: by ana at 2026-03-01T12:00:")
        assert again.sentence.endswith(", once.")
        (pause,) = await list_pauses(reader, "default")
        assert (pause.pipeline, pause.who, pause.why) == ("shop", "ana", "once")
        assert await list_pauses(reader, "default", pipeline="other") == []
        await ask_pipeline(feeding, "resume", "shop")
        assert await list_pauses(reader, "default") == []
    rows = await reader.fetch("select what, key, done, who, why from pointsman.operations order by command")
    assert [row["what"] for row in rows] == [
        "resume_pipeline",
        "pause_pipeline",
        "pause_pipeline",
        "resume_pipeline",
    ]


async def test_many_runs_are_released_in_several_transactions_each_of_them_once(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "RELEASED_AT_ONCE_MAX", 2)
    async with feed(database, shop()) as feeding:
        await feeding.records(*(placed(f"o{one}") for one in range(5)))
        await ask_pipeline(feeding, "pause", "shop")
        await feeding.records(*(noted("first", f"o{one}") for one in range(5)))
        # Paused again while the first two were asked to go on.
        await ask_pipeline(feeding, "resume", "shop")
        await ask_pipeline(feeding, "pause", "shop")
        await feeding.commands()
        await ask_pipeline(feeding, "resume", "shop")
        await drain(feeding, reader)
    for one in range(5):
        assert await notes(reader, f"o{one}") == ("running", ["first"])
    await check_books(reader, shop())


async def test_explain_tells_what_an_event_waits_for(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(placed())
        await ask_pipeline(feeding, "pause", "shop", why="its prices are wrong")
        begins = event("order.placed", {"order_id": "o2", "amount": 5}, id="begins")
        await feeding.records(noted("first"), begins)
        (waits,) = (await explain(reader, "default", event_id="o1-first")).answers
        assert waits.current.sentence.startswith(
            "It waits (row 3) behind a pause of its pipeline by ana at 2026-03-01"
        )
        assert waits.current.sentence.endswith(
            "wrong), which holds the run 'o1' of shop. To let it go on: pointsman resume --pipeline shop --reason TEXT."
        )
        shown = await show(reader, "default", "shop", "o1", at_sequence=2)
        assert shown.as_json()["command"] == {
            "command": "pause_pipeline",
            "who": "ana",
            "reason": "its prices are wrong",
            "mapping": None,
        }
        (deferred,) = (await explain(reader, "default", event_id="begins")).answers
        assert "its pipeline is paused" in deferred.current.sentence
        assert deferred.current.sentence.endswith(
            "To let it go on: pointsman resume --pipeline shop --reason TEXT."
        )
