"""What the engine tells of itself while it works; everything is counted once a batch, never once an event."""

from __future__ import annotations

from typing import Protocol

from engine.batch import Batch


class Observer(Protocol):
    """Takes notice; the metrics are one, a test may be another."""

    def committed(self, batch: Batch, seconds: float) -> None:
        """A batch is durable; its commit took so long."""

    def lost_comparison(self) -> None:
        """Another engine moved a run first."""

    def lost_partition(self, partition: str) -> None:
        """Another engine took a partition."""

    def paused(self, partitions: int) -> None:
        """So many partitions are paused now."""

    def lag(self, partition: str, records: int) -> None:
        """So many records of a partition wait to be read."""


class Silent:
    """Notices nothing, for nothing."""

    def committed(self, batch: Batch, seconds: float) -> None:
        """See Observer."""

    def lost_comparison(self) -> None:
        """See Observer."""

    def lost_partition(self, partition: str) -> None:
        """See Observer."""

    def paused(self, partitions: int) -> None:
        """See Observer."""

    def lag(self, partition: str, records: int) -> None:
        """See Observer."""
