"""What a pipeline is: definition, validation, the pure interpreter, diagrams."""

from statemachines.context import Context
from statemachines.definition import Pipeline, State, Topic
from statemachines.effects import Effect, Out, Publish
from statemachines.events import Event
from statemachines.mistakes import DefinitionError, Mistake

__all__ = [
    "Context",
    "DefinitionError",
    "Effect",
    "Event",
    "Mistake",
    "Out",
    "Pipeline",
    "Publish",
    "State",
    "Topic",
]
