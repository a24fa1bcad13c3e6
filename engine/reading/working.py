"""The steps of a run and what undoes them, as its rows tell it. Pure, and without user code.

What a run remembers after each row says which executions it waits for, and what it owes; the events of the rows say
how attempts ended. So all of this comes from the log, but for one thing: whether an attempt goes on at this moment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from engine.log import HOLDS, Kind, LogRow
from engine.reading.due import memory_of
from engine.reading.heard import (
    DONE,
    NOT_BEGUN,
    SKIPPED,
    Heard,
    Named,
    heard_in,
    key_of,
    moment_of,
)
from engine.reading.rows import Folded
from engine.reading.values import effects_of, shown_time
from statemachines.events import Address
from statemachines.memory import Execution, Memory

WAITING, GOING, FAILED, STOPPED, LATER = "waiting", "going", "failed", "stopped", "later"
NONE, UNKNOWN, OWED, UNDONE, SETTLED = "none", "unknown", "owed", "undone", "settled"
LEFT = "left"
"""How an execution ended of which nobody asks any more: its state was left."""
Going = Collection[tuple[int, int]]
"""Executions of which an attempt goes on, by the numbers of their row and within it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A row of the log."""

    sequence: int
    at: datetime

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {"sequence": self.sequence, "at": shown_time(self.at)}


@dataclass(frozen=True, slots=True)
class CompensationView:
    """What undoes a step, and how far it has come."""

    name: str | None
    """None: the definition does not say it."""
    status: str
    """none, unknown (the step has not ended, and is owed if the run is undone), owed, waiting, going, later, undone,
    failed, skipped or settled."""
    execution: str | None
    """None: it has not been asked for."""
    idempotency_key: str | None
    asked: Moment | None
    attempts: int
    again: datetime | None
    error: str | None
    ended: Moment | None
    by: str | None = None
    """The operator who has said that it ended so; None: none did."""
    token: str | None = None
    """What its attempt is completed by, which goes on outside."""
    until: datetime | None = None
    waits_for: str | None = None
    """As of a step."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "name": self.name,
            "status": self.status,
            "execution": self.execution,
            "idempotency_key": self.idempotency_key,
            "asked": None if self.asked is None else self.asked.as_json(),
            "attempts": self.attempts,
            "again": shown_time(self.again),
            "error": self.error,
            "ended": None if self.ended is None else self.ended.as_json(),
            "by": self.by,
            "token": self.token,
            "until": shown_time(self.until),
            "waits_for": self.waits_for,
        }


