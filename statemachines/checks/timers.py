"""Mistakes with timers: when they fall due, and states that have none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from statemachines.checks.comparing import are_equal
from statemachines.definition import Move, Pipeline, State
from statemachines.events import After, is_event_class
from statemachines.limits import DELAY_DAYS_MAX
from statemachines.mistakes import Mistake


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with timers; that a function can be called is looked at with the other handlers."""
    timers = {move.event for move in pipeline.moves if move.delay is not None}
    around = [state.parent.name for state in pipeline.states if isinstance(state.parent, State)]
    for move in pipeline.moves:
        if move.delay is not None:
            yield from _delay(move)
            stays = are_equal(move.targets, (move.source,)) and not move.reenter and not move.compensate
            if stays and move.source not in around:
                yield _once(move)
        elif is_event_class(move.event) and issubclass(move.event, After) and move.event not in timers:
            message = f"{move.event.__name__} comes from timers only, and this one is of none"
            yield _of(move, message, "Write state.after(delay, to=...)")


def _delay(move: Move) -> Iterator[Mistake]:
    delay: Any = move.delay
    if isinstance(delay, timedelta):
        if delay < timedelta(0):
            yield _of(move, f"the delay {delay} is negative", "A timer falls due after its state is entered")
        elif delay > timedelta(days=DELAY_DAYS_MAX):
            cure = f"Wait for at most {DELAY_DAYS_MAX} days"
            yield _of(move, f"the delay of {delay.days} days is longer than a run is kept", cure)
    elif not callable(delay):
        message = f"the delay {delay!r} is neither a timedelta nor a function of the context"
        yield _of(move, message, "Write timedelta(minutes=5), or name a function that returns one, or a time")


def _once(move: Move) -> Mistake:
    message = f"the timer of {move.source!r} leads to {move.source!r} itself without leaving it, so that it comes once"
    cure = "reenter=True sets it again each time; leave to= out where once is meant"
    return Mistake(message, cure, move.place, severity="warning", state=move.source)


def _of(move: Move, message: str, cure: str) -> Mistake:
    return Mistake(message, cure, move.place, state=move.source)
