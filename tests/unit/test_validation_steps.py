"""Mistakes with steps: each with what it is, its place, and its cure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, Field
from tenacity import wait_fixed

from statemachines import (
    Breaker,
    Call,
    Context,
    Done,
    Event,
    Failed,
    Limit,
    Mistake,
    Pipeline,
    Retry,
    Step,
    StepFailed,
    exponential,
)
from statemachines.limits import DELAY_DAYS_MAX
from statemachines.validation import find_mistakes
from tests.unit.mistaken import Asked, Begun, Empty, Ended, Flow, build, right, state_of, the_mistake, yes

if TYPE_CHECKING:
    from decimal import Decimal

SECOND = timedelta(seconds=1)


class RefusedError(Exception):
    pass


class RefusedAgainError(RefusedError):
    pass


SAME_NAME = type("RefusedError", (Exception,), {})


def work(_context: Empty, _call: Call) -> int:
    return 1


ODD: Any = 5


def running(function: Any = work, **settings: Any) -> tuple[Flow, Step[Any, Any]]:
    """``open`` runs a step, whose end is taken in whatever way."""
    flow = right()
    step: Step[Any, Any] = flow.step(**settings)(function)
    state_of(flow, "open").run = step
    flow.on(step.done, to="done")
    flow.on_failure(to="done")
    return flow, step


def test_a_step_without_mistakes_has_none() -> None:
    assert find_mistakes(running()[0]) == []
    settings: dict[str, Any] = {
        "timeout": timedelta(days=DELAY_DAYS_MAX),
        "heartbeat": SECOND,
        "limit": Limit(at_once=1, rate=0.5),
        "breaker": Breaker("payments", 1, SECOND, SECOND, (KeyError, OSError)),
        "within": timedelta(days=DELAY_DAYS_MAX),
        "at_once": 1,
        "retry": Retry(1, exponential(1, 2) + wait_fixed(1), (RefusedError, KeyError)),
    }
    assert find_mistakes(running(**settings)[0]) == []


@pytest.mark.parametrize(
    ("settings", "message", "cure"),
    [
        ({"timeout": 30}, "timeout=30 of the step 'work' is no time", "Write timeout=timedelta(seconds=30)"),
        ({"timeout": 0 * SECOND}, "is no time that an attempt may take", "timedelta(seconds=30)"),
        ({"timeout": -SECOND}, "is no time that an attempt may take", "timedelta(seconds=30)"),
        ({"timeout": timedelta.max}, "is no time that an attempt may take", "timedelta(seconds=30)"),
        ({"heartbeat": 30}, "heartbeat=30 of the step 'work' is no time", "heartbeat=timedelta(seconds=30)"),
        ({"heartbeat": 0 * SECOND}, "is no time that an attempt may be silent", "timedelta(seconds=30)"),
        ({"within": "1h"}, "within='1h' of the step 'work' is no time", "within=timedelta(seconds=30)"),
        ({"within": -SECOND}, "is no time that all attempts may take together", "timedelta(seconds=30)"),
        (
            {"within": timedelta.max},
            "is no time that all attempts may take together",
            "timedelta(seconds=30)",
        ),
        ({"limit": 5}, "limit=5 of the step 'work' is no limit", 'limit=Limit("tenant", at_once=2)'),
        ({"limit": Limit()}, "the limit of the step 'work' limits nothing", "Say at_once= or rate="),
        ({"limit": Limit(at_once=0)}, "at_once=0 of the limit of the step 'work'", "from 1 on"),
        ({"limit": Limit(rate=0)}, "rate=0 of the limit of the step 'work' is not how many", "between"),
        ({"limit": Limit(rate=-1.5)}, "rate=-1.5 of the limit of the step 'work'", "and 100,000"),
        ({"limit": Limit(rate=True)}, "rate=True of the limit of the step 'work'", "Write a number"),
        ({"limit": Limit(rate=float("nan"))}, "rate=nan of the limit of the step 'work'", "Write a number"),
        ({"limit": Limit(rate=2e5)}, "rate=200000.0 of the limit of the step 'work'", "Write a number"),
        ({"limit": Limit(ODD, at_once=1)}, "is by 5, which is no name of a field", "Name a field"),
        (
            {"limit": Limit("tenant", at_once=1)},
            "is by 'tenant', which is no field of Empty",
            "None are known",
        ),
        ({"limit": Limit("tenant.id", at_once=1)}, "is by 'tenant.id', which is no field", "None are known"),
        ({"breaker": "x"}, "breaker='x' of the step 'work' is no breaker", 'breaker=Breaker("payments")'),
        ({"breaker": Breaker(5)}, "the breaker of the step 'work' cannot be called 5", "printable text"),  # type: ignore[arg-type]
        ({"breaker": Breaker("")}, "the breaker of the step 'work' cannot be called ''", "printable text"),
        ({"breaker": Breaker("a\n")}, "cannot be called 'a\\n'", "printable text"),
        ({"breaker": Breaker("a" * 101)}, "the breaker of the step 'work' cannot be called", "100 letters"),
        ({"breaker": Breaker("a", 0)}, "failures=0 of the breaker 'a' of the step 'work'", "from 1 on"),
        ({"breaker": Breaker("a", within=5)}, "within=5 of the breaker 'a'", "within=timedelta"),  # type: ignore[arg-type]
        ({"breaker": Breaker("a", open_for=-SECOND)}, "is no time that it may be open", "open_for=timedelta"),
        ({"breaker": Breaker("a", on=5)}, "on=5 of the breaker 'a' of the step 'work'", "Name a class"),  # type: ignore[arg-type]
        ({"breaker": Breaker("a", on=(KeyError, "x"))}, "on='x' of the breaker 'a'", "Name a class"),  # type: ignore[arg-type]
        ({"at_once": 0}, "at_once=0 of the step 'work' is not how many", "a whole number from 1 on"),
        ({"at_once": True}, "at_once=True of the step 'work'", "a whole number from 1 on"),
        ({"at_once": 1.5}, "at_once=1.5 of the step 'work'", "a whole number from 1 on"),
        ({"retry": 5}, "retry=5 of the step 'work' does not say", "Write retry=Retry(attempts=5)"),
        ({"retry": Retry(attempts=0)}, "attempts=0 of the step 'work'", "the first attempt counts, too"),
        ({"retry": Retry(attempts=True)}, "attempts=True of the step 'work'", "a whole number from 1 on"),
        ({"retry": Retry(wait=5)}, "wait=5 of the step 'work' does not", "Write wait=exponential(1, 60)"),  # type: ignore[arg-type]
        ({"retry": Retry(wait=wait_fixed)}, "does not say how long is waited", "wait=exponential"),  # type: ignore[arg-type]
        ({"retry": Retry(unless=5)}, "unless=5 of the step 'work' is no class", "several in a tuple"),  # type: ignore[arg-type]
        ({"retry": Retry(unless=(KeyError, "x"))}, "unless='x' of the step 'work'", "Name a class"),  # type: ignore[arg-type]
        ({"retry": Retry(unless=KeyError())}, "unless=KeyError() of the step", "Name a class"),  # type: ignore[arg-type]
    ],
)
def test_how_it_is_tried_makes_sense(settings: dict[str, Any], message: str, cure: str) -> None:
    flow, step = running(**settings)
    mistake = the_mistake(flow)
    assert message in mistake.message
    assert cure in mistake.cure
    assert mistake.place == step.place


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heartbeat": SECOND, "timeout": SECOND}, "heartbeat=1 s of the step 'work' is never over before"),
        (
            {"within": SECOND, "timeout": 2 * SECOND},
            "within=1 s of the step 'work' is over before its timeout is",
        ),
    ],
)
def test_a_time_that_another_one_makes_useless_is_warned_of(settings: dict[str, Any], message: str) -> None:
    assert message in the_mistake(running(**settings)[0], "warning").message


def test_times_that_go_together_are_not_warned_of() -> None:
    assert not find_mistakes(running(heartbeat=SECOND, timeout=2 * SECOND, within=2 * SECOND)[0])


def test_a_limit_is_by_a_field_as_it_is_stored() -> None:
    class Order(Context):
        customer: dict[str, str] = Field(default_factory=dict)
        tenant: str = Field(default="", alias="tenantId")

    def charge(_order: Order, _call: Call) -> int:
        return 1

    for by, is_right in {"customer": True, "customer.id": True, "tenantId": True, "tenant": False}.items():
        flow: Pipeline[Order] = Pipeline("any", Order)
        flow.step(limit=Limit(by, at_once=1))(charge)
        wrong = [one for one in find_mistakes(flow) if "the limit of" in one.message]
        assert (wrong == []) == is_right, by


def test_steps_say_the_same_of_one_breaker() -> None:
    flow, _ = running(breaker=Breaker("payments", failures=3))

    def other(_context: Empty, _call: Call) -> int:
        return 1

    state_of(flow, "done").final = False
    state_of(flow, "done").run = flow.step(breaker=Breaker("payments", failures=4))(other)
    wrong = [one for one in find_mistakes(flow) if "payments" in one.message]
    assert [one.message for one in wrong] == [
        "'other' and 'work' say different things of the breaker 'payments'"
    ]
    flow.steps[1].bounds = flow.steps[0].bounds
    assert not [one for one in find_mistakes(flow) if "payments" in one.message]


def no_parameters() -> int:
    return 1


def only_context(_context: Empty) -> int:
    return 1


def three(_context: Empty, _call: Call, _more: int) -> int:
    return 1


def generator(_context: Empty, _call: Call) -> Iterator[int]:
    yield 1


def unknown(_context: Empty, _call: Call) -> Decimal:
    raise NotImplementedError


def silent(_context: Empty, _call: Call) -> None: ...


del silent.__annotations__["return"]


class Unstorable:
    pass


class Unfinished(BaseModel):
    other: Missing  # type: ignore[name-defined]  # noqa: F821 - the mistake


def unstorable(_context: Empty, _call: Call) -> Unstorable:
    return Unstorable()


def unfinished(_context: Empty, _call: Call) -> Unfinished:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "message", "cure"),
    [
        (5, "a step is a function, and not 5", "Write @flow.step() above a function"),
        (
            no_parameters,
            "no_parameters() -> 'int' cannot be called with (context, call)",
            "Let it take (context, call)",
        ),
        (only_context, "cannot be called with (context, call)", "Let it take (context, call)"),
        (three, "cannot be called with (context, call)", "Let it take (context, call)"),
        (generator, "the step 'generator' is a generator", "without yield"),
        (lambda _context, _call: 5, "the step '<lambda>' has no name", "Write a function with def"),
        (silent, "the step 'silent' does not say what it returns", "as in -> None"),
        (unknown, "could not be read back: NameError: name 'Decimal' is not defined", "outside of functions"),
        (
            unstorable,
            "could not be read back: PydanticSchemaGenerationError: Unable",
            "what JSON has words for",
        ),
        (unfinished, "could not be read back: PydanticU", "define it in the file"),
    ],
)
def test_a_step_is_a_function_that_says_what_it_returns(function: Any, message: str, cure: str) -> None:
    flow, step = running(function)
    found = find_mistakes(flow)
    assert message in found[0].message
    assert cure in found[0].cure
    assert {one.place for one in found} == {step.place}
    assert len(found) <= (2 if function is not silent else 1)


def test_functions_with_arguments_and_objects_are_as_good() -> None:
    class Working:
        def __call__(self, _context: Empty, _call: Call) -> int:
            return 1

    for function in (Working(), partial(three, _more=1)):
        assert find_mistakes(running(function)[0]) == []


def test_a_name_is_of_one_step() -> None:
    flow, step = running()
    other: Step[Any, Any] = flow.step()(work)
    found = find_mistakes(flow)
    assert [one.message for one in found] == [
        f"the step 'work' was already made at {step.place}",
        "no state runs the step 'work'",
    ]
    assert [one.severity for one in found] == ["error", "warning"]
    assert {one.place for one in found} == {other.place}


def test_a_name_is_not_too_long() -> None:
    def long(_context: Empty, _call: Call) -> int:
        return 1

    long.__name__ = "x" * 250
    flow, _ = running(long)
    assert "is 272 bytes long, of 255 allowed" in find_mistakes(flow)[0].message


def test_what_no_state_runs_is_told() -> None:
    flow = right()
    step: Step[Any, Any] = flow.step()(work)
    mistake = the_mistake(flow, "warning")
    assert mistake == Mistake(
        "no state runs the step 'work'",
        "Give it to a state with run=, or remove it",
        step.place,
        severity="warning",
    )


def of_another(_flow: Flow) -> Any:
    return right("other").step()(work)


@pytest.mark.parametrize(
    ("run", "message", "cure"),
    [
        (
            lambda _flow: work,
            "the state 'open' is to run <function work",
            "Write @flow.step() above its function",
        ),
        (
            of_another,
            "the state 'open' is to run 'work', which is a step of another",
            "Make it with .step of 'right'",
        ),
    ],
)
def test_a_state_runs_a_step_of_its_pipeline(run: Callable[[Flow], Any], message: str, cure: str) -> None:
    flow = right()
    state = state_of(flow, "open")
    state.run = run(flow)
    flow.on_failure(to="done") if isinstance(state.run, Step) else None
    mistake = the_mistake(flow)
    assert message in mistake.message
    assert cure in mistake.cure
    assert (mistake.state, mistake.place) == ("open", state.place)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("done", "the final state 'done' is to run 'work', where nothing goes on"),
        ("past", "the history 'past' is to run 'work', but is never active itself"),
    ],
)
def test_what_is_never_active_or_over_runs_nothing(name: str, message: str) -> None:
    flow, step = running()
    box = flow.state("box")
    box.state("in", initial=True).on(Ended, to="done")
    past = box.history("past")
    flow.on(Asked, to=past)
    state_of(flow, name).run = step
    mistake = the_mistake(flow)
    assert (mistake.message, mistake.state) == (message, name)


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
    ],
)
def test_failures_ways_back_and_what_happens_elsewhere_do_not_lead_on(
    is_none: Callable[[Waiting], None],
) -> None:
    made = Waiting()
    is_none(made)
    assert [one.state for one in find_mistakes(made.flow) if "takes the end" in one.message] == ["open"]


def awaited_by_nobody(_context: Empty, _event: Event) -> None: ...
