"""What a run takes by itself: deferred events that it takes by now, what it sent to itself, and what fell due.

After each row that changed the run, before any newer event, ``follow`` is asked again and again: the oldest deferred
event that is enabled by now comes first, then what the run has sent to itself. ``fall_due`` is asked by whoever has the
time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from statemachines.departing import departed
from statemachines.events import Envelope, Event
from statemachines.handlers import validated
from statemachines.ids import asked_id
from statemachines.interpreter import step
from statemachines.memory import Delayed, microseconds_of, read_memory, time_of, write_memory
from statemachines.occurrence import Occurrence
from statemachines.outcome import Deferred, Ignored, Moved, Outcome, Reason, Refused
from statemachines.run import DeferredEvent, Run, Status, has_seen
from statemachines.turns import in_turn

if TYPE_CHECKING:
    from statemachines.machine import Machine

_PARTS: Final = dict, list
_NO_ATTRIBUTES: Final = Envelope._field_defaults["attributes"]
_new: Final = tuple.__new__


class Following(NamedTuple):
    """What a run takes by itself, and what becomes of it."""

    item: DeferredEvent | Delayed
    occurrence: Occurrence
    outcome: Outcome

    def goes_onward(self, run: Run) -> bool:
        """Whether it is for the next generation of the key: the run that it waited for has ended."""
        return run.has_ended and isinstance(self.outcome, Moved | Deferred)


Unseen = Callable[[DeferredEvent | Delayed, str], str]
"""Asked before a handler sees one with this id: why none may, which makes it a dead letter; empty where one may."""


def _may_be_seen(_: DeferredEvent | Delayed, __: str) -> str:
    return ""


def follow(machine: Machine, run: Run, now: datetime, unseen: Unseen = _may_be_seen) -> Following | None:
    """What the run takes next, before any newer event; None: nothing."""
    if run.held:
        return None
    for one in run.deferred:
        if _may_take(machine, run, one):
            error = unseen(one, one.envelope.id)
            if error:
                return _refuse(machine, run, one, now, error)
            found = _offer_again(machine, run, one, now)
            if not _still_waits(one, found.outcome, run):
                return found
    for delayed in read_memory(run.memory).delayed if run.memory else ():
        if delayed.at_once:
            return _fire(machine, run, delayed, now, unseen)
    return None


def fall_due(
    machine: Machine,
    run: Run,
    now: datetime,
    unseen: Unseen = _may_be_seen,
    *,
    until: datetime | None = None,
    event_id: str | None = None,
) -> Following | None:
    """The next of what has fallen due by now, in the order of due times, then of creation; None: nothing has.

    Of what has fallen due after ``until`` nothing happens yet. ``event_id`` names the one that is asked for.
    """
    if run.held:
        return None
    at = microseconds_of(now if until is None or until > now else until)
    if event_id is None:
        first = _first_due(run.deferred, read_memory(run.memory).delayed, at)
    else:
        deferred = [one for one in run.deferred if one.envelope.id == event_id]
        delayed = [one for one in read_memory(run.memory).delayed if id_of(machine, run, one) == event_id]
        first = _first_due(deferred, delayed, at)
    if isinstance(first, DeferredEvent):
        return _expire(run, first, now)
    return None if first is None else _fire(machine, run, first, now, unseen)


def _first_due(
    deferred: Sequence[DeferredEvent], delayed: Sequence[Delayed], at: int
) -> DeferredEvent | Delayed | None:
    """The first of what has fallen due; what is delayed is in the order in which it falls due."""
    first = delayed[0] if delayed and delayed[0].due <= at else None
    if not deferred:
        return first
    expired = (one for one in deferred if one.until <= at)
    oldest = min(expired, key=lambda one: (one.until, one.sequence), default=None)
    if oldest is not None and (
        first is None or (oldest.until, oldest.sequence) < (first.due, first.sequence)
    ):
        return oldest
    return first


def refuse_next(machine: Machine, run: Run, now: datetime, error: str) -> Following | None:
    """What has fallen due first for a run, or else what it would take next, refused unseen."""
    delayed = read_memory(run.memory).delayed
    first = _first_due(run.deferred, delayed, microseconds_of(now))
    for one in (first, *run.deferred, *delayed):
        if one is not None:
            return _refuse(machine, run, one, now, error)
    return None


def _refuse(machine: Machine, run: Run, one: DeferredEvent | Delayed, now: datetime, error: str) -> Following:
    refused = Refused(Reason.NEVER_RETURNED, error, holds=True)
    if isinstance(one, Delayed):
        return Following(one, _falls_due(_due_envelope(machine, run, one), run, one, now), refused)
    occurrence = Occurrence(one.envelope, run.key, one.digest, now, None, data=one.data, again=True)
    return Following(one, occurrence, refused)


def wakes_at(run: Run) -> int | None:
    """When the next of it falls due, in microseconds since 1970."""
    due = read_memory(run.memory).due if run.memory else None
    if not run.deferred:
        return due
    until = min((one.until for one in run.deferred), default=None)
    return min((at for at in (due, until) if at is not None), default=None)


def id_of(machine: Machine, run: Run, delayed: Delayed) -> str:
    """The id of what a run has asked for later: the same after any number of crashes."""
    return asked_id(
        machine.namespace, machine.name, run.key, run.generation, delayed.sequence, delayed.number
    )


def _may_take(machine: Machine, run: Run, one: DeferredEvent) -> bool:
    """Whether it is worth to validate it and to ask guards."""
    event_type = one.envelope.type
    if run.status != Status.RUNNING or has_seen(run.recent, one.digest):
        # The run has taken another event by now that is known by the same business key.
        return True
    if event_type in machine.orders:
        occurrence = Occurrence(
            one.envelope, run.key, one.digest, run.updated, None, data=one.data, again=True
        )
        return not isinstance(in_turn(machine, read_memory(run.memory), occurrence), Deferred)
    return machine.has_transition(run.configuration, event_type)


def _offer_again(machine: Machine, run: Run, one: DeferredEvent, now: datetime) -> Following:
    # A copy: what a handler does to it must not be seen when it is offered once more.
    event, error = validated(machine, one.envelope.type, _copied(one.data))
    occurrence = Occurrence(one.envelope, run.key, one.digest, now, event, error, data=one.data, again=True)
    return Following(one, occurrence, step(machine, run, occurrence))


def _copied(value: Any) -> Any:
    """A copy of what JSON has, however deep it is, which ``copy.deepcopy`` makes more slowly."""
    whole = [value]
    parts: list[Any] = [whole]
    while parts:
        part = parts.pop()
        for name, one in part.items() if type(part) is dict else enumerate(part):
            if isinstance(one, _PARTS):
                part[name] = one.copy()
                parts.append(part[name])
    return whole[0]


def _still_waits(one: DeferredEvent, outcome: Outcome, run: Run) -> bool:
    """Whether nothing takes it yet. What another state's policy says of new events is not for it."""
    if run.has_ended:
        # Nothing waits for a run that has ended; the event may still be for the next generation of the key.
        return False
    if one.reason == Reason.PAUSED and run.status == Status.EXPECTED:
        # It waited for its pipeline alone, which goes on: it is a new event now, whatever becomes of it.
        return False
    if isinstance(outcome, Deferred):
        return True
    reason = outcome.reason if isinstance(outcome, Ignored | Refused) else None
    return reason in (Reason.NO_RUN, Reason.UNEXPECTED)


