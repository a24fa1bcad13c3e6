"""Mistakes with steps: each with what it is, its place, and its cure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, Field
from tenacity import wait_fixed

from statemachines import Breaker, Call, Context, Limit, Mistake, Pipeline, Retry, Step, exponential
from statemachines.limits import DELAY_DAYS_MAX
from statemachines.validation import find_mistakes
from tests.unit.mistaken import Asked, Empty, Ended, Flow, right, running, state_of, the_mistake, work

if TYPE_CHECKING:
    from decimal import Decimal

SECOND = timedelta(seconds=1)
ODD: Any = 5


def test_a_step_without_mistakes_has_none() -> None:
    assert find_mistakes(running()[0]) == []
    settings: dict[str, Any] = {
        "timeout": timedelta(days=DELAY_DAYS_MAX),
        "heartbeat": SECOND,
        "limit": Limit(at_once=1, rate=0.5),
        "breaker": Breaker("payments", 1, SECOND, SECOND, (KeyError, OSError)),
        "within": timedelta(days=DELAY_DAYS_MAX),
        "at_once": 1,
        "retry": Retry(1, exponential(1, 2) + wait_fixed(1), (OSError, KeyError)),
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
    past = box.history("past", default="in")
    flow.on(Asked, to=past)
    state_of(flow, name).run = step
    mistake = the_mistake(flow)
    assert (mistake.message, mistake.state) == (message, name)
