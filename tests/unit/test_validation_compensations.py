"""Mistakes with what undoes steps: each with what it is, its place, and its cure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import pytest
from pydantic import BaseModel

from statemachines import Call, Compensate, Event, Mistake, Retry
from statemachines.validation import find_mistakes
from tests.unit.mistaken import Asked, Empty, Flow, right, state_of, the_mistake, yes

T = TypeVar("T")


class Made(BaseModel):
    id: str


class MadeMore(Made):
    more: str


def work(_context: Empty, _call: Call) -> Made:
    return Made(id="1")


def undo(_context: Empty, _made: Made | None, _call: Call) -> None: ...


def undoing(function: Any = undo, of: Any = work, **settings: Any) -> tuple[Flow, Any, Any]:
    """``open`` runs a step, which is undone where the pipeline goes to ``done``."""
    flow = right()
    step: Any = flow.step(timeout=timedelta(minutes=1))(of)
    compensation = step.compensate(**settings)(function)
    state_of(flow, "open").run = step
    flow.on(step.done, to="done")
    flow.on_failure(to="done", compensate=True)
    return flow, step, compensation


def test_a_compensation_without_mistakes_has_none() -> None:
    assert find_mistakes(undoing()[0]) == []
    settings: dict[str, Any] = {"timeout": timedelta(1), "retry": Retry(9), "at_once": 2, "on_error": True}
    assert find_mistakes(undoing(**settings)[0]) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeout": 30}, "timeout=30 of the compensation 'undo' is no time"),
        ({"heartbeat": 30}, "heartbeat=30 of the compensation 'undo' is no time"),
        ({"within": 30}, "within=30 of the compensation 'undo' is no time"),
        ({"retry": 5}, "retry=5 of the compensation 'undo' does not say"),
        ({"at_once": 0}, "at_once=0 of the compensation 'undo' is not how many"),
        ({"on_error": 1}, "on_error=1 of the compensation 'undo' is neither True nor False"),
    ],
)
def test_its_settings_make_sense(settings: dict[str, Any], message: str) -> None:
    assert message in the_mistake(undoing(**settings)[0]).message


def without(_context: Empty, _call: Call) -> None: ...


def generating(_context: Empty, _made: Made | None, _call: Call) -> Any:
    yield 1


def silent(_context: Empty, _made: Made | None, _call: Call):  # type: ignore[no-untyped-def]  # noqa: ANN201
    ...


def returning(_context: Empty, _made: Made | None, _call: Call) -> int:
    return 1


@pytest.mark.parametrize(
    ("function", "message", "cure"),
    [
        (without, "cannot be called with (context, made, call)", "Let it take (context, made, call)"),
        (silent, "the compensation 'silent' does not say what it returns", "as in -> None"),
        (returning, "the compensation 'returning' returns int, of which nothing is made", "return None"),
        (5, "a compensation is a function, and not 5", "Write @work.compensate() above a function"),
    ],
)
def test_it_is_a_function_of_three_that_returns_nothing(function: Any, message: str, cure: str) -> None:
    found = [one for one in find_mistakes(undoing(function)[0]) if message in one.message]
    assert len(found) == 1
    assert cure in found[0].cure


def test_it_is_no_generator() -> None:
    found = find_mistakes(undoing(generating)[0])
    assert "the compensation 'generating' is a generator" in found[0].message


class Undoing:
    def method(self, _context: Empty, made: Made | None, _call: Call) -> None: ...

    def wrong(self, _context: Empty, made: int, _call: Call) -> None: ...


def with_any(_context: Empty, made: Any, _call: Call) -> None: ...
def with_object(_context: Empty, made: object, _call: Call) -> None: ...
def with_above(_context: Empty, made: BaseModel | None, _call: Call) -> None: ...
def with_more(_context: Empty, made: Made | str | None, _call: Call) -> None: ...
def with_nothing(_context: Empty, made, _call: Call) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
def with_annotated(_context: Empty, made: Annotated[Made | None, "x"], _call: Call) -> None: ...
def with_variable(_context: Empty, made: T, _call: Call) -> None: ...
def with_unknown(_context: Empty, made: Nowhere, _call: Call) -> None: ...  # type: ignore[name-defined] # noqa: F821
def without_none(_context: Empty, made: Made, _call: Call) -> None: ...
def with_other(_context: Empty, made: int | None, _call: Call) -> None: ...
def with_below(_context: Empty, made: MadeMore | None, _call: Call) -> None: ...
def with_none(_context: Empty, made: None, _call: Call) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        with_any,
        with_object,
        with_above,
        with_more,
        with_nothing,
        with_annotated,
        with_variable,
        with_unknown,
        Undoing().method,
        partial(Undoing.method, Undoing()),
    ],
)
def test_what_it_says_of_what_was_made_may_be_so(function: Any) -> None:
    assert find_mistakes(undoing(function)[0]) == []


@pytest.mark.parametrize("function", [without_none, with_other, with_below, with_none, Undoing().wrong])
def test_what_it_says_of_what_was_made_cannot_be_so(function: Any) -> None:
    found = the_mistake(undoing(function)[0])
    assert f"'made' of the compensation {function.__name__!r} is " in found.message
    assert "given what the step 'work' returned, or None where that is not known" in found.message
    assert found.cure == "Write made: Made | None"


def numbers(_context: Empty, _call: Call) -> list[int]:
    return [1]


def nothing(_context: Empty, _call: Call) -> None: ...
def anything(_context: Empty, _call: Call) -> Any: ...
def one_of_two(_context: Empty, _call: Call) -> Literal["a", "b"]: ...  # type: ignore[empty-body]
def with_sequence(_context: Empty, made: Sequence[int] | None, _call: Call) -> None: ...
def whole(_context: Empty, _call: Call) -> int: ...  # type: ignore[empty-body]
def with_list(_context: Empty, made: list[int] | None, _call: Call) -> None: ...
def with_bare_list(_context: Empty, made: list | None, _call: Call) -> None: ...  # type: ignore[type-arg]
def with_float(_context: Empty, made: float | None, _call: Call) -> None: ...
def with_text(_context: Empty, made: str | None, _call: Call) -> None: ...


@pytest.mark.parametrize(
    ("of", "function", "is_right"),
    [
        (numbers, with_list, True),
        (numbers, with_bare_list, True),
        (numbers, with_text, False),
        (numbers, with_sequence, True),
        (anything, with_text, True),
        (one_of_two, with_text, True),
        (nothing, with_none, True),
        (nothing, with_text, True),
        (whole, with_float, True),
        (whole, with_list, False),
    ],
)
def test_what_the_step_returns_may_be_anything(of: Any, function: Any, *, is_right: bool) -> None:
    assert (find_mistakes(undoing(function, of)[0]) == []) is is_right


def test_a_step_has_one_compensation_and_that_has_none() -> None:
    flow, step, _ = undoing()
    step.compensate()(with_any)
    found = the_mistake(flow)
    assert "the step 'work' has a compensation already, 'undo' at " in found.message
    flow, _, compensation = undoing()
    compensation.compensate()(with_any)
    assert the_mistake(flow).message == "'undo' is a compensation itself, and is never undone"


def test_names_are_unique_among_both() -> None:
    def other(_context: Empty, _call: Call) -> None: ...

    other.__name__ = "undo"
    flow, _, _ = undoing()
    state_of(flow, "done").final = False
    state_of(flow, "done").run = flow.step()(other)
    flow.on(Asked, to=flow.state("over", final=True))
    found = [one for one in find_mistakes(flow) if one.severity == "error"]
    assert ["the compensation 'undo' has the name of the step at" in one.message for one in found] == [True]


def test_a_state_does_not_run_one() -> None:
    flow, step, compensation = undoing()
    state_of(flow, "done").final = False
    state_of(flow, "done").run = compensation
    flow.on(Asked, to=flow.state("over", final=True))
    found = [one for one in find_mistakes(flow) if one.severity == "error"]
    assert [one.message for one in found] == [
        "the state 'done' is to run 'undo', which undoes the step 'work'"
    ]
    assert step.compensation is compensation


def test_one_that_nothing_asks_for_is_told() -> None:
    flow, _, compensation = undoing()
    flow.moves[-1] = replace(flow.moves[-1], compensate=False)
    found = the_mistake(flow, "warning")
    assert found.message == "nothing compensates, so that the step 'work' is never undone"
    assert found.place == compensation.place
    flow.on(Asked, to="done", do=lambda _context, _event: Compensate())
    assert find_mistakes(flow) == []


def test_a_plain_step_without_a_limit_may_be_undone_while_it_runs() -> None:
    flow, step, compensation = undoing()
    step.timeout = None
    found = the_mistake(flow, "warning")
    assert found.message == (
        "the step 'work' has no timeout, and nothing stops a plain function: where its state is left, 'undo' may undo "
        "it while it still runs"
    )
    assert found.cure.startswith("Write @flow.step(timeout=timedelta(seconds=30)): so long it is waited for")
    assert found.place == step.place
    # Nothing undoes the compensation itself.
    assert compensation.timeout is None

    async def does(_context: Empty, _call: Call) -> Made:
        return Made(id="1")

    step.function, step._is_async = does, None
    assert find_mistakes(flow) == []


def out_of_open(flow: Flow, compensate: Any) -> None:
    flow.add_move("open", Asked, "done", None, None, compensate=compensate)


def beside(flow: Flow) -> None:
    flow.on(Event.named("go"), to=flow.state("beside", run=flow.steps[0]))
    out_of_open(flow, "beside")


def other_pipelines(flow: Flow) -> None:
    other = right()
    flow.name = "mine"
    flow.on(Asked, to="done", compensate=state_of(other, "open"))


@pytest.mark.parametrize(
    ("change", "message", "cure"),
    [
        (
            lambda flow: flow.on(Asked, to="done", compensate="opne"),
            "there is no state 'opne' to undo",
            "Did you mean 'open'?",
        ),
        (other_pipelines, "compensate='open' is a state of pipeline 'right'", "Name a state of this"),
        (
            lambda flow: flow.on(Asked, to="done", compensate="done"),
            "'done' has nothing to undo: it runs no step with a compensation, nor does a state inside it",
            "Name a state that does",
        ),
        (
            beside,
            "the transition out of 'open' is to undo 'beside', which is neither around it nor in it",
            "Name 'open', a state around it",
        ),
        (lambda flow: flow.on(Asked, compensate="open"), "compensate='open' needs a target", "with to="),
        (lambda flow: flow.on(Asked, compensate=True), "compensate=True needs a target", "with to="),
        (
            lambda flow: flow.on(Asked, to="done", compensate=1),
            "compensate=1 is neither True nor False, nor a state",
            "leave it",
        ),
        (
            lambda flow: flow.on(Asked, to="$compensating", compensate=True),
            "no state '$compensating' to go to",
            "",
        ),
        (
            lambda flow: flow.on(Asked, to=flow.state("$compensating"), when=yes),
            "the state name '$compensating' is that of the state of runs that are undone",
            "another name",
        ),
    ],
)
def test_transitions_that_undo_lead_somewhere_and_name_what_owes(
    change: Callable[[Flow], Any], message: str, cure: str
) -> None:
    flow = undoing()[0]
    change(flow)
    found: list[Mistake] = [one for one in find_mistakes(flow) if one.severity == "error"]
    assert len(found) == 1, found
    assert message in found[0].message
    assert cure in found[0].cure


def test_a_state_may_be_undone_by_its_own_transitions_and_those_around_it() -> None:
    flow, _, _ = undoing()
    around = flow.state("around")
    inside = around.state("inside", initial=True, run=flow.steps[0])
    state_of(flow, "open").on(Event.named("go"), to=around)
    inside.on(flow.steps[0].done, to="done")
    for compensate in (True, inside, "around"):
        inside.on(Asked, to="done", when=yes, compensate=compensate)
    around.on(Asked, to="done", when=yes, compensate=inside)
    flow.on(Asked, to="done", when=yes, compensate=around)
    assert [one for one in find_mistakes(flow) if "undo" in one.message and one.severity == "error"] == []


def test_nothing_is_undone_without_a_compensation() -> None:
    flow = right()
    flow.on(Asked, to="done", compensate=True)
    found = the_mistake(flow)
    assert found.message == "compensate=True undoes nothing: no step of the pipeline has a compensation"
    assert found.event == "asked"


def test_what_is_unexpected_while_a_run_is_undone_may_be_said() -> None:
    flow, _, _ = undoing()
    flow.on(Asked, to="done")
    flow.policy(Asked, unexpected="ignore")
    assert find_mistakes(flow) == []


def test_what_is_unexpected_while_a_state_is_undone_may_be_said_of_it() -> None:
    flow, _, _ = undoing()
    state = state_of(flow, "open")
    state.on(Event.named("go"), to="done")
    state.policy(Event.named("go"), unexpected="ignore")
    assert [one for one in find_mistakes(flow) if "never asked" in one.message] == []
    flow.steps[0].compensations.clear()
    assert [one for one in find_mistakes(flow) if "never asked" in one.message] != []


def test_the_end_of_a_compensation_is_no_event_for_transitions() -> None:
    flow, _, compensation = undoing()
    flow.on(compensation.done, to="done")
    assert "is of no step of pipeline 'right'" in the_mistake(flow).message


def test_the_events_of_stopped_steps_are_not_for_topics() -> None:
    flow = right()
    flow.on(Event.named("stopped.step.work"), to="done")
    assert "is one that only runs themselves raise" in the_mistake(flow).message


def in_two(*, whole: bool = False, final: bool = True) -> Flow:
    """The first step is done, and then the second one may fail."""
    flow = Flow("two", Empty, topics=["things"])
    made = flow.step(timeout=timedelta(minutes=1))
    first, second = made(work), flow.step(within=timedelta(minutes=1))(other_work)
    first.compensate()(undo)
    second.compensate()(other_undo)
    one = flow.state("one", run=first, initial=True)
    other = flow.state("other", run=second)
    over = flow.state("over", final=True)
    end = over if final else flow.state("waiting")
    if not final:
        end.on(Asked, to=over)
    flow.start(Asked, lambda _event: Empty())
    one.on(first.done, to=other)
    one.on(first.failed, to=over, compensate=True)
    other.on(second.done, to=over)
    (flow if whole else other).on(second.failed, to=end, compensate=True)
    return flow


def other_undo(context: Empty, made: Made | None, call: Call) -> None:
    undo(context, made, call)


def other_work(context: Empty, call: Call) -> Made:
    return work(context, call)


def test_a_run_that_ends_with_a_part_of_it_undone_is_told_of() -> None:
    mistake = the_mistake(in_two(), "warning")
    assert mistake.message == (
        "the transition out of 'other' undoes 'other' alone, and then the run ends: "
        "what the run has done before by 'work' is never undone"
    )
    assert mistake.cure.startswith(
        "If that is not meant, write it of the pipeline, flow.on(..., compensate=True)"
    )


@pytest.mark.parametrize("flow", [in_two(whole=True), in_two(final=False)], ids=["all of it", "it goes on"])
def test_where_all_is_undone_or_the_run_goes_on_there_is_nothing_to_tell(flow: Flow) -> None:
    assert find_mistakes(flow) == []
