"""Events that operators send to runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.errors import UsageError
from engine.limits import EngineLimits
from engine.log import digest_number, digest_of
from engine.reading import (
    Answer,
    AskedOfRun,
    Done,
    NotFoundError,
    ask_send,
    choose_runs,
    end_told,
    explain,
    history,
    list_dead_letters,
    list_runs,
    replay,
    send_to_runs,
    show,
    verify,
    wait_until_done,
)
from engine.store.connecting import Connection, connect
from engine.store.contract import RefusedByStoreError
from engine.store.values import Commit
from statemachines.machine import compile_pipeline
from tests.errand import errand
from tests.feeding import Clock, event, feed
from tests.integration.test_starts_stored import came
from tests.operators import ask, send
from tests.services import Database, execute
from tests.shop import OrderNoted, shop
from tests.ward import ward

PLACED = {"order_id": "o1", "amount": 5}
WHO: dict[str, Any] = {"who": "ana", "why": "the customer called"}


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Connection]:
    connection = await connect(database.engine_dsn, for_engine=False)
    yield connection
    await connection.close()


async def check_books(reader: Connection) -> None:
    """Nothing is wrong with what is stored, and replayed it comes out equal."""
    found = await verify(reader, "default")
    assert found.is_clean, found.findings
    replayed = await replay(reader, "default", [compile_pipeline(shop())])
    assert replayed.is_equal, replayed.mismatches


async def explained(reader: Connection, event_id: str) -> Answer:
    (answer,) = (await explain(reader, "default", event_id=event_id)).answers
    return answer


async def test_an_event_that_is_sent_begins_and_moves_a_run_as_one_from_a_topic(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        begun = await send(feeding, "shop", "o1", "order.placed", PLACED)
        moved = await send(feeding, "shop", "o1", "order.paid", PLACED, id="paid-1", why="paid in cash.")
    assert begun.as_json() == {
        "command": "send",
        "pipeline": "shop",
        "key": "o1",
        "event_id": begun.asked.event_id,
        "taken": True,
        "done": True,
        "disposition": "started",
        "dead_letter": None,
        "sentence": "It started the run 'o1' of shop, in placed (row 1).",
        "generation": 0,
        "sequence": 1,
        "configuration": ["placed"],
    }
    assert moved.disposition == "applied"
    assert moved.sentence.startswith("It moved the run 'o1' of shop from placed to paid (row 2).")
    answer = await explained(reader, "paid-1")
    assert answer.source == "/pointsman/default/operators"
    assert answer.sender is not None
    assert answer.sender.sentence.startswith("ana sent it at 20")
    assert answer.sender.sentence.endswith(": paid in cash.")
    assert answer.sentences[0] == answer.sender.sentence
    shown = await show(reader, "default", "shop", "o1")
    assert shown.record is not None
    assert b'"who":"ana","why":"paid in cash."' in (shown.record.value or b"")
    assert [row.event.kind for row in await history(reader, "default", "shop", "o1")] == ["started", "moved"]
    await check_books(reader)


async def test_the_same_id_is_a_duplicate_and_what_it_was_first_is_not_told_again(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await send(feeding, "shop", "o1", "order.placed", PLACED, id="once")
        again = await send(feeding, "shop", "o1", "order.placed", PLACED, id="once")
        other = await feeding.records(event("order.placed", PLACED, id="once"))
    assert other
    assert (again.disposition, again.failed) == ("duplicate", False)
    assert (
        "It is a duplicate: the run 'o1' of shop has an event of this source and id since row 1"
        in again.sentence
    )
    assert "started" not in again.sentence
    answers = (
        await explain(reader, "default", event_id="once", source="/pointsman/default/operators")
    ).answers
    assert [one.disposition for one in (answers[0].current,)] == ["started"]
    await check_books(reader)


async def test_what_fails_is_a_dead_letter_that_holds_the_run_and_can_be_redriven(
    database: Database, reader: Connection, broken: set[str]
) -> None:
    async with feed(database, shop()) as feeding:
        await send(feeding, "shop", "o1", "order.placed", PLACED)
        failed = await send(feeding, "shop", "o1", "order.broken", {"order_id": "o1"}, id="b1")
        waits = await send(feeding, "shop", "o1", "order.paid", PLACED, id="p1")
        await check_books(reader)
        broken.clear()
        await feeding.redrive(1)
    assert (failed.disposition, failed.dead_letter, failed.failed) == ("dead-lettered", 1, True)
    assert "dead letter 1, action raised" in failed.sentence
    assert (waits.disposition, waits.failed) == ("held", False)
    assert "behind event 'b1'" in waits.sentence
    (run,) = await list_runs(reader, "default")
    assert (run.configuration, run.context["notes"], run.waiting) == (["paid"], ["mended"], 0)
    sender = (await explained(reader, "b1")).sender
    assert sender is not None
    assert (sender.who, sender.why) == ("ana", "the customer called")
    assert (await verify(reader, "default")).is_clean


async def test_what_no_run_takes_meets_the_policies_and_what_is_invalid_is_a_dead_letter(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), errand()) as feeding:
        no_run = await send(feeding, "shop", "o1", "order.paid", PLACED)
        invalid = await send(feeding, "shop", "o2", "order.placed", {"order_id": "o2", "amount": "much"})
        await send(feeding, "errand", "e1", "errand.given", {"errand": "e1"})
        early = await send(feeding, "errand", "e1", "errand.forgotten", {"errand": "e1"}, id="early")
    assert (no_run.disposition, no_run.failed) == ("dead-lettered", True)
    assert "no run" in no_run.sentence
    assert (invalid.failed, "invalid data" in invalid.sentence) == (True, True)
    assert (early.disposition, early.failed) == ("deferred", False)
    assert [one.reason for one in await list_dead_letters(reader, "default")] == ["invalid data", "no run"]
    assert (await verify(reader, "default")).is_clean


async def test_data_that_is_not_valid_is_refused_and_holds_nothing(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await send(feeding, "shop", "o1", "order.placed", PLACED)
        typo = await send(feeding, "shop", "o1", "order.paid", PLACED | {"amount": "x"}, id="paid-1")
        await ask(feeding, "pause", "shop", "o1")
        behind = await send(feeding, "shop", "o1", "order.paid", [])
        await ask(feeding, "resume", "shop", "o1")
        paid = await send(feeding, "shop", "o1", "order.paid", PLACED, id="paid-1")
        again = await send(feeding, "shop", "o1", "order.paid", [], id="paid-1")
        await check_books(reader)
    for refused in (typo, behind):
        assert (refused.is_invalid, refused.failed, refused.disposition) == (True, True, "dead-lettered")
    assert "invalid data): amount: Input should be a valid integer" in typo.sentence
    assert "It holds no run: later events go on without it." in typo.sentence
    assert "It is open" not in typo.sentence
    assert (paid.disposition, again.disposition, again.is_invalid) == ("applied", "duplicate", False)
    assert {one.status for one in await list_dead_letters(reader, "default")} == {"dropped"}
    rows = await history(reader, "default", "shop", "o1")
    assert [row.event.kind for row in rows] == ["started", "paused", "released", "moved"]


async def test_a_place_in_the_order_that_cannot_be_read_is_no_valid_data(
    database: Database, reader: Connection
) -> None:
    flow = shop()
    flow.policy(OrderNoted, order_by="text")
    async with feed(database, flow) as feeding:
        await send(feeding, "shop", "o1", "order.placed", PLACED)
        strange = await send(feeding, "shop", "o1", "order.noted", {"order_id": "o1", "text": "seven"})
        noted = await send(feeding, "shop", "o1", "order.noted", {"order_id": "o1", "text": "7"})
    assert (strange.is_invalid, "text" in strange.sentence, noted.disposition) == (True, True, "applied")


async def test_what_nobody_takes_is_over_once_its_sender_was_told_and_is_explained_as_ever(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        no_run = await send(feeding, "shop", "o1", "order.paid", PLACED, id="early")
        await send(feeding, "shop", "o2", "order.placed", {"order_id": "o2", "amount": 5})
        for what in ("paid", "shipped"):
            await send(feeding, "shop", "o2", f"order.{what}", {"order_id": "o2", "amount": 5})
        closed = await send(feeding, "shop", "o2", "order.paid", {"order_id": "o2", "amount": 5})
        await send(feeding, "shop", "o1", "order.placed", PLACED)
        await feeding.redrive(1, 2)
        await check_books(reader)
    assert (no_run.disposition, closed.disposition) == ("dead-lettered", "late")
    letters = await list_dead_letters(reader, "default")
    assert [(one.reason, one.status) for one in letters] == [("run closed", "dropped"), ("no run", "dropped")]
    (run,) = await list_runs(reader, "default", key="o1")
    assert run.configuration == ["placed"]
    told = await explained(reader, "early")
    assert (told.current.disposition, told.current.reason) == ("dead-lettered", "no run")
    assert "The policy that decided: dead_letter (no_run of the pipeline)." in told.current.sentence
    assert "Dropped by ana at 20" in told.current.sentence
    assert told.current.sentence.endswith(": its sender was told.")


async def ask_paid(engine: Connection, event_id: str, data: bytes) -> AskedOfRun:
    return await ask_send(engine, "default", "shop", "o1", "order.paid", data, event_id=event_id, **WHO)


async def hears(engine: Connection, asked: AskedOfRun) -> Done:
    """Its sender asks once what became of it."""
    (done,) = await wait_until_done(engine, "default", [asked], seconds=0)
    await end_told(engine, [done], who="ana")
    return done


@pytest.mark.parametrize("ahead", [-1, 1])
async def test_what_is_refused_and_its_sender_never_hears_is_open_and_holds_nothing(
    database: Database, reader: Connection, engine: Connection, ahead: int
) -> None:
    clock = Clock(datetime.now(UTC) + timedelta(hours=ahead))
    async with feed(database, shop(), clock=clock) as feeding:
        no_run = await ask_paid(engine, "early", b'{"order_id":"o1","amount":5}')
        unheard = await hears(engine, no_run)
        await feeding.commands()
        await feeding.records(event("order.placed", PLACED))
        await ask_paid(engine, "typo", b"[]")
        await feeding.commands()
        await check_books(reader)
    assert (unheard.taken, unheard.failed) == (False, False)
    letters = await list_dead_letters(reader, "default")
    assert {(one.event_id, one.status) for one in letters} == {("early", "open"), ("typo", "open")}
    assert "It is open: " in (await explained(reader, "typo")).current.sentence
    (run,) = await list_runs(reader, "default")
    assert (run.status, run.held) == ("running", None)


@pytest.mark.parametrize("begun", [False, True])
async def test_what_its_sender_did_not_hear_of_is_over_once_that_asked_again_by_its_id(
    database: Database, reader: Connection, engine: Connection, begun: bool
) -> None:
    paid = b'{"order_id":"o1","amount":5}'
    async with feed(database, shop()) as feeding:
        unheard = await hears(engine, await ask_paid(engine, "early", paid))
        await ask_paid(engine, "other", paid)
        await feeding.commands()
        if begun:
            await feeding.records(event("order.placed", PLACED))
        asked = await ask_paid(engine, "early", paid)
        await feeding.commands()
        heard = await hears(engine, asked)
        await check_books(reader)
    assert (unheard.taken, heard.taken, heard.failed) == (False, True, not begun)
    letters = await list_dead_letters(reader, "default")
    assert {(one.event_id, one.status) for one in letters} == {("early", "dropped"), ("other", "open")}
    assert len(letters) == (2 if begun else 3)


async def ask_to_begin(engine: Connection, event_id: str) -> AskedOfRun:
    """Begin a run of the ward, which no start does for so little pain."""
    data = b'{"patient":"p1","pain":3}'
    return await ask_send(
        engine, "default", "ward", "p1", "patient.came", data, event_id=event_id, begins=True, **WHO
    )


async def test_what_its_sender_did_not_hear_of_is_over_once_that_is_told_that_the_run_goes_on_already(
    database: Database, reader: Connection, engine: Connection
) -> None:
    async with feed(database, ward()) as feeding:
        await ask_to_begin(engine, "early")
        await ask_to_begin(engine, "other")
        for _ in range(2):
            await feeding.commands()
        await feeding.records(came("severe", pain=9))
        asked = await ask_to_begin(engine, "early")
        await feeding.commands()
        heard = await hears(engine, asked)
    assert (heard.failed, "goes on already" in heard.sentence, heard.before) == (True, True, (1,))
    letters = await list_dead_letters(reader, "default")
    assert {(one.event_id, one.status) for one in letters} == {("early", "dropped"), ("other", "open")}


async def test_what_its_sender_did_not_hear_of_is_over_once_that_is_told_that_the_run_has_moved(
    database: Database, reader: Connection, engine: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await ask_paid(engine, "early", b'{"order_id":"o1","amount":5}')
        await feeding.commands()
        await feeding.records(event("order.placed", PLACED))
        chosen = await choose_runs(engine, "default", "send", pipeline="shop")
        await feeding.records(event("order.paid", PLACED))
        asked = await send_to_runs(engine, "default", chosen, "order.shipped", None, event_id="early", **WHO)
        await feeding.commands()
        (heard,) = await wait_until_done(engine, "default", asked, seconds=0)
    assert (heard.failed, "has moved since it was chosen" in heard.sentence) == (True, True)
    assert heard.before == (1,)


async def test_what_its_sender_did_not_hear_of_is_over_where_the_next_answer_is_of_an_engine_whose_clock_is_behind(
    database: Database, reader: Connection, engine: Connection
) -> None:
    now = datetime.now(UTC)
    async with (
        feed(database, ward(), clock=Clock(now)) as first,
        feed(database, ward(), clock=Clock(now - timedelta(seconds=30))) as second,
    ):
        await ask_to_begin(engine, "early")
        await first.commands()
        asked = await ask_to_begin(engine, "early")
        await second.commands()
        await hears(engine, asked)
    letters = await list_dead_letters(reader, "default")
    assert [one.status for one in letters] == ["dropped", "dropped"]


MANY = 20_000
SENT_TO_MANY = """
    insert into pointsman.operations (command, pipeline, key, what, event_id, done, answer, who, why, asked, at)
    select n, $1, 'k' || n, 'send', 'once', true, '', 'ana', '', now(), now() from generate_series(1, $2::int) n
