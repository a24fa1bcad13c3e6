"""A pipeline whose handlers do all that a handler can do wrong, each on its own event."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import Field

from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.events import Event


class Opened(Event, type="trial.opened", key="case"):
    case: str


class Noted(Event, type="trial.noted", key="case"):
    case: str
    text: str = ""
    amount: float = 0.0
    lines: list[str] = Field(default_factory=list)


class Counted(Event, type="trial.counted", key="case"):
    case: str
    amount: int


class Touched(Event, type="trial.touched"):
    """Its run is named by the record."""


class Misbehaved(Event, type="trial.misbehaved", key="case"):
    case: str
    how: str
    lines: list[str] = Field(default_factory=list)


class Notes(Context):
    notes: list[str] = Field(default_factory=list)
    number: float = 0.0
    anything: Any = None


class EverythingEndsError(BaseException):
    """What ``except Exception`` does not catch."""


RAISED: dict[str, BaseException] = {
    "raises": ValueError("nul \0, surrogate \ud800, " + "x" * 100_000),
    "raises BaseException": EverythingEndsError("now"),
    "exits": SystemExit(3),
    "interrupts": KeyboardInterrupt(),
    "is cancelled": asyncio.CancelledError(),
}
RETURNED: dict[str, Any] = {"returns a number": 5, "returns a list with nothing": [None]}
KEPT: list[Misbehaved] = []
"""Events that a handler kept for itself, which it should not."""


def begin(event: Opened) -> Notes:
    del event
    return Notes()


def note(context: Notes, event: Noted) -> None:
    context.notes.append(event.text[:100])
    context.number = event.amount


def touch(context: Notes, event: Touched) -> None:
    context.notes.append(event.meta.key)


def misbehave(context: Notes, event: Misbehaved) -> Any:
    if event.how in RAISED:
        raise RAISED[event.how]
    if event.how in RETURNED:
        return RETURNED[event.how]
    match event.how:
        case "leaves an object":
            context.anything = object()
        case "leaves NaN":
            context.number = float("nan")
        case "leaves a ring":
            ring: list[Any] = []
            ring.append(ring)
            context.anything = ring
        case "leaves the wrong type":
            context.notes = 5  # type: ignore[assignment]  # which is the mistake
        case "leaves megabytes":
            context.notes.append("x" * 2_000_000)
        case "leaves the event":
            context.anything = event
        case "keeps the event":
            KEPT.append(event)
            event.lines.append("kept")
        case _:
            raise AssertionError(event.how)
    return None


def trial(topic: str) -> Pipeline[Notes]:
    """Cases that are opened, and then noted, counted, touched and misbehaved upon for as long as they last."""
    pipeline = Pipeline("trial", Notes, topics=[topic])
    opened = pipeline.state("opened", initial=True)
    closed = pipeline.state("closed", final=True)
    pipeline.start(Opened, begin)
    opened.on(Noted, do=note)
    opened.on(Touched, do=touch)
    opened.on(Misbehaved, do=misbehave)
    opened.on(Counted, to=closed)
    return pipeline
