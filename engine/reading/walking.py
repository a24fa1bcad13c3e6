"""Goes over all runs and their rows in the order of their numbers, in bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from engine.log import LogRow
from engine.reading.catalog import SQL
from engine.reading.rows import ROWS_AHEAD, log_row
from engine.store.connecting import Connection
from statemachines.run import Run

RUNS_AT_ONCE = 200
_NONE: list[LogRow] = []


async def runs_in_order(
    connection: Connection, pipelines: Sequence[int], number: int | None
) -> AsyncIterator[list[tuple[int, Run]]]:
    """(pipeline, run) of these pipelines, some at a time; only run ``number`` if one is given."""
    last = -1
    while True:
        found = await connection.fetch(SQL["runs_of_pipelines"], pipelines, last, number, RUNS_AT_ONCE)
        if not found:
            return
        last = found[-1]["id"]
        yield [(pipeline, Run(*columns)) for pipeline, *columns in found]


class Rows:
    """The rows of some runs, in a transaction: ask with ``of`` for each run once, in the order of their numbers."""

    def __init__(self, connection: Connection, numbers: Sequence[int]) -> None:
        self._connection = connection
        self._numbers = numbers
        self._buffer: list[LogRow] = []
        """The rows that were fetched and not given yet, the next one last."""
        self._fetch = self._fetching()

    async def of(self, run: int) -> AsyncIterator[LogRow]:
        """The rows of one run, oldest first."""
        while True:
            if not self._buffer:
                self._buffer = await anext(self._fetch, _NONE)
            if not self._buffer or self._buffer[-1].run != run:
                return
            yield self._buffer.pop()

    async def _fetching(self) -> AsyncIterator[list[LogRow]]:
        numbers = self._numbers
        cursor = await self._connection.cursor(SQL["rows_of_runs"], numbers, numbers[0], numbers[-1])
        # Many rows at a time: one by one takes longer to ask for than to check.
        while found := await cursor.fetch(ROWS_AHEAD):
            yield [log_row(one) for one in reversed(found)]
