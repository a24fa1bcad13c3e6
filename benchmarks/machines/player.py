"""The machines that the pure core and other libraries are compared on: what they are called, and how they are played.

The flat one goes round its five states. The nested one is three levels deep: ``idle``, and ``active`` around the
regions ``payment`` and ``parcel``, each around three states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

FLAT_STATES = ("placed", "charged", "packed", "shipped", "settled")
FLAT_EVENTS = ("charge", "pack", "ship", "settle", "reopen")
"""Each out of one state into the next; the last leads back to the first."""
NESTED_STATES = ("idle", "unpaid", "paid", "booked", "unpacked", "boxed", "sent")
"""The innermost ones."""
NESTED_EVENTS = ("begin", "pay", "box", "book", "ship", "renew", "box", "pay", "stop", "begin", "cancel")
"""Begin: into both regions. Pay, book: within the one; box, ship: within the other. Renew: taken by both at once.
Stop: out of both, from the outermost state. Cancel: out of both, from an innermost one."""
INNERMOST = frozenset({*FLAT_STATES, *NESTED_STATES})


class Player(Protocol):
    """A machine that takes events over and over."""

    def play(self, events: Sequence[str], times: int) -> None:
        """Take these events in order, and again, as often as that."""

    @property
    def states(self) -> frozenset[str]:
        """The innermost states that are active."""

    @property
    def moves(self) -> int:
        """How often the action was done; 0 for a machine without one."""


def ring() -> list[tuple[str, str, str]]:
    """The transitions of the flat machine: event, source, target."""
    return list(zip(FLAT_EVENTS, FLAT_STATES, (*FLAT_STATES[1:], FLAT_STATES[0]), strict=True))
