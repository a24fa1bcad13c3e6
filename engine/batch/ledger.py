"""What a batch will make durable, as it gathers: log rows, moved runs, dead letters, notes.

Every row but that of a move is written here; moves are written by ``engine.batch.moves``, which is where speed counts.
Runs that a row concerns are stepped ahead in their route's cache at once, and forgotten there if the commit fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from connectors.decode import Decoded, Unreadable
from connectors.source import Record
from engine.batch.arrival import Arrival
from engine.batch.consumed import Consumed
from engine.dead_letters import Subject, details_bytes, make_dead_letter
from engine.dispositions import Disposition
from engine.envelope import encode_envelope
from engine.log import (
    CONSUMED,
    Kind,
    LogRow,
    digest_number,
    fold,
    holding,
    pack,
    seal_packed,
    with_hash,
)
from engine.routing import RUN_BYTES, Route, TopicRoute, bytes_of
from engine.steps.executions import note_executions
from engine.store.values import Commit, IgnoredRange, Noted
from statemachines.mapping import mapped
from statemachines.outcome import (
    Moved,
    Reason,
    Refused,
)
from statemachines.renames import Renames
from statemachines.run import DIGEST_BYTES, DeferredEvent, Run, Status, recent_is_full, remember
from statemachines.search import Attributes, attributes_of

TYPES_LISTED_MAX: Final = 12
_COMPLETED: Final = int(Status.COMPLETED)
_EXPECTED: Final = int(Status.EXPECTED)

Known = set[tuple[int, int]]
"""(run, digest) pairs."""


class Ledger:
    """Gathers one commit."""

    def __init__(self, at: datetime) -> None:
        self.commit = Commit(at)
        self.records = 0
        self.counts: dict[tuple[str, Disposition], int] = {}
        self.fired: dict[str, int] = {}
        """How many timers and events of runs to themselves happened, by pipeline."""
        self.attempts: dict[tuple[str, str, str], int] = {}
        """What became of attempts of steps: (pipeline, step, ``done``, ``failed`` or ``tried``)."""
        self.lateness: float | None = None
        """How many seconds the latest of the timers among them was late."""
        self.consumed = Consumed()
        """Consumed before, as far as the log was asked, or in this batch."""
        self.waiting: Known = set()
        """Waiting before, as far as the table was asked, or since this batch."""
        self._touched: dict[Route, dict[str, int]] = {}
        self._judged: dict[Route, dict[str, Run]] = {}
        self._other_rows: dict[Route, int] = {}
        self._starts: dict[Route, int] = {}
        self._rows_of_ended: dict[Route, int] = {}
        """Rows of runs whose key has begun its next generation in this batch."""
        self._searched: dict[Route, dict[str, bytes | None]] = {}
        """The contexts before, of runs with searchable fields whose contexts changed; None: other fields count now."""
        self._worked: dict[Route, dict[str, bytes]] = {}
        """What runs of pipelines with steps remembered before, where that changed."""
        self._ranges: dict[int, IgnoredRange] = {}
        self._inherited_waiting: Known = set()

    def finish(self) -> Commit:
        """The commit, complete."""
        commit = self.commit
        commit.ranges.extend(self._ranges.values())
        self._ranges.clear()
        self._note_judged()
        for route, keys in self._touched.items():
            cache, moves, context_bytes = route.cache, self._rows_of_ended.get(route, 0), 0
            for key, old in keys.items():
                run = cache[key]
                moves += run.sequence - old
                context_bytes += len(run.context)
                if run.deferred or run.memory:
                    context_bytes += bytes_of(run) - RUN_BYTES - len(run.context)
                if old:
                    commit.changed.append((old, run))
                else:
                    commit.created.append((route.pipeline, run))
            # What these runs took before is not taken off.
            route.cache_bytes += len(keys) * RUN_BYTES + context_bytes
            starts = self._starts.get(route, 0)
            self.count(route, Disposition.STARTED, starts)
            self.count(route, Disposition.APPLIED, moves - starts - self._other_rows.get(route, 0))
        for route, contexts in self._searched.items():
            for key, before_it in contexts.items():
                commit.attributes.extend(_changed_attributes(route, route.cache[key], before_it))
        for route, memories in self._worked.items():
            for key, memory in memories.items():
                note_executions(commit, route.pipeline, route.cache[key], memory, route.limits)
        return commit

    def _note_judged(self) -> None:
        for route, judged in self._judged.items():
            moved = self._touched.get(route, {})
            for key, run in judged.items():
                if key not in moved:
                    self.commit.judged.append((run.id, run.sequence))
                    if run.status >= _COMPLETED:
                        self.commit.last.append((route.pipeline, key, run.generation))

    def retire(self, route: Route, run: Run, successor: int) -> None:
        """Have a run done with, since its key begins its next generation: it must still be as it is."""
        self.consumed.hand_on(run, successor)
        before = self._touched.get(route, {}).pop(run.key, None)
        self._judged.get(route, {}).pop(run.key, None)
        searched = self._searched.get(route, {})
        if run.key in searched:
            self.commit.attributes.extend(_changed_attributes(route, run, searched.pop(run.key)))
        worked = self._worked.get(route, {}).pop(run.key, None)
        if worked is not None:
            note_executions(self.commit, route.pipeline, run, worked, route.limits)
        if before is None:
            self.commit.retired.append((run.id, run.sequence))
            return
        self._rows_of_ended[route] = self._rows_of_ended.get(route, 0) + run.sequence - before
        if before:
            self.commit.changed.append((before, run))
        else:
            self.commit.created.append((route.pipeline, run))

    def inherit(self, previous: Ledger) -> None:
        """Know what the batch before knows, which is not durable yet; what that one inherited is by now."""
        self.consumed.inherit(previous.consumed)
        self._inherited_waiting = previous.waiting - previous._inherited_waiting
        self.waiting |= self._inherited_waiting

    def met(self) -> Iterator[tuple[Route, str]]:
        """The runs that this batch rests on: those that it moved, and those that it found not to take an event."""
        for runs in (self._touched, self._judged):
            for route, keys in runs.items():
                for key in keys:
                    yield route, key

    def rests_on(self, route: Route, key: str) -> bool:
        """Whether this run is one of them."""
        return key in self._touched.get(route, ()) or key in self._judged.get(route, ())

    def moved(self, route: Route) -> Mapping[str, int]:
        """The runs of a pipeline that this batch moved, by key, and their sequence numbers before."""
        return self._touched.get(route, {})

    def count(self, route: Route, disposition: Disposition, number: int = 1) -> None:
        """Count events of a pipeline that met this end."""
        key = (route.name, disposition)
        self.counts[key] = self.counts.get(key, 0) + number

    def _letter(
        self, arrival: Arrival, run: Run | None, refused: Refused, at: datetime, sequence: int | None
    ) -> None:
        envelope, route = arrival.decoded.envelope, arrival.route
        subject = Subject(
            pipeline=route.pipeline,
            pipeline_name=route.name,
            run=None if run is None else run.id,
            sequence=sequence,
            key=arrival.key,
            event_id=envelope.id,
            type=envelope.type,
        )
        letter = make_dead_letter(
            arrival.record,
            subject,
            refused.reason,
            refused.error,
            at=at,
            position=arrival.position or None,
            topic=arrival.topic.dead_letters,
            details=details_bytes(refused.tried, refused.policy),
        )
        self.commit.dead_letters.append(letter._replace(raised=refused.raised))
        self.count(route, Disposition(letter.disposition))

    def note(
        self,
        arrival: Arrival,
        run: Run | None,
        disposition: Disposition,
        reason: Reason,
        details: bytes,
        at: datetime,
    ) -> None:
        """Note a disposition that no log row and no dead letter shows."""
        envelope = arrival.decoded.envelope
        self.commit.noted.append(
            Noted(
                arrival.position or None,
                arrival.record.offset if arrival.position else None,
                arrival.route.pipeline,
                None if run is None else run.id,
                arrival.key,
                envelope.id,
                envelope.type,
                int(disposition),
                reason.value,
                details,
                at,
            )
        )
        self.count(arrival.route, disposition)

    def command_row(
        self,
        route: Route,
        run: Run,
        event_type: str,
        event_id: str,
        payload: bytes,
        milliseconds: int,
        kind: Kind = Kind.RELEASED,
    ) -> None:
        """Log that a command lifted the hold of a run, or left it to the next one (``kind``)."""
        at = max(self.commit.at, run.updated)
        self.write(route, run, (
            run.id, None, None, at, run.sequence + 1, None, run.definition, int(kind), run.status,
            encode_envelope(milliseconds, None, (), b""), event_type, run.configuration, event_id, b"", b"", b"",
            payload,
        ))  # fmt: skip

    def map_run(
        self,
        route: Route,
        run: Run,
        definition: int,
        event_type: str,
        event_id: str,
        payload: bytes,
        milliseconds: int,
        renames: Renames,
    ) -> None:
        """Log that a run follows another definition from now on. Raises KeyError: it has not all of its states."""
        machine = route.machines[definition]
        configuration, memory = mapped(machine, run, renames)
        at = max(self.commit.at, run.updated)
        self.write(route, run, (
            run.id, None, None, at, run.sequence + 1, None, definition, int(Kind.MAPPED), run.status,
            encode_envelope(milliseconds, None, (), b""), event_type, configuration, event_id, b"", b"", memory,
            payload,
        ))  # fmt: skip
        # What runs are found by may be something else of the same context.
        self._searched.setdefault(route, {})[run.key] = None

    def refuse_record(
        self,
        record: Record,
        position: int | None,
        topic: TopicRoute,
        reason: Reason,
        error: str,
        what: Unreadable | Decoded,
        route: Route | None = None,
    ) -> None:
        """Make a record a dead letter that met no run."""
        self.close_range(position)
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
            self.count(one, Disposition.DEAD_LETTERED)

    def unknown_type(self, record: Record, position: int | None, topic: TopicRoute, decoded: Decoded) -> None:
        """Settle a record whose type no pipeline that reads the topic knows, as the topic says.

        Ranges are of offsets, so they can tell only of records that are one event.
        """
        if topic.topic.unknown == "ignore" and topic.topic.each is not None:
            self.close_range(position)
            for route in topic.routes:
                self.unknown_to(route, record, position, decoded)
            return
        if topic.topic.unknown == "ignore" and position is not None:
            self.ignore_offset(record, position, topic, Reason.UNKNOWN_TYPE)
            return
        types = sorted({name for route in topic.routes for name in route.events})
        listed = ", ".join(types[:TYPES_LISTED_MAX]) + (", ..." if len(types) > TYPES_LISTED_MAX else "")
        error = (
            f"no pipeline that reads {topic.topic.name} knows the type {decoded.envelope.type!r}; "
            f"known are {listed}"
        )
        self.refuse_record(record, position, topic, Reason.UNKNOWN_TYPE, error, decoded)

    def ignore_offset(self, record: Record, position: int, topic: TopicRoute, reason: Reason) -> None:
        """Settle a record that the topic's settings say to ignore, as one of a range."""
        before = self._ranges.get(position)
        if before is not None and before.reason != reason:
            self.close_range(position)
            before = None
        first, records = (record.offset, 0) if before is None else (before.first, before.records)
        self._ranges[position] = IgnoredRange(position, first, record.offset, records + 1, reason)
        for route in topic.routes:
            self.count(route, Disposition.IGNORED)

    def unknown_to(self, route: Route, record: Record, position: int | None, decoded: Decoded) -> None:
        """Note that a pipeline does not know an event's type, though another reader of the topic does."""
        envelope = decoded.envelope
        event = envelope.key, envelope.id, envelope.type
        self._ignore(route, record, position, event, Reason.UNKNOWN_TYPE)

    def no_events(self, record: Record, position: int | None, topic: TopicRoute, cluster: str) -> None:
        """Note, for each reader of the topic, that a record holds no event."""
        self.close_range(position)
        place = f"{cluster}/{record.topic}/{record.partition}/{record.offset}"
        for route in topic.routes:
            self._ignore(route, record, position, (None, place, ""), Reason.NO_EVENTS)

    def _ignore(
        self,
        route: Route,
        record: Record,
        position: int | None,
        event: tuple[str | None, str, str],
        reason: Reason,
    ) -> None:
        ignored, at = int(Disposition.IGNORED), self.commit.at
        self.commit.noted.append(
            Noted(position, record.offset, route.pipeline, None, *event, ignored, reason.value, b"", at)
        )
        self.count(route, Disposition.IGNORED)

    def may_be_found_otherwise(self, route: Route, key: str, context: bytes) -> None:
        """Note that a run with searchable fields has another context now; ``context`` is the one before."""
        self._searched.setdefault(route, {}).setdefault(key, context)

    def may_work_otherwise(self, route: Route, key: str, memory: bytes) -> None:
        """Note that a run of a pipeline with steps remembers something else now; ``memory`` is the one before."""
        self._worked.setdefault(route, {}).setdefault(key, memory)

    def close_range(self, position: int | None) -> None:
        """A record that is not ignored, or for another reason, ends the range of those before it."""
        if position is not None and self._ranges:
            done = self._ranges.pop(position, None)
            if done is not None:
                self.commit.ranges.append(done)

    def write(self, route: Route, run: Run, fields: tuple[object, ...]) -> Run:
        """Log a row that is no ordinary move; ``fields`` are its columns without the hash. Returns the run after it."""
        self._note_row(route, run)
        key, packed = run.key, pack(fields)
        hashed = seal_packed(run.hash, packed)
        self.commit.rows.append(with_hash(packed, hashed))
        # Out and in again moves it to the end: the cache's order is the order of use.
        route.cache.pop(key, None)
        # A run that the row begins is there without one, with the number 0.
        row = LogRow._make((*fields, hashed))
        after = fold(run if run.sequence else None, row, key=key, generation=run.generation)
        route.cache[key] = after
        return after

    def _note_row(self, route: Route, run: Run) -> None:
        """Note that a run gets a row that is no ordinary move, and how it is before that."""
        key = run.key
        if route.works:
            self.may_work_otherwise(route, key, run.memory)
        touched = self._touched.setdefault(route, {})
        if run.status >= _COMPLETED and key not in touched:
            # Its row is as it was; whether its key has another run by now it does not tell.
            self.commit.last.append((route.pipeline, key, run.generation))
        touched.setdefault(key, run.sequence)
        self._other_rows[route] = self._other_rows.get(route, 0) + 1

    def take_id(self, run: int, arrival: Arrival) -> None:
        """Know an event by its source and id, too, where its row is known by something else."""
        if arrival.id_digest != arrival.digest:
            by_id = digest_number(arrival.id_digest)
            self.commit.taken_ids.append((run, by_id))
            self.consumed.add(run, by_id)

    def row(
        self,
        arrival: Arrival,
        run: Run,
        kind: Kind,
        at: datetime,
        *,
        effects: bytes = b"",
        memory: bytes = b"",
        moved: Moved | None = None,
        deferred: tuple[DeferredEvent, ...] | None = None,
    ) -> Run:
        """Log a row with an event that is no ordinary move; returns the run after it.

        But for what ``moved`` says configuration and context stay as they are; and so does what is ``deferred``, where
        it is not given. The run is made in one go; ``fold`` says the same more plainly.
        """
        record, envelope, digest = arrival.record, arrival.decoded.envelope, None
        packed = encode_envelope(record.timestamp, record.key, record.headers, run.key.encode())
        configuration, status, context = run.configuration, run.status, b""
        if moved is not None:
            configuration, status, context = moved.configuration, moved.status, moved.context or b""
            memory = moved.memory or b""
            digest = digest_number(arrival.digest) if kind in CONSUMED else None
        position, offset = (arrival.position, record.offset) if arrival.position else (None, None)
        route, key, sequence, kind_number = arrival.route, run.key, run.sequence + 1, int(kind)
        # What waits for a run of which there is none is for the newest version to decide, whichever it met first.
        definition = route.newest_definition if status == _EXPECTED else run.definition
        self._note_row(route, run)
        row = pack((
            run.id, digest, offset, at, sequence, position, definition, kind_number, status, packed, envelope.type,
            configuration, envelope.id, effects, context, memory, record.value,
        ))  # fmt: skip
        hashed = seal_packed(run.hash, row)
        self.commit.rows.append(with_hash(row, hashed))
        held, waiting = holding(kind_number, sequence, run.held, run.waiting)
        recent = run.recent
        if digest is not None:
            if recent_is_full(recent):
                # The run forgets its oldest digest now, which the log may not be able to tell yet.
                self.consumed.add(run.id, digest_number(recent[:DIGEST_BYTES]))
            recent = remember(recent, arrival.digest)
            if arrival.id_digest:
                self.take_id(run.id, arrival)
        after = Run(
            run.id, key, run.generation, sequence, status, configuration, context or run.context, recent, hashed,
            definition, held, waiting, run.started if run.sequence else at, at, memory or run.memory,
            run.deferred if deferred is None else deferred,
        )  # fmt: skip
        # Out and in again moves it to the end: the cache's order is the order of use.
        route.cache.pop(key, None)
        route.cache[key] = after
        return after


def _changed_attributes(route: Route, run: Run, before: bytes | None) -> Iterator[tuple[int, Attributes]]:
    """The run and its search attributes, where they are, or may be, others than by the context before."""
    kinds = route.machines[run.definition].searchable
    attributes = attributes_of(kinds, run.context)
    if before is None or attributes != (attributes_of(kinds, before) if before else {}):
        yield run.id, attributes
