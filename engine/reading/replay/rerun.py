"""One run through a definition again, by the engine's own code: a batch meets each recorded event.

A row is computed from the run as it was recomputed so far: its hash comes out equal only if all before
it did. What came from outside is taken as recorded: the event, its time, that a command lifted a hold, that a
definition was not loaded, that a handler was ended because it did not return, that a topic took no more, and that the
store did not take a move.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from connectors.decode import Decoded, Unreadable, decode
from connectors.source import RawRecord
from engine.batch.arrival import Arrival
from engine.batch.batch import Batch
from engine.batch.by_itself import OF_INSIDE, STRIKES_MAX
from engine.batch.consumed import Consumed
from engine.batch.identity import identity_of
from engine.batch.inside import inner_arrival
from engine.commands.mapping import renames_in
from engine.dead_letters import DeadLetterTopic
from engine.envelope import decode_envelope
from engine.log import (
    CONSUMED,
    HOLDS,
    Kind,
    LogRow,
    digest_number,
    digest_of,
    microseconds,
    pack,
    unpack,
    with_hash,
)
from engine.reading.asked import deferral_in
from engine.reading.catalog import Catalog
from engine.reading.replay.report import Difference, HoldReason, Mismatch
from engine.reading.rows import kind_word, raw_record
from engine.reading.values import json_of, printable, states_of
from engine.routing import Route, TopicRoute, once_for_ever
from statemachines.following import id_of
from statemachines.handlers import HandlerError
from statemachines.keys import key_of
from statemachines.machine import Machine
from statemachines.memory import read_memory
from statemachines.outcome import Reason, Refused
from statemachines.run import BETWEEN, Run, Status
from statemachines.topic import NO_TOPIC, Topic

_AFTER_WAIT = frozenset({Kind.MOVED_AFTER_WAIT, Kind.HELD_AFTER_WAIT, Kind.LEFT_WAITING})
_BY_ITSELF = frozenset({Kind.FIRED, Kind.HELD_FIRED, Kind.PASSED})
_OF_DEFERRED = frozenset({Kind.MOVED_DEFERRED, Kind.HELD_DEFERRED, Kind.LEFT_DEFERRED})
_OF_COMMANDS = frozenset({Kind.RELEASED, Kind.DRAINING, Kind.PAUSED})
_SHOWN_FIELDS = (
    "kind", "status", "configuration", "context", "effects", "memory", "type", "event_id", "digest",
)  # fmt: skip
"""What is told where it differs, in this order; where none of them does, the hash alone tells."""
NOTHING_KNOWN: Mapping[tuple[str, str], int] = {}


class Rerun:
    """The replay of one run: ``take`` each row in order; what it answers first ends it."""

    def __init__(
        self,
        run: Run,
        pipeline: int,
        machine: Machine,
        given: Sequence[Machine],
        catalog: Catalog,
        reasons: Mapping[int, HoldReason],
        predecessor: Run | None = None,
        taken_as: Mapping[tuple[str, str], int] = NOTHING_KNOWN,
    ) -> None:
        """``machine`` is the one of the ``given`` versions of the pipeline that stands for the run's.

        ``predecessor`` is the last generation of the run's key, which has ended: what was applied then counts still.
        ``taken_as`` are digests that deferred events were taken by, by id and type, as far as they need be known.
        """
        self._stored = run
        self.stands_for: Callable[[int], Machine] = lambda _: machine
        """The given version for each definition that a row may have, where the run was mapped to another one."""
        self.rested: Collection[int] | None = None
        """The rows by which it made way for others, where they are known; else it does so after as many as now."""
        self._of_run = machine
        self._catalog = catalog
        self._machine = machine
        self._reasons = reasons
        self._taken_as = taken_as
        self._never_returned = {
            sequence: one.event_id for sequence, one in reasons.items() if one.reason == Reason.NEVER_RETURNED
        }
        self._given = sorted(given, key=lambda one: one.version, reverse=True)
        self._route = Route(pipeline, machine.name, machine, 0, {}, machine.events, machine.keys)
        first = next(iter(machine.pipeline.read_topics), NO_TOPIC)
        letters = DeadLetterTopic(first.dead_letter_topic)
        self._route.inner = TopicRoute(NO_TOPIC, [self._route], letters)
        if predecessor is not None:
            self._route.cache[run.key] = predecessor
        # Shared by all batches, where the engine asks the log: what a run has forgotten is a duplicate still.
        self._consumed = Consumed()
        self._waiting: set[tuple[int, int]] = set()
        self._ids: set[bytes] = set()
        """Digests of source and id of what the run has taken, or deferred."""
        self._ahead: deque[tuple[bytes, Batch]] = deque()
        """Rows that were computed with those before them, and the batches that they are of."""

    def take(self, row: LogRow) -> Mismatch | None:
        """The next row; an answer where it comes out otherwise."""
        if not self._ahead:
            mismatch = self._compute(row)
            if mismatch is not None:
                return mismatch
        return self._compare(row, *self._ahead.popleft())

    def end(self) -> Mismatch | None:
        """What is more than was recorded; None where nothing is."""
        if not self._ahead:
            return None
        packed, batch = self._ahead.popleft()
        more = unpack(packed)
        return self._mismatch(more, f"it {_verb(more, batch)}, and nothing of it is recorded", [])

    def _compute(self, row: LogRow, *, notes_undoing: bool = True) -> Mismatch | None:
        """The rows that come of what the recorded one tells; an answer where there is none."""
        self._follow(row, notes_undoing=notes_undoing)
        before, batch = self._route.cache.get(self._stored.key), self._batch(row.at, row)
        if (row.kind in _BY_ITSELF and not row.position) or row.kind in _OF_DEFERRED:
            self._go_on(row, batch)
            if before is not None and _waited_on(before, row, batch):
                # By earlier versions of the engine it waited on as if its pipeline were paused still.
                self._route.cache[before.key] = before
                batch = self._batch(row.at, row)
                batch.fall_due_alone(self._route, before.key, row.event_id)
        elif row.kind in _OF_COMMANDS:
            run = self._route.cache.get(self._stored.key)
            if run is None:
                return self._mismatch(row, "a command came before the run began", [])
            milliseconds, _, _ = decode_envelope(row.envelope, self._stored.key.encode())
            payload = row.payload or b""
            kind = Kind(row.kind)
            batch.command_row(self._route, run, row.type, row.event_id, payload, milliseconds, kind)
        else:
            problem = self._map(row, batch) if row.kind == Kind.MAPPED else self._offer(row, batch)
            if problem:
                return self._mismatch(row, problem, [])
            if before is not None and notes_undoing and _would_undo(row, batch):
                # Earlier versions of the engine did what the policy says of it.
                self._route.cache[before.key] = before
                return self._compute(row, notes_undoing=False)
        if not batch.commit.rows:
            return self._mismatch(row, _without_row(batch), [])
        own = row.run.to_bytes(8, "big")
        # Where the key's next generation begins in the same batch, its rows are another run's.
        self._ahead.extend((packed, batch) for packed in batch.commit.rows if packed[6:14] == own)
        return None

    def _map(self, row: LogRow, batch: Batch) -> str:
        """Have the run follow the definition of the row, in whose names it is then; else why it cannot."""
        run = self._route.cache.get(self._stored.key)
        if run is None:
            return "a command came before the run began"
        payload = row.payload or b""
        milliseconds, _, _ = decode_envelope(row.envelope, self._stored.key.encode())
        said = row.type, row.event_id, payload, milliseconds
        try:
            batch.map_run(self._route, run, row.definition, *said, renames_in(json_of(payload)))
        except KeyError as error:
            return f"the given definition has no state {error.args[0]!r}"
        return ""

    def _go_on(self, row: LogRow, batch: Batch) -> None:
        """Have the run take what it takes by itself: what follows from the row before, or what has fallen due."""
        key = self._stored.key
        run = self._route.cache.get(key)
        if run is not None and self._held_for(row) == Reason.REFUSED_BY_STORE:
            batch.refuse_due(self._route, key, self._reasons[row.sequence].error)
            return
        if row.kind in _BY_ITSELF and not self._is_to_come(run, row.event_id):
            # It was put back after it had failed, or came from another run, whatever else has fallen due by then.
            record = raw_record(row, key, self._catalog)
            batch.meet((self._as_known(row, inner_arrival(self._route, key, record), batch),))
            return
        batch.follow(self._route, key)
        if not batch.commit.rows:
            # What else had fallen due may not have been allowed to happen yet.
            batch.fall_due_again(self._route, key, row.event_id)

    def _is_to_come(self, run: Run | None, event_id: str) -> bool:
        """Whether it is still in the run's memory."""
        delayed = read_memory(run.memory).delayed if run is not None and run.memory else ()
        return run is not None and any(id_of(self._machine, run, one) == event_id for one in delayed)

    def _follow(self, row: LogRow, *, notes_undoing: bool) -> None:
        """Let the recorded number stand for the given definition: the hash is over it."""
        route = self._route
        run = route.cache.get(self._stored.key)
        # Behind a hold, too, it may have waited for the definition: what that would make of it was not asked then.
        missing = row.kind == Kind.WAITED and run is not None
        route.newest_definition = row.definition
        self._learn(row)
        machine = self._machine
        if self._held_for(row) == Reason.TOO_LARGE:
            # Its topic may take more now than it took then.
            machine = replace(machine, outlet=lambda *_: "was refused")
        if not notes_undoing:
            machine = replace(machine, notes_undoing=False)
        route.machines = {} if missing else {row.definition: machine}

    def _learn(self, row: LogRow) -> None:
        """Go on by the definition of a row: not all have the same of a run that was mapped, or that was waited for."""
        is_own = row.definition == self._stored.definition
        machine = self._of_run if is_own else self.stands_for(row.definition)
        if machine is not self._machine:
            route, self._machine = self._route, machine
            route.newest, route.events, route.keys = machine, machine.events, machine.keys

    def _held_for(self, row: LogRow) -> str | None:
        """Why the row's event holds the run, as recorded; None where it does not."""
        recorded = self._reasons.get(row.sequence) if row.kind in HOLDS else None
        return None if recorded is None else recorded.reason

    def _batch(self, at: datetime, row: LogRow) -> Batch:
        place = self._catalog.positions.get(row.position or 0)
        batch = Batch(
            at,
            itertools.chain((row.run,) if row.sequence == 1 else (), itertools.count(1)),
            place.cluster if place else "",
            [0, 0, 0, 0],
        )
        batch.consumed, batch.waiting = self._consumed, self._waiting
        batch.never_returned, batch.rested = self._never_returned, self.rested
        if self._held_for(row) == Reason.NEVER_RETURNED:
            # Offered again it would not return now, either.
            batch.strikes = {(row.position or 0, row.offset or 0): (STRIKES_MAX, "a handler")}
        return batch

    def _offer(self, row: LogRow, batch: Batch) -> str:
        """Let the run meet the event; else why it cannot."""
        record = raw_record(row, self._stored.key, self._catalog)
        if not row.position:
            arrival = self._as_known(row, inner_arrival(self._route, self._stored.key, record), batch)
            if batch.strikes:
                batch.strikes = {(OF_INSIDE, digest_number(arrival.digest)): (STRIKES_MAX, "a handler")}
            if batch.can_cancel(arrival):
                batch.cancel(arrival)
            else:
                _meet(row, arrival, batch)
            return ""
        topics = self._topics(row, record.topic)
        if not topics:
            return f"the given definition does not read the topic {record.topic!r}"
        topic, decoded = self._decode(row, record, topics)
        if isinstance(decoded, Unreadable):
            return f"by the given settings of {record.topic} the record is no event: {decoded.error}"
        if decoded.envelope.type in self._machine.events:
            try:
                # A function may change what it is given.
                own = self._decode(row, record, (topic.knowing(decoded.envelope.type),))[1]
                assert isinstance(own, Decoded), "decoding is pure"
                key = key_of(self._machine.keys.get(decoded.envelope.type), own.data, own.envelope.key)
            except HandlerError as error:
                return f"by the given definition it has no key: {error}"
            if key != self._stored.key:
                return f"by the given definition the event is for the key {key!r}"
        elif row.kind in (Kind.STARTED, Kind.MOVED, Kind.MOVED_AFTER_WAIT):
            return f"the given definition knows no event type {decoded.envelope.type!r}"
        route = TopicRoute(topic, [self._route], DeadLetterTopic(topic.dead_letter_topic))
        arrival = Arrival(self._route, self._stored.key, record, row.position, route, decoded, b"")
        arrival = self._as_known(row, arrival, batch)
        run = self._route.cache.get(self._stored.key)
        if run is not None and self._held_for(row) == Reason.REFUSED_BY_STORE:
            refused = Refused(Reason.REFUSED_BY_STORE, self._reasons[row.sequence].error, holds=True)
            batch.refuse(arrival, run, refused, row.at, _after_wait(row))
        else:
            _meet(row, arrival, batch)
        return ""

    def _as_known(self, row: LogRow, arrival: Arrival, batch: Batch) -> Arrival:
        """The event by what it was known by then, by whichever version.

        That its id was known, whatever its business key, is asked where it may have left for that: earlier versions of
        the engine took such events, and their logs are to be equal, too.
        """
        envelope = arrival.decoded.envelope
        if arrival.delayed is not None:
            return arrival
        by_id = digest_of(envelope.source, envelope.id)
        if row.kind in CONSUMED or row.kind == Kind.DEFERRED:
            self._ids.add(by_id)
        leaves = row.kind == Kind.LEFT_WAITING and by_id in self._ids
        if leaves:
            # For this one batch only.
            batch.consumed = Consumed()
            batch.consumed.inherit(self._consumed)
            batch.consumed.add(row.run, digest_number(by_id))
        digest = self._digest(row, arrival)
        return arrival._replace(digest=digest, id_digest=by_id if leaves else b"")

    def _digest(self, row: LogRow, arrival: Arrival) -> bytes:
        event_type = arrival.decoded.envelope.type
        machines = self._ordered(row, arrival.record.topic)
        found = [identity_of(once_for_ever(one, event_type), arrival.decoded) for one in machines]
        known = self._taken_as.get((row.event_id, row.type)) if row.digest is None else row.digest
        return next((one for one in found if digest_number(one) == known), found[0])

    def _ordered(self, row: LogRow, topic: str) -> list[Machine]:
        """The given versions, first the one that decided how a topic was read when the row was written."""
        in_force = self._catalog.in_force(self._route.pipeline, topic, row.at)
        version = self._machine.version if in_force is None else in_force.version
        return sorted(self._given, key=lambda one: one.version != version)

    def _topics(self, row: LogRow, name: str) -> list[Topic]:
        """The settings that a topic may have been read by, the likeliest first, as they are given."""
        in_force = self._catalog.in_force(self._route.pipeline, name, row.at)
        version = self._machine.version if in_force is None else in_force.version
        ordered = self._ordered(row, name)
        topics = [one for machine in ordered for one in machine.pipeline.read_topics if one.name == name]
        if in_force is not None and version > self._given[0].version:
            # A later version decided, which is not given: its settings came from outside of what is.
            topics.insert(0, in_force.topics[name].knowing(row.type))
        return list(dict.fromkeys(topics))

    def _decode(
        self, row: LogRow, record: RawRecord, topics: Sequence[Topic]
    ) -> tuple[Topic, Decoded | Unreadable]:
        """By the first settings that make it the recorded event, or else by the likeliest."""
        place = self._catalog.positions.get(row.position or 0)
        tried = [(topic, decode(record, topic, place.cluster if place else "")) for topic in topics]
        for topic, found in tried:
            recorded = row.event_id, row.type
            if isinstance(found, Decoded) and (found.envelope.id, found.envelope.type) == recorded:
                return topic, found
        return tried[0]

    def _compare(self, row: LogRow, packed: bytes, batch: Batch) -> Mismatch | None:
        recorded_why = self._held_for(row)
        letters = batch.commit.dead_letters
        if recorded_why is not None and letters and letters[-1].reason != recorded_why:
            difference = Difference("reason", recorded_why, letters[-1].reason)
            return self._mismatch(row, "the event failed for another reason", [difference])
        if packed == with_hash(pack(row[:-1]), row.hash):
            return None
        recomputed = unpack(packed)
        differences = [
            Difference(name, _shown(name, getattr(row, name)), _shown(name, getattr(recomputed, name)))
            for name in _SHOWN_FIELDS
            if getattr(row, name) != getattr(recomputed, name)
        ] or [Difference("hash", row.hash.hex(), recomputed.hash.hex())]
        why = f"it {_verb(recomputed, batch)}" if row.kind != recomputed.kind else "it comes out otherwise"
        return self._mismatch(row, why, differences)

    def _mismatch(self, row: LogRow, why: str, differences: list[Difference]) -> Mismatch:
        run = self._stored
        name = self._machine.name
        fields = ", ".join(one.field for one in differences)
        which = f" ({fields})" if fields else ""
        return Mismatch(
            pipeline=name,
            key=run.key,
            generation=run.generation,
            sequence=row.sequence,
            event_id=row.event_id,
            event_type=row.type,
            sentence=(
                f"The run {run.key!r} of {name} differs first in row {row.sequence} (event {row.event_id!r}, "
                f"{row.type}, recorded as {kind_word(row.kind)}): {why}{which}."
            ),
            differences=tuple(differences),
        )


