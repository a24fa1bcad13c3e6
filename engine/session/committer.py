"""From slices of records to durable transitions: one commit in flight, and a draft that grows meanwhile.

What can come back from a commit instead of success, and what is done then, is in ``recovering``.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from connectors.elements import ELEMENTS_MAX
from engine.batch.arrival import Arrival
from engine.batch.batch import Batch
from engine.batch.loading import keep, load_for, load_into_cache
from engine.commands.telling import tell_dead_letters, tell_pause
from engine.observing import Observer
from engine.raised import Seldom
from engine.routing import Route, Routes
from engine.session.claims import Slice, bytes_in, moves_of
from engine.session.recovering import Recovery
from engine.session.run_ids import RunIds
from engine.session.timers import Due
from engine.steps.result import StepResult
from engine.store.contract import LostPositionsError, LostRunsError, RefusedByStoreError, Store
from engine.store.values import Pause

T = TypeVar("T")

EVENTS_BETWEEN_BREATHS = 50
"""After reading or stepping as many the event loop gets a turn, so that the commit in flight goes on."""
EVENTS_LOADED_AT_ONCE = 500
"""The runs of as many events are asked for at once, while those before them are stepped."""
EVENT_BYTES = 500
"""What one of several events of a record counts for, beside its value."""
RECORD_BYTES_AT_FIRST = 64 * 1024
"""What a record is taken to come to until some have been stepped: nothing tells how large the contexts of runs are."""


@dataclass(slots=True, eq=False)
class Weighed:
    """What records have come to of late: rows of the log, and runs with their contexts."""

    bytes_each: float = RECORD_BYTES_AT_FIRST

    def learn(self, came_to: int, records: int) -> None:
        """So many have come to so much. What was large once is not forgotten at once."""
        if records:
            self.bytes_each = max(came_to / records, self.bytes_each / 2)


@dataclass(slots=True, eq=False)
class Draft:
    """A batch that may still grow, and what it is made of."""

    batch: Batch
    slices: list[Slice] = field(default_factory=list)
    records: int = 0
    bytes: int = 0
    """Of values, as ``weight_of`` counts them, or of what is to be written, whichever are more."""
    due: list[Due] = field(default_factory=list)
    results: list[StepResult] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be durable by it that is not so already."""
        return not (self.slices or self.results or self.batch.commit.rows)


@dataclass(slots=True, eq=False)
class Pending:
    """A commit in flight."""

    slices: Sequence[Slice]
    due: Sequence[Due]
    results: Sequence[StepResult]
    batch: Batch
    """Once it is settled, what the results are durable by."""
    task: asyncio.Task[int | None]
    began: float = field(default_factory=time.perf_counter)
    came_to_nothing: bool = False
    """Whether ``batch`` is not durable, and none in its place: the store did not take the data, or all of it was of
    partitions that are lost."""


