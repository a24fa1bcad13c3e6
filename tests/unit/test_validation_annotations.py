"""Functions that say by their annotations that they are for something else than they are given, or return."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    Optional,
    Protocol,
    TypeGuard,
    TypeVar,
    Union,
    cast,
)

import pytest
from pydantic import BaseModel

from statemachines import Call, Context, Done, Event, Publish
from statemachines.validation import find_mistakes
from tests.unit.mistaken import Asked, Empty, Ended, build, right, running, state_of, the_mistake, yes

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]

C = TypeVar("C", bound=Context)
E = TypeVar("E", bound=Event)
T = TypeVar("T")


class Named(Event):
    """A base of several."""

    name: str


class Renamed(Named, type="renamed", key="name"):
    pass


class RenamedTwice(Renamed, type="renamed.twice", key="name"):
    pass


class HasName(Protocol):
    name: str


def for_renamed(_context: Empty, _event: Renamed) -> None: ...
def for_base(_context: Empty, _event: Named) -> None: ...
def for_any_event(_context: Empty, _event: Event) -> None: ...
def for_any(_context: Empty, _event: Any) -> None: ...
def for_object(_context: Empty, _event: object) -> None: ...
def for_either(_context: Empty, _event: Asked | Renamed) -> None: ...
def for_union(_context: Empty, _event: Union[Asked, Renamed]) -> None: ...  # noqa: UP007 - as some write it
def for_optional(_context: Empty, _event: Optional[Renamed]) -> None: ...  # noqa: UP045 - as some write it
def for_variable(_context: Empty, _event: E) -> None: ...
def for_protocol(_context: Empty, _event: HasName) -> None: ...
def for_unknown(_context: Empty, _event: Unknown) -> None: ...
def for_all(*_given: Asked) -> None: ...
def for_asked(_context: Empty, _event: Asked) -> None: ...
def for_others(_context: Empty, _event: Asked | Ended | None) -> None: ...
def for_special(_context: Empty, _event: RenamedTwice) -> None: ...
def with_more(_more: int, _context: Empty, _event: Asked) -> None: ...


class Called:
    def __call__(self, _context: Empty, _event: Asked) -> None: ...

    def method(self, _context: Empty, _event: Asked) -> None: ...


def is_asked(_context: Empty, _event: Asked) -> bool:
    return True


FITS = [
    for_renamed,
    for_base,
    for_any_event,
    for_any,
    for_object,
    for_either,
    for_union,
    for_optional,
    for_variable,
    for_protocol,
    for_unknown,
    for_all,
    lambda _context, _event: None,
]


@pytest.mark.parametrize("function", FITS, ids=lambda function: function.__name__)
def test_what_may_be_meant_for_the_event_is_no_mistake(function: Callable[..., Any]) -> None:
    flow = right()
    state_of(flow, "open").on(Renamed, do=function)
    assert find_mistakes(flow) == []


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (for_asked, "the action for_asked is for Asked, by its annotation, and is given Renamed"),
        (for_others, "and is given Renamed"),
        (for_special, "the action for_special is for RenamedTwice, by its annotation, and is given Renamed"),
        (functools.partial(with_more, 1), "is for Asked, by its annotation, and is given Renamed"),
        (Called(), "is for Asked, by its annotation, and is given Renamed"),
        (Called().method, "is for Asked, by its annotation, and is given Renamed"),
    ],
    ids=["another", "others", "a special one", "partial", "callable", "method"],
)
def test_what_is_for_another_event_is_warned_of(function: Callable[..., Any], said: str) -> None:
    flow = right()
    state_of(flow, "open").on(Renamed, do=function)
    mistake = the_mistake(flow, "warning")
    assert said in mistake.message
    assert "Annotate the event as Renamed" in mistake.cure
    assert (mistake.state, mistake.event) == ("open", "renamed")
    assert mistake.place.file.endswith("test_validation_annotations.py")


def for_ended(_event: Ended) -> Empty:
    return Empty()


def test_guards_and_what_starts_runs_are_looked_at_too() -> None:
    flow = right()
    state_of(flow, "open").on(Renamed, when=is_asked)
    assert "the guard is_asked is for Asked" in the_mistake(flow, "warning").message
    flow = right()
    flow.start(Renamed, cast("Any", for_ended))
    assert "the build function" in the_mistake(flow, "warning").message
    flow = right()
    flow.start(Renamed, build, do=cast("Any", for_asked))
    assert "the action for_asked is for Asked" in the_mistake(flow, "warning").message


def test_a_pattern_and_what_comes_from_inside_may_be_met_by_any_class() -> None:
    class AnyEvent(Event, type="re.*", key="name"):
        name: str

    flow = right()
    state_of(flow, "open").on(AnyEvent, do=for_asked)
    state_of(flow, "open").entry(for_asked)
    assert find_mistakes(flow) == []


class Filled(Empty):
    """More than the pipeline's context has."""


