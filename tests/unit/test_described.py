"""Functions that describe the work of steps: what they say that they return, and which mistakes there are in that."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar, assert_type

import pytest
from pydantic import BaseModel, TypeAdapter

from statemachines import Call, Command, Compensation, Context, Described, Done, Later, Pipeline, Step
from statemachines.described import described_by, result_of
from statemachines.machine import compile_pipeline
from statemachines.step import PlainCompensation, PlainStep
from statemachines.validation import find_mistakes
from tests.unit.mistaken import Asked, right, state_of

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class Nothing(Context): ...


class Size(BaseModel):
    width: int


class Fixed(Described[Size]):
    """Comes to one thing always."""


class Job(Described[R_co]):
    """Comes to what is said."""


class Pair(Described[tuple[R_co, int]], Generic[T, R_co]):
    """Its parameters are others than those of what it is."""


class Further(Pair[str, R_co]): ...


@pytest.mark.parametrize(
    ("annotation", "described", "result"),
    [
        (Command[Size], Command, Size),
        (Command[None], Command, type(None)),
        (Command[list[int] | None], Command, list[int] | None),
        (Fixed, Fixed, Size),
        (Job[int], Job, int),
        (Pair[str, bytes], Pair, tuple[bytes, int]),
        (Further[bytes], Further, tuple[bytes, int]),
        (Described[int], Described, int),
        (Size, None, None),
        (int | None, None, None),
        (Any, None, None),
    ],
)
def test_what_is_described_and_what_it_comes_to_is_in_the_annotation(
    annotation: Any, described: Any, result: Any
) -> None:
    assert described_by(annotation) is described
    if described is not None:
        assert result_of(annotation) == result


def test_a_step_is_typed_by_what_its_work_comes_to() -> None:
    flow = Pipeline("shop", Nothing, topics=["orders"])

    @flow.step()
    def measure(order: Nothing, call: Call) -> Command[Size]:
        return Command(["measure", call.key], send=order, result=Size)

    @flow.step()
    def count(order: Nothing, call: Call) -> Command[list[int]]:
        return Command(["count"], result=TypeAdapter(list[int]))

    @flow.step()
    def tidy(order: Nothing, call: Call) -> Command[None]:
        return Command(["tidy"])

    @flow.step()
    def render(order: Nothing, call: Call) -> Job[Size]:
        return Job()

    @flow.step()
    def plain(order: Nothing, call: Call) -> int:
        return 3

    @measure.compensate()
    def forget(order: Nothing, made: Size | None, call: Call) -> Command[None]:
        return Command(["forget", str(made)])

    @render.compensate()
    def unmake(order: Nothing, made: Size | None, call: Call) -> Job[None]:
        return Job()

    assert_type(measure, PlainStep[Nothing, Size, Command[Size]])
    assert_type(measure.done, type[Done[Size]])
    assert_type(count, PlainStep[Nothing, list[int], Command[list[int]]])
    assert_type(tidy, PlainStep[Nothing, None, Command[None]])
    assert_type(render, PlainStep[Nothing, Size, Described[Size]])
    assert_type(forget, PlainCompensation[Nothing, Size, Command[None]])
    assert_type(unmake, PlainCompensation[Nothing, Size, Described[None]])
    assert_type(plain, PlainStep[Nothing, int])
    assert [one.result_type for one in (measure, count, render, plain)] == [Size, list[int], Size, int]
    assert [one.result_type for one in (tidy, forget)] == [type(None)] * 2
    assert [one.describes for one in (measure, render, forget, plain)] == [Command, Job, Command, None]
    assert [one.takes_thread for one in (measure, plain)] == [False, True]
    call = Call("k-1", 1, "o1", "measure")
    assert measure(Nothing(), call) == Command(["measure", "o1"], send=Nothing(), result=Size)
    assert measure(Nothing(), call).arguments == ("measure", "o1")
    assert forget(Nothing(), Size(width=4), call).arguments == ("forget", "width=4")
    assert measure.done.model_validate({"data": {"width": 4}}).result == Size(width=4)


def with_work(function: Any, *, undone: Any = None) -> tuple[Pipeline[Any], Step[Any, Any]]:
    flow = right()
    step: Step[Any, Any] = flow.step()(function)
    if undone is not None:
        step.compensate()(undone)
    state_of(flow, "open").run = step
    flow.on(step.done, to="done")
    flow.on_failure(to="done")
    return flow, step


def describes(order: Any, call: Call) -> Command[Size]:
    return Command(["x"], result=Size)


async def waits(order: Any, call: Call) -> Command[Size]:
    return Command(["x"], result=Size)


def bare(order: Any, call: Call) -> Command:  # type: ignore[type-arg]  # on purpose
    return Command(["x"])


def either(order: Any, call: Call) -> Command[Size] | Size:
    return Size(width=1)


def later(order: Any, call: Call) -> Command[Size] | Later:
    return Later("t")


def several(order: Any, call: Call) -> list[Command[Size]]:
    return []


def within(order: Any, call: Call) -> Annotated[Command[Size], "x"] | None:
    return None


def forgets(order: Any, made: Size | None, call: Call) -> Command[int]:
    return Command(["x"], result=int)


@pytest.mark.parametrize(
    ("function", "message", "cure"),
    [
        (waits, "the step 'waits' is async, and only says what is to be done, as Command", "Write def"),
        (bare, "the step 'bare' returns Command, and does not say what that comes to", "-> Command[None]"),
        (either, "the step 'either' returns what is to be done, or something else", "make two steps"),
        (later, "the step 'later' returns what is to be done, or something else", "make two steps"),
        (several, "the step 'several' returns what is to be done, or something else", "make two steps"),
        (within, "the step 'within' returns what is to be done, or something else", "make two steps"),
    ],
)
def test_mistakes_with_what_is_described_are_found(function: Any, message: str, cure: str) -> None:
    flow, step = with_work(function)
    [mistake] = find_mistakes(flow)
    assert mistake.message == message
    assert cure in mistake.cure
    assert mistake.place == step.place


def test_what_a_compensation_comes_to_is_nothing() -> None:
    flow, _ = with_work(describes, undone=forgets)
    assert any(
        "'forgets' returns int, of which nothing is made" in one.message for one in find_mistakes(flow)
    )
    assert isinstance(flow.works[-1], Compensation)


def test_what_is_described_is_no_part_of_the_definition_and_what_it_comes_to_is() -> None:
    def direct(order: Any, call: Call) -> Size:
        return Size(width=1)

    def other(order: Any, call: Call) -> Command[Asked]:
        return Command(["x"], result=Asked)

    hashes = []
    for function in (describes, direct, other):
        function.__name__ = "work"
        flow, _ = with_work(function)
        assert find_mistakes(flow) == []
        hashes.append(compile_pipeline(flow).code)
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("given", ["convert -", b"x", [], [5], ["a", b"b"]])
def test_a_command_is_a_list_of_strings(given: Any) -> None:
    with pytest.raises(TypeError, match="a command is a list of"):
        Command(given)
