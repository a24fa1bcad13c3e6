"""Takes turns between the two callbacks of a membership, however a group's news arrive."""

from __future__ import annotations

import asyncio
import logging

from connectors.source import Changed, Partition

log = logging.getLogger(__name__)


class Turns:
    """Calls `on_assigned` and `on_revoked` one after the other, each with the same partitions.

    What a callback raises is the result of `failed`, since whoever tells the news could do nothing about it.
    """

    def __init__(self, on_assigned: Changed, on_revoked: Changed, revoke_seconds_max: float) -> None:
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._revoke_seconds_max = revoke_seconds_max
        self._assigned: frozenset[Partition] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._revoking: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def has_something(self) -> bool:
        """Whether it is `on_revoked`'s turn."""
        return self._assigned is not None

    def fail(self, error: Exception) -> None:
        """What `failed` raises, if nothing did before."""
        if not self.failed.done():
            self.failed.set_exception(error)

    def assign(self, partitions: frozenset[Partition]) -> None:
        """Begin to tell it, in a task of its own: whoever waited for it could miss a heartbeat."""
        assert self._assigned is None, "an assignment follows a revocation"
        self._assigned = partitions
        self._telling = asyncio.create_task(self._tell(partitions), name="on_assigned")

    async def revoke(self) -> None:
        """Await `on_revoked` for what is assigned, if something is; of several callers all wait for it."""
        if self._assigned is not None:
            partitions, self._assigned = self._assigned, None
            self._revoking = asyncio.create_task(self._revoke(partitions), name="on_revoked")
        if self._revoking is not None:
            await asyncio.shield(self._revoking)

    async def _tell(self, partitions: frozenset[Partition]) -> None:
        try:
            await self._on_assigned(partitions)
        except Exception as error:  # noqa: BLE001 - watch() raises it
            self.fail(error)

    async def _revoke(self, partitions: frozenset[Partition]) -> None:
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
            self._telling = None
        try:
            async with asyncio.timeout(self._revoke_seconds_max) as limit:
                await self._on_revoked(partitions)
        except Exception as error:  # noqa: BLE001 - watch() raises it
            if limit.expired():
                log.warning("Partitions were not given back within %s s", self._revoke_seconds_max)
            else:
                self.fail(error)