def _expire(run: Run, one: DeferredEvent, now: datetime) -> Following:
    occurrence = Occurrence(one.envelope, run.key, one.digest, now, None, data=one.data, again=True)
    until = f"{time_of(one.until).replace(tzinfo=None).isoformat()}Z"
    policy = f"its time to live ended at {until}, then {one.then}"
    if one.then == "ignore":
        return Following(one, occurrence, Ignored(Reason.EXPIRED, policy=policy))
    error = f"it was deferred ({one.reason}), and nothing took it until its time to live ended"
    return Following(one, occurrence, Refused(Reason.EXPIRED, error, holds=False, policy=policy))


def _fire(machine: Machine, run: Run, delayed: Delayed, now: datetime, unseen: Unseen) -> Following:
    envelope = _due_envelope(machine, run, delayed)
    if not delayed.is_own:
        left = write_memory(read_memory(run.memory).without(delayed))
        return Following(delayed, _falls_due(envelope, run, delayed, now), departed(run, delayed, left))
    refusal = unseen(delayed, envelope.id)
    if refusal:
        return _refuse(machine, run, delayed, now, refusal)
    # A copy: what a handler does to it must not be seen when it falls due once more.
    data = None if delayed.data is None else _copied(delayed.data)
    event, error = validated(machine, delayed.type, data)
    occurrence = _falls_due(envelope, run, delayed, now, event, error)
    return Following(delayed, occurrence, step(machine, run, occurrence))


def _due_envelope(machine: Machine, run: Run, delayed: Delayed) -> Envelope:
    source = f"/pointsman/{machine.namespace}/{machine.name}"
    key = run.key
    return _new(Envelope, (
        id_of(machine, run, delayed), source, delayed.type, key, time_of(delayed.due), key, None, _NO_ATTRIBUTES
    ))  # fmt: skip


def _falls_due(
    envelope: Envelope, run: Run, delayed: Delayed, now: datetime, event: Event | None = None, error: str = ""
) -> Occurrence:
    return _new(Occurrence, (envelope, run.key, b"", now, event, error, False, delayed.data, False, delayed))
