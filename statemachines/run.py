"""A run as the core sees it: what the row in Postgres holds, and what the log folds to."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from statemachines.events import Envelope

DIGEST_BYTES = 8
RECENT_DIGESTS_MAX = 16
"""How many digests of consumed events a run carries with it; older ones are asked of the log."""


BETWEEN = "  "
"""Between the active states of a configuration and what histories remember."""


class Status(enum.IntEnum):
    """Whether a run still takes events; from ``COMPLETED`` on it has ended."""

    EXPECTED = 0
    """Events for it have come and wait; none has started it yet."""
    RUNNING = 1
    COMPLETED = 2
    CANCELLED = 3
    """It ended where it was, since an operator cancelled it."""


class DeferredEvent(NamedTuple):
    """An event that a run does not take yet, and that is offered again after each of its moves."""

    sequence: int
    """The number of the log row that deferred it; the lowest is the oldest."""
    until: int
    """When it waits no longer, in microseconds since 1970."""
    then: str
    """What becomes of it then: ``dead_letter`` or ``ignore``."""
    reason: str
    """Why it was deferred (a value of ``Reason``)."""
    digest: bytes
    envelope: Envelope
    data: Any
    """As it came; never changed, for it may be offered many times."""
    origin: Any = None
    """Where it came from, for whoever offers it; the core does not look at it."""


class Run(NamedTuple):
    """One instance of a pipeline; a value, never changed in place.

    A tuple and not a dataclass, because one is made for every event: a frozen dataclass takes four times as
    long.
    """

    id: int
    key: str
    generation: int
    sequence: int
    """The number of the run's last log row; the first is 1."""
    status: int
    configuration: str
    """The active states, outermost first, in document order, separated by spaces; behind two spaces, what histories
    remember (``statemachines.chart.spots``)."""
    context: bytes
    recent: bytes
    """Digests of the events consumed last, oldest first, ``DIGEST_BYTES`` each."""
    hash: bytes
    """The hash of the run's last log row."""
    definition: int
    """The store's number for the definition that the run follows."""
    held: int
    """0, or the sequence number of the log row that holds the run."""
    waiting: int
    """How many events wait: behind the hold, and deferred ones."""
    started: datetime
    """When its first row was written."""
    updated: datetime
    memory: bytes = b""
    """What falls due later, and how far ordered events have come (``statemachines.memory``)."""
    deferred: tuple[DeferredEvent, ...] = ()
    """The oldest first."""

    @property
    def has_ended(self) -> bool:
        """Whether it takes no events any more."""
        return self.status >= Status.COMPLETED

    @property
    def behind(self) -> int:
        """How many events wait behind the hold."""
        return self.waiting - len(self.deferred)

    @property
    def states(self) -> tuple[str, ...]:
        """The active states, outermost first."""
        return active_in(self.configuration)


def active_in(configuration: str) -> tuple[str, ...]:
    """The active states of a configuration as it is stored, outermost first."""
    active = configuration.partition(BETWEEN)[0]
    return tuple(active.split(" ")) if active else ()


def has_seen(recent: bytes, digest: bytes) -> bool:
    """Whether ``digest`` is one of those in ``recent``."""
    at = recent.find(digest)
    while at != -1:
        if at % DIGEST_BYTES == 0:
            return True
        at = recent.find(digest, at + 1)
    return False


def remember(recent: bytes, digest: bytes) -> bytes:
    """``recent`` with ``digest`` added and the oldest dropped where there are too many."""
    return (recent + digest)[-RECENT_DIGESTS_MAX * DIGEST_BYTES :]


def recent_is_full(recent: bytes) -> bool:
    """Whether older digests may have been dropped, so that only the log knows them."""
    return len(recent) >= RECENT_DIGESTS_MAX * DIGEST_BYTES


def has_deferred(run: Run, digest: bytes) -> bool:
    """Whether an event is among those that wait for the run to take them."""
    return any(one.digest == digest for one in run.deferred)
