"""Mistakes with keys: fields that are not there or cannot be one, and what a pipeline says of its events' keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, get_origin

from pydantic import BaseModel

from statemachines.checks.events import classes
from statemachines.definition import Pipeline
from statemachines.events import Event, is_event_class
from statemachines.keys import Found, walk
from statemachines.mistakes import Mistake
from statemachines.places import Place
from statemachines.suggest import did_you_mean

_NO_KEYS = (bool, float, list, dict, set, tuple, BaseModel)


class _Given(NamedTuple):
    """A key, and whose it is."""

    event: type[Event]
    by: Any
    place: Place
    whose: str


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with keys."""
    for event in classes(pipeline):
        if event.event_key() is not None:
            yield from _key(_Given(event, event.event_key(), event.event_place(), event.__name__))
    yield from _overrides(pipeline)


def _overrides(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    known = {event.__name__: event for event in classes(pipeline)}
    first: dict[type[Event], Place] = {}
    for keyed in pipeline.keys:
        event: Any = keyed.event
        if not is_event_class(event):
            message = f"a key is that of a class of events, not of {event!r}"
            yield Mistake(message, "Name a subclass of Event that the pipeline takes", keyed.place)
            continue
        event_type = event.event_type()
        if event not in known.values():
            message = (
                f"pipeline {pipeline.name!r} says how {event.__name__} is keyed, but never names this class"
            )
            cure = did_you_mean(event.__name__, known)
            yield Mistake(message, cure, keyed.place, event=event_type)
            continue
        if event in first:
            message = f"how {event.__name__} is keyed is said already, by the line at {first[event]}"
            yield Mistake(message, "Keep one of them", keyed.place, event=event_type)
        first.setdefault(event, keyed.place)
        whose = f"{event.__name__} in pipeline {pipeline.name!r}"
        yield from _key(_Given(event, keyed.by, keyed.place, whose))


def _key(given: _Given) -> Iterator[Mistake]:
    by = given.by
    if callable(by):
        return  # as a function it is looked at with the others
    names = [by] if isinstance(by, str) else by
    if not isinstance(names, list | tuple) or not names or not all(isinstance(one, str) for one in names):
        yield _mistake(
            given,
            f"the key of {given.whose} is {by!r}, which names no field",
            "Name a field, several in a tuple, or a function of the data",
        )
        return
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            message = f"the key of {given.whose} names the field {name!r} twice"
            yield _mistake(given, message, "Name it once")
        yield from _field(given, name)


def _field(given: _Given, name: str) -> Iterator[Mistake]:
    found = list(walk(given.event, name))
    for at, step in enumerate(found):
        if step.model is not None and step.field is None:
            where = ".".join(one.name for one in found[:at])
            wanted = f", but {where!r} has no such field" if where else ", but it has no such field"
            message = f"the key of {given.whose} is {name!r}{wanted}"
            yield _mistake(given, message, did_you_mean(step.name, step.model.__pydantic_fields__))
            return
        yield from _alias(given, name, step)
        if at + 1 < len(found) and found[at + 1].model is None and _is_no_object(step):
            message = f"the key of {given.whose} is {name!r}, but the field {step.name!r} has no fields in it"
            yield _mistake(given, message, "Name a field that is text or a whole number")
            return
    last = found[-1].field
    if last is not None and _holds_no_key(last.annotation):
        message = f"the key of {given.whose} is the field {name!r}, which is neither text nor a whole number"
        yield _mistake(given, message, "Name a field of type str or int")


def _alias(given: _Given, name: str, step: Found) -> Iterator[Mistake]:
    if step.field is not None and not isinstance(step.field.validation_alias, str | None):
        which = f"is the field {name!r}, which" if step.name == name else f"is {name!r}, and {step.name!r}"
        message = f"the key of {given.whose} {which} has more than one alias"
        yield _mistake(given, message, "Give it one alias, or none")


def _is_no_object(step: Found) -> bool:
    kind = None if step.field is None else step.field.annotation
    return isinstance(kind, type) and issubclass(kind, str | int | float | bytes)


def _holds_no_key(kind: Any) -> bool:
    kind = get_origin(kind) or kind
    return isinstance(kind, type) and issubclass(kind, _NO_KEYS)


def _mistake(given: _Given, message: str, cure: str) -> Mistake:
    return Mistake(message, cure, given.place, event=given.event.event_type())
