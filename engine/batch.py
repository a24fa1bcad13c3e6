"""A batch: records become arrivals, arrivals meet their runs, and all of it becomes one commit.

Nothing here waits or talks to anyone, and nothing is durable yet. Where the log must be asked first (a run that is not
in the cache, an event that may be too old for a run's own memory), ``engine.loading`` asks between ``read`` and
``meet``.

This is the hot path, and it goes in stages for what was measured: to do one thing for a hundred events, and then the
next thing for all of them, takes less time than to do everything for one event after the other.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from datetime import datetime

import orjson

from connectors.decode import Decoded, Unreadable, decode, decode_each
from connectors.source import Record
from engine.arrival import Arrival
from engine.inside import own_arrival
from engine.log import POSTGRES_EPOCH, Kind, digest_number, digest_of, microseconds
from engine.moves import RECENT_BYTES, Move, Moves
from engine.publications import source_of
from engine.routing import Reader, Route, TopicRoute
from engine.store.contract import FollowUp
from statemachines.events import Event
from statemachines.following import Following, Unseen, fall_due, follow, id_of, refuse_next
from statemachines.handlers import HandlerError, describe_invalid
from statemachines.interpreter import Occurrence, step
from statemachines.keys import How, KeyFunction, key_of, why_no_key
from statemachines.limits import FOLLOWING_MAX, KEY_BYTES_MAX
from statemachines.machine import Machine
from statemachines.memory import NOTHING_LEFT, Delayed
from statemachines.outcome import DUPLICATE, WAITS, Ignored, Moved, Outcome, Reason, Refused, Waits
from statemachines.policies import Once
from statemachines.run import DeferredEvent, Run, Status, has_seen
from statemachines.turns import business_key

OF_INSIDE, OF_ITSELF, OF_DEFERRED = 0, -1, -2
"""Instead of a position: of an event that a run has sent to another one; of a timer, or an event that a run has sent to
itself; of an event that was deferred."""
STRIKES_MAX = 2
"""After as many ends of an engine within one record's handler, the record is a dead letter."""

_new = tuple.__new__
_NO_EVENT = Event.model_construct()
_RUNNING = int(Status.RUNNING)
ENDED_MEANWHILE = Refused(
    Reason.CLOSED,
    "the run ended while this event waited behind what held it; redriven, it begins the next generation",
    holds=False,
)
"""What is offered after a wait is offered to the run that it waited for."""
GOES_ON = "more follows by itself than goes into one commit"


_Met = tuple[Arrival, Machine | None, Run | None, Occurrence, datetime, int]
"""An event that has met its run; the definition that the run follows, if it is loaded; when, and that as a number."""


