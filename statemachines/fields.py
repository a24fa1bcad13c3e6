"""Finding a field of a JSON value by its name, or by the way to it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

Steps = tuple[tuple[str, int | None], ...]
"""The names on the way to a field, and each as the number of an element, where it can be one."""


def field_of(name: str, place: Any) -> Any:
    """The field ``name`` of a JSON value, or None.

    It is first looked for by the whole name; then ``a.b`` is the field ``b`` within ``a``, where a number counts the
    elements of an array from 0. A field that is null is as good as none.
    """
    if isinstance(place, dict):
        value = place.get(name)
        if value is not None or "." not in name:
            return value
    return descend(steps_of(name), place)


def descend(steps: Steps, place: Any) -> Any:
    """What is at the end of the way, or None."""
    for step, index in steps:
        if isinstance(place, dict):
            place = place.get(step)
        elif isinstance(place, list) and index is not None and index < len(place):
            place = place[index]
        else:
            return None
    return place


@lru_cache(maxsize=1024)
def steps_of(name: str) -> Steps:
    """The way that a name with dots in it says."""
    return tuple(map(step_of, name.split(".")))


def step_of(name: str) -> tuple[str, int | None]:
    """One step of a way."""
    counts = name.isdecimal() and name.isascii() and len(name) < len("1000000000")
    return name, int(name) if counts else None
