"""Search attributes in a real Postgres: they change with the context, find runs, and are checked."""

from __future__ import annotations

import enum
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from asyncpg import CheckViolationError

from connectors.source import Partition, RawRecord
from engine.client import Client
from engine.errors import UsageError
from engine.log import Kind
from engine.reading import list_runs, verify
from engine.reading.catalog import SQL
from engine.reading.searching import conditions
from engine.session.claims import Slice
from engine.store import writing
from engine.store.connecting import Connection, connect
from tests.feeding import TOPIC, Feeding, event, feed
from tests.services import Database
from tests.tickets import plain_tickets, tickets, tickets_with_texts


class Weight(enum.Enum):
    HEAVY = "heavy"


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[Connection]:
    """Whoever may do everything."""
    connection = await connect(database.owner_dsn, for_engine=False)
    yield connection
    await connection.close()


def opened(key: str, tenant: str = "acme", priority: int = 3) -> RawRecord:
    return event("ticket.opened", {"ticket": key, "tenant": tenant, "priority": priority})


def changed(key: str, partition: int = 0, **values: Any) -> RawRecord:
    return event("ticket.changed", {"ticket": key, **values}, partition=partition)


async def test_a_program_says_what_runs_are_found_by_as_a_mapping_or_in_pairs(database: Database) -> None:
    async with feed(database, tickets()) as feeding:
        await feeding.records(opened("t1"), opened("t2", "other", 1), opened("t3", priority=1))
    async with Client(database.engine_dsn, who="the desk") as client:
        ways: list[Any] = [{"tenant": "acme", "priority": 3}, [("tenant", "acme"), ("priority", 3)]]
        for where in ways:
            assert [run.key for run in await client.runs(where=where)] == ["t1"]
            assert await client.count(where=where) == 1
        assert await client.count(where={"tenant": "acme"}) == 2
        assert await client.count(where={}) == 3
        junk: list[Any] = ["ab", ["ab"], [("tenant",)], [(1, 2)], 5, [5], ["tenant=acme"]]
        for where in junk:
            with pytest.raises(UsageError, match="takes values by the names"):
                await client.runs(where=where)
            with pytest.raises(UsageError, match="takes values by the names"):
                await client.count(where=where)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (datetime(2026, 3, 1, 12, tzinfo=UTC), "2026-03-01T12:00:00+00:00"),
        (date(2026, 3, 1), "2026-03-01"),
        (Decimal("1.50"), "1.50"),
        (Weight.HEAVY, "heavy"),
    ],
)
def test_a_value_is_asked_for_as_a_person_writes_it(value: object, text: str) -> None:
    assert conditions({"a": value}) == [("a", text)]


@pytest.mark.parametrize("value", [None, ["a", "b"], {"a": 1}])
def test_what_no_run_is_found_by_is_not_asked_for(value: object) -> None:
    with pytest.raises(UsageError, match="asks for a text, a number, a time, or true or false"):
        conditions({"a": value})


async def stored(connection: Connection) -> dict[str, Any]:
    rows = await connection.fetch(
        "select r.key, a.attributes from pointsman.run_attributes a join pointsman.runs r on r.id = a.run"
    )
    return {key: json.loads(attributes) for key, attributes in rows}


async def versions(connection: Connection) -> list[str]:
    """Which row versions there are: a row that is written anew is another one."""
    return sorted(str(row[0]) for row in await connection.fetch("select xmin from pointsman.run_attributes"))


async def test_attributes_are_those_of_the_context_after_each_commit(
    database: Database, reader: Connection
) -> None:
    async with feed(database, tickets()) as feeding:
        await feeding.records(opened("t1"), opened("t2", "other", 1))
        both = {"tenant": "acme", "priority": 3}
        assert await stored(reader) == {"t1": both, "t2": {"tenant": "other", "priority": 1}}
        await feeding.records(changed("t1", priority=5), changed("t1", tags=["a", "b"]))
        assert (await stored(reader))["t1"] == {"tenant": "acme", "priority": 5, "tags": ["a", "b"]}
        await feeding.records(event("ticket.cleared", {"ticket": "t1"}))
        assert "t1" not in await stored(reader), "no run without attributes is in the index"
        await feeding.records(changed("t1", tenant="back\0"), event("ticket.closed", {"ticket": "t2"}))
        assert await stored(reader) == {
            "t1": {"tenant": "back\\x00"},
            "t2": {"tenant": "other", "priority": 1},
        }
    assert (await verify(reader, "default")).findings == ()


