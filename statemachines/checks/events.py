"""Mistakes with event classes: their types, and which of them start a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from statemachines.checks import patterns
from statemachines.checks.comparing import are_equal
from statemachines.checks.names import wrong_with_pattern, wrong_with_type
from statemachines.checks.schemas import unfinished
from statemachines.definition import Move, Pipeline, Start, name_of
from statemachines.events import Event, is_event_class, is_internal
from statemachines.mistakes import Mistake
from statemachines.patterns import is_from_inside, is_pattern


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with event classes, each class looked at once."""
    yield from _not_classes(pipeline)
    yield from _starts(pipeline)
    claimed: dict[str, type[Event]] = {}
    for event in classes(pipeline):
        yield from _type(event, claimed)
        yield from _fields(event)
    yield from patterns.find(pipeline, classes(pipeline))


def _lines(pipeline: Pipeline[Any]) -> list[Start | Move]:
    return [*pipeline.starts, *pipeline.moves]


def classes(pipeline: Pipeline[Any]) -> list[type[Event]]:
    """The classes of events from outside that a pipeline names, in that order."""
    events = dict.fromkeys(line.event for line in _lines(pipeline) if is_event_class(line.event))
    return [event for event in events if not is_internal(event)]


def _not_classes(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    for line in _lines(pipeline):
        if line.event is None and isinstance(line, Move):
            continue  # it waits for none
        if not is_event_class(line.event):
            given: object = line.event
            state = line.source if isinstance(line, Move) else None
            message = f"a transition takes a class of events, not {given!r}"
            cure = "Define a subclass of Event, or make one with Event.named('the.type')"
            if isinstance(given, list | tuple | set | frozenset):
                message = "a transition takes one class of events, not several"
                cure = "Write a transition for each of them, or take a class whose type is a pattern, as 'order.*'"
            yield Mistake(message, cure, line.place, state=state)


def _starts(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    by_policy = [pipeline.no_run, *(line.decisions.get("no_run") for line in pipeline.policies)]
    if not pipeline.starts and "start" not in by_policy:
        message = f"pipeline {pipeline.name!r} has no start event: no run ever begins"
        yield Mistake(message, "Name one with .start(event, build)", pipeline.place)
    earlier: dict[str, list[Start]] = {}
    for start in pipeline.starts:
        event = start.event.event_type() if is_event_class(start.event) else ""
        if is_event_class(start.event) and is_internal(start.event):
            message = f"the event {event!r} comes from inside of a run, and cannot start one"
            yield Mistake(message, "Name a class of events that come from a topic", start.place, event=event)
        elif isinstance(event, str) and is_pattern(event):
            message = f"{event!r} stands for many types of events, and cannot start a run"
            cure = "Name a class for each type that starts one: such a class may be a subclass of this one"
            yield Mistake(message, cure, start.place, event=event)
        before = earlier.setdefault(event, []) if event else []
        yield from _never_tried(start, before, event)
        before.append(start)


def _never_tried(start: Start, before: list[Start], event: str) -> Iterator[Mistake]:
    """That a start never begins a run, since one of those before it does wherever it would."""
    always = next((one for one in before if one.guard is None), None)
    same = next((one for one in before if _is_alike(one, start)), None)
    if always is not None:
        message = f"the event {event!r} already starts a run, by the line at {always.place}"
        cure = (
            "Keep one of them, or give that one a condition, with when=: a start event makes one run, with one "
            "context, by the first line whose condition holds"
        )
        if start.guard is not None:
            message = f"this start on {event!r} is never tried: the one at {always.place} has no condition"
            cure = "Put it first, give the other one a condition, with when=, or remove it"
        yield Mistake(message, cure, start.place, event=event)
    elif same is not None:
        condition = name_of(start.guard)
        message = (
            f"this start on {event!r} never begins a run: the one at {same.place} comes first and has the same "
            f"condition {condition}, and the same build function"
        )
        cure = "Give it another condition, with when=, or remove it"
        yield Mistake(message, cure, start.place, event=event)


def _is_alike(one: Start, other: Start) -> bool:
    """Whether what is asked of both is the same, and of the same context."""
    return are_equal(one.guard, other.guard) and are_equal(one.build, other.build)


def _type(event: type[Event], claimed: dict[str, type[Event]]) -> Iterator[Mistake]:
    event_type: Any = event.event_type()
    place = event.event_place()
    if not event_type:
        message = f"the event class {event.__name__} names no type"
        yield Mistake(message, f'Write class {event.__name__}(Event, type="...")', place)
        return
    wrong = wrong_with_type(event_type)
    if wrong is not None:
        message = f"the event type {event_type!r} of {event.__name__} {wrong}"
        yield Mistake(message, "Use a shorter text of printable characters", place, event=str(event_type))
        return
    wrong = wrong_with_pattern(event_type)
    if wrong is not None:
        message = f"the event type {event_type!r} of {event.__name__} {wrong}"
        prefix = event_type.partition("*")[0].rstrip(".") or "order"
        cure = (
            f"Write '{prefix}.*' for {prefix!r} and all types below it, '*' for all types, or no '*' at all"
        )
        if not prefix[-1].isalnum():
            cure = (
                "A pattern stands for whole parts between dots: name each of the types; or have the topic make such "
                "types, with Topic(type=...) and several fields or a function, and write '*' behind a dot"
            )
        yield Mistake(message, cure, place, event=event_type)
        return
    if is_from_inside(event_type) and not is_pattern(event_type):
        message = f"the event type {event_type!r} of {event.__name__} is one that only runs themselves raise"
        cure = (
            "Take the done of a state or a step, failed of a step, Failed, or a timer (after); "
            "or give the class another type"
        )
        yield Mistake(message, cure, place, event=event_type)
    other = claimed.setdefault(event_type, event)
    if other is not event:
        message = f"the event type {event_type!r} of {event.__name__} is already that of {other.__name__}"
        cure = f"Use the one at {other.event_place()} in both places, or give one of them another type"
        yield Mistake(message, cure, place, event=event_type)


def _fields(event: type[Event]) -> Iterator[Mistake]:
    place, event_type = event.event_place(), event.event_type()
    if "meta" in event.__pydantic_fields__:
        message = f"the field 'meta' of {event.__name__} hides the meta that every event has"
        cure = 'Call the field otherwise and give it an alias: Field(alias="meta")'
        yield Mistake(message, cure, place, event=event_type)
    why = unfinished(event)
    if why is not None:
        message = f"the event class {event.__name__} cannot be validated: {why}"
        yield Mistake(message, "Define what its fields refer to, above the pipeline", place, event=event_type)
