"""Calls into user code, and what becomes of all that user code can do wrong.

Whatever a handler raises, ``BaseException`` included, ends here as a ``HandlerError``; so does what it
returns or leaves behind that cannot be. Nothing else in this package calls a guard, an action, a build or
a key function.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from statemachines.checks.names import wrong_with_topic
from statemachines.definition import name_of
from statemachines.effects import Asked, Cancel, Publication, Publish, Raise, Send
from statemachines.events import Event, machine_of, type_of
from statemachines.limits import (
    CONTEXT_BYTES_MAX,
    EFFECTS_MAX,
    ERROR_CHARACTERS_MAX,
    KEY_BYTES_MAX,
)
from statemachines.outcome import Reason
from statemachines.patterns import is_pattern
from statemachines.places import place_of

if TYPE_CHECKING:
    from statemachines.context import Context
    from statemachines.machine import Machine


ERRORS_TOLD_MAX = 20
_RETURNS = "an action returns None, an effect (Publish, Raise, Send, Cancel) or several"
_new = tuple.__new__
_wrong_with_topic = lru_cache(maxsize=1_000)(wrong_with_topic)


class HandlerError(Exception):
    """User code raised, or returned or left behind what cannot be."""

    def __init__(self, reason: Reason, message: str, handler: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.handler = handler


class RaisesError(Exception):
    """An action asked for more than publications: what led to it is to be done as a chart does it."""


class Wish(NamedTuple):
    """What an action asked for beside publications and raised events, and when it is to come."""

    asked: Asked
    after: timedelta | None = None
    at: datetime | None = None


class Performed(NamedTuple):
    """All that an action asked for."""

    publications: tuple[Publication, ...] = ()
    raised: tuple[Event, ...] = ()
    wishes: tuple[Wish, ...] = ()


NOTHING = Performed()


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
        RaisesError: it asked for anything else.
    """
    try:
        out = action(context, event)
        if out is None:
            return ()
        if type(out) is Publish and out.after is None:
            asked: tuple[Publication, ...] = (_publication(out, key),)
            more = False
        else:
            asked, raised, wishes = _several(out, name, key)
            more = bool(raised or wishes)
    except HandlerError as error:
        raise _of(error, name) from None
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here; serializers are user code too
        raise HandlerError(Reason.ACTION_FAILED, describe(error, name), name or "") from None
    if more:
        raise RaisesError
    _check_outlet(asked, name, event)
    return asked


def perform(
    action: Callable[[Any, Any], Any], name: str, context: Context, event: Event, key: str
) -> Performed:
    """The same, with all else that it asks for. Raises HandlerError."""
    try:
        out = action(context, event)
        if out is None:
            return NOTHING
        performed = _several(out, name, key)
    except HandlerError as error:
        raise _of(error, name) from None
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here; serializers are user code too
        raise HandlerError(Reason.ACTION_FAILED, describe(error, name), name) from None
    _check_outlet(performed.publications, name, event)
    return performed


def time_asked(
    function: Callable[[Any], Any], name: str | None, context: Context
) -> timedelta | datetime | None:
    """When a state's timer falls due: after so long, at this time, or not at all. Raises HandlerError."""
    try:
        found = function(context)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here
        raise HandlerError(Reason.ACTION_FAILED, describe(error, name), name or "") from None
    if found is None or isinstance(found, timedelta):
        return found
    if isinstance(found, datetime) and found.tzinfo is not None:
        return found
    what = "a time without a zone" if isinstance(found, datetime) else type(found).__name__
    message = f"{name} returned {what}; it says when by a timedelta, a datetime with a zone, or None"
    raise HandlerError(Reason.ACTION_FAILED, message, name or "")