async def test_only_changed_attributes_are_written(database: Database, reader: Connection) -> None:
    async with feed(database, tickets()) as feeding:
        await feeding.records(opened("t1"), opened("t2"))
        before = await versions(reader)
        await feeding.records(
            changed("t1", note="no attribute"), changed("t2", priority=4), changed("t2", priority=3)
        )
        assert await versions(reader) == before
        await feeding.records(changed("t1", priority=1))
        assert await versions(reader) != before


async def test_nothing_is_written_for_pipelines_without_attributes(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_statement(*_: object) -> None:
        raise AssertionError("there is nothing to write")

    monkeypatch.setattr(writing, "write_attributes", no_statement)
    async with feed(database, plain_tickets()) as feeding:
        await feeding.records(opened("t1"))
        await feeding.records(changed("t1", tenant="other"))
        _, batch = await _prepared(feeding, changed("t1", tenant="another"))
        assert batch._searched == {}, "nothing is kept for them either"
    assert await stored(reader) == {}
    assert [one.attributes for one in await list_runs(reader, "default")] == [{}]


async def test_runs_are_found_by_all_conditions_and_the_other_filters(
    database: Database, reader: Connection
) -> None:
    async with feed(database, tickets(), tickets("case")) as feeding:
        await feeding.records(opened("t1"), opened("t2", "acme", 1), opened("t3", "other"))
        await feeding.records(changed("t2", tags=["red", "old"]), event("ticket.closed", {"ticket": "t3"}))

    async def keys(*where: tuple[str, str], **filters: Any) -> list[tuple[str, str]]:
        found = await list_runs(reader, "default", where=where, **filters)
        return sorted((run.pipeline, run.key) for run in found)

    both = [("case", "t1"), ("ticket", "t1")]
    assert await keys(("tenant", "acme"), ("priority", "3")) == both
    assert await keys(("tenant", "acme"), ("priority", "03"), pipeline="case") == both[:1]
    assert await keys(("tags", "old"), ("tags", "red"), pipeline="ticket") == [("ticket", "t2")]
    assert await keys(("tags", "old"), ("tags", "blue")) == []
    assert await keys(("priority", "3"), ("priority", "1")) == []
    assert await keys(("priority", "3"), status="completed", pipeline="case") == [("case", "t3")]
    assert await keys(("tenant", "ACME")) == []
    assert await list_runs(reader, "elsewhere") == []


async def test_what_cannot_be_asked_for_is_told(database: Database, reader: Connection) -> None:
    async with feed(database, tickets(), plain_tickets("plain")) as feeding:
        await feeding.records(opened("t1"))

    async def told(name: str, value: str, pipeline: str | None = None, namespace: str = "default") -> str:
        with pytest.raises(UsageError) as caught:
            await list_runs(reader, namespace, pipeline=pipeline, where=[(name, value)])
        return str(caught.value)

    of = "No pipeline of the namespace 'default' has a search attribute "
    assert await told("tennant", "x") == f"{of}'tennant'. Did you mean 'tenant'?"
    assert await told("zzz", "x") == f"{of}'zzz'. Known are 'priority', 'tags' and 'tenant'."
    assert await told("tenant", "x", "plain") == (
        "No pipeline 'plain' has a search attribute 'tenant'. None are known."
    )
    assert "None are known." in await told("tenant", "x", namespace="elsewhere")
    assert await told("priority", "high") == (
        "The search attribute 'priority' is a whole number, which 'high' is not."
    )
    with pytest.raises(UsageError, match="20 attributes at most"):
        await list_runs(reader, "default", where=[("tenant", "x")] * 21)


async def test_a_run_follows_the_declaration_of_its_own_version(
    database: Database, reader: Connection
) -> None:
    async with feed(database, plain_tickets(version=1)) as feeding:
        await feeding.records(opened("old"))
    async with feed(database, plain_tickets(version=1), tickets(version=2)) as feeding:
        await feeding.records(opened("new"), changed("old", priority=9))
        assert await stored(reader) == {"new": {"tenant": "acme", "priority": 3}}
    async with feed(database, tickets(version=2), plain_tickets(version=3)) as feeding:
        await feeding.records(opened("newest"), changed("new", priority=9))
    assert await stored(reader) == {"new": {"tenant": "acme", "priority": 9}}
    assert [run.key for run in await list_runs(reader, "default", where=[("tenant", "acme")])] == ["new"]
    assert (await verify(reader, "default")).findings == ()


async def test_a_definition_may_say_otherwise_what_an_attribute_is(
    database: Database, reader: Connection
) -> None:
    async with feed(database, tickets(), tickets_with_texts()) as feeding:
        await feeding.records(opened("t1"))
    found = await list_runs(reader, "default", where=[("priority", "3")])
    assert sorted((run.pipeline, run.attributes["priority"]) for run in found) == [
        ("texts", "3"),
        ("ticket", 3),
    ]
    assert [run.pipeline for run in await list_runs(reader, "default", where=[("priority", "03")])] == [
        "ticket"
    ]


async def test_a_lost_comparison_leaves_the_attributes_of_what_was_computed_again(
    database: Database, reader: Connection
) -> None:
    async with feed(database, tickets()) as first, feed(database, tickets()) as second:
        await first.records(opened("t1"))
        slow = await _prepared(first, changed("t1", priority=5, tags=["mine"]))
        await second.records(changed("t1", partition=1, tenant="other", priority=4))
        assert not await first.committer.settle(first.committer.begin(*slow)), "it is computed again"
        assert await stored(reader) == {"t1": {"tenant": "other", "priority": 5, "tags": ["mine"]}}
        # What would change nothing on the run that the first knew, and does on the run as it is.
        slow = await _prepared(first, changed("t1", priority=5))
        other = await _prepared(second, changed("t1", partition=1, priority=1))
        assert not await second.committer.settle(second.committer.begin(*other)), (
            "the first has moved it, too"
        )
        assert not await first.committer.settle(first.committer.begin(*slow))
        assert (await stored(reader))["t1"]["priority"] == 5
    assert (await verify(reader, "default")).findings == ()


async def _prepared(feeding: Feeding, record: RawRecord) -> Any:
    claim = await feeding.claim(Partition(TOPIC, record.partition))
    slices = [Slice(claim, [record._replace(offset=claim.read_to)], claim.read_to, claim.read_to + 1)]
    claim.read_to += 1
    return slices, await feeding.committer.prepare(slices, None)


async def test_what_is_not_committed_leaves_no_attributes(database: Database, reader: Connection) -> None:
    async with feed(database, tickets()) as feeding:
        await feeding.records(opened("t1"))
        await _prepared(feeding, changed("t1", priority=5))
    assert await stored(reader) == {"t1": {"tenant": "acme", "priority": 3}}


SET = "update pointsman.run_attributes set attributes = "
ADD = "insert into pointsman.run_attributes "
FALSIFIED = {
    SET + """'{"tenant": "acme"}'""": 'are {"tenant": "acme"}, and {"priority"',
    SET + """attributes || '{"tags": ["x"]}'""": '"tags": ["x"]',
    SET + """attributes || '{"priority": "3"}'""": '"priority": "3"',
    "delete from pointsman.run_attributes": "are {}, and",
    ADD
    + """select id, '{"a": 1}' from pointsman.runs where key = 't2'""": 'are {"a": 1}, and {} by its context',
    ADD + """values (5, '{"a": 1}')""": "search attributes of run number 5, and there is no such",
}


@pytest.mark.parametrize("change", FALSIFIED)
async def test_verify_finds_attributes_that_are_not_what_the_context_says(
    database: Database, reader: Connection, owner: Connection, change: str
) -> None:
    async with feed(database, tickets(), plain_tickets("plain")) as feeding:
        await feeding.records(opened("t1"), opened("t2"))
        await feeding.records(event("ticket.cleared", {"ticket": "t2"}))
    assert (await verify(reader, "default")).is_clean
    await owner.execute(change)
    [finding, *_] = (await verify(reader, "default")).findings
    assert FALSIFIED[change] in finding.sentence
    if "number 5" not in FALSIFIED[change]:
        assert finding.key in ("t1", "t2")


async def test_the_index_is_used_and_holds_nothing_but_attributes(
    database: Database, owner: Connection
) -> None:
    async with feed(database, tickets()) as feeding:
        await feeding.records(opened("t0"))
    columns = (
        "started, updated, pipeline, generation, sequence, definition, held, waiting, status, configuration, \
        recent, hash, context"
    )
    many = f"select g, 'k' || g, {columns} from pointsman.runs, generate_series(1, 20000) g"
    await owner.execute(f"insert into pointsman.runs (id, key, {columns}) {many}")
    values = "select g, jsonb_build_object('tenant', 'tenant-' || g) from generate_series(1, 20000) g"
    await owner.execute(f"insert into pointsman.run_attributes {values}")
    await owner.execute("vacuum analyze pointsman.runs, pointsman.run_attributes")
    with pytest.raises(CheckViolationError):
        await owner.execute("update pointsman.run_attributes set attributes = '{}'")
    wanted = ['{"tenant": "tenant-7"}', '{"tenant": ["tenant-7"]}']
    filters = (None, None, None, None, None, 100, wanted, False, None, int(Kind.PAUSED), None, None, "", None)
    plan = await owner.fetch(f"explain {SQL['list_runs']}", "default", *filters)
    assert "run_attributes_values" in "\n".join(row[0] for row in plan), plan
