"""What the interpreter answers: a closed set, one class each."""

from __future__ import annotations

import enum
from typing import NamedTuple

from statemachines.effects import Publication


class Reason(enum.StrEnum):
    """Why an event was not applied. The words are stored, published in headers and shown."""

    UNREADABLE = "unreadable"
    UNKNOWN_TYPE = "unknown type"
    NO_KEY = "no key"
    INVALID = "invalid data"
    NO_RUN = "no run"
    CLOSED = "run closed"
    UNEXPECTED = "not accepted"
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
    NO_EVENTS = "no events"


class Tried(NamedTuple):
    """A transition that was considered, and the condition that failed; for ``explain``."""

    source: str
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


class Refused(NamedTuple):
    """The event is a dead letter."""

    reason: Reason
    error: str
    holds: bool
    """Whether the run is held by it, so that later events wait."""
    tried: tuple[Tried, ...] = ()


class Ignored(NamedTuple):
    """The event changes nothing, because the pipeline says so."""

    reason: Reason
    tried: tuple[Tried, ...] = ()


class Duplicate(NamedTuple):
    """The event was consumed before."""


class Waits(NamedTuple):
    """The run is held: the event waits behind what holds it."""

    reason: Reason = Reason.BEHIND_HELD


DUPLICATE = Duplicate()
WAITS = Waits()

Outcome = Moved | Refused | Ignored | Duplicate | Waits