def ask_for_key(function: Callable[[Any], Any], name: str, data: dict[str, Any]) -> str | None:
    """The key that a function makes of the data, which it may change; None where it says that there is none.

    Raises:
        HandlerError: it raised, or returned what cannot be a key.
    """
    try:
        found = function(data)
        if isinstance(found, str):
            return str.__str__(found) or None
        if isinstance(found, int) and not isinstance(found, bool):
            return int.__repr__(found)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises ends here
        raise HandlerError(Reason.NO_KEY, describe(error, name), name) from None
    if found is None:
        return None
    message = f"{name} returned {type(found).__name__}; a key is text or a whole number, or None where there is none"
    raise HandlerError(Reason.NO_KEY, _printable(message), name)


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
    if machine.kept.contexts:
        kept = machine.kept.take(written)
        if kept is not None:
            return kept
    try:
        return machine.read_context(written)
    except ValueError as error:
        message = f"the stored context is no {machine.context_class.__name__} any more: {error}"
        raise HandlerError(Reason.ACTION_FAILED, _printable(message)) from None


def write(machine: Machine, context: Context, name: str | None, before: bytes = b"") -> bytes:
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
        raise HandlerError(Reason.ACTION_FAILED, _printable(message), name or "") from None
    if len(written) > CONTEXT_BYTES_MAX:
        message = f"the context that {name} left takes {len(written)} bytes, of {CONTEXT_BYTES_MAX} allowed"
        raise HandlerError(Reason.ACTION_FAILED, _printable(message + _growth(before, written)), name or "")
    machine.kept.keep(written, survived)
    return written


def validated(machine: Machine, event_type: str, data: Any) -> tuple[Event | None, str]:
    """The event from its data; or None, and what is wrong with the data.

    Of a type that the machine does not know it is an event without data: nothing takes it, whatever is in it.
    """
    validate = machine.validators.get(event_type)
    if validate is None:
        return Event.model_construct(), ""
    try:
        return validate({} if data is None else data), ""
    except BaseException as raised:  # noqa: BLE001 - a user's validator may raise anything
        return None, describe_invalid(raised)


def describe_invalid(raised: BaseException) -> str:
    """What is wrong with an event's data, by field."""
    if not isinstance(raised, ValidationError):
        return describe(raised, "the event's own validation")
    told = []
    for one in raised.errors(include_url=False, include_context=False, include_input=False)[:ERRORS_TOLD_MAX]:
        place = ".".join(str(part) for part in one["loc"]) or "the data"
        told.append(f"{place}: {one['msg']}")
    return "; ".join(told)


def _growth(before: bytes, after: bytes) -> str:
    """Which field grew most, as the end of a sentence."""
    was, now = (_sizes(one) for one in (before, after))
    name = max(now, key=lambda one: now[one] - was.get(one, 0))
    return f"; its field {name!r} grew most, from {was.get(name, 0)} to {now[name]} bytes"


def _sizes(written: bytes) -> dict[str, int]:
    return {name: len(to_json(value)) for name, value in (from_json(written) if written else {}).items()}


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


def _several(out: Any, name: str | None, key: str) -> Performed:
    if isinstance(out, Publish | Raise | Send | Cancel):
        out = (out,)
    try:
        several = iter(out)
    except TypeError:
        message = f"{name} returned {type(out).__name__}; {_RETURNS}"
        raise HandlerError(Reason.ACTION_FAILED, message, name or "") from None
    asked: list[Publication] = []
    raised: list[Event] = []
    wishes: list[Wish] = []
    for number, effect in enumerate(several):
        if number >= EFFECTS_MAX:
            message = f"{name} asked for more than {EFFECTS_MAX} effects in one move"
            raise HandlerError(Reason.ACTION_FAILED, message, name or "")
        match effect:
            case Raise():
                _type_and_data("Raise", effect.event)
                raised.append(effect.event)
            case Send():
                wishes.append(_sent(effect))
            case Cancel():
                _check_text("Cancel", "id", effect.id)
                wishes.append(Wish(Asked("cancel", id=effect.id)))
            case Publish() if effect.after is not None:
                wishes.append(_published_later(effect, key))
            case _:
                asked.append(_publication(effect, key))
    return Performed(tuple(asked), tuple(raised), tuple(wishes))


