"""The part of the test kit that is about steps: how they end is said by the test, and nothing is done.

    order = given(flow, OrderPlaced(...)).then_runs(charge)
    order.step_failed(charge, CardRefused("no")).then(state="refused").then_runs_nothing()

    order.step_done(charge, Charge(id="c-1")).when(OrderCancelled(...)).then_owes(charge).then_runs(refund)
    order.undone(refund).then(state="cancelled")

What a step itself does is tested by calling it: it is a function, and ``order.call_of(charge)`` is what it is called
with. An outcome is final here, so that nothing is tried again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, Self, TypeVar

import orjson

from statemachines.call import Call
from statemachines.definition import State
from statemachines.effects import Asked
from statemachines.events import Envelope
from statemachines.handlers import validated
from statemachines.interpreter import step as take
from statemachines.later import Later, OutsideError
from statemachines.machine import Machine
from statemachines.memory import Execution, read_memory
from statemachines.misuse import compensation_given, raised, step_given
from statemachines.occurrence import Occurrence
from statemachines.outcome import Outcome
from statemachines.results import (
    ResultError,
    done_event,
    event_id,
    failed_event,
    idempotency_key,
    stopped_event,
    waits_event,
)
from statemachines.run import Run
from statemachines.stated import as_stated
from statemachines.step import Compensation, Step
from statemachines.suggest import listed
from statemachines.undoing import HOWS, in_order

R = TypeVar("R")


class _Ending(Protocol):
    """Type and data of the event that says how an execution ended."""

    def __call__(self, execution: Execution) -> tuple[str, dict[str, Any]]: ...


class StepCase:
    """What a case has for steps."""

    machine: Machine
    run: Run | None
    now: datetime
    outcome: Outcome | None
    followed: list[tuple[str, Outcome]]

    def step_done(self, step: Step[Any, R], result: R, *, state: State[Any] | str | None = None) -> Self:
        """A step that the run has asked for returns this.

        Args:
            step: one that goes on.
            result: what it returns; AssertionError if it is not what the step says, or cannot be stored.
            state: the one that runs it, where several do.
        """
        try:
            return self._end(step, state, "done", partial(done_event, step, attempt=1, data=result))
        except ResultError as error:
            raise AssertionError(str(error)) from None

    def step_failed(
        self,
        step: Step[Any, Any],
        error: BaseException | type[BaseException] | str,
        *,
        attempts: int = 1,
        state: State[Any] | str | None = None,
    ) -> Self:
        """A step that the run has asked for raises this, and is not tried again.

        Of a class of exceptions one is made, as ``raise`` does; text says why it failed without any.
        """
        failing = partial(failed_event, step, error=raised(error), attempts=attempts)
        return self._end(step, state, "failed", failing)

    def step_timed_out(
        self, step: Step[Any, Any], *, attempts: int = 1, state: State[Any] | str | None = None
    ) -> Self:
        """A step that the run has asked for takes longer than it may, and is not tried again."""
        step_given(step)
        error = f"it took longer than {step.timeout}" if step.timeout else "it took too long"
        ending = partial(failed_event, step, error=error, timed_out=True, attempts=attempts)
        return self._end(step, state, "failed", ending)

    def step_later(
        self,
        step: Step[Any, Any],
        token: str = "token",  # noqa: S107 - it opens nothing
        *,
        within: timedelta | None = None,
        state: State[Any] | str | None = None,
    ) -> Self:
        """A step that the run has asked for returns ``Later``, and goes on outside.

        It ends as any: what it is completed with is said by ``step_done``, and by ``step_failed`` that it failed. The
        time of ``within`` does not end it here, however much passes (``later``): an engine would have the step tried
        again then, or fail for good, which is ``step_timed_out``.
        """
        try:
            ending = partial(waits_event, step, later=Later(token, within), now=self.now)
            return self._end(step, state, "waits", ending)
        except ResultError as error:
            raise AssertionError(str(error)) from None

    def step_stopped(
        self,
        step: Step[Any, R],
        how: str,
        result: R | None = None,
        *,
        state: State[Any] | str | None = None,
    ) -> Self:
        """The run hears what became of a step with a compensation whose state was left.

        Args:
            step: one that is stopping.
            how: ``never``: it was not begun; ``ended``: it was done all the same; ``failed``: it raised; or
                ``unknown``.
            result: what it returned, where it has ended.
            state: the one that ran it, where several did.
        """
        assert how in HOWS, f"a step is stopped as {listed(HOWS)}, and not as {how!r}"
        ending = partial(stopped_event, step, how=how, data=result)
        try:
            return self._end(step, state, "stopped", ending, among=self.stopping)
        except ResultError as error:
            raise AssertionError(str(error)) from None

    def undone(self, compensation: Compensation[Any, Any]) -> Self:
        """A compensation that the run has asked for is done; the next one is asked for, or the run goes on.

        Where it undoes several at once, this is of the one that was asked for first.
        """
        ending = partial(done_event, compensation_given(compensation), attempt=1, data=None)
        return self._end(compensation, None, "done", ending)

    def undoing_failed(
        self,
        compensation: Compensation[Any, Any],
        error: BaseException | type[BaseException] | str,
        *,
        attempts: int = 1,
    ) -> Self:
        """A compensation that the run has asked for raises this, and is not tried again: the run is held."""
        compensation_given(compensation)
        ending = partial(failed_event, compensation, error=raised(error), attempts=attempts)
        return self._end(compensation, None, "failed", ending)

    def call_of(
        self,
        step: Step[Any, Any],
        *,
        attempt: int = 1,
        last_error: str = "",
        progress: Any = None,
        state: State[Any] | str | None = None,
    ) -> Call:
        """What a step, or a compensation, is called with that goes on now: with the keys that the run gives it.

            await refund(order.context, None, order.call_of(refund))

        Args:
            step: one that goes on.
            attempt: which one it is.
            last_error: how the one before it failed, as in ``Class: message``.
            progress: what that has said of how far it had come.
            state: the one that runs it, where several do.
        """
        execution = self._execution(step, state, self.executions)
        assert self.run is not None, "a step was asked for by a run"
        asked = self.machine, self.run.key, self.run.generation
        key = idempotency_key(*asked, execution)
        call = Call(key, attempt, self.run.key, step.name, last_error, progress=progress)
        if not isinstance(step, Compensation):
            return call
        sequence, _, number = execution.of.partition(".")
        undone = Execution(int(sequence), int(number), step.of.name, "")
        return replace(call, undone=Call(idempotency_key(*asked, undone), 0, self.run.key, step.of.name))

    def then_owes(self, *steps: Step[Any, Any]) -> Self:
        """These steps are to be undone if the run is, and no others, in this order; one that was done often, as often.

        While the run is undone, the first of them is what the compensation undoes that goes on.
        """
        stated = self.machine.microsteps.chart.undone_as_stated.get("", {})
        owed = [] if self.run is None else as_stated(in_order(read_memory(self.run.memory).owed), stated)
        found, wanted = [one.step for one in owed], [step_given(one).name for one in steps]
        assert found == wanted, f"what the run has to undo is {_said(found)}, not {_said(wanted)}"
        return self

    def then_runs(self, *steps: Step[Any, Any]) -> Self:
        """These steps and compensations go on now, and no others; one that several states run, as often."""
        wanted = sorted(step_given(one).name for one in steps)
        found = sorted(one.step for one in self.executions)
        assert found == wanted, f"the run does {_said(found)}, not {_said(wanted)}"
        return self

    def then_runs_nothing(self) -> Self:
        """No step goes on."""
        return self.then_runs()

    @property
    def executions(self) -> tuple[Execution, ...]:
        """The steps and compensations that go on, in the order in which they were asked for."""
        return tuple(one for one in self._all_executions() if not one.stopping)

    @property
    def stopping(self) -> tuple[Execution, ...]:
        """The steps whose states were left, and of which the run waits to hear what became of them."""
        return tuple(one for one in self._all_executions() if one.stopping)

    def _all_executions(self) -> tuple[Execution, ...]:
        return () if self.run is None else read_memory(self.run.memory).executions

    def _end(
        self,
        step: Step[Any, Any],
        state: State[Any] | str | None,
        kind: str,
        ending: _Ending,
        *,
        among: tuple[Execution, ...] | None = None,
    ) -> Self:
        execution = self._execution(step, state, self.executions if among is None else among)
        self._forget()
        self.outcome = self._take_end(execution, kind, ending)[1]
        return self

    def _complete(self, asked: Iterable[Asked]) -> None:
        """What actions say of steps by their tokens; what the run does not wait for is void."""
        steps = {one.name: one for one in self.machine.pipeline.works}
        for one in asked:
            execution = next((found for found in self.executions if found.token == one.id), None)
            step, said = steps[one.type], orjson.loads(one.data)
            if execution is None:
                continue
            if one.what == "fail":
                failing = partial(failed_event, step, error=OutsideError(said), attempts=execution.attempt)
                self.followed.append(self._take_end(execution, "failed", failing))
            else:
                made = step.read_result(said)
                doing = partial(done_event, step, attempt=execution.attempt, data=made)
                self.followed.append(self._take_end(execution, "done", doing))

    def _take_end(self, execution: Execution, kind: str, ending: _Ending) -> tuple[str, Outcome]:
        """The run takes the event that tells how an execution ended; its type, and what became of it."""
        assert self.run is not None, "a step was asked for by a run"
        event_type, data = ending(execution=execution)
        source = f"/pointsman/{self.machine.namespace}/{self.machine.name}"
        made = event_id(self.machine, self.run, execution, execution.attempt, kind)
        envelope = Envelope(made, source, event_type, self.run.key, self.now)

        def occurrence() -> Occurrence:
            event, error = validated(self.machine, event_type, copy.deepcopy(data))
            key = envelope.key or ""
            return Occurrence(envelope, key, b"", self.now, event, error, data=data, delayed=execution)

        first, second = (take(self.machine, self.run, occurrence()) for _ in range(2))
        self._compare_outcomes(event_type, first, second)
        self._settle(first, occurrence())
        return event_type, first

    def _execution(
        self, step: Step[Any, Any], state: State[Any] | str | None, among: tuple[Execution, ...]
    ) -> Execution:
        step_given(step)
        found = [one for one in among if one.step == step.name]
        assert found, f"the run does not do {step.name!r}, but {_said(one.step for one in among)}"
        named = [one for one in found if state is None or one.state == str(state)]
        states = listed(one.state for one in found)
        assert named, f"{step.name!r} is not done for {str(state)!r}, but for {states}"
        if isinstance(step, Compensation):
            return named[0]
        assert len(named) == 1, f"{step.name!r} is done for {states}: name one of them with state="
        return named[0]

    def _forget(self) -> None:
        raise NotImplementedError

    def _compare_outcomes(self, event_type: str, first: Outcome, second: Outcome) -> None:
        raise NotImplementedError

    def _settle(self, outcome: Outcome, occurrence: Occurrence) -> None:
        raise NotImplementedError


def _said(steps: Iterable[str]) -> str:
    return listed(steps) or "no step"
