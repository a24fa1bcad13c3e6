"""Mistakes with guards, actions, and functions of other roles: all are plain, and called with fixed arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from statemachines.checks.events import classes
from statemachines.checks.settings import are_topics
from statemachines.definition import Pipeline, name_of
from statemachines.mistakes import Mistake
from statemachines.places import Place


class _Handler(NamedTuple):
    function: Any
    role: str
    wanted: str
    parameters: int
    state: str | None
    event: str | None
    place: Place


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with functions."""
    for handler in _handlers(pipeline):
        if not callable(handler.function):
            message = f"the {handler.role} is not a function but {handler.function!r}"
            cure = f"Give a function of {handler.wanted}, without calling it"
            if isinstance(handler.function, list | tuple):
                message = f"the {handler.role} is one function, not a list of them"
                cure = f"Give one function of {handler.wanted} that calls them"
            yield _mistake(handler, message, cure)
        elif is_async(handler.function):
            message = f"the {handler.role} {name_of(handler.function)} is async, but nothing awaits it"
            cure = "Write it without async: it is pure, and work with side effects has no place in it"
            yield _mistake(handler, message, cure)
        else:
            yield from _shape(handler)


def _handlers(pipeline: Pipeline[Any]) -> Iterator[_Handler]:
    both = "(context, event)"
    yield from _of_starts(pipeline)
    for move in pipeline.moves:
        event = getattr(move.event, "__event_type__", None)
        if move.guard is not None:
            yield _Handler(move.guard, "guard", both, 2, move.source, event, move.place)
        if move.action is not None:
            yield _Handler(move.action, "action", both, 2, move.source, event, move.place)
        if callable(move.delay):
            yield _Handler(move.delay, "delay", "(context)", 1, move.source, None, move.place)
    yield from _of_data(pipeline)
    for state in pipeline.states:
        for function, place in state.entries:
            yield _Handler(function, "entry action", both, 2, state.name, None, place)
        for function, place in state.exits:
            yield _Handler(function, "exit action", both, 2, state.name, None, place)
        if state.output is not None:
            yield _Handler(state.output, "output", both, 2, state.name, None, state.place)
        if state.beginning is not None and state.beginning.action is not None:
            yield _Handler(state.beginning.action, "action", both, 2, state.name, None, state.beginning.place)


def _of_starts(pipeline: Pipeline[Any]) -> Iterator[_Handler]:
    both = "(context, event)"
    for start in pipeline.starts:
        event = getattr(start.event, "__event_type__", None)
        yield _Handler(start.build, "build function", "(event)", 1, None, event, start.place)
        if start.guard is not None:
            yield _Handler(start.guard, "guard", both, 2, None, event, start.place)
        if start.action is not None:
            yield _Handler(start.action, "action", both, 2, None, event, start.place)


def _of_data(pipeline: Pipeline[Any]) -> Iterator[_Handler]:
    given = [(event, event.event_key(), event.event_place()) for event in classes(pipeline)]
    given += [(keyed.event, keyed.by, keyed.place) for keyed in pipeline.keys]
    for event, by, place in given:
        if callable(by):
            event_type = getattr(event, "__event_type__", None)
            yield _Handler(by, "key function", "(data)", 1, None, event_type, place)
    for topic in pipeline.read_topics if are_topics(pipeline.topics) else ():
        if callable(topic.type):
            yield _Handler(topic.type, "type function", "(data)", 1, None, None, pipeline.place)


def _shape(handler: _Handler) -> Iterator[Mistake]:
    name = name_of(handler.function)
    if not handler.role.endswith("action") and inspect.isgeneratorfunction(bare(handler.function)):
        message = f"the {handler.role} {name} is a generator, which answers nothing by itself"
        yield _mistake(handler, message, "Let it return its answer, without yield")
    try:
        signature = inspect.signature(handler.function)
    except (TypeError, ValueError):
        return  # built-in functions that do not tell
    try:
        signature.bind(*[None] * handler.parameters)
    except TypeError:
        message = f"the {handler.role} {name}{signature} cannot be called with {handler.wanted}"
        yield _mistake(handler, message, f"Let it take {handler.wanted}")


def is_async(function: Any) -> bool:
    """Whether what calling it comes to has to be awaited."""
    written = bare(function)
    return inspect.iscoroutinefunction(written) or inspect.isasyncgenfunction(written)


def bare(function: Any) -> Any:
    """What is called in the end."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or isinstance(function, type):
        return function
    return type(function).__call__


def _mistake(handler: _Handler, message: str, cure: str) -> Mistake:
    return Mistake(message, cure, handler.place, state=handler.state, event=handler.event)
