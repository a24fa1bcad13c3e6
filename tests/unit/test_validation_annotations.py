"""Functions that say by their annotations that they are for another event than that of their transition."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, Protocol, TypeVar, Union, cast

import pytest

from statemachines import Event
from statemachines.validation import find_mistakes
from tests.unit.mistaken import Asked, Empty, Ended, build, right, state_of, the_mistake

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]

E = TypeVar("E", bound=Event)


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
