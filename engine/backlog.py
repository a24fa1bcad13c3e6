"""How far a pipeline's topics were applied, so that a timer does not overtake the events that came before it was due.

After a downtime a payment may wait in Kafka whose timeout is long past. So a timer fires once every partition that its
pipeline reads, whoever holds it, was applied to a record that is younger than the timer, or to the end that it had when
the timer had fallen due. A partition that nobody gets on with delays timers for a while, and then that is said.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from connectors.source import Partition, Reader, SourceError
from engine.limits import EngineLimits
from engine.routing import Route, TopicRoute
from engine.store.contract import Applied, Store
from statemachines.memory import time_of

log = logging.getLogger("pointsman.engine")

SURVEY_SECONDS = 0.25
"""So long an answer of Kafka's is waited for before what was known counts."""
PARTITIONS_SECONDS = 30.0
"""How often it is asked which partitions there are."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class _End(NamedTuple):
    at: datetime
    """Just before it was asked for."""
    offset: int


class Backlog:
    """What is known of it, by whoever serves timers."""

    def __init__(
        self,
        reader: Reader,
        store: Store,
        topics: Mapping[str, TopicRoute],
        limits: EngineLimits,
        clock: Callable[[], datetime],
    ) -> None:
        self._reader = reader
        self._store = store
        self._topics = topics
        self._limits = limits
        self._clock = clock
        self._partitions: dict[str, set[Partition]] = {}
        self._asked_at = 0.0
        self._ends: dict[Partition, _End] = {}
        self._survey: asyncio.Task[None] | None = None
        self._moved: dict[Partition, tuple[int, float]] = {}
        """The positions, and when they were last seen to change."""
        self._told: dict[Partition, float] = {}

    async def passed(self, due: Mapping[Route, datetime]) -> dict[Route, datetime]:
        """Until when all events of each pipeline were applied; ``due``: how far it would have to be."""
        await self._learn_partitions()
        applied = await self._store.applied(self._topics)
        self._notice(applied)
        passed = self._measure(due, applied)
        behind = [route for route, at in passed.items() if at < due[route]]
        if behind and await self._ask(behind, applied):
            passed = self._measure(due, await self._store.applied(self._topics))
        return passed

    def close(self) -> None:
        """Give up what is being asked."""
        if self._survey is not None:
            self._survey.cancel()

    def _measure(
        self, due: Mapping[Route, datetime], applied: Mapping[Partition, Applied]
    ) -> dict[Route, datetime]:
        now = self._clock()
        return {
            route: min(
                (self._reached(one, applied.get(one), at, now) for one in self._partitions_of(route)),
                default=now,
            )
            for route, at in due.items()
        }

    def _partitions_of(self, route: Route) -> set[Partition]:
        topics = (name for name, topic in self._topics.items() if route in topic.routes)
        return {partition for name in topics for partition in self._partitions.get(name, ())}

    def _reached(
        self, partition: Partition, applied: Applied | None, due: datetime, now: datetime
    ) -> datetime:
        reached, end = _LONG_AGO, self._ends.get(partition)
        if applied is not None:
            if end is not None and applied.position >= end.offset:
                reached = end.at
            if applied.record_time > 0:
                reached = max(reached, _time(applied.record_time, now))
        if reached < due and self._stands_still(partition, due):
            return now
        return reached

    def _stands_still(self, partition: Partition, due: datetime) -> bool:
        _, since = self._moved.setdefault(partition, (-1, time.monotonic()))
        waited = time.monotonic() - since
        if waited < self._limits.backlog_seconds_max:
            return False
        if (
            time.monotonic() - self._told.get(partition, -self._limits.complain_seconds)
            >= self._limits.complain_seconds
        ):
            self._told[partition] = time.monotonic()
            log.warning(
                "%s does not get on for %.0f seconds, and is behind %s: timers no longer wait for it "
                "(backlog_seconds_max)",
                partition,
                waited,
                due.isoformat(timespec="seconds"),
            )
        return True

    def _notice(self, applied: Mapping[Partition, Applied]) -> None:
        for partition, one in applied.items():
            if self._moved.get(partition, (None, 0.0))[0] != one.position:
                self._moved[partition] = (one.position, time.monotonic())

    async def _learn_partitions(self) -> None:
        if self._partitions and time.monotonic() - self._asked_at < PARTITIONS_SECONDS:
            return
        try:
            self._partitions = {name: await self._reader.partitions_of(name) for name in self._topics}
            self._asked_at = time.monotonic()
        except SourceError as error:
            log.debug("partitions cannot be asked for: %s", error)

    async def _ask(self, behind: list[Route], applied: Mapping[Partition, Applied]) -> bool:
        """Ask for the ends of what has come to the ones that are known; whether there is an answer already."""
        if self._survey is None:
            wanted = set()
            for partition in {one for route in behind for one in self._partitions_of(route)}:
                end, so_far = self._ends.get(partition), applied.get(partition)
                # One that has not come to its end yet keeps it: ends that run ahead would never be reached.
                if end is None or (so_far is not None and so_far.position >= end.offset):
                    wanted.add(partition)
            if not wanted:
                return False
            self._survey = asyncio.create_task(self._look(wanted), name="ends of partitions")
        survey = self._survey
        await asyncio.wait({survey}, timeout=SURVEY_SECONDS)
        if not survey.done():
            return False
        self._survey = None
        return survey.exception() is None

    async def _look(self, partitions: set[Partition]) -> None:
        at = self._clock()
        try:
            ends = await self._reader.ends(partitions)
        except SourceError as error:
            # Kafka is away, which others tell of.
            log.debug("the ends of partitions cannot be asked for: %s", error)
            return
        for partition, offset in ends.items():
            self._ends[partition] = _End(at, offset)


def _time(milliseconds: int, now: datetime) -> datetime:
    """A record's time, which may be anything; one in the future tells nothing of what came before now."""
    try:
        return min(time_of(milliseconds * 1_000), now)
    except OverflowError:
        return now - timedelta(seconds=1)