@dataclass(frozen=True, slots=True)
class StepView:
    """A step that a run has asked for."""

    of: Named
    state: str
    """The state that it ends with."""
    asked: Moment
    attempts: int
    """How many are known to have begun."""
    status: str
    """waiting, going, later, done, failed, skipped or stopped."""
    outcome: str | None
    """How its last attempt ended (``engine.reading.heard``), or left; None: it has not ended."""
    ended: Moment | None
    stopping: bool
    """Whether its state was left, and the run waits to hear what became of it."""
    behind: int | None
    """The row since which its result waits behind what holds the run."""
    again: datetime | None
    error: str | None
    """How the last attempt that failed did."""
    result: Any
    compensation: CompensationView | None
    by: str | None = None
    """The operator who has said that it ended so; None: none did."""
    token: str | None = None
    """What its attempt is completed by, which goes on outside."""
    until: datetime | None = None
    """How long that is waited for; None: as long as its state is active."""
    waits_for: str | None = None
    """Why its next attempt has not begun, as far as that is known: a breaker, or a limit for all engines."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            **self.of.as_json(),
            "state": self.state,
            "asked": self.asked.as_json(),
            "attempts": self.attempts,
            "status": self.status,
            "outcome": self.outcome,
            "ended": None if self.ended is None else self.ended.as_json(),
            "stopping": self.stopping,
            "behind": self.behind,
            "again": shown_time(self.again),
            "error": self.error,
            "result": self.result,
            "by": self.by,
            "compensation": None if self.compensation is None else self.compensation.as_json(),
            "token": self.token,
            "until": shown_time(self.until),
            "waits_for": self.waits_for,
        }


@dataclass(slots=True)
class _Course:
    """One execution, from the row that asked for it on."""

    execution: Execution
    """As the run remembered it last."""
    asked: Moment
    stopped: Moment | None = None
    """The row that left its state."""
    heard: Heard | None = None
    """How its last attempt ended, for good."""
    ended: Moment | None = None
    is_gone: bool = False
    """Whether the run does not wait for it any more."""
    behind: int | None = None
    waits: Heard | None = None
    """What waits behind the hold of the run."""

    @property
    def outcome(self) -> str | None:
        if self.heard is not None:
            return self.heard.outcome
        return LEFT if self.is_gone else None

    @property
    def by(self) -> str | None:
        return None if self.heard is None else self.heard.by

    @property
    def is_over(self) -> bool:
        return self.heard is not None or self.is_gone

    @property
    def error(self) -> str | None:
        if self.heard is not None and self.heard.error is not None:
            return self.heard.error
        return self.execution.error or None

    def is_going(self, going: Going) -> bool:
        place = self.execution.sequence, self.execution.number
        return not self.is_over and self.behind is None and place in going

    def attempts(self, going: Going) -> int:
        """How many are known to have begun."""
        before = self.execution.attempt - 1
        if self.is_going(going) or self.execution.token:
            return before + 1
        heard = self.heard or self.waits
        if heard is None or heard.outcome == NOT_BEGUN:
            return before
        return max(before, heard.attempt)

    @property
    def is_outside(self) -> bool:
        """Whether it goes on there."""
        return bool(self.execution.token) and not self.is_over and self.behind is None

    @property
    def may_have_been_done(self) -> bool:
        """Whether the run waits for it, and would owe it at once if it were undone now."""
        return not self.is_gone and bool(self.execution.unknown or self.execution.token)

    @property
    def outside(self) -> tuple[str | None, datetime | None]:
        """By what it is completed, and how long that is waited for."""
        return (self.execution.token, moment_of(self.execution.again)) if self.is_outside else (None, None)

    def again(self, going: Going) -> datetime | None:
        is_next = not (
            self.is_over or self.is_going(going) or self.stopped or self.behind or self.execution.token
        )
        return moment_of(self.execution.again) if is_next else None


@dataclass(slots=True)
class Working:
    """The steps of one run, as its rows come."""

    run: Address
    """Of any move of it."""
    compensations: Mapping[str, str] = field(default_factory=dict)
    """By step, what undoes it, as far as the definition of the run is known."""
    _courses: dict[str, _Course] = field(default_factory=dict)
    _open: dict[str, _Course] = field(default_factory=dict)
    """Those of them that the run waits for."""
    _undoing: dict[str, _Course] = field(default_factory=dict)
    """Compensations, by the executions that they undo."""
    _settled: dict[str, Moment] = field(default_factory=dict)
    """By the keys of executions, the rows that settled them."""
    _memory: Memory = field(default_factory=Memory)

    def take(self, folded: Folded) -> Heard | None:
        """Go on by a row; returns what it says of a step."""
        before, row, after = folded
        heard = heard_in(row, b"" if before is None else before.memory, self.run)
        if b'"settle"' in row.effects:
            moment = Moment(row.sequence, row.at)
            self._settled |= {str(one["id"]): moment for one in effects_of(row.effects) if "settle" in one}
        if heard is not None:
            self._hear(row, heard)
        if row.memory:
            self._memory = memory_of(after.memory)
            self._remember(Moment(row.sequence, row.at))
        if heard is not None:
            self._end(row, heard)
        return heard

    def steps(self, going: Going = ()) -> list[StepView]:
        """All of them, in the order in which they were asked for."""
        return [self._step(one, going) for one in self._courses.values() if not one.execution.of]

    def _hear(self, row: LogRow, heard: Heard) -> None:
        """Note that a result waits behind a hold, or does no more."""
        course = self._courses.get(heard.of.execution)
        if course is not None:
            waits = row.kind == Kind.WAITED
            course.behind, course.waits = (row.sequence, heard) if waits else (None, None)

    def _remember(self, moment: Moment) -> None:
        """Note what is asked for, changed or waited for no more by what the run remembers now."""
        now = {one.id: one for one in self._memory.executions}
        for id_, one in now.items():
            course = self._open.get(id_)
            if course is None:
                course = self._open[id_] = self._courses[id_] = _Course(one, moment)
                if one.of:
                    self._undoing[one.of] = course
            if course.execution.is_given_up and not one.is_given_up:
                # It begins anew.
                course.heard = course.ended = None
            course.execution = one
            if one.stopping and course.stopped is None:
                course.stopped = moment
        for id_ in self._open.keys() - now.keys():
            course = self._open.pop(id_)
            course.is_gone = True
            course.ended = course.ended or moment

    def _end(self, row: LogRow, heard: Heard) -> None:
        """Note how an execution has ended, if it has by this row."""
        course = self._courses.get(heard.of.execution)
        if course is None or row.kind == Kind.WAITED:
            return
        given_up = row.kind in HOLDS and self._memory.execution(heard.of.execution) is not None
        if given_up or (row.memory and course.is_gone):
            course.heard, course.ended = heard, Moment(row.sequence, row.at)

    def _step(self, course: _Course, going: Going) -> StepView:
        execution, heard = course.execution, course.heard
        of = Named(execution.step, execution.id, key_of(self.run, execution.id))
        return StepView(
            of,
            execution.state,
            course.asked,
            course.attempts(going),
            _status(course, going),
            course.outcome,
            course.ended,
            course.stopped is not None and not course.is_over,
            course.behind,
            course.again(going),
            course.error,
            None if heard is None else heard.result,
            self._compensation(of, going),
            course.by,
            *course.outside,
        )

    def _compensation(self, step: Named, going: Going) -> CompensationView | None:
        course = self._undoing.get(step.execution)
        owed = next((one for one in self._memory.owed if one.id == step.execution), None)
        # The run may have been mapped since, so that the step is called otherwise.
        name = self.compensations.get(step.name if owed is None else owed.step)
        if course is None:
            settled = self._settled.get(step.idempotency_key)
            if name is None and owed is None and settled is None:
                return None
            status = NONE if settled is None else SETTLED
            if owed is not None:
                status = OWED
            elif self._courses[step.execution].may_have_been_done:
                status = UNKNOWN
            return CompensationView(name, status, None, None, None, 0, None, None, settled)
        execution = course.execution
        return CompensationView(
            execution.step,
            _undoing_status(course, going),
            execution.id,
            key_of(self.run, execution.id),
            course.asked,
            course.attempts(going),
            course.again(going),
            course.error,
            course.ended,
            course.by,
            *course.outside,
        )


def _status(course: _Course, going: Going) -> str:
    if not course.is_over:
        return _how_far(course, going)
    if course.heard is None or course.stopped is not None or course.heard.stopped:
        return STOPPED
    return course.heard.outcome if course.heard.outcome in (DONE, SKIPPED) else FAILED


def _undoing_status(course: _Course, going: Going) -> str:
    if not course.is_over:
        return _how_far(course, going)
    outcome = course.heard.outcome if course.heard is not None and course.is_gone else None
    return {DONE: UNDONE, SKIPPED: SKIPPED}.get(outcome or "", FAILED)


def _how_far(course: _Course, going: Going) -> str:
    if course.is_outside:
        return LATER
    return GOING if course.is_going(going) else WAITING
