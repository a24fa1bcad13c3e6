"""A batch: records become arrivals, arrivals meet their runs, and all of it becomes one commit.

Nothing here waits or talks to anyone, and nothing is durable yet: runs are stepped ahead in the routes' caches, which are
dropped if the commit does not succeed. Where the log must be asked first (a run that is not in the cache, an event that
may be too old for a run's own memory), ``engine.loading`` asks between ``read`` and ``meet``.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from connectors.decode import Decoded, Unreadable, decode
from connectors.source import Record
from engine.dead_letters import Subject, make_dead_letter, tried_bytes
from engine.dispositions import Disposition
from engine.envelope import encode_envelope
from engine.log import Kind, LogRow, append, digest_number, digest_of, fold
from engine.publications import effects_bytes, out_records, source_of
from engine.routing import Route, TopicRoute
from engine.store.contract import Commit, IgnoredRange, Noted
from statemachines.events import Address, Event, key_of
from statemachines.handlers import describe
from statemachines.interpreter import Occurrence, step
from statemachines.machine import Machine
from statemachines.outcome import Duplicate, Ignored, Moved, Outcome, Reason, Refused, Waits
from statemachines.run import DIGEST_BYTES, RECENT_DIGESTS_MAX, Run, has_seen

_new = tuple.__new__
_RECENT_FULL = RECENT_DIGESTS_MAX * DIGEST_BYTES
_STARTED, _MOVED, _MOVED_AFTER_WAIT = int(Kind.STARTED), int(Kind.MOVED), int(Kind.MOVED_AFTER_WAIT)
_NO_EVENT = Event.model_construct()
STRIKES_MAX = 2
"""After as many ends of an engine within one record's handler, the record is a dead letter."""
WAITING_EVENTS_MAX = 1_000
"""How many events wait behind the hold of one run; the newest beyond that become dead letters."""

Known = set[tuple[int, int]]
"""(run, digest) pairs."""


class Match(NamedTuple):
    """A run that an event is for; it need not exist."""

    route: Route
    key: str


class Arrival(NamedTuple):
    """A record that could be read, and the runs that it is for."""

    record: Record
    position: int | None
    topic: TopicRoute
    decoded: Decoded
    digest: bytes
    matches: Sequence[Match]


