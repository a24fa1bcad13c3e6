"""Contexts of nothing but text, numbers, truth values and times, which are written without being read back.

What a run goes on from is what survived being stored. Of such a context it is known what would: the same values. So
looking at them once takes the place of reading them back, and of the serializer, too.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import orjson
from pydantic import BaseModel, TypeAdapter

from statemachines.compact import dumps_compact
from statemachines.context import Context

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_KINDS: Final[Mapping[str, type]] = {
    "str": str, "int": int, "float": float, "bool": bool, "datetime": datetime
}  # fmt: skip
"""By what pydantic calls a type that says nothing more of its values."""
_SAID: Final = frozenset({"type", "schema", "metadata"})
_SAID_OF_DEFAULTS: Final = _SAID | {
    "default", "default_factory", "default_factory_takes_data", "validate_default", "copy_default"
}  # fmt: skip
_SAID_OF_CLASSES: Final = _SAID | {"cls", "config", "ref"}
_SAID_OF_FIELDS: Final = _SAID | {"fields", "model_name"}
_NOTHING_SAID: Final[list[Any]] = [[], {}]
_WRITTEN_ALIKE: Final = 1e16
"""Above, some releases write ``1e16``, and others ``1e+16``."""
_references: Final = sys.getrefcount
_weak_references: Final = weakref.getweakrefcount
_HELD_TWICE: Final = 2
"""By the context, and by who asks."""
_ZONE: Final = TypeAdapter(datetime).validate_json(b'"1970-01-01T00:00:00Z"').tzinfo
"""The zone of times in UTC that were read: of one with another object for it, something else would come back."""


class Plain:
    """How the contexts of a class are written, all of whose fields are such."""

    def __init__(self, context: type[Context], kinds: Mapping[str, type], nullable: AbstractSet[str]) -> None:
        self._context = context
        self._all = frozenset(kinds)
        self._names = list(kinds)
        self._kinds = list(kinds.values())
        self._nullable = nullable
        self._floats = [name for name, kind in kinds.items() if kind is float]
        self._times = [name for name, kind in kinds.items() if kind is datetime]

    def write(self, context: Context) -> bytes:
        """Its JSON, as pydantic writes it.

        Empty where reading that back could find anything else, or nothing: a value is of another class, text is not
        Unicode, a number is none or too large, a time is in a zone other than UTC, there are more attributes than
        fields, or in another order. So it is where a number is so large that releases of pydantic and orjson differ in
        how they write it.
        """
        # A copy: a thread that a handler has left behind may go on changing it.
        return self._write(context.__dict__.copy())

    def write_if_held_once(self, context: Context) -> bytes:
        """The same where nobody but the one variable of a compiled caller holds it; empty where anybody may.

        Of callers that are not compiled that is never seen: they count more than once themselves. It is empty as well
        where fields were never set, so that it is not as if it were read back.
        """
        if _references(context) != 1 or _weak_references(context) or type(context) is not self._context:
            return b""
        values, named = context.__dict__, context.__pydantic_fields_set__
        if _references(values) != _HELD_TWICE or _references(named) != _HELD_TWICE:
            return b""
        return self._write(values) if type(values) is dict and named == self._all else b""

    def _write(self, values: dict[str, Any]) -> bytes:
        names, kinds = self._names, self._kinds
        if len(values) != len(names):
            return b""
        for at, (name, value) in enumerate(values.items()):
            if name != names[at]:
                return b""
            if type(value) is not kinds[at] and (value is not None or name not in self._nullable):
                return b""
        for name in self._floats:
            number = values[name]
            if number is not None and not -_WRITTEN_ALIKE < number < _WRITTEN_ALIKE:
                return b""
        for name in self._times:
            time = values[name]
            if time is not None and (time.fold or not (time.tzinfo is None or time.tzinfo is _ZONE)):
                return b""
        try:
            return dumps_compact(values, orjson.OPT_UTC_Z)
        except TypeError:
            return b""


def plain_of(context: type[Context]) -> Plain | None:
    """How contexts of a class are written, if it has nothing but such fields, and nothing of its own to say of them."""
    schema = context.__pydantic_core_schema__
    above = context.__mro__[: context.__mro__.index(BaseModel)]
    if any("__slots__" in vars(one) for one in above) or not _says_only(schema, "model", _SAID_OF_CLASSES):
        return None
    if _config_of(context) != _config_of(Context) or not _says_only(
        schema["schema"], "model-fields", _SAID_OF_FIELDS
    ):
        return None
    kinds: dict[str, type] = {}
    nullable: set[str] = set()
    for name, field in schema["schema"]["fields"].items():
        kind, may_be_none = _kind_of(field)
        if kind is None:
            return None
        kinds[name] = kind
        if may_be_none:
            nullable.add(name)
    return Plain(context, kinds, nullable) if kinds else None


def _kind_of(field: Any) -> tuple[type | None, bool]:
    """The type that a field's values are of, and whether they may be None; no type where it says more than that."""
    if not _says_only(field, "model-field", _SAID):
        return None, False
    said = field["schema"]
    if _says_only(said, "default", _SAID_OF_DEFAULTS):
        said = said["schema"]
    nullable = _says_only(said, "nullable", _SAID)
    if nullable:
        said = said["schema"]
    kind = said["type"]
    if kind == "datetime" and said.get("microseconds_precision") == "truncate":
        # As it is said of each.
        said = {name: value for name, value in said.items() if name != "microseconds_precision"}
    return _KINDS.get(kind) if _says_only(said, kind, _SAID) else None, nullable


def _says_only(schema: Mapping[str, Any], what: str, said: AbstractSet[str]) -> bool:
    # A bound may be 0, which is said, too.
    others = [value for name, value in schema.items() if name not in said]
    return schema["type"] == what and all(
        one is None or one is False or one in _NOTHING_SAID for one in others
    )


def _config_of(context: type[Context]) -> dict[str, Any]:
    config: Mapping[str, Any] = context.__pydantic_core_schema__.get("config", {})
    return {name: value for name, value in config.items() if name != "title"}
