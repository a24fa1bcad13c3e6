"""What has fallen due is found by its index: what it takes depends on neither how many wait nor how many are due."""

from __future__ import annotations

import re

import pytest

from engine.homes import HOMES
from engine.store.connecting import Connection
from engine.store.queries import load
from tests.feeding import BEGINS, event, feed
from tests.journey import TOPIC, journey_pipeline
from tests.many import runs_alike
from tests.services import Database

MANY = 20_000
LIMIT, EACH = 10, 2
DUE = load("store")["due_runs"]
BUT = {"store": ("due_runs", "begin_executions", "begin_untried", "read_inbox"), "limits": ("begin_limited",)}
"""Statements that pass over rows which are known by the engine, of which there may be thousands."""


async def explained(engine: Connection, name: str) -> str:
    homes, now = ",".join(map(str, range(HOMES))), BEGINS.isoformat()
    await engine.execute(f"prepare {name} (smallint[], int[], timestamptz[], int[], int, text, int) as {DUE}")
    rows = await engine.fetch(
        f"explain (analyze, buffers off, costs off, timing off, summary off) "
        f"execute {name} ('{{{homes}}}', '{{1}}', array[timestamptz '{now}'], '{{1}}', {LIMIT}, '{{}}', {EACH})"
    )
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("analyzed", [True, False])
async def test_only_as_many_are_looked_at_as_are_taken(
    database: Database, owner: Connection, engine: Connection, *, analyzed: bool
) -> None:
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(event("journey.booked", {"journey": "j1"}, topic=TOPIC))
    # The plan is made before there is anything, as that of an engine that starts on an empty store.
    plans = [await explained(engine, "before")]
    await runs_alike(
        owner,
        "j1",
        range(1, 1 + MANY),
        f"timestamptz '{BEGINS.isoformat()}' + interval '1 day' + number * interval '1 s'",
    )
    if analyzed:
        await owner.execute("analyze pointsman.runs")
    plans.append(await explained(engine, "waiting"))
    await runs_alike(
        owner,
        "j1",
        range(1 + MANY, 1 + 2 * MANY),
        f"timestamptz '{BEGINS.isoformat()}' - number * interval '1 s'",
    )
    if analyzed:
        await owner.execute("analyze pointsman.runs")
    plans.append(await explained(engine, "due"))
    for plan in plans:
        assert "using runs_due" in plan, plan
        assert "Seq Scan" not in plan, plan
    [none] = re.findall(r"using runs_due.*rows=([\d.]+) loops=16", plans[1])
    assert float(none) == 0, "of those that wait, none is looked at"
    [some] = re.findall(r"using runs_due.*rows=([\d.]+) loops=16", plans[2])
    assert float(some) <= EACH, "of those that are due, no more than are asked for, of each home"
    reading, _, _ = plans[2].partition("InitPlan")
    assert "Rows Removed" not in reading, plans[2]


@pytest.mark.parametrize(("file", "name"), [(file, name) for file, names in BUT.items() for name in names])
async def test_what_is_passed_over_is_looked_up_and_not_compared_with_one_by_one(
    engine: Connection, file: str, name: str
) -> None:
    statement = load(file)[name]
    await engine.execute("set plan_cache_mode = force_generic_plan")
    await engine.execute(f"prepare passing as {statement}")
    number = max(int(one) for one in re.findall(r"\$(\d+)", statement))
    rows = await engine.fetch(f"explain execute passing ({', '.join(['null'] * number)})")
    plan = "\n".join(row[0] for row in rows)
    assert "hashed SubPlan" in plan, plan
    assert "<> ALL" not in plan, plan