"""
LETTERS_OF_MANY = """
    insert into pointsman.dead_letters (namespace, pipeline, key, event_id, type, disposition, reason, error, details,
        record_time, record_headers, at)
    select 'default', $1, 'other' || n, 'once', '', 0, '', '', '', 0, '', now() from generate_series(1, $2::int) n
"""


@pytest.mark.parametrize("letters", [0, MANY])
async def test_of_very_many_events_of_one_id_it_is_soon_told_what_became_of_them(
    database: Database, owner: Connection, engine: Connection, letters: int
) -> None:
    async with feed(database, shop()) as feeding:
        [route] = feeding.topics.pipelines
    await owner.execute(SENT_TO_MANY, route.pipeline, MANY)
    await owner.execute(LETTERS_OF_MANY, route.pipeline, letters)
    await engine.execute("set statement_timeout = '10s'")
    asked = [AskedOfRun(n, "send", "shop", f"k{n}", "once") for n in range(1, MANY + 1)]
    became = await wait_until_done(engine, "default", asked, seconds=0)
    assert {(one.done, one.before) for one in became} == {(True, ())}


async def test_what_is_committed_once_its_sender_waits_no_more_is_open(
    database: Database, reader: Connection, engine: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, shop()) as feeding:
        asked = await ask_paid(engine, "early", b'{"order_id":"o1","amount":5}')
        commit, heard = feeding.store.commit, list[Done]()

        async def late(one: Commit) -> int | None:
            heard.append(await hears(engine, asked))
            return await commit(one)

        monkeypatch.setattr(feeding.store, "commit", late)
        await feeding.commands()
    assert [one.taken for one in heard] == [False]
    (letter,) = await list_dead_letters(reader, "default")
    assert letter.status == "open"


async def test_an_answer_that_is_heard_while_its_dead_letter_is_redriven_ends_it_once(
    database: Database, reader: Connection, engine: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, shop()) as feeding:
        asked = await ask_paid(engine, "early", b'{"order_id":"o1","amount":5}')
        again = await ask_paid(engine, "again", b'{"order_id":"o1","amount":5}')
        await feeding.commands()
        await feeding.records(event("order.placed", PLACED))
        commit, heard = feeding.store.commit, list[Done]()

        async def after_the_answer(one: Commit) -> int | None:
            if not heard:
                heard.append(await hears(engine, asked))
            return await commit(one)

        monkeypatch.setattr(feeding.store, "commit", after_the_answer)
        await feeding.redrive(1)
        (run,) = await list_runs(reader, "default")
        assert run.configuration == ["placed"]
        answered = await wait_until_done(engine, "default", [again], seconds=0)
        await feeding.redrive(2)
        await end_told(engine, answered, who="ana")
        await check_books(reader)
    assert [one.dead_letter for one in (*heard, *answered)] == [1, 2]
    letters = await list_dead_letters(reader, "default")
    assert {one.id: one.status for one in letters} == {1: "dropped", 2: "redriven"}
    (run,) = await list_runs(reader, "default")
    assert run.configuration == ["paid"]


async def test_the_answer_is_of_what_was_sent_and_not_of_what_a_topic_has_under_its_id(
    database: Database, reader: Connection, engine: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where very many are sent, whose answers are in brief.
    monkeypatch.setattr("engine.reading.operating.EXPLAINED_MAX", 0)
    async with feed(database, shop()) as feeding:
        asked = await ask_paid(engine, "early", b'{"order_id":"o1","amount":5}')
        await feeding.commands()
        await feeding.records(event("order.paid", PLACED, id="early"))
        heard = await hears(engine, asked)
        assert heard.dead_letter == 1
        await end_told(engine, [replace(heard, dead_letter=2)], who="ana")
        await check_books(reader)
    letters = await list_dead_letters(reader, "default")
    assert {one.id: one.status for one in letters} == {1: "dropped", 2: "open"}


async def test_what_was_ignored_says_who_has_sent_it(database: Database, reader: Connection) -> None:
    async with feed(database, shop(unexpected="ignore")) as feeding:
        await send(feeding, "shop", "o1", "order.placed", PLACED)
        ignored = await send(feeding, "shop", "o1", "order.shipped", {"order_id": "o1"}, id="early")
    assert ignored.disposition == "ignored"
    sender = (await explained(reader, "early")).sender
    assert sender is not None
    assert (sender.who, sender.why) == ("ana", "the customer called")


async def test_what_an_engine_that_is_loaded_does_not_know_is_a_dead_letter(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(version=2)):
        pass
    older = shop()
    older.moves = [one for one in older.moves if one.event_type != "order.noted"]
    async with feed(database, older) as feeding:
        await send(feeding, "shop", "o1", "order.placed", PLACED)
        unknown = await send(feeding, "shop", "o1", "order.noted", {"order_id": "o1"})
    assert (unknown.disposition, unknown.failed) == ("dead-lettered", True)
    assert "shop knows no type 'order.noted'; ana has sent the event" in unknown.sentence
    (letter,) = await list_dead_letters(reader, "default")
    assert letter.reason == "unknown type"


async def test_what_ended_an_engine_twice_is_a_dead_letter(database: Database, reader: Connection) -> None:
    digest = digest_number(digest_of("/pointsman/default/operators", "stuck"))
    async with feed(database, shop()) as feeding:
        await send(feeding, "shop", "o1", "order.placed", PLACED)
        await execute(
            database.owner_dsn, f"insert into pointsman.strikes values (0, {digest}, 2, 'pay', now())"
        )
        stuck = await send(feeding, "shop", "o1", "order.paid", PLACED, id="stuck")
    assert stuck.failed
    assert "handler never returned" in stuck.sentence
    await check_books(reader)


async def test_what_no_engine_took_up_waits_and_says_so(
    database: Database, reader: Connection, engine: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        asked = await ask_send(
            engine,
            "default",
            "shop",
            "o1",
            "order.placed",
            b'{"order_id":"o1","amount":5}',
            event_id="e1",
            **WHO,
        )
        pending = await explain(reader, "default", event_id="e1")
        assert pending.known
        (sentence,) = pending.notes
        assert sentence.startswith("ana sent it at 20")
        assert sentence.endswith(
            "It waits in the inbox for the run 'o1' of shop, until an engine takes it that has shop loaded."
        )
        # Not every JSON is a text for Postgres, and one may speak of another's id.
        said = rb'{"order_id":"o2","amount":5,"note":"a\u0000b","event_id":"e1"}'
        await ask_send(engine, "default", "shop", "o2", "order.placed", said, event_id="e2", **WHO)
        for event_id, key in (("e1", "o1"), ("e2", "o2")):
            (sentence,) = (await explain(reader, "default", event_id=event_id)).notes
            assert f"for the run {key!r} of shop" in sentence
        await feeding.commands()
        await feeding.commands()
    assert asked.event_id == "e1"
    assert (await explained(reader, "e1")).current.disposition == "started"


async def test_what_cannot_be_sent_is_refused_before_anything_is_done(
    database: Database, reader: Connection, engine: Connection
) -> None:
    async with feed(database, shop()):
        pass

    async def refused(pipeline: str, key: str, event_type: str, data: bytes | None, **more: str) -> str:
        with pytest.raises((UsageError, NotFoundError)) as raised:
            await ask_send(engine, "default", pipeline, key, event_type, data, **(WHO | more))
        return str(raised.value)

    assert "Did you mean 'shop'?" in await refused("shp", "o1", "order.paid", None)
    assert "knows the type 'order.paidd'. Did you mean 'order.paid'?" in await refused(
        "shop", "o1", "order.paidd", None
    )
    assert "knows the type 'error.execution'" in await refused("shop", "o1", "error.execution", None)
    assert "no JSON" in await refused("shop", "o1", "order.paid", b"{")
    assert "1,000,002 bytes" in await refused("shop", "o1", "order.paid", b'"' + b"x" * 1_000_000 + b'"')
    assert "is for the run 'o2', by its field 'order_id', and not for 'o1'" in await refused(
        "shop", "o1", "order.paid", b'{"order_id": "o2"}'
    )
    assert "no run's key" in await refused("shop", "", "order.paid", None)
    assert "no run's key" in await refused("shop", "x\0", "order.paid", None)
    assert "no event: " in await refused("shop", "o1", "order.paid", None, event_id="x" * 600)
    assert "Say why" in await refused("shop", "o1", "order.paid", None, why=" ")
    assert await reader.fetchval("select count(*) from pointsman.inbox") == 0


async def test_what_the_store_does_not_take_is_a_dead_letter(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, shop(), limits=EngineLimits()) as feeding:
        commit, calls = feeding.store.commit, 0

        async def refuse_first(one: Commit) -> int | None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise RefusedByStoreError("it has no place for it")
            return await commit(one)

        monkeypatch.setattr(feeding.store, "commit", refuse_first)
        refused = await send(feeding, "shop", "o1", "order.placed", PLACED)
    assert (refused.failed, "refused by store" in refused.sentence) == (True, True)
    assert await list_runs(reader, "default") == []
