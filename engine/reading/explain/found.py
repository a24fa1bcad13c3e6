"""Where it is recorded what became of an event: log rows, dead letters, notes, ranges of ignored offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from engine.log import CONSUMED, HOLDS, Kind, digest_number, digest_of
from engine.reading.catalog import SQL
from engine.reading.due import memory_of
from engine.reading.values import askable
from engine.store.connecting import Connection

FOUND_MAX = 1_000
"""Of each kind; an event that was doubled more often is told of in part, and it is said so."""

_RELEASES = [int(Kind.RELEASED), int(Kind.CANCELLED)]
_HOLDS = sorted(int(kind) for kind in {*HOLDS, Kind.DRAINING, Kind.PAUSED})
_CONSUMED = sorted(int(kind) for kind in CONSUMED)
_KEPT = sorted({*_CONSUMED, int(Kind.WAITED), int(Kind.DEFERRED)})


class FoundRow(NamedTuple):
    """A log row, and what its run looked like before and looks like now."""

    run: int
    sequence: int
    kind: int
    status: int
    at: datetime
    position: int | None
    offset: int | None
    definition: int
    type: str
    event_id: str
    configuration: str
    effects: bytes
    envelope: bytes
    payload: bytes | None
    pipeline: int
    key: str
    generation: int
    held: int
    waiting: int
    memory: bytes | None
    """Of a row that tells of a step: what the run remembered before it."""
    before: str | None
    """The configuration before it."""
    last_release: int | None
    last_hold: int | None
    may_reenter: bool = False
    """Whether states may have been left that are active again."""


class FoundLetter(NamedTuple):
    """A dead letter, and the run that it is of as it is now."""

    id: int
    pipeline: int | None
    run: int | None
    sequence: int | None
    key: str | None
    event_id: str | None
    type: str | None
    disposition: int
    reason: str
    error: str
    details: bytes
    position: int | None
    offset: int | None
    record_time: int
    record_key: bytes | None
    record_value: bytes | None
    record_headers: bytes
    topic: str | None
    publishing: str
    publishing_error: str
    status: str
    who: str
    why: str
    at: datetime
    ended: datetime | None
    generation: int | None
    held: int | None
    waiting: int | None
    edited: bool = False
    """Whether its event was offered with other data."""


class FoundNote(NamedTuple):
    """A noted disposition."""

    id: int
    position: int | None
    offset: int | None
    pipeline: int
    run: int | None
    key: str | None
    event_id: str
    type: str
    disposition: int
    reason: str
    details: bytes
    at: datetime
    generation: int | None


class FoundRange(NamedTuple):
    """Offsets of records that their topic's settings said to ignore, all for one reason."""

    offset: int
    """The one that was asked for."""
    position: int
    first: int
    last: int
    records: int
    reason: str
    at: datetime


class Sent(NamedTuple):
    """To which key an event was sent, and since when it is asked what became of it: others may have its id, too."""

    pipeline: str
    key: str
    since: datetime


class Seen(NamedTuple):
    """The row of an event that came before its duplicate."""

    sequence: int
    kind: int
    at: datetime
    event_id: str
    generation: int | None
    """Where that is another one than the duplicate's."""
    by_key: bool
    """Whether it is known by a business key, and not by source and id."""


class Holder(NamedTuple):
    """The dead letter that holds, or held, a run."""

    id: int
    event_id: str | None
    reason: str
    error: str
    status: str
    who: str
    why: str
    ended: datetime | None
    type: str | None
    """Of its event."""


class LogRowBrief(NamedTuple):
    """What is asked of another row of the run."""

    kind: int
    at: datetime
    type: str
    event_id: str
    payload: bytes | None


@dataclass(slots=True)
class Found:
    """All of it, each in the order in which it was recorded."""

    rows: list[FoundRow] = field(default_factory=list)
    letters: list[FoundLetter] = field(default_factory=list)
    notes: list[FoundNote] = field(default_factory=list)
    ranges: list[FoundRange] = field(default_factory=list)

    @property
    def is_cut(self) -> bool:
        """Whether there may be more than was read."""
        return any(len(many) >= FOUND_MAX for many in (self.rows, self.letters, self.notes))


Records = set[tuple[int | None, int | None]]
"""(position, offset)"""


async def find_by_id(connection: Connection, namespace: str, event_id: str) -> Found:
    """What is recorded of an id, and of the records that it came in."""
    keys = await connection.fetch(SQL["rows_with_event_id"], event_id, FOUND_MAX)
    rows = await _rows(connection, namespace, [tuple(key) for key in keys])
    known: Records = {(row.position, row.offset) for row in rows if row.position is not None}
    letters = await _letters(connection, namespace, event_id, known)
    notes = await _notes(connection, namespace, event_id, known)
    known |= {(letter.position, letter.offset) for letter in letters}
    known |= {(note.position, note.offset) for note in notes}
    # What concerns all pipelines may have been recorded before the id could be read.
    letters = await _letters(connection, namespace, event_id, known)
    ranges = [
        one
        for letter in letters
        if letter.pipeline is None and letter.status != "open"
        for one in await _ranges(connection, [letter.position or 0], letter.offset or 0)
    ]
    return Found(rows, letters, notes, ranges)


