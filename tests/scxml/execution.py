"""The data model of an oracle: integer variables, a log, and the actions and conditions of a document."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from tests.scxml.document import (
    Add,
    Always,
    Ask,
    Block,
    Both,
    Condition,
    Fail,
    InState,
    Less,
    Log,
    LogData,
    Not,
    Raise,
)
from tests.scxml.observation import Event


@dataclass(slots=True)
class DataModel:
    variables: dict[str, int]
    log: list[str] = field(default_factory=list)
    event: Event | None = None
    """The last event that was looked at: the text's `_event`."""

    def values(self, names: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        """The values now of these variables, with their names."""
        return tuple((name, self.variables[name]) for name in names)


def execute_block(
    block: Block, data: DataModel, holds: Callable[[Condition], bool], *, undo: bool
) -> list[Event]:
    """Run the actions of a block in order; returns the events that it raises, in order.

    `holds` says whether a condition holds now.
    Where one fails, the rest is skipped and `error.execution` is the last event; with `undo`, it is the only one,
    and neither variables nor log keep anything of the block.
    """
    variables, logged = dict(data.variables), len(data.log)
    events: list[Event] = []
    for action in block:
        match action:
            case Log(label):
                data.log.append(label)
            case Ask(label, condition):
                data.log.append(asked(label, holds(condition)))
            case LogData():
                data.log.append(told(() if data.event is None else data.event.data))
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


def asked(label: str, holds: bool) -> str:
    """What `Ask` appends."""
    return f"{label}={int(holds)}"


def told(data: Iterable[tuple[str, int]]) -> str:
    """What `LogData` appends."""
    return f"[{','.join(f'{name}={value}' for name, value in data)}]"


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
