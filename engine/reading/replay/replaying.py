"""Runs recorded events through a given definition, in sequence; touches nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from engine.errors import UsageError
from engine.reading.catalog import SQL, Catalog, StoredDefinition, load_catalog
from engine.reading.errors import NotFoundError
from engine.reading.replay.report import MISMATCHES_MAX, Mismatch, ReplayReport
from engine.reading.replay.rerun import HoldReason, Rerun
from engine.reading.rows import ROWS_AHEAD, log_row
from engine.reading.runs import find_run
from engine.store.connecting import Connection
from statemachines.machine import Machine
from statemachines.run import Run
from statemachines.suggest import did_you_mean

RUNS_AT_ONCE = 200


@dataclass(slots=True)
class _Tally:
    runs: int = 0
    equal_runs: int = 0
    rows: int = 0
    equal_rows: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    more: int = 0
    notes: dict[str, None] = field(default_factory=dict)


async def replay(
    connection: Connection,
    namespace: str,
    machines: Sequence[Machine],
    *,
    run: tuple[str, str, int | None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayReport:
    """Replay all runs of the machines' pipelines, or one: (pipeline, key, generation or None for the latest).

    A row is run through the given definition of the version that is recorded, or, where that is not given,
    through the one with the nearest version. User code runs: guards, actions and builds, which are pure.

    Raises:
        NotFoundError: there is no such run, or no run of any of these pipelines.
        UsageError: the run is of a pipeline that is not given.
    """
    by_name: dict[str, list[Machine]] = {}
    for machine in machines:
        by_name.setdefault(machine.name, []).append(machine)
    if run is not None and run[0] not in by_name:
        raise UsageError(f"The pipeline {run[0]!r} is not among those given. {did_you_mean(run[0], by_name)}")
    tally = _Tally()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        catalog = await load_catalog(connection, namespace)
        number = None if run is None else (await find_run(connection, namespace, *run)).id
        wanted = by_name if run is None else {run[0]: by_name[run[0]]}
        pipelines = {n: wanted[name] for n, name in catalog.pipelines.items() if name in wanted}
        if not pipelines:
            raise NotFoundError(
                f"None of these pipelines was ever run in the namespace {namespace!r}: {', '.join(wanted)}. "
                f"Run were: {', '.join(catalog.pipelines.values()) or 'none'}."
            )
        async for pipeline, stored in _runs(connection, list(pipelines), number):
            await _replay_run(connection, catalog, pipeline, stored, pipelines[pipeline], tally)
            if progress is not None:
                progress(tally.runs, tally.rows)
    return ReplayReport(
        namespace,
        tuple(wanted),
        tally.runs,
        tally.equal_runs,
        tally.rows,
        tally.equal_rows,
        tuple(tally.mismatches),
        tally.more,
        tuple(tally.notes),
    )


async def _runs(
    connection: Connection, pipelines: list[int], number: int | None
) -> AsyncIterator[tuple[int, Run]]:
    last = -1
    while True:
        found = await connection.fetch(SQL["runs_of_pipelines"], pipelines, last, number, RUNS_AT_ONCE)
        if not found:
            return
        last = found[-1]["id"]
        for row in found:
            pipeline, *columns = row
            yield pipeline, Run._make((*columns, []))


async def _replay_run(
    connection: Connection,
    catalog: Catalog,
    pipeline: int,
    stored: Run,
    machines: Sequence[Machine],
    tally: _Tally,
) -> None:
    reasons = {
        sequence: HoldReason(reason, error)
        for _, sequence, reason, error in await connection.fetch(SQL["hold_reasons"], [stored.id])
    }
    machine = _given_for(catalog.definitions.get(stored.definition), machines, tally)
    rerun = Rerun(stored, pipeline, machine, catalog, reasons)
    tally.runs += 1
    mismatch: Mismatch | None = None
    async for one in connection.cursor(SQL["rows_of_run"], stored.id, None, prefetch=ROWS_AHEAD):
        tally.rows += 1
        if mismatch is None:
            mismatch = rerun.take(log_row(one))
            tally.equal_rows += mismatch is None
    if mismatch is None:
        tally.equal_runs += 1
    elif len(tally.mismatches) < MISMATCHES_MAX:
        tally.mismatches.append(mismatch)
    else:
        tally.more += 1


def _given_for(recorded: StoredDefinition | None, machines: Sequence[Machine], tally: _Tally) -> Machine:
    """The given definition that is, or stands for, the recorded one."""
    if recorded is None:
        return machines[-1]
    same = [m for m in machines if (m.hash, m.code) == (recorded.hash, recorded.code)]
    if same:
        return same[0]
    nearest = min(machines, key=lambda machine: abs(machine.version - recorded.version))
    what = f"{recorded.pipeline_name} version {recorded.version}"
    if nearest.version != recorded.version:
        note = f"Runs of {what} are replayed with version {nearest.version}, which is what is given."
    elif nearest.hash != recorded.hash:
        note = f"The structure of the given {what} is not the recorded one."
    else:
        note = f"The code of the given {what} is not the recorded one; its structure is."
    tally.notes[note] = None
    return nearest
