"""From what is recorded of one record and one pipeline to the changes of its disposition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from engine.dispositions import Disposition
from engine.log import HOLDS, Kind
from engine.reading.asked import LEAVES_DEFERRAL, deferral_of
from engine.reading.catalog import SQL, Catalog
from engine.reading.explain import inner_words, step_words, words
from engine.reading.explain.answers import Change, Origin, Tried
from engine.reading.explain.beginnings import began_by
from engine.reading.explain.executions import why_void
from engine.reading.explain.found import (
    FoundLetter,
    FoundNote,
    FoundRange,
    FoundRow,
    configuration_before,
    holder_at,
    row_of,
    seen_first,
)
from engine.reading.values import states_of
from engine.store.connecting import Connection
from statemachines.outcome import Reason

_AFTER_WAIT = frozenset({Kind.MOVED_AFTER_WAIT, Kind.HELD_AFTER_WAIT, Kind.LEFT_WAITING})
_LEFT = frozenset({Kind.LEFT_WAITING, Kind.LEFT_DEFERRED, Kind.PASSED})
"""Beside a row of these kinds a note or a dead letter of the same time may tell why."""


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

    def __init__(self, connection: Connection, catalog: Catalog, *, to_sender: bool) -> None:
        self._connection = connection
        self._catalog = catalog
        self._to_sender = to_sender

    async def tell(self, records: Records, origin: Origin | None = None) -> list[tuple[Rank, Change]]:
        """All changes in the order in which they came; ``origin`` is where the event comes from, if that is a run."""
        told = [
            *[
                await self._row(row, records, origin)
                for row in records.rows
                if not _is_told_elsewhere(row, records)
            ],
            *[await self._letter(letter, records) for letter in records.letters],
            *[await self._note(note, records, origin) for note in records.notes if not _is_beside(note)],
            *[self._range(found) for found in records.ranges],
        ]
        return sorted(told, key=lambda one: one[0][1:])

    async def _row(self, row: FoundRow, records: Records, origin: Origin | None) -> tuple[Rank, Change]:
        pipeline = self._catalog.pipelines[row.pipeline]
        weight, stage, policy = _LAST, 2, ""
        reenters = self._catalog.may_reenter(row.definition, row.type, row.configuration)
        row = row._replace(may_reenter=reenters)
        match row.kind:
            case Kind.DEFERRED:
                return await self._deferred(row, pipeline, records)
            case Kind.WAITED:
                still = _still_waits(row, records)
                disposition, weight, stage = Disposition.HELD, _WAITING if still else _LAST, 0
                sentence = await self._waits(row, pipeline, still=still)
            case Kind.RELEASED:
                disposition, weight = Disposition.APPLIED, _CONSUMED
                sentence = words.released(row, pipeline)
            case Kind.PAUSED:
                disposition, weight = Disposition.APPLIED, _CONSUMED
                sentence = words.paused(row, pipeline)
            case Kind.MAPPED:
                disposition, weight = Disposition.APPLIED, _CONSUMED
                sentence = words.mapped(row, pipeline)
            case Kind.CANCELLED:
                disposition, weight, stage = Disposition.APPLIED, _CONSUMED, 3
                sentence = words.cancelled(row, pipeline)
            case Kind.DRAINING:
                disposition, weight, stage = Disposition.APPLIED, _CONSUMED, 3
                sentence = words.drains(row, pipeline)
            case Kind.LEFT_WAITING:
                disposition, sentence = Disposition.IGNORED, words.left_waiting(row, pipeline)
            case Kind.LEFT_DEFERRED:
                onward = any(other.generation > row.generation for other in records.rows)
                onward = onward or any(
                    (letter.generation or 0) > row.generation for letter in records.letters
                )
                disposition, stage = Disposition.DEFERRED if onward else Disposition.IGNORED, 0
                left = inner_words.left_for_next if onward else inner_words.left_deferral
                sentence = left(row, pipeline)
            case Kind.PASSED:
                disposition, sentence = self._passed(row, pipeline)
                weight, stage = _CONSUMED, 3
            case held if held in HOLDS:
                disposition, weight = Disposition.DEAD_LETTERED, _OPEN
                sentence = words.held_without_letter(row, pipeline)
            case _:
                disposition = Disposition.STARTED if row.kind == Kind.STARTED else Disposition.APPLIED
                weight, stage = _CONSUMED, 3
                policy = began_by(row, self._catalog.definitions.get(row.definition))
                said = await self._moved(row, pipeline, records, origin)
                sentence = f"{said} {words.decided(policy)}".rstrip()
        rank = Rank(weight, row.at, stage, _number(row))
        return rank, Change(disposition.word, row.at, sentence, policy=policy, **_place(row))

    def _passed(self, row: FoundRow, pipeline: str) -> tuple[Disposition, str]:
        heard = step_words.heard_of_row(row, self._catalog.namespace, pipeline)
        if heard is None:
            return Disposition.IGNORED, inner_words.passed(row, pipeline)
        counts = step_words.is_noted_only(heard)
        return Disposition.APPLIED if counts else Disposition.IGNORED, step_words.passed(row, pipeline, heard)

    async def _moved(self, row: FoundRow, pipeline: str, records: Records, origin: Origin | None) -> str:
        said = await self._how_moved(row, pipeline, records, origin)
        heard = step_words.heard_of_row(row, self._catalog.namespace, pipeline)
        return said if heard is None else step_words.took(heard, said)

    async def _how_moved(self, row: FoundRow, pipeline: str, records: Records, origin: Origin | None) -> str:
        since = _deferred_in(row, records)
        match row.kind:
            case Kind.FIRED:
                return inner_words.fired(row, pipeline, origin)
            case Kind.MOVED_DEFERRED:
                after = await row_of(self._connection, row.run, row.sequence - 1)
                return inner_words.taken_later(row, pipeline, since, after)
            case Kind.STARTED if since is not None:
                return inner_words.started_after(words.moved(row, pipeline, None), since)
            case Kind.MOVED_AFTER_WAIT if row.last_release is not None:
                release = await row_of(self._connection, row.run, row.last_release)
                return words.moved(row, pipeline, release)
            case _:
                return words.moved(row, pipeline, None)

    async def _waits(self, row: FoundRow, pipeline: str, *, still: bool) -> str:
        hold, holder = await holder_at(self._connection, row, now=still)
        held_by = (
            None if hold is None or holder is not None else await row_of(self._connection, row.run, hold)
        )
        if held_by is not None and held_by.kind == Kind.DRAINING:
            return words.waits_for_rest(row, pipeline, still=still)
        if held_by is not None and held_by.kind == Kind.PAUSED:
            return words.waits_for_resume(row, pipeline, held_by, still=still)
        definition = self._catalog.definitions.get(row.definition)
        version = None if definition is None else definition.version
        return words.waits(row, pipeline, version, hold, holder, still=still)

    async def _letter(self, letter: FoundLetter, records: Records) -> tuple[Rank, Change]:
        pipeline = None if letter.pipeline is None else self._catalog.pipelines.get(letter.pipeline)
        place = self._catalog.positions.get(letter.position or 0)
        readers = [] if place is None else self._catalog.readers_of(place.topic)
        tried = _tried(letter.details)
        waited = _waited(_row_beside(letter, records), records)
        policy = said_in(letter.details, "policy")
        sentence = words.dead_letter(
            letter, pipeline, readers, tried, waited=waited, policy=policy, to_sender=self._to_sender
        )
        weight = _LAST if letter.status == "redriven" else _OPEN
        return Rank(weight, letter.at, 1, letter.id), Change(
            Disposition(letter.disposition).word,
            letter.at,
            sentence,
            sequence=letter.sequence,
            reason=letter.reason,
            dead_letter=letter.id,
            policy=policy,
            tried=tried,
        )

    async def _note(self, note: FoundNote, records: Records, origin: Origin | None) -> tuple[Rank, Change]:
        seen = configuration = None
        known_by, policy = said_in(note.details, "known_by"), said_in(note.details, "policy")
        if note.disposition == Disposition.DUPLICATE:
            seen = await seen_first(self._connection, note, known_by)
            # What has the id of an event that was seen is one whatever its business key.
            policy = policy if seen is None or seen.by_key else ""
        elif note.run is not None:
            configuration = await configuration_before(self._connection, note.run, note.at)
        why = said_in(note.details, "why")
        if note.disposition == Disposition.VOID:
            why = await why_void(self._connection, self._catalog.namespace, note, origin)
        tried = _tried(note.details)
        sentence = words.noted(
            note,
            self._catalog.pipelines[note.pipeline],
            tried=tried,
            configuration=configuration,
            seen=seen,
            waited=_waited(next((row for row in records.rows if _left(row, note)), None), records),
            policy=policy,
            why=why,
            known_by=known_by,
        )
        rank = Rank(_NOTED, note.at, 4, note.id)
        word = Disposition(note.disposition).word
        return rank, Change(word, note.at, sentence, reason=note.reason, policy=policy, tried=tried)

    async def _deferred(self, row: FoundRow, pipeline: str, records: Records) -> tuple[Rank, Change]:
        still = not any(
            later.run == row.run and later.sequence > row.sequence and later.kind in LEAVES_DEFERRAL
            for later in records.rows
        )
        found = deferral_of(row.sequence, row.event_id, row.type, row.effects)
        tried = () if found is None else _as_tried(found.tried)
        for_pipeline = False
        if still and found is not None and found.reason == Reason.PAUSED:
            for_pipeline = await self._is_paused(pipeline)
        change = Change(
            Disposition.DEFERRED.word,
            row.at,
            inner_words.deferred(row, pipeline, found, tried, still=still, for_pipeline=for_pipeline),
            **_place(row),
            reason=None if found is None else found.reason,
            policy="" if found is None else found.policy,
            until=None if found is None else found.until,
            tried=tried,
        )
        return Rank(_WAITING if still else _LAST, row.at, 0, _number(row)), change

    async def _is_paused(self, pipeline: str) -> bool:
        return bool(await self._connection.fetch(SQL["pauses"], self._catalog.namespace, pipeline))

    def _range(self, found: FoundRange) -> tuple[Rank, Change]:
        topic = self._catalog.positions[found.position].topic
        sentence = words.ignored_range(found, topic, self._catalog.readers_of(topic))
        change = Change(Disposition.IGNORED.word, found.at, sentence, reason=found.reason)
        return Rank(_NOTED, found.at, 5, found.first), change


def _place(row: FoundRow) -> dict[str, Any]:
    """The row that tells a change, and where its run is then."""
    configuration = tuple(states_of(row.configuration))
    return {"sequence": row.sequence, "generation": row.generation, "configuration": configuration}


def _number(row: FoundRow) -> int:
    """In the order of a key's generations, then of their rows."""
    return row.generation << 32 | row.sequence


