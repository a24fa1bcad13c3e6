"""Open runs that follow versions which are not loaded: who looks for them looks once where there are none."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from engine.left_behind import _count, _note_over, find_left_behind, tell_left_behind
from engine.reading import list_definitions
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from tests.feeding import event, feed
from tests.integration.test_definitions_listed import Loads, cases, loads
from tests.services import Database

__all__ = ["loads"]

NEW = [compile_pipeline(cases(2))]


async def live(database: Database, *kinds: str, key: str = "c1") -> None:
    """A run of the first version has these, one after the other."""
    async with feed(database, cases(1)) as feeding:
        for kind in kinds:
            await feeding.records(event(f"case.{kind}", {"case": key})._replace(topic="cases"))


async def tell(database: Database) -> None:
    """As an engine does at its start that has the second version."""
    await tell_left_behind(database.engine_dsn, "default", NEW)


async def over(owner: Connection) -> Mapping[int, bool]:
    """Of which versions it is known that no open run follows them."""
    return dict(await owner.fetch("select version, is_over from pointsman.definitions order by version"))


async def test_a_version_that_no_open_run_follows_is_looked_for_until_that_is_known(
    database: Database, owner: Connection, reader: Connection, loads: Loads
) -> None:
    await live(database, "opened", "closed")
    await loads(cases(2))
    assert [one.of.runs for one in await _count(reader, "default", NEW)] == [0]
    await tell(database)
    assert await over(owner) == {1: True, 2: False}
    assert await _count(reader, "default", NEW) == []
    listed = await list_definitions(reader, "default")
    assert [(one.version, one.runs) for one in listed] == [(2, 0), (1, 0)]


async def test_one_that_open_runs_follow_is_told_each_time(
    database: Database, owner: Connection, reader: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await live(database, "opened")
    for _ in range(2):
        caplog.clear()
        await tell(database)
        assert "Open runs of cases that follow version 1, which is not loaded: 1." in caplog.text
    assert await over(owner) == {1: False}
    await live(database, "closed")
    assert await find_left_behind(reader, "default", NEW) == []


async def test_an_engine_that_loads_it_again_may_have_runs_follow_it(
    database: Database, owner: Connection, reader: Connection, loads: Loads
) -> None:
    await live(database, "opened", "closed")
    await tell(database)
    assert await over(owner) == {1: True}
    first = await loads(cases(1))
    assert await over(owner) == {1: False}
    await live(database, "opened", key="c2")
    await first.close()
    assert [one.runs for one in await find_left_behind(reader, "default", NEW)] == [1]


async def test_of_one_that_another_group_has_loaded_nothing_is_known(
    database: Database, owner: Connection, loads: Loads
) -> None:
    await live(database, "opened", "closed")
    await loads(cases(1), group="others")
    await tell(database)
    assert await over(owner) == {1: False}


async def test_who_loads_it_while_runs_are_counted_is_not_overlooked(
    database: Database, owner: Connection, engine: Connection, loads: Loads
) -> None:
    await live(database, "opened", "closed")
    counted = await _count(engine, "default", NEW)
    await (await loads(cases(1))).close()
    await _note_over(engine, counted)
    assert await over(owner) == {1: False}
