"""The log rows of moves, and the runs after them: where most of a batch's bytes are made.

What looks roundabout here was measured: a move's row is packed once, for its hash and for the store alike, and the run
after it is made from the same values that the row holds. ``engine.log`` says the same more plainly (``pack``, ``seal``,
``fold``), and a property test holds the two equal.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from connectors.encode import STRUCTURED_HEADERS
from engine.batch.arrival import Arrival
from engine.batch.settling import Settling
from engine.dispositions import Disposition
from engine.envelope import HEADERS_ARE_USUAL, KEY_IS_RUN_KEY, TIME_MAX, USUAL_HEADERS, encode_envelope
from engine.log import (
    COLUMNS,
    HASH_BYTES,
    HASH_LENGTH,
    POSTGRES_EPOCH,
    Kind,
    digest_number,
    microseconds,
    postgres_time,
)
from engine.publications import asked_effects, completion, instant_of, publish, sent_value
from engine.routing import Route
from engine.store.values import SentEvent
from statemachines.effects import COMPLETES, Asked, Publication
from statemachines.events import Address, Envelope
from statemachines.machine import Machine
from statemachines.memory import Delayed
from statemachines.outcome import Moved
from statemachines.run import DIGEST_BYTES, RECENT_DIGESTS_MAX, DeferredEvent, Run, Status

RECENT_BYTES: Final = RECENT_DIGESTS_MAX * DIGEST_BYTES
"""Of a run's recent digests, once it has forgotten some."""

_STARTED, _MOVED, _MOVED_AFTER_WAIT = int(Kind.STARTED), int(Kind.MOVED), int(Kind.MOVED_AFTER_WAIT)
_FIRED: Final = int(Kind.FIRED)
_ALL_AS_USUAL: Final = KEY_IS_RUN_KEY | HEADERS_ARE_USUAL
_USUAL: Final = [*USUAL_HEADERS]
# The columns of a move from ``run`` to ``status``, each behind its length, and the length of the envelope.
_FIXED: Final = ">hiqi8siqiqiiiiiiihihi"
_pack_fixed: Final = struct.Struct(_FIXED).pack
# The same with an envelope of seven bytes behind it, which is what nearly all have.
_pack_usual: Final = struct.Struct(f"{_FIXED}BHI").pack
_USUAL_ENVELOPE_BYTES: Final = 7
# The same of what comes from inside: without digest, offset and position.
_INNER: Final = ">hiqiiiqiiiiiihihi"
_pack_inner: Final = struct.Struct(_INNER).pack
_pack_usual_inner: Final = struct.Struct(f"{_INNER}BHI").pack
_lengths: Final = struct.Struct(">ii").pack
_length: Final = struct.Struct(">i").pack
_COMPLETED: Final = int(Status.COMPLETED)
_POSTGRES_EPOCH: Final = microseconds(POSTGRES_EPOCH)
_COLUMNS: Final = len(COLUMNS)
_sha256 = hashlib.sha256
_new: Final = tuple.__new__


Move = tuple[Arrival, Machine, Run | None, Moved, datetime, int]
"""An event, the definition, the run before it (None where it starts), what it does; when, also as Postgres counts."""


