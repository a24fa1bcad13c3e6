"""Looks into the schemas that pydantic makes of classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

_NOT_SCHEMAS = frozenset({"default", "metadata", "expected", "config", "ref", "schema_ref", "cls"})
"""Keys of a schema that hold the user's own values, in which a 'type' means nothing."""


def unfinished(model: type[BaseModel]) -> str | None:
    """Why pydantic cannot validate a class yet, such as a forward reference to nothing; None if it can."""
    if model.__pydantic_complete__:
        return None
    try:
        model.model_rebuild()
    except Exception as error:  # noqa: BLE001 - annotations are user code
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None


def fields_with_sets(model: type[BaseModel]) -> list[str]:
    """The fields, as ``a.b``, that hold a set or frozenset, unless a serializer puts it in order."""
    return sorted(set(_sets_in(model.__pydantic_core_schema__, "")))


def _sets_in(schema: Any, path: str) -> Iterator[str]:
    if isinstance(schema, dict):
        if str(schema.get("serialization", {}).get("type", "")).startswith("function"):
            return
        if schema.get("type") in ("set", "frozenset"):
            yield path
        for key, value in schema.items():
            if key == "fields" and isinstance(value, dict):
                for name, field in value.items():
                    yield from _sets_in(field, f"{path}.{name}".lstrip("."))
            elif key not in _NOT_SCHEMAS:
                yield from _sets_in(value, path)
    elif isinstance(schema, list | tuple):
        for one in schema:
            yield from _sets_in(one, path)
