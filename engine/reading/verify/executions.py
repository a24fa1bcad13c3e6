"""The executions that a run waits for, held beside what its log says. Pure, and without user code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from engine.reading.catalog import Catalog
from engine.reading.verify.chains import named
from engine.reading.verify.report import Finding
from engine.steps.executions import open_executions
from statemachines.durations import told_time
from statemachines.memory import Execution, time_of
from statemachines.run import Run


class StoredExecution(NamedTuple):
    """An execution as its table has it."""

    sequence: int
    number: int
    step: str
    attempt: int
    again: datetime
    error: str
    of: str
    made: int
    stopping: bool
    since: int
    token: str
    is_found: bool
    """Whether it is found by its token."""


def check_executions(
    catalog: Catalog, pipeline: int, run: Run, stored: Sequence[StoredExecution]
) -> Iterator[Finding]:
    """What is wrong with the executions that are stored of a run; they are an index, made from its memory."""
    try:
        meant = open_executions(run.memory)
    except (ValueError, TypeError, AttributeError):  # what the memory should be, its log says
        return
    found = {(one.sequence, one.number): one for one in stored}
    for address in sorted(meant.keys() | found.keys()):
        told = _told(meant.get(address), found.get(address))
        if told:
            name = catalog.pipelines.get(pipeline, str(pipeline))
            where = f"In {named(name, run)}, the execution {address[0]}.{address[1]}"
            yield Finding(f"{where} {told}.", name, run.key, run.generation, run.sequence)


def _told(meant: Execution | None, found: StoredExecution | None) -> str:
    if meant is None:
        return "waits for its turn, and nothing in the run's log asks for it"
    if found is None:
        return f"of the step {meant.step} is asked for by the run's log, and waits nowhere for its turn"
    if (meant.step, meant.attempt, meant.error) != (found.step, found.attempt, found.error):
        return (
            f"is attempt {found.attempt} of {found.step} ({found.error!r:.80}) in its table, "
            f"and attempt {meant.attempt} of {meant.step} ({meant.error!r:.80}) by the run's log"
        )
    if (meant.of, meant.made, bool(meant.stopping)) != (found.of, found.made, found.stopping):
        return "does not say what it undoes, or that it is to be stopped, as the run's log does"
    if meant.since != found.since:
        return f"does not count {found.since} attempts in its table, and {meant.since} by the run's log"
    if meant.token != found.token or (found.token and not found.is_found):
        return (
            f"is completed by the token {meant.token!r} by the run's log, by {found.token!r} in its table, and is "
            f"{'' if found.is_found else 'not '}found by that"
        )
    if meant.again and not meant.stopping and time_of(meant.again) != found.again:
        return f"is to go on at {told_time(found.again)}, and by the run's log at {told_time(time_of(meant.again))}"
    return ""
