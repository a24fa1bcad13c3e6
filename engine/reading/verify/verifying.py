"""Goes through a namespace, or one run, in one snapshot and in bounded memory; runs no user code."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from engine.reading.catalog import SQL, Catalog, load_catalog
from engine.reading.dropped import Dropped, check_not_dropped, keep_months, load_dropped
from engine.reading.runs import find_run
from engine.reading.verify.attributes import check_attributes
from engine.reading.verify.books import (
    check_consumed_once,
    check_generations,
    check_lanes,
    check_letters,
    check_strays,
)
from engine.reading.verify.chains import Chain
from engine.reading.verify.executions import StoredExecution, check_executions
from engine.reading.verify.report import Finding, Findings, VerifyReport
from engine.reading.walking import Rows, runs_in_order
from engine.store.connecting import Connection
from statemachines.run import Run

Progress = Callable[[int, int], None]
"""Told of (runs, rows) that are done."""


class OneRun(NamedTuple):
    """Which run is checked; without it all of them."""

    pipeline: str
    key: str
    generation: int | None = None


async def verify(
    connection: Connection,
    namespace: str,
    *,
    run: tuple[str, str, int | None] | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check all runs of a namespace, or one: (pipeline, key, generation or None for the latest).

    With all runs go the checks between the tables, and the outbox.

    Raises:
        NotFoundError: there is no such run, or its rows were dropped.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await keep_months(connection)
        catalog = await load_catalog(connection, namespace)
        number = None
        if run is not None:
            found_run = await find_run(connection, namespace, *OneRun(*run))
            await check_not_dropped(connection, run[0], found_run)
            number = found_run.id
        checking = _Checking(connection, catalog, await load_dropped(connection), progress)
        await checking.chains(number)
        await checking.books(number)
    found = checking.findings
    return VerifyReport(
        namespace,
        checking.runs,
        checking.rows,
        checking.dropped,
        checking.published,
        tuple(found.kept),
        found.more,
    )


class _Checking:
    def __init__(
        self, connection: Connection, catalog: Catalog, months: Dropped, progress: Progress | None
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._months = months
        self._progress = progress
        self.findings = Findings()
        self.runs = 0
        self.rows = 0
        self.dropped = 0
        self.published = 0

    async def chains(self, number: int | None) -> None:
        """Each run's rows."""
        async for runs in runs_in_order(self._connection, list(self._catalog.pipelines), number):
            await self._some(runs)

    async def books(self, number: int | None) -> None:
        """Between the tables."""
        connection, catalog, namespace = self._connection, self._catalog, self._catalog.namespace
        checks: list[AsyncIterator[Finding | int]] = [
            check_consumed_once(connection, catalog, list(catalog.pipelines), number),
            check_letters(connection, namespace, number),
            check_generations(connection, catalog, list(catalog.pipelines), number),
        ]
        if number is None:
            checks += [check_strays(connection, namespace), check_lanes(connection, namespace)]
        for check in checks:
            async for one in check:
                if isinstance(one, Finding):
                    self.findings.add(one)
                else:
                    self.published += one

    async def _some(self, runs: Sequence[tuple[int, Run]]) -> None:
        """Some runs, in the order of their numbers, beside one walk over their rows."""
        numbers = [run.id for _, run in runs]
        waiting = await self._waiting(numbers)
        holders = await self._holders(numbers)
        attributes = dict(await self._connection.fetch(SQL["attributes_of_runs"], numbers))
        wakes = dict(await self._connection.fetch(SQL["wakes_of_runs"], numbers))
        executions = await self._executions(numbers)
        rows = Rows(self._connection, numbers)
        for pipeline, run in runs:
            if self._months.of(run.id) is not None:
                self.dropped += 1
            else:
                chain = Chain(pipeline, run, self._catalog)
                async for row in rows.of(run.id):
                    self._add(chain.take(row))
                    self.rows += 1
                self._add(chain.end(waiting.get(run.id, {}), holders.get(run.id, {}), wakes[run.id]))
            self._add(check_attributes(self._catalog, pipeline, run, attributes.get(run.id)))
            self._add(check_executions(self._catalog, pipeline, run, executions.get(run.id, ())))
            self.runs += 1
        if self._progress is not None:
            self._progress(self.runs, self.rows)

    async def _waiting(self, numbers: list[int]) -> dict[int, dict[int, datetime | None]]:
        found: dict[int, dict[int, datetime | None]] = {}
        for run, sequence, until in await self._connection.fetch(SQL["waiting_of_runs"], numbers):
            found.setdefault(run, {})[sequence] = until
        return found

    async def _executions(self, numbers: list[int]) -> dict[int, list[StoredExecution]]:
        found: dict[int, list[StoredExecution]] = {}
        for run, *columns in await self._connection.fetch(SQL["executions_of_runs"], numbers):
            found.setdefault(run, []).append(StoredExecution(*columns))
        return found

    async def _holders(self, numbers: list[int]) -> dict[int, Counter[int]]:
        found: dict[int, Counter[int]] = {}
        for run, sequence, _ in await self._connection.fetch(SQL["holders_of_runs"], numbers):
            found.setdefault(run, Counter())[sequence] += 1
        return found

    def _add(self, findings: Iterator[Finding]) -> None:
        for finding in findings:
            self.findings.add(finding)
