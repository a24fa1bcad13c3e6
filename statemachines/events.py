"""Events: immutable facts with an id, a type, a key and data.

An event class names the type that it stands for and the field of its data that is the run's key::

    class OrderPlaced(Event, type="order.placed", key="order_id"):
        order_id: str
        amount: int

What CloudEvents calls context attributes (id, source, time, ...) is in ``event.meta``, so that data may have
fields of those names.
"""

from __future__ import annotations

import re
import types
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeGuard, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from statemachines.ids import asked_id, derived_id
from statemachines.places import Place, calling_place

if TYPE_CHECKING:
    from datetime import datetime

    from statemachines.definition import State
    from statemachines.machine import Machine

E = TypeVar("E", bound="Event")

DONE_PREFIX = "done.state."
"""How the types of events begin that say that a state is done."""
STEP_DONE = "done.step."
STEP_FAILED = "failed.step."
STEP_TRIED = "tried.step."
STEP_STOPPED = "stopped.step."
STEP_WAITS = "waits.step."
"""How the types of events begin that say how an attempt at a step ended: well, for good, or to be tried again; what
became of it once its state was left; or that it goes on outside, and is to be completed by its token."""
STEP_RETRIED = "retried.step."
STEP_SKIPPED = "skipped.step."
"""The same of what an operator decides of one that has failed for good: it begins anew, or the run goes on without."""
OUTCOMES = (STEP_DONE, STEP_FAILED, STEP_TRIED, STEP_STOPPED, STEP_WAITS, STEP_RETRIED, STEP_SKIPPED)
KeyBy = str | Sequence[str] | Callable[[dict[str, Any]], str | int | None]
"""What names the run's key: a field (``a.b`` for one within a field), several of them, or a function of the data."""


class Envelope(NamedTuple):
    """The attributes of an event apart from its data, as they were found in the record that carried it."""

    id: str
    source: str
    type: str
    key: str | None
    """The run's key as the topic's settings or the record have it; a class's own key field comes first."""
    time: datetime | None
    subject: str | None = None
    traceparent: str | None = None
    attributes: Mapping[str, Any] = {}
    """Further CloudEvents attributes and extensions, by name."""


IDS_KEPT_MAX = 20_000
"""So many of the ids that were derived last are kept, of those that are asked for several times: some 8 MB, where keys
are short. That of a step is wanted when it is asked for, begins and ends, with thousands of others in between."""


class Address(NamedTuple):
    """What names one move of one run, now and after any number of crashes: all derived ids come from it."""

    namespace: str
    pipeline: str
    key: str
    generation: int
    sequence: int

    def derive(self, index: int) -> uuid.UUID:
        """The id of the effect (or of anything else) number ``index`` of this move; equal on every replay."""
        return uuid.UUID(self.derive_text(index))

    def derive_text(self, index: int) -> str:
        """The same as text; a UUID costs more than the hash."""
        return derived_id(*self, index)

    def id_of_asked(self, number: int) -> str:
        """The id of what this move has asked for beside publications: a timer, an event, or a step."""
        return asked_id(*self, number)

    def id_of_execution(self, execution: str) -> str:
        """The id of a step that the run has asked for by this move or another one.

        ``execution`` is ``sequence.number``.

        Raises:
            ValueError: it is not.
        """
        sequence, number = map(int, execution.split("."))
        return self._replace(sequence=sequence).id_of_asked(number)


kept_id = lru_cache(maxsize=IDS_KEPT_MAX)(Address.id_of_asked)
"""The same for ids that are asked for several times within a moment, as those of steps are."""


class Meta(NamedTuple):
    """What a handler may know of an event beside its data."""

    envelope: Envelope
    now: datetime
    """When the engine took the event up, stamped once and logged; never goes backwards within a run."""
    address: Address
    active: Callable[[str], bool]
    """Whether a state is active, by its name."""
    tagged: Callable[[str], bool]
    """Whether a state with a tag is active."""

    @property
    def id(self) -> str:
        """The event's id; unique within its source."""
        return self.envelope.id

    @property
    def source(self) -> str:
        """Who says so: CloudEvents ``source``, or cluster, topic and partition for plain records."""
        return self.envelope.source

    @property
    def type(self) -> str:
        """The event's type; of a class whose type is a pattern, the one that really came."""
        return self.envelope.type

    @property
    def time(self) -> datetime | None:
        """When it happened, by the event's own account (for plain records: Kafka's time)."""
        return self.envelope.time

    @property
    def subject(self) -> str | None:
        """CloudEvents ``subject``, if given."""
        return self.envelope.subject

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Further CloudEvents attributes and extensions."""
        return self.envelope.attributes

    @property
    def key(self) -> str:
        """The run's key."""
        return self.address.key

    def is_in(self, state: State[Any] | str) -> bool:
        """Whether a state is active: in a guard, before the transition; in an action, just then."""
        return self.active(str(state))

    def has_tag(self, tag: str) -> bool:
        """Whether any active state has a tag: in a guard, before the transition; in an action, just then."""
        return self.tagged(tag)

    def uuid(self, index: int) -> uuid.UUID:
        """An id that is made up here and yet the same on every replay; use other numbers for other ids.

        Ids of effects come from the numbers 0, 1, ...; these come from their own range.
        """
        return self.address.derive(-1 - index)


