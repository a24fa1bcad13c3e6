"""Times as events have them: always with a zone, and always such that UTC can express them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_parse = datetime.fromisoformat


def rfc3339(text: object) -> datetime | None:
    """The time that an RFC 3339 text stands for, or None where it is none.

    It needs date, time with seconds, and a zone. Digits beyond microseconds are cut off. The zone may also be
    written without its colon or minutes, as some producers do; a leap second is refused.
    """
    try:
        moment = _parse(text)  # type: ignore[arg-type]  # it refuses what is no text
        # Every third letter tells date and time with seconds from what else ISO 8601 allows. In the first and
        # in the last year UTC may have no such time.
        usual = text[4:17:3] == "--T::" and "1" < text < "9"  # type: ignore[index,operator]  # it is text
        if usual and moment.tzinfo is not None:
            return moment
    except (TypeError, ValueError):
        pass
    return _rare_time(text) if isinstance(text, str) else None


def _rare_time(text: str) -> datetime | None:
    """The same for all texts, as slow as it may be."""
    usual = text[:10] + text[10:].replace("t", "T", 1).replace(" ", "T", 1).replace("z", "Z", 1)
    try:
        moment = _parse(usual)
        if usual[4:17:3] == "--T::" and moment.tzinfo is not None:
            moment.astimezone(UTC)
            return moment
    except (ValueError, OverflowError):
        pass
    return None


def from_milliseconds(milliseconds: int) -> datetime | None:
    """The time so long after the start of 1970, or None where that is no time (Kafka's -1)."""
    if milliseconds < 0:
        return None
    try:
        return _EPOCH + timedelta(0, 0, 0, milliseconds)
    except OverflowError:
        return None


def moment_of(value: object) -> datetime | None:
    """A time out of a plain record: RFC 3339, or a whole number of milliseconds since 1970, also as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return from_milliseconds(value)
    if isinstance(value, str) and value.isdecimal() and value.isascii():
        # Longer than any time: int() would take its own time, and then refuse.
        return from_milliseconds(int(value)) if len(value) <= len("253402300799999") else None
    return rfc3339(value)
