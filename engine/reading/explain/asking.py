"""Takes a question about an event or a record to its answers."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from connectors.decode import Decoded, decode
from connectors.source import RawRecord
from engine.commands.operators import operators_source
from engine.envelope import decode_envelope, decode_headers
from engine.errors import UsageError
from engine.reading.catalog import SQL, Catalog, load_catalog
from engine.reading.dropped import dropped_told
from engine.reading.explain.answers import Answer, Change, Explanation, Origin, Sender
from engine.reading.explain.changes import Rank, Records, Teller
from engine.reading.explain.executions import executions_told
from engine.reading.explain.found import (
    FOUND_MAX,
    Found,
    FoundLetter,
    FoundNote,
    FoundRow,
    Sent,
    find_by_id,
    find_by_record,
    find_sent,
)
from engine.reading.explain.origins import origin_in, origin_of, pending
from engine.reading.explain.places import without_answer
from engine.reading.rows import is_command
from engine.reading.values import askable
from engine.store.connecting import Connection
from statemachines.events import Envelope, is_result
from statemachines.outcome import Reason
from statemachines.topic import NO_TOPIC


class Group(NamedTuple):
    """What an answer is for: one event, as one pipeline (None: all) has it."""

    position: int | None
    offset: int | None
    pipeline: int | None
    number: int
    """Of what has no record: its dead letter, or the command's row; else 0."""
    event: str | None = None
    """The id, where a record may hold several events, or a place have had several records; else, and where none of them
    could be read, None."""
    key: str | None = None
    """Of what has no record: the run's, since events with one id may be sent to several."""


async def explain(
    connection: Connection,
    namespace: str,
    *,
    event_id: str | None = None,
    source: str | None = None,
    topic: str | None = None,
    partition: int | None = None,
    offset: int | None = None,
    sent: Sent | None = None,
) -> Explanation:
    """What became of an event (by its id, which several sources may have used) or of a record (by its place).

    ``sent`` asks for what was sent to one key alone, and for no more than that is read: its sender asks.

    Raises:
        UsageError: neither an id nor a whole place is given.
    """
    by_place = offset is not None
    if (by_place and (topic is None or partition is None)) or (not by_place and event_id is None):
        raise UsageError("Give an event's id, or a record's place: --topic T --partition P --offset O.")
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        catalog = await load_catalog(connection, namespace)
        places = [
            one
            for one in catalog.positions.values()
            if topic in (None, one.topic) and partition in (None, one.partition)
        ]
        if offset is not None:
            found = await find_by_record(connection, namespace, [place.id for place in places], offset)
        elif sent is not None:
            found = await find_sent(connection, namespace, askable(event_id) or "", sent)
        else:
            found = await find_by_id(connection, namespace, askable(event_id) or "")
        groups = _grouped(found, catalog)
        _hand_down(groups)
        if not by_place:
            # Others of its record were found with it.
            groups = {one: of for one, of in groups.items() if one.event in (None, askable(event_id))}
        teller = Teller(connection, catalog, to_sender=sent is not None)
        answers = []
        for group, records in groups.items():
            # An event that came with a record has its place there, whoever has published it.
            is_inner = group.position is None and not group.number
            origin = await _origin_of(connection, catalog, records) if is_inner else None
            sender = await _sender(connection, namespace, group, _envelope(records, catalog), records)
            told = await teller.tell(records, origin)
            answers.append(_answer(group, records, told, catalog, origin, sender))
        answers = sorted(
            (one for one in answers if _is_asked(one, event_id, source, topic, partition, by_place=by_place)),
            key=_source_and_time,
        )
        notes: list[str] = []
        known = bool(answers)
        if not answers and offset is not None:
            known, notes = await without_answer(
                connection, catalog, places, topic or "", partition or 0, offset
            )
        elif not answers:
            asked = event_id or ""
            notes = await executions_told(connection, catalog, asked)
            notes = notes or await pending(connection, namespace, asked)
            known = bool(notes)
            notes = notes or [_unknown_id(event_id or "", source, namespace)]
        if not known:
            notes += await dropped_told(connection)
    if found.is_cut:
        notes.append(f"It came more than {FOUND_MAX:,} times; what is told here is the first part.")
    return Explanation(
        namespace, event_id, source, topic, partition, offset, known, tuple(notes), tuple(answers)
    )


async def _origin_of(connection: Connection, catalog: Catalog, records: Records) -> Origin | None:
    """Where an event comes from that came from inside of a run."""
    envelope = _envelope(records, catalog)
    if envelope is not None:
        return await origin_of(connection, catalog.namespace, envelope)
    # Of what is noted only, neither source nor data is kept.
    for note in records.notes:
        if is_result(note.type) and note.key is not None:
            pipeline, asked = catalog.pipelines[note.pipeline], note.event_id.partition("/")[0]
            return await origin_in(connection, catalog.namespace, pipeline, note.key, asked)
    return None


def _grouped(found: Found, catalog: Catalog) -> dict[Group, Records]:
    groups: dict[Group, Records] = {}

    def of(one: FoundRow | FoundLetter | FoundNote, number: int = 0) -> Records:
        if one.position is not None:
            is_one = not (
                catalog.holds_several(one.position) or catalog.holds_others(one.position, one.offset)
            )
            event = None if is_one else one.event_id
            group = Group(one.position, one.offset, one.pipeline, 0, event)
        else:
            # What came from inside of a run is told by its id.
            event, key = (None, None) if number else (one.event_id, one.key)
            group = Group(None, None, one.pipeline, number, event, key)
        return groups.setdefault(group, Records())

    for row in found.rows:
        # A run that goes on by itself has commands of one id in several runs.
        of(row, row.run << 32 | row.sequence if is_command(row.kind) else 0).rows.append(row)
    for letter in found.letters:
        of(letter, letter.id if letter.reason == Reason.REFUSED_BY_BROKER else 0).letters.append(letter)
    for note in found.notes:
        of(note).notes.append(note)
    for one in found.ranges:
        groups.setdefault(Group(one.position, one.offset, None, 0), Records()).ranges.append(one)
    return groups


