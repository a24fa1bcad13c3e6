"""What is known of a step that a run has asked for, by the key that all of its attempts share."""

from __future__ import annotations

from typing import Any

from engine.log import Kind
from engine.reading.catalog import SQL, Catalog
from engine.reading.explain import step_words
from engine.reading.explain.answers import Origin
from engine.reading.explain.found import FoundNote
from engine.reading.explain.origins import is_derived, origin_in
from engine.reading.explain.step_words import Ender, HeardIn
from engine.reading.rows import folded_rows
from engine.reading.runs import find_run
from engine.reading.working import NONE, CompensationView, StepView, Working
from engine.store.connecting import Connection
from statemachines.events import Address

TOLD_MAX = 20
"""So many rows of one execution are told, the last ones."""
_LEAVES_WAIT = frozenset({Kind.LEFT_WAITING})


async def executions_told(connection: Connection, catalog: Catalog, event_id: str) -> list[str]:
    """What is known of an execution by its key, or by the id of an outcome that has not come."""
    key = event_id.partition("/")[0]
    if not is_derived(key):
        return []
    found = await _run_of(connection, catalog.namespace, key)
    if found is None:
        return []
    origin = await origin_in(connection, catalog.namespace, found["name"], found["key"], key)
    if origin is None or origin.what != "step":
        return []
    begin = step_words.is_key(origin) if key == event_id else step_words.no_outcome(origin)
    return [begin, *await _told(connection, catalog, origin, key)]


async def _run_of(connection: Connection, namespace: str, key: str) -> Any:
    # The first attempt ends in one of these ways, whatever becomes of those after it.
    outcomes = [f"{key}/1", f"{key}/1/done", f"{key}/1/stopped", f"{key}/1/waits"]
    found = await connection.fetchrow(SQL["run_with_outcome"], namespace, outcomes)
    if found is None:
        found = await connection.fetchrow(SQL["run_with_execution"], namespace, key)
    if found is None:
        found = await connection.fetchrow(SQL["run_with_void_outcome"], namespace, outcomes)
    return found


async def _told(connection: Connection, catalog: Catalog, origin: Origin, key: str) -> list[str]:
    """The rows that tell of an execution, and how far it has come."""
    run = await find_run(connection, catalog.namespace, origin.pipeline, origin.key, origin.generation)
    definition = catalog.definitions.get(run.definition)
    address = Address(catalog.namespace, origin.pipeline, run.key, run.generation, 0)
    working = Working(address, definition.compensations if definition else {})
    heard: list[str] = []
    async for folded in folded_rows(connection, run):
        one, row = working.take(folded), folded.row
        if one is not None and one.of.idempotency_key == key and row.kind not in _LEAVES_WAIT:
            waits = row.kind == Kind.WAITED
            heard.append(step_words.heard_sentence(HeardIn(row.sequence, row.at, one, waits)))
    going = await connection.fetch(SQL["executions_going"], run.id)
    left_out = len(heard) - TOLD_MAX
    more = [f"{left_out:,} rows before these tell of earlier attempts."] if left_out > 0 else []
    return [*more, *heard[-TOLD_MAX:], *_ends(working.steps([tuple(one) for one in going]), key)]


def _ends(steps: list[StepView], key: str) -> list[str]:
    said: list[str] = []
    for step in steps:
        undoing: CompensationView | None = step.compensation
        if step.of.idempotency_key == key:
            said.append(step_words.stands(step))
            if undoing is not None and (step.ended is not None or undoing.status != NONE):
                said.append(step_words.undoing(undoing))
        elif undoing is not None and undoing.idempotency_key == key:
            said.append(step_words.stands(undoing))
    return [one for one in said if one]


async def why_void(connection: Connection, namespace: str, note: FoundNote, origin: Origin | None) -> str:
    """Why a run did not wait for the result of a step any more; empty where that is not known."""
    if origin is None or origin.step is None:
        return ""
    row = await connection.fetchrow(
        SQL["ends_of_execution"],
        namespace,
        origin.pipeline,
        origin.key,
        origin.generation,
        origin.sequence,
        note.at,
        origin.step.idempotency_key,
    )
    return step_words.why_void(None if row is None else Ender(*row), note.event_id)
