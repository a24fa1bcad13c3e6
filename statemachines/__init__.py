"""What a pipeline is: definition, validation, the pure interpreter, diagrams."""

from statemachines.context import Context
from statemachines.definition import Pipeline, State, Topic
from statemachines.effects import Cancel, Effect, Out, Publish, Raise, Send
from statemachines.events import After, Cancelled, Done, Event, Failed
from statemachines.guards import has_tag, in_state
from statemachines.mistakes import DefinitionError, Mistake
from statemachines.ordering import OrderBy
from statemachines.policies import Defer
from statemachines.search import Searchable

__all__ = [
    "After",
    "Cancel",
    "Cancelled",
    "Context",
    "Defer",
    "DefinitionError",
    "Done",
    "Effect",
    "Event",
    "Failed",
    "Mistake",
    "OrderBy",
    "Out",
    "Pipeline",
    "Publish",
    "Raise",
    "Searchable",
    "Send",
    "State",
    "Topic",
    "has_tag",
    "in_state",
]
