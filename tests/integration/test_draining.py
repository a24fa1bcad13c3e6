"""Many events that wait behind a hold go on in portions: in order, each once, whatever happens between two of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from connectors.source import RawRecord
from engine.limits import EngineLimits
from engine.reading import explain, history, list_dead_letters, list_runs, replay, verify
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from tests.cli import pointsman
from tests.feeding import Feeding, event, feed
from tests.integration.test_cli_run import engine_on, pipeline, publish, rows, run
from tests.relays import fetch
from tests.services import Database, Kafka, TopicFactory, execute
from tests.shop import shop

PLACED = event("order.placed", {"order_id": "o1", "amount": 5}, id="placed")
BREAKING = event("order.broken", {"order_id": "o1"}, id="broken")
BY_THREE = EngineLimits(drain_events_max=3)
ONE_PORTION = EngineLimits(drain_events_max=3, inbox_seconds_max=0)
"""Of a drain, each time that commands are taken up, as when it takes long."""

REFUSES = """
create function public.refuses() returns trigger language plpgsql as $$
begin raise 'it does not take this' using errcode = 'data_exception'; end $$
"""
REFUSING = """
create trigger refusing before insert on pointsman.events for each row
when (new.kind in (2, 6) and new.event_id = 'note-4') execute function public.refuses()
"""


def noted(number: int, *, size: int = 0) -> RawRecord:
    text = str(number) + "." * size
    return event("order.noted", {"order_id": "o1", "text": text}, id=f"note-{number}")


async def notes(reader: Connection) -> list[str]:
    [run] = await list_runs(reader, "default")
    return [note.rstrip(".") for note in run.context["notes"]]


def numbers(end: int) -> list[str]:
    return [str(number) for number in range(end)]


async def kinds(reader: Connection) -> list[str]:
    return [row.event.kind for row in await history(reader, "default", "shop", "o1")]


async def commits_of(reader: Connection) -> list[int]:
    """How many events that had waited each transaction took."""
    rows = await reader.fetch(
        "select count(*) from pointsman.events where kind = 6 group by xmin order by min(sequence)"
    )
    return [row["count"] for row in rows]


async def is_sound(reader: Connection, *, runs: int = 1) -> bool:
    report = await replay(reader, "default", [compile_pipeline(shop())])
    assert report.mismatches == ()
    assert report.equal_runs == runs
    return (await verify(reader, "default")).is_clean


async def test_so_many_at_once_and_not_more(database: Database, reader: Connection) -> None:
    async with feed(database, shop(), limits=BY_THREE) as feeding:
        await feeding.records(PLACED, BREAKING, *(noted(number) for number in range(8)))
        await feeding.drop(1)
        assert await reader.fetchval("select count(*) from pointsman.inbox") == 0
    assert await notes(reader) == numbers(8)
    assert await commits_of(reader) == [3, 3, 2]
    waited, moved = "waited", "moved after wait"
    assert await kinds(reader) == [
        "started",
        "held",
        *[waited] * 8,
        *["released", moved, moved, moved, "draining"] * 2,
        "released",
        moved,
        moved,
    ]
    [run] = await list_runs(reader, "default")
    assert (run.status, run.waiting) == ("running", 0)
    assert await is_sound(reader)


async def test_so_many_bytes_at_once_and_not_more(database: Database, reader: Connection) -> None:
    limits = EngineLimits(batch_bytes_max=50_000)
    async with feed(database, shop(), limits=limits) as feeding:
        await feeding.records(PLACED, BREAKING)
        await feeding.records(
            *(noted(number, size=12_000) for number in range(6)), noted(6, size=80_000), noted(7)
        )
        await feeding.drop(1)
    assert await notes(reader) == numbers(8)
    # The context, which all these texts go into, stands in each row beside the event.
    assert await commits_of(reader) == [2, 2, 1, 1, 1, 1]
    rows = await reader.fetch(
        "select xmin, length(payload) + length(context) as size from pointsman.events where kind = 6 order by sequence"
    )
    written: dict[int, list[int]] = {}
    for row in rows:
        written.setdefault(row["xmin"], []).append(row["size"])
    assert max(sum(sizes[:-1]) for sizes in written.values()) < 50_000, "only the last may go beyond"
    assert await is_sound(reader)


async def test_what_comes_between_two_portions_waits_behind_the_rest(
    database: Database, reader: Connection, broken: set[str]
) -> None:
    async with feed(database, shop(), limits=ONE_PORTION) as feeding:
        await feeding.records(PLACED, BREAKING, *(noted(number) for number in range(7)))
        broken.clear()
        await feeding.redrive(1)
        [run] = await list_runs(reader, "default")
        assert (run.status, run.waiting, run.context["notes"]) == ("held", 4, ["mended", "0", "1", "2"])
        await feeding.records(noted(7), noted(3))
        [answer] = (await explain(reader, "default", event_id="note-7")).answers
        assert answer.current.disposition == "held"
        assert "those that waited before it are taken first" in answer.current.sentence
        while await reader.fetchval("select count(*) from pointsman.inbox"):
            await feeding.commands()
        await feeding.records(noted(8))
    assert await notes(reader) == ["mended", *numbers(9)]
    [answer] = (await explain(reader, "default", event_id="note-7")).answers
    assert answer.current.disposition == "applied"
    assert "until a release by ana" in answer.current.sentence
    assert ": mended)" in answer.current.sentence
    assert (await verify(reader, "default")).is_clean


async def test_an_engine_that_ends_between_two_portions_leaves_the_rest_to_the_next(
    database: Database, reader: Connection, broken: set[str]
) -> None:
    async with feed(database, shop(), limits=ONE_PORTION) as feeding:
        await feeding.records(PLACED, BREAKING, *(noted(number) for number in range(7)))
        broken.clear()
        await feeding.redrive(1)
    async with feed(database, shop(), limits=BY_THREE) as feeding:
        await feeding.records(noted(7))
        await feeding.commands()
        await feeding.records(noted(8))
    assert await notes(reader) == ["mended", *numbers(9)]
    assert [letter.status for letter in await list_dead_letters(reader, "default")] == ["redriven"]


async def test_two_engines_that_drain_one_run_do_it_once_and_in_order(
    database: Database, reader: Connection
) -> None:
    async with (
        feed(database, shop(), limits=BY_THREE) as one,
        feed(database, shop(), limits=BY_THREE) as other,
    ):
        await one.records(PLACED, BREAKING, *(noted(number) for number in range(30)))

        async def take_up(feeding: Feeding) -> None:
            while await fetch(database.reader_dsn, "select id from pointsman.inbox"):
                await feeding.commands()

        await asyncio.gather(one.drop(1), other.drop(1))
        await asyncio.gather(take_up(one), take_up(other))
    assert await notes(reader) == numbers(30)
    assert await is_sound(reader)


async def test_one_that_fails_holds_the_run_again_and_the_rest_waits_behind_it(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), limits=BY_THREE) as feeding:
        await feeding.records(PLACED, BREAKING, *(noted(number) for number in range(4)))
        await feeding.records(event("order.broken", {"order_id": "o1"}, id="broken-again"), noted(4))
        await feeding.drop(1)
        assert await reader.fetchval("select count(*) from pointsman.inbox") == 0
        assert await notes(reader) == numbers(4)
        [newest, _] = await list_dead_letters(reader, "default")
        assert (newest.event_id, newest.status) == ("broken-again", "open")
        await feeding.drop(newest.id)
    assert await notes(reader) == numbers(5)
    assert await is_sound(reader)


async def test_what_the_store_does_not_take_is_found_and_holds_the_run_as_a_dead_letter(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), limits=BY_THREE) as feeding:
        await feeding.records(PLACED, BREAKING, *(noted(number) for number in range(7)))
        await execute(database.owner_dsn, REFUSES, REFUSING)
        await feeding.drop(1)
        assert await notes(reader) == numbers(4)
        [newest, _] = await list_dead_letters(reader, "default")
        assert (newest.event_id, newest.reason, newest.status) == ("note-4", "refused by store", "open")
        assert await is_sound(reader)
        await feeding.redrive(newest.id)
        [newest, _] = await list_dead_letters(reader, "default")
        assert newest.status == "open", "the store does not take it now, either"
        await feeding.drop(newest.id)
    assert await notes(reader) == ["0", "1", "2", "3", "5", "6"]
    assert (await verify(reader, "default")).is_clean


async def test_a_run_whose_definition_is_gone_meanwhile_goes_on_when_it_is_back(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), limits=ONE_PORTION) as feeding:
        await feeding.records(PLACED, BREAKING, *(noted(number) for number in range(7)))
        await feeding.drop(1)
    async with feed(database, shop(version=2)) as feeding:
        await feeding.commands()
        await feeding.records(noted(7))
    [run] = await list_runs(reader, "default")
    assert (run.status, run.waiting) == ("held", 5)
    async with feed(database, shop(), shop(version=2)) as feeding:
        await feeding.commands()
    assert await notes(reader) == numbers(8)
    assert (await verify(reader, "default")).is_clean


async def test_until_idle_does_not_leave_a_drain_half_done(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path, reader: Connection
) -> None:
    name = await topic("orders")
    file = pipeline(tmp_path, name)
    bad = '{"type": "order.paid", "order_id": "o-1", "amount": -1}\n'
    placed, paid = rows("o-1").splitlines(keepends=True)
    publish(kafka, name, placed + bad + paid.replace("5", "1") * 5)
    assert run(file, database, kafka).code == 0
    on = engine_on(database, kafka)
    pointsman("dead-letters", "drop", 1, "--reason", "not wanted", "--wait", 0, on=on)
    slowly = {**on, "LIMIT_DRAIN_EVENTS_MAX": "1", "LIMIT_INBOX_SECONDS_MAX": "0.001"}
    done = pointsman("run", file, "--until-idle", on=slowly)
    assert done.code == 0, done.err
    [order] = await list_runs(reader, database.name)
    assert (order.status, order.waiting, order.configuration) == ("running", 0, ["paid"])
