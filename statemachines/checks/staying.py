"""States whose step is done, and whose run stays in them for ever: nobody takes the end, and nothing else leads on."""

from __future__ import annotations

from collections.abc import Iterator

from statemachines.checks.tree import Some, Tree
from statemachines.definition import Move
from statemachines.events import DONE_PREFIX, Cancelled, Failed, StepFailed, is_event_class, is_outcome
from statemachines.mistakes import Mistake
from statemachines.patterns import covers


def find(tree: Tree) -> Iterator[Mistake]:
    """A warning for each of them."""
    for state in staying(tree):
        step = tree.runners[state]
        message = (
            f"no transition takes the end of the step {step.name!r} in the state {state.name!r}, and nothing else "
            "leads on from there: once it is done, the run stays"
        )
        cure = f"Add one on {step.name}.done, or on what the run waits for then"
        yield Mistake(message, cure, state.place, state=state.name, severity="warning")


def staying(tree: Tree) -> list[Some]:
    """The states that are meant. A transition that names what is not there, a mistake of its own, counts, too."""
    return [
        state
        for state in tree.runners
        if state.kind != "history"
        and not state.final
        and not any(
            _takes_its_end(move, state, tree) or _leads_on(move, state, tree) for move in _moves(tree)
        )
    ]


def _moves(tree: Tree) -> list[Move]:
    return [move for move in tree.pipeline.moves if move.event is None or is_event_class(move.event)]


def _takes_its_end(move: Move, state: Some, tree: Tree) -> bool:
    """Whether it takes what the step returns: of the state, of one around it, or of the pipeline."""
    looked_for = move.source is None or tree.named.get(move.source) in tree.chain(state)
    done = str(tree.runners[state].done.event_type())
    return looked_for and move.event_type is not None and covers(move.event_type, done)


def _leads_on(move: Move, state: Some, tree: Tree) -> bool:
    """Whether it may have the run go on, by the event of another: not where that is only a failure, or a way back.

    What a state takes itself it waits for, be it that it stays there; and so does what is inside or around it. What the
    pipeline takes, or another region, must lead out of the state.
    """
    event = move.event
    if event is not None and (
        issubclass(event, Failed | StepFailed | Cancelled) or event in _ends(state, tree)
    ):
        return False
    if move.source is None:
        return bool(move.targets) and not move.compensate
    if move.delay is not None and not move.targets:
        return False  # it comes once
    if event is not None and event.event_type() in {f"{DONE_PREFIX}{one.name}" for one in tree.chain(state)}:
        return False  # of a state around it, which is not done before something has led on
    source = tree.named.get(move.source)
    if source is None or source in tree.chain(state) or tree.is_within(source, state):
        return True
    return tree.may_meet(source, state) and (not tree.is_known(move) or _leaves(move, state, tree))


def _leaves(move: Move, state: Some, tree: Tree) -> bool:
    return bool(move.targets) and tree.is_within(state, tree.domain(move))


def _ends(state: Some, tree: Tree) -> set[object]:
    """The events that say how the step of a state ended."""
    return {event for event, step in tree.steps.items() if step is tree.runners[state] and is_outcome(event)}
