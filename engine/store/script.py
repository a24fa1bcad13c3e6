"""What is said to Postgres in one transaction, in as few messages as may be.

Each answer is heard some milliseconds late while events are stepped, so what a commit takes is mostly the answers that
it waits for. A statement that is only to be done is therefore said together with what comes next, in one message; and
where it must have done as much as is expected, it sees to that itself (``pointsman.expect``). The rows of a COPY are
sent with its message. So a commit that does nothing but move runs is two messages, with two answers.

Statements that are said so have no parameters: those with any are prepared once for each connection, and executed with
literals (``engine.store.literals``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.store.connecting import Connection, CopyingConnection
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
        self._said: list[str] = []

    def say(self, statement: str) -> None:
        """Have this done before what comes next."""
        self._said.append(statement)

    def execute(self, name: str, *values: str | None) -> None:
        """The same of a statement that is prepared, with these values, none of which has a quote in it."""
        given = ", ".join("null" if one is None else f"'{one}'" for one in values)
        self.say(f"execute {name}({given})")

    async def hear(self) -> None:
        """Have all done that was said, before statements whose answers matter."""
        if self._said:
            said, self._said = self._said, []
            await self._writer.execute("; ".join(said))

    async def copy(self, table: str, rows: Iterable[bytes], columns: Sequence[str], then: str = "") -> None:
        """Copy packed rows into a table, behind all that was said; ``then`` is done with the same message."""
        said, self._said = self._said, []
        statement, data = copied(table, rows, columns)
        await self._writer.copy_among("; ".join([*said, statement, *([then] if then else [])]), data)
