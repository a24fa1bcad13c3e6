"""What waits for its definition goes on by an engine that has it, asked to once, however often that begins anew."""

from __future__ import annotations

from datetime import UTC, datetime

from engine.reading import list_runs
from engine.store.connecting import Connection
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.events import Event
from tests.feeding import event, feed
from tests.operators import ask_pipeline
from tests.services import Database

TOPIC = "cases"
ASKED = "select count(*) from pointsman.inbox where command = 'release'"


class Opened(Event, type="case.opened", key="case"):
    case: str


class Told(Event, type="case.told", key="case"):
    case: str


class Case(Context):
    told: int = 0


def tell(case: Case, event: Told) -> None:
    case.told += 1


def cases(version: int) -> Pipeline[Case]:
    flow = Pipeline("cases", Case, version=version, topics=[TOPIC])
    going = flow.state("going", initial=True)
    flow.start(Opened, lambda event: Case())
    going.on(Told, do=tell)
    return flow


async def test_a_run_is_asked_to_go_on_once_while_its_pipeline_is_paused(
    database: Database, reader: Connection
) -> None:
    names = "c1", "c2"
    async with feed(database, cases(1)) as feeding:
        await feeding.records(*(event("case.opened", {"case": name}, topic=TOPIC) for name in names))
    async with feed(database, cases(2)) as feeding:
        await feeding.records(*(event("case.told", {"case": name}, topic=TOPIC) for name in names))
        await ask_pipeline(feeding, "pause", "cases")
    assert await reader.fetchval(ASKED) == 0
    for _ in range(3):
        async with feed(database, cases(1), cases(2)) as feeding:
            await feeding.commands()
            assert await reader.fetchval(ASKED) == len(names)
    async with feed(database, cases(1), cases(2)) as feeding:
        await ask_pipeline(feeding, "resume", "cases")
        while await reader.fetchval(ASKED):
            await feeding.commands()
    found = await list_runs(reader, "default")
    assert {run.key: (run.status, run.context and run.context["told"]) for run in found} == dict.fromkeys(
        names, ("running", 1)
    )


async def test_what_an_engine_without_the_definition_has_wait_goes_on_by_one_that_has_it(
    database: Database, reader: Connection
) -> None:
    async with feed(database, cases(1), cases(2)) as having, feed(database, cases(1)) as without:
        await having.records(event("case.opened", {"case": "c1"}, topic=TOPIC))
        await without.records(event("case.told", {"case": "c1"}, topic=TOPIC))
        [run] = await list_runs(reader, "default")
        assert (run.version, run.status) == (2, "held")
        await having.store.keep_up(datetime.now(UTC))
        await without.commands()
        assert await reader.fetchval(ASKED) == 0
        [run] = await list_runs(reader, "default")
        assert run.status == "held"
        await having.store.keep_up(datetime.now(UTC))
        await having.commands()
    [run] = await list_runs(reader, "default")
    assert (run.status, run.context) == ("running", {"told": 1})