def _sent(effect: Send) -> Wish:
    event_type, data = _type_and_data("Send", effect.event)
    for word, text in (("to", effect.to), ("pipeline", effect.pipeline), ("id", effect.id)):
        if text is not None:
            _check_text("Send", word, text)
    if effect.pipeline is not None and not effect.to:
        raise HandlerError(Reason.ACTION_FAILED, "Send to another pipeline needs the key of a run: to=...")
    if effect.to is not None and (
        not effect.to or "\0" in effect.to or len(effect.to.encode()) > KEY_BYTES_MAX
    ):
        message = (
            f"Send names a run by {effect.to!r:.100}, which is empty, has a NUL or is too long for a key"
        )
        raise HandlerError(Reason.ACTION_FAILED, _printable(message))
    asked = Asked("send", event_type, data, effect.id, effect.pipeline or "", effect.to)
    return Wish(asked, *_when("Send", effect.after, effect.at))


def _published_later(effect: Publish, key: str) -> Wish:
    one = _publication(effect, key)
    _check_text("Publish", "id", effect.id)
    asked = Asked("publish", one.type, one.data, effect.id, key=one.key, topic=one.topic)
    return Wish(asked, *_when("Publish", effect.after, None))


def _when(what: str, after: Any, at: Any) -> tuple[timedelta | None, datetime | None]:
    if after is not None and at is not None:
        raise HandlerError(Reason.ACTION_FAILED, f"{what} takes after= or at=, not both")
    if after is not None and not isinstance(after, timedelta):
        message = f"{what} takes after= as a timedelta, not {type(after).__name__}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    if at is not None and (not isinstance(at, datetime) or at.tzinfo is None):
        raise HandlerError(
            Reason.ACTION_FAILED, f"{what} takes at= as a datetime with a zone, not {at!r:.100}"
        )
    return after, at


def _type_and_data(what: str, event: Any) -> tuple[str, bytes]:
    event_type = event.event_type() if isinstance(event, Event) else ""
    if not event_type:
        message = f"{what} needs an event whose class names a type, not {_called(event)}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    if is_pattern(event_type):
        raise HandlerError(Reason.ACTION_FAILED, f"{what} needs an event of one type, {_one_type(event)}")
    if what == "Raise":
        return event_type, b""
    return event_type, event.__pydantic_serializer__.to_json(event, warnings=False, by_alias=True)


def _one_type(event: Event) -> str:
    name, pattern = type(event).__name__, event.event_type()
    return f"and {name} stands for all of {pattern!r}: make it of {name}.named('the.type')"


def _publication(effect: Any, run_key: str) -> Publication:
    if not isinstance(effect, Publish):
        message = f"{_RETURNS}, not {type(effect).__name__}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    topic, event, key, _, _ = effect
    event_type = type_of(event) if isinstance(event, Event) else ""
    if not event_type:
        if isinstance(event, Event) and event.event_type():
            message = f"Publish to {topic!r} needs an event of one type, {_one_type(event)}"
            raise HandlerError(Reason.ACTION_FAILED, message)
        message = f"Publish to {topic!r} needs an event whose class names a type"
        raise HandlerError(Reason.ACTION_FAILED, f"{message}, not {_called(event)}")
    key = run_key if key is None else key
    _check_text("Publish", "topic", topic)
    _check_text("Publish", "key", key)
    wrong = _wrong_with_topic(topic)
    if wrong:
        message = f"Publish names the topic {topic!r}, which {wrong}: letters, digits, '.', '_' and '-'"
        raise HandlerError(Reason.ACTION_FAILED, _printable(message))
    data = event.__pydantic_serializer__.to_json(event, warnings=False, by_alias=True)
    return _new(Publication, (topic, event_type, key, data))


def _called(event: object) -> str:
    return f"the class {event.__name__} itself" if isinstance(event, type) else type(event).__name__


def _check_text(what: str, word: str, text: Any) -> None:
    if not isinstance(text, str):
        message = f"{what} takes {word} as text, not {type(text).__name__}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    if not text.isascii():
        text.encode()  # a lone surrogate is refused here, where it can be told whose it is
