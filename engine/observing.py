"""What the engine tells of itself while it works; everything is counted once a batch, never once an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from connectors.source import Partition
from engine.batch.batch import Batch


class Observer(Protocol):
    """Takes notice; the metrics are one, a test may be another."""

    def committed(self, batch: Batch, seconds: float) -> None:
        """A batch is durable; its commit took so long."""

    def lost_comparison(self) -> None:
        """Another engine moved a run first."""

    def lost_partition(self, partition: str) -> None:
        """Another engine took a partition."""

    def paused(self, partitions: int) -> None:
        """So many partitions are not read now, though they are ours."""

    def assigned(self, partitions: Mapping[int, Partition]) -> None:
        """These partitions are ours now, by the store's numbers of their positions."""


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

    def assigned(self, partitions: Mapping[int, Partition]) -> None:
        """See Observer."""


class Several:
    """Passes on to each what it is told."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def committed(self, batch: Batch, seconds: float) -> None:
        """See Observer."""
        for one in self._observers:
            one.committed(batch, seconds)

    def lost_comparison(self) -> None:
        """See Observer."""
        for one in self._observers:
            one.lost_comparison()

    def lost_partition(self, partition: str) -> None:
        """See Observer."""
        for one in self._observers:
            one.lost_partition(partition)

    def paused(self, partitions: int) -> None:
        """See Observer."""
        for one in self._observers:
            one.paused(partitions)

    def assigned(self, partitions: Mapping[int, Partition]) -> None:
        """See Observer."""
        for one in self._observers:
            one.assigned(partitions)


def together(observers: Sequence[Observer]) -> Observer:
    """One observer that stands for these."""
    match observers:
        case []:
            return Silent()
        case [one]:
            return one
        case several:
            return Several(several)
