"""Mistakes with events that come from inside of a run: of states that are done, of handlers that failed, of steps."""

from __future__ import annotations

from collections.abc import Iterator

from statemachines.checks.tree import Some, Tree
from statemachines.definition import Move
from statemachines.events import Cancelled, Done, Event, Failed, StepFailed, is_event_class, is_outcome
from statemachines.mistakes import Mistake
from statemachines.suggest import listed


def find(move: Move, tree: Tree) -> Iterator[Mistake]:
    """All mistakes of this kind with a transition."""
    event = move.event
    if not is_event_class(event) or not (move.source is None or move.source in tree.named):
        return

    def mistake(message: str, cure: str) -> Mistake:
        return Mistake(message, cure, move.place, state=move.source, event=event.event_type())

    for known in (Failed, Cancelled):
        if issubclass(event, known) and event is not known:
            message = f"{event.__name__} is a subclass of {known.__name__}, and no such event is ever raised"
            yield mistake(message, f"Take {known.__name__} itself, and look at what it says")
    if is_outcome(event):
        yield from _of_step(move, event, tree)
        return
    if not issubclass(event, Done):
        return
    whose = tree.done.get(event)
    if whose is None:
        name = event.event_type() or event.__name__
        message = f"the event {name!r} is of no state of pipeline {tree.pipeline.name!r}"
        yield mistake(message, "Use the done of a state of this pipeline")
    elif not tree.states_in(whose):
        message = f"{whose.name!r} is never done: it has no states inside"
        yield mistake(message, "Use the done of a state with a final state inside, or take another event")
    elif not _may_be_done(whose, tree):
        why = (
            "not all its regions can be"
            if tree.is_parallel(whose)
            else "no state directly inside it is final"
        )
        cure = "Mark the states in which it is done with final=True, or take another event"
        yield mistake(f"{whose.name!r} is never done: {why}", cure)
    elif move.source is not None and not tree.may_meet(tree.named[move.source], whose):
        message = f"{move.source!r} is not active when {whose.name!r} is done"
        found = mistake(message, f"Put the transition on {whose.name!r} or on a state around it")
        yield Mistake(found.message, found.cure, found.place, found.state, found.event, "warning")


def _of_step(move: Move, event: type[Event], tree: Tree) -> Iterator[Mistake]:
    """How a step ended is for the state that runs it, and for those around it."""
    step = tree.steps.get(event)
    cure = ""
    if tree.asking_for(move):
        return
    if event is StepFailed:
        message = "no state in which this transition is looked for runs a step, so that it never fires"
        cure = "Put it on a state that runs one with run=, or on a state around it"
    elif step is None:
        message = f"the event {event.event_type()!r} is of no step of pipeline {tree.pipeline.name!r}"
        cure = "Use the done, failed, timed_out or failed_with(...) of a step of this pipeline"
    else:
        runners = [state.name for state, one in tree.runners.items() if one is step]
        where = (
            "no state runs"
            if move.source is None
            else f"{move.source!r} neither runs nor is around what runs"
        )
        message = f"{where} the step {step.name!r}, so that this transition never fires"
        cure = (
            f"Put it on {listed(runners)}, or on a state around it"
            if runners
            else "Give it to a state with run="
        )
    yield Mistake(message, cure, move.place, state=move.source, event=event.event_type())


def _may_be_done(state: Some, tree: Tree) -> bool:
    """Whether a state with states inside may reach a final one: a parallel state, in all its regions."""
    inside = tree.states_in(state)
    if tree.is_parallel(state):
        return all(_may_be_done(one, tree) for one in inside)
    return any(one.final for one in inside)
