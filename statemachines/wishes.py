"""What an action returns, turned into what is logged: publications, raised events, and what is sent or called off."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import BaseModel

from statemachines.checks.names import wrong_with_topic
from statemachines.compact import dumps_compact
from statemachines.context import Context
from statemachines.definition import Pipeline, State
from statemachines.effects import (
    Asked,
    Cancel,
    Compensate,
    Complete,
    Publication,
    Publish,
    Raise,
    Send,
    Settle,
)
from statemachines.events import Event, type_of
from statemachines.failing import HandlerError, check_exact, on_one_line, printable
from statemachines.later import mistake_in_token
from statemachines.limits import EFFECTS_MAX, KEY_BYTES_MAX
from statemachines.outcome import Reason
from statemachines.patterns import is_pattern
from statemachines.results import ResultError, stored
from statemachines.step import Step

_RETURNS = "an action returns None, an effect (Publish, Raise, Send, Cancel, Complete, Compensate, Settle) or several"
_wrong_with_topic = lru_cache(maxsize=1_000)(wrong_with_topic)
_new = tuple.__new__
Scope = str | Pipeline[Any] | None
"""What an action names to be undone, or not to be: a state by its name, the pipeline for the run; None: nothing."""


class Wish(NamedTuple):
    """What an action asked for beside publications and raised events, and when it is to come."""

    asked: Asked
    after: timedelta | None = None
    at: datetime | None = None
    by: str = ""
    """The name of the action."""


class Performed(NamedTuple):
    """All that an action asked for."""

    publications: tuple[Publication, ...] = ()
    raised: tuple[Event, ...] = ()
    wishes: tuple[Wish, ...] = ()
    compensates: tuple[Scope, ...] = ()
    """What is to be undone; None: the state of the transition."""
    settles: tuple[Scope, ...] = ()
    """The same of that of which nothing is to be undone any more."""


NOTHING = Performed()


def several(out: Any, name: str | None, key: str) -> Performed:
    asked: list[Publication] = []
    raised: list[Event] = []
    wishes: list[Wish] = []
    scopes: dict[type[Compensate | Settle], list[Scope]] = {Compensate: [], Settle: []}
    for number, effect in enumerate(_each(out, name)):
        if number >= EFFECTS_MAX:
            message = f"{name} asked for more than {EFFECTS_MAX} effects in one move"
            raise HandlerError(Reason.ACTION_FAILED, message, name or "")
        match effect:
            case Raise():
                _type_and_data("Raise", effect.event)
                raised.append(effect.event)
            case Send():
                wishes.append(_sent(effect, name or ""))
            case Cancel():
                _check_text("Cancel", "id", effect.id)
                wishes.append(Wish(Asked("cancel", id=effect.id)))
            case Complete():
                wishes.append(_completed(effect))
            case Compensate() | Settle():
                scopes[type(effect)].append(_scope(effect))
            case Publish() if effect.after is not None:
                wishes.append(_published_later(effect, key, name or ""))
            case Publish():
                asked.append(publication(effect, key))
            case _:
                if isinstance(out, str | bytes | dict):
                    raise _no_effect(out, name)
                raise _no_effect(effect, name, among="several with ")
    return Performed(
        tuple(asked), tuple(raised), tuple(wishes), tuple(scopes[Compensate]), tuple(scopes[Settle])
    )


def _each(out: Any, name: str | None) -> Iterator[Any]:
    """What an action returned, one by one; what each of them is was not looked at."""
    if isinstance(out, Publish | Raise | Send | Cancel | Complete | Compensate | Settle):
        return iter((out,))
    if not isinstance(out, list) and isinstance(out, BaseModel | type):
        # Some of these can be gone through, and one without fields has nothing in it.
        raise _no_effect(out, name)
    try:
        return iter(out)
    except TypeError:
        raise _no_effect(out, name) from None


def _scope(effect: Compensate | Settle) -> Scope:
    name = type(effect).__name__
    scope: object = effect.scope
    if scope is None or isinstance(scope, str | Pipeline):
        return scope
    if not isinstance(scope, State):
        message = f"{name} takes a state, its name, or the pipeline, not {type(scope).__name__}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    return scope.name


def _no_effect(returned: object, name: str | None, among: str = "") -> HandlerError:
    """What is wrong with something that an action returned, alone or among others, and what to write instead."""
    message = f"{name} returned {among}{_called(returned)}"
    if isinstance(returned, Event):
        cure = "wrap it to say what is to become of it, as in Publish(topic, ...), Raise(...) or Send(...)"
        message = f"{message}, an event: {cure}"
    elif isinstance(returned, Context):
        message = f"{message}, a context: the run's is changed in place, and is not returned"
    else:
        message = f"{message}; {_RETURNS}"
    return HandlerError(Reason.ACTION_FAILED, message, name or "")


def publication(effect: Publish, run_key: str) -> Publication:
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
        raise HandlerError(Reason.ACTION_FAILED, printable(message))
    data = event.__pydantic_serializer__.to_json(event, warnings=False, by_alias=True)
    return _new(Publication, (topic, event_type, key, data))


def _sent(effect: Send, by: str) -> Wish:
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
        raise HandlerError(Reason.ACTION_FAILED, printable(message))
    check_exact(data, f"the {event_type!r} that it is to send")
    asked = Asked("send", event_type, data, effect.id, effect.pipeline or "", effect.to)
    return Wish(asked, *_when("Send", effect.after, effect.at), by)


def _completed(effect: Complete[Any]) -> Wish:
    step: object = effect.step
    if not isinstance(step, Step):
        message = (
            f"Complete takes a step first, as in Complete(review, token, result), not {type(step).__name__}"
        )
        raise HandlerError(Reason.ACTION_FAILED, message)
    mistake = mistake_in_token(effect.token)
    if mistake:
        raise HandlerError(Reason.ACTION_FAILED, printable(f"Complete names {mistake}"))
    if effect.error is None:
        try:
            made = dumps_compact(stored(step, effect.result))
        except ResultError as error:
            raise HandlerError(Reason.ACTION_FAILED, f"Complete: {error}") from None
        return Wish(Asked("complete", step.name, made, effect.token))
    said = on_one_line(effect.error) if isinstance(effect.error, str) else ""
    if effect.result is not None or not said:
        message = f"the Complete of {step.name} takes a result, or an error as text that says why it failed"
        raise HandlerError(Reason.ACTION_FAILED, message)
    return Wish(Asked("fail", step.name, dumps_compact(said), effect.token))


def _published_later(effect: Publish, key: str, by: str) -> Wish:
    one = publication(effect, key)
    _check_text("Publish", "id", effect.id)
    check_exact(one.data, f"the {one.type!r} that it is to publish later")
    asked = Asked("publish", one.type, one.data, effect.id, key=one.key, topic=one.topic)
    return Wish(asked, *_when("Publish", effect.after, None), by)


def _when(what: str, after: Any, at: Any) -> tuple[timedelta | None, datetime | None]:
    if after is not None and at is not None:
        raise HandlerError(Reason.ACTION_FAILED, f"{what} takes after= or at=, not both")
    if after is not None and not isinstance(after, timedelta):
        message = f"{what} takes after= as a timedelta, not {type(after).__name__}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    if at is not None and (not isinstance(at, datetime) or at.utcoffset() is None):
        given = "one without" if isinstance(at, datetime) else type(at).__name__
        message = f"{what} takes at= as a datetime with a zone, not {given}"
        raise HandlerError(Reason.ACTION_FAILED, message)
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


def _called(event: object) -> str:
    return f"the class {event.__name__} itself" if isinstance(event, type) else type(event).__name__


def _check_text(what: str, word: str, text: Any) -> None:
    if not isinstance(text, str):
        message = f"{what} takes {word} as text, not {type(text).__name__}"
        raise HandlerError(Reason.ACTION_FAILED, message)
    if not text.isascii():
        text.encode()  # a lone surrogate is refused here, where it can be told whose it is
