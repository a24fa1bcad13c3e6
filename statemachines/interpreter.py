"""The pure interpreter: ``step(machine, run, occurrence) -> outcome``.

No clock, no randomness, no ids made up, no logging, no await: whatever an outcome depends on is in the
arguments, so the engine, replay, tests and simulation agree by construction.

An event meets these questions in this order, and the first that has an answer decides:

1. seen before?            -> Duplicate
2. older than one applied? -> Stale
3. run held?               -> Waits
4. a gap before it?        -> Deferred
5. no run, run closed?     -> a start event starts one, by the first start whose condition holds; else the policy
6. valid?                  -> else Refused, and the run is held
7. accepted?               -> the state's own transitions, then those of the states around it, then the pipeline's, in
                              order; else Ignored, if it would undo what is being undone already; else the policy,
                              which by default defers
8. the action              -> Refused, and the run is held, if it raises or leaves nonsense

What comes from inside (a timer, an event that a run sent to itself) is asked the last three only, and where nothing
takes it, it is noted and gone. An event that was deferred is offered again by the same function. The order of the first
questions is here, the last four are ``offering``, and how steps ended is ``ending``.

User code is called in ``handlers`` only, and whatever it raises ends there. What it leaves in the context is
written to JSON and read back before it counts, so that a run goes on from equal data whether it stayed in
memory, was loaded from its row, or is replayed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from statemachines.departing import departed
from statemachines.ending import end
from statemachines.events import OUTCOMES, STEP_WAITS
from statemachines.limits import MEMORY_BYTES_MAX
from statemachines.memory import EMPTY, Delayed, Execution, Memory, read_memory, too_much, write_memory
from statemachines.occurrence import Occurrence
from statemachines.offering import may_defer, not_running, offer, restarts, start
from statemachines.outcome import (
    DUPLICATE,
    WAITS,
    Deferred,
    Duplicate,
    Ignored,
    Outcome,
    Reason,
    Refused,
    Stale,
)
from statemachines.run import Run, Status, has_deferred, has_seen
from statemachines.turns import in_turn

if TYPE_CHECKING:
    from statemachines.machine import Machine

_RUNNING: Final = int(Status.RUNNING)


def step(machine: Machine, run: Run | None, occurrence: Occurrence) -> Outcome:
    """What becomes of a run by an event; the run itself is left as it is."""
    if machine.asks_more or occurrence.delayed is not None:
        return _step_asking(machine, run, occurrence)
    if run is None:
        return start(machine, None, occurrence, EMPTY)
    recent, digest = run.recent, occurrence.digest
    if occurrence.seen or (recent.find(digest) >= 0 and has_seen(recent, digest)):
        return DUPLICATE
    if run.deferred and _waits_already(run, occurrence):
        return DUPLICATE
    if run.held:
        return WAITS
    # What a run remembers that has ended, or has not begun, is asked for by those machines alone that ask for more.
    memory = read_memory(run.memory) if run.memory and run.status == _RUNNING else EMPTY
    return offer(machine, run, occurrence, memory)


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
        return start(machine, None, occurrence, asked)
    outcome = offer(machine, run, occurrence, asked)
    if asked is not memory and type(outcome) is Ignored:
        # It had its turn, though it changed nothing else.
        return _remembering(memory, asked, outcome)
    return outcome


def _take_inner(machine: Machine, run: Run, occurrence: Occurrence, delayed: Delayed | Execution) -> Outcome:
    """What becomes of what the run itself has asked for."""
    memory = read_memory(run.memory)
    if occurrence.envelope.type.startswith(OUTCOMES) and delayed not in memory.delayed:
        return end(machine, run, occurrence, memory)
    memory = memory.without(delayed)
    if isinstance(delayed, Delayed) and not delayed.is_own and run.status == _RUNNING:
        return departed(run, delayed, write_memory(memory))
    return offer(machine, run, occurrence, memory)


def _out_of_turn(
    machine: Machine, run: Run | None, occurrence: Occurrence, memory: Memory, asked: Refused | Deferred
) -> Outcome:
    if isinstance(asked, Refused):
        running = run is not None and run.status == _RUNNING
        return asked._replace(holds=asked.holds and running)
    if run is not None and run.has_ended and not restarts(machine, occurrence):
        # Nothing will ever fill the gap: what comes before it is for the run that has ended, too.
        return not_running(machine, run, occurrence, memory)
    return may_defer(run, occurrence, asked)


def _remembering(before: Memory, memory: Memory, ignored: Ignored) -> Outcome:
    written = write_memory(memory)
    if len(written) > MEMORY_BYTES_MAX:
        error = too_much(before, memory, len(written), {})
        return Refused(Reason.MEMORY_FULL, error, holds=False, policy=ignored.policy)
    return ignored._replace(memory=written)


def _waits_already(run: Run, occurrence: Occurrence) -> bool:
    """Whether the event came before and is deferred, so that it has its turn by itself, whatever policies say now."""
    return not occurrence.again and has_deferred(run, occurrence.digest)
