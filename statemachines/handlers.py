"""Calls into user code, and what becomes of all that user code can do wrong.

Whatever a handler raises, ``BaseException`` included, ends here as a ``HandlerError``; so does what it
returns or leaves behind that cannot be. Nothing else in this package calls a guard, an action or a build.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from statemachines.checks.names import wrong_with_topic
from statemachines.definition import name_of
from statemachines.effects import Publication, Publish, Raise
from statemachines.events import Event, machine_of
from statemachines.limits import (
    CONTEXT_BYTES_MAX,
    EFFECTS_MAX,
    ERROR_CHARACTERS_MAX,
    KEPT_BYTES_MAX,
    KEPT_CONTEXTS_MAX,
)
from statemachines.outcome import Reason
from statemachines.places import place_of

if TYPE_CHECKING:
    from statemachines.context import Context
    from statemachines.machine import Machine


_RETURNS = "an action returns None, an effect (Publish, Raise) or several"
_new = tuple.__new__
_wrong_with_topic = lru_cache(maxsize=1_000)(wrong_with_topic)


class HandlerError(Exception):
    """User code raised, or returned or left behind what cannot be."""

    def __init__(self, reason: Reason, message: str, handler: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.handler = handler


class RaisesError(Exception):
    """An action raised an event where nobody takes it up: what led to it is to be done as a chart does it."""


def ask(guard: Callable[[Any, Any], Any], name: str | None, context: Context, event: Event) -> bool:
    """The answer of a guard."""
    try:
        answer = guard(context, event)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here
        raise HandlerError(Reason.GUARD_FAILED, describe(error, name), name or "") from None
    if answer is True or answer is False:
        return answer
    message = f"{name} returned {type(answer).__name__}; a guard answers True or False"
    raise HandlerError(Reason.GUARD_FAILED, message, name or "")


def act(
    action: Callable[[Any, Any], Any], name: str | None, context: Context, event: Event, key: str
) -> tuple[Publication, ...]:
    """What an action asks for, already turned into bytes; the context is changed in place.

    ``key`` is that of the run, for a ``Publish`` that names none.

    Raises:
        HandlerError: it raised, or returned what cannot be.
        RaisesError: it asked for an event to be raised.
    """
    try:
        out = action(context, event)
        if out is None:
            return ()
        raised: list[Event] = []
        if type(out) is Publish:
            asked: tuple[Publication, ...] = (_publication(out, key),)
        else:
            asked, raised = _several(out, name, key)
    except HandlerError as error:
        raise _of(error, name) from None
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here; serializers are user code too
        raise HandlerError(Reason.ACTION_FAILED, describe(error, name), name or "") from None
    if raised:
        raise RaisesError
    _check_outlet(asked, name, event)
    return asked


def perform(
    action: Callable[[Any, Any], Any], name: str, context: Context, event: Event, key: str
) -> tuple[tuple[Publication, ...], list[Event]]:
    """The same, with the events that it asks to be raised. Raises HandlerError."""
    try:
        out = action(context, event)
        if out is None:
            return (), []
        asked, raised = _several(out, name, key)
    except HandlerError as error:
        raise _of(error, name) from None
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here; serializers are user code too
        raise HandlerError(Reason.ACTION_FAILED, describe(error, name), name) from None
    _check_outlet(asked, name, event)
    return asked, raised


def answer(output: Callable[[Any, Any], Any], context: Context, event: Event) -> Any:
    """What a final state says. Raises HandlerError."""
    try:
        # As it could be stored: what is done to the context later on does not change what was said.
        return from_json(to_json(output(context, event)))
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here
        name = name_of(output)
        raise HandlerError(Reason.ACTION_FAILED, describe(error, name), name or "") from None


def _of(error: HandlerError, name: str | None) -> HandlerError:
    return error if error.handler else HandlerError(error.reason, f"{name}: {error}", name or "")


def _check_outlet(asked: tuple[Publication, ...], name: str | None, event: Event) -> None:
    machine = machine_of(event)
    if machine is not None and machine.outlet is not None:
        for publication in asked:
            why = machine.outlet(publication, event)
            if why:
                raise HandlerError(Reason.TOO_LARGE, _printable(f"{name} {why}"), name or "")


def build(machine: Machine, function: Callable[[Any], Any], name: str, event: Event) -> Context:
    """The context that a start function makes."""
    try:
        context: Any = function(event)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here
        raise HandlerError(Reason.ACTION_FAILED, describe(error, name)) from None
    if type(context) is not machine.context_class:
        wanted, got = machine.context_class.__name__, type(context).__name__
        message = f"{name} returned {got}, but the pipeline's context is {wanted}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    return context


def read(machine: Machine, written: bytes) -> Context:
    """The context as it was stored; one that nobody has had yet."""
    kept = machine.kept.pop(written, None)
    if kept is not None:
        return kept
    try:
        return machine.read_context(written)
    except ValueError as error:
        message = f"the stored context is no {machine.context_class.__name__} any more: {error}"
        raise HandlerError(Reason.ACTION_FAILED, _printable(message)) from None


def write(machine: Machine, context: Context, name: str | None) -> bytes:
    """The context as it is stored, once it was read back: a run goes on from what survived.

    What was read back is kept for the next who reads the same bytes, and for no other: he may change it.
    """
    try:
        written = machine.write_context(context, warnings=False, by_alias=True)
        survived = machine.read_context(written)
    except BaseException as error:  # noqa: BLE001 - user types may bring their own serializers
        message = (
            f"the context that {name} left does not survive being stored: {type(error).__name__}: {error}"
        )
        raise HandlerError(Reason.ACTION_FAILED, _printable(message), name or "") from None
    if len(written) > CONTEXT_BYTES_MAX:
        message = f"the context that {name} left takes {len(written)} bytes, of {CONTEXT_BYTES_MAX} allowed"
        raise HandlerError(Reason.ACTION_FAILED, message, name or "")
    if len(written) <= KEPT_BYTES_MAX:
        kept = machine.kept
        if len(kept) >= KEPT_CONTEXTS_MAX:
            kept.clear()
        kept[written] = survived
    return written


def describe(error: BaseException, name: str | None) -> str:
    """What happened in user code, in one printable line that names the handler and the place."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - an exception's own __str__ may raise too
        text = "(its message cannot be shown)"
    place = place_of(error)
    where = f" ({place})" if place.line else ""
    return _printable(f"{name} raised {type(error).__name__}: {text}", room=len(where)) + where


