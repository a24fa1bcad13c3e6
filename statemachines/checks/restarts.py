"""Start events that wait where they come too early, and begin the next run of their key as soon as this one ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from statemachines.checks.comparing import are_equal
from statemachines.definition import Pipeline
from statemachines.events import Event, is_event_class
from statemachines.mistakes import Mistake
from statemachines.patterns import covers, widened


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """A warning for each of them of which nothing is said."""
    closed = widened(
        {
            line.event.event_type(): line.decisions["closed"]
            for line in pipeline.policies
            if is_event_class(line.event) and "closed" in line.decisions
        }
    )
    for start in pipeline.starts:
        if not is_event_class(start.event):
            continue
        event_type = start.event.event_type()
        restarts = are_equal(closed.get(event_type, pipeline.closed), "restart")
        if restarts and _waits(pipeline, start.event):
            message = (
                f"{event_type!r} waits where it comes while a run goes on, which takes it nowhere, and begins the next "
                "run as soon as that one ends: closed='restart'"
            )
            name = start.event.__name__
            cure = f"Say flow.policy({name}, unexpected='ignore'), or 'dead_letter'; 'defer' if that is what is meant"
            yield Mistake(message, cure, start.place, severity="warning", event=event_type)


def _waits(pipeline: Pipeline[Any], event: type[Event]) -> bool:
    """Whether no transition takes an event and no policy is about it, so that it waits as all events do.

    Where all states are final no run goes on for which it could wait.
    """
    if all(state.final for state in pipeline.states):
        return False
    said = [line.event for line in pipeline.policies if "unexpected" in line.decisions]
    known = [*said, *(move.event for move in pipeline.moves)]
    return are_equal(pipeline.unexpected, "defer") and not any(
        is_event_class(one) and covers(one.event_type(), event.event_type()) for one in known
    )
