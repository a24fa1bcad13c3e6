"""Policies that are never asked, or that answer nothing: what they are about does not happen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from statemachines.checks.comparing import are_equal
from statemachines.definition import Move, Pipeline
from statemachines.events import is_event_class
from statemachines.mistakes import Mistake
from statemachines.patterns import covers, widened
from statemachines.policies import PolicyLine
from statemachines.step import Step


def find(pipeline: Pipeline[Any], line: PolicyLine) -> Iterator[Mistake]:
    """All of them of one line about an event type."""
    if not is_event_class(line.event):
        return
    event_type = line.event.event_type()
    if "unexpected" in line.decisions:
        yield from _always_taken(pipeline, line, event_type)
    if are_equal(line.decisions.get("closed"), "restart"):
        yield from _begins_nothing(pipeline, line, event_type)


def find_in_general(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """That the pipeline has keys start again, where of each event that starts a run something else is said."""
    lines = [(line.event.event_type(), line) for line in pipeline.policies if is_event_class(line.event)]
    no_runs = [line.decisions["no_run"] for _, line in lines if "no_run" in line.decisions]
    # What waits for the next run of its key begins one, too.
    gone = all(
        are_equal(one, "dead_letter") or are_equal(one, "ignore") for one in (pipeline.no_run, *no_runs)
    )
    waits = not gone or any(line.order is not None for _, line in lines)
    if waits or not are_equal(pipeline.closed, "restart"):
        return
    closed = widened({event_type: line for event_type, line in lines if "closed" in line.decisions})
    said = [closed.get(start.event.event_type()) for start in pipeline.starts if is_event_class(start.event)]
    others = [
        line for line in said if line is not None and not are_equal(line.decisions["closed"], "restart")
    ]
    if said and len(others) == len(said):
        message = (
            "closed='restart' begins nothing: of each event that starts a run something else is said, as at "
            f"{others[0].place}"
        )
        yield Mistake(message, "Leave one of the two out", pipeline.place, severity="warning")


def _always_taken(pipeline: Pipeline[Any], line: PolicyLine, event_type: str) -> Iterator[Mistake]:
    if line.state is None and any(step.compensation for step in pipeline.steps):
        return  # it is asked while a run is undone, where no transition takes anything
    around: set[str | None] = {None, *_chain(pipeline, line.state)}
    if _may_be_undone(pipeline, line.state):
        around.discard(line.state)  # nor does a state itself while it is undone
    taken = next(
        (move for move in pipeline.moves if move.source in around and _takes(move, event_type)), None
    )
    if taken is not None:
        of = "" if line.state is None else f" in the state {line.state!r}"
        message = (
            f"unexpected for {event_type!r}{of} is never asked: "
            f"the transition at {taken.place} takes every such event"
        )
        yield Mistake(
            message,
            "Leave it out, or give the transition a guard",
            line.place,
            state=line.state,
            event=event_type,
        )


def _may_be_undone(pipeline: Pipeline[Any], name: str | None) -> bool:
    """Whether a state runs a step that can be undone, or one inside it does."""
    running = (
        one for one in pipeline.states if isinstance(one.run, Step) and one.run.compensation is not None
    )
    return name is not None and any(name in _chain(pipeline, one.name) for one in running)


def _takes(move: Move, event_type: str) -> bool:
    return move.guard is None and is_event_class(move.event) and covers(move.event.event_type(), event_type)


def _chain(pipeline: Pipeline[Any], name: str | None) -> Iterator[str]:
    """The names of a state and of those around it, each once, whatever is wrong with them."""
    state = next((one for one in pipeline.states if one.name == name), None) if name is not None else None
    for _ in pipeline.states:
        if state is not None:
            yield state.name
            state = state.parent


def _begins_nothing(pipeline: Pipeline[Any], line: PolicyLine, event_type: str) -> Iterator[Mistake]:
    if any(
        is_event_class(one.event) and covers(event_type, one.event.event_type()) for one in pipeline.starts
    ):
        return
    said = [one for one in pipeline.policies if one.event is line.event and "no_run" in one.decisions]
    no_run = said[0].decisions["no_run"] if said else pipeline.no_run
    if no_run in ("dead_letter", "ignore"):
        message = (
            f"closed='restart' for {event_type!r} begins nothing: the event starts no run, so that it meets "
            f"no_run={no_run!r}"
        )
        cure = f"Say closed={no_run!r}, or no_run='start' or 'defer' for it"
        yield Mistake(message, cure, line.place, event=event_type)
