"""Data that was read from JSON, and how it becomes what a class or an annotation says.

To validate what was read takes less time than to read JSON once more, and mostly it is the same. It is not where JSON
is taken for more than its text says: where a type is strict, which takes a time as text from JSON alone, and where text
is one of several types that are written as text. There it is validated as the JSON that it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter
from pydantic_core import PydanticSerializationError, SchemaValidator, to_json

_NOTHING_LOST = ConfigDict(ser_json_inf_nan="constants")
"""What is no number is written as such, and then refused; else it would come back as nothing."""


def adapter_of(annotation: Any) -> TypeAdapter[Any]:
    """What reads and writes what an annotation says. Raises what pydantic does."""
    try:
        return TypeAdapter(annotation, config=_NOTHING_LOST)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)


def reader_of(schema: Any, validator: SchemaValidator) -> Callable[[Any], Any]:
    """What validates data that was read from JSON, for a type with this schema of pydantic's core."""
    validate, validate_json = validator.validate_python, validator.validate_json
    if not _needs_json(schema):
        return validate

    def read(data: Any) -> Any:
        try:
            written = to_json(data)
        except PydanticSerializationError:  # half a letter, which JSON has words for, and UTF-8 has not
            return validate(data)
        return validate_json(written)

    return read


def _needs_json(schema: Any) -> bool:
    """Whether anything in a schema reads JSON otherwise than what was read from JSON."""
    found = [schema]
    while found:
        one = found.pop()
        if isinstance(one, dict):
            if one.get("type") == "union" or one.get("strict") is True:
                return True
            found.extend(one.values())
        elif isinstance(one, list | tuple):
            found.extend(one)
    return False
