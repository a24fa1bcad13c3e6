"""Dead letters whose events are offered with other data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from engine.errors import UsageError
from engine.reading import (
    Became,
    NotFoundError,
    ask_drop,
    ask_edit,
    ask_redrive,
    ask_send,
    explain,
    history,
    list_dead_letters,
    list_runs,
    replay,
    show,
    show_dead_letter,
    verify,
    wait_until_taken,
)
from engine.store.connecting import Connection, connect
from statemachines.definition import Topic
from statemachines.machine import compile_pipeline
from tests.feeding import Feeding, event, feed, raw
from tests.services import Database
from tests.shop import shop
from tests.storage import objects, put, sent

PLACED = {"order_id": "o1", "amount": 5}
MUCH = {"order_id": "o1", "amount": "much"}
WHO: dict[str, Any] = {"who": "ana", "why": "they meant five"}


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Connection]:
    connection = await connect(database.engine_dsn, for_engine=False)
    yield connection
    await connection.close()


async def edited(feeding: Feeding, engine: Connection, number: int, **how: Any) -> Became:
    asked = await ask_edit(engine, "default", number, **(WHO | how))
    await feeding.commands()
    (became,) = await wait_until_taken(engine, "default", asked, seconds=0)
    return became


async def check_books(reader: Connection, topic: Topic | None = None) -> None:
    found = await verify(reader, "default")
    assert found.is_clean, found.findings
    replayed = await replay(reader, "default", [compile_pipeline(shop(topic=topic))])
    assert replayed.is_equal, replayed.mismatches


async def test_an_event_is_offered_with_other_data_in_its_place_and_under_its_id(
    database: Database, reader: Connection, engine: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(event("order.placed", PLACED), event("order.paid", MUCH, id="paid-1"))
        await feeding.records(event("order.shipped", {"order_id": "o1"}, id="behind"))
        became = await edited(feeding, engine, 1, data=orjson.dumps(PLACED))
        await feeding.records(event("order.paid", PLACED, id="paid-1"))
    assert (became.status, became.disposition) == ("redriven", "applied")
    (run,) = await list_runs(reader, "default")
    assert (run.status, run.configuration) == ("completed", ["shipped"])
    rows = await history(reader, "default", "shop", "o1")
    assert [row.event.kind for row in rows] == [
        "started",
        "held",
        "waited",
        "released",
        "moved",
        "moved after wait",
    ]
    released = await show(reader, "default", "shop", "o1", at_sequence=4)
    assert released.command == {"command": "edit", "who": "ana", "why": "they meant five"}
    letter = await show_dead_letter(reader, "default", 1)
    assert (letter.who, letter.why) == ("ana", "they meant five")
    assert b'"much"' in (letter.record.value or b"")
    assert orjson.loads(letter.edited or b"")["data"] == PLACED
    answer, again = (await explain(reader, "default", event_id="paid-1")).answers
    told = " ".join(answer.sentences)
    assert "Redriven, with other data, by ana at 2026-03-01" in told
    assert "they meant five." in told
    assert (answer.current.disposition, again.current.disposition) == ("applied", "duplicate")
    await check_books(reader)


async def test_what_was_redriven_before_with_its_own_data_was_not_edited(
    database: Database, engine: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(event("order.placed", MUCH, id="p1"))
        await ask_redrive(engine, "default", [1], who="bob", why="once more")
        became = await edited(feeding, engine, 1, changes={"amount": 5})
    assert (became.status, became.failed) == ("redriven", True)
    assert became.sentence.startswith("It was redriven before an engine took the edit up")


async def test_what_fails_again_is_another_dead_letter_that_can_be_edited_too(
    database: Database, reader: Connection, engine: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(event("order.placed", PLACED), event("order.paid", MUCH, id="paid-1"))
        again = await edited(feeding, engine, 1, changes={"amount": "more"})
        assert again.disposition == "dead-lettered"
        assert b'"more"' in ((await show_dead_letter(reader, "default", 2)).record.value or b"")
        skipped = (1, "it is redriven already, and is dead letter 2 now")
        assert (await ask_edit(engine, "default", 1, changes={"amount": 6}, **WHO)).skipped == (skipped,)
        assert (await ask_drop(engine, "default", [1], **WHO)).skipped == (skipped,)
        assert (await edited(feeding, engine, 2, changes={"amount": 5})).disposition == "applied"
        over = await ask_edit(engine, "default", 2, changes={"amount": 6}, **WHO)
    assert over.skipped == ((2, "it is redriven already"),)
    await check_books(reader)


@pytest.mark.parametrize("command", ["drop", "redrive", "edit"])
async def test_it_is_said_that_the_next_event_that_waits_holds_the_run_again(
    database: Database, reader: Connection, engine: Connection, broken: set[str], command: str
) -> None:
    async with feed(database, shop()) as feeding:
        broke = event("order.broken", {"order_id": "o1"}, id="broken-1")
        first = event("order.paid", MUCH, id="paid-1") if command == "edit" else broke
        second = event("order.noted", {"order_id": "o1", "text": 7}, id="noted-1")
        await feeding.records(event("order.placed", PLACED), first, second)
        broken.clear()
        if command == "edit":
            became = await edited(feeding, engine, 1, changes={"amount": 5})
        else:
            asked = await (feeding.drop(1) if command == "drop" else feeding.redrive(1))
            (became,) = await wait_until_taken(engine, "default", asked, seconds=0)
        assert not became.failed
        assert became.sentence.endswith(
            " The run is held again: event 'noted-1' failed (invalid data) and is dead letter 2. Edit, redrive or drop "
            "that one to let the run go on: pointsman dead-letters edit 2 --set FIELD=VALUE --reason TEXT."
        )
        asked = await feeding.drop(2)
        (became,) = await wait_until_taken(engine, "default", asked, seconds=0)
        assert "held again" not in became.sentence
    assert (await verify(reader, "default")).is_clean


async def test_plain_records_and_what_operators_have_sent_can_be_edited(
    database: Database, reader: Connection, engine: Connection
) -> None:
    topic = Topic("orders", id="id", type="type")
    async with feed(database, shop(topic=topic)) as feeding:
        await feeding.records(event("order.placed", PLACED))
        plain = {"id": "paid-1", "type": "order.paid"}
        await feeding.records(raw(orjson.dumps(plain | MUCH)))
        with pytest.raises(UsageError, match="another event than 'paid-1'"):
            await ask_edit(engine, "default", 1, data=orjson.dumps(PLACED), **WHO)
        with pytest.raises(UsageError, match="another event than 'paid-1'"):
            await ask_edit(engine, "default", 1, changes={"id": "paid-2", "amount": 4}, **WHO)
        assert (await edited(feeding, engine, 1, changes={"amount": 4})).disposition == "applied"
        # Its sender does not hear what becomes of it.
        noted = b'{"order_id":"o1","text":7}'
        await ask_send(engine, "default", "shop", "o1", "order.noted", noted, **WHO)
        await feeding.commands()
        assert (await edited(feeding, engine, 2, changes={"text": "seven"})).disposition == "applied"
    (run,) = await list_runs(reader, "default")
    assert (run.context["paid"], run.context["notes"]) == (4, ["seven"])
    await check_books(reader, topic)


@pytest.mark.parametrize("alone", [False, True])
async def test_of_a_record_with_several_events_the_one_that_failed_is_edited_in_its_place(
    database: Database, reader: Connection, engine: Connection, alone: bool
) -> None:
    wrong = put("b", "11")
    del wrong["s3"]["object"]["size"]
    others = [] if alone else [put("a", "10")]
    async with feed(database, objects()) as feeding:
        await feeding.records(sent(put("b", "01")))
        await feeding.records(sent(*others, wrong, beside=7), sent(put("b", "12", size=12)))
        with pytest.raises(UsageError, match="another event than '11'"):
            await ask_edit(engine, "default", 1, changes={"s3.object.sequencer": "13"}, **WHO)
        with pytest.raises(
            UsageError, match=r"is for the run 'c', by its field 's3\.object\.key', and not for 'b'"
        ):
            await ask_edit(engine, "default", 1, changes={"s3.object.key": "c"}, **WHO)
        if alone:
            became = await edited(feeding, engine, 1, data=orjson.dumps(put("b", "11", size=5)))
        else:
            with pytest.raises(UsageError, match=r"has no field 's3\.object\.size'\. Known are .* say --add"):
                await ask_edit(engine, "default", 1, changes={"s3.object.size": 5}, **WHO)
            became = await edited(feeding, engine, 1, changes={"s3.object.size": 5}, add=True)
    assert (became.status, became.disposition) == ("redriven", "applied")
    (run,) = await list_runs(reader, "default", key="b")
    assert run.context["sizes"] == [1024, 5, 12]
    rows = await history(reader, "default", "objects", "b")
    assert [row.event.id for row in rows if row.event.kind.startswith("moved")] == ["11", "12"]
    letter = await show_dead_letter(reader, "default", 1)
    assert ("pointsman-index", b"1") in letter.record.headers or alone
    offered = orjson.loads(letter.edited or b"")
    assert offered == {"Records": [put("b", "11", size=5)], **({"beside": 7} if alone else {})}
    assert (await verify(reader, "default")).is_clean
    assert (await replay(reader, "default", [compile_pipeline(objects())])).is_equal


async def test_what_cannot_be_edited_says_why(
    database: Database, reader: Connection, engine: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(event("order.placed", PLACED), event("order.paid", MUCH))
        await feeding.records(raw(b"\xff"))
        (first, second) = [one.reason for one in await list_dead_letters(reader, "default")]
    assert (first, second) == ("unreadable", "invalid data")
    with pytest.raises(UsageError, match="is for the run 'o2', by its field 'order_id', and not for 'o1'"):
        await ask_edit(engine, "default", 1, changes={"order_id": "o2"}, **WHO)
    with pytest.raises(UsageError, match="no JSON"):
        await ask_edit(engine, "default", 1, data=b"{", **WHO)
    with pytest.raises(UsageError, match="cannot be read as one event"):
        await ask_edit(engine, "default", 2, data=b"{}", **WHO)
    with pytest.raises(NotFoundError):
        await ask_edit(engine, "default", 77, data=b"{}", **WHO)
    with pytest.raises(UsageError, match="Say why"):
        await ask_edit(engine, "default", 1, data=b"{}", who="ana", why="")
    assert await reader.fetchval("select count(*) from pointsman.inbox") == 0
