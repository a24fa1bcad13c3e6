"""The pure interpreter: ``step(machine, run, occurrence) -> outcome``.

No clock, no randomness, no ids made up, no logging, no await: whatever an outcome depends on is in the
arguments, so the engine, replay, tests and simulation agree by construction.

An event meets these questions in this order, and the first that has an answer decides:

1. seen before?          -> Duplicate
2. run held?             -> Waits
3. no run, run closed?   -> a start event starts one; else the pipeline's policy
4. valid?                -> else Refused, and the run is held
5. accepted?             -> the state's own transitions, then those of the states around it, then the pipeline's, in
                            order; else the policy
6. the action            -> Refused, and the run is held, if it raises or leaves nonsense

A pipeline that has nothing but states and transitions on events is looked up in a table. All that charts have besides
goes through ``chart``, and so does an event on which an action of a flat pipeline raises another.

User code is called in ``handlers`` only, and whatever it raises ends there. What it leaves in the context is
written to JSON and read back before it counts, so that a run goes on from equal data whether it stayed in
memory, was loaded from its row, or is replayed.

This is the hot path: an event costs a few microseconds here, and what looks roundabout below (a tuple made
past its class's ``__new__``, a meta that is only made when asked for) is there because it was measured.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from statemachines.chart.macrostep import Macrostep
from statemachines.chart.spots import Live
from statemachines.chart.steps import Spot
from statemachines.events import Address, Event, Meta, set_origin
from statemachines.handlers import HandlerError, RaisesError, act, ask, build, read, write
from statemachines.outcome import DUPLICATE, WAITS, Ignored, Moved, Outcome, Reason, Refused, Tried
from statemachines.run import Run, Status, has_seen

if TYPE_CHECKING:
    from datetime import datetime

    from statemachines.context import Context
    from statemachines.definition import Policy
    from statemachines.effects import Publication
    from statemachines.events import Envelope
    from statemachines.machine import Beginning, Candidate, Machine

COMPLETED = int(Status.COMPLETED)
RUNNING = int(Status.RUNNING)
_tuple = tuple.__new__


class Occurrence(NamedTuple):
    """An event on its way into a run, with all that the outcome depends on."""

    envelope: Envelope
    key: str
    digest: bytes
    now: datetime
    event: Event | None
    """None: the data failed the event's schema, as ``error`` says."""
    error: str = ""
    seen: bool = False
    """The log says that it was consumed before."""


def step(machine: Machine, run: Run | None, occurrence: Occurrence) -> Outcome:
    """What becomes of a run by an event; the run itself is left as it is."""
    if run is None:
        return _start(machine, occurrence)
    recent, digest = run.recent, occurrence.digest
    if occurrence.seen or (recent.find(digest) >= 0 and has_seen(recent, digest)):
        return DUPLICATE
    if run.held:
        return WAITS
    configuration = run.configuration
    if run.status == COMPLETED:
        return _by_policy(machine.closed, Reason.CLOSED, f"the run ended in {configuration}")
    event, envelope = occurrence.event, occurrence.envelope
    if event is None:
        return Refused(Reason.INVALID, occurrence.error, holds=True)
    if not machine.flat:
        return _move_in_chart(machine, run, occurrence, event)
    moves = machine.table.get(configuration)
    candidates = None if moves is None else moves.get(envelope.type)
    if candidates is None:
        return _not_accepted(machine, configuration)
    moved = candidates[0].moved
    if moved is not None:
        return moved
    # All but the occurrence itself, which holds the event: a cycle would live until the garbage collector finds it.
    origin = machine, run, envelope, occurrence.key, occurrence.now
    try:
        return _move(machine, run, configuration, event, candidates, origin)
    except RaisesError:
        return _move_in_chart(machine, run, occurrence, event)


def _not_accepted(machine: Machine, configuration: str) -> Outcome:
    if configuration not in machine.table:
        return _without_state(machine, configuration)
    why = f"{configuration} has no transition for it"
    return _by_policy(machine.unexpected, Reason.UNEXPECTED, why)


def _move_in_chart(machine: Machine, run: Run, occurrence: Occurrence, event: Event) -> Outcome:
    try:
        spot = machine.spots.spot_of(run.configuration)
    except KeyError:
        return _without_state(machine, run.configuration)
    envelope = occurrence.envelope
    macrostep = Macrostep(machine, run, envelope, occurrence.key, occurrence.now, spot)
    try:
        moved = macrostep.move(event)
    except HandlerError as error:
        return Refused(error.reason, str(error), holds=True, tried=macrostep.tried)
    if moved is not None:
        return moved
    states, tried = " ".join(run.states), macrostep.tried
    why = f"{states} has no transition for it"
    if tried:
        why = f"no condition of the transitions out of {states} held"
    return _by_policy(machine.unexpected, Reason.UNEXPECTED, why, tried)


