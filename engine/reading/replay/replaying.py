"""Runs recorded events through a given definition, in sequence; touches nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from engine.errors import UsageError
from engine.log import MAKES_WAY, Kind, LogRow
from engine.reading.catalog import SQL, Catalog, StoredDefinition, load_catalog
from engine.reading.dropped import check_not_dropped, keep_months, load_dropped
from engine.reading.errors import NotFoundError
from engine.reading.replay.report import MISMATCHES_MAX, HoldReason, Mismatch, ReplayReport
from engine.reading.runs import find_run
from engine.reading.walking import Rows, runs_in_order
from engine.store.connecting import Connection
from statemachines.run import Run
from statemachines.suggest import did_you_mean

if TYPE_CHECKING:
    from engine.reading.replay.rerun import Rerun
    from statemachines.machine import Machine


@dataclass(slots=True)
class _Tally:
    runs: int = 0
    equal_runs: int = 0
    rows: int = 0
    equal_rows: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    more: int = 0
    dropped: int = 0
    notes: dict[str, None] = field(default_factory=dict)

    def add(self, mismatch: Mismatch | None) -> None:
        """Count a run that is done."""
        self.runs += 1
        if mismatch is None:
            self.equal_runs += 1
        elif len(self.mismatches) < MISMATCHES_MAX:
            self.mismatches.append(mismatch)
        else:
            self.more += 1


@dataclass(slots=True)
class _LivedAgain:
    """A run whose rows were replayed."""

    rows: int = 0
    equal_rows: int = 0
    mismatch: Mismatch | None = None
    taken_as: dict[tuple[str, str], int] = field(default_factory=dict)
    """Where it differs first in what a deferred event is known by: what that is, of this one and those behind it.

    The row that defers an event does not say, and it may have waited since another version decided that.
    """

    def learn(self, row: LogRow) -> None:
        """After each row."""
        if self.mismatch is None or row.kind != Kind.MOVED_DEFERRED or row.digest is None:
            return
        if self.taken_as or any(one.field == "digest" for one in self.mismatch.differences):
            self.taken_as[row.event_id, row.type] = row.digest


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
        NotFoundError: there is no such run, or its rows were dropped, or no run of any of these pipelines.
        UsageError: the run is of a pipeline that is not given.
    """
    by_name: dict[str, list[Machine]] = {}
    for machine in machines:
        by_name.setdefault(machine.name, []).append(machine)
    if run is not None and run[0] not in by_name:
        raise UsageError(f"The pipeline {run[0]!r} is not among those given. {did_you_mean(run[0], by_name)}")
    tally = _Tally()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await keep_months(connection)
        catalog = await load_catalog(connection, namespace)
        number = None
        if run is not None:
            found_run = await find_run(connection, namespace, *run)
            await check_not_dropped(connection, run[0], found_run)
            number = found_run.id
        months = await load_dropped(connection)
        wanted = by_name if run is None else {run[0]: by_name[run[0]]}
        pipelines = {n: wanted[name] for n, name in catalog.pipelines.items() if name in wanted}
        if not pipelines:
            raise NotFoundError(
                f"None of these pipelines was ever run in the namespace {namespace!r}: {', '.join(wanted)}. "
                f"Run were: {', '.join(catalog.pipelines.values()) or 'none'}."
            )
        async for runs in runs_in_order(connection, list(pipelines), number):
            there = [(pipeline, one) for pipeline, one in runs if months.of(one.id) is None]
            tally.dropped += len(runs) - len(there)
            await _replay_some(connection, catalog, there, pipelines, tally)
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
        (*tally.notes, *_left_out(tally.dropped)),
    )


async def _replay_some(
    connection: Connection,
    catalog: Catalog,
    runs: Sequence[tuple[int, Run]],
    given: Mapping[int, Sequence[Machine]],
    tally: _Tally,
) -> None:
    from engine.reading.replay.rerun import Rerun  # noqa: PLC0415 - the engine's own code; who only reads needs none

    numbers = [run.id for _, run in runs]
    if not numbers:
        return
    reasons: dict[int, dict[int, HoldReason]] = {}
    for number, sequence, *reason in await connection.fetch(SQL["hold_reasons"], numbers):
        reasons.setdefault(number, {})[sequence] = HoldReason(*reason)
    rested: dict[int, set[int]] = {}
    for number, sequence in await connection.fetch(
        SQL["rested_rows"], numbers, int(Kind.DRAINING), MAKES_WAY
    ):
        rested.setdefault(number, set()).add(sequence)
    rows = Rows(connection, numbers)
    for pipeline, run in runs:
        machine = _given_for(catalog.definitions.get(run.definition), given[pipeline], tally)
        before: Run | None = None
        if run.generation:
            row = await connection.fetchrow(SQL["generation"], pipeline, run.key, run.generation - 1)
            before = None if row is None else Run(*row)
        begin = partial(
            Rerun, run, pipeline, machine, given[pipeline], catalog, reasons.get(run.id, {}), before
        )
        stands_for = partial(_stands_for, catalog, given[pipeline], tally)
        made_way = rested.get(run.id, set())
        lived = await _live_again(rows.of(run.id), begin(), stands_for, made_way)
        if lived.taken_as:
            lived = await _live_again(
                Rows(connection, [run.id]).of(run.id), begin(taken_as=lived.taken_as), stands_for, made_way
            )
        tally.rows += lived.rows
        tally.equal_rows += lived.equal_rows
        tally.add(lived.mismatch)


async def _live_again(
    rows: AsyncIterator[LogRow], rerun: Rerun, stands_for: Callable[[int], Machine], made_way: set[int]
) -> _LivedAgain:
    rerun.stands_for, rerun.rested = stands_for, made_way
    lived = _LivedAgain()
    async for row in rows:
        lived.rows += 1
        if lived.mismatch is None:
            lived.mismatch = rerun.take(row)
            lived.equal_rows += lived.mismatch is None
        lived.learn(row)
    lived.mismatch = lived.mismatch or rerun.end()
    return lived


def _left_out(dropped: int) -> list[str]:
    if not dropped:
        return []
    return [f"Left out, since their rows were dropped with the log of old months: {dropped:,}."]


def _stands_for(catalog: Catalog, machines: Sequence[Machine], tally: _Tally, definition: int) -> Machine:
    return _given_for(catalog.definitions.get(definition), machines, tally)


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