async def find_sent(connection: Connection, namespace: str, event_id: str, sent: Sent) -> Found:
    """What is recorded of an id that was sent to a key."""
    pipeline, key, since = sent = Sent(askable(sent.pipeline) or "", askable(sent.key) or "", sent.since)
    keys = await connection.fetch(SQL["rows_sent"], namespace, pipeline, key, event_id, since, FOUND_MAX)
    return Found(
        await _rows(connection, namespace, [tuple(one) for one in keys]),
        await _letters(connection, namespace, event_id, set(), sent),
        await _notes(connection, namespace, event_id, set(), sent),
    )


async def find_by_record(
    connection: Connection, namespace: str, positions: Sequence[int], offset: int
) -> Found:
    """What is recorded of an offset of these positions."""
    keys = await connection.fetch(SQL["rows_with_record"], positions, [offset], FOUND_MAX)
    known: Records = {(position, offset) for position in positions}
    return Found(
        await _rows(connection, namespace, [tuple(key) for key in keys]),
        await _letters(connection, namespace, None, known),
        await _notes(connection, namespace, None, known),
        await _ranges(connection, positions, offset),
    )


async def _rows(connection: Connection, namespace: str, keys: list[tuple[int, int]]) -> list[FoundRow]:
    if not keys:
        return []
    runs, sequences = [run for run, _ in keys], [sequence for _, sequence in keys]
    found = await connection.fetch(SQL["rows_to_explain"], namespace, runs, sequences, _RELEASES, _HOLDS)
    # The rows of moves that no record caused have the position 0.
    rows = [FoundRow(*row) for row in found]
    return [row if row.position else row._replace(position=None, offset=None) for row in rows]


async def _ranges(connection: Connection, positions: Sequence[int], offset: int) -> list[FoundRange]:
    rows = await connection.fetch(SQL["ranges_to_explain"], positions, offset)
    return [FoundRange(offset, *row) for row in rows]


async def _letters(
    connection: Connection, namespace: str, event_id: str | None, records: Records, sent: Sent | None = None
) -> list[FoundLetter]:
    asked = namespace, event_id, *_columns(records), FOUND_MAX, *(sent or (None, None, None))
    rows = await connection.fetch(SQL["letters_to_explain"], *asked)
    found = [FoundLetter(*row) for row in rows]
    return [one for one in found if one.event_id == event_id or (one.position, one.offset) in records]


async def _notes(
    connection: Connection, namespace: str, event_id: str | None, records: Records, sent: Sent | None = None
) -> list[FoundNote]:
    asked = namespace, event_id, *_columns(records), FOUND_MAX, *(sent or (None, None, None))
    rows = await connection.fetch(SQL["notes_to_explain"], *asked)
    found = [FoundNote(*row) for row in rows]
    return [one for one in found if one.event_id == event_id or (one.position, one.offset) in records]


def _columns(records: Records) -> tuple[list[int], list[int]]:
    pairs = [
        (position, offset) for position, offset in records if position is not None and offset is not None
    ]
    return [position for position, _ in pairs], [offset for _, offset in pairs]


async def holder_at(connection: Connection, row: FoundRow, *, now: bool) -> tuple[int | None, Holder | None]:
    """The row that holds a run, and its dead letter: at the time when an event began to wait, or ``now``.

    (None, None): no event holds it; its definition was not loaded. (row, None): no dead letter tells why, or those that
    waited before it hold it.
    """
    held = row.last_hold if (row.last_hold or 0) > (row.last_release or 0) else None
    if now:
        holding = await row_of(connection, row.run, row.held)
        held = row.held if holding is not None and holding.kind in _HOLDS else None
    if held is None:
        return None, None
    letter = await connection.fetchrow(SQL["letter_of_hold"], row.run, held)
    return held, None if letter is None else Holder(*letter)


async def row_of(connection: Connection, run: int, sequence: int) -> LogRowBrief | None:
    """Another row of the log."""
    row = await connection.fetchrow(SQL["row"], run, sequence)
    return None if row is None else LogRowBrief(*row)


async def seen_first(connection: Connection, note: FoundNote, known_by: str) -> Seen | None:
    """Where a run, or an earlier one of its key, took the event that another one doubles, or lets it wait."""
    asked = note.pipeline, note.key
    for kinds in (_CONSUMED, _KEPT):
        row = await connection.fetchrow(SQL["seen_first"], *asked, note.event_id, kinds, note.at)
        if row is not None:
            return _seen(row, note, by_key=False)
    if not known_by:
        return None
    digest = digest_number(digest_of("business key", known_by))
    row = await connection.fetchrow(SQL["seen_by_digest"], *asked, digest)
    return await _remembered(connection, note, known_by) if row is None else _seen(row, note, by_key=True)


async def _remembered(connection: Connection, note: FoundNote, known_by: str) -> Seen | None:
    """The row that had the run remember a business key that counts for a time."""
    last: tuple[int | None, Any] = None, None
    async for row in connection.cursor(
        SQL["rows_that_remember"], note.pipeline, note.key, orjson.dumps(known_by)[1:-1], note.at
    ):
        until = memory_of(row["memory"]).seen.get(known_by)
        if until is not None and until != last[0]:
            last = until, row
    return None if last[1] is None else _seen(last[1], note, by_key=True)


def _seen(row: Any, note: FoundNote, *, by_key: bool) -> Seen:
    generation = None if row["generation"] == note.generation else row["generation"]
    return Seen(row["sequence"], row["kind"], row["at"], row["event_id"], generation, by_key)


async def configuration_before(connection: Connection, run: int, at: datetime) -> str | None:
    """What a run's configuration was at a time; None where the log cannot tell."""
    row = await connection.fetchrow(SQL["configuration_before"], run, at)
    return None if row is None or row["unsure"] else str(row["configuration"])