def _hand_down(groups: dict[Group, Records]) -> None:
    """What concerned all pipelines and was redriven is what came before, in each that it was offered to.

    What was a dead letter as a whole came before each of the events that its record then held.
    """
    for group, records in list(groups.items()):
        if group.pipeline is not None or records.ranges:
            continue
        heirs = [
            other
            for other in groups
            if other.pipeline is not None
            and other.position is not None
            and other[:2] == group[:2]
            and group.event in (None, other.event)
        ]
        if heirs and all(letter.status == "redriven" for letter in records.letters):
            for heir in heirs:
                groups[heir].letters[:0] = records.letters
            del groups[group]


def _answer(
    group: Group,
    records: Records,
    told: list[tuple[Rank, Change]],
    catalog: Catalog,
    origin: Origin | None,
    sender: Sender | None,
) -> Answer:
    current = max(range(len(told)), key=lambda index: (told[index][0].weight, index))
    place = catalog.positions.get(group.position or 0)
    offset = group.offset
    best = _best(records)
    return Answer(
        pipeline=None if group.pipeline is None else catalog.pipelines[group.pipeline],
        key=best.key if best else None,
        generation=best.generation if best else None,
        event_id=best.event_id if best else None,
        type=best.type if best else None,
        source=_source(records, catalog),
        origin=origin,
        sender=sender,
        topic=None if place is None else place.topic,
        partition=None if place is None else place.partition,
        offset=offset,
        group=None if place is None else place.group,
        current=told[current][1],
        earlier=tuple(change for index, (_, change) in enumerate(told) if index != current),
    )


async def _sender(
    connection: Connection, namespace: str, group: Group, envelope: Envelope | None, records: Records
) -> Sender | None:
    """The operator who has sent an event that no topic had; what was noted alone is known by its id."""
    best = _best(records)
    from_operators = envelope is None or envelope.source == operators_source(namespace)
    # Of a step that went on outside, whoever has completed it.
    from_operators = from_operators or (envelope is not None and is_result(envelope.type))
    if group.position is not None or best is None or not from_operators:
        return None
    asked = best.event_id, group.pipeline, best.key
    row = await connection.fetchrow(SQL["operation_of_event"], *asked)
    return None if row is None else Sender(*row)


def _best(records: Records) -> FoundRow | FoundLetter | FoundNote | None:
    """What tells most of the event."""
    for many in (records.rows[::-1], records.notes, records.letters[::-1]):
        for one in many:
            return one
    return None


def _source(records: Records, catalog: Catalog) -> str | None:
    envelope = _envelope(records, catalog)
    return None if envelope is None else envelope.source


def _envelope(records: Records, catalog: Catalog) -> Envelope | None:
    for row in records.rows:
        place = catalog.positions.get(row.position or 0)
        if place is None and not is_command(row.kind):
            return _inner(row.envelope, row.key, row.payload)
        if place is not None:
            time, key, headers = decode_envelope(row.envelope, row.key.encode())
            record = RawRecord(place.topic, place.partition, row.offset or 0, time, key, row.payload, headers)
            event = row.event_id, row.type
            decoded = catalog.decode(record, row.position, row.definition, at=row.at, event=event)
            return None if decoded is None else decoded.envelope
    for letter in records.letters:
        place = catalog.positions.get(letter.position or 0)
        record = RawRecord(
            place.topic if place else "",
            place.partition if place else 0,
            letter.offset or 0,
            letter.record_time,
            letter.record_key,
            letter.record_value,
            decode_headers(letter.record_headers),
        )
        if place is None and letter.reason != Reason.REFUSED_BY_BROKER:
            return _in(record)
        decoded = catalog.decode(record, letter.position, event=(letter.event_id or "", letter.type or ""))
        return None if decoded is None else decoded.envelope
    return None


def _inner(envelope: bytes, key: str, payload: bytes | None) -> Envelope | None:
    time, record_key, headers = decode_envelope(envelope, key.encode())
    return _in(RawRecord("", 0, 0, time, record_key, payload, headers))


def _in(record: RawRecord) -> Envelope | None:
    """Of an event without a place, which is a CloudEvent whatever any topic's settings say."""
    decoded = decode(record, NO_TOPIC, "")
    return decoded.envelope if isinstance(decoded, Decoded) else None


def _source_and_time(answer: Answer) -> tuple[bool, str, datetime]:
    """Where an answer comes among those of one id: by its source, as far as that is kept, and its first time."""
    first = min(one.at for one in (*answer.earlier, answer.current))
    return answer.source is None, answer.source or "", first


def _is_asked(
    answer: Answer,
    event_id: str | None,
    source: str | None,
    topic: str | None,
    partition: int | None,
    *,
    by_place: bool,
) -> bool:
    if source is not None and answer.source not in (None, source):
        return False
    if by_place:
        return event_id is None or answer.event_id in (None, askable(event_id))
    return topic in (None, answer.topic) and partition in (None, answer.partition)


def _unknown_id(event_id: str, source: str | None, namespace: str) -> str:
    whose = "" if source is None else f" of the source {source!r}"
    return (
        f"Nothing is recorded of an event with the id {event_id!r}{whose} in the namespace {namespace!r}: it "
        "was not consumed yet, its id could not be read, or its topic's settings say to ignore its type, "
        "which keeps no ids. Where you know its place, ask for that: "
        "pointsman explain --topic T --partition P --offset O."
    )
