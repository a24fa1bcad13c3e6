"""A run's rows, read in order and folded as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from operator import itemgetter
from typing import Any, NamedTuple

from connectors.decode import Decoded, decode
from connectors.source import RawRecord
from engine.envelope import decode_envelope
from engine.log import COLUMNS, Kind, LogRow, fold
from engine.reading.catalog import SQL, Catalog
from engine.reading.values import RecordView
from engine.store.connecting import Connection
from statemachines.run import Run
from statemachines.topic import NO_TOPIC

_columns = itemgetter(*COLUMNS)
_OF_COMMANDS = frozenset({Kind.RELEASED, Kind.DRAINING, Kind.PAUSED, Kind.MAPPED})
ROWS_AHEAD = 500
"""How many rows a cursor fetches at once: memory does not grow with the length of a run."""


class Folded(NamedTuple):
    """A row, and the run before and after it."""

    before: Run | None
    row: LogRow
    after: Run


def log_row(record: Any) -> LogRow:
    """A row as it was read, whatever the order of its columns."""
    return LogRow._make(_columns(record))


async def folded_rows(
    connection: Connection, run: Run, to_sequence: int | None = None
) -> AsyncIterator[Folded]:
    """The rows of a run, oldest first; must be consumed within a transaction, as cursors must.

    No user code runs: each row has the outcome in it.
    """
    state: Run | None = None
    async for one in connection.cursor(SQL["rows_of_run"], run.id, to_sequence, prefetch=ROWS_AHEAD):
        row = log_row(one)
        after = fold(state, row, key=run.key, generation=run.generation)
        yield Folded(state, row, after)
        state = after


def holding_after(folded: Folded, before: int | None) -> int | None:
    """The kind of the row that holds the run after a row, where it was this one ``before``; None where none does."""
    held = folded.after.held
    if not held:
        return None
    return folded.row.kind if held == folded.row.sequence else before


def has_record(row: LogRow) -> bool:
    """Whether a row came of a Kafka record; else it came of a command, or from inside of a run."""
    return bool(row.position)


def is_command(kind: int) -> bool:
    """Whether a row came of a command and not of an event."""
    return kind in _OF_COMMANDS


def raw_record(row: LogRow, key: str, catalog: Catalog) -> RawRecord:
    """The record of a row, as it came."""
    place = catalog.positions.get(row.position or 0)
    time, record_key, headers = decode_envelope(row.envelope, key.encode())
    topic, partition = (place.topic, place.partition) if place else ("", 0)
    return RawRecord(topic, partition, row.offset or 0, time, record_key, row.payload, headers)


def record_view(record: RawRecord) -> RecordView:
    """A record to be shown; what came from inside of a run has no place."""
    partition, offset = (record.partition, record.offset) if record.topic else (None, None)
    return RecordView(
        record.topic,
        partition,
        offset,
        record.timestamp,
        record.key,
        record.headers,
        record.value,
    )


def event_in(row: LogRow, key: str, catalog: Catalog) -> Decoded | None:
    """The event of a row, by the settings that its topic had then; None where it is a command's."""
    if is_command(row.kind):
        return None
    record = raw_record(row, key, catalog)
    if not has_record(row):
        found = decode(record, NO_TOPIC, "")
        return found if isinstance(found, Decoded) else None
    return catalog.decode(record, row.position, row.definition, at=row.at, event=(row.event_id, row.type))


def kind_word(kind: int) -> str:
    """As in ``moved after wait``; a kind that this version does not know is given as its number."""
    try:
        return Kind(kind).name.lower().replace("_", " ")
    except ValueError:
        return f"kind {kind}"
