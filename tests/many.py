"""Very many runs in a real Postgres, put there at once: all like one that the engine has made."""

from __future__ import annotations

from engine.store.connecting import Connection

COLUMNS = (
    "started, updated, pipeline, generation, sequence, definition, held, waiting, status, configuration, recent, hash, "
    "context, memory"
)


async def runs_alike(owner: Connection, key: str, numbers: range, wake_at: str = "null::timestamptz") -> None:
    """Have runs with these numbers that are like the one with this key, but for keys of their own.

    ``wake_at`` is an SQL expression of ``number``: when each of them wakes.
    """
    await owner.execute(
        f"insert into pointsman.runs (id, key, wake_at, {COLUMNS}) "
        f"select number, 'many ' || number, {wake_at}, {COLUMNS} "
        "from (select * from pointsman.runs where key = $1) one, generate_series($2::bigint, $3::bigint) number",
        key,
        numbers.start,
        numbers.stop - 1,
    )
