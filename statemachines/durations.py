"""How long something takes, in the one form in which all that people read says it."""

from __future__ import annotations

from datetime import timedelta


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
