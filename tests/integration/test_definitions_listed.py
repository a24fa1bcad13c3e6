"""Which versions of a pipeline runs follow, and which of them engines have loaded that are there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from connectors.kafka.settings import KafkaSettings
from engine.assembly import EngineSettings, _preparer
from engine.reading import count_runs, list_definitions, list_runs, show
from engine.reading.runs import find_view
from engine.store.connecting import Connection
from engine.store.postgres import PostgresStore
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.events import Event
from statemachines.machine import compile_pipeline
from tests.cli import pointsman
from tests.feeding import event, feed
from tests.services import Database

Loads = Callable[..., Coroutine[Any, Any, PostgresStore]]


class Opened(Event, type="case.opened", key="case"):
    case: str


class Closed(Event, type="case.closed", key="case"):
    case: str


class Case(Context):
    told: str = ""


def cases(version: int, *, told: str = "", name: str = "cases") -> Pipeline[Any]:
    flow: Pipeline[Any] = Pipeline(name, Case, version=version, topics=[name])

    def begin(opened: Opened) -> Case:
        return Case(told=told)

    opened = flow.state("opened", initial=True)
    flow.start(Opened, begin)
    opened.on(Closed, to=flow.state("closed", final=True))
    return flow


@pytest.fixture
async def loads(database: Database) -> AsyncIterator[Loads]:
    """An engine comes that has these loaded, until its connection is closed."""
    there = []

    async def come(*flows: Pipeline[Any], namespace: str = "default", group: str = "") -> PostgresStore:
        machines = [compile_pipeline(flow, namespace=namespace) for flow in flows]
        settings = EngineSettings(
            database.engine_dsn, KafkaSettings("127.0.0.1:1"), namespace, group or None, strict=False
        )
        store = await PostgresStore.open(
            database.engine_dsn, namespace=namespace, group=settings.group_name, cluster="cluster"
        )
        there.append(store)
        await _preparer(settings, machines, {})(store)
        return store

    yield come
    for store in there:
        await store.close()


async def opened(database: Database, flow: Pipeline[Any], *keys: str, **where: str) -> None:
    async with feed(database, flow, **where) as feeding:  # type: ignore[arg-type]  # by name
        await feeding.records(
            *(event("case.opened", {"case": key})._replace(topic=str(flow.name)) for key in keys)
        )


async def listed(reader: Connection, **filters: Any) -> list[tuple[str, int, int, int]]:
    found = await list_definitions(reader, "default", **filters)
    return [(one.pipeline, one.version, one.runs, one.engines) for one in found]


async def test_runs_tell_which_version_they_follow_and_are_found_by_it(
    database: Database, reader: Connection
) -> None:
    await opened(database, cases(1), "c1", "c2")
    await opened(database, cases(2), "c3")
    found = {one.key: one.version for one in await list_runs(reader, "default")}
    assert found == {"c1": 1, "c2": 1, "c3": 2}
    assert {one.key for one in await list_runs(reader, "default", version=1)} == {"c1", "c2"}
    assert await count_runs(reader, "default", version=2) == 1
    assert (await find_view(reader, "default", "cases", "c3")).version == 2
    assert await listed(reader) == [("cases", 2, 1, 0), ("cases", 1, 2, 0)]
    await opened(database, cases(1, name="files"), "f1")
    assert await listed(reader, pipeline="files") == [("files", 1, 1, 0)]
    assert await listed(reader, limit=1) == [("cases", 2, 1, 0)]


async def test_what_has_ended_is_no_reason_to_load_a_version(database: Database, reader: Connection) -> None:
    async with feed(database, cases(1)) as feeding:
        for kind in ("opened", "closed"):
            await feeding.records(event(f"case.{kind}", {"case": "c1"})._replace(topic="cases"))
    assert await listed(reader) == [("cases", 1, 0, 0)]


async def test_versions_are_loaded_as_long_as_an_engine_is_there_that_has_them(
    database: Database, reader: Connection, loads: Loads
) -> None:
    await opened(database, cases(1), "c1")
    await opened(database, cases(2), "c2")
    await opened(database, cases(1), "c9", namespace="elsewhere")

    async def loaded() -> dict[str, bool | None]:
        return {one.key: one.loaded for one in await list_runs(reader, "default")}

    assert await loaded() == {"c1": None, "c2": None}, "no engine is there"
    await loads(cases(1), namespace="elsewhere")
    assert await loaded() == {"c1": None, "c2": None}, "that is another namespace's"
    first = await loads(cases(2))
    await loads(cases(2))
    assert await listed(reader) == [("cases", 2, 1, 2), ("cases", 1, 1, 0)]
    assert await loaded() == {"c1": False, "c2": True}
    assert (await show(reader, "default", "cases", "c1")).loaded is False
    assert (await show(reader, "default", "cases", "c2")).loaded is True
    await first.close()
    assert await listed(reader, limit=1) == [("cases", 2, 1, 1)]


async def test_of_a_version_that_was_changed_it_is_known_which_code_is_loaded(
    database: Database, reader: Connection, loads: Loads
) -> None:
    """As ``dev`` allows: both have one version, and one structure."""
    before, after, files = cases(1), cases(1, told="anew"), cases(3, name="files")
    await opened(database, before, "c1")
    await opened(database, after, "c2")
    await opened(database, files, "f1")
    await opened(database, cases(4, name="others"), "o1", group="others")
    await loads(after, files)
    await loads(cases(4, name="others"), group="others")
    found = {one.key: one.loaded for one in await list_runs(reader, "default")}
    assert found == {"c1": False, "c2": True, "f1": True, "o1": True}
    assert [one.engines for one in await list_definitions(reader, "default", pipeline="cases")] == [1, 0]


async def test_what_is_loaded_is_known_of_however_many_codes_versions_were_changed_to(
    database: Database, reader: Connection, loads: Loads
) -> None:
    """Also of a group that has read nothing yet, and of two that have the same."""
    names = ("cases", "files", "others")
    for told in range(22):
        await (await loads(*(cases(1, told=str(told), name=name) for name in names))).close()
    for _ in range(2):
        await loads(*(cases(1, told="0", name=name) for name in names), group="new")
    await loads(cases(1, told="0"))
    assert [one[3] for one in await listed(reader)] == [*[0] * 21, 3, *[0] * 21, 2, *[0] * 21, 2]


async def test_the_command_line_says_of_runs_that_they_wait_for_their_version(
    database: Database, loads: Loads
) -> None:
    await opened(database, cases(1), "c1")
    await opened(database, cases(2), "c2")
    await loads(cases(2))
    looking = {"POSTGRES": database.reader_dsn}
    answer = pointsman("runs", on=looking)
    assert "1, not loaded  running" in answer.out
    assert "Those whose version is not loaded wait for it." in answer.err
    assert "not loaded" not in pointsman("runs", "--version", "2", on=looking).out
    waits = "waits       the version that it follows is not loaded. Load it, or have its runs follow another one: "
    map_it = "pointsman definitions map cases --from 1 --to VERSION --reason TEXT"
    assert waits + map_it in pointsman("show", "c1", on=looking).out
    assert "waits" not in pointsman("show", "c2", on=looking).out
    told = pointsman("definitions", "list", on=looking)
    assert told.code == 0, told.err
    (head, newer, older) = (line.split() for line in told.out.splitlines())
    assert head == ["pipeline", "version", "definition", "code", "since", "open", "runs", "engines"]
    assert (newer[:2], newer[-2:], older[:2], older[-2:]) == (
        ["cases", "2"],
        ["1", "1"],
        ["cases", "1"],
        ["1", "0"],
    )
    slip = pointsman("definitions", "list", "--pipeline", "case", on=looking)
    assert slip.err.startswith("No definitions. No pipeline 'case' was ever run")
