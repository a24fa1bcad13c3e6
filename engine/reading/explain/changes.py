"""From what is recorded of one record and one pipeline to the changes of its disposition."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import orjson

from engine.dispositions import Disposition
from engine.log import Kind
from engine.reading.catalog import Catalog
from engine.reading.explain import words
from engine.reading.explain.answers import Change, Tried
from engine.reading.explain.found import (
    FoundLetter,
    FoundNote,
    FoundRange,
    FoundRow,
    configuration_before,
    holder_at,
    is_draining,
    row_of,
    seen_first,
)
from engine.store.connecting import Connection

_HOLDING = frozenset({Kind.HELD, Kind.HELD_AFTER_WAIT})
_AFTER_WAIT = frozenset({Kind.MOVED_AFTER_WAIT, Kind.HELD_AFTER_WAIT, Kind.LEFT_WAITING})


class Rank(NamedTuple):
    """What decides which change is current: the highest of ``weight``, then the last."""

    weight: int
    at: datetime
    stage: int
    number: int


_LAST, _NOTED, _WAITING, _OPEN, _CONSUMED = range(5)
"""Weights. An event is consumed once, whatever is noted of it when its record is read again; a dead letter
that was redriven counts no more than what became of it then."""


@dataclass(slots=True)
class Records:
    """What is recorded of one record for one pipeline."""

    rows: list[FoundRow] = field(default_factory=list)
    letters: list[FoundLetter] = field(default_factory=list)
    notes: list[FoundNote] = field(default_factory=list)
    ranges: list[FoundRange] = field(default_factory=list)


class Teller:
    """Tells the changes, asking the store for what else a sentence needs."""

    def __init__(self, connection: Connection, catalog: Catalog) -> None:
        self._connection = connection
        self._catalog = catalog

    async def tell(self, records: Records) -> list[tuple[Rank, Change]]:
        """All changes in the order in which they came."""
        told = [
            *[await self._row(row, records) for row in records.rows if not _is_told_elsewhere(row, records)],
            *[await self._letter(letter, records) for letter in records.letters],
            *[await self._note(note, records) for note in records.notes],
            *[self._range(found) for found in records.ranges],
        ]
        return sorted(told, key=lambda one: one[0][1:])

    async def _row(self, row: FoundRow, records: Records) -> tuple[Rank, Change]:
        pipeline = self._catalog.pipelines[row.pipeline]
        weight, stage = _LAST, 2
        match row.kind:
            case Kind.WAITED:
                still = _still_waits(row, records)
                disposition, weight, stage = Disposition.HELD, _WAITING if still else _LAST, 0
                sentence = await self._waits(row, pipeline, still=still)
            case Kind.RELEASED:
                disposition, weight = Disposition.APPLIED, _CONSUMED
                sentence = words.released(row, pipeline)
            case Kind.DRAINING:
                disposition, weight, stage = Disposition.APPLIED, _CONSUMED, 3
                sentence = words.drains(row, pipeline)
            case Kind.LEFT_WAITING:
                disposition, sentence = Disposition.IGNORED, words.left_waiting(row, pipeline)
            case Kind.HELD | Kind.HELD_AFTER_WAIT:
                disposition, weight = Disposition.DEAD_LETTERED, _OPEN
                sentence = words.held_without_letter(row, pipeline)
            case _:
                disposition = Disposition.STARTED if row.kind == Kind.STARTED else Disposition.APPLIED
                weight, stage, release = _CONSUMED, 3, None
                if row.kind == Kind.MOVED_AFTER_WAIT and row.last_release is not None:
                    release = await row_of(self._connection, row.run, row.last_release)
                sentence = words.moved(row, pipeline, release)
        rank = Rank(weight, row.at, stage, row.sequence)
        return rank, Change(disposition.word, row.at, sentence, sequence=row.sequence)

    async def _waits(self, row: FoundRow, pipeline: str, *, still: bool) -> str:
        hold, holder = await holder_at(self._connection, row, now=still)
        if hold is not None and holder is None and await is_draining(self._connection, row.run, hold):
            return words.waits_for_rest(row, pipeline, still=still)
        definition = self._catalog.definitions.get(row.definition)
        version = None if definition is None else definition.version
        return words.waits(row, pipeline, version, hold, holder, still=still)

    async def _letter(self, letter: FoundLetter, records: Records) -> tuple[Rank, Change]:
        pipeline = None if letter.pipeline is None else self._catalog.pipelines.get(letter.pipeline)
        place = self._catalog.positions.get(letter.position or 0)
        readers = [] if place is None else self._catalog.readers_of(place.topic)
        tried = _tried(letter.details)
        row = _row_beside(letter, records)
        waited = row is not None and row.kind in _AFTER_WAIT
        sentence = words.dead_letter(letter, pipeline, readers, tried, waited=waited)
        weight = _LAST if letter.status == "redriven" else _OPEN
        return Rank(weight, letter.at, 1, letter.id), Change(
            Disposition(letter.disposition).word,
            letter.at,
            sentence,
            sequence=letter.sequence,
            reason=letter.reason,
            dead_letter=letter.id,
            tried=tried,
        )

    async def _note(self, note: FoundNote, records: Records) -> tuple[Rank, Change]:
        seen = configuration = None
        if note.run is not None:
            if note.disposition == Disposition.DUPLICATE:
                seen = await seen_first(self._connection, note.run, note.event_id)
            else:
                configuration = await configuration_before(self._connection, note.run, note.at)
        tried = _tried(note.details)
        sentence = words.noted(
            note,
            self._catalog.pipelines[note.pipeline],
            tried=tried,
            configuration=configuration,
            seen=seen,
            waited=any(_left(row, note) for row in records.rows),
        )
        rank = Rank(_NOTED, note.at, 4, note.id)
        word = Disposition(note.disposition).word
        return rank, Change(word, note.at, sentence, reason=note.reason, tried=tried)

    def _range(self, found: FoundRange) -> tuple[Rank, Change]:
        topic = self._catalog.positions[found.position].topic
        sentence = words.ignored_range(found, topic, self._catalog.readers_of(topic))
        change = Change(Disposition.IGNORED.word, found.at, sentence, reason="unknown type")
        return Rank(_NOTED, found.at, 5, found.first), change


def _is_told_elsewhere(row: FoundRow, records: Records) -> bool:
    """Whether the dead letter or the note beside a row tells what became of its event."""
    if row.kind in _HOLDING:
        return any(letter.run == row.run and letter.sequence == row.sequence for letter in records.letters)
    if row.kind != Kind.LEFT_WAITING:
        return False
    return any(_left(row, note) for note in records.notes) or any(
        _left(row, letter) for letter in records.letters
    )


def _left(row: FoundRow, told: FoundNote | FoundLetter) -> bool:
    return row.kind == Kind.LEFT_WAITING and row.run == told.run and row.at == told.at


def _row_beside(letter: FoundLetter, records: Records) -> FoundRow | None:
    for row in records.rows:
        if row.run == letter.run and (row.sequence == letter.sequence or _left(row, letter)):
            return row
    return None


def _still_waits(row: FoundRow, records: Records) -> bool:
    return not any(
        later.run == row.run and later.sequence > row.sequence and later.kind in _AFTER_WAIT
        for later in records.rows
    )


def _tried(details: bytes) -> tuple[Tried, ...]:
    try:
        listed = orjson.loads(details or b"[]")
    except ValueError:
        return ()
    if isinstance(listed, dict):
        listed = listed.get("tried", [])
    if not isinstance(listed, list):
        return ()
    return tuple(Tried(one.get("source") or None, one.get("target"), one.get("guard")) for one in listed)
