"""What becomes of a run by an event whose turn it is: what begins, moves, is not taken, or fails.

An event that is offered was not seen before, and nothing else is to come first (``interpreter``). Here are the last of
its questions: is there a run that takes events, is the event valid, does any transition take it, and does what that
calls succeed; where the answer is no, a policy decides, or the event is refused.

A pipeline that has nothing but states and transitions on events is looked up in a table. All that charts have besides
goes through ``chart``, and so does an event on which an action of a flat pipeline raises another.

This is the hot path: an event costs a few microseconds here, and what looks roundabout below (a tuple made
past its class's ``__new__``, a meta that is only made when asked for) is there because it was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from statemachines.chart.macrostep import Macrostep, number_of
from statemachines.chart.microsteps import Spot
from statemachines.chart.spots import Live
from statemachines.contexts import read, write, write_last
from statemachines.events import (
    STEP_FAILED,
    Address,
    Event,
    Meta,
    set_origin,
)
from statemachines.handlers import Acted, HandlerError, RaisesError, act, ask, build
from statemachines.limits import DEFERRED_MAX
from statemachines.memory import EMPTY, Execution, Memory, write_memory
from statemachines.occurrence import Occurrence
from statemachines.outcome import (
    Deferred,
    Ignored,
    Moved,
    Outcome,
    Reason,
    Refused,
    Tried,
)
from statemachines.policies import as_defer, told
from statemachines.run import Run, Status

if TYPE_CHECKING:
    from datetime import datetime

    from statemachines.context import Context
    from statemachines.effects import Publication
    from statemachines.events import Envelope
    from statemachines.machine import Beginning, Candidate, Machine
    from statemachines.policies import Decided

_COMPLETED: Final = int(Status.COMPLETED)
_RUNNING: Final = int(Status.RUNNING)
_EXPECTED: Final = int(Status.EXPECTED)
_tuple: Final = tuple.__new__


def offer(machine: Machine, run: Run, occurrence: Occurrence, memory: Memory) -> Outcome:
    """Have a run take an event whose turn it is; ``memory`` is what the run keeps if it does, be it nothing."""
    if run.status != _RUNNING:
        return not_running(machine, run, occurrence, memory)
    event, envelope = occurrence.event, occurrence.envelope
    if event is None:
        return Refused(Reason.INVALID, occurrence.error, holds=True)
    if not machine.flat or memory is not EMPTY or run.memory or occurrence.delayed is not None:
        return _move_in_chart(machine, run, occurrence, event, memory)
    configuration = run.configuration
    moves = machine.table.get(configuration)
    candidates = None if moves is None else moves.get(envelope.type)
    if candidates is None:
        return _not_accepted(machine, run, occurrence, configuration)
    moved = candidates[0].moved
    if moved is not None:
        return moved
    return _move(machine, run, occurrence, configuration, event, candidates)


def restarts(machine: Machine, occurrence: Occurrence) -> bool:
    """Whether an event begins the next run of its key, where the last one has ended."""
    return machine.policies.of("closed", occurrence.envelope.type).decision == "restart"


def not_running(machine: Machine, run: Run, occurrence: Occurrence, memory: Memory) -> Outcome:
    """What becomes of an event for a run that has not begun, or has ended."""
    if run.status == _EXPECTED:
        return start(machine, run, occurrence, memory)
    if occurrence.delayed is not None:
        return Ignored(Reason.CLOSED, memory=write_memory(memory))
    decided = machine.policies.of("closed", occurrence.envelope.type)
    if restarts(machine, occurrence):
        # What was applied belongs to the key, what falls due later ended with the run.
        kept = Memory(marks=memory.marks, seen=memory.seen) if memory.marks or memory.seen else EMPTY
        return start(machine, run, occurrence, kept)
    return _by_policy(run, occurrence, decided, Reason.CLOSED, f"the run ended in {' '.join(run.states)}")


def _not_accepted(machine: Machine, run: Run, occurrence: Occurrence, configuration: str) -> Outcome:
    if configuration not in machine.table:
        return without_state(machine, configuration)
    return _unexpected(machine, run, occurrence, f"{configuration} has no transition for it")


def _move_in_chart(
    machine: Machine,
    run: Run,
    occurrence: Occurrence,
    event: Event,
    memory: Memory,
    acted: Acted | None = None,
) -> Outcome:
    try:
        spot = machine.spots.spot_of(run.configuration)
    except KeyError:
        return without_state(machine, run.configuration)
    envelope, delayed = occurrence.envelope, occurrence.delayed
    macrostep = Macrostep(machine, run, envelope, occurrence.key, occurrence.now, spot, memory, acted=acted)
    state = machine.microsteps.chart.numbers.get(delayed.state, 0) if isinstance(delayed, Execution) else None
    try:
        moved = macrostep.move(event, state)
    except HandlerError as error:
        return Refused(error.reason, str(error), holds=True, tried=macrostep.tried, raised=error.raised)
    if moved is not None:
        return moved
    states, tried = " ".join(run.states), macrostep.tried
    why = f"{states} has no transition for it"
    if tried:
        why = f"no condition of the transitions out of {states} held"
    if isinstance(delayed, Execution) and envelope.type.startswith(STEP_FAILED):
        return _not_taken(occurrence, delayed, tried)
    if delayed is not None:
        return Ignored(Reason.UNEXPECTED, tried, memory=write_memory(memory))
    if machine.notes_undoing and not occurrence.again and macrostep.would_undo_again(event):
        return Ignored(Reason.UNDOING)
    return _unexpected(machine, run, occurrence, why, tried)


def without_state(machine: Machine, configuration: str) -> Outcome:
    """That a run is where its definition has no state."""
    why = f"{machine.name} version {machine.version} has no state {configuration!r}"
    return Refused(Reason.DEFINITION_MISSING, why, holds=True)


def _not_taken(occurrence: Occurrence, execution: Execution, tried: tuple[Tried, ...]) -> Refused:
    """That a step has failed, and nothing takes it."""
    return step_failed(occurrence, execution, "and no transition takes it", tried)


def step_failed(
    occurrence: Occurrence, execution: Execution, so: str, tried: tuple[Tried, ...] = ()
) -> Refused:
    """That a step has failed for good, which holds its run; ``so`` is what follows, as the middle of a sentence."""
    said = occurrence.data
    attempts = said.get("attempts", execution.attempt)
    what = f"the compensation {execution.step}" if execution.of else execution.step
    error = (
        f"{what} failed after {attempts} attempt{'' if attempts == 1 else 's'}, "
        f"{so}: {said.get('error')}: {said.get('message')}"
    )
    return Refused(Reason.STEP_FAILED, error, holds=True, tried=tried)


def _move(
    machine: Machine,
    run: Run,
    occurrence: Occurrence,
    configuration: str,
    event: Event,
    candidates: tuple[Candidate, ...],
) -> Outcome:
    # Not the occurrence itself, which holds the event: a cycle would live until the garbage collector finds it.
    envelope, key, now = occurrence.envelope, occurrence.key, occurrence.now
    context: Context | None = None
    tried: tuple[Tried, ...] = ()
    try:
        for source, target, guard, action, guard_name, action_name, moved in candidates:
            if guard is not None:
                if context is None:
                    context = read(machine, run.context)
                    set_origin(event, (_meta, machine, run, envelope, key, now))
                if not ask(guard, guard_name, context, event):
                    tried += (Tried(source, target, guard_name),)
                    continue
            if moved is not None:
                return moved
            if target is not None:
                configuration = target
            status = _COMPLETED if configuration in machine.final else _RUNNING
            if action is None:
                return _tuple(Moved, (False, configuration, status, None, (), None, ()))
            if context is None:
                context = read(machine, run.context)
            # Where there is a target, the source is left, and the target not entered yet.
            meta = _meta if target is None else _meta_between
            set_origin(event, (meta, machine, run, envelope, key, now))
            publications = act(action, action_name, context, event, run.key)
            written = write_last(machine, context, action_name, run.context)
            changed = None if written == run.context else written
            return _tuple(Moved, (False, configuration, status, changed, publications, None, ()))
    except RaisesError as more:
        assert context is not None, "the action was given it"
        acted = Acted(context, more.performed, len(tried))
        return _move_in_chart(machine, run, occurrence, event, EMPTY, acted)
    except HandlerError as error:
        return Refused(error.reason, str(error), holds=True, tried=tried, raised=error.raised)
    why = f"no condition of the transitions out of {configuration} held"
    return _unexpected(machine, run, occurrence, why, tried)


def start(machine: Machine, run: Run | None, occurrence: Occurrence, memory: Memory) -> Outcome:
    """Begin a run; ``run`` is what there is of its key: nothing, events that wait for it, or the last generation."""
    beginnings = machine.beginnings.get(occurrence.envelope.type)
    if beginnings is None:
        return _not_started(machine, run, occurrence, memory)
    event = occurrence.event
    if event is None:
        return Refused(Reason.INVALID, occurrence.error, holds=False)
    set_origin(event, (_meta, machine, run, occurrence.envelope, occurrence.key, occurrence.now))
    tried: tuple[Tried, ...] = ()
    try:
        for beginning in beginnings:
            context = build(machine, beginning.build, beginning.build_name, event)
            guard = beginning.guard
            if guard is not None and not ask(guard, beginning.tried.guard, context, event):
                tried += (beginning.tried,)
                continue
            acted: Acted | None = None
            if machine.flat and memory is EMPTY:
                begun = _begin(machine, beginning, context, event, occurrence.key)
                if type(begun) is Moved:
                    return begun
                assert isinstance(begun, Acted)
                acted = begun
            macrostep = _at_the_start(machine, run, occurrence, memory, acted)
            name = beginning.action_name or beginning.build_name
            return macrostep.start(event, context, name, beginning.plan)
    except HandlerError as error:
        return Refused(error.reason, str(error), holds=False, tried=tried, raised=error.raised)
    return _not_started(machine, run, occurrence, memory, tried)


def _not_started(
    machine: Machine, run: Run | None, occurrence: Occurrence, memory: Memory, tried: tuple[Tried, ...] = ()
) -> Outcome:
    """What becomes of an event that there is no run for, and that starts none."""
    decided = machine.policies.of("no_run", occurrence.envelope.type)
    if decided.decision == "start":
        return _start_with_defaults(machine, run, occurrence, memory, tried)
    why = f"no run has the key {occurrence.key!r}"
    if run is not None and run.has_ended:
        why = f"the run of the key {occurrence.key!r} has ended, and no other one has begun"
    if tried:
        why = f"{why}; no condition of the starts on such events held"
    return _by_policy(run, occurrence, decided, Reason.NO_RUN, why, tried)


def _at_the_start(
    machine: Machine, run: Run | None, occurrence: Occurrence, memory: Memory, acted: Acted | None = None
) -> Macrostep:
    spot = Spot(1, (0,) * len(machine.microsteps.chart.history))
    anew = run is not None and run.has_ended
    envelope, key, now = occurrence.envelope, occurrence.key, occurrence.now
    return Macrostep(machine, run, envelope, key, now, spot, memory, anew=anew, acted=acted)


def _start_with_defaults(
    machine: Machine, run: Run | None, occurrence: Occurrence, memory: Memory, tried: tuple[Tried, ...]
) -> Outcome:
    """Begin a run that no event starts, and offer it the event."""
    event, name = occurrence.event, machine.context_class.__name__
    if event is None:
        return Refused(Reason.INVALID, occurrence.error, holds=False)
    macrostep = _at_the_start(machine, run, occurrence, memory)
    try:
        context = build(machine, lambda _: machine.context_class(), name, event)
        moved = macrostep.start_and_offer(event, context, name, machine.default_plan)
    except HandlerError as error:
        tried += macrostep.tried
        return Refused(error.reason, str(error), holds=False, tried=tried, raised=error.raised)
    if moved is not None:
        return moved
    why = "a run that begins has no transition for it"
    return _unexpected(machine, run, occurrence, why, tried + macrostep.tried)


def _begin(machine: Machine, beginning: Beginning, context: Context, event: Event, key: str) -> Moved | Acted:
    publications: tuple[Publication, ...] = ()
    if beginning.action is not None:
        try:
            publications = act(beginning.action, beginning.action_name, context, event, key)
        except RaisesError as more:
            return Acted(context, more.performed)
    written = write(machine, context, beginning.action_name or beginning.build_name)
    status = _COMPLETED if beginning.target in machine.final else _RUNNING
    return _tuple(Moved, (True, beginning.target, status, written, publications, None, ()))


def _unexpected(
    machine: Machine, run: Run | None, occurrence: Occurrence, why: str, tried: tuple[Tried, ...] = ()
) -> Outcome:
    states = run.states if run is not None and run.status == _RUNNING else ()
    decided = machine.policies.unexpected(states, occurrence.envelope.type)
    return _by_policy(run, occurrence, decided, Reason.UNEXPECTED, why, tried)


def _by_policy(
    run: Run | None,
    occurrence: Occurrence,
    decided: Decided,
    reason: Reason,
    why: str,
    tried: tuple[Tried, ...] = (),
) -> Outcome:
    policy = told(decided)
    if decided.decision == "ignore":
        return Ignored(reason, tried, policy)
    defer = as_defer(decided.decision)
    if defer is None:
        return Refused(reason, why, holds=False, tried=tried, policy=policy)
    deferred = Deferred(reason, why, occurrence.now + defer.ttl, defer.then, tried, policy)
    return may_defer(run, occurrence, deferred)


def may_defer(run: Run | None, occurrence: Occurrence, deferred: Deferred) -> Outcome:
    """The deferral of an event, unless as many wait for the run as may."""
    if occurrence.again or run is None:
        return deferred
    if len(run.deferred) >= DEFERRED_MAX:
        error = f"{deferred.why}; and {DEFERRED_MAX} deferred events wait for the run already"
        return Refused(Reason.DEFERRED_FULL, error, False, deferred.tried, deferred.policy)
    return deferred


def _meta(machine: Machine, run: Run | None, envelope: Envelope, key: str, now: datetime) -> Meta:
    chart = machine.microsteps.chart
    running = run is not None and run.status == _RUNNING
    live = Live(chart, 1 << chart.numbers.get(run.configuration, 0) if run is not None and running else 0)
    generation, sequence = number_of(run, anew=run is not None and run.has_ended)
    address = Address(machine.namespace, machine.name, key, generation, sequence)
    return Meta(envelope, now, address, live.is_active, live.has_tag)


def _meta_between(machine: Machine, run: Run | None, envelope: Envelope, key: str, now: datetime) -> Meta:
    nothing = Live(machine.microsteps.chart, 0)
    return _meta(machine, run, envelope, key, now)._replace(active=nothing.is_active, tagged=nothing.has_tag)
