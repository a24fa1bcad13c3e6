"""What became of attempts of steps, as the events that tell their runs; and what steps are given."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from tenacity import RetryCallState

from connectors.executor import Ended, LostError
from engine.raised import FailedAttempts
from engine.routing import Route
from engine.steps.result import NOBODY, StepResult
from engine.store.values import BegunExecution
from statemachines.call import Beat, read_progress
from statemachines.durations import told_duration
from statemachines.events import STEP_TRIED
from statemachines.failing import describe
from statemachines.later import Later
from statemachines.machine import Machine
from statemachines.memory import Execution, microseconds_of
from statemachines.results import (
    ResultError,
    done_event,
    event_id,
    failed_event,
    idempotency_key,
    read_frozen,
    stopped_event,
    tried_event,
    waits_event,
)
from statemachines.step import Call, Compensation, Retry, Step
from statemachines.undoing import UNKNOWN

log = logging.getLogger("pointsman.engine")
_new = tuple.__new__

PAUSE_SECONDS_MAX = 30 * 24 * 3_600.0
"""So long at most an attempt waits for the one before it."""


class Outcomes:
    """Makes them, for the pipelines that are loaded."""

    def __init__(self, clock: Callable[[], datetime], failed: FailedAttempts | None = None) -> None:
        """``failed`` is told of attempts that failed; None: nobody is."""
        self._clock = clock
        self._failed_attempts = failed
        self._routes: dict[int, Route] = {}
        self._meanings: dict[tuple[int, str], tuple[Machine, Step[Any, Any]]] = {}
        """By definition and name."""

    def load(self, routes: Iterable[Route]) -> None:
        """Know these pipelines, and no others."""
        self._routes = {route.pipeline: route for route in routes}
        self._meanings = {
            (number, one.name): (machine, one)
            for route in self._routes.values()
            for number, machine in route.machines.items()
            for one in machine.pipeline.works
        }

    def meant(self, begun: BegunExecution) -> tuple[Machine, Step[Any, Any]]:
        """The definition and the step that an attempt is of."""
        return self._meanings[begun.definition, begun.step]

    def arguments(self, begun: BegunExecution, beat: Beat | None = None) -> tuple[Any, ...]:
        """What the step is given, or the compensation; ``beat`` hears its heartbeats.

        Raises what the validators of users raise.
        """
        machine, step = self.meant(begun)
        context = read_frozen(machine.context_class, begun.input)
        key = idempotency_key(machine, begun.key, begun.generation, _execution(begun))
        progress = read_progress(begun.progress)
        call = Call(key, begun.attempt, begun.key, begun.step, begun.error, progress=progress, beat=beat)
        if not isinstance(step, Compensation):
            return context, call
        sequence, _, number = begun.of.partition(".")
        undone = Execution(int(sequence), int(number), step.of.name, "")
        undone_key = idempotency_key(machine, begun.key, begun.generation, undone)
        made = None
        if begun.made is not None:
            made = step.of.read_result(orjson.loads(begun.made)["data"]["data"])
        return context, made, replace(call, undone=Call(undone_key, 0, begun.key, step.of.name))

    def success(self, begun: BegunExecution, result: Any, *, raises: bool = False) -> StepResult:
        """Of one that was done, or goes on outside, unless what it returned cannot be kept: then it has failed.

        Raises:
            ResultError: the same, where it ``raises``.
        """
        machine, step = self.meant(begun)
        execution, kind = _execution(begun), "done"
        try:
            if isinstance(result, Later):
                kind = "waits"
                event_type, data = waits_event(step, execution, result, self._clock())
            else:
                event_type, data = done_event(step, execution, begun.attempt, result)
        except ResultError as error:
            if raises:
                raise
            # What it returned by mistake it would return again.
            return self.failure(begun, Ended(error=error, final=True, lost=step.compensation is not None))
        known_as = event_id(machine, begun, execution, begun.attempt, kind)
        return self._result(begun, known_as, event_type, data)

    def failure(self, begun: BegunExecution, ended: Ended) -> StepResult:
        """Of one that failed: for good, or to be tried again when the step's strategy says."""
        found = self._failure(begun, ended)
        for_good = not found.event_type.startswith(STEP_TRIED)
        so = "it has failed for good" if for_good else "it is tried again"
        so += ", and this one does not count" if ended.stopped and not for_good else ""
        self.tell(begun, ended, so, for_good=for_good)
        return found

    def tell(self, begun: BegunExecution, ended: Ended, so: str, *, for_good: bool = False) -> None:
        """Have the log say that an attempt failed, and what follows.

        A failure for good that the pipeline names is no error of anybody's.
        """
        _, step = self.meant(begun)
        error, what = ended.error, "the compensation" if isinstance(step, Compensation) else "the step"
        if self._failed_attempts is None or error is None:
            return
        level = logging.ERROR if for_good else logging.WARNING
        if for_good and isinstance(error, tuple(step.declared)):
            level = logging.INFO
        how = (
            f"an attempt at {what} timed out ({error})" if ended.timed_out else f"an attempt at {what} raised"
        )
        if ended.lost:
            so_far = "was lost" if isinstance(error, LostError) else "failed, and nobody knows what it did"
            how = f"an attempt at {what} {so_far}"
        known = {"pipeline": self._routes[begun.pipeline].name, "run": begun.key}
        self._failed_attempts.tell(
            level, f"{how}; {so}", {**known, "step": begun.step, "attempt": begun.attempt}, error
        )

    def _failure(self, begun: BegunExecution, ended: Ended) -> StepResult:
        machine, step = self.meant(begun)
        execution, error, retry = _execution(begun), ended.error, step.retry
        assert error is not None, "it failed"
        number = begun.attempt - begun.since
        is_over = ended.final or number >= retry.attempts or isinstance(error, retry.unless)
        if is_over and not ended.stopped:
            event_type, data = failed_event(
                step,
                execution,
                error,
                timed_out=ended.timed_out,
                lost=ended.lost,
                attempts=begun.attempt,
                progress=begun.progress,
            )
            return self._failed(begun, event_type, data)
        again, over_at = self._clock() + _pause(step, number, error), _over_at(begun, step)
        event_type, data = tried_event(
            step,
            execution,
            error,
            timed_out=ended.timed_out,
            lost=ended.lost,
            stopped=ended.stopped,
            again=microseconds_of(again),
        )
        if over_at is not None and again >= over_at:
            # That there is no time for another one is known by now.
            return self._out_of_time(begun, ended, begun.attempt, f"{data['error']}: {data['message']}")
        known_as = event_id(machine, begun, execution, begun.attempt, "tried")
        return self._result(begun, known_as, event_type, data)

    def seconds_left(self, begun: BegunExecution) -> float | None:
        """What is left of the time that all attempts may take together; None: it is not limited."""
        over_at = _over_at(begun, self.meant(begun)[1])
        return None if over_at is None else (over_at - self._clock()).total_seconds()

    def is_untried(self, begun: BegunExecution) -> bool:
        """Whether no attempt is made of one that is begun, since there is only something to be told of it."""
        left = self.seconds_left(begun)
        return begun.stopping or bool(begun.token) or (left is not None and left <= 0)

    def out_of_time(self, begun: BegunExecution) -> StepResult:
        """Of one whose next attempt is not begun, since there is no time left for it.

        What the attempts before it did the run remembers.
        """
        return self._out_of_time(begun, Ended(), begun.attempt - 1, begun.error)

    def _out_of_time(self, begun: BegunExecution, ended: Ended, attempts: int, last: str) -> StepResult:
        _, step = self.meant(begun)
        assert step.bounds.within is not None, "its time is limited"
        said = (
            f"all attempts together have {told_duration(step.bounds.within)}, and there is no time left for another "
            f"one; the last one failed: {last}"
        )
        event_type, data = failed_event(
            step,
            _execution(begun),
            TimeoutError(said),
            timed_out=True,
            lost=ended.lost,
            raised=not (ended.timed_out or ended.lost),
            attempts=attempts,
            progress=begun.progress,
        )
        return self._failed(begun, event_type, data)

    def _failed(self, begun: BegunExecution, event_type: str, data: Mapping[str, Any]) -> StepResult:
        machine, _ = self.meant(begun)
        known_as = event_id(machine, begun, _execution(begun), begun.attempt, "failed")
        return self._result(begun, known_as, event_type, data)

    def stopped(self, begun: BegunExecution, how: str, result: Any = None) -> StepResult:
        """Of one whose state was left: ``how`` it ended, as the core says it, and what it returned."""
        machine, step = self.meant(begun)
        execution = _execution(begun)
        try:
            event_type, data = stopped_event(step, execution, how, result)
        except ResultError:
            # It was done, and what it returned cannot be kept.
            event_type, data = stopped_event(step, execution, UNKNOWN)
        known_as = event_id(machine, begun, execution, begun.attempt, "stopped")
        return self._result(begun, known_as, event_type, data)

    def too_late(self, begun: BegunExecution) -> StepResult:
        """Of one that went on outside, and was not completed in time."""
        left = self.seconds_left(begun)
        whose = "its Later gave" if left is None or left > 0 else "all of its attempts may take"
        error = TimeoutError(f"it was not completed within the time that {whose}")
        return self.failure(begun, Ended(error=error, timed_out=True))

    def _result(
        self, begun: BegunExecution, known_as: str, event_type: str, data: Mapping[str, Any]
    ) -> StepResult:
        route = self._routes[begun.pipeline]
        return _new(StepResult, (begun, route, known_as, event_type, data, False, NOBODY, False, False))


def _execution(begun: BegunExecution) -> Execution:
    return _new(Execution, (
        begun.sequence, begun.number, begun.step, "", begun.attempt, 0, "", begun.of, 0, 0, 0, 0, "", "", "",
    ))  # fmt: skip


def _over_at(begun: BegunExecution, step: Step[Any, Any]) -> datetime | None:
    """When the time is over that all attempts may take together."""
    within = step.bounds.within
    return None if within is None or begun.began is None else begun.began + within


def _pause(step: Step[Any, Any], attempt: int, error: BaseException) -> timedelta:
    """How long to wait behind the so manieth attempt, by the step's strategy, which may be a user's."""
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # none is asked
    state.attempt_number = attempt
    state.set_exception((type(error), error, error.__traceback__))
    try:
        return timedelta(seconds=min(max(0.0, float(step.retry.wait(state))), PAUSE_SECONDS_MAX))
    except BaseException as raised:  # noqa: BLE001 - whatever user code raises ends here
        log.warning(
            "the wait strategy of the step %s failed (%s); it waits as is usual",
            step.name,
            describe(raised, "it"),
        )
        return timedelta(seconds=float(Retry().wait(state)))