def _without_state(machine: Machine, configuration: str) -> Outcome:
    why = f"{machine.name} version {machine.version} has no state {configuration!r}"
    return Refused(Reason.DEFINITION_MISSING, why, holds=True)


def _move(
    machine: Machine,
    run: Run,
    configuration: str,
    event: Event,
    candidates: tuple[Candidate, ...],
    origin: tuple[object, ...],
) -> Outcome:
    context: Context | None = None
    tried: tuple[Tried, ...] = ()
    try:
        for source, target, guard, action, guard_name, action_name, moved in candidates:
            if guard is not None:
                if context is None:
                    context = read(machine, run.context)
                    set_origin(event, (_meta, *origin))
                if not ask(guard, guard_name, context, event):
                    tried += (Tried(source, target, guard_name),)
                    continue
            if moved is not None:
                return moved
            if target is not None:
                configuration = target
            status = COMPLETED if configuration in machine.final else RUNNING
            if action is None:
                return _tuple(Moved, (False, configuration, status, None, ()))
            if context is None:
                context = read(machine, run.context)
            # Where there is a target, the source is left, and the target not entered yet.
            set_origin(event, (_meta if target is None else _meta_between, *origin))
            publications = act(action, action_name, context, event, run.key)
            written = write(machine, context, action_name)
            changed = None if written == run.context else written
            return _tuple(Moved, (False, configuration, status, changed, publications))
    except HandlerError as error:
        return Refused(error.reason, str(error), holds=True, tried=tried)
    why = f"no condition of the transitions out of {configuration} held"
    return _by_policy(machine.unexpected, Reason.UNEXPECTED, why, tried)


def _start(machine: Machine, occurrence: Occurrence) -> Outcome:
    beginning = machine.beginnings.get(occurrence.envelope.type)
    if beginning is None:
        return _by_policy(machine.no_run, Reason.NO_RUN, f"no run has the key {occurrence.key!r}")
    event = occurrence.event
    if event is None:
        return Refused(Reason.INVALID, occurrence.error, holds=False)
    set_origin(event, (_meta, machine, None, occurrence.envelope, occurrence.key, occurrence.now))
    try:
        if machine.flat:
            with contextlib.suppress(RaisesError):
                return _begin(machine, beginning, event, occurrence.key)
        return _begin_in_chart(machine, beginning, event, occurrence)
    except HandlerError as error:
        return Refused(error.reason, str(error), holds=False)


def _begin_in_chart(machine: Machine, beginning: Beginning, event: Event, occurrence: Occurrence) -> Moved:
    context = build(machine, beginning.build, beginning.build_name, event)
    spot = Spot(1, (0,) * len(machine.steps.chart.history))
    macrostep = Macrostep(machine, None, occurrence.envelope, occurrence.key, occurrence.now, spot)
    return macrostep.start(event, context, beginning.action_name or beginning.build_name, beginning.plan)


def _begin(machine: Machine, beginning: Beginning, event: Event, key: str) -> Moved:
    context = build(machine, beginning.build, beginning.build_name, event)
    publications: tuple[Publication, ...] = ()
    if beginning.action is not None:
        publications = act(beginning.action, beginning.action_name, context, event, key)
    written = write(machine, context, beginning.action_name or beginning.build_name)
    status = COMPLETED if beginning.target in machine.final else RUNNING
    return Moved(True, beginning.target, status, written, publications)


def _by_policy(policy: Policy, reason: Reason, why: str, tried: tuple[Tried, ...] = ()) -> Outcome:
    if policy == "ignore":
        return Ignored(reason, tried)
    return Refused(reason, why, holds=False, tried=tried)


def _meta(machine: Machine, run: Run | None, envelope: Envelope, key: str, now: datetime) -> Meta:
    generation, sequence = (0, 0) if run is None else (run.generation, run.sequence)
    chart = machine.steps.chart
    live = Live(chart, 0 if run is None else 1 << chart.numbers.get(run.configuration, 0))
    address = Address(machine.namespace, machine.name, key, generation, sequence + 1)
    return Meta(envelope, now, address, live.is_active)


def _meta_between(machine: Machine, run: Run | None, envelope: Envelope, key: str, now: datetime) -> Meta:
    nothing = Live(machine.steps.chart, 0)
    return _meta(machine, run, envelope, key, now)._replace(active=nothing.is_active)
