"""Runs of a chart in a real Postgres: what is stored, loaded again, folded, replayed and shown."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from connectors.source import Partition, RawRecord
from engine.errors import UsageError
from engine.reading import explain, history, list_runs, replay, show, verify
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from tests.feeding import event, feed
from tests.incident import incident_pipeline
from tests.services import Database

PLACE = Partition("incidents", 0)


def told(kind: str, **data: Any) -> RawRecord:
    return event(kind, {"incident": "i1", **data}, id=f"{kind} {data.get('by', '')}", topic=PLACE.topic)


LIFE = {
    told("incident.reported", severity=3): "active repair queued customer waiting",
    told("incident.taken", by="ada"): "active repair work looking customer waiting",
    told("incident.taken", by="eve"): "active repair work fixing customer waiting",
    told("incident.suspended"): "suspended",
    told("incident.resumed"): "active repair work fixing customer waiting",
    told("incident.mended"): "active repair repaired customer waiting",
    told("customer.told"): "closed",
}


@pytest.mark.parametrize("reloaded", [True, False])
async def test_a_run_goes_the_same_way_in_one_engine_and_in_another_for_each_event(
    database: Database, reader: Connection, *, reloaded: bool
) -> None:
    records = list(LIFE)
    for some in [[one] for one in records] if reloaded else [records]:
        async with feed(database, incident_pipeline()) as feeding:
            await feeding.records(*some)
    rows = await history(reader, "default", "incident", "i1")
    assert [" ".join(row.to_states) for row in rows] == list(LIFE.values())
    [run] = await list_runs(reader, "default", status="completed")
    notes = ["entered work", "left work", "entered work", "left work"]
    assert run.as_json()["context"]["notes"] == notes
    assert (await show(reader, "default", "incident", "i1", at_sequence=4)).configuration == ["suspended"]
    assert (await verify(reader, "default")).is_clean
    replayed = await replay(reader, "default", [compile_pipeline(incident_pipeline())])
    assert replayed.is_equal, replayed


async def test_what_a_history_remembers_is_stored_and_is_no_state_of_the_run(
    database: Database, reader: Connection
) -> None:
    async with feed(database, incident_pipeline()) as feeding:
        await feeding.records(*list(LIFE)[:4])
    stored = await reader.fetchval("select configuration from pointsman.runs")
    assert stored == "suspended  back 1 fixing"
    assert [one.key for one in await list_runs(reader, "default", state="suspended")] == ["i1"]
    for word in ("fixing", "back"):
        assert await list_runs(reader, "default", state=word) == []
    with pytest.raises(UsageError, match="has a state '1'"):
        await list_runs(reader, "default", state="1")
    [answer] = (await explain(reader, "default", event_id="incident.suspended ")).answers
    assert answer.current.sentence.startswith(
        "It moved the run 'i1' of incident from active repair work fixing"
    )
    assert "to suspended (row 4)" in answer.current.sentence


async def test_one_row_of_the_log_has_all_that_one_event_led_to(
    database: Database, reader: Connection
) -> None:
    severe = event("incident.reported", {"incident": "i2", "severity": 1}, topic=PLACE.topic)
    async with feed(database, incident_pipeline()) as feeding:
        await feeding.records(severe)
    [row] = await reader.fetch("select effects, context, configuration from pointsman.events")
    assert [one["type"] for one in orjson.loads(row["effects"])] == ["incident.entered"]
    assert orjson.loads(row["context"])["owner"] == "on call for i2"
    assert row["configuration"] == "active repair work looking customer waiting"


async def test_an_event_from_inside_of_runs_is_of_an_unknown_type_from_outside(
    database: Database, reader: Connection
) -> None:
    async with feed(database, incident_pipeline()) as feeding:
        await feeding.records(
            *list(LIFE)[:1], told("done.state.active"), told("error.execution", handler="h", error="e")
        )
    rows = await reader.fetch("select reason, type from pointsman.dead_letters order by id")
    assert [tuple(row) for row in rows] == [
        ("unknown type", "done.state.active"),
        ("unknown type", "error.execution"),
    ]
