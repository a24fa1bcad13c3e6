"""A batch: records become arrivals, arrivals meet their runs, and all of it becomes one commit.

Nothing here waits or talks to anyone, and nothing is durable yet. Where the log must be asked first (a run that is not
in the cache, an event that may be too old for a run's own memory), ``engine.loading`` asks between ``read`` and
``meet``.

This is the hot path, and what looks roundabout in ``_move`` was measured: a move's row is packed once, for its hash and
for the store alike, and the run after it is made from the same values that the row holds. ``engine.log.fold`` says the
same more plainly, and a property test holds the two equal.
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Iterator, MutableSequence, Sequence
from datetime import datetime

from pydantic import ValidationError

from connectors.decode import Decoded, Unreadable, decode
from connectors.source import Record
from engine.arrival import Arrival
from engine.envelope import ENVELOPE, KEY_IS_RUN_KEY, encode_envelope
from engine.ledger import Ledger
from engine.log import COLUMNS, HASH_BYTES, HASH_LENGTH, POSTGRES_EPOCH, Kind, digest_number, digest_of
from engine.publications import effects_bytes, out_records, source_of
from engine.routing import Route, TopicRoute
from statemachines.events import Address, Event, key_of
from statemachines.handlers import describe
from statemachines.interpreter import Occurrence, step
from statemachines.machine import Machine
from statemachines.outcome import DUPLICATE, WAITS, Moved, Reason, Refused
from statemachines.run import DIGEST_BYTES, RECENT_DIGESTS_MAX, Run, has_seen

STRIKES_MAX = 2
"""After as many ends of an engine within one record's handler, the record is a dead letter."""
KEY_BYTES_MAX = 1_024
"""A run's key, as UTF-8."""
ERRORS_TOLD_MAX = 20

_new = tuple.__new__
_RECENT_BYTES = RECENT_DIGESTS_MAX * DIGEST_BYTES
_STARTED, _MOVED, _MOVED_AFTER_WAIT = int(Kind.STARTED), int(Kind.MOVED), int(Kind.MOVED_AFTER_WAIT)
_NO_EVENT = Event.model_construct()
_MOVE = struct.Struct(">hiqi8siqiqiiiiiiihih")
"""The columns of a move from ``run`` to ``status``, each behind its length."""
_pack_move = _MOVE.pack
_plain_envelope = ENVELOPE.pack
_sha256 = hashlib.sha256
_length = struct.Struct(">i").pack
_COLUMNS = len(COLUMNS)


