"""Calls into user code, and what becomes of all that user code can do wrong.

Whatever a handler raises, ``BaseException`` included, ends here as a ``HandlerError``; so does what it
returns or leaves behind that cannot be. Nothing else in this package calls a guard, an action, a build, a
key or a type function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import from_json, to_json

from statemachines.definition import name_of
from statemachines.effects import Publication, Publish
from statemachines.events import Event, machine_of
from statemachines.failing import HandlerError, check_exact, describe, describe_invalid, printable
from statemachines.limits import CONTEXT_BYTES_MAX
from statemachines.outcome import Reason
from statemachines.wishes import NOTHING, Performed, publication, several

__all__ = ["HandlerError", "describe", "describe_invalid"]

if TYPE_CHECKING:
    from statemachines.context import Context
    from statemachines.machine import Machine


_new = tuple.__new__
_NO_EVENT = Event.model_construct()


class Acted(NamedTuple):
    """What handlers have done already, and are not to do once more: they may have changed the event as well."""

    context: Context
    """As the action has left it."""
    performed: Performed
    refusals: int = 0
    """How many guards were asked before, none of which held; that of the transition itself does."""


class RaisesError(Exception):
    """An action asked for more than publications: what led to it is to be finished as a chart does it."""

    def __init__(self, performed: Performed) -> None:
        super().__init__()
        self.performed = performed


def ask(guard: Callable[[Any, Any], Any], name: str | None, context: Context, event: Event) -> bool:
    """The answer of a guard, which changes nothing.

    Raises:
        HandlerError: it raised, has another answer than True or False, or has assigned to the context. Where it changes
            what is in there, such as a list, that is not seen.
    """
    fields = context.__dict__
    before = fields.copy()
    try:
        answer = guard(context, event)
        changed = _assigned(context, before) if fields != before else None
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here
        raise HandlerError(Reason.GUARD_FAILED, describe(error, name), name or "", error) from None
    if changed:
        message = f"{name} changed {changed!r} of the context: a guard only answers, and an action changes it"
        raise HandlerError(Reason.GUARD_FAILED, message, name or "")
    if answer is True or answer is False:
        return answer
    message = f"{name} returned {type(answer).__name__}; a guard answers True or False"
    raise HandlerError(Reason.GUARD_FAILED, message, name or "")


def _assigned(context: Context, before: Mapping[str, Any]) -> str | None:
    """The first field with another value than before; None: it is only something that the context keeps beside them."""
    for name in type(context).__pydantic_fields__:
        if context.__dict__.get(name) != before.get(name):
            return name
    return None


def act(
    action: Callable[[Any, Any], Any], name: str | None, context: Context, event: Event, key: str
) -> tuple[Publication, ...]:
    """What an action asks for, already turned into bytes; the context is changed in place.

    ``key`` is that of the run, for a ``Publish`` that names none.

    Raises:
        HandlerError: it raised, or returned what cannot be.
        RaisesError: it asked for anything else.
    """
    try:
        out = action(context, event)
        if out is None:
            return ()
        if type(out) is Publish and out.after is None:
            asked: tuple[Publication, ...] = (publication(out, key),)
            more = False
        else:
            performed = several(out, name, key)
            asked = performed.publications
            more = bool(performed.raised or performed.wishes or performed.compensates or performed.settles)
    except HandlerError as error:
        raise _of(error, name) from None
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here; serializers are user code too
        raise HandlerError(Reason.ACTION_FAILED, describe(error, name), name or "", error) from None
    _check_outlet(asked, name, event)
    if more:
        raise RaisesError(performed)
    return asked


def perform(
    action: Callable[[Any, Any], Any], name: str, context: Context, event: Event, key: str
) -> Performed:
    """The same, with all else that it asks for. Raises HandlerError."""
    try:
        out = action(context, event)
        if out is None:
            return NOTHING
        performed = several(out, name, key)
    except HandlerError as error:
        raise _of(error, name) from None
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here; serializers are user code too
        raise HandlerError(Reason.ACTION_FAILED, describe(error, name), name, error) from None
    _check_outlet(performed.publications, name, event)
    return performed


def time_asked(
    function: Callable[[Any], Any], name: str | None, context: Context
) -> timedelta | datetime | None:
    """When a state's timer falls due: after so long, at this time, or not at all. Raises HandlerError."""
    try:
        found = function(context)
        zoned = isinstance(found, datetime) and found.utcoffset() is not None
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here
        raise HandlerError(Reason.ACTION_FAILED, describe(error, name), name or "", error) from None
    if found is None or isinstance(found, timedelta):
        return found
    if isinstance(found, datetime) and zoned:
        return found
    what = "a time without a zone" if isinstance(found, datetime) else type(found).__name__
    message = f"{name} returned {what}; it says when by a timedelta, a datetime with a zone, or None"
    raise HandlerError(Reason.ACTION_FAILED, message, name or "")


