"""What is read of events that wait for their run, of timers, of order, and of what runs send."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.reading import Answer, Explanation, explain, history, list_runs, show
from engine.reading.explain.words import decided
from engine.store.connecting import Connection
from statemachines import Event
from statemachines.durations import told_duration
from tests import files, journey
from tests.feeding import BEGINS, event, feed
from tests.files import MISSING_FOR
from tests.journey import LATEST, PAY_WITHIN, REMIND_AFTER, TOPIC, journey_pipeline, ledger_pipeline
from tests.services import Database
from tests.unit.early import door_pipeline, state_of


def told(kind: str, id: str | None = None, **data: Any) -> RawRecord:
    return event(f"journey.{kind}", {"journey": "j1", **data}, id=id, topic=TOPIC)


def seen(kind: str, id: str, **data: Any) -> RawRecord:
    return event(f"file.{kind}", {"file": "f1", **data}, id=id, topic=files.TOPIC)


async def only(reader: Connection, event_id: str) -> Answer:
    found = await explain(reader, "default", event_id=event_id)
    assert found.known, found.notes
    [answer] = found.answers
    return answer


async def nothing_came(reader: Connection, event_id: str) -> str:
    found = await explain(reader, "default", event_id=event_id)
    assert (found.known, found.answers) == (True, ())
    [note] = found.notes
    return note


def dispositions(answer: Answer) -> list[str]:
    return [one.disposition for one in (*answer.earlier, answer.current)]


async def effect_id(reader: Connection, what: str, event_type: str, key: str = "j1") -> str:
    """Of what a run has asked for last."""
    rows = await history(reader, "default", "journey", key)
    asked = itertools.chain.from_iterable(row.effects for row in rows)
    return str([one["id"] for one in asked if (one["what"], one["type"]) == (what, event_type)][-1])


async def test_a_deferred_event_tells_why_until_when_and_what_it_was_taken_after(
    database: Database, reader: Connection
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked", "booked"), told("boarded", "early"))
        waits = await only(reader, "early")
        assert waits.current.disposition == "deferred"
        assert waits.current.sentence == (
            "It was deferred (row 2 of the run 'j1' of journey, not accepted): booked has no transition for it. "
            "It waits until the run takes it; if that is not by 2026-03-02T12:00:01Z, it becomes a dead letter. "
            "The policy that decided: defer for 1 d, then dead_letter (unexpected of the pipeline)."
        )
        found = waits.as_json()
        assert (found["reason"], found["until"]) == ("not accepted", "2026-03-02T12:00:01Z")
        assert found["policy"] == "defer for 1 d, then dead_letter (unexpected of the pipeline)"
        await feeding.records(told("paid", "paid"))
    taken = await only(reader, "early")
    assert dispositions(taken) == ["deferred", "applied"]
    assert taken.earlier[0].sentence == (
        "It was deferred (row 2 of the run 'j1' of journey, not accepted): booked has no transition for it. "
        "The policy that decided: defer for 1 d, then dead_letter (unexpected of the pipeline)."
    )
    checked = await effect_id(reader, "send", "journey.checked")
    assert taken.current.sentence == (
        f"After it had been deferred since row 2 and journey.checked {checked!r} (row 6) had made way for it, it "
        "moved the run 'j1' of journey from ready to aboard (row 7)."
    )


async def test_an_event_that_waited_for_its_run_to_begin_is_told_as_its_beginning(
    database: Database, reader: Connection
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("paid", "early"))
        assert (await only(reader, "early")).current.reason == "no run"
        await feeding.records(told("booked"))
    taken = await only(reader, "early")
    assert dispositions(taken) == ["deferred", "applied"]
    assert "it moved the run 'j1' of journey from booked to paid (row 3)" in taken.current.sentence


async def test_what_waited_too_long_tells_its_fate(database: Database, reader: Connection) -> None:
    async with feed(database, journey_pipeline(), files.files()) as feeding:
        await feeding.records(told("paid", "early"))
        await feeding.records(seen("seen", "seen", version=1), seen("line", "third", line=3))
        waits = await only(reader, "third")
        assert waits.current.reason == "events before it are missing"
        assert "line is 3, and 1 has not come yet" in waits.current.sentence
        assert "it is ignored" in waits.current.sentence
        assert await feeding.due(BEGINS + timedelta(minutes=11)) == 1
    letter = await only(reader, "early")
    assert dispositions(letter) == ["deferred", "dead-lettered"]
    assert letter.current.sentence.startswith(
        "After it had been deferred since row 1, it could not be applied (dead letter 1, waited too long): it was "
        "deferred (no run), and nothing took it until its time to live ended. The policy that decided: its time to live"
    )
    ignored = await only(reader, "third")
    assert dispositions(ignored) == ["deferred", "ignored"]
    assert ignored.current.reason == "waited too long"
    assert ignored.current.sentence.startswith(
        "After it had been deferred since row 2, it was ignored (waited too long), as file says of such events: the "
        "run 'f1' of file did not take it in time. The policy that decided: its time to live ended at "
    )
    assert (BEGINS + MISSING_FOR).strftime("%H:%M") in ignored.current.policy


async def test_what_waited_for_a_run_that_ended_goes_on_to_the_next_generation(
    database: Database, reader: Connection
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked"), told("boarded", "early"))
        await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1))
        waits = await only(reader, "early")
        assert dispositions(waits) == ["deferred", "deferred", "deferred"]
        assert (waits.generation, waits.current.reason) == (1, "no run")
        assert waits.earlier[1].sentence.startswith(
            "It waits no longer for the run 'j1' of journey, which has ended"
        )
        await feeding.records(told("booked"), told("paid"))
    taken = await only(reader, "early")
    assert dispositions(taken) == ["deferred", "deferred", "deferred", "applied"]
    assert "generation 1 from ready to aboard" in taken.current.sentence


async def test_the_policies_that_had_an_event_begin_a_run_are_told(
    database: Database, reader: Connection
) -> None:
    class AnyBell(Event, type="bell.*", key="door"):
        door: str

    def come(*types: str) -> list[RawRecord]:
        return [event(one, {"door": "d1"}, id=f"{one} {next(numbers)}", topic="doors") for one in types]

    numbers, flow = itertools.count(1), door_pipeline(closed="restart")
    state_of(flow, "closed").on(AnyBell)
    flow.policy(AnyBell, no_run="start")
    async with feed(database, flow) as feeding:
        await feeding.records(*come("bell.rung", "door.shut", "door.made", "door.shut", "bell.struck"))
    closed, no_run = "restart (closed of the pipeline)", "start (no_run of the pipeline for bell.*)"
    rung = (await only(reader, "bell.rung 1")).current
    assert rung.sentence == (f"It started the run 'd1' of door, in closed (row 1). {decided(no_run)}")
    assert (rung.disposition, rung.as_json()["policy"]) == ("started", no_run)
    assert (await only(reader, "door.shut 2")).current.policy == ""
    made = (await only(reader, "door.made 3")).current
    assert made.sentence == (
        f"It started the run 'd1' of door, generation 1, in closed (row 1). {decided(closed)}"
    )
    assert (await only(reader, "bell.struck 5")).current.policy == f"{closed}, then {no_run}"


async def test_an_event_that_begins_a_run_which_is_waited_for_was_not_asked_for_a_policy(
    database: Database, reader: Connection
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked", "first"))
        await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1))
        await feeding.records(told("boarded", "early"), told("booked", "second"))
    assert (await only(reader, "first")).current.policy == ""
    second = (await only(reader, "second")).current
    assert (second.disposition, second.sequence, second.policy) == ("started", 2, "")


async def test_stale_events_and_duplicates_by_a_business_key_tell_what_came_before(
    database: Database, reader: Connection
) -> None:
    async with feed(database, files.files()) as feeding:
        await feeding.records(seen("seen", "v2", version=2), seen("seen", "v1", version=1))
        await feeding.records(seen("stored", "s1", object="o"), seen("mentioned", "m1", by="ana"))
        await feeding.records(seen("stored", "s2", object="o"), seen("mentioned", "m2", by="ana"))
        await feeding.records(seen("mentioned", "m3", by="bo"), seen("mentioned", "m4", by="ana"))
    stale = await only(reader, "v1")
    assert (stale.current.disposition, stale.current.reason) == ("stale", "older than what was applied")
    assert stale.current.sentence == (
        "It is stale, and was not applied to the run 'f1' of file: version is 1, and 2 was applied already. "
        "The policy that decided: order_by=version."
    )
    assert stale.current.as_json()["policy"] == "order_by=version"
    counts_for = told_duration(files.COUNTS_FOR)
    by_object, by_person = "duplicate_by=file, object", f"duplicate_by=by, duplicate_for={counts_for}"
    for again, first, row, policy in (
        ("s2", "s1", 2, by_object),
        ("m2", "m1", 3, by_person),
        ("m4", "m1", 3, by_person),
    ):
        double = await only(reader, again)
        assert double.current.disposition == "duplicate"
        assert (
            f"the run 'f1' of file has '{first}', an event with the same business key"
            in double.current.sentence
        )
        assert f"since row {row} (" in double.current.sentence
        assert double.current.sentence.endswith(f"The policy that decided: {policy}.")
        assert double.current.policy == policy
    async with feed(database, files.files()) as feeding:
        await feeding.records(seen("stored", "s1", object="o"))
    [_, same] = (await explain(reader, "default", event_id="s1")).answers
    assert "an event of this source and id since row 2" in same.current.sentence
    assert same.current.policy == "", "whatever its business key"


async def test_a_duplicate_of_what_an_earlier_generation_took_tells_that_one(
    database: Database, reader: Connection
) -> None:
    first = told("booked", "first")
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(first)
        await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1))
        await feeding.records(told("booked", "second"), first)
    found = await explain(reader, "default", event_id="first")
    assert [one.current.disposition for one in found.answers] == ["started", "duplicate"]
    assert "of its generation 0" in found.answers[1].current.sentence


async def test_a_timer_is_explained_before_it_fires_after_it_and_where_it_was_called_off(
    database: Database, reader: Connection
) -> None:
    async with feed(database, journey_pipeline(), ledger_pipeline()) as feeding:
        await feeding.records(told("booked"))
        rows = await history(reader, "default", "journey", "j1")
        timers = [one for one in rows[0].effects if one["what"] == "timer"]
        assert len(timers) == 2
        [pay_within] = [one for one in timers if one["due"] == "2026-03-01T12:05:01Z"]
        reminder = await effect_id(reader, "send", "journey.reminded")
        assert await nothing_came(reader, pay_within["id"]) == (
            "It is a timer of the run 'j1' of journey, set in row 1 (2026-03-01T12:00:01Z), due at "
            "2026-03-01T12:05:01Z. "
            "It has not come yet: it is due at 2026-03-01T12:05:01Z."
        )
        assert (await nothing_came(reader, reminder)).startswith(
            "The run 'j1' of journey sent it to itself in row 1"
        )
        await feeding.records(told("paid"))
        assert "It never came and never will" in await nothing_came(reader, reminder)
        await feeding.due(BEGINS + LATEST + timedelta(minutes=1))
    latest = next(one["id"] for one in timers if one["id"] != pay_within["id"])
    fired = await only(reader, latest)
    assert (fired.topic, fired.partition, fired.offset) == (None, None, None)
    assert fired.current.disposition == "applied"
    assert fired.origin is not None
    assert fired.origin.as_json() | {"sentence": ""} == {
        "sentence": "",
        "what": "timer",
        "pipeline": "journey",
        "key": "j1",
        "generation": 0,
        "sequence": 1,
        "at": "2026-03-01T12:00:01Z",
        "due": "2026-03-03T12:00:01Z",
        "step": None,
        "undoes": None,
    }
    assert "moved the run 'j1' of journey from ready to lapsed" in fired.current.sentence


async def test_an_event_of_a_run_to_itself_that_nothing_takes_is_told(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journey, "PAY_WITHIN", timedelta(days=1))
    async with feed(database, journey.journey_pipeline()) as feeding:
        await feeding.records(told("booked"))
        reminder = await effect_id(reader, "send", "journey.reminded")
        monkeypatch.setattr(journey, "remind_later", None)
        await feeding.due(BEGINS + REMIND_AFTER + timedelta(minutes=1))
    answer = await only(reader, reminder)
    assert answer.current.disposition == "applied"
    assert answer.sentences[0].startswith(
        "The run 'j1' of journey sent it to itself in row 1 (2026-03-01T12:00:01Z), due"
    )


async def test_an_event_to_another_run_is_told_in_the_inbox_and_where_it_arrived(
    database: Database, reader: Connection
) -> None:
    async with feed(database, journey_pipeline(), ledger_pipeline()) as feeding:
        await feeding.records(told("booked"), told("paid"), told("boarded"), told("arrived", "arrived"))
        sent = await effect_id(reader, "send", "ledger.counted")
        note = await nothing_came(reader, sent)
        assert note.startswith("The run 'j1' of journey sent it to the run 'all' of ledger in row 7 (")
        assert "It waits in the inbox since " in note
        assert "for the run 'all' of ledger, until an engine takes it that has ledger loaded." in note
        await feeding.commands()
    answer = await only(reader, sent)
    assert (answer.pipeline, answer.key, answer.current.disposition) == ("ledger", "all", "started")
    assert answer.source == "/pointsman/default/journey"
    assert answer.sentences == (
        "The run 'j1' of journey sent it to the run 'all' of ledger in row 7 (2026-03-01T12:00:01Z).",
        "It started the run 'all' of ledger, in open (row 1). " + decided("start (no_run of the pipeline)"),
    )


async def test_what_a_run_sends_later_is_told_when_it_has_left(
    database: Database, reader: Connection
) -> None:
    async with feed(database, files.files(), ledger_pipeline()) as feeding:
        await feeding.records(seen("seen", "v1", version=1), seen("announced", "announced"))
        [announced] = (await history(reader, "default", "file", "f1"))[-1:]
        published, sent = [str(one["id"]) for one in announced.effects]
        assert (await nothing_came(reader, published)).startswith(
            "The run 'f1' of file asked in row 2 (2026-03-01T12:00:01Z) to publish it to letters, due at 2026-03-01T12"
        )
        assert await feeding.due(BEGINS + timedelta(hours=1)) == 1
        await feeding.commands()
    assert (await only(reader, published)).current.sentence == (
        "It fell due and was published to letters (row 3 of the run 'f1' of file); it has another id there, which "
        "history tells."
    )
    gone = await only(reader, sent)
    assert gone.current.sentence.startswith(
        "It fell due and was sent to the run 'all' of ledger (row 4 of the run 'f1'"
    )
    rows = await history(reader, "default", "file", "f1")
    arrived = await only(reader, str(rows[-1].effects[0]["id"]))
    assert (arrived.pipeline, arrived.current.disposition) == ("ledger", "started")
    assert arrived.origin is not None
    assert (arrived.origin.pipeline, arrived.origin.sequence) == ("file", 4)


async def test_the_dead_letter_of_a_timer_is_told_with_what_became_of_it(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journey, "NOTED", None)
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("booked"))
        await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1))
        [row] = [
            one for one in await history(reader, "default", "journey", "j1") if one.event.kind == "held fired"
        ]
        held = await only(reader, row.event.id)
        assert (held.current.disposition, held.current.dead_letter, held.offset) == ("dead-lettered", 1, None)
        monkeypatch.undo()
        await feeding.redrive(1)
    again = await only(reader, row.event.id)
    assert dispositions(again) == ["dead-lettered", "applied"]
    assert again.origin is not None


async def test_history_and_show_have_what_waits_what_is_due_and_what_was_asked_for(
    database: Database, reader: Connection
) -> None:
    async with feed(database, journey_pipeline(), ledger_pipeline(), files.files()) as feeding:
        await feeding.records(told("booked"), told("boarded", "early"))
        await feeding.records(
            seen("seen", "v7", version=7), seen("mentioned", "m1", by="ana"), seen("line", "third", line=3)
        )
        now = await show(reader, "default", "journey", "j1")
        first = await show(reader, "default", "journey", "j1", at_sequence=1)
        assert (len(now.deferred), first.deferred) == (1, [])
        found = now.as_json()
        [deferred] = found["deferred"]
        assert (deferred["event_id"], deferred["sequence"], deferred["reason"]) == (
            "early",
            2,
            "not accepted",
        )
        assert found["deferral"] == deferred
        assert found["effects"] == [], "to let an event wait asks nothing of the world"
        assert [one["what"] for one in found["due"]] == ["send", "timer", "timer"]
        assert (found["due"][0]["type"], found["due"][0]["name"]) == ("journey.reminded", "reminder")
        assert [one["state"] for one in found["due"]] == [None, "booked", None]
        assert [one["due"] for one in found["due"]] == sorted(one["due"] for one in found["due"])
        asked = {one["id"] for one in first.row.effects}
        assert {one["id"] for one in found["due"]} == asked
        await feeding.records(told("paid"), told("arrived"))
        await feeding.commands()
        rows = await history(reader, "default", "journey", "j1")
        paid = next(row for row in rows if row.event.type == "journey.paid")
        assert [(one["what"], one["name"]) for one in paid.effects] == [
            ("cancel", "reminder"),
            ("send", None),
        ]
        assert paid.effects[0]["id"] is None
        fired = [row for row in rows if row.event.kind == "fired"]
        assert fired[0].event.id == paid.effects[1]["id"]
        assert {(row.event.source, row.event.topic) for row in fired} == {
            ("/pointsman/default/journey", None)
        }
        inner = await show(reader, "default", "journey", "j1", at_sequence=fired[0].sequence)
        assert (inner.command, inner.record is not None and inner.record.topic) == (None, "")
        file = (await show(reader, "default", "file", "f1")).as_json()
        assert file["marks"] == {"file.seen": 7}
        assert list(file["seen"]) == ['["file.mentioned","ana"]']
        assert [run.key for run in await list_runs(reader, "default", status="waiting")] == ["f1"]
        [waiting] = await list_runs(reader, "default", status="waiting")
        assert waiting.memory.due == []
        await feeding.records(seen("closed", "closed"))
    ended = await show(reader, "default", "file", "f1", 0)
    assert (ended.status, ended.memory.output) == ("completed", {"lines": 0})
    assert await list_runs(reader, "default", status="waiting") == [], "what waited was too late then"
    letters = await reader.fetch("select type, reason from pointsman.dead_letters")
    assert [tuple(one) for one in letters] == [("file.line", "run closed")]


async def test_a_run_that_is_only_waited_for_is_listed_as_expected(
    database: Database, reader: Connection
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(told("paid"))
    [run] = await list_runs(reader, "default", status="expected")
    assert run.as_json()["status"] == "expected"
    assert (await show(reader, "default", "journey", "j1")).status == "expected"
    assert [one.key for one in await list_runs(reader, "default", status="waiting")] == ["j1"]


def test_all_that_an_explanation_says_is_in_its_sentences() -> None:
    nothing = Explanation("default", "x", None, None, None, None, False, ("a note",), ())
    assert nothing.sentences == ("a note",)
