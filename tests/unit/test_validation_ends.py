"""Mistakes with what becomes of steps: how they ended, who takes that, and what nobody takes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from statemachines import Done, Event, Failed, Mistake, Pipeline, Step, StepFailed
from statemachines.validation import find_mistakes
from tests.unit.mistaken import (
    Asked,
    Begun,
    Empty,
    Ended,
    Flow,
    build,
    right,
    running,
    state_of,
    the_mistake,
    work,
    yes,
)

SECOND = timedelta(seconds=1)


class RefusedError(Exception):
    pass


class RefusedAgainError(RefusedError):
    pass


SAME_NAME = type("RefusedError", (Exception,), {})


# What a transition takes of a step.


@pytest.mark.parametrize("event", ["done", "failed", "timed_out"])
def test_how_a_step_ended_is_taken_where_it_runs(event: str) -> None:
    flow, step = running()
    other = flow.state("other")
    other.on(getattr(step, event), to="done")
    flow.on(Asked, to=other)
    mistake = the_mistake(flow)
    assert mistake.message == (
        "'other' neither runs nor is around what runs the step 'work', so that this transition never fires"
    )
    assert mistake.cure == "Put it on 'open', or on a state around it"
    assert (mistake.state, mistake.place) == ("other", flow.moves[-3].place)


def test_it_is_taken_around_the_state_that_runs_it_and_not_inside_that() -> None:
    flow, step = running()
    outer = flow.state("outer")
    middle = outer.state("middle", initial=True, run=step)
    inner = middle.state("inner", initial=True)
    flow.on(Asked, to=outer)
    outer.on(step.done, to="done")
    middle.on(step.timed_out, to="done")
    outer.on(StepFailed, to="done")
    assert find_mistakes(flow) == []
    inner.on(step.done, to="done")
    assert "'inner' neither runs nor is around" in the_mistake(flow).message


def test_any_failure_is_taken_where_any_step_runs() -> None:
    flow, _ = running()
    other = flow.state("other")
    flow.on(Asked, to=other)
    other.on(StepFailed, to="done")
    mistake = the_mistake(flow)
    assert mistake.message.startswith("no state in which this transition is looked for runs a step")
    assert mistake.state == "other"


def test_a_step_that_no_state_runs_is_taken_nowhere() -> None:
    flow = right()
    step: Step[Any, Any] = flow.step()(work)
    flow.on(step.done, to="done")
    flow.on_failure(to="done")
    found = [one for one in find_mistakes(flow) if one.severity == "error"]
    assert found[0].message == "no state runs the step 'work', so that this transition never fires"
    assert found[0].cure == "Give it to a state with run="
    assert found[1].message.startswith("no state in which this transition is looked for runs a step")


@pytest.mark.parametrize("event", ["done", "failed", "timed_out"])
def test_what_another_pipeline_does_is_not_taken(event: str) -> None:
    flow, _ = running()
    other: Step[Any, Any] = right("other").step()(work)
    flow.on(getattr(other, event), to="done")
    mistake = the_mistake(flow)
    taken = getattr(other, event).event_type()
    assert mistake.message == f"the event {taken!r} is of no step of pipeline 'right'"


def test_a_subclass_of_a_failure_is_none() -> None:
    class Mine(StepFailed):
        pass

    flow, _ = running()
    flow.on(Mine, to="done")
    found = [one.message for one in find_mistakes(flow)]
    assert "the event 'failed.step.*' is of no step of pipeline 'right'" in found


def test_how_a_step_ended_starts_nothing_and_meets_no_policy() -> None:
    flow, step = running()
    flow.start(step.done, lambda _event: Empty())
    assert "comes from inside of a run, and cannot start one" in the_mistake(flow).message
    flow, step = running()
    flow.policy(step.done, unexpected="ignore")
    assert any(
        "comes from inside of a run: where nothing takes it" in one.message for one in find_mistakes(flow)
    )


@pytest.mark.parametrize("event_type", ["done.step.work", "failed.step.work", "tried.step.work"])
def test_classes_of_events_do_not_name_such_types(event_type: str) -> None:
    flow, _ = running()
    flow.on(Event.named(event_type), to="done")
    found = find_mistakes(flow)
    assert any("is one that only runs themselves raise" in one.message for one in found)


@pytest.mark.parametrize(
    ("errors", "message", "cure"),
    [
        ([5], "the step 'work' cannot fail with 5, which is no class of exceptions", "Name the class"),
        ([RefusedError()], "cannot fail with RefusedError(), which is no class", "without calling it"),
        ([Empty], "which is no class of exceptions", "Name the class that it raises"),
        (
            [RefusedError, SAME_NAME],
            "two things that are called 'RefusedError'",
            "Give one",
        ),
        ([type("timed_out", (Exception,), {})], "two things that are called 'timed_out'", "another name"),
    ],
)
def test_what_it_fails_with_is_an_exception_with_a_name_of_its_own(
    errors: list[Any], message: str, cure: str
) -> None:
    flow, step = running()
    for error in errors:
        state_of(flow, "open").on(step.failed_with(error), to="done", when=yes)
    mistake = next(one for one in find_mistakes(flow) if "never fires" not in one.message)
    assert message in mistake.message
    assert cure in mistake.cure
    assert mistake.place in [move.place for move in flow.moves]


# What comes first.


def test_a_failure_that_was_taken_before_never_comes() -> None:
    flow, step = running()
    state = state_of(flow, "open")
    state.on(step.failed, to="done")
    first = flow.moves[-2].place
    state.on(step.failed_with(RefusedError), to="done")
    mistake = the_mistake(flow)
    assert mistake.message == (
        "this transition on 'failed.step.work.RefusedError' in 'open' never fires: "
        f"the one at {first} comes first and takes 'failed.step.work.*', and has no guard"
    )


def test_so_do_exceptions_below_one_that_was_taken_before() -> None:
    flow, step = running()
    state = state_of(flow, "open")
    state.on(step.failed_with(RefusedError), to="done")
    state.on(step.failed_with(RefusedAgainError), to="done")
    assert "'failed.step.work.RefusedAgainError' in 'open' never fires" in the_mistake(flow).message


def test_what_comes_behind_or_has_a_guard_is_fine() -> None:
    flow, step = running()
    state = state_of(flow, "open")
    state.on(step.failed_with(RefusedAgainError), to="done")
    state.on(step.failed_with(RefusedError), to="done")
    state.on(step.timed_out, to="done", when=yes)
    state.on(step.failed, to="done")
    assert find_mistakes(flow) == []
    flow.on(step.failed, to="done", when=yes)
    # The only state that runs the step takes all of its failures before that.
    assert "'failed.step.work.*' in any state never fires" in the_mistake(flow).message


def test_states_that_run_the_same_step_are_no_hindrance_to_one_another() -> None:
    flow, step = running()
    outer = flow.state("outer", run=step)
    inner = outer.state("inner", initial=True, run=step)
    flow.on(Asked, to=outer)
    inner.on(step.done, to="done")
    outer.on(step.done, to="done")
    assert find_mistakes(flow) == []
    wide = flow.state("wide")
    flow.on(Begun, to=wide)
    for name in ("left", "right"):
        wide.region(name).state(f"{name}-in", initial=True, run=step)
    state_of(flow, "left-in").on(step.done, to="done")
    wide.on(step.done, to="done")
    assert find_mistakes(flow) == []


def test_a_state_that_is_left_at_once_waits_for_no_step() -> None:
    flow, step = running()
    hasty = flow.state("hasty", run=step)
    flow.on(Asked, to=hasty)
    hasty.always(to="done")
    hasty.on(step.done, to="done")
    assert any("waits for no event" in one.message for one in find_mistakes(flow))


# Failures that nothing takes.


def test_failures_that_nothing_takes_are_told() -> None:
    flow = right()
    step: Step[Any, Any] = flow.step()(work)
    state = state_of(flow, "open")
    state.run = step
    state.on(step.done, to="done")
    state.on(step.failed_with(RefusedError), to="done")
    state.on(step.timed_out, to="done")
    assert the_mistake(flow, "warning") == Mistake(
        "no transition takes all failures of the step 'work' in the state 'open': "
        "those that none takes hold the run until somebody decides",
        "Add one on work.failed, or .on_failure(to=...) of the pipeline",
        state.place,
        state="open",
        severity="warning",
    )


@pytest.mark.parametrize("where", ["state", "pipeline", "on_failure", "guarded", "any"])
def test_failures_that_something_takes_are_fine(where: str) -> None:
    flow = right()
    step: Step[Any, Any] = flow.step()(work)
    state = state_of(flow, "open")
    state.run = step
    takes: dict[str, Callable[[], None]] = {
        "state": lambda: state.on(step.failed, to="done"),
        "guarded": lambda: state.on(step.failed, to="done", when=yes),
        "any": lambda: state.on(StepFailed, to="done"),
        "pipeline": lambda: flow.on(step.failed, to="done"),
        "on_failure": lambda: flow.on_failure(to="done"),
    }
    takes[where]()
    assert find_mistakes(flow) == []


def test_done_of_states_and_of_steps_are_told_apart() -> None:
    flow, _ = running()
    flow.on(Done, to="done")
    assert the_mistake(flow).message == "the event 'Done' is of no state of pipeline 'right'"


# Steps that are done, and nobody takes it.


class Waiting:
    """``open`` runs a step whose end nothing takes, and takes nothing else; ``done`` is reached from ``before``."""

    def __init__(self) -> None:
        self.flow: Flow = Pipeline("waiting", Empty, topics=["things"])
        self.step: Step[Any, Any] = self.flow.step(work)
        before = self.flow.state("before", initial=True)
        before.on(Ended, to="done")
        before.on(Asked, to="outer")
        self.outer = self.flow.state("outer")
        self.open = self.outer.state("open", run=self.step, initial=True)
        self.done = self.flow.state("done", final=True)
        self.flow.start(Begun, build)
        self.flow.on_failure(to="done")

    def aside(self) -> Any:
        """A region beside that of ``open``, which ``outer`` has then, with a state in it."""
        self.outer.kind = "region"
        both = self.flow.state("both")
        self.outer.parent = both
        return both.region("aside").state("other", initial=True)


def test_a_step_whose_end_nothing_takes_is_warned_of() -> None:
    made = Waiting()
    mistake = the_mistake(made.flow, "warning")
    assert mistake.message == (
        "no transition takes the end of the step 'work' in the state 'open', and nothing else leads on from there: "
        "once it is done, the run stays"
    )
    assert mistake.cure == "Add one on work.done, or on what the run waits for then"
    assert (mistake.state, mistake.place) == ("open", made.open.place)


def test_that_such_a_run_never_ends_is_not_said_besides() -> None:
    made = Waiting()
    made.flow.moves[:] = [one for one in made.flow.moves if one.source is not None]
    made.open.on(made.step.failed, do=awaited_by_nobody)
    assert "takes the end of the step" in the_mistake(made.flow, "warning").message


class AnyEnd(Event, type="done.step.*"):
    pass


class AnyThing(Event, type="*"):
    pass


@pytest.mark.parametrize(
    "goes_on",
    [
        lambda made: made.open.on(made.step.done, to="done"),
        lambda made: made.open.on(made.step.done, do=awaited_by_nobody),
        lambda made: made.outer.on(made.step.done, to="done"),
        lambda made: made.flow.on(made.step.done, to="done"),
        lambda made: made.open.on(made.step.done, to="done", when=yes),
        lambda made: made.flow.on(AnyEnd, to="done"),
        lambda made: made.open.on(AnyThing, to="done"),
        lambda made: made.open.on(Ended, to="done"),
        lambda made: made.outer.on(Ended, to="done"),
        lambda made: made.flow.on(Ended, to="done"),
        lambda made: made.open.after(SECOND, to="done"),
        lambda made: made.flow.after(SECOND, to="done"),
        lambda made: made.open.always(to="done", when=yes),
        lambda made: made.open.on(Ended, to="nowhere"),
        lambda made: made.aside().on(Ended, to="done"),
        lambda made: made.open.state("in", initial=True).on(Ended, to="done"),
    ],
)
def test_where_it_is_taken_or_the_run_waits_for_something_else_it_is_not(
    goes_on: Callable[[Waiting], None],
) -> None:
    made = Waiting()
    goes_on(made)
    assert [one for one in find_mistakes(made.flow) if "takes the end" in one.message] == []


@pytest.mark.parametrize(
    "is_none",
    [
        lambda made: made.open.on(made.step.failed, to="done"),
        lambda made: made.open.on(made.step.timed_out, to="done"),
        lambda made: made.flow.on(AnyThing, do=awaited_by_nobody),
        lambda made: made.flow.on(Ended, to="done", compensate=True),
        lambda made: made.flow.on_cancel(to="done"),
        lambda made: made.flow.on(Failed, to="done"),
        lambda made: made.aside().on(Ended, do=awaited_by_nobody),
        lambda made: made.flow.state("elsewhere").on(Ended, to="done"),
        lambda made: made.outer.on(made.outer.done, to="done"),
        lambda made: made.open.after(SECOND, do=awaited_by_nobody),
    ],
)
def test_failures_ways_back_and_what_happens_elsewhere_do_not_lead_on(
    is_none: Callable[[Waiting], None],
) -> None:
    made = Waiting()
    is_none(made)
    assert [one.state for one in find_mistakes(made.flow) if "takes the end" in one.message] == ["open"]


def awaited_by_nobody(_context: Empty, _event: Event) -> None: ...
