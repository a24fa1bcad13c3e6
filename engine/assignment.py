"""What the group gives an engine, between the membership that says so and the session that acts on it."""

from __future__ import annotations

import asyncio

from connectors.source import Partition


class Assignment:
    """Which partitions the membership gives us, and whether the session has taken notice of the last change."""

    def __init__(self) -> None:
        self.partitions: frozenset[Partition] = frozenset()
        self.fresh: set[Partition] = set()
        """Assigned since they were taken last: to be taken even if their epoch was lost before."""
        self.changed = asyncio.Event()
        self._noticed: asyncio.Future[None] | None = None
        self.serving = False

    async def add(self, partitions: frozenset[Partition]) -> None:
        """As ``on_assigned``."""
        self.partitions |= partitions
        self.fresh |= partitions
        self.changed.set()

    async def remove(self, partitions: frozenset[Partition]) -> None:
        """As ``on_revoked``: returns once nothing of ours is in flight for them."""
        self.partitions -= partitions
        self.fresh -= partitions
        self.changed.set()
        if self.serving:
            if self._noticed is None:
                self._noticed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._noticed)

    def take_again(self, partition: Partition) -> None:
        """Let the session take a partition whose epoch it lost, if it is still assigned to us."""
        if partition in self.partitions:
            self.fresh.add(partition)
            self.changed.set()

    def take_all_again(self) -> None:
        """Let the session take all partitions anew: a person set a position, and the epoch went up with it."""
        self.fresh |= self.partitions
        self.changed.set()

    def take(self) -> tuple[frozenset[Partition], set[Partition]]:
        """What is ours by now, and what of it is to be taken; whatever comes behind this is a change of its own."""
        self.changed.clear()
        fresh, self.fresh = self.fresh, set()
        return self.partitions, fresh

    def notice(self) -> None:
        """The session has acted on what it took last, and reads nothing before it has taken whatever came meanwhile."""
        if self._noticed is not None:
            self._noticed.set_result(None)
            self._noticed = None