def _printable(text: str, room: int = 0) -> str:
    """``text`` without what a text column or a log line cannot hold, and not longer than the limit."""
    if len(text) > ERROR_CHARACTERS_MAX - room:
        text = text[: ERROR_CHARACTERS_MAX - room - 3] + "..."
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def _several(out: Any, name: str | None, key: str) -> tuple[tuple[Publication, ...], list[Event]]:
    if isinstance(out, Publish | Raise):
        out = (out,)
    try:
        several = iter(out)
    except TypeError:
        message = f"{name} returned {type(out).__name__}; {_RETURNS}"
        raise HandlerError(Reason.ACTION_FAILED, message, name or "") from None
    asked: list[Publication] = []
    raised: list[Event] = []
    for number, effect in enumerate(several):
        if number >= EFFECTS_MAX:
            message = f"{name} asked for more than {EFFECTS_MAX} effects in one move"
            raise HandlerError(Reason.ACTION_FAILED, message, name or "")
        if isinstance(effect, Raise):
            raised.append(_raised(effect))
        else:
            asked.append(_publication(effect, key))
    return tuple(asked), raised


def _raised(effect: Raise) -> Event:
    if not isinstance(effect.event, Event) or not effect.event.event_type():
        message = f"Raise needs an event whose class names a type, not {_called(effect.event)}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    return effect.event


def _publication(effect: Any, run_key: str) -> Publication:
    if not isinstance(effect, Publish):
        message = f"{_RETURNS}, not {type(effect).__name__}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    topic, event, key = effect
    event_type = event.event_type() if isinstance(event, Event) else ""
    if not event_type:
        message = f"Publish to {topic!r} needs an event whose class names a type"
        raise HandlerError(Reason.ACTION_FAILED, f"{message}, not {_called(event)}")
    key = run_key if key is None else key
    _check_text(topic)
    _check_text(key)
    wrong = _wrong_with_topic(topic)
    if wrong:
        message = f"Publish names the topic {topic!r}, which {wrong}: letters, digits, '.', '_' and '-'"
        raise HandlerError(Reason.ACTION_FAILED, _printable(message))
    data = event.__pydantic_serializer__.to_json(event, warnings=False, by_alias=True)
    return _new(Publication, (topic, event_type, key, data))


def _called(event: object) -> str:
    return f"the class {event.__name__} itself" if isinstance(event, type) else type(event).__name__


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        message = f"Publish takes topic and key as text, not {type(text).__name__}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    if not text.isascii():
        text.encode()  # a lone surrogate is refused here, where it can be told whose it is
