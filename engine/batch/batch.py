"""A batch: records become arrivals, arrivals meet their runs, and all of it becomes one commit.

Nothing here waits or talks to anyone, and nothing is durable yet. Where the log must be asked first (a run that is not
in the cache, an event that may be too old for a run's own memory), ``engine.batch.loading`` asks between ``read`` and
``meet``.

This is the hot path, and it goes in stages for what was measured: to do one thing for many events, and then the next
thing for all of them, takes less time than to do everything for one event after the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from datetime import datetime
from typing import Final

from connectors.decode import Decoded, Unreadable, decode, decode_each
from connectors.lookup import key_of_record
from connectors.source import Record
from engine.batch.arrival import Arrival
from engine.batch.by_itself import OF_INSIDE
from engine.batch.identity import identity_of
from engine.batch.inside import result_arrival
from engine.batch.moves import RECENT_BYTES, Move
from engine.batch.pausing import Pausing
from engine.dispositions import Disposition
from engine.log import Kind, digest_number, digest_of, postgres_time
from engine.routing import Reader, Route, TopicRoute
from engine.steps.breakers import Told
from engine.steps.executions import told_token
from engine.steps.result import StepResult
from statemachines.handlers import HandlerError, validated
from statemachines.interpreter import step
from statemachines.keys import How, KeyFunction, key_of, why_no_key
from statemachines.limits import KEY_BYTES_MAX
from statemachines.machine import Machine
from statemachines.memory import Memory, read_memory
from statemachines.occurrence import Occurrence
from statemachines.outcome import DUPLICATE, WAITS, Deferred, Ignored, Moved, Outcome, Reason, Refused, Waits
from statemachines.run import DeferredEvent, Run, Status, has_seen
from statemachines.turns import in_turn

_new: Final = tuple.__new__
_RUNNING: Final = int(Status.RUNNING)
ENDED_MEANWHILE: Final = Refused(
    Reason.CLOSED,
    "the run ended while this event waited behind what held it; redriven, it is for the next generation",
    holds=False,
)
"""What is offered after a wait is offered to the run that it waited for."""


_Met = tuple[Arrival, Machine | None, Run | None, Occurrence, datetime, int]
"""An event that has met its run; the definition that the run follows, if it is loaded; when, and that as a number."""


class Batch(Pausing):
    """Steps events."""

    def __init__(
        self, at: datetime, run_ids: Iterator[int], cluster: str, beat: MutableSequence[int]
    ) -> None:
        super().__init__(at, run_ids, beat)
        self.began = time.perf_counter()
        self.arrivals: list[Arrival] = []
        self._cluster = cluster
        self.told: list[Told] = []
        """What breakers are to hear of once it is durable: of attempts that went on outside."""

    def take_arrivals(self) -> list[Arrival]:
        """What was read since the last time, and has not met its runs."""
        taken, self.arrivals = self.arrivals, []
        return taken

    def bytes_since(self, rows: int, met: Iterable[Arrival | tuple[Route, str]]) -> int:
        """What came of these since there were so many rows: new rows, and the state of the run that each is for."""
        total = sum(map(len, self.commit.rows[rows:]))
        for one in met:
            run = one[0].cache.get(one[1])
            if run is not None:
                total += len(run.context) + len(run.memory)
        return total

    def read(self, records: Sequence[Record], position: int | None, topic: TopicRoute) -> None:
        """Decode records of one partition and find the runs they are for; what cannot be read is settled here."""
        self.records += len(records)
        settings, cluster, match = topic.topic, self._cluster, self.match
        if settings.each is not None or callable(settings.type):
            for record in records:
                self.read_each(record, position, topic, cluster)
            return
        for record in records:
            decoded = decode(record, settings, cluster)
            if type(decoded) is Decoded:
                match(record, position, topic, decoded)
            else:
                assert isinstance(decoded, Unreadable)
                self._unreadable(record, position, topic, decoded)

    def read_each(
        self,
        record: Record,
        position: int | None,
        topic: TopicRoute,
        cluster: str,
        only: Sequence[int | None] = (None,),
    ) -> None:
        """The same for a record that may hold several events, each of which goes its own way from here on.

        ``only`` names the pipelines that they are for; None: all that read the topic.
        """
        events = self._events_in(record, position, topic, cluster)
        if not events:
            self.no_events(record, position, topic, cluster)
        for one, decoded in events:
            if isinstance(decoded, Unreadable):
                self._unreadable(one, position, topic, decoded)
                continue
            known = decoded.envelope.type in topic.readers
            for number, pipeline in enumerate(only if known else only[:1]):
                # A copy for each, so that no handler sees what one of another pipeline has done to the data.
                own = self._again(one, topic, decoded.envelope.type, cluster) if number else decoded
                self.match(one, position, topic, own, pipeline)

    def _events_in(
        self, record: Record, position: int | None, topic: TopicRoute, cluster: str
    ) -> list[tuple[Record, Decoded | Unreadable]]:
        """As ``decode_each`` has them; a function that tells their types may do whatever user code does."""
        if not callable(topic.topic.type):
            return decode_each(record, topic.topic, cluster)
        struck = self._struck(position, record.offset) if self.strikes else None
        if struck is not None:
            return [(record, Unreadable(struck, key=key_of_record(record.key)[0]))]
        beat = self._beat
        beat[0], beat[1], beat[2] = position or 0, record.offset, self._at[1]
        found = decode_each(record, topic.topic, cluster)
        self.rest()
        return found

    def _again(self, record: Record, topic: TopicRoute, event_type: str, cluster: str) -> Decoded:
        """The event of a record that was read, with data of its own; no function is asked for its type again."""
        again = decode(record, topic.topic.knowing(event_type), cluster)
        assert isinstance(again, Decoded), "decoding is pure"
        return again

    def match(
        self,
        record: Record,
        position: int | None,
        topic: TopicRoute,
        decoded: Decoded,
        only: int | None = None,
    ) -> None:
        """Find the runs that an event is for (of pipeline ``only``, if given)."""
        envelope = decoded[0]
        readers = topic.readers.get(envelope.type)
        if readers is None:
            self.unknown_type(record, position, topic, decoded)
            return
        if self._ranges:
            self.close_range(position)
        digest = digest_of(envelope.source, envelope.id)
        taken = False
        for reader in readers:
            route, event_class, how, once, by_both = reader
            if only is not None and route.pipeline != only:
                continue
            if event_class is None:
                self.unknown_to(route, record, position, decoded)
                continue
            key = envelope.key
            refused = None
            if how is not None:
                if type(how) is str:
                    key = key_of(how, decoded.data, None)
                else:
                    key, refused = self._key_by(how, record, position, topic, envelope.type)
                if key is not None and not _is_fit(key):
                    key = None
            if key is None:
                self._refuse_without_key(record, position, topic, reader, decoded, refused)
            else:
                if taken:
                    # Of its own, so that no handler sees what one of another pipeline has done to the data.
                    decoded = self._again(record, topic, envelope.type, self._cluster)
                taken = True
                own = digest if once is None else identity_of(once, decoded)
                self.arrivals.append(_new(Arrival, (
                    route, key, record, position, topic, decoded, own, None, digest if by_both else b""
                )))  # fmt: skip

    def _unreadable(self, record: Record, position: int | None, topic: TopicRoute, found: Unreadable) -> None:
        if found.ignored and position is not None:
            self.ignore_offset(record, position, topic, Reason.NO_EVENTS)
            return
        struck_out = self._struck_out and (position, record.offset) in self._struck_out
        reason = Reason.NEVER_RETURNED if struck_out else Reason.UNREADABLE
        self.refuse_record(record, position, topic, reason, found.error, found)

    def _key_by(
        self, how: How, record: Record, position: int | None, topic: TopicRoute, event_type: str
    ) -> tuple[str | None, Refused | None]:
        """A key that is not simply a field, or why it cannot be read: a function may do whatever user code does.

        A record that has ended an engine too often is not shown to it again. Where it is, it gets data of its own, so
        that no handler sees what it has done to them.
        """
        struck = (
            self._struck(position, record.offset) if self.strikes and isinstance(how, KeyFunction) else None
        )
        if struck is not None:
            return None, Refused(Reason.NEVER_RETURNED, struck, holds=False)
        own = self._again(record, topic, event_type, self._cluster)
        beat = self._beat
        beat[0], beat[1], beat[2] = position or 0, record.offset, self._at[1]
        try:
            return key_of(how, own.data, None), None
        except HandlerError as error:
            return None, Refused(error.reason, str(error), holds=False, raised=error.raised)
        finally:
            self.rest()

    def meet(self, arrivals: Iterable[Arrival], after_wait: int | None = None) -> None:
        """Step the runs of these events, one after the other, and note what became of each.

        ``after_wait`` is the number of the log row since which the event has waited.
        """
        if self.paused and after_wait is None:
            arrivals = self._but_paused(arrivals)
        wave: list[Arrival] = []
        runs: set[tuple[object, ...]] = set()
        for arrival in arrivals:
            run = arrival[:2]
            if run in runs:
                self._meet_wave(wave, after_wait)
                wave, runs = [], set()
            runs.add(run)
            wave.append(arrival)
        if wave:
            self._meet_wave(wave, after_wait)

    def _but_paused(self, arrivals: Iterable[Arrival]) -> list[Arrival]:
        """Those that are not for runs of paused pipelines; the others are kept back, one after the other."""
        others: list[Arrival] = []
        for arrival in arrivals:
            if arrival[0].pipeline not in self.paused:
                others.append(arrival)
            elif not self.hold_back(arrival):
                self._meet_wave([arrival], None)
        return others

    def _meet_wave(self, wave: list[Arrival], after_wait: int | None) -> None:
        """The same for events of different runs, which can all be taken through one stage before the next."""
        beat = self._beat
        beat[2] = self._at[1]
        moves: list[Move] = []
        others: list[tuple[Arrival, Run | None, Outcome, datetime, int | None]] = []
        for arrival, machine, run, occurrence, at, at_number in self._validate(wave, after_wait):
            if machine is None:
                others.append((arrival, run, self._without_definition(arrival, run), at, None))
                continue
            beat[0] = arrival[3] or OF_INSIDE
            beat[1] = arrival[2].offset if arrival[3] else _place_of(arrival)[1]
            outcome = step(machine, run, occurrence)
            if arrival[7] is not None and type(outcome) is not Waits and after_wait is None:
                assert run is not None, "what comes from inside comes from a run"
                self._take_own(arrival, machine, run, arrival[7], outcome, at)
                self.follow(arrival[0], arrival[1])
            elif after_wait is not None and run is not None and _begins(run, outcome):
                # What waited for the run's beginning is its beginning.
                self._leave_waiting(arrival, run, Kind.LEFT_WAITING, at, after_wait)
                self._meet_wave([arrival], None)
            elif after_wait is not None and _is_for_next(run, outcome):
                others.append((arrival, run, ENDED_MEANWHILE, at, after_wait))
            elif type(outcome) is Moved:
                moves.append((arrival, machine, run, outcome, at, at_number))
            else:
                others.append((arrival, run, self._with_reason(arrival, outcome), at, after_wait))
        for route, key, machine in self.move(moves, after_wait):
            self.follow(route, key, machine)
        for other in others:
            self.settle(*other)
            outcome = other[2]
            if type(outcome) is Ignored and outcome.memory is not None:
                self.follow(other[0].route, other[0].key)

    def _validate(self, wave: list[Arrival], after_wait: int | None) -> list[_Met]:
        """Find the run and its definition for each, and validate its data."""
        beat, strikes, consumed, waiting = self._beat, self.strikes, self.consumed, self.waiting
        batch_at, batch_number = self._at
        found: list[_Met] = []
        for arrival in wave:
            route, key, record, position, _, decoded, digest, delayed, id_digest = arrival
            at, at_number = batch_at, batch_number
            run = route.cache.get(key)
            seen = False
            if run is None:
                machine = route.newest
            else:
                updated = run.updated
                if updated > at:
                    at, at_number = updated, postgres_time(updated)
                known = route.machines.get(run.definition) if run.status == _RUNNING else route.newest
                if known is None:
                    nothing = Occurrence(decoded.envelope, key, digest, at, None)
                    found.append((arrival, None, run, nothing, at, at_number))
                    continue
                machine = known
                if run.held or run.generation or len(run.recent) >= RECENT_BYTES:
                    pair = (run.id, digest_number(digest))
                    # What has held the run is put back before another one of its business key, which waits.
                    waits = bool(run.held) and after_wait is None and pair in waiting
                    seen = consumed.has(*pair) or waits
                if id_digest and not seen:
                    seen = self._knows_id(arrival, run, waited=after_wait is not None)
            beat[0] = position or OF_INSIDE
            beat[1] = record.offset if position else _place_of(arrival)[1]
            envelope, data, _ = decoded
            struck = self._struck(*_place_of(arrival)) if strikes else None
            event, error = validated(machine, envelope.type, data) if struck is None else (None, struck)
            occurrence = _new(
                Occurrence, (envelope, key, digest, at, event, error, seen, data, False, delayed)
            )
            found.append((arrival, machine, run, occurrence, at, at_number))
        return found

    def _knows_id(self, arrival: Arrival, run: Run, *, waited: bool) -> bool:
        """Whether an event with this source and id was consumed, or waits, whatever business key it was known by.

        ``waited``: this one may be what waits.
        """
        pair = (run.id, digest_number(arrival.id_digest))
        if self.consumed.has(*pair) or has_seen(run.recent, arrival.id_digest):
            return True
        return not waited and (
            pair in self.waiting or any(_have_same_id(one, arrival) for one in run.deferred)
        )

    def look_ahead(self, arrival: Arrival) -> tuple[bool, Refused | None]:
        """Whether a run goes on that has not seen this event; and why that could never take it, whatever holds it.

        Nothing of the user's is called but validators. What is told rests on the run.
        """
        [(_, machine, run, occurrence, _, _)] = self._validate([arrival], None)
        self.rest()
        self._rest_on(arrival, run)
        if run is None or run.status != _RUNNING:
            return False, None
        if machine is None:
            return self._without_definition(arrival, run) is WAITS, None
        # One that is held is asked no more than whether the event was seen, or is stale.
        if type(step(machine, run._replace(held=run.sequence), occurrence)) is not Waits:
            return False, None
        asked: Outcome | Memory
        if occurrence.event is None:
            asked = self._with_reason(arrival, Refused(Reason.INVALID, occurrence.error, holds=False))
        else:
            asked = in_turn(machine, read_memory(run.memory), occurrence)
        if isinstance(asked, Refused) and asked.reason is Reason.INVALID:
            return True, asked._replace(holds=False)
        return True, None

    def meet_results(self, results: Iterable[StepResult]) -> None:
        """Have runs take what became of steps that they asked for, if they wait for it."""
        at = self._at[0]
        arrivals: dict[tuple[Route, str], Arrival] = {}
        for begun, route, event_id, event_type, data, _, said_by, _, _ in results:
            if (route, begun.key) in arrivals:
                # What comes before it may end its run, and begin the next one of the key.
                self.meet(arrivals.values())
                arrivals = {}
            arrival = result_arrival(route, begun.key, event_id, event_type, data, at, said_by)
            outcome = route.name, begun.step, event_type.partition(".")[0]
            self.attempts[outcome] = self.attempts.get(outcome, 0) + 1
            if "token" in data:
                # Whether its run waits for it then, what it remembers tells.
                self.commit.tokens.append(told_token(begun, data["token"]))
            run = route.cache.get(begun.key)
            if run is not None and run.generation < begun.generation:
                # It is not the last one of its key any more, which the commit will find.
                self._rest_on(arrival, run)
            elif run is None or run.id != begun.run:
                # Another run of the key has begun meanwhile.
                self.note(arrival, None, Disposition.VOID, Reason.VOID, b"", at)
            elif run.held and (run.id, digest_number(arrival.digest)) in self.waiting:
                self._rest_on(arrival, run)
            else:
                arrivals[route, begun.key] = arrival
        self.meet(arrivals.values())

    def refuse_by_store(self, record: Record, position: int | None, topic: TopicRoute, error: str) -> None:
        """Settle a record that the store cannot take: every event that it holds, whichever the store meant."""
        self.records += 1
        events = self._events_in(record, position, topic, self._cluster)
        for one, decoded in events or [(record, decode(record, topic.topic, self._cluster))]:
            self.refuse_record(one, position, topic, Reason.REFUSED_BY_STORE, error, decoded)

    def _without_definition(self, arrival: Arrival, run: Run | None) -> Outcome:
        assert run is not None, "only a run can lack its definition"
        pair = (run.id, digest_number(arrival.digest))
        seen = has_seen(run.recent, arrival.digest) or self.consumed.has(*pair) or pair in self.waiting
        if arrival.id_digest and not seen:
            seen = self._knows_id(arrival, run, waited=False)
        return DUPLICATE if seen else WAITS

    def _with_reason(self, arrival: Arrival, outcome: Outcome) -> Outcome:
        """What was refused for want of an event is told by why there is none."""
        struck_out = self._struck_out and _place_of(arrival) in self._struck_out
        if struck_out and isinstance(outcome, Refused) and outcome.reason is Reason.INVALID:
            return outcome._replace(reason=Reason.NEVER_RETURNED)
        return outcome

    def _refuse_without_key(
        self,
        record: Record,
        position: int | None,
        topic: TopicRoute,
        reader: Reader,
        decoded: Decoded,
        refused: Refused | None,
    ) -> None:
        route, event_class, how, _, _ = reader
        if refused is not None:
            reason, why = refused.reason, refused.error
        elif event_class is None or how is None:
            reason, why = (
                Reason.NO_KEY,
                decoded.key_error or "the record has no key, and the event no subject",
            )
        else:
            reason = Reason.NO_KEY
            why = f"{why_no_key(how, event_class.__name__)}, or the key is longer than {KEY_BYTES_MAX} bytes"
        self.refuse_record(record, position, topic, reason, why, decoded, route)


def _place_of(arrival: Arrival) -> tuple[int, int]:
    """Position and offset; or what stands for them where the event has none."""
    position = arrival[3]
    return (position, arrival[2].offset) if position else (OF_INSIDE, digest_number(arrival[6]))


def _have_same_id(deferred: DeferredEvent, arrival: Arrival) -> bool:
    one, other = deferred.envelope, arrival.decoded.envelope
    return (one.source, one.id) == (other.source, other.id)


def _begins(run: Run, outcome: Outcome) -> bool:
    """Whether an event begins a run that was expected."""
    return run.status == Status.EXPECTED and type(outcome) is Moved


def _is_for_next(run: Run | None, outcome: Outcome) -> bool:
    """Whether an event would begin, or wait for, the next generation of its key."""
    return run is not None and run.has_ended and isinstance(outcome, Moved | Deferred)


def _is_fit(key: str) -> bool:
    if len(key) * 4 <= KEY_BYTES_MAX and key.isprintable():
        return True
    try:
        return len(key.encode()) <= KEY_BYTES_MAX and "\0" not in key
    except UnicodeEncodeError:
        return False
