"""What the relay tells of itself while it works: once a transaction, never once a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Published(NamedTuple):
    """A transaction is visible in Kafka."""

    rows: int
    records: int
    sequence: int
    """The last row of it."""
    seconds: float


class Cleaned(NamedTuple):
    """Confirmed rows were deleted."""

    sequence: int
    """Up to here."""


class Restarted(NamedTuple):
    """Something failed, and everything begins anew."""

    error: str


class Halted(NamedTuple):
    """The relay waits for a person's decision."""

    reason: str


class Refused(NamedTuple):
    """The broker will never take a record; it is left out, and kept as a dead letter."""

    topic: str
    error: str


RelayEvent = Published | Cleaned | Restarted | Halted | Refused
OnEvent = Callable[[RelayEvent], None]


def ignore(event: RelayEvent) -> None:
    """For whoever does not want to know."""
