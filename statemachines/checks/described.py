"""Mistakes with functions that describe the work of a step instead of doing it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from statemachines.described import described_by, mixes, result_of
from statemachines.mistakes import Mistake
from statemachines.step import Step


def find(step: Step[Any, Any], called: str) -> Iterator[Mistake]:
    """All mistakes of a step, which sentences call so; none where its annotation cannot be read."""
    try:
        said = step.annotation_of("return")
    except Exception:  # noqa: BLE001 - annotations are user code, and another check tells of this one
        return
    if mixes(said):
        message = f"{called} returns what is to be done, or something else"
        yield Mistake(message, "Let it return one of the two always, or make two steps of it", step.place)
    described = described_by(said)
    if described is None:
        return
    name = described.__name__
    if step.is_async:
        message = f"{called} is async, and only says what is to be done, as {name}"
        yield Mistake(message, "Write def instead of async def: it has nothing to wait for", step.place)
    try:
        result_of(said)
    except TypeError:
        message = f"{called} returns {name}, and does not say what that comes to"
        yield Mistake(message, f"Write -> {name}[Charge], or -> {name}[None]", step.place)
