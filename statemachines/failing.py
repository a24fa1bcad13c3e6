"""What user code did wrong, in words."""

from __future__ import annotations

import re

import orjson
from pydantic import ValidationError
from pydantic_core import from_json

from statemachines.limits import ERROR_CHARACTERS_MAX
from statemachines.outcome import Reason
from statemachines.places import place_of, raised_by

ERRORS_TOLD_MAX = 20
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


class HandlerError(Exception):
    """User code raised, or returned or left behind what cannot be."""

    def __init__(
        self, reason: Reason, message: str, handler: str = "", raised: BaseException | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.handler = handler
        self.raised = None if raised is None else raised_by(raised)


def check_exact(written: bytes, what: str) -> None:
    """See to it that JSON comes back as it is once it was stored.

    Raises:
        HandlerError: it would come back as another number: a whole one of more than 64 bits.
    """
    if _LONG_NUMBER.search(written):
        try:
            orjson.dumps(from_json(written))
        except TypeError:
            message = f"{what} has a whole number of more than 64 bits, which would not be kept exactly: make it text"
            raise HandlerError(Reason.ACTION_FAILED, message) from None


def describe_invalid(raised: BaseException) -> str:
    """What is wrong with an event's data, by field."""
    if not isinstance(raised, ValidationError):
        return describe(raised, "the event's own validation")
    told = []
    for one in raised.errors(include_url=False, include_context=False, include_input=False)[:ERRORS_TOLD_MAX]:
        place = ".".join(str(part) for part in one["loc"]) or "the data"
        told.append(f"{place}: {one['msg']}")
    return "; ".join(told)


def describe(error: BaseException, name: str | None) -> str:
    """What happened in user code, in one printable line that names the handler and the place."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - an exception's own __str__ may raise too
        text = "(its message cannot be shown)"
    place = place_of(error)
    where = f" ({place})" if place.line else ""
    return printable(f"{name} raised {type(error).__name__}: {text}", room=len(where)) + where


def on_one_line(text: str) -> str:
    """A text of several lines, such as what a command said on standard error, as one that is printable."""
    return printable(" / ".join(filter(None, map(str.strip, text.splitlines()))))


def printable(text: str, room: int = 0) -> str:
    """``text`` without what a text column or a log line cannot hold, and not longer than the limit."""
    if len(text) > ERROR_CHARACTERS_MAX - room:
        text = text[: ERROR_CHARACTERS_MAX - room - 3] + "..."
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )
