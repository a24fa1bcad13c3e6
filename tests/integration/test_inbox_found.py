"""However many commands wait in front of others, on a real Postgres: nothing is asked for each that is passed over."""

from __future__ import annotations

import re

from engine.store.connecting import Connection
from engine.store.queries import load

MANY = 1_000
_WAIT = """
    insert into pointsman.inbox (namespace, pipeline, command, body, who, why)
    select 'default', 1 + number % 2, 'cancel', '{}', 'ana', 'not wanted' from generate_series(1, 2 * $1::int) number
"""
_PAUSE = (
    "insert into pointsman.pauses (pipeline, command, who, why, at) values (2, 1, 'ana', 'mended', now())"
)


async def test_which_pipelines_are_paused_is_asked_once(owner: Connection, engine: Connection) -> None:
    await owner.execute(
        "insert into pointsman.pipelines (namespace, name) values ('default', 'a'), ('default', 'b')"
    )
    await owner.execute(_WAIT, MANY)
    await owner.execute(_PAUSE)
    await engine.execute(f"prepare looks as {load('store')['read_inbox']}")
    rows = await engine.fetch(
        "explain (analyze, costs off, timing off, buffers off) "
        f"execute looks ('default', '{{1,2}}', {2 * MANY}, 'group', '{{}}', '{{}}')"
    )
    plan = "\n".join(row[0] for row in rows)
    assert re.search(rf"^Limit \(actual rows={MANY}\b", plan), plan
    [loops] = re.findall(r"on pauses p \(actual .*loops=(\d+)", plan)
    assert loops == "1", plan
    assert re.findall(r"on tokens .*never executed", plan), plan
