"""What a text must be like to identify something: it is stored, indexed, compared and sent in headers."""

from __future__ import annotations

from typing import Final

ID_BYTES_MAX: Final = 512
"""As UTF-8, like all limits here. An id stands in indexes, whose entries Postgres limits to 2,704 bytes."""
TYPE_BYTES_MAX: Final = 512
SOURCE_BYTES_MAX: Final = 1_024
SUBJECT_BYTES_MAX: Final = 1_024
KEY_BYTES_MAX: Final = 1_024

SHOWN_CHARACTERS_MAX: Final = 80
"""How much of a value that is wrong is repeated in the sentence that says so."""


class FlawError(ValueError):
    """Something is wrong with a value; the message is the sentence that says what."""


def text_flaw(name: str, value: object, bytes_max: int) -> str | None:
    """Why ``value`` cannot be the ``name`` of an event, as a sentence; None if it can.

    It must be text that is not empty, has no NUL and no lone surrogate, and fits the limit as UTF-8.
    """
    if value is None:
        return f"there is no {name}"
    if not isinstance(value, str):
        return f"{name} is {kind(value)}, not a string"
    if not value:
        return f"{name} is empty"
    if "\0" in value:
        return f"{name} has a NUL character in it"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return f"{name} has a lone surrogate in it, which is not Unicode text"
    if size > bytes_max:
        return f"{name} takes {size:,} bytes, of {bytes_max:,} allowed"
    return None


def key_flaw(key: str) -> str | None:
    """Why ``key`` cannot be the key of a run, as a sentence; None if it can."""
    return text_flaw("key", key, KEY_BYTES_MAX)


def fit(value: object, bytes_max: int) -> str | None:
    """``value`` if it can be stored as a text that identifies something."""
    return value if isinstance(value, str) and text_flaw("", value, bytes_max) is None else None


def kind(value: object) -> str:
    """What JSON calls a value like this."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "an object"
        case _:
            return f"a {type(value).__name__}"


def shown(value: object) -> str:
    """A value as a short, printable text in ASCII, for a sentence."""
    if isinstance(value, (str, bytes)) and len(value) > SHOWN_CHARACTERS_MAX:
        return f"{value[:SHOWN_CHARACTERS_MAX]!a}..."
    if isinstance(value, (dict, list)):
        return kind(value)
    return ascii(value)