class Moves(Settling):
    """Gathers moves, beside all else."""

    def __init__(self, at: datetime, run_ids: Iterator[int]) -> None:
        super().__init__(at)
        self._run_ids = run_ids
        self._texts: dict[str, bytes] = {}
        self._published_at, self._instant = at, instant_of(at)
        self._fired_at, self._fired_number = at, postgres_time(at)

    def move(self, moves: Iterable[Move], after_wait: int | None) -> list[tuple[Route, str, Machine]]:
        """Log these moves, of a run each, and step the runs ahead in their caches.

        ``after_wait`` is the number of the log row since which the event has waited. Returns the runs that may take
        something by themselves now.
        """
        rows, texts, touched_runs = self.commit.rows, self._texts, self._touched
        goes_on: list[tuple[Route, str, Machine]] = []
        for arrival, machine, run, moved, at, at_number in moves:
            route, key, record, position, _, decoded, digest, _, id_digest = arrival
            begins, configuration, status, context, publications, memory, asked = moved
            envelope = decoded[0]
            if run is None or (begins and run.status >= _COMPLETED):
                number, sequence, kind = next(self._run_ids), 1, _STARTED
                context_before = previous = recent = memory_before = b""
                definition, held, waiting, started = route.newest_definition, 0, 0, at
                before = generation = 0
                deferred: tuple[DeferredEvent, ...] = ()
                self._starts[route] = self._starts.get(route, 0) + 1
                if run is not None:
                    generation = run.generation + 1
                    self.retire(route, run, number)
            else:
                (
                    number, _, generation, before, _, _, context_before, recent, previous, definition, held, waiting,
                    started, _, memory_before, deferred,
                ) = run  # fmt: skip
                sequence, kind = before + 1, _MOVED
                if begins:
                    kind, definition = _STARTED, route.newest_definition
                    self._starts[route] = self._starts.get(route, 0) + 1
                # Out and in again moves it to the end: the cache's order is the order of use.
                del route.cache[key]
                if len(recent) >= RECENT_BYTES:
                    # The run forgets its oldest digest now, which the log may not be able to tell yet.
                    self.consumed.add(number, digest_number(recent[:DIGEST_BYTES]))
                    recent = recent[DIGEST_BYTES:]
                if after_wait is not None:
                    kind = _MOVED_AFTER_WAIT
                    waiting -= 1
                    self.commit.waiting_removed.append((number, after_wait))
            try:
                touched = touched_runs[route]
            except KeyError:
                touched = touched_runs[route] = {}
            touched.setdefault(key, before)
            if id_digest or machine.searchable or route.works:
                self._note_beside(arrival, machine, number, moved, context_before, memory_before)
            name = texts.get(envelope.type) or self._text(envelope.type)
            states = texts.get(configuration) or self._text(configuration)
            run_key, headers = key.encode(), record.headers
            time = record.timestamp
            if record.key == run_key and (not headers or headers == _USUAL) and 0 <= time <= TIME_MAX:
                flags = _ALL_AS_USUAL if headers else KEY_IS_RUN_KEY
                fixed = _pack_usual(
                    _COLUMNS, 8, number, 8, digest, 8, record.offset, 8, at_number, 4, sequence, 4, position or 0,
                    4, definition, 2, kind, 2, status, _USUAL_ENVELOPE_BYTES, flags, time >> 32, time & 0xFFFFFFFF,
                )  # fmt: skip
            else:
                rest = encode_envelope(time, record.key, headers, run_key)
                fixed = _pack_fixed(
                    _COLUMNS, 8, number, 8, digest, 8, record.offset, 8, at_number, 4, sequence, 4, position or 0,
                    4, definition, 2, kind, 2, status, len(rest),
                ) + rest  # fmt: skip
            event_id, payload, new_context = envelope.id.encode(), record.value or b"", context or b""
            between = _lengths(0, len(new_context))
            if publications or asked:
                address = _new(Address, (machine.namespace, machine.name, key, generation, sequence))
                effects = self.ask(publications, asked, address, envelope, at)
                between = _length(len(effects)) + effects + _length(len(new_context))
            kept = _lengths(0, len(payload)) if not memory else _with_memory(memory, len(payload))
            packed = b"".join((
                fixed, name, states, _length(len(event_id)), event_id, between, new_context, kept, payload,
            ))  # fmt: skip
            hashed = _sha256(previous + packed).digest()[:HASH_BYTES]
            rows.append(packed + HASH_LENGTH + hashed)
            if memory or memory_before or deferred:
                goes_on.append((route, key, machine))
            route.cache[key] = _new(Run, (
                number, key, generation, sequence, status, configuration, new_context or context_before,
                recent + digest, hashed, definition, held, waiting, started, at, memory or memory_before, deferred,
            ))  # fmt: skip
        return goes_on

    def _note_beside(
        self, arrival: Arrival, machine: Machine, run: int, moved: Moved, context: bytes, memory: bytes
    ) -> None:
        """Note what is kept beside row and run; ``context`` and ``memory`` are those before."""
        route, key = arrival.route, arrival.key
        if arrival.id_digest:
            self.take_id(run, arrival)
        if machine.searchable and moved.context is not None:
            self.may_be_found_otherwise(route, key, context)
        if route.works and moved.memory is not None:
            self.may_work_otherwise(route, key, memory)

    def take_deferred(
        self, arrival: Arrival, machine: Machine, run: Run, item: DeferredEvent, moved: Moved, at: datetime
    ) -> None:
        """Log the move of an event that was deferred."""
        self.commit.waiting_removed.append((run.id, item.sequence))
        self._waits_no_more(arrival, run)
        left = tuple(one for one in run.deferred if one.sequence != item.sequence)
        self._row_of_move(arrival, machine, run, Kind.MOVED_DEFERRED, moved, at, left)
        self.count(arrival.route, Disposition.APPLIED)

    def fire(self, arrival: Arrival, machine: Machine, run: Run, moved: Moved, at: datetime) -> None:
        """Log what a run did by a timer, what it sent to itself, or how a step ended; or that something leaves it."""
        effects = self._effects(arrival, machine, run, moved, at)
        self._row_of_fired(arrival, run, moved, effects, at)
        name, delayed = arrival.route.name, arrival.delayed
        if not isinstance(delayed, Delayed):
            return
        self.fired[name] = self.fired.get(name, 0) + 1
        if not delayed.at_once:
            late = (self._fired_number + _POSTGRES_EPOCH - delayed.due) / 1_000_000
            self.lateness = late if self.lateness is None else max(late, self.lateness)

    def _row_of_fired(self, arrival: Arrival, run: Run, moved: Moved, effects: bytes, at: datetime) -> None:
        """What ``row`` does, for the one kind of row of which there may be thousands a second."""
        route, key, record, _, _, decoded, _, _, _ = arrival
        _, configuration, status, context, _, memory, _ = moved
        (
            number, _, generation, before, _, _, context_before, recent, previous, definition, held, waiting, started,
            _, memory_before, deferred,
        ) = run  # fmt: skip
        if at is not self._fired_at:
            self._fired_at, self._fired_number = at, postgres_time(at)
        self._note_row(route, run)
        envelope, texts, time, headers = decoded[0], self._texts, record.timestamp, record.headers
        if headers is STRUCTURED_HEADERS and 0 <= time <= TIME_MAX and record.key == key.encode():
            fixed = _pack_usual_inner(
                _COLUMNS, 8, number, -1, -1, 8, self._fired_number, 4, before + 1, -1, 4, definition, 2, _FIRED, 2,
                status, _USUAL_ENVELOPE_BYTES, _ALL_AS_USUAL, time >> 32, time & 0xFFFFFFFF,
            )  # fmt: skip
        else:
            kept = encode_envelope(time, record.key, headers, key.encode())
            fixed = _pack_inner(
                _COLUMNS, 8, number, -1, -1, 8, self._fired_number, 4, before + 1, -1, 4, definition, 2, _FIRED, 2,
                status, len(kept),
            ) + kept  # fmt: skip
        event_id, payload, new_context, new_memory = (
            envelope.id.encode(), record.value or b"", context or b"", memory or b"",
        )  # fmt: skip
        packed = b"".join((
            fixed, texts.get(envelope.type) or self._text(envelope.type),
            texts.get(configuration) or self._text(configuration), _length(len(event_id)), event_id,
            _length(len(effects)), effects, _length(len(new_context)), new_context,
            _length(len(new_memory)), new_memory, _length(len(payload)), payload,
        ))  # fmt: skip
        hashed = _sha256(previous + packed).digest()[:HASH_BYTES]
        self.commit.rows.append(packed + HASH_LENGTH + hashed)
        # Out and in again moves it to the end: the cache's order is the order of use.
        route.cache.pop(key, None)
        route.cache[key] = _new(Run, (
            number, key, generation, before + 1, status, configuration, new_context or context_before, recent, hashed,
            definition, held, waiting, started, at, new_memory or memory_before, deferred,
        ))  # fmt: skip

    def _row_of_move(
        self,
        arrival: Arrival,
        machine: Machine,
        run: Run,
        kind: Kind,
        moved: Moved,
        at: datetime,
        deferred: tuple[DeferredEvent, ...] | None = None,
    ) -> Run:
        effects = self._effects(arrival, machine, run, moved, at)
        return self.row(arrival, run, kind, at, effects=effects, moved=moved, deferred=deferred)

    def _effects(self, arrival: Arrival, machine: Machine, run: Run, moved: Moved, at: datetime) -> bytes:
        """What a move that no event from outside asked for has for the log and the outbox, beside its row."""
        if machine.searchable and moved.context is not None:
            self.may_be_found_otherwise(arrival.route, run.key, run.context)
        if not moved.publications and not moved.asked:
            return b""
        address = Address(machine.namespace, machine.name, run.key, run.generation, run.sequence + 1)
        return self.ask(moved.publications, moved.asked, address, arrival.decoded.envelope, at)

    def _expect(self, arrival: Arrival, before: Run | None, at: datetime) -> Run:
        number, definition = next(self._run_ids), arrival.route.newest_definition
        generation = 0
        if before is not None:
            generation = before.generation + 1
            self.retire(arrival.route, before, number)
        return Run(
            number,
            arrival.key,
            generation,
            0,
            int(Status.EXPECTED),
            "",
            b"",
            b"",
            b"",
            definition,
            0,
            0,
            at,
            at,
        )

    def ask(
        self,
        publications: tuple[Publication, ...],
        asked: tuple[Asked, ...],
        address: Address,
        cause: Envelope,
        at: datetime,
    ) -> bytes:
        """Put out what a move publishes and sends; returns its effects as the log keeps them."""
        if at is not self._published_at:
            self._published_at, self._instant = at, instant_of(at)
        effects, records = publish(publications, address, cause, self._instant) if publications else (b"", ())
        self.commit.out += records
        for one in asked:
            if one.what == "send" and one.key is not None and not one.due:
                body = one.key.encode() + b"\0" + sent_value(one, address, cause, self._instant)
                self.commit.sent.append(SentEvent(one.pipeline or address.pipeline, one.key, body))
            elif one.what in COMPLETES:
                self.commit.completed.append(completion(one, address, cause))
        return asked_effects(effects, asked, address) if asked else effects

    def _text(self, text: str) -> bytes:
        raw = text.encode()
        packed = self._texts[text] = _length(len(raw)) + raw
        return packed


def _with_memory(memory: bytes, payload_length: int) -> bytes:
    return _length(len(memory)) + memory + _length(payload_length)