def _meet(row: LogRow, arrival: Arrival, batch: Batch) -> None:
    deferral = deferral_in(row)
    if deferral is not None and deferral.reason == Reason.PAUSED:
        # Its pipeline was paused, so that it has not begun the run.
        batch.defer_begin(arrival, row.at)
    else:
        batch.meet((arrival,), _after_wait(row))


def _would_undo(row: LogRow, batch: Batch) -> bool:
    """Whether an event that is recorded otherwise is ignored now, since it would undo what is being undone already."""
    first = next((unpack(packed).kind for packed in batch.commit.rows), None)
    return first != row.kind and any(one.reason == Reason.UNDOING for one in batch.commit.noted)


def _waited_on(run: Run, row: LogRow, batch: Batch) -> bool:
    """Whether an event that waited for a paused pipeline is met first now, and by the record one's time was over."""
    if run.status != Status.EXPECTED or all(one.reason != Reason.PAUSED for one in run.deferred):
        return False
    met = [unpack(packed) for packed in batch.commit.rows[:2]]
    if any(one.event_id != row.event_id for one in met[:1]):
        return True
    defers_anew = any(one.kind == Kind.DEFERRED for one in met[1:])
    at = microseconds(row.at)
    return defers_anew and any(one.until <= at for one in run.deferred if one.envelope.id == row.event_id)


