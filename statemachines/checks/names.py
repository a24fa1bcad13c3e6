"""Rules for names: they are shown in one line, stored as text, and joined to configurations by spaces."""

from __future__ import annotations

import re

from statemachines.limits import EVENT_TYPE_BYTES_MAX, TOPIC_NAME_CHARACTERS_MAX

_TOPIC = re.compile(r"[A-Za-z0-9._-]+")


def wrong_with_name(name: object, bytes_max: int) -> str | None:
    """What keeps ``name`` from naming a pipeline or a state, as the end of a sentence; or None."""
    wrong = wrong_with_text(name, bytes_max)
    if wrong is None and any(letter.isspace() for letter in str(name)):
        return "has a space in it"
    return wrong


def wrong_with_type(name: object) -> str | None:
    """What keeps ``name`` from being an event type; None if nothing does."""
    return wrong_with_text(name, EVENT_TYPE_BYTES_MAX)


def is_storable(text: object) -> bool:
    """Whether it is a text that UTF-8 can write: one with a lone surrogate is not."""
    try:
        return isinstance(text, str) and text.encode() is not None
    except UnicodeEncodeError:
        return False


def wrong_with_pattern(event_type: str) -> str | None:
    """What keeps a type with an asterisk in it from being a pattern; None if nothing does."""
    prefix = event_type.removesuffix(".*")
    if "*" not in event_type or event_type == "*" or (prefix and prefix != event_type and "*" not in prefix):
        return None
    return "has a '*' where none may be"


def wrong_with_topic(name: object) -> str | None:
    """What keeps ``name`` from naming a Kafka topic; None if nothing does."""
    if not isinstance(name, str):
        return f"is not text but {type(name).__name__}"
    if not name:
        return "is empty"
    if len(name) > TOPIC_NAME_CHARACTERS_MAX:
        return f"is {len(name)} characters long, of {TOPIC_NAME_CHARACTERS_MAX} allowed"
    if name in (".", "..") or _TOPIC.fullmatch(name) is None:
        return "is none that Kafka takes"
    return None


def wrong_with_text(text: object, bytes_max: int) -> str | None:
    """What keeps ``text`` from being stored and shown as it is; None if nothing does."""
    if not isinstance(text, str):
        return f"is not text but {type(text).__name__}"
    if not text:
        return "is empty"
    if not text.isprintable():
        return "has a character in it that cannot be shown"
    size = len(text.encode())
    if size > bytes_max:
        return f"is {size} bytes long, of {bytes_max} allowed"
    return None
