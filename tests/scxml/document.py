"""A statechart as plain data, of no product: what an SCXML document says, without its XML and its scripts.

Everything in it is frozen and compares by value, executable content and conditions included, so that a chart can be
printed, shrunk, and translated into another form. `validate` says whether a document is well-formed; the other
modules expect documents that are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class _Printable(StrEnum):
    """Prints as it is written in Python, so that a printed chart can be pasted into a test."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class Kind(_Printable):
    """What a node is. `ROOT` is the `<scxml>` element; it is never part of a configuration."""

    ROOT = "scxml"
    COMPOUND = "compound"
    ATOMIC = "atomic"
    PARALLEL = "parallel"
    FINAL = "final"
    HISTORY = "history"


class HistoryType(_Printable):
    SHALLOW = "shallow"
    DEEP = "deep"


@dataclass(frozen=True, slots=True)
class Always:
    """The condition that holds: that of a transition without one."""


@dataclass(frozen=True, slots=True)
class InState:
    """Holds while the state is in the configuration."""

    id: str


@dataclass(frozen=True, slots=True)
class Less:
    """Holds while the variable is less than `n`."""

    name: str
    n: int


@dataclass(frozen=True, slots=True)
class Not:
    condition: Condition


@dataclass(frozen=True, slots=True)
class Both:
    left: Condition
    right: Condition


Condition = Always | InState | Less | Not | Both
ALWAYS = Always()


@dataclass(frozen=True, slots=True)
class Log:
    """Append a label to the log, by which the order of what happens is seen."""

    label: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Append a label to the log, and after it whether a condition holds: ``label=1`` or ``label=0``."""

    label: str
    condition: Condition


@dataclass(frozen=True, slots=True)
class LogData:
    """Append to the log what the event that is being taken carries: ``[n=1,m=2]``, or ``[]``."""


@dataclass(frozen=True, slots=True)
class Raise:
    """Put an event at the end of the internal queue."""

    event: str


@dataclass(frozen=True, slots=True)
class Add:
    """Add `n` to an integer variable of the document."""

    name: str
    n: int


@dataclass(frozen=True, slots=True)
class Fail:
    """Fail: the rest of this block is skipped, and `error.execution` is raised."""


Action = Log | Ask | LogData | Raise | Add | Fail
Block = tuple[Action, ...]
"""Executable content that fails as one: one `<onentry>` or `<onexit>` handler, or what a transition does."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A transition of a state, the initial transition of a compound one, or the default one of a history.

    No `events` means eventless, no `targets` targetless. The last two kinds have neither events nor a condition.
    """

    targets: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    cond: Condition = ALWAYS
    internal: bool = False
    actions: Block = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A state, or a history. `children` and `transitions` are in document order."""

    id: str
    kind: Kind
    children: tuple[Node, ...] = ()
    transitions: tuple[Transition, ...] = ()
    onentry: tuple[Block, ...] = ()
    onexit: tuple[Block, ...] = ()
    initial: Transition | None = None
    """Of the root and of compound states only."""
    history_type: HistoryType | None = None
    default: Transition | None = None
    """Of a history only: the transition taken while it has no memory."""
    donedata: tuple[str, ...] = ()
    """Of a final state only: the variables whose values its `done` event carries."""

    def walk(self) -> Iterator[Node]:
        """This node and all below it, in document order."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Document:
    root: Node
    variables: tuple[tuple[str, int], ...] = ()
    """Names and first values."""
