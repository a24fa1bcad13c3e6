"""Finding what a topic's settings name: a header, an attribute or a field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from connectors.identity import FlawError, key_flaw, kind, shown
from statemachines.fields import field_of

KEY_IS_NO_TEXT: Final = "no key could be read: the Kafka key is not UTF-8 text"
Headers = Sequence[tuple[str, bytes | None]]
Look = Callable[..., Any]
"""``find`` or ``find_in_element``."""


def find(name: str, headers: Headers, *places: Any) -> Any:
    """The value of the header ``name``, else of that field in the first of ``places`` that has it, else None.

    Of a header given twice the last counts. How a field is found: ``statemachines.fields``.

    Raises:
        FlawError: the header is not UTF-8.
    """
    found = None
    for header, value in headers:
        if header == name:
            found = value
    if found is not None:
        return header_text(name, found)
    for place in places:
        value = field_of(name, place)
        if value is not None:
            return value
    return None


def find_in_element(name: str, headers: Headers, element: Any) -> Any:
    """The same, but the field comes first: the header is that of all elements of the record."""
    value = field_of(name, element)
    return find(name, headers) if value is None else value


def header_text(name: str, value: bytes) -> str:
    """A header's value as text.

    Raises:
        FlawError: it is not UTF-8.
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise FlawError(f"the header {shown(name)} is not UTF-8 text") from None


def as_text(name: str, value: Any) -> str:
    """A string as it is, a whole number as its decimal text.

    Raises:
        FlawError: it is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        raise FlawError(f"{name} is a number with a fraction, or too large to be read exactly")
    raise FlawError(f"{name} is {kind(value)}, not a string")


def key_by_setting(
    name: str, headers: Headers, *places: Any, look: Look = find
) -> tuple[str | None, str | None]:
    """The key that a topic's ``key`` setting names and None; or None, and a sentence that says why."""
    try:
        value = look(name, headers, *places)
        if value is None:
            return None, f"there is neither a header nor a field {shown(name)}, the topic's key"
        return fit_key(as_text(shown(name), value))
    except FlawError as flaw:
        return None, f"no key could be read: {flaw}"


def key_of_record(raw: bytes | None) -> tuple[str | None, str | None]:
    """A Kafka key as the key of a run and None; or None, and a sentence. An empty one is as good as none."""
    if not raw:
        return None, "the record has no Kafka key"
    try:
        return fit_key(raw.decode())
    except UnicodeDecodeError:
        return None, KEY_IS_NO_TEXT


def fit_key(key: str) -> tuple[str | None, str | None]:
    """The key and None if it can be the key of a run, else None and a sentence."""
    flaw = key_flaw(key)
    return (key, None) if flaw is None else (None, f"no key could be read: {flaw}")