def _is_told_elsewhere(row: FoundRow, records: Records) -> bool:
    """Whether the dead letter, the note or the row beside a row tells what became of its event."""
    if row.kind in HOLDS:
        return any(letter.run == row.run and letter.sequence == row.sequence for letter in records.letters)
    if row.kind not in _LEFT:
        return False
    # What waited behind a hold may be deferred then; what waited for a run to begin may be what begins it.
    goes_on = any(
        other.run == row.run
        and other.sequence == row.sequence + 1
        and other.at == row.at
        and other.kind in (Kind.STARTED, Kind.DEFERRED)
        for other in records.rows
    )
    is_beside = row.kind == Kind.PASSED and any(map(_is_beside, records.notes))
    noted = not is_beside and any(_left(row, note) for note in records.notes)
    return goes_on or noted or any(_left(row, letter) for letter in records.letters)


def _is_beside(note: FoundNote) -> bool:
    """Whether a note says no more than the row beside it: of a step that is tried again, waits, or was left."""
    return note.reason in (Reason.RETRYING, Reason.STOPPED, Reason.LATER)


def _left(row: FoundRow, told: FoundNote | FoundLetter) -> bool:
    return row.kind in _LEFT and row.run == told.run and row.at == told.at


def _row_beside(letter: FoundLetter, records: Records) -> FoundRow | None:
    for row in records.rows:
        if row.run == letter.run and (row.sequence == letter.sequence or _left(row, letter)):
            return row
    return None


