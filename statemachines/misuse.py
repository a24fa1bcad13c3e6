"""What the test kits say of arguments that are not what they take, in place of errors from within.

All of it raises AssertionError with a sentence.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from statemachines.context import Context
from statemachines.definition import Pipeline, State
from statemachines.effects import Publish
from statemachines.events import Envelope, Event
from statemachines.outcome import Reason
from statemachines.step import Compensation, Step
from statemachines.suggest import did_you_mean

_WORDS: Mapping[type, str] = {
    datetime: "a datetime",
    timedelta: "a timedelta",
    str: "text",
    Pipeline: "a pipeline",
    Mapping: "a mapping",
    Envelope: "an Envelope",
}
T = TypeVar("T")


def taken(given: T, kind: type, what: str, such_as: str = "") -> T:
    """The same, where it is of this kind; ``what`` takes it."""
    example = f", as in {such_as}" if such_as else ""
    assert isinstance(given, kind), (
        f"{what} is {_WORDS.get(kind, kind.__name__)}{example}, and not {called(given)}"
    )
    return given


def event_given(given: Any) -> Event:
    """An event that comes, or is published."""
    if isinstance(given, Event):
        return given
    assert not isinstance(given, list | tuple) or isinstance(given, Publish), (
        f"events are given one by one, and not as a {type(given).__name__}: write * before it"
    )
    cure = "give an instance of its class"
    if isinstance(given, type):
        cure = f"make one of it, as in {given.__name__}(...)"
    elif isinstance(getattr(given, "event", None), Event):
        cure = "give the event in it"
    raise AssertionError(f"{called(given)} is no event: {cure}")


def step_given(given: Any) -> Step[Any, Any]:
    """A step, or a compensation."""
    if isinstance(given, Step):
        return given
    assert not isinstance(given, list | tuple), (
        f"steps are given one by one, and not as a {type(given).__name__}: write * before it"
    )
    cure = "give what @flow.step() has made"
    if isinstance(given, str):
        cure = "give the step itself, and not its name"
    elif isinstance(given, State):
        cure = "it runs none" if given.run is None else "give the step that it runs"
    elif isinstance(given, type) and issubclass(given, Event):
        cure = "give the step whose end it tells"
    elif callable(given):
        cure = "give what @flow.step() has made of it"
    what = repr(given) if isinstance(given, str) else called(given)
    raise AssertionError(f"{what} is no step: {cure}")


def compensation_given(given: Any) -> Compensation[Any, Any]:
    """A compensation."""
    step = step_given(given)
    assert isinstance(step, Compensation), (
        f"the step {step.name!r} undoes nothing: how it ended is said by step_done and step_failed"
    )
    return step


def raised(given: Any) -> BaseException | str:
    """What a step raises, or the text that says why it failed; of a class one is made, as ``raise`` does."""
    if isinstance(given, BaseException | str):
        return given
    is_class = isinstance(given, type) and issubclass(given, BaseException)
    assert is_class, (
        f"a step fails with an exception, or with text that says why, and not with {called(given)}"
    )
    try:
        made: object = given()
    except Exception as error:  # noqa: BLE001 - classes of exceptions are user code
        why = f"{type(error).__name__}: {error}"
        message = f"{given.__name__} cannot be made without arguments, as raise does it ({why}): give one that is made"
        raise AssertionError(message) from None
    assert isinstance(made, BaseException), f"{given.__name__}() is {called(made)}, which cannot be raised"
    return made


def reason_given(given: Any) -> Reason:
    """Why an event was not applied."""
    if given in [one.value for one in Reason]:
        return Reason(given)
    said = did_you_mean(given, [one.value for one in Reason])
    raise AssertionError(f"a reason is one of Reason, as in Reason.NO_RUN, and not {given!r}. {said}")


def configuration_given(given: Any) -> None:
    """The active states, in one text."""
    wanted = "state= is the names of all active states in one text, outermost first"
    assert given is None or isinstance(given, str), (
        f"{wanted}, and not {called(given)}: is_in= takes states, and names"
    )


def states_given(given: Any) -> list[str]:
    """The names of states of which each is to be active."""
    several = [given] if isinstance(given, str | State) else given
    for one in several if isinstance(several, Iterable) else [several]:
        assert isinstance(one, str | State), f"is_in= takes states, or their names, and not {called(one)}"
    return [str(one) for one in several]


def fields_given(given: Any, context: Context) -> Mapping[str, Any]:
    """Fields of the context, or properties, with the values that they are to have."""
    found: Mapping[Any, Any] = taken(given, Mapping, "context=", 'context={"amount": 5}')
    for name in found:
        known = isinstance(name, str) and (hasattr(type(context), name) or hasattr(context, name))
        assert known, f"the context has no field {name!r}. {did_you_mean(name, type(context).model_fields)}"
    return found


def published_given(given: Any) -> list[Event | Publish]:
    """What is to have been published."""
    is_one = isinstance(given, Event | Publish | str) or not isinstance(given, Iterable)
    assert not is_one, f"publishes= takes a list, as in publishes=[Paid(...)], and not {called(given)} alone"
    for one in given:
        if isinstance(one, Publish):
            event_given(one.event)
        else:
            event_given(one)
    return list(given)


def called(given: Any) -> str:
    """What something is, in a word or two."""
    if isinstance(given, type):
        return f"the class {given.__name__} itself"
    return f"the function {given.__name__}" if inspect.isroutine(given) else type(given).__name__