class Event(BaseModel):
    """Base class of all event classes; frozen, and validated once, when it arrives.

    Class arguments:
        type: the event type that the class stands for, such as ``order.placed``; or a pattern of types: ``order.*``
            for ``order`` and all below it, ``*`` for every type.
        key: the field of the data that holds the run's key, ``a.b`` for one within a field; several, in a tuple; or
            a function of the data (see ``statemachines.keys``). Without it the topic's settings decide (by default
            the Kafka key, then CloudEvents ``subject``), and ``Pipeline.key`` has the last word.

    Fields of the data that the class does not name are ignored, so that a publisher may add some.
    """

    __slots__ = ("__event_origin__",)

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, ser_json_inf_nan="strings")

    __event_type__: ClassVar[str] = ""
    __event_key__: ClassVar[KeyBy | None] = None
    __event_place__: ClassVar[Place] = Place("", 0)

    def __init_subclass__(cls, *, type: str = "", key: KeyBy | None = None, **kwargs: Any) -> None:
        """Note type and key; pydantic calls this before the fields are known, so the key is checked later."""
        super().__init_subclass__(**kwargs)
        if type:
            cls.__event_type__ = type
        if key is not None:
            cls.__event_key__ = key
        cls.__event_place__ = calling_place()

    @property
    def meta(self) -> Meta:
        """What is known of the event beside its data.

        Raises:
            AttributeError: the event is not on its way into a run, so nothing is known yet.
        """
        try:
            make, *origin = _get_origin(self)
        except AttributeError:
            name = self.__class__.__name__
            message = (
                f"{name} has no meta: it was made by hand and no run has taken it. The test kit gives it one"
            )
            raise AttributeError(message) from None
        made: Meta = make(*origin)
        return made

    @classmethod
    def named(cls, type: str, *, key: KeyBy | None = None) -> type[Self]:
        """A class for an event type known only by name, as when the types come from a list.

        Of a class whose type is a pattern it makes one with the same fields and key, for one of its types.
        """
        name = "".join(part.capitalize() for part in re.split(r"\W+", type))
        return _new_class(name or "Named", cls, type, key)

    @classmethod
    def event_type(cls) -> str:
        """The event type that this class stands for."""
        return cls.__event_type__

    @classmethod
    def event_key(cls) -> KeyBy | None:
        """What holds the run's key, if the class names it."""
        return cls.__event_key__

    @classmethod
    def event_place(cls) -> Place:
        """The file and line where the class is defined."""
        return cls.__event_place__


class Done(Event):
    """What ``statemachines.done.Done`` is made of, which says of what type the data is."""

    data: Any = None


class Failed(Event, type="error.execution"):
    """Says that a handler failed: what it did is undone, and the event goes on with what takes this one.

    Where no transition takes it, nothing of the whole move is kept, and the event is a dead letter.
    """

    handler: str
    error: str


class StepFailed(Event, type=f"{STEP_FAILED}*"):
    """Says that a step has failed, and is not tried again; this class itself takes the failures of all steps."""

    error: str
    """The name of the exception's class."""
    message: str = ""
    attempts: int = 1
    """How often it was tried."""


class Compensated(Event, type="done.compensation"):
    """Says that all is undone that was to be; what is done where the run goes then is given it."""


class Cancelled(Event, type="cancel.run"):
    """Says that an operator cancels the run; what takes it says what becomes of the run.

    Where no transition does, the run ends where it is.
    """

    who: str
    why: str


class After(Event):
    """Says that a timer of a state, or of the whole run, fell due."""


AFTER_PREFIX = "after."


def make_after(state: str | None, number: int) -> type[After]:
    """The class of the events of timer ``number`` of a state; None: of the run."""
    where = f"{number}" if state is None else f"{state}.{number}"
    return _new_class("After", After, f"{AFTER_PREFIX}{where}", None)


def is_internal(event: type[Event]) -> bool:
    """Whether only the interpreter makes such events; from outside they are of an unknown type."""
    return issubclass(event, Done | Failed | After | StepFailed | Compensated | Cancelled)


def is_outcome(event: type[Event]) -> bool:
    """Whether such events say how a step ended."""
    return issubclass(event, Done | StepFailed) and str(event.event_type()).startswith(OUTCOMES)


def is_result(event_type: str) -> bool:
    """Whether events of this type say how an attempt at a step ended, or what became of it once it was stopped."""
    return event_type.startswith(OUTCOMES)


# A slot, written past the frozen model's __setattr__. It holds a function and its arguments, because a Meta
# costs a microsecond to make and most handlers never look at it.
set_origin = Event.__event_origin__.__set__  # type: ignore[attr-defined]  # slots have no declared type
_get_origin = Event.__event_origin__.__get__  # type: ignore[attr-defined]  # the same


def machine_of(event: Event) -> Machine | None:
    """The machine that an event is on its way through; None where it was made by hand."""
    try:
        machine: Machine = _get_origin(event)[1]
    except AttributeError:
        return None
    return machine


def type_of(event: Event) -> str:
    """The type of one event: where its class stands for several, the one that it came as; empty where it has none."""
    event_type = event.event_type()
    if event_type.endswith("*"):
        try:
            envelope: Envelope = _get_origin(event)[3]
        except AttributeError:
            return ""
        return envelope.type
    return event_type


def _new_class(name: str, base: type[E], event_type: str, key: KeyBy | None) -> type[E]:
    body = {"__module__": base.__module__, "__qualname__": name}
    return cast(
        "type[E]",
        types.new_class(name, (base,), {"type": event_type, "key": key}, lambda space: space.update(body)),
    )


def is_event_class(value: object) -> TypeGuard[type[Event]]:
    """Whether ``value`` is a class of events; definitions may hold anything until they are validated."""
    return isinstance(value, type) and issubclass(value, Event)
