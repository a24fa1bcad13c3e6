"""Dead letters listed, shown, and asked to be redriven or dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from engine.errors import UsageError
from engine.reading import (
    NotFoundError,
    ask_drop,
    ask_redrive,
    asking,
    count_dead_letters,
    explain,
    list_dead_letters,
    list_runs,
    show_dead_letter,
    wait_until_taken,
)
from engine.reading.asking import EXPLAINED_MAX
from engine.store.connecting import Connection, connect
from statemachines.definition import Topic
from tests.cli import pointsman
from tests.feeding import event, feed, raw
from tests.integration.test_cli_run import reader_on
from tests.services import Database
from tests.shop import shop

PLACED = event("order.placed", {"order_id": "o1", "amount": 5}, id="placed-1")
BROKEN_1 = event("order.broken", {"order_id": "o1"}, id="broken-1")
PAID = event("order.paid", {"order_id": "o1", "amount": 5}, id="paid-1")


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Connection]:
    connection = await connect(database.engine_dsn, for_engine=False)
    yield connection
    await connection.close()


async def test_dead_letters_are_listed_with_the_documented_fields(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, raw(b"\xff"), BROKEN_1)
    newest, oldest = await list_dead_letters(reader, "default")
    assert newest.as_json() == {
        "id": 2,
        "reason": "action raised",
        "error": newest.error,
        "topic": "orders",
        "partition": 0,
        "offset": 2,
        "pipeline": "shop",
        "key": "o1",
        "event_id": "broken-1",
        "type": "order.broken",
        "status": "open",
        "publishing": "pending",
        "at": "2026-03-01T12:00:01Z",
    }
    assert newest.error.startswith("breaks raised ValueError: order o1 cannot be mended")
    assert (oldest.id, oldest.pipeline, oldest.key, oldest.reason) == (1, None, None, "unreadable")


async def test_those_that_are_open_are_listed_unless_others_are_asked_for(
    database: Database, reader: Connection
) -> None:
    on = {**reader_on(database), "NAMESPACE": "default"}
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, raw(b"\xff"), raw(b"\xfe"), BROKEN_1)
        await feeding.drop(1)
        assert await count_dead_letters(reader, "default") == {"open": 2, "dropped": 1}
        assert await count_dead_letters(reader, "default", pipeline="shop") == {"open": 1}
        with pytest.raises(UsageError, match="There is no reason 'no-run'"):
            await count_dead_letters(reader, "default", reason="no-run")

        def ask(*words: str) -> tuple[list[int], str]:
            told = pointsman("dead-letters", "list", *words, "--json", on=on)
            assert pointsman("dead-letters", "list", *words, on=on).err == told.err
            return [one["id"] for one in told.json], told.err

        others = "Others: 1 dropped. --all lists them, too; --status NAME lists those alone.\n"
        assert ask() == ([3, 2], others)
        assert ask("--limit", "1") == ([3], f"The first 1 open dead letters; --limit 0 shows all.\n{others}")
        assert ask("--key", "o1") == ([3], "")
        assert ask("--all") == ([3, 2, 1], "")
        assert ask("--status", "dropped") == ([1], "")
        assert ask("--status", "resolved") == ([], "No dead letters.\n")
        await feeding.drop(2, 3)
        assert ask() == ([], f"No open dead letters.\n{others.replace('1', '3')}")
    both = pointsman("dead-letters", "list", "--all", "--status", "open", on=on)
    assert (both.code, "Give --all or --status, not both." in both.err) == (2, True)


async def test_dead_letters_are_filtered(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, raw(b"\xff"), BROKEN_1)
        await feeding.drop(1)

    async def ids(**filters: str) -> list[int]:
        found = await list_dead_letters(reader, "default", **filters)  # type: ignore[arg-type]  # by name
        return [letter.id for letter in found]

    assert await ids(status="open") == [2]
    assert await ids(status="dropped") == [1]
    assert await ids(reason="unreadable") == [1]
    assert await ids(pipeline="shop") == [2]
    assert await ids(key="o1") == [2]
    assert await ids(topic="orders") == [2, 1]
    assert await ids(topic="other") == []
    assert await ids(event_id="broken-1") == [2]
    assert len(await list_dead_letters(reader, "default", limit=1)) == 1
    assert await list_dead_letters(reader, "other", limit=0) == []
    with pytest.raises(UsageError, match=r"no reason 'unreadble'. Did you mean 'unreadable'"):
        await ids(reason="unreadble")
    with pytest.raises(UsageError, match="no status"):
        await ids(status="closed")


async def test_a_dead_letter_is_shown_with_its_record_and_what_it_holds(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, raw(b"\xff", key=b"k", headers=[("h", b"v")]), BROKEN_1, PAID)
    holder = (await show_dead_letter(reader, "default", 2)).as_json()
    assert (holder["holds"], holder["waiting"], holder["sequence"], holder["generation"]) == (True, 1, 2, 0)
    unreadable = (await show_dead_letter(reader, "default", 1)).as_json()
    assert unreadable["holds"] is False
    assert unreadable["record"] == {
        "topic": "orders",
        "partition": 0,
        "offset": 1,
        "time": "2026-03-01T12:00:00Z",
        "key": "k",
        "key_base64": None,
        "headers": [{"name": "h", "value": "v", "value_base64": None}],
        "value": None,
        "value_base64": "/w==",
    }
    with pytest.raises(NotFoundError, match="no dead letter 9"):
        await show_dead_letter(reader, "default", 9)
    with pytest.raises(NotFoundError, match="no dead letter 1"):
        await show_dead_letter(reader, "other", 1)


async def test_what_was_tried_is_shown(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, event("order.paid", {"order_id": "o1", "amount": 0}))
    details = (await show_dead_letter(reader, "default", 1)).details
    assert details == [
        {"source": "placed", "target": "paid", "guard": "covers"},
        {"source": "placed", "target": None, "guard": "is_part"},
    ]


async def test_a_redrive_is_taken_up_once_and_tells_what_became_of_it(
    database: Database, engine: Connection, reader: Connection, broken: set[str]
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, BROKEN_1, PAID)
        broken.clear()
        asked = await ask_redrive(engine, "default", [1, 7], who="ana", why="mended")
        assert asked.as_json() == {
            "command": "redrive",
            "asked": [1],
            "skipped": [{"id": 7, "reason": "there is no such dead letter"}],
        }
        [waits] = await wait_until_taken(reader, "default", asked, seconds=0)
        assert not waits.taken
        assert "No engine took the redrive up yet" in waits.sentence
        await feeding.commands()
        [became] = await wait_until_taken(reader, "default", asked, seconds=5)
        again = await ask_redrive(engine, "default", [1], who="ana", why="mended")
    assert (became.taken, became.status, became.disposition) == (True, "redriven", "applied")
    assert became.sentence == "The run 'o1' of shop took it and stayed in placed (row 5)."
    assert again.commands == ()
    assert again.skipped == ((1, "it is redriven already"),)
    [run] = await list_runs(reader, "default")
    assert (run.status, run.configuration, run.sequence, run.waiting) == ("running", ["paid"], 6, 0)


async def test_asking_twice_before_it_is_taken_up_changes_nothing_the_second_time(
    database: Database, engine: Connection, reader: Connection, broken: set[str]
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, BROKEN_1)
        broken.clear()
        first = await ask_redrive(engine, "default", [1], who="ana", why="mended")
        second = await ask_drop(engine, "default", [1], who="bob", why="not wanted")
        await feeding.commands()
        became = [
            *await wait_until_taken(reader, "default", first, seconds=5),
            *await wait_until_taken(reader, "default", second, seconds=5),
        ]
    assert [(one.status, one.failed) for one in became] == [("redriven", False), ("redriven", True)]
    assert became[1].sentence == (
        "It was redriven before an engine took the drop up, which changed nothing. " + became[0].sentence
    )
    [run] = await list_runs(reader, "default")
    assert run.sequence == 4


async def test_asking_the_same_twice_before_it_is_taken_up_is_done_both_times(
    database: Database, engine: Connection, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, BROKEN_1)
        both = [await ask_drop(engine, "default", [1], who="ana", why="not wanted") for _ in range(2)]
        late = await ask_redrive(engine, "default", [1], who="bob", why="mended")
        await feeding.commands()
        dropped = [
            one for asked in both for one in await wait_until_taken(reader, "default", asked, seconds=5)
        ]
        [became] = await wait_until_taken(reader, "default", late, seconds=5)
    assert [(one.status, one.failed) for one in dropped] == [("dropped", False)] * 2
    assert (became.taken, became.status, became.failed) == (True, "dropped", True)
    assert became.sentence.startswith("It was dropped before an engine took the redrive up")
    same, other, none = [
        await ask(engine, "default", [number], who="ana", why="once more")
        for ask, number in ((ask_drop, 1), (ask_redrive, 1), (ask_drop, 77))
    ]
    assert [one.is_refused for one in (same, other, none)] == [False, True, True]


async def test_several_are_taken_up_in_the_order_of_their_numbers(
    database: Database, engine: Connection, reader: Connection, broken: set[str]
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(
            *(event("order.noted", {"order_id": "o1", "text": str(number)}) for number in range(3)), PLACED
        )
        asked = await ask_redrive(engine, "default", [3, 1, 2, 2], who="ana", why="it is there now")
        await feeding.commands()
        became = await wait_until_taken(reader, "default", asked, seconds=5)
    assert [(one.id, one.disposition) for one in became] == [(1, "applied"), (2, "applied"), (3, "applied")]
    [run] = await list_runs(reader, "default")
    assert run.context["notes"] == ["0", "1", "2"]


async def test_what_became_of_many_is_told_without_a_look_at_the_log_for_each(
    database: Database, engine: Connection, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = EXPLAINED_MAX + 1
    monkeypatch.setattr(asking, "explain", None)
    async with feed(database, shop()) as feeding:
        await feeding.records(
            *(event("order.noted", {"order_id": f"o{number}", "text": "n"}) for number in range(many)), PLACED
        )
        asked = await ask_redrive(engine, "default", range(1, many + 1), who="ana", why="one is there now")
        waits = await wait_until_taken(reader, "default", asked, seconds=0)
        await feeding.commands()
        became = await wait_until_taken(reader, "default", asked, seconds=5)
    assert {(one.taken, one.failed) for one in waits} == {(False, False)}
    [done] = [one for one in became if not one.failed]
    assert (done.id, done.status, done.disposition, done.sentence) == (2, "redriven", None, "It is redriven.")
    again = {(one.status, one.disposition) for one in became if one.failed}
    assert (len(became), again) == (many, {("redriven", "dead-lettered")})


async def test_a_redrive_that_no_engine_can_carry_out_says_so(
    database: Database, engine: Connection, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(raw(b"\xff", topic="orders"))
    async with feed(database, shop(name="other", topic=None)) as feeding:
        del feeding.topics["orders"]
        asked = await ask_redrive(engine, "default", [1], who="ana", why="mended")
        await feeding.commands()
        [became] = await wait_until_taken(reader, "default", asked, seconds=5)
    assert (became.taken, became.status) == (True, "open")
    assert "could not carry it out" in became.sentence


async def test_who_and_why_must_be_said(database: Database, engine: Connection) -> None:
    with pytest.raises(UsageError, match="Say why"):
        await ask_redrive(engine, "default", [1], who="ana", why=" ")
    with pytest.raises(UsageError, match="Say who"):
        await ask_drop(engine, "default", [1], who="", why="x")


async def test_the_reader_may_not_ask(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(raw(b"\xff"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ask_drop(reader, "default", [1], who="ana", why="x")


async def test_a_dead_letter_whose_type_is_ignored_by_now_is_ignored_when_it_is_redriven(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(event("weather.changed", {}, id="rain"))
    async with feed(database, shop(topic=Topic("orders", unknown="ignore"))) as feeding:
        await feeding.redrive(1)
    [answer] = (await explain(reader, "default", event_id="rain")).answers
    assert answer.current.disposition == "ignored"
    assert [one.dead_letter for one in answer.earlier] == [1]


async def test_what_holds_a_run_is_left_open_where_the_version_that_the_run_follows_is_not_loaded(
    database: Database, engine: Connection, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, BROKEN_1, PAID)
    async with feed(database, shop(version=2)) as feeding:
        asked = await feeding.drop(1)
    [became] = await wait_until_taken(reader, "default", asked, seconds=5)
    assert (became.taken, became.status) == (True, "open")
    [run] = await list_runs(reader, "default")
    assert (run.status, run.waiting) == ("held", 1)
    async with feed(database, shop()) as feeding:
        await feeding.drop(1)
    [run] = await list_runs(reader, "default")
    assert (run.status, run.waiting, run.configuration) == ("running", 0, ["paid"])


async def test_what_concerns_all_pipelines_is_put_back_by_the_group_that_read_it(
    database: Database, engine: Connection, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(raw(b"\xff"))
    async with feed(database, shop(name="other"), group="another") as stranger:
        asked = await stranger.drop(1)
        [waits] = await wait_until_taken(reader, "default", asked, seconds=0)
    assert not waits.taken
    async with feed(database, shop()) as feeding:
        await feeding.commands()
    [became] = await wait_until_taken(reader, "default", asked, seconds=5)
    assert (became.taken, became.status) == (True, "dropped")
