"""The data model of an oracle: integer variables, a log, and the actions and conditions of a document."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from tests.scxml.document import (
    Add,
    Always,
    Block,
    Both,
    Condition,
    Fail,
    InState,
    Less,
    Log,
    Not,
    Raise,
)
from tests.scxml.observation import Event


@dataclass(slots=True)
class DataModel:
    variables: dict[str, int]
    log: list[str] = field(default_factory=list)

    def values(self, names: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        """The values now of these variables, with their names."""
        return tuple((name, self.variables[name]) for name in names)


def execute_block(block: Block, data: DataModel, *, undo: bool) -> list[Event]:
    """Run the actions of a block in order; returns the events that it raises, in order.

    Where one fails, the rest is skipped and `error.execution` is the last event; with `undo`, it is the only one,
    and neither variables nor log keep anything of the block.
    """
    variables, logged = dict(data.variables), len(data.log)
    events: list[Event] = []
    for action in block:
        match action:
            case Log(label):
                data.log.append(label)
            case Raise(event):
                events.append(Event(event))
            case Add(name, n):
                data.variables[name] += n
            case Fail():
                if undo:
                    data.variables = variables
                    del data.log[logged:]
                    events.clear()
                events.append(Event("error.execution"))
                break
    return events


def condition_match(cond: Condition, configuration: AbstractSet[str], data: DataModel) -> bool:
    """Whether a condition holds in this configuration (ids of the active states) with these variables."""
    match cond:
        case Always():
            return True
        case InState(id):
            return id in configuration
        case Less(name, n):
            return data.variables[name] < n
        case Not(condition):
            return not condition_match(condition, configuration, data)
        case Both(left, right):
            return condition_match(left, configuration, data) and condition_match(right, configuration, data)
