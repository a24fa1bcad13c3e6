"""What a transition may ask the world to do. Nothing of it happens before the transition is durable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from statemachines.events import Event


class Publish(NamedTuple):
    """Publish an event to a topic, exactly once, in the order of the run.

    ``key`` is the Kafka key; without it the key of the run that publishes, so that what one run publishes
    to a topic stays in order.
    """

    topic: str
    event: Event
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Raise:
    """Have this run take an event at once: after what goes on now, and before any event from outside.

    It is part of the same transition: the run takes it before the transition is durable, or there is no transition.
    Where nothing takes it, it is gone.
    """

    event: Event


Effect = Publish | Raise
Out = None | Effect | Iterable[Effect]
"""What an action returns: nothing, one effect, or several."""


class Publication(NamedTuple):
    """A ``Publish`` as it is logged: everything already turned into text and bytes."""

    topic: str
    type: str
    key: str
    data: bytes


Outlet: TypeAlias = "Callable[[Publication, Event], str]"
"""Why what an action asks to publish on this event cannot leave, as the end of a sentence; empty where it can.

It depends on its arguments, and on what the engine knows of topics, which does not change while a batch is stepped.
"""
