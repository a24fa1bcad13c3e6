"""Which way a run took, as its rows say it; and how many runs are in each state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.log import CONSUMED, Kind
from engine.reading.catalog import SQL, load_catalog
from engine.reading.dropped import check_not_dropped
from engine.reading.due import delayed_id, memory_of
from engine.reading.rows import ROWS_AHEAD
from engine.reading.runs import RunStatus, find_run, word_for
from engine.reading.values import states_of
from engine.store.connecting import Connection
from statemachines.run import Run, Status, active_in
from statemachines.way import Passage, Rows


@dataclass(frozen=True, slots=True)
class RunPassages:
    """A run, and where its events led it."""

    pipeline: str
    key: str
    generation: int
    status: RunStatus
    configuration: list[str]
    sequence: int
    version: int | None
    """Of the definition that it follows."""
    definition: bytes | None
    """That definition's hash."""
    passages: list[tuple[Passage, Rows]]
    """Each with the rows that are alike; the one that happened first is the first."""


async def passages_of(
    connection: Connection, namespace: str, pipeline: str, key: str, generation: int | None = None
) -> RunPassages:
    """What the log says of where a run went; the latest generation of the key where none is given.

    Raises:
        NotFoundError: there is no such run, or its rows were dropped.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        run = await find_run(connection, namespace, pipeline, key, generation)
        await check_not_dropped(connection, pipeline, run)
        definition = (await load_catalog(connection, namespace)).definitions.get(run.definition)
        found: dict[Passage, Rows] = {}
        before: str | None = None
        memory = b""
        holding: int | None = None
        async for row in connection.cursor(SQL["way_of_run"], run.id, prefetch=ROWS_AHEAD):
            holding = row["kind"] if row["sequence"] == run.held else holding
            fired = row["kind"] == Kind.FIRED and not _leaves(
                namespace, pipeline, run, memory, row["event_id"]
            )
            # Where no transition took it, the run has ended where it was.
            cancelled = row["kind"] == Kind.CANCELLED and row["status"] != Status.CANCELLED
            if row["kind"] == Kind.MAPPED:
                # Where it went before, it went by another chart.
                found.clear()
            if fired or cancelled or row["kind"] in CONSUMED:
                passage = Passage(row["type"], before, row["configuration"])
                found.setdefault(passage, Rows()).add_row(row["sequence"])
            # A run that no event has started yet is nowhere.
            before, memory = row["configuration"] or None, row["memory"] or memory
    return RunPassages(
        pipeline=pipeline,
        key=run.key,
        generation=run.generation,
        status=word_for(run.status, holding),
        configuration=states_of(run.configuration),
        sequence=run.sequence,
        version=None if definition is None else definition.version,
        definition=None if definition is None else definition.hash,
        passages=list(found.items()),
    )


def _leaves(namespace: str, pipeline: str, run: Run, memory: bytes, event_id: str) -> bool:
    """Whether what fell due was for another run, or for a topic, and led this one nowhere."""
    others = (one for one in memory_of(memory).delayed if not one.is_own)
    return any(delayed_id(namespace, pipeline, run, one) == event_id for one in others)


@dataclass(slots=True)
class StateCounts:
    """Of the runs of one version of a pipeline."""

    runs: int
    states: dict[str, int]
    """How many are in each state that any is in; a completed run is in the final state that it reached, and one that
    was cancelled in none."""


async def count_states(
    connection: Connection, namespace: str, pipelines: Sequence[str]
) -> dict[tuple[str, int], StateCounts]:
    """How many runs are in each state, by pipeline and version: exact, by one pass over these pipelines' runs.

    Without those that were cancelled, which are in none.
    """
    found: dict[tuple[str, int], StateCounts] = {}
    for row in await connection.fetch(
        SQL["count_states"], namespace, sorted(set(pipelines)), int(Status.CANCELLED)
    ):
        counts = found.setdefault((row["name"], row["version"]), StateCounts(0, {}))
        counts.runs += row["runs"]
        for state in active_in(row["configuration"]):
            counts.states[state] = counts.states.get(state, 0) + row["runs"]
    return found
