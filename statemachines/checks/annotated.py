"""Functions whose annotations say that they are for something else than they are given, or return what cannot be."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_origin

from statemachines.checks.handlers import bare, is_async
from statemachines.checks.hints import RETURN, argument_of, hint_of, may_be, named, parts_of
from statemachines.context import Context
from statemachines.definition import Pipeline, name_of
from statemachines.done import Done
from statemachines.events import Event, is_event_class
from statemachines.mistakes import Mistake
from statemachines.patterns import is_pattern
from statemachines.places import Place
from statemachines.step import Compensation, Step


class _Handler(NamedTuple):
    role: str
    function: Any
    event: Any
    """The class that it is given; None where nobody says which."""
    state: str | None
    place: Place

    @property
    def called(self) -> str:
        return f"the {self.role} {name_of(self.function)}"


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All of them. They are warnings: Python does not look at annotations, and the data may fit all the same."""
    has_context = isinstance(pipeline.context, type) and issubclass(pipeline.context, Context)
    steps: dict[type[Event], Step[Any, Any]] = {
        one.done_class: one for one in pipeline.steps if one.done_class is not None
    }
    for one in _handlers(pipeline):
        if not _is_sound(one):
            continue
        event_at = 0 if one.role == "build function" else 1
        yield from _event(one, event_at)
        yield from _result_of_step(one, event_at, steps)
        if has_context and event_at:
            yield from _context(one, pipeline.context)
        yield from _returned(one, pipeline.context if has_context else None)
    for step in pipeline.works if has_context else ():
        yield from _context_of_step(step, pipeline.context)


def _handlers(pipeline: Pipeline[Any]) -> Iterator[_Handler]:
    for start in pipeline.starts:
        yield _Handler("build function", start.build, start.event, None, start.place)
        yield _Handler("guard", start.guard, start.event, None, start.place)
        yield _Handler("action", start.action, start.event, None, start.place)
    for move in pipeline.moves:
        yield _Handler("guard", move.guard, move.event, move.source, move.place)
        yield _Handler("action", move.action, move.event, move.source, move.place)
    for state in pipeline.states:
        for function, place in state.entries:
            yield _Handler("entry action", function, None, state.name, place)
        for function, place in state.exits:
            yield _Handler("exit action", function, None, state.name, place)
        if state.beginning is not None:
            yield _Handler("action", state.beginning.action, None, state.name, state.beginning.place)


def _is_sound(one: _Handler) -> bool:
    """Whether it is called as it says; else that is a mistake of its own."""
    if not callable(one.function) or is_async(one.function):
        return False
    if not one.role.endswith("action") and inspect.isgeneratorfunction(bare(one.function)):
        return False
    try:
        inspect.signature(one.function).bind(*[None] * (1 if one.role == "build function" else 2))
    except (TypeError, ValueError):
        return False
    return True


def _event(one: _Handler, at: int) -> Iterator[Mistake]:
    if not is_event_class(one.event):
        return
    event_type: object = one.event.event_type()
    if not isinstance(event_type, str) or is_pattern(event_type):
        # What is no text is a mistake of its own; what a pattern stands for may come as any class.
        return
    said = hint_of(one.function, at)
    if said is None or any(_may_take(part, one.event) for part in parts_of(said)):
        return
    wanted = one.event.__name__
    message = f"{one.called} is for {named(said)}, by its annotation, and is given {wanted}"
    yield _warning(one, message, f"Annotate the event as {wanted}, or name another function or event here")


def _context(one: _Handler, context: type[Context]) -> Iterator[Mistake]:
    said = hint_of(one.function, 0)
    if said is None or any(_may_take(part, context) for part in parts_of(said)):
        return
    wanted = context.__name__
    message = f"{one.called} is for the context {named(said)}, by its annotation, and is given {wanted}"
    yield _warning(one, message, f"Annotate the context as {wanted}, or name another function here")


