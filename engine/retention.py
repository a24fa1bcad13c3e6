"""What is kept of the log: whole months of it are emptied, once all that is in them is over.

A month of the log has the rows of the runs that began in it. They go all at once or not at all, and never while one of
its runs goes on, was changed lately, or has a dead letter that nobody has dealt with. The runs themselves stay, as they
were: their keys are known on, and what still comes for them meets the policies for runs that have ended. Where such a
policy has a row written, there is room for it: the month's partition stays, with nothing in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from engine.errors import UsageError
from engine.reading.values import shown_time
from engine.store.connecting import Connection
from engine.store.queries import load
from statemachines.run import Status

LOCK_SECONDS_MAX = 2
"""So long each statement under the lock may take, and wait. Engines may wait meanwhile, so it is shorter than any time
that they would take for an outage."""
IN_USE = (
    f"the log was read or written by someone for longer than {LOCK_SECONDS_MAX} seconds, such as verify or a dump, and "
    "engines must not wait for that: try again later"
)
_SQL = load("retention")
_NOTES = (
    _SQL["drop_dispositions"],
    _SQL["drop_ranges"],
    _SQL["drop_letters"],
    _SQL["drop_operations"],
)


@dataclass(frozen=True, slots=True)
class Month:
    """A month of the log, and what became of it."""

    month: str
    """As in 2024-05: when its runs began."""
    runs: int
    bytes: int
    """What its rows take, with their indexes."""
    dropped: bool
    kept: str
    """The sentence that says why its rows stay; empty where they were dropped, or would be."""
    in_use: bool = False
    """Whether it stays only since somebody reads or writes it just now."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "month": self.month,
            "runs": self.runs,
            "bytes": self.bytes,
            "dropped": self.dropped,
            "kept": self.kept,
        }


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was dropped of a log, and what stays of what is as old."""

    dry_run: bool
    before: datetime
    months: tuple[Month, ...]
    notes: int
    """What was noted beside the log and is gone, or would be."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "dry_run": self.dry_run,
            "before": shown_time(self.before),
            "months": [one.as_json() for one in self.months],
            "notes": self.notes,
        }


async def prune(
    connection: Connection, before: datetime, *, who: str, why: str, dry_run: bool = False
) -> Pruned:
    """Empty the months of the log, of all namespaces, whose runs have all ended and were changed last before a time.

    With them go the notes from before that time: of events that moved nothing, of dead letters that were dealt with,
    and answers to operators; but those that a replay of rows which stay would ask for. Each month is a transaction of
    its own. Needs the role that owns the log.

    Raises:
        UsageError: it is another role.
    """
    owner = await connection.fetchrow(_SQL["owner"])
    assert owner is not None, "the log is there"
    if not owner["is_owner"]:
        raise UsageError(
            f"The role {owner['role']!r} does not own the log, so it may not empty any month of it. Give the address "
            "that migrate was given."
        )
    found = await connection.fetch(_SQL["months"], before)
    months = [await _month(connection, one, before, who, why, dry_run=dry_run) for one in found]
    would_go = [part for part, one in zip(found, months, strict=True) if dry_run and not one.kept]
    notes = await _drop_notes(connection, before, who, why, would_go, dry_run=dry_run)
    return Pruned(dry_run, before, tuple(months), notes)


async def _drop_notes(
    connection: Connection,
    before: datetime,
    who: str,
    why: str,
    would_go: Sequence[asyncpg.Record],
    *,
    dry_run: bool,
) -> int:
    """How many there were; a dry run counts by dropping them, as if these months were gone, and takes that back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        for part in would_go:
            await _note_month(connection, part, 0, before, who, why)
        dropped = sum([int(await connection.fetchval(statement, before)) for statement in _NOTES])
        await connection.execute(_SQL["drop_ids"])
        if dropped:
            await connection.execute(_SQL["note_notes"], before, dropped, who, why)
    except BaseException:
        await transaction.rollback()
        raise
    await (transaction.rollback() if dry_run else transaction.commit())
    return dropped


async def _month(
    connection: Connection, part: asyncpg.Record, before: datetime, who: str, why: str, *, dry_run: bool
) -> Month:
    runs, kept = await _kept(connection, part, before)
    if kept or dry_run:
        return _told(part, runs, kept, dropped=False)
    try:
        async with connection.transaction():
            for limit in ("lock_timeout", "statement_timeout"):
                await connection.execute(f"set local {limit} = '{LOCK_SECONDS_MAX}s'")
            # Whatever has a run of the month go on writes a row into it: since nobody can, this look holds.
            await connection.execute(f"lock table {part['name']} in share row exclusive mode")
            runs, kept = await _kept(connection, part, before)
            if not kept:
                await _note_month(connection, part, runs, before, who, why)
                await connection.execute(f"truncate {part['name']}")
    except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.DeadlockDetectedError):
        return _told(part, runs, IN_USE, dropped=False, in_use=True)
    return _told(part, runs, kept, dropped=not kept)


async def _note_month(
    connection: Connection, part: asyncpg.Record, runs: int, before: datetime, who: str, why: str
) -> None:
    bounds = part["first"], part["behind"], part["begins"].astimezone(UTC).date()
    await connection.execute(_SQL["note_month"], *bounds, runs, before, who, why)


async def _kept(connection: Connection, part: asyncpg.Record, before: datetime) -> tuple[int, str]:
    """How many runs began in a month, and why its rows stay; empty where nothing is against it."""
    row = await connection.fetchrow(
        _SQL["runs_of_month"], part["first"], part["behind"], before, int(Status.COMPLETED)
    )
    assert row is not None, "a count is one row"
    reasons = (
        _many(row["going"], "run has", "runs have", "not ended"),
        _many(row["late"], "run was", "runs were", f"changed since {shown_time(before)}"),
        _many(row["letters"], "dead letter is", "dead letters are", "open: redrive or drop"),
    )
    return row["runs"], ", ".join(filter(None, reasons))


def _many(count: int, one: str, several: str, what: str) -> str:
    return f"{count:,} {one if count == 1 else several} {what}" if count else ""


def _told(part: asyncpg.Record, runs: int, kept: str, *, dropped: bool, in_use: bool = False) -> Month:
    return Month(f"{part['begins'].astimezone(UTC):%Y-%m}", runs, part["bytes"], dropped, kept, in_use)
