"""A pipeline as a machine of the library ``transitions``: slow, widely used, and written by others.

The validator walks it, the diagram is drawn from it, and a differential test holds the compiled table equal
to it on every (state, event). The engine never runs it.
"""

from __future__ import annotations

from typing import Any

from transitions import Machine as TransitionsMachine
from transitions import State as TransitionsState

from statemachines.definition import Move, Pipeline, State
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
                "trigger": move.event_type,
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
    """The moves of each state that has none inside, in the order they are tried: its own, then those of the states
    around it, then the pipeline's. A final state has none.
    """
    states = states_of(pipeline)
    known = [
        move
        for move in pipeline.moves
        if (move.event is None or is_event_class(move.event)) and all(one in states for one in move.targets)
    ]
    by_source: dict[str | None, list[Move]] = {}
    for move in known:
        by_source.setdefault(move.source, []).append(move)
    return [
        (name, move)
        for name, chain in chains_of(pipeline).items()
        if not states[name]
        for source in (*chain, None)
        for move in by_source.get(source, ())
    ]


def chains_of(pipeline: Pipeline[Any]) -> dict[str, list[str]]:
    """Of each state that has none inside: itself and the states around it, from the innermost on."""
    around = {
        state.parent.name for state in pipeline.states if state.parent is not None and state.kind != "history"
    }
    chains: dict[str, list[str]] = {}
    for state in pipeline.states:
        if state.name not in around and state.kind != "history" and isinstance(state.name, str):
            chain: list[str] = []
            one: State[Any] | None = state
            while one is not None:
                chain.append(one.name)
                one = one.parent
            chains.setdefault(state.name, chain)
    return chains


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
