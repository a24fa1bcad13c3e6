"""Months of the log that were emptied: the rows of the runs that had begun in them are gone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple

from engine.commands.words import shell_word
from engine.reading.catalog import SQL
from engine.reading.errors import NotFoundError
from engine.store.connecting import Connection
from statemachines.durations import told_time
from statemachines.run import Run


class DroppedMonth(NamedTuple):
    """A month whose rows are gone."""

    first: int
    behind: int
    """Its runs have numbers from ``first`` on and below this."""
    month: date
    who: str
    why: str
    at: datetime


class Dropped:
    """All of them."""

    def __init__(self, months: Sequence[DroppedMonth]) -> None:
        self.months = months

    def of(self, run: int) -> DroppedMonth | None:
        """The month that was emptied of a run's rows; None where they are there."""
        return next((one for one in self.months if one.first <= run < one.behind), None)


async def keep_months(connection: Connection) -> None:
    """Have no month be emptied until the transaction ends, of which this is the first statement.

    Rows that are dropped are gone for all at once, while it would know of no such month.
    """
    await connection.execute("lock table pointsman.events in access share mode")


async def load_dropped(connection: Connection) -> Dropped:
    """Which months of the log are gone, of all namespaces."""
    return Dropped([DroppedMonth(*row) for row in await connection.fetch(SQL["dropped_months"])])


async def dropped_told(connection: Connection) -> list[str]:
    """What retention means for who looks for an event, in sentences; none where nothing was dropped."""
    said = []
    if months := (await load_dropped(connection)).months:
        last = max(one.month for one in months)
        said.append(
            f"The log was dropped of runs that had begun in {len(months)} of the months up to {last:%Y-%m}: what these "
            "consumed is not known any more."
        )
    if (before := await connection.fetchval(SQL["dropped_notes"])) is not None:
        said.append(
            f"What was noted before {told_time(before)} of events that moved nothing was dropped, too: that they were "
            "ignored, duplicates or stale, and dead letters that were dealt with."
        )
    return said


async def check_not_dropped(connection: Connection, pipeline: str, run: Run) -> None:
    """Refuse a run whose rows are gone.

    Raises:
        NotFoundError: with who dropped them, and where the run is still to be seen.
    """
    month = (await load_dropped(connection)).of(run.id)
    if month is not None:
        raise NotFoundError(
            f"The history of the run {run.key!r} of {pipeline!r} is gone: the log of {month.month:%Y-%m}, when it "
            f"began, was emptied by {month.who} at {told_time(month.at)} ({month.why}). How it ended is still known: "
            f"pointsman runs --pipeline {shell_word(pipeline)} --key {shell_word(run.key)}"
        )