def _after_wait(row: LogRow) -> int | None:
    # Which of those that wait it is does not matter: they are offered oldest first.
    return 0 if row.kind in _AFTER_WAIT else None


def _verb(recomputed: LogRow, batch: Batch) -> str:
    letters = batch.commit.dead_letters
    said = f"is {kind_word(recomputed.kind)} now"
    return f"{said}: {letters[-1].reason}, {letters[-1].error}" if letters else said


def _without_row(batch: Batch) -> str:
    """What became of an event that now leaves no row."""
    if batch.commit.dead_letters:
        letter = batch.commit.dead_letters[-1]
        return f"it is a dead letter now and moves nothing: {letter.reason}, {letter.error}"
    if batch.commit.noted:
        return f"it moves nothing now: {batch.commit.noted[-1].reason}"
    return "it moves nothing now"


def _shown(name: str, value: Any) -> Any:
    match name:
        case "kind":
            return kind_word(value)
        case "status":
            return Status(value).name.lower()
        case "configuration":
            active, _, remembered = value.partition(BETWEEN)
            return states_of(active) + ([f"(histories: {remembered})"] if remembered else [])
        case "context" | "memory":
            return json_of(value) if value else "unchanged"
        case "effects":
            return json_of(value) if value else []
        case "type" | "event_id":
            return printable(value)
        case _:
            return value
