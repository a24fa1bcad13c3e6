"""What a transition may ask the world to do. Nothing of it happens before the transition is durable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from statemachines.definition import Pipeline, State
    from statemachines.events import Event
    from statemachines.step import Step

R = TypeVar("R")


class Publish(NamedTuple):
    """Publish an event to a topic, exactly once, in the order of the run.

    ``key`` is the Kafka key; without it the key of the run that publishes, so that what one run publishes
    to a topic stays in order. With ``after`` it is published so much later, unless the run has ended by then or
    ``Cancel(id)`` has called it off.
    """

    topic: str
    event: Event
    key: str | None = None
    after: timedelta | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class Send:
    """Send an event to this run, or to another one, now or later.

    An event to the run itself is taken once this transition is over, as a transition of its own, before the next event
    from outside. One to another run comes there as if from a topic.

    Args:
        event: what is sent.
        to: the key of the run; None: this run.
        pipeline: the pipeline of the run, which needs ``to``, too; None: this one.
        after: how much later; None: now.
        at: at which time instead; it has a time zone.
        id: what ``Cancel`` calls it by. What is sent later is gone when the run that sent it ends.
    """

    event: Event
    to: str | None = None
    pipeline: str | None = None
    after: timedelta | None = None
    at: datetime | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Call off what was to come later under this id; where nothing is, nothing happens."""

    id: str


@dataclass(frozen=True, slots=True)
class Raise:
    """Have this run take an event at once: after what goes on now, and before any event from outside.

    It is part of the same transition: the run takes it before the transition is durable, or there is no transition.
    Where nothing takes it, it is gone.
    """

    event: Event


@dataclass(frozen=True, slots=True)
class Compensate:
    """Undo what steps have done before the run goes where this transition leads.

    It is for the actions of transitions that have a target; ``compensate=`` says the same of a transition once and
    for all.

    Args:
        scope: the state that is undone, or its name: all that its steps have done, and those of states inside it, since
            it was entered. It is the transition's source, around it or inside it. The pipeline stands for the run.
            None: the source; of a transition of the pipeline the run.
    """

    scope: State[Any] | Pipeline[Any] | str | None = None


@dataclass(frozen=True, slots=True)
class Settle:
    """Leave what steps have done as it is: it is not undone any more, whatever comes.

    Args:
        scope: the state, or its name, of which that is said: of what its steps have done by now, and those of states
            inside it. The pipeline stands for the run. None: the transition's source, which is that state alone and no
            other that led there; of a transition of the pipeline the run.
    """

    scope: State[Any] | Pipeline[Any] | str | None = None


@dataclass(frozen=True, slots=True)
class Complete(Generic[R]):
    """Say how a step of this run ended that goes on outside: an event has told it.

        return Complete(review, event.token, event.review)
        return Complete(review, event.token, error=event.message)

    It is as if it were completed by its token from outside, in a transition of its own, once this one is durable. What
    is not waited for any more is void.

    Args:
        step: the step, or the compensation, that has returned ``Later``.
        token: what it returned in that.
        result: what it has made, as its annotation says.
        error: why the attempt has failed; None: it has not.
    """

    step: Step[Any, R]
    token: str
    result: R | None = None
    error: str | None = None


COMPLETES = frozenset({"complete", "fail"})
"""What an ``Asked`` is that comes of it."""
Effect = Publish | Raise | Send | Cancel | Compensate | Settle | Complete[Any]
Out = None | Effect | Iterable[Effect]
"""What an action returns: nothing, one effect, or several."""


class Publication(NamedTuple):
    """A ``Publish`` as it is logged: everything already turned into text and bytes."""

    topic: str
    type: str
    key: str
    data: bytes


class Asked(NamedTuple):
    """What a transition asked for beside publications, as it is logged."""

    what: str
    """``send``, ``timer``, ``step``, ``stop``, ``settle``, ``complete``, ``fail`` or ``cancel``; or ``publish``,
    later."""
    type: str = ""
    """Of an event; or the name of a step, or of a compensation."""
    data: bytes = b""
    """JSON; of ``complete`` the result, of ``fail`` the error."""
    id: str = ""
    """What ``Cancel`` calls it by; of ``stop`` and ``settle``: the id of the execution; of a compensation: that of what
    it undoes; of ``complete`` and ``fail``: the token."""
    pipeline: str = ""
    """Empty: that of the run that sends it."""
    key: str | None = None
    """None: the run that sends it."""
    topic: str = ""
    due: int = 0
    """When, in microseconds since 1970; 0: now."""
    number: int = 0
    """Which one of those of its transition; its id comes from it."""


Outlet: TypeAlias = "Callable[[Publication, Event], str]"
"""Why what an action asks to publish on this event cannot leave, as the end of a sentence; empty where it can.

It depends on its arguments, and on what the engine knows of topics, which does not change while a batch is stepped.
"""
