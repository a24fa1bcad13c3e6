"""Runs whose keys have letters that cannot be shown, as the command line tells of them."""

from __future__ import annotations

from tests.cli import pointsman
from tests.feeding import event, feed
from tests.services import Database
from tests.shop import shop


async def test_a_run_is_shown_on_one_line_as_it_is_listed(database: Database) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(event("order.placed", {"order_id": "a\nb\x1b", "amount": 5}, key="a\nb\x1b"))
    on = {"POSTGRES": database.reader_dsn}
    assert "shop      a\\nb\\x1b " in pointsman("runs", on=on).out
    shown = pointsman("show", "a\nb\x1b", on=on).out.splitlines()
    assert shown[0] == "run         shop a\\nb\\x1b, generation 0"
    assert ["key", "a\\nb\\x1b"] in [line.split() for line in shown]
