"""What a commit changes of the executions that runs wait for: made from what the runs remember before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from engine.routing import Route
from engine.store.values import AskedExecution, BegunExecution, Commit
from statemachines.bounds import Limit
from statemachines.memory import Execution, read_memory, time_of, write_memory
from statemachines.run import Run


class StepResult(NamedTuple):
    """What became of an attempt, as the event that the run takes."""

    begun: BegunExecution
    route: Route
    """As the session has it that takes it."""
    event_id: str
    event_type: str
    data: Mapping[str, Any]
    is_refused: bool = False
    """Whether it stands for a result that the store did not take."""

    @property
    def key(self) -> str:
        """Of the run."""
        return self.begun.key


NO_LIMITS: Mapping[str, Limit] = {}
OVER = -1
"""Instead of a time: an execution has failed for good, nothing takes that, and its run waits for a person."""


def note_executions(
    commit: Commit, pipeline: int, run: Run, before: bytes, limits: Mapping[str, Limit] = NO_LIMITS
) -> None:
    """Note what is asked for, to be tried again, or over, by the memory of a run as it is and as it was.

    ``limits`` are those of the steps that have one.
    """
    was, now = open_executions(before), open_executions(run.memory)
    for address in was:
        if address not in now:
            commit.executions_over.append((run.id, *address))
    for address, one in now.items():
        if was.get(address) != one:
            asked = asked_execution(pipeline, run, one, commit.at)
            if one.step in limits:
                asked = asked._replace(limited_by=limits[one.step].key_of(run.context))
            commit.executions_asked.append(asked)


def open_executions(memory: bytes) -> dict[tuple[int, int], Execution]:
    """Those that wait for an attempt, or have begun one, by the numbers of their row and within it."""
    executions = read_memory(memory).executions if memory else ()
    return {(one.sequence, one.number): one for one in executions if not one.is_given_up}


def asked_execution(pipeline: int, run: Run, one: Execution, at: datetime) -> AskedExecution:
    """As the store keeps it; ``at`` is when it may begin at once."""
    again = time_of(one.again) if one.again and not one.stopping else at
    named = run.key, run.id, one.sequence, one.number
    rest = one.of, one.made, bool(one.stopping), one.since
    return AskedExecution(pipeline, *named, one.step, one.attempt, again, one.error, *rest)


def given_up(memory: bytes, execution: Execution, *, unknown: bool) -> bytes:
    """The memory of a run whose execution has failed for good, and nothing has taken that.

    ``unknown``: what its last attempt did is not known, so that it may have to be undone.
    """
    found = read_memory(memory)
    left = tuple(_over(one, unknown=unknown) if one.id == execution.id else one for one in found.executions)
    return write_memory(found._replace(executions=left))


def _over(one: Execution, *, unknown: bool) -> Execution:
    return one._replace(again=OVER, unknown=int(unknown or one.unknown))
