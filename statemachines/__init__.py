"""What a pipeline is: definition, validation, the pure interpreter, diagrams."""

from statemachines.bounds import Breaker, Limit
from statemachines.command import Command, CommandError, CommandOutputError
from statemachines.context import Context
from statemachines.definition import Pipeline, State, Topic
from statemachines.described import Described
from statemachines.done import Done
from statemachines.effects import Cancel, Compensate, Complete, Effect, Out, Publish, Raise, Send, Settle
from statemachines.events import After, Cancelled, Event, Failed, StepFailed
from statemachines.guards import has_tag, in_state
from statemachines.later import Later, OutsideError
from statemachines.mistakes import DefinitionError, Mistake
from statemachines.ordering import OrderBy
from statemachines.policies import Defer
from statemachines.search import Searchable
from statemachines.step import Call, Compensation, Retry, Step, exponential

__all__ = [
    "After",
    "Breaker",
    "Call",
    "Cancel",
    "Cancelled",
    "Command",
    "CommandError",
    "CommandOutputError",
    "Compensate",
    "Compensation",
    "Complete",
    "Context",
    "Defer",
    "DefinitionError",
    "Described",
    "Done",
    "Effect",
    "Event",
    "Failed",
    "Later",
    "Limit",
    "Mistake",
    "OrderBy",
    "Out",
    "OutsideError",
    "Pipeline",
    "Publish",
    "Raise",
    "Retry",
    "Searchable",
    "Send",
    "Settle",
    "State",
    "Step",
    "StepFailed",
    "Topic",
    "exponential",
    "has_tag",
    "in_state",
]
