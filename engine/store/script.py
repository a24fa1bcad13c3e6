"""What is said to Postgres in one transaction, in as few messages as may be.

Each answer is heard some milliseconds late while events are stepped, so what a commit takes is mostly the answers that
it waits for. A statement that is only to be done is therefore said together with what comes next, in one message; and
where it must have done as much as is expected, it sees to that itself (``pointsman.expect``). The rows of each COPY are
sent behind its message. So a commit that moves runs, starts some, and begins steps is one message, with one answer.

Statements that are said so have no parameters: those with any are prepared once for each connection, and executed with
literals (``engine.store.literals``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from engine.store.connecting import Connection, CopyingConnection, Rows
from engine.store.copying import copied
from engine.store.queries import load

_SQL = load("store")
PREPARED = {
    "move_positions": _SQL["move_positions"],
    "change_runs": _SQL["change_runs"],
    "keep_places": _SQL["keep_places"],
    "remove_executions": _SQL["remove_executions"],
    "add_first": _SQL["add_first"],
    "add_taken_ids": _SQL["add_taken_ids"],
}
"""What may be executed by name."""
FREEZE = "vacuum (freeze) pg_temp.run_changes"
"""A temporary table is vacuumed by nobody but its session. Until then Postgres has to tell apart all transactions since
it was made, and after two thousand million it takes no more."""


async def prepare(connection: Connection) -> None:
    """Have the statements that may be executed, for as long as the connection lasts."""
    await connection.execute(_SQL["make_run_changes"])
    for name, statement in PREPARED.items():
        await connection.execute(f"prepare {name} as {statement}")


class Script:
    """One transaction."""

    def __init__(self, writer: CopyingConnection) -> None:
        self._writer = writer
        self._said: list[tuple[str, Rows | None]] = []
        """Statements, each COPY with its rows."""

    def say(self, statement: str) -> None:
        """Have this done before what comes next."""
        self._said.append((statement, None))

    def execute(self, name: str, *values: str | None) -> None:
        """The same of a statement that is prepared, with these values, none of which has a quote in it."""
        given = ", ".join("null" if one is None else f"'{one}'" for one in values)
        self.say(f"execute {name}({given})")

    def copy(self, table: str, rows: Iterable[bytes], columns: Sequence[str]) -> None:
        """Copy packed rows into a table."""
        self._said.append(copied(table, rows, columns))

    async def hear(self) -> None:
        """Have all done that was said, before statements whose answers matter, or as the last of all."""
        said, self._said = self._said, []
        statements, rows = _together(said)
        if self._writer.fit_together(statements, rows):
            await self._send(statements, rows)
            return
        # A message for each COPY, with what is before it, and one for what is behind.
        ends = [number for number, (_, rows) in enumerate(said, start=1) if rows is not None]
        for begin, end in itertools.pairwise([0, *ends, len(said)]):
            await self._send(*_together(said[begin:end]))

    async def _send(self, statements: str, rows: Sequence[Rows]) -> None:
        if rows:
            await self._writer.copy_among(statements, *rows)
        elif statements:
            await self._writer.execute(statements)


def _together(said: Iterable[tuple[str, Rows | None]]) -> tuple[str, list[Rows]]:
    statements, rows = [], []
    for statement, copied_by_it in said:
        statements.append(statement)
        if copied_by_it is not None:
            rows.append(copied_by_it)
    return "; ".join(statements), rows
