"""A run as it is, or as it was after one of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.log import Kind, LogRow
from engine.reading.asked import Deferral, Deferrals, deferral_in
from engine.reading.catalog import SQL, StoredDefinition, load_catalog
from engine.reading.definitions import loaded_now
from engine.reading.dropped import check_not_dropped
from engine.reading.due import MemoryView, memory_view
from engine.reading.errors import NotFoundError
from engine.reading.history import HistoryRow, history_row
from engine.reading.rows import (
    Folded,
    folded_rows,
    has_record,
    holding_after,
    is_command,
    raw_record,
    record_view,
)
from engine.reading.runs import find_run, word_for
from engine.reading.stuck import StuckView, stuck_view
from engine.reading.values import RecordView, json_of, shown_time, states_of
from engine.reading.waits import with_reasons
from engine.reading.working import StepView, Working
from engine.store.connecting import Connection
from statemachines.events import Address
from statemachines.run import Run


@dataclass(frozen=True, slots=True)
class RunAt:
    """A run after one of its rows, and what caused it."""

    namespace: str
    pipeline: str
    key: str
    generation: int
    sequence: int
    latest: int
    """The sequence number of the run's last row."""
    status: str
    configuration: list[str]
    context: Any
    held: int | None
    stuck: StuckView | None
    """The failure of a step, or of a compensation, that holds it."""
    waiting: int
    memory: MemoryView
    deferred: list[Deferral]
    """Events that wait for the run to take them, the oldest first."""
    steps: list[StepView]
    """In the order in which they were asked for."""
    started: datetime
    at: datetime
    version: int | None
    """Of the definition that it follows."""
    definition: str | None
    """That definition's hash."""
    row: HistoryRow
    record: RecordView | None
    """The record; None where a command caused the row. What came from inside of a run has one without a topic."""
    command: Any
    """The command; None where a record caused the row."""
    lacks_definition: bool = False
    """Whether it is held because the version that it follows was not loaded."""
    loaded: bool | None = None
    """Whether an engine that is there has loaded that definition; None: none is there, or this is not its last row."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "namespace": self.namespace,
            "pipeline": self.pipeline,
            "key": self.key,
            "generation": self.generation,
            "sequence": self.sequence,
            "latest": self.latest,
            "status": self.status,
            "configuration": self.configuration,
            "context": self.context,
            "held": self.held,
            "stuck": None if self.stuck is None else self.stuck.as_json(),
            "waiting": self.waiting,
            "deferred": [one.as_json() for one in self.deferred],
            "due": [one.as_json() for one in self.memory.due],
            "steps": [one.as_json() for one in self.steps],
            "marks": dict(self.memory.marks),
            "seen": dict(self.memory.seen),
            "output": self.memory.output,
            "started": shown_time(self.started),
            "at": shown_time(self.at),
            "version": self.version,
            "loaded": self.loaded,
            "definition": self.definition,
            "from": self.row.from_states,
            "effects": self.row.effects,
            "attempt": None if self.row.heard is None else self.row.heard.as_json(),
            "deferral": None if self.row.deferral is None else self.row.deferral.as_json(),
            "hash": self.row.hash,
            "event": self.row.event.as_json(),
            "record": None if self.record is None else self.record.as_json(),
            "command": _asked_for(self.command),
        }


def _asked_for(command: Any) -> Any:
    """A command with the names that its options have."""
    if not isinstance(command, dict):
        return command
    said = {"reason" if name == "why" else name: value for name, value in command.items()}
    return {**said, "mapping": command.get("mapping")}


async def show(
    connection: Connection,
    namespace: str,
    pipeline: str,
    key: str,
    generation: int | None = None,
    *,
    at_sequence: int | None = None,
) -> RunAt:
    """The run after row ``at_sequence`` (None: its last), by folding its rows; no user code runs.

    Raises:
        NotFoundError: there is no such run, or no such row, or its rows were dropped.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        run = await find_run(connection, namespace, pipeline, key, generation)
        await check_not_dropped(connection, pipeline, run)
        catalog = await load_catalog(connection, namespace)
        wanted = run.sequence if at_sequence is None else at_sequence
        found: Folded | None = None
        known = catalog.definitions.get(run.definition)
        deferred = Deferrals()
        holding: int | None = None
        held_by: LogRow | None = None
        working = Working(
            Address(namespace, pipeline, run.key, run.generation, 0), known.compensations if known else {}
        )
        async for folded in folded_rows(connection, run, wanted):
            found = folded
            deferred.take(folded.row)
            holding = holding_after(folded, holding)
            held_by = folded.row if folded.after.held == folded.row.sequence else held_by
            working.take(folded)
        is_last = wanted == run.sequence
        going = await connection.fetch(SQL["executions_going"], run.id) if is_last else ()
        loaded = await loaded_now(connection, namespace) if is_last else {}
        steps = working.steps([tuple(one) for one in going])
        if is_last:
            steps = await with_reasons(connection, namespace, pipeline, run.id, steps)
    if found is None or found.row.sequence != wanted:
        raise NotFoundError(
            f"The run {key!r} of {pipeline!r} has no row {wanted}; its rows are 1 to {run.sequence}."
        )
    row, after = found.row, found.after
    definition = catalog.definitions.get(row.definition)
    caused = not is_command(row.kind)
    return RunAt(
        namespace=namespace,
        pipeline=pipeline,
        key=run.key,
        generation=run.generation,
        sequence=row.sequence,
        latest=run.sequence,
        status=word_for(after.status, holding),
        configuration=states_of(after.configuration),
        context=json_of(after.context),
        held=after.held or None,
        stuck=_stuck(namespace, pipeline, after, held_by, definition) if after.held and held_by else None,
        waiting=after.waiting,
        memory=memory_view(namespace, pipeline, after),
        deferred=[one for one in map(deferral_in, deferred) if one is not None],
        steps=steps,
        started=after.started,
        at=row.at,
        version=None if definition is None else definition.version,
        definition=None if definition is None else definition.hash.hex(),
        row=history_row(found, pipeline, catalog),
        record=record_view(raw_record(row, run.key, catalog)) if caused else None,
        command=None if caused else json_of(row.payload or b"null"),
        lacks_definition=holding == Kind.WAITED,
        loaded=row.definition in loaded if loaded else None,
    )


def _stuck(
    namespace: str, pipeline: str, after: Run, held_by: LogRow, known: StoredDefinition | None
) -> StuckView | None:
    payload, structure = None if has_record(held_by) else held_by.payload, known.structure if known else b""
    return stuck_view(namespace, pipeline, after, held_by.kind, held_by.type, payload, structure)
