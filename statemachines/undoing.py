"""What a run owes: which of its steps are to be undone if it is, and which of them comes next.

A step with a compensation is owed once it was done, and where it is not known what it did. That the run remembers the
execution comes before the step begins, so that nothing is done of which it does not know. Where the state of such a
step is left meanwhile, the run waits to hear what became of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from statemachines.events import STEP_DONE, STEP_FAILED, STEP_STOPPED
from statemachines.memory import Execution, Memory, Owed
from statemachines.step import TIMED_OUT, Compensation

NEVER, ENDED, FAILED, UNKNOWN = "never", "ended", "failed", "unknown"
"""What became of an execution: it was never begun, or not again; it was done; its attempts raised; nobody knows."""
HOWS = (NEVER, ENDED, FAILED, UNKNOWN)
By = Mapping[str, Compensation[Any, Any]]
"""The compensations, by the names of the steps that they undo."""


def how_ended(event_type: str, said: Mapping[str, Any], step: str) -> str:
    """What an event says of an execution: one of ``HOWS``.

    What an attempt did that was lost, or that took too long, nobody knows; where there was no time left for another one
    after it, it has raised all the same.
    """
    if event_type.startswith(STEP_DONE):
        return ENDED
    if event_type.startswith(STEP_STOPPED):
        how = said.get("how")
        return str(how) if how in HOWS else UNKNOWN
    cut_short = event_type == f"{STEP_FAILED}{step}.{TIMED_OUT}" and said.get("raised") is not True
    unseen = said.get("lost") is True or cut_short
    return UNKNOWN if unseen else FAILED


def settle(memory: Memory, execution: Execution, how: str, row: int, by: By) -> Memory:
    """The memory once it is known what became of an execution: without it, and with what is owed for it.

    ``row`` is the number of the log row that says so.
    """
    left = memory.without(execution)
    owed = _owed(execution, how, row, by)
    return left._replace(owed=(*left.owed, *owed)) if owed else left


def _owed(execution: Execution, how: str, row: int, by: By) -> tuple[Owed, ...]:
    """What is owed for it: once, or not at all."""
    compensation = by.get(execution.step)
    if compensation is None or (how == NEVER and execution.attempt == 1):
        return ()
    has_raised = how in (NEVER, FAILED) and not execution.unknown
    if has_raised and not compensation.on_error:
        return ()
    made = row if how == ENDED else 0
    return (Owed(execution.sequence, execution.number, execution.step, made),)


def leave(
    executions: Sequence[Execution], states: Collection[str], by: By
) -> tuple[list[Execution], list[Execution], tuple[Owed, ...]]:
    """What becomes of what goes on where these states are left.

    Returns:
        what the run still remembers: what it waits to hear of is among it; what is to be stopped; and what is owed for
        that at once, for it had failed for good.
    """
    kept: list[Execution] = []
    stopped: list[Execution] = []
    owed: tuple[Owed, ...] = ()
    for one in executions:
        if one.stopping or one.state not in states:
            kept.append(one)
            continue
        stopped.append(one)
        if one.is_given_up:
            owed += _owed(one, FAILED, 0, by)
        elif one.step in by:
            kept.append(one._replace(stopping=1))
    return kept, stopped, owed


def is_undone(memory: Memory, by: By) -> bool:
    """Whether a run all of whose states were left has nothing to undo, and none to hear of."""
    kept, _, owed = leave(memory.executions, {one.state for one in memory.executions}, by)
    return not (memory.owed or kept or owed)


def undone(memory: Memory, execution: Execution) -> Memory:
    """The memory once a compensation was done, or is not to be: neither it nor what it was to undo is in it."""
    owed = tuple(one for one in memory.owed if one.id != execution.of)
    return memory.without(execution)._replace(owed=owed)


def in_order(owed: Sequence[Owed]) -> list[Owed]:
    """How it is undone: first that of which nobody knows what it did, then what was done, each from the last on."""
    unknown, known = ([one for one in owed if bool(one.made) is made] for made in (False, True))
    return [*reversed(unknown), *reversed(known)]
