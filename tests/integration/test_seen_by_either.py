"""Events with a business key that counts for ever are duplicates by that, and by source and id, in a real Postgres."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from connectors.source import RawRecord
from engine import routing
from engine.batch import identity
from engine.batch.moves import RECENT_BYTES
from engine.reading import ask_edit, explain, history, list_dead_letters, list_runs, replay, verify
from engine.store.connecting import Connection, connect
from statemachines import Context, Pipeline
from statemachines.machine import compile_pipeline
from statemachines.run import DIGEST_BYTES
from tests.bills import Made, Opened, Paid, Shut
from tests.feeding import event, feed
from tests.services import Database

TOPIC = "bills"
FORGOTTEN = RECENT_BYTES // DIGEST_BYTES
"""After as many other events a run has forgotten one."""


class Bill(Context):
    lines: list[int] = Field(default_factory=list)
    total: int = 0


def told(type: str, id: str | None = None, *, source: str = "/shop", **data: Any) -> RawRecord:
    return event(type, {"bill": "b1", **data}, topic=TOPIC, id=id, source=source)


def pay(bill: Bill, paid: Paid) -> None:
    bill.lines.append(paid.line)
    bill.total += paid.amount


def bills(version: int = 1, *, by_line: bool = True) -> Pipeline[Bill]:
    """made -> open, where lines are paid -> shut, from where a bill may be made anew."""
    flow = Pipeline("bills", Bill, topics=[TOPIC], version=version, closed="restart")
    made = flow.state("made", initial=True)
    opened, shut = flow.state("open"), flow.state("shut", final=True)
    flow.start(Made, lambda made: Bill())
    made.on(Opened, to=opened)
    opened.on(Paid, do=pay)
    opened.on(Shut, to=shut)
    if by_line:
        flow.policy(Paid, duplicate_by="line")
    return flow


async def check(reader: Connection, lines: list[int], *pipelines: Pipeline[Any]) -> None:
    """The last run of the key has taken these lines, once each, and its log says so."""
    run = max(await list_runs(reader, "default"), key=lambda one: one.generation)
    assert (run.context["lines"], run.context["total"]) == (lines, 10 * len(lines))
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(one) for one in pipelines])
    assert replayed.is_equal, replayed.mismatches
    assert (run.held, run.waiting) == (None, 0)


async def duplicates(reader: Connection, id: str) -> list[str]:
    """What is told of the duplicates of an event by its id."""
    found = await explain(reader, "default", event_id=id)
    told_of = [one.current for one in found.answers]
    return [one.sentence for one in told_of if one.disposition == "duplicate"]


@pytest.mark.parametrize("others", [0, FORGOTTEN])
@pytest.mark.parametrize("lives", [1, 2])
async def test_an_id_with_another_business_key_is_a_duplicate(
    database: Database, reader: Connection, *, others: int, lives: int
) -> None:
    async with feed(database, bills()) as feeding:
        await feeding.records(told("made"), told("opened"), told("paid", "e1", line=1))
        await feeding.records(*(told("paid", line=one) for one in range(10, 10 + others)))
        if lives == 1:
            await feeding.records(told("paid", "e1", line=2))
    if lives > 1:
        async with feed(database, bills()) as feeding:
            await feeding.records(told("paid", "e1", line=2))
    [sentence] = await duplicates(reader, "e1")
    assert sentence.startswith(
        "It is a duplicate: the run 'b1' of bills has an event of this source and id since row 3 ("
    )
    assert "policy" not in sentence, "whatever its business key"
    await check(reader, [1, *range(10, 10 + others)], bills())


async def test_an_id_is_known_within_a_commit_and_in_the_next_draft(
    database: Database, reader: Connection
) -> None:
    async with feed(database, bills()) as feeding:
        first = told("paid", "e1", line=1)
        await feeding.records(told("made"), told("opened"), first, told("paid", "e1", line=2))
        other = told("paid", "e1", line=3, source="/elsewhere")
        await feeding.records(other, told("paid", "e2", line=1), told("paid", "e1", line=4))
    assert len(await duplicates(reader, "e1")) == 2
    [by_line] = await duplicates(reader, "e2")
    assert "an event with the same business key" in by_line
    await check(reader, [1, 3], bills())


@pytest.mark.parametrize("others", [0, FORGOTTEN])
@pytest.mark.parametrize("shut", [False, True])
async def test_what_was_taken_before_a_version_names_a_business_key_is_a_duplicate_by_its_id(
    database: Database, reader: Connection, *, others: int, shut: bool
) -> None:
    first, second = bills(by_line=False), bills(2)
    async with feed(database, first) as feeding:
        await feeding.records(told("made"), told("opened"), told("paid", "e1", line=1))
        await feeding.records(*(told("paid", line=one) for one in range(10, 10 + others)))
    again = [told("shut"), told("made"), told("opened")] if shut else []
    async with feed(database, first, second) as feeding:
        await feeding.records(*again)
        await feeding.records(
            told("paid", "e1", line=1), told("paid", "e2", line=2), told("paid", "e2", line=3)
        )
    assert len(await duplicates(reader, "e1")) == 1
    assert len(await duplicates(reader, "e2")) == 1
    taken = [2] if shut else [1, *range(10, 10 + others), 2]
    await check(reader, taken, first, second)


@pytest.mark.parametrize("shut", [False, True])
async def test_what_was_taken_by_a_business_key_is_a_duplicate_by_its_id_where_the_newest_version_names_none(
    database: Database, reader: Connection, *, shut: bool
) -> None:
    first, second = bills(), bills(2, by_line=False)
    async with feed(database, first) as feeding:
        await feeding.records(told("made"), told("opened"), told("paid", "e1", line=1))
    async with feed(database, first, second) as feeding:
        if shut:
            await feeding.records(told("shut"), told("made"), told("opened"))
        await feeding.records(told("paid", "e1", line=1), told("paid", "e2", line=1))
    assert len(await duplicates(reader, "e1")) == 1
    await check(reader, [1] if shut else [1, 1], first, second)


async def test_what_was_taken_by_a_business_key_that_no_loaded_version_names_is_a_duplicate_by_its_id(
    database: Database, reader: Connection
) -> None:
    first, second = bills(), bills(2, by_line=False)
    async with feed(database, first) as feeding:
        await feeding.records(told("made"), told("opened"), told("paid", "e1", line=1), told("shut"))
    async with feed(database, second) as feeding:
        await feeding.records(told("made"), told("opened"))
        await feeding.records(told("paid", "e1", line=1), told("paid", "e2", line=1))
    assert len(await duplicates(reader, "e1")) == 1
    await check(reader, [1], first, second)


async def test_an_id_is_a_duplicate_while_the_first_event_with_it_waits_to_be_taken(
    database: Database, reader: Connection
) -> None:
    async with feed(database, bills()) as feeding:
        await feeding.records(told("paid", "e0", line=0), told("made"), told("paid", "e1", line=1))
        await feeding.records(told("paid", "e1", line=2))
    letters = [one.event_id for one in await list_dead_letters(reader, "default")]
    assert letters == ["e0"], "which has no run, and does not count as seen"
    async with feed(database, bills()) as feeding:
        await feeding.records(told("paid", "e1", line=3), told("paid", "e0", line=4), told("opened"))
        await feeding.records(told("paid", "e1", line=5), told("shut"), told("made"), told("opened"))
        await feeding.records(told("paid", "e1", line=6), told("paid", "e0", line=7), told("paid", line=8))
    assert len(await duplicates(reader, "e1")) == 4
    [before, _] = await list_runs(reader, "default")
    assert before.generation == 0 or before.context["lines"] == [8]
    await check(reader, [8], bills())


async def test_an_id_is_a_duplicate_while_the_first_event_with_it_waits_behind_a_hold(
    database: Database, reader: Connection
) -> None:
    async with feed(database, bills()) as feeding:
        await feeding.records(told("made"), told("opened"), told("paid", line="none"))
        await feeding.records(told("paid", "e1", line=1), told("paid", "e1", line=2))
    async with feed(database, bills()) as feeding:
        await feeding.records(told("paid", "e1", line=3))
        await feeding.drop(1)
        await feeding.records(told("paid", "e1", line=4))
    assert len(await duplicates(reader, "e1")) == 3
    await check(reader, [1], bills())


async def test_what_waited_with_the_id_of_what_held_the_run_leaves_once_that_is_taken(
    database: Database, reader: Connection
) -> None:
    async with feed(database, bills()) as feeding:
        await feeding.records(told("made"), told("opened"), told("paid", "e1", line="none"))
        await feeding.records(told("paid", "e1", line=2))
        connection = await connect(database.engine_dsn, for_engine=False)
        try:
            await ask_edit(connection, "default", 1, changes={"line": 1}, who="ana", why="mended")
        finally:
            await connection.close()
        await feeding.commands()
    kinds = [row.event.kind for row in await history(reader, "default", "bills", "b1")]
    assert kinds[-2:] == ["moved", "left waiting"], kinds
    await check(reader, [1], bills())


async def test_a_log_in_which_an_id_was_taken_under_two_business_keys_is_replayed_as_it_is(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bills(by_line=False), bills(2)
    with monkeypatch.context() as before:
        for module in (identity, routing):
            before.setattr(module, "is_known_by_both", lambda *_: False)
        async with feed(database, first) as feeding:
            await feeding.records(told("made"), told("opened"), told("paid", "e1", line=1))
        async with feed(database, first, second) as feeding:
            await feeding.records(told("paid", "e1", line=1), told("paid", "e1", line=2))
            await feeding.records(told("shut"), told("made"), told("paid", "e1", line=3), told("opened"))
    await check(reader, [3], first, second)
