"""What an engine is refused for before its group hears of it: all others would stand still for it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from connectors.kafka.settings import KafkaSettings
from engine.admission import join_set, register, tell_clock
from engine.assembly import EngineSettings, assemble
from engine.errors import RefusedError
from engine.store.connecting import connect
from engine.store.postgres import PostgresStore
from statemachines import Context, Event, Pipeline
from statemachines.machine import Machine, compile_pipeline
from tests.services import Database

NOBODY = "127.0.0.1:1"
"""Where no Kafka is: whoever gets that far is not refused."""


class Opened(Event, type="opened"):
    pass


class Case(Context):
    pass


def machine(version: int = 1, state: str = "open") -> Machine:
    flow = Pipeline("cases", Case, version=version, topics=["cases"])
    flow.state(state, initial=True)
    flow.start(Opened, lambda opened: Case())
    return compile_pipeline(flow)


async def refused(database: Database, *machines: Machine) -> str:
    settings = EngineSettings(database.engine_dsn, KafkaSettings(NOBODY))
    with pytest.raises(RefusedError) as error:
        await assemble(settings, machines)
    return str(error.value)


@pytest.mark.parametrize(
    ("apart", "told"),
    [
        (timedelta(minutes=5), r"300 s ahead of the database's: .* too early, .*\(NTP\)"),
        (-timedelta(minutes=5), r"300 s behind the database's: .* too late, .*\(NTP\)"),
        (timedelta(), "^$"),
    ],
)
async def test_who_begins_by_another_clock_than_the_database_says_what_follows(
    database: Database, caplog: pytest.LogCaptureFixture, apart: timedelta, told: str
) -> None:
    connection = await connect(database.engine_dsn)
    try:
        await tell_clock(connection, datetime.now(UTC) + apart)
    finally:
        await connection.close()
    assert re.search(told, " ".join(caplog.messages))


async def test_an_engine_with_other_pipelines_than_its_group_is_refused_before_it_joins(
    database: Database,
) -> None:
    another = await connect(database.engine_dsn)
    try:
        await join_set(another, "default", "pointsman.default", [machine()])
        said = await refused(database, machine(), machine(2))
    finally:
        await another.close()
    assert "has loaded other pipelines: cases version 1" in said
    assert "What differs" not in said


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (replace(machine(), code=bytes(32)), "the code of cases version 1"),
        (machine(state="ajar"), "the structure of cases version 1"),
    ],
)
async def test_what_differs_of_the_same_version_in_two_engines_of_a_group_is_named(
    database: Database, other: Machine, what: str
) -> None:
    another = await connect(database.engine_dsn)
    try:
        await join_set(another, "default", "pointsman.default", [other])
        said = await refused(database, machine())
    finally:
        await another.close()
    assert f"cases version 1 ({other.hash.hex()[:8]}, code {other.code.hex()[:8]})" in said
    assert f"This one would load cases version 1 ({machine().hash.hex()[:8]}, code " in said
    assert f"What differs is {what}. Engines" in said


@pytest.mark.parametrize(
    ("loaded", "why"),
    [
        ([machine(2, "ajar")], "version 2 was run with another structure before"),
        ([machine(1)], "is registered with version 2, newer than any that is loaded here"),
        ([machine(1)], "To go back to what this one does, give it version 3."),
    ],
)
async def test_an_engine_with_an_older_or_a_changed_definition_is_refused_before_it_joins(
    database: Database, loaded: list[Machine], why: str
) -> None:
    store = await PostgresStore.open(database.engine_dsn, namespace="default", group="g", cluster="c")
    try:
        await register(store, [machine(1), machine(2)], strict=True)
    finally:
        await store.close()
    assert why in await refused(database, *loaded)


async def test_a_changed_definition_that_no_open_run_follows_is_not_warned_of(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Of open runs it is told beside the engine, with their number."""
    store = await PostgresStore.open(database.engine_dsn, namespace="default", group="g", cluster="c")
    try:
        await register(store, [machine(1)], strict=False)
        [changed] = await register(store, [machine(1, "ajar")], strict=False)
    finally:
        await store.close()
    assert changed.machine.version == 1
    assert [one.getMessage() for one in caplog.records if one.levelname == "WARNING"] == []
