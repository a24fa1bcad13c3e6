"""How long something takes, in the one form in which all that people read says it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def told_time(at: datetime) -> str:
    """As sentences have it, whoever reads them where: ``2026-03-01T12:00:00Z``."""
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def told_duration(duration: timedelta) -> str:
    """As in ``1 d 2 h 30 min``."""
    seconds, micros = duration.days * 86_400 + duration.seconds, duration.microseconds
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        whole, seconds = divmod(seconds, length)
        if whole:
            parts.append(f"{whole} {unit}")
    if seconds or micros or not parts:
        parts.append(f"{seconds + micros / 1_000_000:g} s")
    return " ".join(parts)
