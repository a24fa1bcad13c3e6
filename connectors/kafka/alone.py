"""All partitions of the topics without a group, for a broker that one engine reads alone.

The small broker knows no static members: whoever is killed is missed by its group only once the session is over. Where
nobody else reads, there is nothing to share, and so nothing to wait for.
"""

from __future__ import annotations

from collections.abc import Iterable

from connectors.kafka.queries import Queries, connect
from connectors.kafka.settings import KafkaSettings
from connectors.source import Changed, NoSuchTopicError, Partition, Trouble
from connectors.turns import Turns

REVOKE_SECONDS_MAX = 10.0


class AloneMembership:
    """Has all partitions from its start to its end; a ``Membership``."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._turns: Turns | None = None

    async def start(self, topics: Iterable[str], on_assigned: Changed, on_revoked: Changed) -> None:
        """See Membership."""
        assert self._turns is None, "a membership is started once"
        self._turns = Turns(on_assigned, on_revoked, REVOKE_SECONDS_MAX)
        self._turns.assign(await self._partitions(sorted(topics)))

    async def watch(self) -> None:
        """See Membership."""
        assert self._turns is not None, "the membership was not started"
        await self._turns.failed

    async def stop(self) -> None:
        """See Membership."""
        if self._turns is not None:
            await self._turns.revoke()
            if not self._turns.failed.done():
                self._turns.failed.set_result(None)

    def trouble(self) -> Trouble | None:
        """There is none without a group."""
        return None

    async def _partitions(self, topics: list[str]) -> frozenset[Partition]:
        client = await connect(self._settings)
        try:
            queries = Queries(client, self._settings)
            found: set[Partition] = set()
            for topic in topics:
                partitions = (await queries.leaders_of(topic)).keys()
                if not partitions:
                    raise NoSuchTopicError(
                        f"The topic {topic} does not exist on {self._settings.bootstrap}. Create it, or correct its "
                        "name."
                    )
                found |= partitions
            return frozenset(found)
        finally:
            await client.close()
