"""The data of an event, as JSON values."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Any, Final

import orjson

from connectors.identity import FlawError, kind, shown

CONTENT_TYPE_CHARACTERS_MAX: Final = 256
"""A content type longer than this is not looked at."""
_BOM = b"\xef\xbb\xbf"


def read_json(value: bytes, where: str) -> Any:
    """The JSON value in these bytes; a byte order mark before it is skipped.

    Whole numbers beyond 64 bits become the nearest float, of fields given twice the last counts, and what is
    nested more than 1,024 deep is refused. The record keeps its bytes as they came, however they are read.

    Raises:
        FlawError: it is none. The sentence names ``where`` it was and the position, and repeats no data.
    """
    try:
        return orjson.loads(value.removeprefix(_BOM))
    except ValueError as error:
        raise FlawError(f"{where} is not JSON: {error}") from None


def written(value: Any) -> bytes | None:
    """Bytes, and None, as they are; text as UTF-8; all else as JSON."""
    if value is None or isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def read_data(value: bytes, content_type: object, where: str) -> Any:
    """Data that should be JSON; what says that it is of another type is taken if it is JSON all the same.

    Raises:
        FlawError: it is not JSON.
    """
    try:
        return read_json(value, where)
    except FlawError:
        if is_json(content_type):
            raise
        raise FlawError(
            f"{where} is of type {shown(content_type)} and no JSON; a pipeline reads data that is JSON"
        ) from None


def read_other_data(data: Any, in_base64: Any, content_type: object) -> Any:
    """The data of a structured event that does not simply have JSON in ``data``.

    Raises:
        FlawError: there is both ``data`` and ``data_base64``, or what is there is not JSON.
    """
    if in_base64 is None:
        if isinstance(data, str) and not is_json(content_type):
            return read_data(data.encode(), content_type, "the text in data")
        return data
    if data is not None:
        raise FlawError("there is both data and data_base64; an event has one of them")
    if not isinstance(in_base64, str):
        raise FlawError(f"data_base64 is {kind(in_base64)}, not a string")
    try:
        decoded = base64.b64decode(in_base64, validate=True)
    except ValueError as error:
        raise FlawError(f"data_base64 is not base64: {error}") from None
    return read_data(decoded, content_type, "what data_base64 stands for")


def is_json(content_type: object) -> bool:
    """Whether data of this type is JSON; where there is none, it should be."""
    if content_type is None:
        return True
    if not isinstance(content_type, str) or len(content_type) > CONTENT_TYPE_CHARACTERS_MAX:
        return False
    return _names_json(content_type)


@lru_cache(maxsize=256)
def _names_json(content_type: str) -> bool:
    subtype = content_type.partition(";")[0].strip().lower().partition("/")[2]
    return subtype == "json" or subtype.endswith("+json")