class Batch(Ledger):
    """Steps events.

    ``beat`` is where the watchdog sees which record keeps the engine busy: position, offset, and the batch's time,
    which is 0 while no handler is called (``engine.watching``).
    """

    def __init__(
        self, at: datetime, run_ids: Iterator[int], cluster: str, beat: MutableSequence[int]
    ) -> None:
        super().__init__(at)
        self.began = time.perf_counter()
        self.arrivals: list[Arrival] = []
        self.strikes: dict[tuple[int, int], tuple[int, str]] = {}
        self._run_ids = run_ids
        self._cluster = cluster
        self._beat = beat
        self._texts: dict[str, bytes] = {}
        self._at = (at, _postgres_time(at))

    def read(self, records: Sequence[Record], position: int | None, topic: TopicRoute) -> None:
        """Decode records of one partition and find the runs they are for; what cannot be read is settled here."""
        self.records += len(records)
        settings, cluster = topic.topic, self._cluster
        for record in records:
            decoded = decode(record, settings, cluster)
            if isinstance(decoded, Unreadable):
                self.refuse_record(record, position, topic, Reason.UNREADABLE, decoded.error, decoded)
            else:
                self.match(record, position, topic, decoded)
        self.close_range(position)

    def match(
        self,
        record: Record,
        position: int | None,
        topic: TopicRoute,
        decoded: Decoded,
        only: int | None = None,
    ) -> None:
        """Find the runs that an event is for (of pipeline ``only``, if given)."""
        envelope = decoded.envelope
        digest = None
        known = False
        for route in topic.routes:
            event_class = route.events.get(envelope.type)
            if event_class is None or (only is not None and route.pipeline != only):
                continue
            known = True
            key = key_of(event_class, decoded.data, envelope.key)
            if key is None or not _is_fit(key):
                self._refuse_without_key(record, position, topic, route, decoded, event_class)
                continue
            if digest is None:
                digest = digest_of(envelope.source, envelope.id)
                self.close_range(position)
            self.arrivals.append(_new(Arrival, (route, key, record, position, topic, decoded, digest)))
        if not known:
            self.unknown_type(record, position, topic, decoded)

    def meet(self, arrival: Arrival, after_wait: int | None = None) -> None:
        """Step the run and note what became of the event.

        ``after_wait`` is the number of the log row since which the event has waited.
        """
        route, key, record, position, _, decoded, digest = arrival
        run = route.cache.get(key)
        at, at_number = self._at
        if run is None:
            machine = route.newest
        else:
            if run.updated > at:
                at = run.updated
                at_number = _postgres_time(at)
            found = route.machines.get(run.definition)
            if found is None:
                self._without_definition(arrival, run, at)
                return
            machine = found
        beat = self._beat
        beat[0] = position or 0
        beat[1] = record.offset
        beat[2] = at_number
        struck = self._struck(position, record.offset) if self.strikes else None
        envelope = decoded.envelope
        event, error = _validate(machine, envelope.type, decoded.data) if struck is None else (None, struck)
        seen = False
        if run is not None and (run.held or len(run.recent) >= _RECENT_BYTES):
            pair = (run.id, digest_number(digest))
            seen = pair in self.consumed or (after_wait is None and pair in self.waiting)
        occurrence = _new(Occurrence, (envelope, key, digest, at, event, error, seen, False))
        outcome = step(machine, run, occurrence)
        if struck is not None and type(outcome) is Refused and outcome.reason is Reason.INVALID:
            outcome = outcome._replace(reason=Reason.NEVER_RETURNED)
        if type(outcome) is Moved:
            self._move(arrival, machine, run, outcome, at, at_number, after_wait)
        else:
            self.settle(arrival, run, outcome, at, after_wait)

    def _move(
        self,
        arrival: Arrival,
        machine: Machine,
        run: Run | None,
        moved: Moved,
        at: datetime,
        at_number: int,
        after_wait: int | None,
    ) -> None:
        route, key, record, position, _, decoded, digest = arrival
        _, configuration, status, context, loaded, publications = moved
        event_type, event_id = decoded.envelope.type, decoded.envelope.id
        touched = self._touched.get(route)
        if touched is None:
            touched = self._touched[route] = {}
        if run is None:
            number, generation, sequence, kind = next(self._run_ids), 0, 1, _STARTED
            old_context = previous = recent = b""
            definition, held, waiting, started = route.newest_definition, 0, 0, at
            touched[key] = 0
        else:
            (
                number, _, generation, before, _, _, old_context, recent, previous, definition, held, waiting, started,
                _, _,
            ) = run  # fmt: skip
            sequence, kind = before + 1, _MOVED
            if key not in touched:
                touched[key] = before
            # Out and in again moves it to the end: the cache's order is the order of use.
            del route.cache[key]
            if len(recent) >= _RECENT_BYTES:
                # The run forgets its oldest digest now, which the log may not be able to tell yet.
                self.consumed.add((number, digest_number(recent[:DIGEST_BYTES])))
                recent = recent[DIGEST_BYTES:]
            if after_wait is not None:
                kind = _MOVED_AFTER_WAIT
                waiting -= 1
                self.commit.waiting_removed.append((number, after_wait))
        effects = b""
        if publications:
            effects = effects_bytes(publications)
            address = Address(machine.namespace, machine.name, key, generation, sequence)
            source = source_of(machine.namespace, machine.name)
            self.commit.out.extend(out_records(publications, address, source, decoded.envelope, at))
        texts = self._texts
        name = texts.get(event_type) or self._text(event_type)
        states = texts.get(configuration) or self._text(configuration)
        record_key, headers, run_key = record.key, record.headers, key.encode()
        if record_key == run_key and not headers:
            envelope = _plain_envelope(KEY_IS_RUN_KEY, record.timestamp)
        else:
            envelope = encode_envelope(record.timestamp, record_key, headers, run_key)
        event_name = event_id.encode()
        new_context = b"" if context is None else context
        payload = record.value or b""
        packed = b"".join((
            _pack_move(
                _COLUMNS, 8, number, 8, digest, 8, record.offset, 8, at_number, 4, sequence, 4, position or 0,
                4, definition, 2, kind, 2, status,
            ),
            _length(len(envelope)), envelope, name, states, _length(len(event_name)), event_name,
            _length(len(effects)), effects, _length(len(new_context)), new_context, _length(len(payload)), payload,
        ))  # fmt: skip
        hashed = _sha256(previous + packed).digest()[:HASH_BYTES]
        self.commit.rows.append(packed + HASH_LENGTH + hashed)
        route.cache[key] = _new(Run, (
            number, key, generation, sequence, status, configuration, new_context or old_context, recent + digest,
            hashed, definition, held, waiting, started, at, loaded,
        ))  # fmt: skip

    def rest(self) -> None:
        """Tell the watchdog that no handler is being called now."""
        self._beat[2] = 0

    def refuse_by_store(self, record: Record, position: int | None, topic: TopicRoute, error: str) -> None:
        """Settle a record that the store cannot take as a move."""
        self.records += 1
        decoded = decode(record, topic.topic, self._cluster)
        self.refuse_record(record, position, topic, Reason.REFUSED_BY_STORE, error, decoded)

    def _text(self, text: str) -> bytes:
        raw = text.encode()
        packed = self._texts[text] = _length(len(raw)) + raw
        return packed

    def _without_definition(self, arrival: Arrival, run: Run, at: datetime) -> None:
        pair = (run.id, digest_number(arrival.digest))
        if has_seen(run.recent, arrival.digest) or pair in self.consumed or pair in self.waiting:
            self.settle(arrival, run, DUPLICATE, at, None)
        else:
            self.settle(arrival, run, WAITS, at, None)

    def _struck(self, position: int | None, offset: int) -> str | None:
        """Why no handler may see this record again; without an event, ``step`` calls none."""
        struck = self.strikes.get((position or 0, offset))
        if struck is None or struck[0] < STRIKES_MAX:
            return None
        self.commit.strikes_forgotten.append((position or 0, offset))
        return f"{struck[1]} did not return, {struck[0]} times; each time the engine was ended"

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
            why = (
                f"the field {field!r} of the data, which {event_class.__name__} names as the key, is missing, "
                f"empty, no text or number, or longer than {KEY_BYTES_MAX} bytes"
            )
        self.refuse_record(record, position, topic, Reason.NO_KEY, why, decoded, route)


def _validate(machine: Machine, event_type: str, data: object) -> tuple[Event | None, str]:
    event_class = machine.events.get(event_type)
    if event_class is None:
        return _NO_EVENT, ""  # a type that only another version knows: this one's table has nothing for it
    try:
        return event_class.__pydantic_validator__.validate_python({} if data is None else data), ""
    except BaseException as raised:  # noqa: BLE001 - a user's validator may raise anything
        return None, describe_invalid(raised)


def describe_invalid(raised: BaseException) -> str:
    """What is wrong with an event's data, by field."""
    if not isinstance(raised, ValidationError):
        return describe(raised, "the event's own validation")
    told = []
    for one in raised.errors(include_url=False, include_context=False, include_input=False)[:ERRORS_TOLD_MAX]:
        place = ".".join(str(part) for part in one["loc"]) or "the data"
        told.append(f"{place}: {one['msg']}")
    return "; ".join(told)


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
