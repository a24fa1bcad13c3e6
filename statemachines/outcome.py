"""What the interpreter answers: a closed set, one class each."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Final, NamedTuple

from statemachines.effects import Asked, Publication
from statemachines.places import Raised


class Reason(enum.StrEnum):
    """Why an event was not applied. The words are stored, published in headers and shown."""

    UNREADABLE = "unreadable"
    UNKNOWN_TYPE = "unknown type"
    NO_KEY = "no key"
    INVALID = "invalid data"
    NO_RUN = "no run"
    CLOSED = "run closed"
    UNEXPECTED = "not accepted"
    UNDOING = "is being undone already"
    GUARD_FAILED = "guard raised"
    ACTION_FAILED = "action raised"
    NEVER_SETTLES = "never settles"
    TOO_LARGE = "too large to publish"
    NEVER_RETURNED = "handler never returned"
    REFUSED_BY_STORE = "refused by store"
    WAITING_FULL = "waiting limit reached"
    REFUSED_BY_BROKER = "refused by broker"
    DEFINITION_MISSING = "definition missing"
    BEHIND_HELD = "run held"
    SEEN_BEFORE = "seen before"
    STALE = "older than what was applied"
    GAP = "events before it are missing"
    EXPIRED = "waited too long"
    DEFERRED_FULL = "deferral limit reached"
    MEMORY_FULL = "memory limit reached"
    NO_EVENTS = "no events"
    STEP_FAILED = "step failed"
    RETRYING = "to be tried again"
    VOID = "void"
    STOPPED = "its state was left"
    SKIPPED = "skipped"
    PAUSED = "pipeline paused"
    LATER = "to be completed"


STARTS: Final = "[*]"
"""Where starts lead out of, as diagrams have it; no state is called so."""


class Tried(NamedTuple):
    """A transition or a start that was considered, and the condition that failed; for ``explain``."""

    source: str
    """Empty: any state; ``STARTS``: it is a start."""
    target: str | None
    guard: str | None


class Moved(NamedTuple):
    """The event was taken: the run starts or moves."""

    started: bool
    configuration: str
    status: int
    context: bytes | None
    """None: unchanged."""
    publications: tuple[Publication, ...]
    memory: bytes | None = None
    """None: unchanged."""
    asked: tuple[Asked, ...] = ()
    """What it asked for beside publications: events to send now, or later, and what it called off."""


class Refused(NamedTuple):
    """The event is a dead letter."""

    reason: Reason
    error: str
    holds: bool
    """Whether the run is held by it, so that later events wait."""
    tried: tuple[Tried, ...] = ()
    policy: str = ""
    """The policy that decided, in words; empty where none was asked."""
    raised: Raised | None = None
    """What user code has raised; None where it did not."""


class Ignored(NamedTuple):
    """The event changes nothing, because the pipeline says so."""

    reason: Reason
    tried: tuple[Tried, ...] = ()
    policy: str = ""
    memory: bytes | None = None
    """What the run remembers of it all the same; None: nothing."""


class Deferred(NamedTuple):
    """The event waits until its run takes it, or for so long."""

    reason: Reason
    why: str
    until: datetime
    then: str
    """What becomes of it when it has waited too long: ``dead_letter`` or ``ignore``."""
    tried: tuple[Tried, ...] = ()
    policy: str = ""


class Stale(NamedTuple):
    """The event is older than one of its stream that was applied."""

    why: str
    policy: str = ""
    """What puts the stream in order, in words."""


class Duplicate(NamedTuple):
    """The event was consumed before."""


class Waits(NamedTuple):
    """The run is held: the event waits behind what holds it."""

    reason: Reason = Reason.BEHIND_HELD


DUPLICATE: Final = Duplicate()
WAITS: Final = Waits()

Outcome = Moved | Refused | Ignored | Deferred | Stale | Duplicate | Waits
