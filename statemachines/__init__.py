"""What a pipeline is: definition, validation, the pure interpreter, diagrams."""

from statemachines.context import Context
from statemachines.definition import Pipeline, State, Topic
from statemachines.effects import Effect, Out, Publish, Raise
from statemachines.events import Done, Event, Failed
from statemachines.guards import has_tag, in_state
from statemachines.mistakes import DefinitionError, Mistake
from statemachines.search import Searchable

__all__ = [
    "Context",
    "DefinitionError",
    "Done",
    "Effect",
    "Event",
    "Failed",
    "Mistake",
    "Out",
    "Pipeline",
    "Publish",
    "Raise",
    "Searchable",
    "State",
    "Topic",
    "has_tag",
    "in_state",
]
