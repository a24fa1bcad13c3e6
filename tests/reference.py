"""A flat pipeline as a machine of the library ``transitions``: slow, widely used, and written by others.

A differential test holds the compiled table equal to it on every (state, event).
"""

from __future__ import annotations

from typing import Any

from transitions import Machine, State

from statemachines.definition import Pipeline
from statemachines.events import Event


class Reference:
    """Decides moves the way ``transitions`` does: guards are conditions, actions what comes before the change."""

    def __init__(self, pipeline: Pipeline[Any]) -> None:
        self.state = ""
        self._machine = Machine(
            model=None,
            states=[State(state.name, final=state.final) for state in pipeline.states],
            transitions=[
                {
                    "trigger": move.event_type,
                    "source": state.name,
                    "dest": move.target,
                    "conditions": [move.guard] if move.guard else [],
                    "before": [move.action] if move.action else [],
                }
                for state in pipeline.states
                if not state.final
                for source in (state.name, None)
                for move in pipeline.moves
                if move.source == source
            ],
            initial=None,
            auto_transitions=False,
            ignore_invalid_triggers=True,
        )

    def decide(self, state: str, event: Event, context: Any) -> str | None:
        """The state after the event, or None where nothing is enabled; the action changes the context."""
        trigger = self._machine.events.get(event.event_type())
        if trigger is None:
            return None
        self.state = state
        taken: bool = trigger.trigger(self, context, event)
        return self.state if taken else None
