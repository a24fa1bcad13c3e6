"""What is heard of an attempt while it goes on: when last, and how far it says that it has come."""

from __future__ import annotations

import time


class Pulse:
    """Of one attempt; beaten from its thread or from the loop, and felt in the loop.

    Each of its fields is set at once, so that nothing need be locked.
    """

    __slots__ = ("heard_at", "is_over", "progress", "stored")

    def __init__(self, progress: bytes | None = None) -> None:
        self.heard_at = time.monotonic()
        self.progress = progress
        """As JSON, as it was said last, by this attempt or one before it."""
        self.stored = progress
        """As the store has it."""
        self.is_over = False
        """Whether the attempt is; then what it says counts for nothing."""

    def beat(self, progress: bytes | None) -> None:
        """The attempt says that it goes on."""
        if self.is_over:
            return
        self.heard_at = time.monotonic()
        if progress is not None:
            self.progress = progress

    def silent_seconds(self) -> float:
        """For how long nothing was heard."""
        return time.monotonic() - self.heard_at
