"""Starts under a condition, in a real Postgres: what is told of events that none of them took, and replayed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.reading import Answer, explain, history, replay, verify
from engine.reading.way import passages_of
from engine.store.connecting import Connection
from statemachines import Defer, following
from statemachines.definition import Pipeline
from statemachines.machine import compile_pipeline
from statemachines.way import find_way
from tests.feeding import Feeding, event, feed
from tests.operators import ask_pipeline, send
from tests.services import Database
from tests.ward import TOPIC, Came, ward

HOUR = Defer(timedelta(hours=1), then="ignore")

TRIED = (
    "Tried in this order: to begin in bed if hurts, which did not hold; to begin in waiting if is_referred, which did "
    "not hold."
)


def came(id: str, patient: str = "p1", **data: Any) -> RawRecord:
    return event("patient.came", {"patient": patient, **data}, id=id, topic=TOPIC)


def treated(id: str) -> RawRecord:
    return event("patient.treated", {"patient": "p1"}, id=id, topic=TOPIC)


async def only(reader: Connection, event_id: str) -> Answer:
    (found,) = (await explain(reader, "default", event_id=event_id)).answers
    return found


async def check_books(reader: Connection, *pipelines: Pipeline[Any]) -> None:
    found = await verify(reader, "default")
    assert found.is_clean, found.findings
    replayed = await replay(reader, "default", [compile_pipeline(one) for one in pipelines])
    assert replayed.is_equal, replayed.mismatches


async def test_an_event_that_no_start_took_tells_each_condition_that_did_not_hold(
    database: Database, reader: Connection
) -> None:
    async with feed(database, ward()) as feeding:
        await feeding.records(came("mild", pain=3), came("severe", pain=9))
    answer = await only(reader, "mild")
    assert (answer.current.disposition, answer.current.reason) == ("dead-lettered", "no run")
    assert [(one.source, one.target, one.guard) for one in answer.current.tried] == [
        ("[*]", "bed", "hurts"),
        ("[*]", "waiting", "is_referred"),
    ]
    assert answer.current.sentence.startswith(
        "It could not be applied (dead letter 1, no run): no run has the key 'p1'; no condition of the starts on such "
        f"events held. {TRIED} The policy that decided: dead_letter (no_run of the pipeline)."
    )
    severe = await only(reader, "severe")
    assert severe.current.sentence.startswith("It started the run 'p1' of ward, in bed (row 1).")
    assert [row.event.kind for row in await history(reader, "default", "ward", "p1")] == ["started"]
    found = await passages_of(reader, "default", "ward", "p1")
    flow = ward()
    assert list(find_way(compile_pipeline(flow), found.passages).starts) == [flow.starts[0]]
    await check_books(reader, ward())


async def test_one_that_is_ignored_and_one_that_waits_tell_the_same(
    database: Database, reader: Connection
) -> None:
    ignoring, waiting = ward(no_run="ignore"), ward(no_run="defer")
    waiting.name = "patient"
    async with feed(database, ignoring, waiting) as feeding:
        await feeding.records(came("mild", pain=3))
        told = {one.pipeline: one for one in (await explain(reader, "default", event_id="mild")).answers}
        assert told["ward"].current.sentence == (
            "It was ignored (no run), as ward says of such events: ward has no run with the key 'p1', and this event "
            f"starts none, as no condition of its starts held. {TRIED} The policy that decided: ignore (no_run of the "
            "pipeline)."
        )
        assert TRIED in told["patient"].current.sentence
        assert told["patient"].current.disposition == "deferred"
        await feeding.records(came("severe", pain=9))
    kinds = [row.event.kind for row in await history(reader, "default", "patient", "p1")]
    assert kinds == ["deferred", "started"], "bed has no transition for it, so that it goes on waiting"
    await check_books(reader, ignoring, waiting)


@pytest.mark.parametrize("closed", ["restart", "dead_letter"])
async def test_the_next_run_of_a_key_begins_under_a_condition(
    database: Database, reader: Connection, closed: Any
) -> None:
    flow = ward(closed=closed)
    async with feed(database, flow) as feeding:
        await feeding.records(
            came("first", pain=9), treated("end"), came("mild", pain=3), came("next", pain=8)
        )
    mild, following = (await only(reader, "mild")).current, (await only(reader, "next")).current
    if closed == "restart":
        assert mild.reason == "no run"
        assert TRIED in mild.sentence
        assert following.sentence == (
            "It started the run 'p1' of ward, generation 1, in bed (row 1). It asked for 1 event to be published to "
            "announcements. The policy that decided: restart (closed of the pipeline)."
        )
    else:
        assert (mild.disposition, following.disposition) == ("late", "late")
        assert mild.tried == ()
    await check_books(reader, flow)


async def test_a_run_that_may_have_begun_by_a_policy_or_a_start_is_told_so(
    database: Database, reader: Connection
) -> None:
    flow = ward(no_run="start")
    async with feed(database, flow) as feeding:
        await feeding.records(came("mild", pain=3))
    assert (await only(reader, "mild")).current.sentence == (
        "It started the run 'p1' of ward, in waiting (row 1). The policy that decided: start (no_run of the pipeline), "
        "unless a condition of its starts held."
    )
    await check_books(reader, flow)


@pytest.mark.parametrize(("no_run", "told"), [("dead_letter", "dead-lettered"), ("ignore", "ignored")])
async def test_what_waited_for_a_paused_pipeline_alone_meets_no_run_once_that_goes_on(
    database: Database, reader: Connection, no_run: Any, told: str
) -> None:
    flow = ward(no_run=no_run)
    async with feed(database, flow) as feeding:
        await ask_pipeline(feeding, "pause", "ward")
        await feeding.records(came("mild", pain=3), came("severe", pain=9), came("alone", "p2"))
        await ask_pipeline(feeding, "resume", "ward")
        while await reader.fetchval("select exists (select from pointsman.inbox)"):
            await feeding.commands()
        for event_id in ("mild", "alone"):
            answer = (await only(reader, event_id)).current
            assert (answer.disposition, answer.reason) == (told, "no run")
            assert TRIED in answer.sentence
        assert (await only(reader, "severe")).current.disposition == "started"
        await check_books(reader, flow)


async def pause_and_go_on(feeding: Feeding, reader: Connection, *records: RawRecord) -> None:
    await ask_pipeline(feeding, "pause", "ward")
    await feeding.records(*records)
    await ask_pipeline(feeding, "resume", "ward")
    while await reader.fetchval("select exists (select from pointsman.inbox)"):
        await feeding.commands()


async def test_resume_is_named_only_as_long_as_the_pipeline_is_paused(
    database: Database, reader: Connection
) -> None:
    async with feed(database, ward()) as feeding:
        await ask_pipeline(feeding, "pause", "ward")
        await feeding.records(came("mild", pain=3))
        assert (
            "To let it go on: pointsman resume --pipeline ward"
            in (await only(reader, "mild")).current.sentence
        )
        await ask_pipeline(feeding, "resume", "ward")
        answer = (await only(reader, "mild")).current
        assert answer.reason == "pipeline paused", "the command that lets its run go on is in the inbox still"
        assert "resume" not in answer.sentence


def taking_less(unexpected: Any) -> Pipeline[Any]:
    """Events that no start takes begin a run, which has no transition for them."""
    flow = ward(no_run="start", unexpected=unexpected)
    flow.moves[:] = [one for one in flow.moves if one.event is not Came]
    return flow


@pytest.mark.parametrize(
    ("flow", "reason"),
    [(ward(no_run=HOUR), "no run"), (taking_less(HOUR), "not accepted")],
    ids=["no run", "not accepted"],
)
async def test_what_waited_for_a_paused_pipeline_waits_as_its_own_policy_says_once_that_goes_on(
    database: Database, reader: Connection, flow: Pipeline[Any], reason: str
) -> None:
    async with feed(database, flow) as feeding:
        await pause_and_go_on(feeding, reader, came("mild", pain=3))
        answer = (await only(reader, "mild")).current
        assert (answer.disposition, answer.reason) == ("deferred", reason)
        assert answer.until is not None
        assert answer.until - answer.at == HOUR.ttl
        await check_books(reader, flow)
        await feeding.due(answer.until)
        assert (await only(reader, "mild")).current.disposition == "ignored"
        await check_books(reader, flow)


@pytest.mark.parametrize(("unexpected", "told"), [("dead_letter", "dead-lettered"), ("ignore", "ignored")])
async def test_what_waited_for_a_paused_pipeline_is_final_where_the_run_that_would_begin_does_not_take_it(
    database: Database, reader: Connection, unexpected: Any, told: str
) -> None:
    flow = taking_less(unexpected)
    async with feed(database, flow) as feeding:
        await pause_and_go_on(feeding, reader, came("mild", pain=3))
        answer = (await only(reader, "mild")).current
        assert (answer.disposition, answer.reason) == (told, "not accepted")
        await check_books(reader, flow)


@pytest.mark.parametrize(
    "flow",
    [ward(no_run=HOUR), taking_less(HOUR), taking_less("dead_letter")],
    ids=["no run", "not accepted", "dead letter"],
)
async def test_a_log_in_which_it_waited_on_for_the_pipeline_verifies_and_replays(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch, flow: Pipeline[Any]
) -> None:
    async with feed(database, flow) as feeding:
        with monkeypatch.context() as earlier:
            earlier.setattr(following, "_still_waits", lambda *_: True)
            await pause_and_go_on(feeding, reader, came("mild", pain=3), came("alone", "p2"))
            await feeding.records(came("later", pain=4))
            assert (await only(reader, "mild")).current.reason == "pipeline paused"
            await feeding.due(feeding.clock.now + timedelta(hours=2))
            assert (await only(reader, "later")).current.disposition != "deferred"
            await feeding.due(feeding.clock.now + timedelta(days=31))
        assert (await only(reader, "mild")).current.reason == "waited too long"
        await check_books(reader, flow)


async def test_whoever_sends_an_event_that_begins_nothing_is_told_why(
    database: Database, reader: Connection
) -> None:
    async with feed(database, ward()) as feeding:
        done = await send(feeding, "ward", "p1", "patient.came", {"patient": "p1", "pain": 3})
        assert "no condition of the starts on such events held" in done.sentence
        await check_books(reader, ward())