def ask_for_key(function: Callable[[Any], Any], name: str, data: dict[str, Any]) -> str | None:
    """The key that a function makes of the data, which it may change; None where it says that there is none.

    Raises:
        HandlerError: it raised, or returned what cannot be a key.
    """
    return _text_of(function, name, data, Reason.NO_KEY, "key")


def ask_for_type(function: Callable[[Any], Any], name: str, data: dict[str, Any]) -> str | None:
    """The same of the type of an event."""
    return _text_of(function, name, data, Reason.UNREADABLE, "type")


def _text_of(
    function: Callable[[Any], Any], name: str, data: dict[str, Any], reason: Reason, what: str
) -> str | None:
    try:
        found = function(data)
        if isinstance(found, str):
            return str.__str__(found) or None
        if isinstance(found, int) and not isinstance(found, bool):
            return int.__repr__(found)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here
        raise HandlerError(reason, describe(error, name), name, error) from None
    if found is None:
        return None
    message = f"{name} returned {type(found).__name__}; a {what} is text or a whole number, or None where there is none"
    raise HandlerError(reason, printable(message), name)


def answer(output: Callable[[Any, Any], Any], context: Context, event: Event) -> Any:
    """What a final state says. Raises HandlerError."""
    try:
        # As it could be stored: what is done to the context later on does not change what was said.
        said = to_json(output(context, event), inf_nan_mode="null")
        check_exact(said, "what it said")
        return from_json(said)
    except HandlerError as error:
        raise _of(error, name_of(output)) from None
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here
        name = name_of(output)
        raise HandlerError(Reason.ACTION_FAILED, describe(error, name), name or "", error) from None


def _of(error: HandlerError, name: str | None) -> HandlerError:
    return error if error.handler else HandlerError(error.reason, f"{name}: {error}", name or "")


def _check_outlet(asked: tuple[Publication, ...], name: str | None, event: Event) -> None:
    machine = machine_of(event)
    if machine is not None and machine.outlet is not None:
        for publication in asked:
            why = machine.outlet(publication, event)
            if why:
                raise HandlerError(Reason.TOO_LARGE, printable(f"{name} {why}"), name or "")


def build(machine: Machine, function: Callable[[Any], Any], name: str, event: Event) -> Context:
    """The context that a start function makes."""
    try:
        context: Any = function(event)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here
        raise HandlerError(Reason.ACTION_FAILED, describe(error, name), raised=error) from None
    if type(context) is not machine.context_class:
        wanted, got = machine.context_class.__name__, type(context).__name__
        message = f"{name} returned {got}, but the pipeline's context is {wanted}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    return context


def read_anew(machine: Machine, written: bytes) -> Context:
    """The context as it was stored."""
    try:
        return machine.read_context(written)
    except ValueError as error:
        message = f"the stored context is no {machine.context_class.__name__} any more: {error}"
        raise HandlerError(Reason.ACTION_FAILED, printable(message)) from None


def write_and_read_back(machine: Machine, context: Context, name: str | None, before: bytes) -> bytes:
    """The context as it is stored, once it was read back: a run goes on from what survived.

    ``before`` is how the run has it, to tell what has grown; empty where the run begins.
    What was read back is kept for the next who reads the same bytes, and for no other: he may change it.
    """
    try:
        written = machine.write_context(context, warnings=False, by_alias=True)
        survived = machine.read_context(written)
    except BaseException as error:  # noqa: BLE001 - user types may bring their own serializers
        message = (
            f"the context that {name} left does not survive being stored: {type(error).__name__}: {error}"
        )
        raise HandlerError(Reason.ACTION_FAILED, printable(message), name or "", error) from None
    if len(written) > CONTEXT_BYTES_MAX:
        message = f"the context that {name} left takes {len(written)} bytes, of {CONTEXT_BYTES_MAX} allowed"
        raise HandlerError(Reason.ACTION_FAILED, printable(message + _growth(before, written)), name or "")
    machine.kept.keep(written, survived)
    return written


def validated(machine: Machine, event_type: str, data: Any) -> tuple[Event | None, str]:
    """The event from its data; or None, and what is wrong with the data.

    Of a type that the machine does not know it is an event without data: nothing takes it, whatever is in it.
    """
    validate = machine.validators.get(event_type)
    if validate is None:
        return _NO_EVENT, ""
    try:
        return validate({} if data is None else data), ""
    except BaseException as raised:  # noqa: BLE001 - a user's validator may raise anything
        return None, describe_invalid(raised)


def _growth(before: bytes, after: bytes) -> str:
    """Which field grew most, as the end of a sentence."""
    was, now = (_sizes(one) for one in (before, after))
    name = max(now, key=lambda one: now[one] - was.get(one, 0))
    return f"; its field {name!r} grew most, from {was.get(name, 0)} to {now[name]} bytes"


def _sizes(written: bytes) -> dict[str, int]:
    return {name: len(to_json(value)) for name, value in (from_json(written) if written else {}).items()}
