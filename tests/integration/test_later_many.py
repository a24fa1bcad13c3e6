"""However many steps go on outside: who looks for what may begin passes over them, and tokens are found by an index."""

from __future__ import annotations

import re

import pytest

from engine.homes import HOMES
from engine.steps.executions import FAR
from engine.store.connecting import connect
from engine.store.queries import load
from tests.feeding import BEGINS, event, feed
from tests.lending import TOPIC, clear, lending_pipeline
from tests.many import runs_alike
from tests.services import Database

MANY = 20_000
SQL = load("store")
_WAIT = """
    insert into pointsman.executions (pipeline, home, run, sequence, number, step, attempt, again, error, token)
    select 1, number % $4::int, 1000000 + number, $3::int, 0, 'review', 1, $2::timestamptz, '', 'token ' || number
    from generate_series(1, $1::int) number
"""
_KNOW = """
    insert into pointsman.tokens (namespace, token, pipeline, key, run, sequence, number, step, attempt, waits)
    select 'default', 'token ' || number, 1, 'k', 1000000 + number, 1, 0, 'review', 1, true
    from generate_series(1, $1::int) number
"""


@pytest.mark.parametrize("analyzed", [True, False])
async def test_of_those_that_go_on_outside_none_is_looked_at(database: Database, *, analyzed: bool) -> None:
    clear()
    owner = await connect(database.owner_dsn, for_engine=False)
    engine = await connect(database.engine_dsn)
    homes, now = ",".join(map(str, range(HOMES))), BEGINS.isoformat()
    try:
        async with feed(database, lending_pipeline()) as feeding:
            await feeding.records(event("loan.applied", {"loan": "l1"}, topic=TOPIC))
            await feeding.work()
        await runs_alike(owner, "l1", range(1_000_001, 1_000_001 + MANY))
        for again in (FAR, BEGINS.replace(year=2030)):
            await owner.execute(_WAIT, MANY, again, again.year, HOMES)
        await owner.execute(_KNOW, MANY)
        if analyzed:
            await owner.execute("analyze pointsman.executions, pointsman.tokens, pointsman.runs")
        await engine.execute(
            "prepare begin_them (int[], text[], int[], timestamptz, smallint[], bigint[], int[], bigint) as "
            + SQL["begin_executions"]
        )
        rows = await engine.fetch(
            "explain (analyze, buffers off, costs off, timing off, summary off) execute begin_them "
            f"('{{1}}', '{{review}}', '{{10}}', timestamptz '{now}', '{{{homes}}}', '{{}}', '{{1}}', 1)"
        )
        plan = "\n".join(row[0] for row in rows)
        [looked_at] = re.findall(r"using executions_waiting.*rows=([\d.]+) loops=", plan)
        assert float(looked_at) == 0, plan
        assert "Seq Scan on executions" not in plan, plan
        await engine.execute(
            "prepare tell_of_them "
            "(int[], text[], timestamptz[], int, smallint[], bigint[], int[], bigint, timestamptz) as "
            + SQL["begin_untried"]
        )
        rows = await engine.fetch(
            "explain (analyze, buffers off, costs off, timing off, summary off) execute tell_of_them "
            f"('{{1}}', '{{review}}', '{{1970-01-01}}', 10, '{{{homes}}}', '{{}}', '{{1}}', 1, timestamptz '{now}')"
        )
        plan = "\n".join(row[0] for row in rows)
        [looked_at] = re.findall(r"executions_outside.*rows=([\d.]+) loops=", plan)
        assert float(looked_at) == 0, plan
        assert "Seq Scan on executions" not in plan, plan
        await engine.execute("prepare find_them (text, text[]) as " + SQL["find_tokens"])
        rows = await engine.fetch("explain execute find_them ('default', array['token 7'])")
        found = "\n".join(row[0] for row in rows)
        assert "tokens_pkey" in found, found
    finally:
        await owner.close()
        await engine.close()
