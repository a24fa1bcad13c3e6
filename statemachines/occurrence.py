"""An event on its way into a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from statemachines.events import Envelope, Event
    from statemachines.memory import Delayed, Execution


class Occurrence(NamedTuple):
    """An event on its way into a run, with all that the outcome depends on."""

    envelope: Envelope
    key: str
    digest: bytes
    now: datetime
    event: Event | None
    """None: the data failed the event's schema, as ``error`` says."""
    error: str = ""
    seen: bool = False
    """The log says that it was consumed before."""
    data: Any = None
    """The event's data as it came; asked by what it is in order by."""
    again: bool = False
    """It was deferred, and is offered once more."""
    delayed: Delayed | Execution | None = None
    """It comes from inside: what the run asked for, and what is over with it. Of the outcome of a step it may be
    anything: the run's own memory is asked for what it is the outcome of."""