class Other(Context):
    """That of another pipeline."""


class Boxed(Context, Generic[T]):
    value: T | None = None


class IntBox(Boxed[int]):
    pass


def of_empty(_event: Renamed) -> Empty:
    return Empty()


def of_context(_event: Renamed) -> Context:
    return Empty()


def of_any(_event: Renamed) -> Any:
    return Empty()


def of_named(_event: Renamed) -> HasName:
    return cast("HasName", Empty())


def of_variable(_event: Renamed) -> C:  # type: ignore[type-var]  # as some write it
    return cast("C", Empty())


def of_unknown(_event: Renamed) -> Unknown:
    return Empty()


def of_either(_event: Renamed) -> Empty | Other:
    return Empty()


def of_other(_event: Renamed) -> Other:
    return Other()


def of_others(_event: Renamed) -> Other | None:
    return Other()


def of_filled(_event: Renamed) -> Filled:
    return Filled()


def of_event(event: Renamed) -> Renamed:
    return event


def of_dict(_event: Renamed) -> dict[str, Any]:
    return {}


def of_nothing(_event: Renamed) -> None: ...


@pytest.mark.parametrize(
    "function", [of_empty, of_context, of_any, of_named, of_variable, of_unknown, of_either, build]
)
def test_what_may_return_the_context_is_no_mistake(function: Any) -> None:
    flow = right()
    flow.start(Renamed, function)
    assert find_mistakes(flow) == []


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (of_other, "of_other returns Other"),
        (of_others, "of_others returns"),
        (of_filled, "of_filled returns Filled"),
        (of_event, "of_event returns Renamed"),
        (of_dict, "of_dict returns dict[str, Any]"),
        (of_nothing, "of_nothing returns NoneType"),
    ],
)
def test_what_begins_a_run_with_no_context_of_it_is_warned_of(function: Any, said: str) -> None:
    flow = right()
    flow.start(Renamed, function)
    mistake = the_mistake(flow, "warning")
    assert mistake.message.startswith(f"the build function {said}")
    assert mistake.message.endswith("by its annotation, and the pipeline's context is Empty")
    assert mistake.cure == "Let it return that, and write -> Empty"
    assert (mistake.state, mistake.event) == (None, "renamed")
    assert mistake.place.file.endswith("test_validation_annotations.py")


def says(annotation: Any, at: str = "return") -> Callable[..., Any]:
    def function(context: Any, event: Any) -> Any: ...

    function.__annotations__ = {at: annotation}
    return function


@pytest.mark.parametrize(
    "annotation", [bool, object, Any, "Unknown", Literal[True], bool | None, TypeGuard[int], HasName, E]
)
def test_what_may_answer_true_or_false_is_no_mistake(annotation: Any) -> None:
    flow = right()
    state_of(flow, "open").on(Renamed, when=says(annotation))
    assert find_mistakes(flow) == []


@pytest.mark.parametrize("annotation", [int, str, None, "int", list[bool], Empty, Asked, int | None])
def test_a_guard_that_answers_something_else_is_warned_of(annotation: Any) -> None:
    flow = right()
    state_of(flow, "open").on(Renamed, when=says(annotation))
    mistake = the_mistake(flow, "warning")
    assert mistake.message.startswith("the guard says.<locals>.function returns ")
    assert mistake.message.endswith(", by its annotation, and a guard answers True or False")
    assert mistake.cure == "Let it answer so, and write -> bool"
    assert (mistake.state, mistake.event) == ("open", "renamed")


@pytest.mark.parametrize(
    "annotation",
    [None, Publish, Publish | Renamed, list[Publish], Iterator[Publish], Any, "Unknown", HasName],
)
def test_what_may_be_effects_is_no_mistake(annotation: Any) -> None:
    flow = right()
    state_of(flow, "open").on(Renamed, do=says(annotation))
    assert find_mistakes(flow) == []


@pytest.mark.parametrize(
    ("annotation", "said", "cure"),
    [
        (Renamed, "an event alone is no effect", "as in Publish(topic, ...), Raise(...) or Send(...)"),
        (Asked | Renamed, "an event alone is no effect", "Wrap it"),
        (Empty, "a context is no effect", "Change the context in place, and write -> None"),
        (Other, "a context is no effect", "Change the context in place"),
    ],
)
def test_an_action_that_returns_no_effect_is_warned_of(annotation: Any, said: str, cure: str) -> None:
    gives: list[Callable[[Any], None]] = [
        lambda flow: state_of(flow, "open").on(Renamed, do=says(annotation)),
        lambda flow: state_of(flow, "open").entry(says(annotation)),
        lambda flow: state_of(flow, "open").exit(says(annotation)),
        lambda flow: flow.start(Renamed, build, do=says(annotation)),
    ]
    for give in gives:
        flow = right()
        give(flow)
        mistake = the_mistake(flow, "warning")
        assert "action says.<locals>.function returns " in mistake.message
        assert mistake.message.endswith(f", by its annotation, and {said}")
        assert cure in mistake.cure