def _returned(one: _Handler, context: type[Context] | None) -> Iterator[Mistake]:
    said = hint_of(one.function, RETURN)
    if said is None:
        return
    parts = parts_of(said)
    begins = f"{one.called} returns {named(said)}, by its annotation, and"
    if one.role == "guard":
        if not any(_may_return(part, bool) for part in parts):
            yield _warning(
                one, f"{begins} a guard answers True or False", "Let it answer so, and write -> bool"
            )
    elif one.role == "build function":
        if context is not None and not any(_may_return(part, context) for part in parts):
            wanted = context.__name__
            message = f"{begins} the pipeline's context is {wanted}"
            yield _warning(one, message, f"Let it return that, and write -> {wanted}")
    elif all(_is_below(part, Event) for part in parts):
        cure = "Wrap it to say what is to become of it, as in Publish(topic, ...), Raise(...) or Send(...)"
        yield _warning(one, f"{begins} an event alone is no effect", cure)
    elif all(_is_below(part, Context) for part in parts):
        cure = "Change the context in place, and write -> None where there is no effect"
        yield _warning(one, f"{begins} a context is no effect", cure)


def _result_of_step(one: _Handler, at: int, steps: Mapping[type[Event], Step[Any, Any]]) -> Iterator[Mistake]:
    step = steps.get(one.event) if is_event_class(one.event) else None
    said = None if step is None else argument_of(one.function, at, Done)
    if step is None or said is None:
        return
    try:
        result = step.result_type
        fits = any(may_be(part, each) for each in parts_of(said) for part in parts_of(result))
    except Exception:  # noqa: BLE001 - annotations are user code, and the check of steps tells of this one
        return
    if not fits:
        message = (
            f"{one.called} is for Done[{named(said)}], by its annotation, and the step {step.name!r} returns "
            f"{named(result)}"
        )
        yield _warning(one, message, f"Annotate the event as Done[{named(result)}]")


def _context_of_step(step: Step[Any, Any], context: type[Context]) -> Iterator[Mistake]:
    try:
        name = next(iter(inspect.signature(step.function).parameters))
        said = step.annotation_of(name)
    except Exception:  # noqa: BLE001 - it says nothing, or what it says is a mistake of its own
        return
    if any(_may_take(part, context) for part in parts_of(said)):
        return
    kind, wanted = "compensation" if isinstance(step, Compensation) else "step", context.__name__
    message = (
        f"the {kind} {step.name!r} is for the context {named(said)}, by its annotation, and is given {wanted}"
    )
    cure = f"Annotate the context as {wanted}, or make it a {kind} of another pipeline"
    yield Mistake(message, cure, step.place, severity="warning")


def _may_take(said: Any, given: type) -> bool:
    """Whether what is given may be meant; what is no class of events or contexts says nothing of it."""
    if not _is_below(said, Event) and not _is_below(said, Context):
        return said is not types.NoneType
    return issubclass(given, said) or _has_variables(said)


def _may_return(said: Any, wanted: type) -> bool:
    """Whether what is returned may be what is wanted; what is no class says nothing of it."""
    found = get_origin(said) or said
    if not isinstance(found, type) or found is Any:
        return True
    try:
        is_open = getattr(found, "_is_protocol", False) or _has_variables(found)
        return is_open or (issubclass(wanted, found) and found is not int)
    except Exception:  # noqa: BLE001 - classes of classes are user code
        return True


def _is_below(said: Any, above: type) -> bool:
    return isinstance(said, type) and issubclass(said, above)


def _has_variables(said: Any) -> bool:
    """Whether it is a generic model of which nobody says what it is made of."""
    return bool(getattr(said, "__pydantic_generic_metadata__", {}).get("parameters"))


def _warning(one: _Handler, message: str, cure: str) -> Mistake:
    event_type = one.event.event_type() if is_event_class(one.event) else None
    return Mistake(message, cure, one.place, state=one.state, event=event_type, severity="warning")
