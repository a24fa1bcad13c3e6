"""The lines of the table that a pipeline is: what is written down with one call each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from statemachines.context import Context
from statemachines.effects import Out
from statemachines.events import Event, KeyBy
from statemachines.places import Place

_COMPREHENSION = re.compile(r"<(?:listcomp|setcomp|dictcomp|genexpr)>\.")
"""Some versions of Python name these scopes and some do not; the name of a function must not depend on it."""
Kind = Literal["state", "region", "history"]
Handler = Callable[..., Out]
Delay = timedelta | Callable[..., timedelta | datetime | None]
"""How long after its state is entered a timer falls due; or a function of the context that answers so, or at which
time."""


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """One line of the table: in this state, on this event, if this holds, do that and go there."""

    source: str | None
    """None: in any state of the pipeline."""
    event: type[Event] | None
    """None: as soon as the state is entered, or anything changes while it is active."""
    targets: tuple[str, ...]
    """None at all: stay, without leaving the state. Several: one in each of several regions."""
    guard: Callable[..., bool] | None
    action: Callable[..., Out] | None
    place: Place
    reenter: bool = False
    """Whether the source is left and entered again where a target is the source or inside it."""
    stranger: str | None = None
    """The pipeline that a target is a state of, where that is another one; a mistake."""
    delay: Delay | None = None
    """When the timer falls due that it waits for; ``event`` is the class of the timer's events."""
    last: bool = False
    """Whether it is tried after all others, wherever in the file it stands; so it is behind them in the table."""
    compensate: bool | str = False
    """Whether what its steps have done is undone before the target is entered: of the source, or of the run where the
    transition is the pipeline's; or the state of which it is."""
    scope_stranger: str | None = None
    """The pipeline that this state is one of, where that is another one; a mistake."""

    @property
    def target(self) -> str | None:
        """The only target, or the first of several; None where there is none."""
        return self.targets[0] if self.targets else None

    @property
    def scope(self) -> str | None:
        """The state that is undone before the target is entered; empty: the run; None: nothing is."""
        if self.compensate is True:
            return self.source or ""
        return self.compensate if isinstance(self.compensate, str) else None

    @property
    def event_type(self) -> str | None:
        """The type of the events that it takes; None: it waits for none."""
        return None if self.event is None else self.event.event_type()


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """The move out of nothing: this event makes a run, whose context this function builds, if this holds."""

    event: type[Event]
    build: Callable[..., Context]
    targets: tuple[str, ...]
    """None at all: the initial state. Several: one in each of several regions."""
    action: Callable[..., Out] | None
    place: Place
    stranger: str | None = None
    """The pipeline that a target is a state of, where that is another one; a mistake."""
    guard: Callable[..., bool] | None = None
    """None: it always makes one."""

    @property
    def target(self) -> str | None:
        """The only target, or the first of several; None where there is none."""
        return self.targets[0] if self.targets else None


@dataclass(frozen=True, slots=True, eq=False)
class Keyed:
    """How events of one class are keyed in this pipeline, whatever the class itself says."""

    event: type[Event]
    by: KeyBy
    place: Place


@dataclass(frozen=True, slots=True)
class Initial:
    """How a state is entered whose states are not named: where to, and what is done on the way."""

    targets: tuple[str, ...]
    action: Handler | None
    place: Place
    stranger: str | None = None
    """The pipeline that a target is a state of, where that is another one; a mistake."""


def name_of(function: Callable[..., Any] | None) -> str | None:
    """How a function is called in definitions, diagrams and explanations."""
    if function is None:
        return None
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return _COMPREHENSION.sub("", name)