class Committer:
    """Prepares batches and brings them into the store, for as long as one connection lasts."""

    def __init__(
        self,
        store: Store,
        topics: Routes,
        cluster: str,
        clock: Callable[[], datetime],
        steady: Callable[[], datetime],
        observer: Observer,
        beat: MutableSequence[int],
        weighed: Weighed | None = None,
    ) -> None:
        """``steady`` is the clock of steps; ``weighed`` is what is known from connections before."""
        self._store = store
        self._topics = topics
        self._weighed = weighed or Weighed()
        self.cluster = cluster
        self._clock = clock
        self.steady = steady
        """What steps go by."""
        self._observer = observer
        self._beat = beat
        self._ids = RunIds(store)
        self._routes_per_topic = max((len(topic.routes) for topic in topics.values()), default=1)
        self.strikes: dict[tuple[int, int], tuple[int, str]] = {}
        self.paused: dict[int, Pause] = {}
        """By pipeline, as far as it was heard; batches look at it."""
        self._names = {route.pipeline: route.name for route in topics.pipelines}
        self.last_ticket = 0
        self._traced = Seldom()
        self._recovery = Recovery(self, store, topics, observer)
        self.left_alone = self._recovery.left_alone

    async def learn_pauses(self) -> None:
        """Know which pipelines are paused."""
        found = {one.pipeline: one for one in await self._store.pauses(list(self._names))}
        for pipeline in found.keys() ^ self.paused.keys():
            tell_pause(self._names[pipeline], found.get(pipeline))
        self.paused.clear()
        self.paused.update(found)

    async def prepare(
        self,
        slices: Sequence[Slice],
        previous: Pending | None,
        due: Sequence[Due] = (),
        results: Sequence[StepResult] = (),
    ) -> Batch:
        """A batch of all these records, stepped on runs that may be ahead of the store by the commit in flight."""
        draft = await self.draft(previous)
        await self.extend(draft, slices)
        if due:
            # They may have moved since they were found.
            await self.extend_due(draft, [replace(one, run=None) for one in due])
        if results:
            await self.extend_results(draft, results)
        return self.finish(draft)

    async def draft(self, previous: Pending | None) -> Draft:
        """An empty one, for what comes after the commit in flight."""
        draft = Draft(await self.new_batch(0))
        if previous is not None:
            draft.batch.inherit(previous.batch)
        return draft

    async def extend(self, draft: Draft, slices: Sequence[Slice]) -> None:
        """Step these records, which follow those that the draft has."""
        batch = draft.batch
        if draft.slices:
            batch.goes_on(self._clock())
        number = sum(len(one.records) for one in slices)
        draft.slices.extend(slices)
        draft.records += number
        rows, read = len(batch.commit.rows), 0
        for claim, records, _, _ in slices:
            if not claim.lost:
                topic = self._topics[claim.partition.topic]
                for portion in in_portions(records, EVENTS_BETWEEN_BREATHS):
                    batch.read(portion, claim.id, topic)
                    read += len(portion)
                    if read >= EVENTS_BETWEEN_BREATHS:
                        # Of several partitions together there may be no more than that.
                        read = 0
                        await _breathe()
        await self.have_ids(len(batch.arrivals))
        taken = await self._meet(batch)
        came_to = batch.bytes_since(rows, taken)
        self._weighed.learn(came_to, number)
        draft.bytes += max(came_to, self._bytes_of_values(slices))

    async def extend_due(self, draft: Draft, due: Sequence[Due]) -> None:
        """Have what has fallen due for these runs happen, after all that the draft has."""
        batch, rows = draft.batch, len(draft.batch.commit.rows)
        batch.goes_on(self._clock())
        draft.due.extend(due)
        missing: dict[Route, list[str]] = {}
        for one in due:
            route, key = one.route, one.key
            known = route.cache.get(key)
            if known is not None:
                if (known.generation, known.sequence) >= (one.generation, one.sequence):
                    continue
                # Another engine has moved it since, which has its events. What rests on it already will be lost.
                if batch.rests_on(route, key):
                    continue
                del route.cache[key]
            if one.run is not None and not one.run.waiting:
                keep(route, one.run)
            else:
                missing.setdefault(route, []).append(key)
        for route, keys in missing.items():
            await load_into_cache(route, sorted(keys), self._store, self._topics)
        runs = (one.route.cache.get(one.key) for one in due)
        await self._ids.have(len(due) + sum(len(run.deferred) for run in runs if run is not None))
        for portion in in_portions(due, EVENTS_BETWEEN_BREATHS):
            for one in portion:
                if one.route.pipeline not in self.paused:
                    batch.fall_due(one.route, one.key, one.until)
            batch.rest()
            await _breathe()
        draft.bytes += batch.bytes_since(rows, [(one.route, one.key) for one in due])

    async def extend_results(self, draft: Draft, results: Sequence[StepResult]) -> None:
        """Have runs take what became of their steps, after all that the draft has."""
        batch, rows = draft.batch, len(draft.batch.commit.rows)
        batch.goes_on(self._clock())
        draft.results.extend(results)
        missing: dict[Route, list[str]] = {}
        for one in results:
            route, key = one.route, one.key
            known = route.cache.get(key)
            if (
                known is not None
                and known.generation < one.begun.generation
                and not batch.rests_on(route, key)
            ):
                # Another engine has begun the next run of the key. What rests on this one already will be lost.
                del route.cache[key]
                known = None
            if known is None:
                missing.setdefault(route, []).append(key)
        for route, keys in missing.items():
            await load_into_cache(route, sorted(set(keys)), self._store, self._topics)
        runs = [one.route.cache[one.key] for one in results if one.key in one.route.cache]
        await self._ids.have(len(results) + sum(len(run.deferred) for run in runs))
        held = sorted({run.id for run in runs if run.held})
        if held:
            # What became of an attempt may wait behind the hold already, if it was not heard that it does.
            batch.waiting |= await self._store.waiting_digests(held)
        for portion in in_portions(results, EVENTS_BETWEEN_BREATHS):
            batch.meet_results(portion)
            batch.rest()
            await _breathe()
        draft.bytes += batch.bytes_since(rows, [(one.route, one.key) for one in results])

    def finish(self, draft: Draft) -> Batch:
        """Its batch, which grows no more."""
        draft.batch.commit.positions.extend(moves_of(draft.slices))
        draft.batch.finish()
        return draft.batch

    async def _meet(self, batch: Batch) -> list[Arrival]:
        """Let all events meet their runs, while what the next of them need is loaded; returns them."""
        taken = batch.take_arrivals()
        number = len(taken)
        portions = [*in_portions(taken, EVENTS_LOADED_AT_ONCE)]
        if portions:
            await self.load(batch, portions[0], number)
        for arrivals, following in itertools.pairwise([*portions, ()]):
            loading = asyncio.create_task(self.load(batch, following, number)) if following else None
            try:
                for some in in_portions(arrivals, EVENTS_BETWEEN_BREATHS):
                    batch.meet(some)
                    batch.rest()
                    await _breathe()
                if loading is not None:
                    await loading
            finally:
                if loading is not None:
                    loading.cancel()
        return taken

    async def learn_strikes(self, positions: Iterable[int | None]) -> None:
        """Know which records of these positions ended an engine before."""
        self.strikes |= await self._store.strikes([one for one in positions if one is not None])

    def weight_of(self, slices: Sequence[Slice]) -> int:
        """What these records come to in bytes: their values, or as much as records have come to of late.

        So a batch stays within its limits whatever records and contexts hold.
        """
        number = sum(len(one.records) for one in slices)
        return max(self._bytes_of_values(slices), round(number * self._weighed.bytes_each))

    def _bytes_of_values(self, slices: Sequence[Slice]) -> int:
        """Of records that may hold several events also what so many take at most: one more than there are commas."""
        weight = bytes_in(slices)
        for claim, records, _, _ in slices:
            if self._topics[claim.partition.topic].topic.each is not None:
                commas = (min((record.value or b"").count(b","), ELEMENTS_MAX) for record in records)
                weight += EVENT_BYTES * sum(commas)
        return weight

    async def have_ids(self, number: int) -> None:
        """Be able to start so many runs."""
        await self._ids.have(number)

    async def load(self, batch: Batch, arrivals: Sequence[Arrival], number: int) -> None:
        """Bring what is needed for these arrivals, of so many of the batch, to meet their runs.

        What is deferred for a run may begin one of its own, each event one, once the run has ended.
        """
        deferred = await load_for(batch, arrivals, self._store, self._topics)
        if deferred:
            await self._ids.have(number + deferred)

    async def new_batch(self, runs_max: int) -> Batch:
        """An empty batch that may start so many runs."""
        await self._ids.have(runs_max * self._routes_per_topic)
        batch = Batch(self._clock(), self._ids, self.cluster, self._beat)
        batch.commit.steps_at = self.steady()
        batch.strikes, batch.paused = self.strikes, self.paused
        return batch

    def begin(
        self,
        slices: Sequence[Slice],
        batch: Batch,
        due: Sequence[Due] = (),
        results: Sequence[StepResult] = (),
    ) -> Pending:
        """Send a batch on its way; ``settle`` waits for it."""
        return Pending(slices, due, results, batch, asyncio.create_task(self._store.commit(batch.commit)))

    async def settle(self, pending: Pending, ahead: Batch | None = None) -> bool:
        """Wait until the commit is durable; False where it had to be computed again.

        Then what was stepped ``ahead`` of it is worth nothing, and its runs are forgotten. What became of steps is
        durable in both cases, unless it ``came_to_nothing``.

        Raises:
            StoreUnavailableError: the outcome is not known.
        """
        try:
            ticket = await pending.task
        except (LostPositionsError, LostRunsError, RefusedByStoreError) as error:
            self.forget(pending.batch)
            if ahead is not None:
                # First of all, or the batch would be computed again on runs that have seen its successors.
                self.forget(ahead)
            again = await self._recovery.recover(pending.slices, error, pending.due, pending.results)
            pending.batch, pending.came_to_nothing = again or pending.batch, again is None
            return False
        self._done(pending.batch, ticket, time.perf_counter() - pending.began)
        return True

    def forget(self, batch: Batch) -> None:
        """Drop the runs that a batch rests on: they are ahead of the store, or behind it."""
        for route, key in batch.met():
            route.cache.pop(key, None)

    async def commit(self, batch: Batch) -> None:
        """Make a batch durable, with nothing in flight beside it."""
        began = time.perf_counter()
        ticket = await self._store.commit(batch.commit)
        self._done(batch, ticket, time.perf_counter() - began)

    def _done(self, batch: Batch, ticket: int | None, seconds: float) -> None:
        if ticket is not None:
            self.last_ticket = ticket
        for place in batch.commit.strikes_forgotten:
            self.strikes.pop(place, None)
        if batch.commit.dead_letters:
            tell_dead_letters(batch.commit.dead_letters, self._traced)
        self._observer.committed(batch, seconds)


async def _breathe() -> None:
    """Let the event loop turn twice: once to hear what has come, and once for those that it is for."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def in_portions(many: Sequence[T], length: int) -> Iterator[Sequence[T]]:
    """So many at a time, in order."""
    for at in range(0, len(many), length):
        yield many[at : at + length]
