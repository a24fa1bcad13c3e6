"""What becomes of a run by how an attempt at one of its steps ended, or by what an operator decides of one.

A result counts only for the execution that the run waits for. How a step ended is for the state that asked for it, and
for those around it; where that was left, it is noted, and where nothing takes that the step has failed, the run is
held, until somebody has the step begin anew, or the run go on without. No transition is asked about how a compensation
ended, nor about what became of a step that was stopped: that changes what the run owes, and once that is nothing, what
is undone goes on, the run or a state of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from statemachines.chart.macrostep import Macrostep
from statemachines.events import (
    STEP_FAILED,
    STEP_RETRIED,
    STEP_SKIPPED,
    STEP_STOPPED,
    STEP_TRIED,
    STEP_WAITS,
)
from statemachines.handlers import HandlerError
from statemachines.limits import LAST_ERROR_CHARACTERS_MAX
from statemachines.memory import Execution, Memory, write_memory
from statemachines.occurrence import Occurrence
from statemachines.offering import offer, step_failed, without_state
from statemachines.outcome import (
    Ignored,
    Outcome,
    Reason,
    Refused,
)
from statemachines.run import Run, Status
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

    from statemachines.machine import Machine

_RUNNING: Final = int(Status.RUNNING)
_tuple: Final = tuple.__new__


def end(machine: Machine, run: Run, occurrence: Occurrence, memory: Memory) -> Outcome:
    """What becomes of how an attempt at a step ended."""
    said, by = occurrence.data if isinstance(occurrence.data, dict) else {}, machine.compensations
    execution = memory.execution(str(said.get("execution")))
    if execution is None or run.status != _RUNNING:
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
        if said.get("stopped") is True:
            # That its engine was stopped says nothing of the step.
            again = again._replace(since=execution.since + 1)
        return Ignored(Reason.RETRYING, memory=write_memory(memory.instead(again)))
    if execution.of:
        return _undo(machine, run, occurrence, memory, execution)
    left = settle(memory, execution, how, run.sequence + 1, by)
    outcome = offer(machine, run, _tuple(Occurrence, (*occurrence[:-1], execution)), left)
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
    return step_failed(occurrence, execution, f"so that {step} ({execution.of}) is not undone")


def _go_on(machine: Machine, run: Run, occurrence: Occurrence, memory: Memory) -> Outcome:
    """Go on with undoing a run, or states of it."""
    try:
        spot = machine.spots.spot_of(run.configuration)
    except KeyError:
        return without_state(machine, run.configuration)
    macrostep = Macrostep(machine, run, occurrence.envelope, occurrence.key, occurrence.now, spot, memory)
    try:
        return macrostep.go_on()
    except HandlerError as error:
        return Refused(error.reason, str(error), holds=True, raised=error.raised)
