"""However many runs and dead letters there are, on a real Postgres: who asks for few reads few."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from engine.reading.catalog import SQL
from engine.reading.runs import asked_filters
from engine.store.connecting import Connection
from tests.feeding import event, feed
from tests.integration.test_inbox_found import explained, read_of
from tests.many import runs_alike
from tests.services import Database
from tests.shop import shop

MANY = 20_000
HELD = 5_000
LIMIT = 50
_LETTERS = """
    insert into pointsman.dead_letters (namespace, pipeline, key, event_id, type, disposition, reason, error, details,
        record_time, record_headers, at, status)
    select 'default', $2::int, $3::text || number, 'e' || number, 't', 1, $4, 'it broke', '', 0, '', now(), 'open'
    from generate_series(1, $1::int) number
"""
LISTED = {
    "of a pipeline": {3: 1},
    "of a key": {4: "rare 1"},
    "for a reason": {2: "key raised"},
}


@pytest.mark.parametrize("given", LISTED.values(), ids=LISTED)
async def test_of_dead_letters_those_that_are_asked_for_are_read(
    database: Database, owner: Connection, reader: Connection, given: Mapping[int, str | int]
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(event("order.placed", {"order_id": "o1", "amount": 5}))
    await owner.execute("insert into pointsman.pipelines (namespace, name) values ('default', 'other')")
    await owner.execute(_LETTERS, 3, 1, "rare ", "key raised")
    await owner.execute(_LETTERS, MANY, 2, "k", "guard raised")
    await owner.execute("analyze pointsman.dead_letters")
    asked = ["default", *[given.get(place) for place in range(1, 7)], LIMIT, "refused by the broker"]
    parts = await explained(reader, SQL["list_dead_letters"], *asked)
    assert parts[0]["Actual Rows"] in {1, 3}
    assert read_of("dead_letters", parts) <= 3, parts


@pytest.mark.parametrize(("status", "most"), [("held", LIMIT), ("paused", HELD), ("stuck", HELD)])
async def test_of_runs_those_that_are_held_are_read_where_they_must_be(
    database: Database, owner: Connection, reader: Connection, status: str, most: int
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(event("order.placed", {"order_id": "o1", "amount": 5}))
    await runs_alike(owner, "o1", range(1, 1 + MANY))
    # They are older than the others, which nobody knows who plans.
    older = "held = 1, started = started - interval '1 day'"
    await owner.execute(f"update pointsman.runs set {older} where id <= {HELD}")
    await owner.execute("analyze")
    asked = await asked_filters(reader, "default", status=status, limit=LIMIT)
    assert read_of("runs", await explained(reader, SQL["list_runs"], "default", *asked)) <= most
