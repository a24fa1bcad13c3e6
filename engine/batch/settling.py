"""What becomes of events that move nothing: ignored, duplicates, stale, dead letters; or they wait, or are deferred."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import orjson

from engine.batch.arrival import Arrival
from engine.batch.ledger import Ledger
from engine.dead_letters import details_bytes, tried_form
from engine.dispositions import Disposition
from engine.log import Kind, digest_number, microseconds
from engine.steps.executions import given_up, progress_said
from statemachines.compact import dumps_compact
from statemachines.memory import Delayed, Execution, lasting, read_memory, write_memory
from statemachines.outcome import Deferred, Duplicate, Ignored, Outcome, Reason, Refused, Stale, Waits
from statemachines.run import DeferredEvent, Run
from statemachines.turns import business_key, told_once
from statemachines.undoing import ENDED, UNKNOWN, how_ended

WAITING_EVENTS_MAX: Final = 1_000
"""How many events wait behind the hold of one run; the newest beyond that become dead letters."""


class Settling(Ledger):
    """Gathers them, beside all else."""

    def settle(
        self, arrival: Arrival, run: Run | None, outcome: Outcome, at: datetime, after_wait: int | None
    ) -> None:
        """Note what became of an event that moved nothing."""
        self._rest_on(arrival, run)
        match outcome:
            case Refused():
                self.refuse(arrival, run, outcome, at, after_wait)
                return
            case Waits():
                assert run is not None, "only a run can be held"
                self.wait(arrival, run, at)
                return
            case Deferred():
                if after_wait is not None and run is not None:
                    run = self._leave_waiting(arrival, run, Kind.LEFT_WAITING, at, after_wait)
                self.defer(arrival, run, outcome, at)
                return
            case Duplicate():
                known_by = _known_by(arrival, run)
                self.note(arrival, run, Disposition.DUPLICATE, Reason.SEEN_BEFORE, known_by, at)
            case Stale(why, policy):
                details = details_bytes(policy=policy, why=why)
                self.note(arrival, run, Disposition.STALE, Reason.STALE, details, at)
            case Ignored(reason, tried, policy, memory):
                details = details_bytes(tried, policy)
                disposition = Disposition.VOID if reason is Reason.VOID else Disposition.IGNORED
                self.note(arrival, run, disposition, reason, details, at)
                if memory is not None and run is not None:
                    run = self.row(arrival, run, Kind.PASSED, at, memory=memory)
            case _:
                raise AssertionError("a move is not settled here")
        if after_wait is not None and run is not None:
            self._leave_waiting(arrival, run, Kind.LEFT_WAITING, at, after_wait)

    def defer(self, arrival: Arrival, run: Run | None, deferred: Deferred, at: datetime) -> None:
        """Let an event wait until its run takes it, which may not have begun."""
        memory = b""
        if run is None or run.has_ended:
            memory = b"" if run is None else lasting(run.memory)
            run = self._expect(arrival, run, at)
        until = microseconds(deferred.until)
        said: dict[str, object] = {"deferred": deferred.reason.value, "why": deferred.why, "until": until}
        said |= {"then": deferred.then, "policy": deferred.policy, "tried": tried_form(deferred.tried)}
        item = DeferredEvent(
            run.sequence + 1,
            until,
            deferred.then,
            deferred.reason.value,
            arrival.digest,
            arrival.decoded.envelope,
            arrival.decoded.data,
            arrival,
        )
        effects, waits = dumps_compact([said]), (*run.deferred, item)
        self.row(arrival, run, Kind.DEFERRED, at, effects=effects, memory=memory, deferred=waits)
        self._waits(arrival, run, item.sequence, deferred.until)
        self.count(arrival.route, Disposition.DEFERRED)

    def leave_for_next(self, arrival: Arrival, run: Run, item: DeferredEvent, at: datetime) -> None:
        """Note that an event that was deferred waits no longer for this run, which has ended."""
        self.row(arrival, run, Kind.LEFT_DEFERRED, at, deferred=_without(run.deferred, item))
        self.commit.waiting_removed.append((run.id, item.sequence))
        self._waits_no_more(arrival, run)

    def leave_deferral(
        self, arrival: Arrival, run: Run, item: DeferredEvent, outcome: Outcome, at: datetime
    ) -> None:
        """Note what became of an event that was deferred, and moved nothing."""
        reason, details, disposition = Reason.STALE, b"", Disposition.STALE
        holds = False
        match outcome:
            case Refused():
                holds = outcome.holds
            case Ignored(reason, tried, policy):
                details, disposition = details_bytes(tried, policy), Disposition.IGNORED
            case Stale(why, policy):
                details = details_bytes(policy=policy, why=why)
            case Duplicate():
                reason, disposition = Reason.SEEN_BEFORE, Disposition.DUPLICATE
                details = _known_by(arrival, run)
            case _:
                raise AssertionError(f"a deferred event does not leave by {outcome}")
        kind = Kind.HELD_DEFERRED if holds else Kind.LEFT_DEFERRED
        memory = outcome.memory if isinstance(outcome, Ignored) else None
        left = _without(run.deferred, item)
        after = self.row(arrival, run, kind, at, memory=memory or b"", deferred=left)
        self.commit.waiting_removed.append((run.id, item.sequence))
        self._waits_no_more(arrival, run)
        if isinstance(outcome, Refused):
            self._letter(arrival, run, outcome, at, after.sequence if holds else None)
        else:
            self.note(arrival, run, disposition, reason, details, at)

    def refuse(
        self, arrival: Arrival, run: Run | None, refused: Refused, at: datetime, after_wait: int | None
    ) -> None:
        """Make an event a dead letter, and hold its run if that is what the outcome says."""
        sequence: int | None = None
        if run is not None and refused.holds:
            kind = Kind.HELD if after_wait is None else Kind.HELD_AFTER_WAIT
            memory = _given_up(run, arrival)
            self._leave_waiting(arrival, run, kind, at, after_wait, memory)
            sequence = run.sequence + 1
        elif run is not None and after_wait is not None:
            self._leave_waiting(arrival, run, Kind.LEFT_WAITING, at, after_wait)
        self._letter(arrival, run, refused, at, sequence)

    def refuse_own(
        self, arrival: Arrival, run: Run, delayed: Delayed | Execution, refused: Refused, at: datetime
    ) -> None:
        """Make what a run has asked for, and cannot take, a dead letter that holds it."""
        memory = _given_up(run, arrival) or write_memory(read_memory(run.memory).without(delayed))
        kind = Kind.HELD_FIRED if refused.holds else Kind.PASSED
        after = self.row(arrival, run, kind, at, memory=memory)
        self._letter(arrival, run, refused, at, after.sequence if refused.holds else None)

    def wait(self, arrival: Arrival, run: Run, at: datetime) -> None:
        """Let an event wait behind what holds its run, or refuse it where too many wait."""
        if run.behind >= WAITING_EVENTS_MAX:
            error = f"{run.behind} events wait already behind what holds the run; this one came on top"
            self.refuse(arrival, run, Refused(Reason.WAITING_FULL, error, False), at, None)
            return
        self.row(arrival, run, Kind.WAITED, at)
        self._waits(arrival, run, run.sequence + 1, None)
        self.count(arrival.route, Disposition.HELD)

    def _expect(self, arrival: Arrival, before: Run | None, at: datetime) -> Run:
        """A run that no event has started yet, for the events that wait for it; of the key's next generation."""
        raise NotImplementedError

    def _rest_on(self, arrival: Arrival, run: Run | None) -> None:
        if run is not None and arrival.key not in self._touched.get(arrival.route, ()):
            self._judged.setdefault(arrival.route, {}).setdefault(arrival.key, run)

    def _leave_waiting(
        self,
        arrival: Arrival,
        run: Run,
        kind: Kind,
        at: datetime,
        after_wait: int | None,
        memory: bytes = b"",
    ) -> Run:
        after = self.row(arrival, run, kind, at, memory=memory)
        if after_wait is not None:
            self.commit.waiting_removed.append((run.id, after_wait))
            self._waits_no_more(arrival, run)
        return after

    def _waits(self, arrival: Arrival, run: Run, sequence: int, until: datetime | None) -> None:
        number, by_id = digest_number(arrival.digest), None
        self.waiting.add((run.id, number))
        if arrival.id_digest and arrival.id_digest != arrival.digest:
            by_id = digest_number(arrival.id_digest)
            self.waiting.add((run.id, by_id))
        self.commit.waiting_added.append((run.id, sequence, number, until, by_id))

    def _waits_no_more(self, arrival: Arrival, run: Run) -> None:
        self.waiting.discard((run.id, digest_number(arrival.digest)))
        if arrival.id_digest:
            self.waiting.discard((run.id, digest_number(arrival.id_digest)))


def _given_up(run: Run, arrival: Arrival) -> bytes:
    """What a run remembers once nothing takes the failure of a step; empty where it is about none."""
    envelope, data, _ = arrival.decoded
    if not isinstance(arrival.delayed, Execution) or not run.memory:
        return b""
    # It was done, too, where it is its done that is refused.
    unknown = how_ended(envelope.type, data, arrival.delayed.step) in (ENDED, UNKNOWN)
    return given_up(run.memory, arrival.delayed, unknown=unknown, progress=progress_said(data))


def _without(deferred: tuple[DeferredEvent, ...], gone: DeferredEvent) -> tuple[DeferredEvent, ...]:
    return tuple(one for one in deferred if one.sequence != gone.sequence)


def _known_by(arrival: Arrival, run: Run | None) -> bytes:
    """The business key of a duplicate as its note keeps it: what it doubles need not have its id."""
    route, envelope = arrival.route, arrival.decoded.envelope
    machine = route.newest if run is None else route.machines.get(run.definition, route.newest)
    once = machine.onces.get(envelope.type)
    name = None if once is None else business_key(once, envelope.type, arrival.decoded.data)
    if once is None or name is None:
        return b""
    return orjson.dumps({"known_by": name, "policy": told_once(once)})
