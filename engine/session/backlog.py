"""How far a pipeline's topics were applied, so that a timer does not overtake the events that came before it was due.

After a downtime a payment may wait in Kafka whose timeout is long past. So a timer fires once every partition that its
pipeline reads, whoever holds it, was applied to a record that is younger than the timer, or to the end that it had when
the timer had fallen due. A partition that nobody gets on with delays timers for a while, and then that is said.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from connectors.source import Partition, Reader, SourceError
from engine.limits import EngineLimits
from engine.routing import Route, TopicRoute
from engine.store.contract import Store
from engine.store.values import Applied
from statemachines.durations import told_time
from statemachines.memory import time_of

log = logging.getLogger("pointsman.engine")

SURVEY_SECONDS = 0.25
"""So long an answer of Kafka's is waited for, from its question on, before what was known counts."""
FORESEEN_SECONDS = 1.0
"""So long after timers had to wait for ends, these are asked for before it is known whether any timer does again."""
PARTITIONS_SECONDS = 30.0
"""How often it is asked which partitions there are."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class _End(NamedTuple):
    at: datetime
    """Just before it was asked for."""
    offset: int


class _Behind(NamedTuple):
    position: int
    """-1: nobody has ever had the partition."""
    reached: datetime
    since: float


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
        self._survey_began = 0.0
        self._behind: dict[tuple[int, Partition], _Behind] = {}
        """By pipeline: where partitions are that its timers wait for, and since when they have not got on."""
        self._told: dict[Partition, float] = {}
        self._asked_for: dict[Route, float] = {}
        """Pipelines whose timers had to wait for ends of late, and when."""
        self._applied: Mapping[Partition, Applied] = {}

    def foresee(self) -> None:
        """Begin to ask for the ends that timers are likely to wait for, so that the answer is there when they do."""
        latest = time.monotonic() - FORESEEN_SECONDS
        self._asked_for = {route: at for route, at in self._asked_for.items() if at >= latest}
        if self._asked_for:
            self._begin_to_ask(self._asked_for, self._applied)

    async def passed(self, due: Mapping[Route, datetime]) -> dict[Route, datetime]:
        """Until when all events of each pipeline were applied; ``due``: how far it would have to be."""
        # What was foreseen is wanted nearly always, and what was applied by then counts with it.
        await self._answer()
        now = time.monotonic()
        applied = self._applied = await self._store.applied(self._topics)
        passed = self._measure(due, applied)
        behind = [route for route, at in passed.items() if at < due[route]]
        self._asked_for |= dict.fromkeys([*behind, *(self._asked_for.keys() & due.keys())], now)
        if behind:
            self._begin_to_ask(behind, applied)
            if await self._answer():
                self._applied = await self._store.applied(self._topics)
                passed = self._measure(due, self._applied)
        return passed

    def nothing_waits(self) -> None:
        """Know that no timer waits any more; partitions that are known to stand still do so on."""
        self._behind = {
            key: one
            for key, one in self._behind.items()
            if (end := self._ends.get(key[1])) is not None and one.position < end.offset
        }

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
                (self._reached(route, one, applied.get(one), at, now) for one in self._partitions_of(route)),
                default=now,
            )
            for route, at in due.items()
        }

    def _partitions_of(self, route: Route) -> set[Partition]:
        """Those of a topic of which nobody knows yet how many it has: its first one stands for them.

        None where the pipeline reads no topic: then there is nothing to wait for.
        """
        topics = (name for name, topic in self._topics.items() if route in topic.routes)
        return {one for name in topics for one in self._partitions.get(name) or {Partition(name, 0)}}

    def _reached(
        self, route: Route, partition: Partition, applied: Applied | None, due: datetime, now: datetime
    ) -> datetime:
        reached, end = _LONG_AGO, self._ends.get(partition)
        if applied is not None and partition in self._partitions.get(partition.topic, ()):
            if end is not None and applied.position >= end.offset:
                reached = end.at
            if applied.record_time > 0:
                reached = max(reached, _time(applied.record_time, now))
        if reached >= due:
            self._behind.pop((route.pipeline, partition), None)
        elif self._stands_still(route, partition, -1 if applied is None else applied.position, reached, due):
            return now
        return reached

    def _stands_still(
        self, route: Route, partition: Partition, position: int, reached: datetime, due: datetime
    ) -> bool:
        """Whether timers have waited for it for as long as they may; only what has waited for it counts."""
        now = time.monotonic()
        before = self._behind.get((route.pipeline, partition))
        if before is None or before[:2] != (position, reached):
            self._behind[route.pipeline, partition] = _Behind(position, reached, now)
            return False
        waited = now - before.since
        if waited < self._limits.backlog_seconds_max:
            return False
        if now - self._told.get(partition, -self._limits.complain_seconds) >= self._limits.complain_seconds:
            self._told[partition] = now
            log.warning(
                "%s does not get on for %.0f seconds, and is behind %s: timers no longer wait for it "
                "(backlog_seconds_max)",
                partition,
                waited,
                told_time(due),
            )
        return True

    def _begin_to_ask(self, behind: Iterable[Route], applied: Mapping[Partition, Applied]) -> None:
        """Ask for the ends of what has come to the ones that are known, if nothing is being asked."""
        if self._survey is None:
            looking = self._look(list(behind), applied)
            self._survey = asyncio.create_task(looking, name="ends of partitions")
            self._survey_began = time.monotonic()

    async def _answer(self) -> bool:
        """Whether there is an answer already."""
        if self._survey is not None:
            left = self._survey_began + SURVEY_SECONDS - time.monotonic()
            await asyncio.wait({self._survey}, timeout=max(0.0, left))
        return self._hear()

    def _hear(self) -> bool:
        """Whether there is an answer, so that there may be another question."""
        survey = self._survey
        if survey is None or not survey.done():
            return False
        self._survey = None
        survey.result()
        return True

    async def _look(self, behind: list[Route], applied: Mapping[Partition, Applied]) -> None:
        try:
            await self._learn_partitions()
            wanted = set()
            for partition in {one for route in behind for one in self._partitions_of(route)}:
                end, so_far = self._ends.get(partition), applied.get(partition)
                # One that has not come to its end yet keeps it: ends that run ahead would never be reached.
                if end is None or (so_far is not None and so_far.position >= end.offset):
                    wanted.add(partition)
            at = self._clock()
            ends = await self._reader.ends(wanted) if wanted else {}
        except SourceError as error:
            # Kafka is away, which others tell of.
            log.debug("the ends of partitions cannot be asked for: %s", error)
            return
        for partition, offset in ends.items():
            self._ends[partition] = _End(at, offset)

    async def _learn_partitions(self) -> None:
        if self._partitions and time.monotonic() - self._asked_at < PARTITIONS_SECONDS:
            return
        self._partitions = {name: await self._reader.partitions_of(name) for name in self._topics}
        self._asked_at = time.monotonic()


def _time(milliseconds: int, now: datetime) -> datetime:
    """A record's time, which may be anything; one in the future tells nothing of what came before now."""
    try:
        return min(time_of(milliseconds * 1_000), now)
    except OverflowError:
        return now - timedelta(seconds=1)