class Batch:
    """Gathers one commit. ``beat`` is where the watchdog sees which record is being stepped."""

    def __init__(
        self, at: datetime, run_ids: Iterator[int], cluster: str, beat: MutableSequence[int]
    ) -> None:
        self.commit = Commit(at)
        self.arrivals: list[Arrival] = []
        self.records = 0
        self.counts: dict[tuple[str, Disposition], int] = {}
        self.consumed: Known = set()
        """Consumed before, as far as the log was asked, or in this batch."""
        self.waiting: Known = set()
        """Waiting before, as far as the table was asked, or since this batch."""
        self.strikes: dict[tuple[int, int], tuple[int, str]] = {}
        self._run_ids = run_ids
        self._cluster = cluster
        self._beat = beat
        self._touched: dict[Route, dict[str, int]] = {}
        self._ranges: dict[int, IgnoredRange] = {}

    def read(self, records: Sequence[Record], position: int | None, topic: TopicRoute) -> None:
        """Decode records of one partition and find the runs they are for; what cannot be read is settled here."""
        self.records += len(records)
        settings, cluster = topic.topic, self._cluster
        for record in records:
            decoded = decode(record, settings, cluster)
            if isinstance(decoded, Unreadable):
                self._refuse_record(record, position, topic, Reason.UNREADABLE, decoded.error, decoded)
            else:
                self.match(record, position, topic, decoded)
        self._close_range(position)

    def match(
        self,
        record: Record,
        position: int | None,
        topic: TopicRoute,
        decoded: Decoded,
        only: int | None = None,
    ) -> Arrival | None:
        """Find the runs that an event is for (of pipeline ``only``, if given); None where there are none."""
        envelope = decoded.envelope
        matches: list[Match] = []
        known = False
        for route in topic.routes:
            event_class = route.events.get(envelope.type)
            if event_class is None or (only is not None and route.pipeline != only):
                continue
            known = True
            key = key_of(event_class, decoded.data, envelope.key)
            if key is None or not _is_fit_key(key):
                self._refuse_without_key(record, position, topic, route, decoded, event_class)
            else:
                matches.append(_new(Match, (route, key)))
        if not known:
            self._unknown_type(record, position, topic, decoded)
        if not matches:
            return None
        if self._ranges:
            self._close_range(position)
        digest = digest_of(envelope.source, envelope.id)
        arrival: Arrival = _new(Arrival, (record, position, topic, decoded, digest, matches))
        self.arrivals.append(arrival)
        return arrival

    def meet(self, arrival: Arrival, match: Match, after_wait: int | None = None) -> None:
        """Step the run and note what became of the event.

        ``after_wait`` is the number of the log row since which the event has waited.
        """
        record, position, topic, decoded, digest, _ = arrival
        route, key = match
        envelope = decoded.envelope
        run = route.cache.get(key)
        at = self.commit.at
        if run is None:
            definition, machine = route.newest_definition, route.newest
        else:
            definition = run.definition
            found = route.machines.get(definition)
            if run.updated > at:
                at = run.updated
            if found is None:
                self._without_definition(arrival, match, run, at)
                return
            machine = found
        beat = self._beat
        beat[0] = position or 0
        beat[1] = record.offset
        beat[2] += 1
        event: Event | None = None
        error = ""
        event_class = machine.events.get(envelope.type)
        if event_class is None:
            event = _NO_EVENT  # a type that only another version knows: this one's table has nothing for it
        else:
            try:
                event = event_class.__pydantic_validator__.validate_python(decoded.data or {})
            except BaseException as raised:  # noqa: BLE001 - a user's validator may raise anything
                error = describe_invalid(raised)
        number = digest_number(digest)
        seen = False
        if run is not None and (run.held or len(run.recent) >= _RECENT_FULL):
            pair = (run.id, number)
            seen = pair in self.consumed or (after_wait is None and pair in self.waiting)
        occurrence: Occurrence = _new(Occurrence, (envelope, key, digest, at, event, error, seen))
        if self.strikes and (position, record.offset) in self.strikes:
            outcome = self._struck(position, record.offset, run) or step(machine, run, occurrence)
        else:
            outcome = step(machine, run, occurrence)
        if type(outcome) is not Moved:
            self._settle(arrival, match, run, machine, outcome, at, after_wait)
            return
        if run is None:
            kind, sequence, run_id, previous = _STARTED, 1, next(self._run_ids), b""
        else:
            kind, sequence, run_id, previous = _MOVED, run.sequence + 1, run.id, run.hash
            if after_wait is not None:
                kind = _MOVED_AFTER_WAIT
                self.commit.waiting_removed.append((run_id, after_wait))
        publications = outcome.publications
        effects = b""
        if publications:
            effects = effects_bytes(publications)
            address = Address(
                machine.namespace, machine.name, key, 0 if run is None else run.generation, sequence
            )
            source = source_of(machine.namespace, machine.name)
            self.commit.out.extend(out_records(publications, address, source, envelope, at))
        packed = encode_envelope(record.timestamp, record.key, record.headers, key.encode())
        row = append(previous, (
            run_id, number, record.offset, at, sequence, position, definition, kind, outcome.status,
            envelope.type, envelope.id, outcome.configuration, packed, effects, outcome.context or b"", record.value,
        ))  # fmt: skip
        self._write(route, key, run, row, outcome.loaded)
        if run is not None and len(run.recent) >= _RECENT_FULL:
            # The run forgets its oldest digest now, which the log may not be able to tell yet.
            self.consumed.add((run_id, digest_number(run.recent[:DIGEST_BYTES])))
        self._count(route, Disposition.STARTED if run is None else Disposition.APPLIED)

    def command_row(
        self, route: Route, run: Run, event_type: str, event_id: str, payload: bytes, milliseconds: int
    ) -> None:
        """Log that the hold of a run was lifted."""
        at = max(self.commit.at, run.updated)
        packed = encode_envelope(milliseconds, None, (), b"")
        row = append(run.hash, (
            run.id, None, None, at, run.sequence + 1, None, run.definition, int(Kind.RELEASED), run.status,
            event_type, event_id, run.configuration, packed, b"", b"", payload,
        ))  # fmt: skip
        self._write(route, run.key, run, row, run.loaded)

    def finish(self) -> Commit:
        """The commit, complete."""
        commit = self.commit
        for route, keys in self._touched.items():
            cache = route.cache
            for key, old in keys.items():
                if old:
                    commit.changed.append((old, cache[key]))
                else:
                    commit.created.append((route.pipeline, cache[key]))
        return commit

    def touched(self) -> Iterator[tuple[Route, str]]:
        """The runs that this batch moved."""
        return ((route, key) for route, keys in self._touched.items() for key in keys)

    def _write(self, route: Route, key: str, run: Run | None, row: LogRow, loaded: list[Any]) -> None:
        touched = self._touched.get(route)
        if touched is None:
            touched = self._touched[route] = {}
        if key not in touched:
            touched[key] = 0 if run is None else run.sequence
        self.commit.rows.append(row)
        cache = route.cache
        if run is not None:
            # Out and in again moves it to the end: the cache's order is the order of use.
            del cache[key]
        cache[key] = fold(run, row, key=key, loaded=loaded)

    def _count(self, route: Route, disposition: Disposition) -> None:
        counts = self.counts
        key = (route.name, disposition)
        counts[key] = counts.get(key, 0) + 1

    def _settle(
        self,
        arrival: Arrival,
        match: Match,
        run: Run | None,
        machine: Machine,
        outcome: Outcome,
        at: datetime,
        after_wait: int | None,
    ) -> None:
        del machine
        match outcome:
            case Duplicate():
                self._note(arrival, match, run, Disposition.DUPLICATE, Reason.SEEN_BEFORE, b"", at)
            case Ignored(reason, tried):
                self._note(arrival, match, run, Disposition.IGNORED, reason, tried_bytes(tried), at)
            case Waits(reason):
                assert run is not None
                self._wait(arrival, match, run, reason, at)
                return
            case Refused():
                self._refuse(arrival, match, run, outcome, at, after_wait)
                return
            case Moved():
                raise AssertionError("a move is written by meet")
        if after_wait is not None and run is not None:
            self._leave_waiting(arrival, match, run, Kind.LEFT_WAITING, at, after_wait)

    def _refuse(
        self,
        arrival: Arrival,
        match: Match,
        run: Run | None,
        refused: Refused,
        at: datetime,
        after_wait: int | None,
    ) -> None:
        route, key = match
        envelope = arrival.decoded.envelope
        sequence: int | None = None
        if run is not None and refused.holds:
            kind = Kind.HELD if after_wait is None else Kind.HELD_AFTER_WAIT
            self._leave_waiting(arrival, match, run, kind, at, after_wait)
            sequence = run.sequence + 1
        elif run is not None and after_wait is not None:
            self._leave_waiting(arrival, match, run, Kind.LEFT_WAITING, at, after_wait)
        subject = Subject(
            pipeline=route.pipeline,
            pipeline_name=route.name,
            run=None if run is None else run.id,
            sequence=sequence,
            key=key,
            event_id=envelope.id,
            type=envelope.type,
        )
        letter = make_dead_letter(
            arrival.record,
            subject,
            refused.reason,
            refused.error,
            at=at,
            position=arrival.position,
            topic=arrival.topic.dead_letters,
            tried=refused.tried,
        )
        self.commit.dead_letters.append(letter)
        self._count(route, Disposition(letter.disposition))

    def _wait(self, arrival: Arrival, match: Match, run: Run, reason: Reason, at: datetime) -> None:
        if run.waiting >= WAITING_EVENTS_MAX:
            error = f"{run.waiting} events wait already behind what holds the run; this one came on top"
            self._refuse(arrival, match, run, Refused(Reason.WAITING_FULL, error, False), at, None)
            return
        del reason  # the row that holds the run tells it
        row = self._row_of(arrival, match, run, Kind.WAITED, at)
        number = digest_number(arrival.digest)
        self.commit.waiting_added.append((run.id, row.sequence, number))
        self.waiting.add((run.id, number))
        self._count(match.route, Disposition.HELD)

    def _without_definition(self, arrival: Arrival, match: Match, run: Run, at: datetime) -> None:
        pair = (run.id, digest_number(arrival.digest))
        if has_seen(run.recent, arrival.digest) or pair in self.consumed or pair in self.waiting:
            self._note(arrival, match, run, Disposition.DUPLICATE, Reason.SEEN_BEFORE, b"", at)
        else:
            self._wait(arrival, match, run, Reason.DEFINITION_MISSING, at)

    def _leave_waiting(
        self, arrival: Arrival, match: Match, run: Run, kind: Kind, at: datetime, after_wait: int | None
    ) -> None:
        self._row_of(arrival, match, run, kind, at)
        if after_wait is not None:
            self.commit.waiting_removed.append((run.id, after_wait))
            self.waiting.discard((run.id, digest_number(arrival.digest)))

    def _row_of(self, arrival: Arrival, match: Match, run: Run, kind: Kind, at: datetime) -> LogRow:
        """Log a row that keeps the event and leaves configuration and context as they are."""
        record, envelope = arrival.record, arrival.decoded.envelope
        packed = encode_envelope(record.timestamp, record.key, record.headers, run.key.encode())
        row = append(run.hash, (
            run.id, None, record.offset, at, run.sequence + 1, arrival.position, run.definition, int(kind),
            run.status, envelope.type, envelope.id, run.configuration, packed, b"", b"", record.value,
        ))  # fmt: skip
        self._write(match.route, run.key, run, row, [])
        return row

    def _note(
        self,
        arrival: Arrival,
        match: Match,
        run: Run | None,
        disposition: Disposition,
        reason: Reason,
        details: bytes,
        at: datetime,
    ) -> None:
        envelope = arrival.decoded.envelope
        self.commit.noted.append(
            Noted(
                arrival.position,
                arrival.record.offset,
                match.route.pipeline,
                None if run is None else run.id,
                match.key,
                envelope.id,
                envelope.type,
                int(disposition),
                reason.value,
                details,
                at,
            )
        )
        self._count(match.route, disposition)

    def _struck(self, position: int | None, offset: int, run: Run | None) -> Refused | None:
        strikes, handler = self.strikes[position or 0, offset]
        if strikes < STRIKES_MAX:
            return None
        error = f"{handler} did not return, {strikes} times; each time the engine was ended"
        self.commit.strikes_forgotten.append((position or 0, offset))
        return Refused(Reason.NEVER_RETURNED, error, holds=run is not None)

    def _refuse_record(
        self,
        record: Record,
        position: int | None,
        topic: TopicRoute,
        reason: Reason,
        error: str,
        what: Unreadable | Decoded,
        route: Route | None = None,
    ) -> None:
        self._close_range(position)
        if isinstance(what, Unreadable):
            event_id, event_type, key = what.event_id, what.type, what.key
        else:
            event_id, event_type, key = what.envelope.id, what.envelope.type, what.envelope.key
        subject = Subject(
            pipeline=None if route is None else route.pipeline,
            pipeline_name=None if route is None else route.name,
            key=key,
            event_id=event_id,
            type=event_type,
        )
        letter = make_dead_letter(
            record, subject, reason, error, at=self.commit.at, position=position, topic=topic.dead_letters
        )
        self.commit.dead_letters.append(letter)
        for one in topic.routes if route is None else (route,):
            self._count(one, Disposition.DEAD_LETTERED)

    def _refuse_without_key(
        self,
        record: Record,
        position: int | None,
        topic: TopicRoute,
        route: Route,
        decoded: Decoded,
        event_class: type[Event],
    ) -> None:
        field = event_class.event_key()
        if field is None:
            why = decoded.key_error or "the record has no key, and the event no subject"
        else:
            why = f"the field {field!r} of the data, which {event_class.__name__} names as the key, is no fit text"
        self._refuse_record(record, position, topic, Reason.NO_KEY, why, decoded, route)

    def _unknown_type(
        self, record: Record, position: int | None, topic: TopicRoute, decoded: Decoded
    ) -> None:
        if topic.topic.unknown == "ignore" and position is not None:
            known = self._ranges.get(position)
            first, records = (record.offset, 0) if known is None else (known.first, known.records)
            self._ranges[position] = IgnoredRange(position, first, record.offset, records + 1)
            for route in topic.routes:
                self._count(route, Disposition.IGNORED)
            return
        known_types = sorted({name for route in topic.routes for name in route.events})
        error = f"no pipeline that reads {topic.topic.name} knows the type {decoded.envelope.type!r}"
        listed = ", ".join(known_types[:12]) + (", ..." if len(known_types) > 12 else "")  # noqa: PLR2004 - a line
        self._refuse_record(
            record, position, topic, Reason.UNKNOWN_TYPE, f"{error}; known are {listed}", decoded
        )

    def refuse_by_store(self, record: Record, position: int | None, topic: TopicRoute, error: str) -> None:
        """Settle a record that the store cannot take as a move."""
        decoded = decode(record, topic.topic, self._cluster)
        self._refuse_record(record, position, topic, Reason.REFUSED_BY_STORE, error, decoded)

    def _close_range(self, position: int | None) -> None:
        if position is not None:
            done = self._ranges.pop(position, None)
            if done is not None:
                self.commit.ranges.append(done)


KEY_BYTES_MAX = 1_024
"""A run's key, as UTF-8."""


def _is_fit_key(key: str) -> bool:
    if len(key) * 4 <= KEY_BYTES_MAX and key.isprintable():
        return True
    try:
        return len(key.encode()) <= KEY_BYTES_MAX and "\0" not in key
    except UnicodeEncodeError:
        return False


def describe_invalid(raised: BaseException) -> str:
    """What is wrong with an event's data, by field."""
    if not isinstance(raised, ValidationError):
        return describe(raised, "the event's own validation")
    told = []
    for one in raised.errors(include_url=False, include_context=False, include_input=False)[:20]:
        place = ".".join(str(part) for part in one["loc"]) or "the data"
        told.append(f"{place}: {one['msg']}")
    return "; ".join(told)
