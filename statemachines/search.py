"""Search attributes: fields of a context by whose values runs are found.

    class Ticket(Context):
        tenant: Annotated[str, Searchable()]

What the store keeps of them is an index. It is made from the context as it is written, without user code, so that it
can be made again at any time and held beside what is stored. An attribute is called what its field is called in the
JSON of the context; ``None`` and an empty list have no entry.
"""

from __future__ import annotations

import enum
import hashlib
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import from_json

from statemachines.context import Context

VALUE_CHARACTERS_MAX = 200
"""What is longer is kept as its beginning and a digest of the whole, and found by the whole all the same."""
VALUES_MAX = 100
"""Of a list; runs are not found by what comes behind."""
_PLAIN_EXPONENT_MAX = 40
"""A decimal is written out as people write it if it has no more digits before or behind the point than that."""

Kind: TypeAlias = Literal["text", "integer", "boolean", "decimal", "date", "datetime", "texts"]
Value: TypeAlias = str | int | bool | list[str]
Attributes: TypeAlias = dict[str, Value]

_KINDS: dict[Any, Kind] = {
    str: "text", int: "integer", bool: "boolean", Decimal: "decimal", date: "date", datetime: "datetime"
}  # fmt: skip
WORDS: Mapping[Kind, str] = {
    "text": "a text",
    "integer": "a whole number",
    "boolean": "true or false",
    "decimal": "a decimal number",
    "date": "a date, such as 2026-03-01",
    "datetime": "a time, such as 2026-03-01T12:00:00Z",
    "texts": "a text",
}
"""What a person gives for one."""


@dataclass(frozen=True, slots=True)
class Searchable:
    """Declares, within ``Annotated``, that runs are found by this field of their context."""


def searchable_fields(context: type[Context]) -> dict[str, FieldInfo]:
    """The fields that are declared searchable, by the name that they have in the JSON."""
    return {
        stored_name(name, field): field
        for name, field in context.model_fields.items()
        if any(is_mark(one) for one in field.metadata)
    }


def stored_name(name: str, field: FieldInfo) -> str:
    """What a field is called in the JSON of its context."""
    return field.serialization_alias or field.alias or name


def is_mark(metadata: object) -> bool:
    """Whether this is what makes a field searchable; the class itself is meant so, too."""
    return isinstance(metadata, Searchable) or metadata is Searchable


def kinds_of(context: type[Context]) -> dict[str, Kind]:
    """The search attributes of a context without mistakes."""
    kinds = {name: kind_of(field.annotation) for name, field in searchable_fields(context).items()}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def kind_of(annotation: Any) -> Kind | None:
    """What values of this type are to a search; None where there is no telling."""
    annotation = _plain(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = {kind_of(one) for one in get_args(annotation) if one is not type(None)}
        return kinds.pop() if len(kinds) == 1 else None
    if get_origin(annotation) is Literal:
        found = {
            _KINDS.get(type(one), _of_enum(type(one))) for one in get_args(annotation) if one is not None
        }
        return found.pop() if len(found) == 1 else None
    if get_origin(annotation) is list:
        return "texts" if kind_of(get_args(annotation)[0]) == "text" else None
    if isinstance(annotation, type):
        return _KINDS.get(annotation, _of_enum(annotation))
    return None


def _plain(annotation: Any) -> Any:
    """Without what ``Annotated`` adds, and behind the names that a type was given."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        else:
            return annotation


def _of_enum(annotation: type) -> Kind | None:
    return "text" if issubclass(annotation, enum.Enum) and issubclass(annotation, str) else None


def attributes_of(kinds: Mapping[str, Kind], context: bytes) -> Attributes:
    """The search attributes of a context as it is written.

    Pure, and without user code. What is not of its kind has no entry.

    Raises:
        ValueError: it is no JSON object.
    """
    stored = from_json(context)
    if not isinstance(stored, dict):
        raise ValueError("the context is no JSON object")  # noqa: TRY004 - what was read is wrong, not how it was asked
    found: Attributes = {}
    for name, kind in kinds.items():
        value = _entry(kind, stored.get(name))
        if value is not None and value != []:
            found[name] = value
    return found


def _entry(kind: Kind, value: Any) -> Value | None:
    match kind, value:
        case "boolean", bool():
            return value
        case "integer", int() if not isinstance(value, bool):
            return value
        case "texts", list():
            texts = dict.fromkeys(fit(one) for one in value if isinstance(one, str))
            return list(texts)[:VALUES_MAX]
        case "text" | "decimal" | "date" | "datetime", str():
            try:
                return _normal(kind, value)
            except (ValueError, InvalidOperation):
                return None
        case _:
            return None


def asked_as(kind: Kind, text: str) -> Value | None:
    """What a person asks for, as the attributes of a run that has it would be; None where it is none of the kind."""
    try:
        match kind:
            case "boolean":
                return {"true": True, "false": False}.get(text.strip().lower())
            case "integer":
                return int(text)
            case "texts":
                return [fit(text)]
            case _:
                return _normal(kind, text)
    except (ValueError, InvalidOperation):
        return None


def _normal(kind: Kind, text: str) -> str:
    """One form for all that is equal. Raises ValueError or InvalidOperation."""
    match kind:
        case "decimal":
            return _decimal(Decimal(text))
        case "date":
            return date.fromisoformat(text).isoformat()
        case "datetime":
            at = datetime.fromisoformat(text)
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
            return at.isoformat().replace("+00:00", "Z")
        case _:
            return fit(text)


def _decimal(number: Decimal) -> str:
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError("neither infinite nor no number")  # noqa: TRY004 - it is the value that cannot be
    kept = list(digits)
    while len(kept) > 1 and kept[-1] == 0:
        kept.pop()
        exponent += 1
    if kept == [0]:
        return "0"
    least = Decimal((sign, tuple(kept), exponent))
    return fit(f"{least:f}" if abs(exponent) <= _PLAIN_EXPONENT_MAX else str(least))


def fit(text: str) -> str:
    """As the store can take it: no NUL, no lone surrogates, not too long."""
    clean = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    if len(clean) <= VALUE_CHARACTERS_MAX:
        return clean
    digest = hashlib.blake2b(clean.encode(), digest_size=8).hexdigest()
    return f"{clean[:VALUE_CHARACTERS_MAX]}...{digest}"


def combined(asked: Iterable[Iterable[tuple[str, Value]]]) -> list[Attributes]:
    """The attributes that a run has, one way or another, that meets all conditions.

    Each condition has several forms where definitions differ in what the attribute is. No way at all is left where one
    attribute is to have two values, unless it is a list.
    """
    ways: list[Attributes] = [{}]
    for forms in asked:
        ways = [
            joined
            for way in ways
            for name, value in forms
            if (joined := _joined(way, name, value)) is not None
        ]
    return ways


def _joined(way: Attributes, name: str, value: Value) -> Attributes | None:
    match way.get(name), value:
        case None, _:
            return {**way, name: value}
        case list() as known, list():
            return {**way, name: [*dict.fromkeys((*known, *value))]}
        case known, _:
            same = type(known) is type(value) and known == value
            return way if same else None
