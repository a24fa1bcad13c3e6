"""A pipeline as a machine of the library ``transitions``: slow, widely used, and written by others.

The validator walks it, the diagram is drawn from it, and a differential test holds the compiled table equal
to it on every (state, event). The engine never runs it.
"""

from __future__ import annotations

from typing import Any

from transitions import Machine as TransitionsMachine
from transitions import State as TransitionsState

from statemachines.definition import Move, Pipeline
from statemachines.events import Event, is_event_class


def reference_machine(pipeline: Pipeline[Any]) -> TransitionsMachine:
    """The pipeline with guards as conditions and actions as what happens before the change of state.

    Both are called with (context, event). Of a pipeline with mistakes it is the part that is right, so that
    the validator can walk it.
    """
    return TransitionsMachine(
        model=None,
        states=[TransitionsState(name, final=final) for name, final in states_of(pipeline).items()],
        transitions=[
            {
                "trigger": move.event.event_type(),
                "source": source,
                "dest": move.target,
                "conditions": [move.guard] if move.guard else [],
                "before": [move.action] if move.action else [],
            }
            for source, move in moves_of(pipeline)
        ],
        initial=None,
        auto_transitions=False,
        ignore_invalid_triggers=True,
        name=str(pipeline.name),
    )


def states_of(pipeline: Pipeline[Any]) -> dict[str, bool]:
    """Whether each state is final, by name; the first of a name counts."""
    found: dict[str, bool] = {}
    for state in pipeline.states:
        if isinstance(state.name, str):
            found.setdefault(state.name, state.final)
    return found


def moves_of(pipeline: Pipeline[Any]) -> list[tuple[str, Move]]:
    """The moves of each state that is not final in the order they are tried: its own, then the pipeline's."""
    states = states_of(pipeline)
    known = [
        move
        for move in pipeline.moves
        if is_event_class(move.event) and (move.target is None or move.target in states)
    ]
    return [
        (name, move)
        for name, final in states.items()
        if not final
        for source in (name, None)
        for move in known
        if move.source == source
    ]


class Reference:
    """Decides moves the way ``transitions`` does; for tests that compare."""

    def __init__(self, pipeline: Pipeline[Any]) -> None:
        self.machine = reference_machine(pipeline)
        self.state = ""

    def decide(self, state: str, event: Event, context: Any) -> str | None:
        """The state after the event, or None where nothing is enabled; the action changes the context."""
        trigger = self.machine.events.get(event.event_type())
        if trigger is None:
            return None
        self.state = state
        taken: bool = trigger.trigger(self, context, event)
        return self.state if taken else None