def _waited(row: FoundRow | None, records: Records) -> str:
    """What the event had done before, by the row that tells its end, as the beginning of a sentence."""
    if row is not None and row.kind in LEAVES_DEFERRAL:
        since = _deferred_in(row, records)
        return (
            "After it had been deferred" if since is None else f"After it had been deferred since row {since}"
        )
    return "After it had waited" if row is not None and row.kind in _AFTER_WAIT else ""


def _deferred_in(row: FoundRow, records: Records) -> int | None:
    """The row that deferred the event of another row of the same run."""
    found = [
        one.sequence
        for one in records.rows
        if one.kind == Kind.DEFERRED and one.run == row.run and one.sequence < row.sequence
    ]
    return max(found, default=None)


def _still_waits(row: FoundRow, records: Records) -> bool:
    return not any(
        later.run == row.run and later.sequence > row.sequence and later.kind in _AFTER_WAIT
        for later in records.rows
    )


def _tried(details: bytes) -> tuple[Tried, ...]:
    listed = _form(details)
    if isinstance(listed, dict):
        listed = listed.get("tried", [])
    return _as_tried(listed) if isinstance(listed, list) else ()


def _as_tried(listed: Iterable[Mapping[str, Any]]) -> tuple[Tried, ...]:
    return tuple(Tried(one.get("source") or None, one.get("target"), one.get("guard")) for one in listed)


def said_in(details: bytes, name: str) -> str:
    """What else was kept beside an event's end: the policy, why it is stale, what it is known by."""
    form = _form(details)
    return str(form.get(name, "")) if isinstance(form, dict) else ""


def _form(details: bytes) -> Any:
    try:
        return orjson.loads(details or b"[]")
    except ValueError:
        return []