@pytest.mark.parametrize(
    "annotation",
    [
        Empty,
        Context,
        BaseModel,
        Any,
        object,
        "Unknown",
        Empty | Other,
        C,
        HasName,
        Boxed,
        Annotated[Empty, 1],
    ],
)
def test_what_may_be_meant_for_the_context_is_no_mistake(annotation: Any) -> None:
    flow, step = running(says(annotation, "context"))
    step.function.__annotations__["return"] = None
    state_of(flow, "open").on(Renamed, when=says(annotation, "context"), do=says(annotation, "context"))
    state_of(flow, "open").entry(says(annotation, "context"))
    assert find_mistakes(flow) == []


@pytest.mark.parametrize("annotation", [Other, Filled, IntBox, Renamed, Other | None])
def test_what_is_for_another_context_is_warned_of(annotation: Any) -> None:
    function = says(annotation, "context")
    gives: dict[str, Callable[[Any], None]] = {
        "guard": lambda flow: state_of(flow, "open").on(Renamed, when=function),
        "action": lambda flow: state_of(flow, "open").on(Renamed, do=function),
        "entry action": lambda flow: state_of(flow, "open").entry(function),
    }
    for role, give in gives.items():
        flow = right()
        give(flow)
        mistake = the_mistake(flow, "warning")
        assert mistake.message.startswith(f"the {role} says.<locals>.function is for the context ")
        assert mistake.message.endswith(", by its annotation, and is given Empty")
        assert "Annotate the context as Empty" in mistake.cure
        assert mistake.state == "open"


def test_what_is_for_a_context_where_the_event_is_given_is_warned_of() -> None:
    flow = right()
    state_of(flow, "open").on(Renamed, do=says(Empty, "event"))
    assert "is for Empty, by its annotation, and is given Renamed" in the_mistake(flow, "warning").message


def test_a_step_and_a_compensation_for_another_context_are_warned_of() -> None:
    def pack(_context: Other, _call: Call) -> int:
        return 1

    def unpack(_context: Other, _made: int | None, _call: Call) -> None: ...

    flow, step = running(pack)
    mistake = the_mistake(flow, "warning")
    said = "is for the context Other, by its annotation, and is given Empty"
    assert mistake.message == f"the step 'pack' {said}"
    assert (mistake.place, "another pipeline" in mistake.cure) == (step.place, True)
    step.compensate()(unpack)
    assert f"the compensation 'unpack' {said}" in [one.message for one in find_mistakes(flow)]


def of_ints(_context: Empty, _event: Done[int]) -> None: ...
def of_floats(_context: Empty, _event: Done[float]) -> None: ...
def of_any_result(_context: Empty, _event: Done[Any]) -> None: ...
def of_a_result(_context: Empty, _event: Done) -> None: ...
def of_int_or_text(_context: Empty, _event: Done[int | str]) -> None: ...
def of_unknown_result(_context: Empty, _event: Done[Unknown]) -> None: ...
def of_texts(_context: Empty, _event: Done[str]) -> None: ...
def of_lists(_context: Empty, _event: Done[list[int]]) -> None: ...
def of_none(_context: Empty, _event: Done[None]) -> None: ...


@pytest.mark.parametrize(
    "function", [of_ints, of_floats, of_any_result, of_a_result, of_int_or_text, of_unknown_result]
)
def test_what_may_be_meant_for_the_result_of_a_step_is_no_mistake(function: Any) -> None:
    flow, step = running()
    state_of(flow, "open").on(step.done, to="done", when=yes, do=function)
    assert find_mistakes(flow) == []


@pytest.mark.parametrize(
    ("function", "result"), [(of_texts, "str"), (of_lists, "list[int]"), (of_none, "NoneType")]
)
def test_what_is_for_another_result_is_warned_of(function: Any, result: str) -> None:
    flow, step = running()
    state_of(flow, "open").on(step.done, to="done", when=yes, do=function)
    mistake = the_mistake(flow, "warning")
    said = f"is for Done[{result}], by its annotation, and the step 'work' returns int"
    assert mistake.message == f"the action {function.__name__} {said}"
    assert mistake.cure == "Annotate the event as Done[int]"
    assert (mistake.state, mistake.event) == ("open", "done.step.work")


def test_a_class_that_does_not_say_what_is_below_it_says_nothing() -> None:
    class Silent(type):
        def __subclasscheck__(cls, subclass: type) -> bool:
            raise LookupError("nowhere")

    class Answer(metaclass=Silent):
        pass

    flow = right()
    state_of(flow, "open").on(Renamed, when=says(Answer))
    assert find_mistakes(flow) == []
