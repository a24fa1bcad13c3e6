"""Which run an event belongs to: the key, read from its data as its class or its pipeline says.

``key=`` of a class and ``by=`` of ``Pipeline.key`` name one of

- a field, ``"order_id"``: text, or a whole number, which counts as its decimal text;
- a field within a field, ``"s3.object.key"``, where a field whose own name has a dot is found first, and a number
  counts the elements of an array;
- several of them, ``("tenant", "order_id")``: the key is their texts joined by ``/``, in each of which ``%`` is
  written ``%25`` and ``/`` is written ``%2F``, so that different parts never make the same key. One alone stays as
  it is;
- a function of the data, which returns text, a whole number, or None where there is no key.

What has no text there, or empty text, has no key, and neither has what lacks one of several fields.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from statemachines.definition import name_of
from statemachines.events import Event, KeyBy
from statemachines.fields import Steps, descend, step_of
from statemachines.handlers import ask_for_key


class KeyField(NamedTuple):
    """A field, wherever it is."""

    name: str
    """As the definition says it."""
    whole: str | None
    """The name with dots in it that comes first, where the data has a field of this very name."""
    steps: Steps
    """The way to it, by what the fields are called in the data."""


class KeyFields(NamedTuple):
    """One field that is not simply in the data by its name, or several."""

    fields: tuple[KeyField, ...]


class KeyFunction(NamedTuple):
    """A function of the data: user code."""

    function: Any
    name: str


How = str | KeyFields | KeyFunction
"""How a key is read. A text names a field that is in the data by this name, which is what nearly all have."""


class Found(NamedTuple):
    """One step of a way through the fields of models."""

    name: str
    model: type[BaseModel] | None
    """None: what is there says nothing of its fields."""
    field: FieldInfo | None
    """None: the model has no such field, or there is no model."""


def how_keyed(event: type[Event], by: KeyBy | None = None) -> How | None:
    """How the key of an event of this class is read, by what overrides it or else by what it says itself.

    None: it is the topic's settings that decide.
    """
    given = event.event_key() if by is None else by
    if given is None:
        return None
    if callable(given):
        return KeyFunction(given, name_of(given) or "")
    if isinstance(given, str):
        way = _way(event, given)
        return KeyFields((way,)) if way.whole else way.steps[0][0]
    return KeyFields(tuple(_way(event, name) for name in given))


def key_of(how: How | None, data: Any, otherwise: str | None) -> str | None:
    """The key of the run that an event with this data belongs to, or None where none can be read.

    ``otherwise`` is what the record itself says (Kafka key, subject). Data need not be valid: an event that
    fails its schema still belongs to a run if its key can be read. Whole numbers count as their decimal
    text. A function may change the data that it is given.

    Raises:
        HandlerError: a function raised, or returned what cannot be a key.
    """
    if type(how) is str:
        value = data.get(how) if isinstance(data, dict) else None
        if isinstance(value, str):
            return value or None
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return None
    if how is None:
        return otherwise
    if not isinstance(data, dict):
        return None
    if isinstance(how, KeyFunction):
        return ask_for_key(how.function, how.name, data)
    assert isinstance(how, KeyFields)
    return _joined(how.fields, data)


def why_no_key(how: How, names: str) -> str:
    """What a sentence says of data without a key; ``names`` is who says how it is read."""
    if isinstance(how, KeyFunction):
        return f"the function {how.name}, which {names} names as the key, returned None, or the data is no object"
    if isinstance(how, KeyFields) and len(how.fields) > 1:
        listed = ", ".join(repr(field.name) for field in how.fields)
        return (
            f"the fields {listed} of the data, which {names} names as the key, do not make one: each must be "
            "there, and be text that is not empty or a whole number"
        )
    name = how if isinstance(how, str) else how.fields[0].name
    return f"the field {name!r} of the data, which {names} names as the key, is missing, empty, no text or number"


def walk(model: type[BaseModel], name: str) -> Iterator[Found]:
    """The steps to a field, as far as the models know it: the whole name first, then part by part."""
    known: type[BaseModel] | None = model
    for part in [name] if _has(model, name) or "." not in name else name.split("."):
        field = _field(known, part) if known is not None else None
        yield Found(part, known, field)
        known = None if field is None else _model_in(field.annotation)


def _way(model: type[BaseModel], name: str) -> KeyField:
    steps = tuple(step_of(_called(one)) for one in walk(model, name))
    return KeyField(name, name if len(steps) > 1 else None, steps)


def _called(found: Found) -> str:
    alias = None if found.field is None else found.field.validation_alias
    return alias if isinstance(alias, str) else found.name


def _has(model: type[BaseModel], name: str) -> bool:
    return _field(model, name) is not None


def _field(model: type[BaseModel], name: str) -> FieldInfo | None:
    fields = model.__pydantic_fields__
    found = fields.get(name)
    if found is None and "." in name:
        # No field of a class has a dot in its name, but its alias may.
        found = next((field for field in fields.values() if field.validation_alias == name), None)
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [one for one in get_args(annotation) if one is not type(None)]
        return _model_in(inner[0]) if len(inner) == 1 else None
    return None


def _joined(fields: tuple[KeyField, ...], data: dict[str, Any]) -> str | None:
    texts: list[str] = []
    for _, whole, steps in fields:
        value = None if whole is None else data.get(whole)
        if value is None:
            value = descend(steps, data)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value:
            return None
        texts.append(value)
    if len(texts) == 1:
        return texts[0]
    return "/".join(text.replace("%", "%25").replace("/", "%2F") for text in texts)
