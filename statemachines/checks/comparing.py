"""Comparing what a definition was given, which may be anything: also what cannot be compared."""

from __future__ import annotations


def are_equal(one: object, other: object) -> bool:
    """Whether two values are equal; what raises when it is compared is equal to nothing."""
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - a user's class may do anything
        return False
