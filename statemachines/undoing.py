"""What a run owes: which of its steps are to be undone if it is, and which of them comes next.

A step with a compensation is owed once it was done, and where it is not known what it did. That the run remembers the
execution comes before the step begins, so that nothing is done of which it does not know. Where the state of such a
step is left meanwhile, the run waits to hear what became of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from statemachines.events import STEP_DONE, STEP_FAILED, STEP_STOPPED
from statemachines.memory import Execution, Memory, Owed
from statemachines.step import TIMED_OUT, Compensation

NEVER, ENDED, FAILED, UNKNOWN = "never", "ended", "failed", "unknown"
"""What became of an execution: it was never begun, or not again; it was done; its attempts raised; nobody knows."""
HOWS = (NEVER, ENDED, FAILED, UNKNOWN)
By = Mapping[str, Compensation[Any, Any]]
"""The compensations, by the names of the steps that they undo."""


class Left(NamedTuple):
    """What a run remembers once states were left."""

    memory: Memory
    stopped: tuple[Execution, ...]
    """What went on in them, and is to be stopped."""


def how_ended(event_type: str, said: Mapping[str, Any], step: str) -> str:
    """What an event says of an execution: one of ``HOWS``.

    What an attempt did that was lost, or that took too long, nobody knows.
    """
    if event_type.startswith(STEP_DONE):
        return ENDED
    if event_type.startswith(STEP_STOPPED):
        how = said.get("how")
        return str(how) if how in HOWS else UNKNOWN
    unseen = said.get("lost") is True or event_type == f"{STEP_FAILED}{step}.{TIMED_OUT}"
    return UNKNOWN if unseen else FAILED


def settle(memory: Memory, execution: Execution, how: str, row: int, by: By) -> Memory:
    """The memory once it is known what became of an execution: without it, and with what is owed for it.

    ``row`` is the number of the log row that says so.
    """
    left, made = memory.without(execution), _made(execution, how, row, by.get(execution.step))
    if made is None:
        return left
    return left._replace(owed=(*left.owed, Owed(execution.sequence, execution.number, execution.step, made)))


def _made(execution: Execution, how: str, row: int, by: Compensation[Any, Any] | None) -> int | None:
    """The number of the row with what it has returned, 0 where that is not known; None: there is nothing to undo."""
    if by is None or (how == NEVER and execution.attempt == 1):
        return None
    if how == ENDED:
        return row
    has_raised = how != UNKNOWN and not execution.unknown
    return None if has_raised and not by.on_error else 0


def leave(memory: Memory, states: Collection[str], row: int, by: By) -> Left:
    """The memory once these states were left: what goes on in them is dropped, or the run waits to hear of it."""
    stopped = tuple(one for one in memory.executions if one.state in states and not one.stopping)
    for one in stopped:
        if one.step not in by:
            memory = memory.without(one)
        elif one.again < 0:
            memory = settle(memory, one, FAILED, row, by)
        else:
            memory = memory.instead(one._replace(stopping=1))
    return Left(memory, stopped)


def is_undone(memory: Memory, by: By) -> bool:
    """Whether a run all of whose states were left has nothing to undo, and none to hear of."""
    if memory.owed:
        return False
    left = leave(memory, {one.state for one in memory.executions}, 0, by).memory
    return not left.owed and not left.executions


def undone(memory: Memory, execution: Execution) -> Memory:
    """The memory once a compensation was done: neither it nor what it has undone is in it."""
    owed = tuple(one for one in memory.owed if one.id != execution.of)
    return memory.without(execution)._replace(owed=owed)


def next_owed(memory: Memory) -> Owed | None:
    """What a run undoes next: first what is not known, then what was done last; None as long as anything goes on."""
    if memory.executions:
        return None
    return next(iter(in_order(memory)), None)


def in_order(memory: Memory) -> list[Owed]:
    """All that is owed, as it would be undone."""
    unknown, known = ([one for one in memory.owed if bool(one.made) is made] for made in (False, True))
    return [*reversed(unknown), *reversed(known)]
