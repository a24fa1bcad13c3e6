"""The pure interpreter: ``step(machine, run, occurrence) -> outcome``.

No clock, no randomness, no ids made up, no logging, no await: whatever an outcome depends on is in the
arguments, so the engine, replay, tests and simulation agree by construction.

An event meets these questions in this order, and the first that has an answer decides:

1. seen before?            -> Duplicate
2. older than one applied? -> Stale
3. run held?               -> Waits
4. a gap before it?        -> Deferred
5. no run, run closed?     -> a start event starts one; else the policy
6. valid?                  -> else Refused, and the run is held
7. accepted?               -> the state's own transitions, then those of the states around it, then the pipeline's, in
                              order; else the policy, which by default defers
8. the action              -> Refused, and the run is held, if it raises or leaves nonsense

What comes from inside (a timer, an event that a run sent to itself) is asked the last three only, and where nothing
takes it, it is noted and gone. An event that was deferred is offered again by the same function. How a step ended is
for the state that asked for it, and for those around it; where that was left, it is noted, and where nothing takes that
the step has failed, the run is held, until somebody has the step begin anew, or the run go on without. No transition
is asked about how a compensation ended, nor about what became of a step that was stopped: that changes what the run
owes, and once that is nothing, what is undone goes on, the run or a state of it.

A pipeline that has nothing but states and transitions on events is looked up in a table. All that charts have besides
goes through ``chart``, and so does an event on which an action of a flat pipeline raises another.

User code is called in ``handlers`` only, and whatever it raises ends there. What it leaves in the context is
written to JSON and read back before it counts, so that a run goes on from equal data whether it stayed in
memory, was loaded from its row, or is replayed.

This is the hot path: an event costs a few microseconds here, and what looks roundabout below (a tuple made
past its class's ``__new__``, a meta that is only made when asked for) is there because it was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from statemachines.chart.macrostep import Macrostep, number_of
from statemachines.chart.microsteps import Spot
from statemachines.chart.spots import Live
from statemachines.departing import departed
from statemachines.events import (
    OUTCOMES,
    STEP_FAILED,
    STEP_RETRIED,
    STEP_SKIPPED,
    STEP_STOPPED,
    STEP_TRIED,
    STEP_WAITS,
    Address,
    Event,
    Meta,
    set_origin,
)
from statemachines.handlers import Acted, HandlerError, RaisesError, act, ask, build, read, write
from statemachines.limits import DEFERRED_MAX, LAST_ERROR_CHARACTERS_MAX, MEMORY_BYTES_MAX
from statemachines.memory import EMPTY, Delayed, Execution, Memory, read_memory, too_much, write_memory
from statemachines.occurrence import Occurrence
from statemachines.outcome import (
    DUPLICATE,
    WAITS,
    Deferred,
    Duplicate,
    Ignored,
    Moved,
    Outcome,
    Reason,
    Refused,
    Stale,
    Tried,
)
from statemachines.policies import as_defer, told
from statemachines.run import Run, Status, has_deferred, has_seen
from statemachines.turns import in_turn
from statemachines.undoing import (
    ENDED,
    FAILED,
    UNKNOWN,
    how_ended,
    place_of,
    settle,
    undone,
    waits_in,
    was_lost,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from statemachines.context import Context
    from statemachines.effects import Publication
    from statemachines.events import Envelope
    from statemachines.machine import Beginning, Candidate, Machine
    from statemachines.policies import Decided

COMPLETED = int(Status.COMPLETED)
RUNNING = int(Status.RUNNING)
EXPECTED = int(Status.EXPECTED)
_tuple = tuple.__new__


def step(machine: Machine, run: Run | None, occurrence: Occurrence) -> Outcome:
    """What becomes of a run by an event; the run itself is left as it is."""
    if machine.asks_more or occurrence.delayed is not None:
        return _step_asking(machine, run, occurrence)
    if run is None:
        return _start(machine, None, occurrence, EMPTY)
    recent, digest = run.recent, occurrence.digest
    if occurrence.seen or (recent.find(digest) >= 0 and has_seen(recent, digest)):
        return DUPLICATE
    if run.deferred and _waits_already(run, occurrence):
        return DUPLICATE
    if run.held:
        return WAITS
    return _offer(machine, run, occurrence, EMPTY)


def _step_asking(machine: Machine, run: Run | None, occurrence: Occurrence) -> Outcome:
    """The same where order and business keys are asked for, or the event comes from inside."""
    if occurrence.delayed is not None:
        assert run is not None, "what comes from inside comes from a run"
        # That a step goes on outside changes the memory only: its token is known from then on, whatever holds the run.
        if run.held and not occurrence.envelope.type.startswith(STEP_WAITS):
            return WAITS
        return _take_inner(machine, run, occurrence, occurrence.delayed)
    if run is not None:
        recent, digest = run.recent, occurrence.digest
        if occurrence.seen or (recent.find(digest) >= 0 and has_seen(recent, digest)):
            return DUPLICATE
        if run.deferred and _waits_already(run, occurrence):
            return DUPLICATE
    memory = EMPTY if run is None else read_memory(run.memory)
    asked = in_turn(machine, memory, occurrence)
    if isinstance(asked, Duplicate | Stale):
        return asked
    if run is not None and run.held:
        return WAITS
    if isinstance(asked, Refused | Deferred):
        return _out_of_turn(machine, run, occurrence, memory, asked)
    if run is None:
        return _start(machine, None, occurrence, asked)
    outcome = _offer(machine, run, occurrence, asked)
    if asked is not memory and type(outcome) is Ignored:
        # It had its turn, though it changed nothing else.
        return _remembering(asked, outcome)
    return outcome


def _take_inner(machine: Machine, run: Run, occurrence: Occurrence, delayed: Delayed | Execution) -> Outcome:
    """What becomes of what the run itself has asked for."""
    memory = read_memory(run.memory)
    if occurrence.envelope.type.startswith(OUTCOMES) and delayed not in memory.delayed:
        return _end(machine, run, occurrence, memory)
    memory = memory.without(delayed)
    if isinstance(delayed, Delayed) and not delayed.is_own and run.status == RUNNING:
        return departed(run, delayed, write_memory(memory))
    return _offer(machine, run, occurrence, memory)


def _end(machine: Machine, run: Run, occurrence: Occurrence, memory: Memory) -> Outcome:
    """What becomes of how an attempt at a step ended."""
    said, by = occurrence.data if isinstance(occurrence.data, dict) else {}, machine.compensations
    execution = memory.execution(str(said.get("execution")))
    if execution is None or run.status != RUNNING:
        return Ignored(Reason.VOID)
    event_type = occurrence.envelope.type
    how = how_ended(event_type, said, execution.step)
    # What was done was done, whichever attempt says so; that one failed matters only as long as none came after it.
    # One that goes on outside is not lost with the engine that began it.
    is_past = how != ENDED and said.get("attempt") != execution.attempt
    if is_past or (execution.token and was_lost(said)):
        return Ignored(Reason.VOID)
    if execution.stopping:
        left = settle(memory, execution, how, run.sequence + 1, by)
        return _stopped(machine, run, occurrence, left, place_of(memory, execution))
    if event_type.startswith(STEP_STOPPED):
        return Ignored(Reason.VOID)
    if event_type.startswith(STEP_WAITS):
        return _wait(memory, execution, said)
    if event_type.startswith((STEP_RETRIED, STEP_SKIPPED)):
        return _decide(machine, run, occurrence, memory, execution)
    if event_type.startswith(STEP_TRIED):
        again = execution._replace(
            attempt=execution.attempt + 1, again=said.get("again", 0), error=_error(said), token=""
        )
        if how == UNKNOWN and execution.step in by:
            again = again._replace(unknown=1)
        return Ignored(Reason.RETRYING, memory=write_memory(memory.instead(again)))
    if execution.of:
        return _undo(machine, run, occurrence, memory, execution)
    left = settle(memory, execution, how, run.sequence + 1, by)
    outcome = _offer(machine, run, _tuple(Occurrence, (*occurrence[:-1], execution)), left)
    if execution.is_given_up and type(outcome) is Refused and outcome.reason is Reason.STEP_FAILED:
        return _begin_anew(memory, execution, said)
    return outcome


def _wait(memory: Memory, execution: Execution, said: Mapping[str, Any]) -> Outcome:
    """What becomes of an attempt that goes on outside: the first token of it counts."""
    if execution.token or execution.is_given_up:
        return Ignored(Reason.VOID)
    waits = execution._replace(token=str(said.get("token")), again=said.get("until", 0))
    return Ignored(Reason.LATER, memory=write_memory(memory.instead(waits)))


def _decide(
    machine: Machine, run: Run, occurrence: Occurrence, memory: Memory, execution: Execution
) -> Outcome:
    """What becomes of a step that has failed for good, or of a compensation, by what an operator says of it."""
    if not execution.is_given_up:
        return Ignored(Reason.VOID)
    if occurrence.envelope.type.startswith(STEP_RETRIED):
        return _begin_anew(memory, execution, occurrence.data)
    if execution.of:
        return _go_on(machine, run, occurrence, undone(memory, execution))
    left = settle(memory, execution, FAILED, run.sequence + 1, machine.compensations)
    return Ignored(Reason.SKIPPED, memory=write_memory(left))


def _begin_anew(memory: Memory, execution: Execution, said: Mapping[str, Any]) -> Ignored:
    """An execution that was given up is tried again: somebody wants that."""
    return Ignored(Reason.RETRYING, memory=write_memory(memory.instead(execution.anew(_error(said)))))


def _error(said: Mapping[str, Any]) -> str:
    return f"{said.get('error')}: {said.get('message')}"[:LAST_ERROR_CHARACTERS_MAX]


def _stopped(
    machine: Machine, run: Run, occurrence: Occurrence, memory: Memory, place: str | None
) -> Outcome:
    """What becomes of a run that has heard of a step whose state was left; ``place`` is where it is undone."""
    if place is None or any(one.stopping for one in waits_in(memory, place)):
        return Ignored(Reason.STOPPED, memory=write_memory(memory))
    return _go_on(machine, run, occurrence, memory)


def _undo(
    machine: Machine, run: Run, occurrence: Occurrence, memory: Memory, execution: Execution
) -> Outcome:
    """What becomes of a run by how a compensation ended, for good."""
    if occurrence.event is None:
        return Refused(Reason.INVALID, occurrence.error, holds=True)
    if not occurrence.envelope.type.startswith(STEP_FAILED):
        return _go_on(machine, run, occurrence, undone(memory, execution))
    if execution.is_given_up:
        return _begin_anew(memory, execution, occurrence.data)
    step = next((one.step for one in memory.owed if one.id == execution.of), "a step")
    return _failed(occurrence, execution, f"so that {step} ({execution.of}) is not undone")


def _go_on(machine: Machine, run: Run, occurrence: Occurrence, memory: Memory) -> Outcome:
    """Go on with undoing a run, or states of it."""
    try:
        spot = machine.spots.spot_of(run.configuration)
    except KeyError:
        return _without_state(machine, run.configuration)
    macrostep = Macrostep(machine, run, occurrence.envelope, occurrence.key, occurrence.now, spot, memory)
    try:
        return macrostep.go_on()
    except HandlerError as error:
        return Refused(error.reason, str(error), holds=True, raised=error.raised)


def _not_taken(occurrence: Occurrence, execution: Execution, tried: tuple[Tried, ...]) -> Refused:
    """That a step has failed, and nothing takes it."""
    return _failed(occurrence, execution, "and no transition takes it", tried)


def _failed(occurrence: Occurrence, execution: Execution, so: str, tried: tuple[Tried, ...] = ()) -> Refused:
    said = occurrence.data
    attempts = said.get("attempts", execution.attempt)
    what = f"the compensation {execution.step}" if execution.of else execution.step
    error = (
        f"{what} failed after {attempts} attempt{'' if attempts == 1 else 's'}, "
        f"{so}: {said.get('error')}: {said.get('message')}"
    )
    return Refused(Reason.STEP_FAILED, error, holds=True, tried=tried)


def _out_of_turn(
    machine: Machine, run: Run | None, occurrence: Occurrence, memory: Memory, asked: Refused | Deferred
) -> Outcome:
    if isinstance(asked, Refused):
        running = run is not None and run.status == RUNNING
        return asked._replace(holds=asked.holds and running)
    if run is not None and run.has_ended and not _restarts(machine, occurrence):
        # Nothing will ever fill the gap: what comes before it is for the run that has ended, too.
        return _not_running(machine, run, occurrence, memory)
    return _may_defer(run, occurrence, asked)


def _remembering(memory: Memory, ignored: Ignored) -> Outcome:
    written = write_memory(memory)
    if len(written) > MEMORY_BYTES_MAX:
        return Refused(Reason.MEMORY_FULL, too_much(memory, len(written)), holds=False, policy=ignored.policy)
    return ignored._replace(memory=written)


def _restarts(machine: Machine, occurrence: Occurrence) -> bool:
    return machine.policies.of("closed", occurrence.envelope.type).decision == "restart"


def _offer(machine: Machine, run: Run, occurrence: Occurrence, memory: Memory) -> Outcome:
    """Have a run take an event whose turn it is; ``memory`` is what the run keeps if it does."""
    if run.status != RUNNING:
        return _not_running(machine, run, occurrence, memory)
    event, envelope = occurrence.event, occurrence.envelope
    if event is None:
        return Refused(Reason.INVALID, occurrence.error, holds=True)
    if not machine.flat or memory is not EMPTY or run.memory:
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


def _not_running(machine: Machine, run: Run, occurrence: Occurrence, memory: Memory) -> Outcome:
    if run.status == EXPECTED:
        return _start(machine, run, occurrence, memory)
    if occurrence.delayed is not None:
        return Ignored(Reason.CLOSED, memory=write_memory(memory))
    decided = machine.policies.of("closed", occurrence.envelope.type)
    if _restarts(machine, occurrence):
        # What was applied belongs to the key, what falls due later ended with the run.
        kept = Memory(marks=memory.marks, seen=memory.seen) if memory.marks or memory.seen else EMPTY
        return _start(machine, run, occurrence, kept)
    return _by_policy(run, occurrence, decided, Reason.CLOSED, f"the run ended in {' '.join(run.states)}")


def _not_accepted(machine: Machine, run: Run, occurrence: Occurrence, configuration: str) -> Outcome:
    if configuration not in machine.table:
        return _without_state(machine, configuration)
    return _unexpected(machine, run, occurrence, f"{configuration} has no transition for it")


def _move_in_chart(
    machine: Machine,
    run: Run,
    occurrence: Occurrence,
    event: Event,
    memory: Memory,
    acted: Acted | None = None,
) -> Outcome:
    if memory is EMPTY:
        memory = read_memory(run.memory)
    try:
        spot = machine.spots.spot_of(run.configuration)
    except KeyError:
        return _without_state(machine, run.configuration)
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
    return _unexpected(machine, run, occurrence, why, tried)


def _without_state(machine: Machine, configuration: str) -> Outcome:
    why = f"{machine.name} version {machine.version} has no state {configuration!r}"
    return Refused(Reason.DEFINITION_MISSING, why, holds=True)


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
            status = COMPLETED if configuration in machine.final else RUNNING
            if action is None:
                return _tuple(Moved, (False, configuration, status, None, (), None, ()))
            if context is None:
                context = read(machine, run.context)
            # Where there is a target, the source is left, and the target not entered yet.
            meta = _meta if target is None else _meta_between
            set_origin(event, (meta, machine, run, envelope, key, now))
            publications = act(action, action_name, context, event, run.key)
            written = write(machine, context, action_name, run.context)
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


def _start(machine: Machine, run: Run | None, occurrence: Occurrence, memory: Memory) -> Outcome:
    """Begin a run; ``run`` is what there is of its key: nothing, events that wait for it, or the last generation."""
    event_type = occurrence.envelope.type
    beginning = machine.beginnings.get(event_type)
    if beginning is None:
        decided = machine.policies.of("no_run", event_type)
        if decided.decision == "start":
            return _start_with_defaults(machine, run, occurrence, memory)
        why = f"no run has the key {occurrence.key!r}"
        if run is not None and run.has_ended:
            why = f"the run of the key {occurrence.key!r} has ended, and no other one has begun"
        return _by_policy(run, occurrence, decided, Reason.NO_RUN, why)
    event = occurrence.event
    if event is None:
        return Refused(Reason.INVALID, occurrence.error, holds=False)
    set_origin(event, (_meta, machine, run, occurrence.envelope, occurrence.key, occurrence.now))
    try:
        acted: Acted | None = None
        if machine.flat and memory is EMPTY:
            begun = _begin(machine, beginning, event, occurrence.key)
            if type(begun) is Moved:
                return begun
            assert isinstance(begun, Acted)
            acted = begun
        context = acted.context if acted else build(machine, beginning.build, beginning.build_name, event)
        macrostep = _at_the_start(machine, run, occurrence, memory, acted)
        name = beginning.action_name or beginning.build_name
        return macrostep.start(event, context, name, beginning.plan)
    except HandlerError as error:
        return Refused(error.reason, str(error), holds=False, raised=error.raised)


def _at_the_start(
    machine: Machine, run: Run | None, occurrence: Occurrence, memory: Memory, acted: Acted | None = None
) -> Macrostep:
    spot = Spot(1, (0,) * len(machine.microsteps.chart.history))
    anew = run is not None and run.has_ended
    envelope, key, now = occurrence.envelope, occurrence.key, occurrence.now
    return Macrostep(machine, run, envelope, key, now, spot, memory, anew=anew, acted=acted)


def _start_with_defaults(
    machine: Machine, run: Run | None, occurrence: Occurrence, memory: Memory
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
        return Refused(error.reason, str(error), holds=False, tried=macrostep.tried, raised=error.raised)
    if moved is not None:
        return moved
    why = "a run that begins has no transition for it"
    return _unexpected(machine, run, occurrence, why, macrostep.tried)


def _begin(machine: Machine, beginning: Beginning, event: Event, key: str) -> Moved | Acted:
    context = build(machine, beginning.build, beginning.build_name, event)
    publications: tuple[Publication, ...] = ()
    if beginning.action is not None:
        try:
            publications = act(beginning.action, beginning.action_name, context, event, key)
        except RaisesError as more:
            return Acted(context, more.performed)
    written = write(machine, context, beginning.action_name or beginning.build_name)
    status = COMPLETED if beginning.target in machine.final else RUNNING
    return Moved(True, beginning.target, status, written, publications)


def _unexpected(
    machine: Machine, run: Run | None, occurrence: Occurrence, why: str, tried: tuple[Tried, ...] = ()
) -> Outcome:
    states = run.states if run is not None and run.status == RUNNING else ()
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
    return _may_defer(run, occurrence, deferred)


def _waits_already(run: Run, occurrence: Occurrence) -> bool:
    """Whether the event came before and is deferred, so that it has its turn by itself, whatever policies say now."""
    return not occurrence.again and has_deferred(run, occurrence.digest)


def _may_defer(run: Run | None, occurrence: Occurrence, deferred: Deferred) -> Outcome:
    if occurrence.again or run is None:
        return deferred
    if len(run.deferred) >= DEFERRED_MAX:
        error = f"{deferred.why}; and {DEFERRED_MAX} deferred events wait for the run already"
        return Refused(Reason.DEFERRED_FULL, error, False, deferred.tried, deferred.policy)
    return deferred


def _meta(machine: Machine, run: Run | None, envelope: Envelope, key: str, now: datetime) -> Meta:
    chart = machine.microsteps.chart
    running = run is not None and run.status == RUNNING
    live = Live(chart, 1 << chart.numbers.get(run.configuration, 0) if run is not None and running else 0)
    generation, sequence = number_of(run, anew=run is not None and run.has_ended)
    address = Address(machine.namespace, machine.name, key, generation, sequence)
    return Meta(envelope, now, address, live.is_active, live.has_tag)


def _meta_between(machine: Machine, run: Run | None, envelope: Envelope, key: str, now: datetime) -> Meta:
    nothing = Live(machine.microsteps.chart, 0)
    return _meta(machine, run, envelope, key, now)._replace(active=nothing.is_active, tagged=nothing.has_tag)