class Batch(Moves):
    """Steps events.

    ``beat`` is where the watchdog sees which record keeps the engine busy: position, offset, and the batch's time,
    which is 0 while no handler is called (``engine.watching``). An event without a position is known by its digest,
    and by a number that says what it is (``OF_INSIDE`` and so on); what a run takes by itself also by that of the run,
    which comes last, and is another one after a crash where the run was not durable yet. Strikes go by the first two.
    """

    def __init__(
        self, at: datetime, run_ids: Iterator[int], cluster: str, beat: MutableSequence[int]
    ) -> None:
        super().__init__(at, run_ids)
        self.began = time.perf_counter()
        self.arrivals: list[Arrival] = []
        self.strikes: dict[tuple[int, int], tuple[int, str]] = {}
        self._cluster = cluster
        self._beat = beat
        self._struck_out: set[tuple[int, int]] = set()
        self.never_returned: Mapping[int, str] = {}
        """For replay: by the number of a log row, the id of the event that no handler may see then."""
        self._at = (at, _postgres_time(at))
        self._onward: dict[tuple[int, str], list[Arrival]] = {}

    def goes_on(self, at: datetime) -> None:
        """What comes now comes at this time."""
        self.commit.at = at
        self._at = (at, _postgres_time(at))

    def take_arrivals(self) -> list[Arrival]:
        """What was read since the last time, and has not met its runs."""
        taken, self.arrivals = self.arrivals, []
        return taken

    def read(self, records: Sequence[Record], position: int | None, topic: TopicRoute) -> None:
        """Decode records of one partition and find the runs they are for; what cannot be read is settled here."""
        self.records += len(records)
        settings, cluster, match = topic.topic, self._cluster, self.match
        if settings.each is not None:
            for record in records:
                self.read_each(record, position, topic, cluster)
            return
        for record in records:
            decoded = decode(record, settings, cluster)
            if type(decoded) is Decoded:
                match(record, position, topic, decoded)
            else:
                assert isinstance(decoded, Unreadable)
                self.refuse_record(record, position, topic, Reason.UNREADABLE, decoded.error, decoded)

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
        events = decode_each(record, topic.topic, cluster)
        if not events:
            self.no_events(record, position, topic, cluster)
        for one, decoded in events:
            if isinstance(decoded, Unreadable):
                self.refuse_record(one, position, topic, Reason.UNREADABLE, decoded.error, decoded)
                continue
            known = decoded.envelope.type in topic.readers
            for number, pipeline in enumerate(only if known else only[:1]):
                # A copy for each, so that no handler sees what one of another pipeline has done to the data.
                own = decode(one, topic.topic, cluster) if number else decoded
                assert isinstance(own, Decoded), "decoding is pure"
                self.match(one, position, topic, own, pipeline)

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
            route, event_class, how, once = reader
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
                    key, refused = self._key_by(how, record, position, topic)
                if key is not None and not _is_fit(key):
                    key = None
            if key is None:
                self._refuse_without_key(record, position, topic, reader, decoded, refused)
            else:
                if taken:
                    # Of its own, so that no handler sees what one of another pipeline has done to the data.
                    again = decode(record, topic.topic, self._cluster)
                    assert isinstance(again, Decoded), "decoding is pure"
                    decoded = again
                taken = True
                own = digest if once is None else identity_of(once, decoded)
                self.arrivals.append(_new(Arrival, (route, key, record, position, topic, decoded, own, None)))

    def _key_by(
        self, how: How, record: Record, position: int | None, topic: TopicRoute
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
        own = decode(record, topic.topic, self._cluster)
        assert isinstance(own, Decoded), "decoding is pure"
        beat = self._beat
        beat[0], beat[1], beat[2] = position or 0, record.offset, self._at[1]
        try:
            return key_of(how, own.data, None), None
        except HandlerError as error:
            return None, Refused(error.reason, str(error), holds=False)
        finally:
            self.rest()

    def meet(self, arrivals: Iterable[Arrival], after_wait: int | None = None) -> None:
        """Step the runs of these events, one after the other, and note what became of each.

        ``after_wait`` is the number of the log row since which the event has waited.
        """
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
            beat[0], beat[1] = _place_of(arrival)
            outcome = step(machine, run, occurrence)
            if arrival[7] is not None and type(outcome) is not Waits and after_wait is None:
                assert run is not None, "what comes from inside comes from a run"
                self._take_own(arrival, machine, run, arrival[7], outcome, at)
            elif type(outcome) is Moved and after_wait is not None and _restarts(run, outcome):
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
            route, key, _, _, _, decoded, digest, delayed = arrival
            at, at_number = batch_at, batch_number
            run = route.cache.get(key)
            seen = False
            if run is None:
                machine = route.newest
            else:
                updated = run.updated
                if updated > at:
                    at, at_number = updated, _postgres_time(updated)
                known = route.machines.get(run.definition) if run.status == _RUNNING else route.newest
                if known is None:
                    nothing = Occurrence(decoded.envelope, key, digest, at, None)
                    found.append((arrival, None, run, nothing, at, at_number))
                    continue
                machine = known
                if run.held or run.generation or len(run.recent) >= RECENT_BYTES:
                    pair = (run.id, digest_number(digest))
                    seen = pair in consumed or (after_wait is None and pair in waiting)
            place = _place_of(arrival)
            beat[0], beat[1] = place
            envelope, data, _ = decoded
            event: Event | None = _NO_EVENT
            error = ""
            struck = self._struck(*place) if strikes else None
            validate = machine.validators.get(envelope.type)
            if struck is not None:
                event, error = None, struck
            elif validate is not None:
                try:
                    event = validate({} if data is None else data)
                except BaseException as raised:  # noqa: BLE001 - a user's validator may raise anything
                    event, error = None, describe_invalid(raised)
            occurrence = _new(
                Occurrence, (envelope, key, digest, at, event, error, seen, data, False, delayed)
            )
            found.append((arrival, machine, run, occurrence, at, at_number))
        return found

    def follow(self, route: Route, key: str, machine: Machine | None = None) -> None:
        """Let a run take what it takes by itself, before any newer event: what was deferred, what it sent to itself."""
        for number in itertools.count():
            if self._next(follow, route, key, machine) is None:
                self._meet_next_generation(route, key)
                return
            machine = None
            run = route.cache[key]
            # What waits for a run that has ended leaves it in one commit: what goes on is nowhere else meanwhile.
            if number >= FOLLOWING_MAX and run.status == _RUNNING:
                if not run.held:
                    self._hold_for_rest(route, run)
                return

    def _meet_next_generation(self, route: Route, key: str) -> None:
        """What waited for a run that has ended is taken as if there were none, once the run is done with all of it."""
        for arrival in self._onward.pop((route.pipeline, key), ()):
            self._meet_wave([arrival], None)

    def fall_due(self, route: Route, key: str) -> bool:
        """Let what has fallen due for a run happen, each with what follows from it; whether there was anything."""
        for number in range(FOLLOWING_MAX):
            if self._next(fall_due, route, key, None) is None:
                return number > 0
            self.follow(route, key)
        return True

    def refuse_due(self, route: Route, key: str, error: str) -> None:
        """Make what has fallen due first for a run, and the store does not take, a dead letter that holds the run."""
        run = route.cache.get(key)
        machine = None if run is None else route.machines.get(run.definition, route.newest)
        if run is None or machine is None or run.held:
            return
        at = max(self._at[0], run.updated)
        found = refuse_next(machine, run, at, error)
        if found is not None and isinstance(found.outcome, Refused):
            refused = found.outcome._replace(reason=Reason.REFUSED_BY_STORE)
            self._take(route, run, machine, found._replace(outcome=refused), at)

    def _next(
        self,
        ask: Callable[[Machine, Run, datetime, Unseen], Following | None],
        route: Route,
        key: str,
        machine: Machine | None,
    ) -> Following | None:
        """Have a run take the next thing by itself; None where there is none."""
        run = route.cache.get(key)
        if run is None or run.held or not (run.deferred or (run.memory and run.memory != NOTHING_LEFT)):
            return None
        if machine is None:
            machine = route.machines.get(run.definition) if run.status == _RUNNING else route.newest
        if machine is None:
            return None
        at = max(self._at[0], run.updated)
        route_machine, own_run = machine, run

        def unseen(item: DeferredEvent | Delayed) -> str:
            return self._notice(route_machine, own_run, item)

        found = ask(machine, run, at, unseen)
        if found is not None:
            self._take(route, run, machine, found, at)
        return found

    def _notice(self, machine: Machine, run: Run, item: DeferredEvent | Delayed) -> str:
        """Tell the watchdog what the run takes by itself; why no handler may see it, if so."""
        beat = self._beat
        if isinstance(item, DeferredEvent):
            own_id, place = item.envelope.id, (OF_DEFERRED, digest_number(item.digest))
        else:
            own_id = id_of(machine, run, item)
            place = OF_ITSELF, digest_number(digest_of(source_of(machine.namespace, machine.name), own_id))
        beat[0], beat[1], beat[2], beat[3] = *place, self._at[1], run.id
        if self.never_returned and self.never_returned.get(run.sequence + 1) == own_id:
            return "a handler did not return"
        return (self._struck(*place) or "") if self.strikes else ""

    def _take(self, route: Route, run: Run, machine: Machine, found: Following, at: datetime) -> None:
        item, outcome = found.item, found.outcome
        if isinstance(item, DeferredEvent):
            arrival = item.origin
            assert isinstance(arrival, Arrival), "the engine defers what has arrived"
            if found.goes_onward(run):
                self.leave_for_next(arrival, run, item, at)
                self._onward.setdefault((route.pipeline, run.key), []).append(arrival)
            elif isinstance(outcome, Moved):
                self.take_deferred(arrival, machine, run, item, outcome, at)
            else:
                self.leave_deferral(arrival, run, item, outcome, at)
            return
        arrival = own_arrival(route, run, found.occurrence, item)
        self._take_own(arrival, machine, run, item, outcome, at)

    def _take_own(
        self,
        arrival: Arrival,
        machine: Machine,
        run: Run,
        item: Delayed,
        outcome: Outcome,
        at: datetime,
    ) -> None:
        match outcome:
            case Moved():
                self.fire(arrival, machine, run, outcome, at)
            case Refused():
                self.refuse_own(arrival, run, item, outcome, at)
            case Ignored():
                self.row(arrival, run, Kind.PASSED, at, memory=outcome.memory or b"")
            case _:
                raise AssertionError(f"what comes from inside does not end as {outcome}")

    def _hold_for_rest(self, route: Route, run: Run) -> None:
        """Hold a run that goes on by itself for longer than one commit, so that nothing overtakes."""
        body = orjson.dumps({"command": "go on", "why": GOES_ON})
        at = microseconds(self._at[0]) // 1000
        self.command_row(route, run, "pointsman.drain", "command/follow", body, at, Kind.DRAINING)
        held = route.cache[run.key].held
        release = orjson.dumps({"run": run.id, "held": held})
        self.commit.going_on.append(FollowUp(route.pipeline, "release", release, "engine", GOES_ON))

    def rest(self) -> None:
        """Tell the watchdog that no handler is being called now."""
        self._beat[2] = 0

    def refuse_by_store(self, record: Record, position: int | None, topic: TopicRoute, error: str) -> None:
        """Settle a record that the store cannot take: every event that it holds, whichever the store meant."""
        self.records += 1
        events = decode_each(record, topic.topic, self._cluster)
        for one, decoded in events or [(record, decode(record, topic.topic, self._cluster))]:
            self.refuse_record(one, position, topic, Reason.REFUSED_BY_STORE, error, decoded)

    def _without_definition(self, arrival: Arrival, run: Run | None) -> Outcome:
        assert run is not None, "only a run can lack its definition"
        pair = (run.id, digest_number(arrival.digest))
        seen = has_seen(run.recent, arrival.digest) or pair in self.consumed or pair in self.waiting
        return DUPLICATE if seen else WAITS

    def _struck(self, position: int | None, offset: int) -> str | None:
        """Why no handler may see this record again; without an event, ``step`` calls none."""
        struck = self.strikes.get((position or 0, offset))
        if struck is None or struck[0] < STRIKES_MAX:
            return None
        self.commit.strikes_forgotten.append((position or 0, offset))
        self._struck_out.add((position or 0, offset))
        return f"{struck[1]} did not return, {struck[0]} times; each time the engine was ended"

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
        route, event_class, how, _ = reader
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


def _restarts(run: Run | None, moved: Moved) -> bool:
    return moved.started and run is not None and run.status == Status.COMPLETED


def identity_of(once: Once | None, decoded: Decoded) -> bytes:
    """The digest of what an event is known by for ever: a business key, where its data tells one, or source and id."""
    envelope = decoded.envelope
    name = None if once is None else business_key(once, envelope.type, decoded.data)
    return digest_of(envelope.source, envelope.id) if name is None else digest_of("business key", name)


def _is_fit(key: str) -> bool:
    if len(key) * 4 <= KEY_BYTES_MAX and key.isprintable():
        return True
    try:
        return len(key.encode()) <= KEY_BYTES_MAX and "\0" not in key
    except UnicodeEncodeError:
        return False


def _postgres_time(at: datetime) -> int:
    elapsed = at - POSTGRES_EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds
