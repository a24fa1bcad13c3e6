"""What may be wrong with classes whose types are patterns: they are given events that other classes are made for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from statemachines.definition import Pipeline
from statemachines.events import Event, is_event_class
from statemachines.mistakes import Mistake
from statemachines.patterns import covers, is_pattern
from statemachines.suggest import listed


def find(pipeline: Pipeline[Any], classes: Sequence[type[Event]]) -> Iterator[Mistake]:
    """All mistakes of this kind, one for each transition on a pattern."""
    known = [one for one in classes if isinstance(one.event_type(), str)]
    for move in pipeline.moves:
        taken = move.event
        if not is_event_class(taken) or taken not in known or not is_pattern(taken.event_type()):
            continue
        if move.guard is None and move.action is None:
            continue  # nobody looks at the event
        for other in known:
            lacking = [name for name in taken.__pydantic_fields__ if name not in other.__pydantic_fields__]
            if lacking and other is not taken and covers(taken.event_type(), other.event_type()):
                message = (
                    f"this transition on {taken.event_type()!r} is also given {other.__name__}, for "
                    f"{other.event_type()!r}, which has no {listed(lacking)} as {taken.__name__} has"
                )
                cure = (
                    f"Make {other.__name__} a subclass of {taken.__name__}, or look at event.meta.type first"
                )
                yield Mistake(
                    message, cure, move.place, state=move.source, event=taken.event_type(), severity="warning"
                )
