"""Functions whose annotations say that they are for another event than the one that they are given."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from statemachines.definition import Pipeline, name_of
from statemachines.events import Event, is_event_class
from statemachines.mistakes import Mistake
from statemachines.patterns import is_pattern
from statemachines.places import Place


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All of them. They are warnings: Python does not look at annotations, and the data may fit all the same."""
    for start in pipeline.starts:
        yield from _function(start.event, "build function", start.build, 0, None, start.place)
        yield from _function(start.event, "guard", start.guard, 1, None, start.place)
        yield from _function(start.event, "action", start.action, 1, None, start.place)
    for move in pipeline.moves:
        yield from _function(move.event, "guard", move.guard, 1, move.source, move.place)
        yield from _function(move.event, "action", move.action, 1, move.source, move.place)


def _function(
    event: Any, role: str, function: Any, at: int, state: str | None, place: Place
) -> Iterator[Mistake]:
    if not is_event_class(event) or not callable(function):
        return
    event_type: object = event.event_type()
    if not isinstance(event_type, str) or is_pattern(event_type):
        # What is no text is a mistake of its own; what a pattern stands for may come as any class.
        return
    said = _annotation(function, at)
    if said is None or _may_be(event, said):
        return
    name, wanted = name_of(function), event.__name__
    message = f"the {role} {name} is for {_called(said)}, by its annotation, and is given {wanted}"
    cure = f"Annotate the event as {wanted}, or name another function or event here"
    yield Mistake(message, cure, place, state=state, event=event_type, severity="warning")


def _annotation(function: Callable[..., Any], at: int) -> Any:
    """What the parameter at this place is said to be; None where nothing says so that can be found out."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
        hints = typing.get_type_hints(_written(function))
        parameter = parameters[at]
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.KEYWORD_ONLY):
            return None
        return hints.get(parameter.name)
    except Exception:  # noqa: BLE001 - annotations may be any code, of names that are not there
        return None


def _written(function: Any) -> Any:
    """What has the annotations."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def _may_be(event: type[Event], said: Any) -> bool:
    """Whether an event of this class may be meant; what is no class of events says nothing of it."""
    if typing.get_origin(said) in (typing.Union, types.UnionType):
        return any(_may_be(event, one) for one in typing.get_args(said))
    if not isinstance(said, type) or not issubclass(said, Event):
        return said is not type(None)
    return issubclass(event, said)


def _called(said: Any) -> str:
    return said.__name__ if isinstance(said, type) else str(said)
