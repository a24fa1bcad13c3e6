"""What can come back from a commit instead of success, and what is done then.

=====================  =========================================================================================
lost positions         the partitions whose epoch is lost are dropped, the rest is computed again and committed
lost runs              the runs are loaded again and the batch is computed again, with what has fallen due and what
                       became of steps; after two losses they are locked first; after a few more it is passed on, and
                       the engine begins anew after a pause. Where the log has it that an event was taken already, and
                       the engine does not find that, it is dealt with as refused by the store
refused by the store   the batch is halved until the one record is found, which becomes a dead letter (one for each
                       event that it holds); where even that is refused, its partition is stopped and waits for a
                       person. What has fallen due is left alone then, until the run is moved by something else
fault of the store     no record's: it is passed on, and the engine begins anew on a new connection
unavailable            the outcome is unknown: it is passed on, and the engine begins anew on a new connection
=====================  =========================================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.batch.loading import load_into_cache
from engine.commands.telling import kind_of
from engine.observing import Observer
from engine.routing import Route, TopicRoute
from engine.session.claims import Claim, Slice, halves, moves_of
from engine.session.timers import Due
from engine.steps.result import StepResult
from engine.store.contract import (
    LostPositionsError,
    LostRunsError,
    RefusedByStoreError,
    Store,
    StoreError,
    TakenTwiceError,
)

if TYPE_CHECKING:
    from engine.batch.batch import Batch
    from engine.session.committer import Committer

log = logging.getLogger("pointsman.engine")

LOSSES_BEFORE_LOCK = 2
LOSSES_MAX = 6
"""Of one batch. Nobody moves runs that are locked: what is lost so often is not lost to another engine."""
LEFT_ALONE_MAX = 10_000
"""Of as many runs it is known that the store takes in no way what has fallen due; with one more the engine begins anew,
as it does when the store takes nothing at all."""


class Recovery:
    """Of the batches of one committer, with nothing in flight meanwhile."""

    def __init__(
        self, committer: Committer, store: Store, topics: Mapping[str, TopicRoute], observer: Observer
    ) -> None:
        self._committer = committer
        self._store = store
        self._topics = topics
        self._observer = observer
        self.left_alone: dict[tuple[Route, str], Due] = {}
        """By run, as it was then: what has fallen due, and the store takes neither as a move nor as a dead letter."""

    async def recover(
        self,
        slices: Sequence[Slice],
        error: Exception,
        due: Sequence[Due] = (),
        results: Sequence[StepResult] = (),
    ) -> Batch | None:
        """Compute all of it again until it is durable; returns by which batch.

        None where nothing is left to be computed, or the store does not take it: then of the results none is durable.
        """
        losses = 0
        while True:
            match error:
                case RefusedByStoreError() if due or results:
                    # The records may be taken without what has fallen due, and without what became of steps.
                    await self._alone(slices)
                    await self._one_by_one(due)
                    return None
                case LostPositionsError(lost=lost):
                    self._drop(slices, lost)
                case LostRunsError():
                    losses += 1
                    if self._committer.paused:
                        # It may be that a pipeline was resumed.
                        await self._committer.learn_pauses()
                    self._observer.lost_comparison()
                    if losses >= LOSSES_MAX:
                        error = _unless_lost(error)
                        continue
                case RefusedByStoreError():
                    await self._halve(slices, error)
                    return None
            slices = [one for one in slices if not one.claim.lost]
            if not (slices or due or results):
                return None
            batch = await self._committer.prepare(slices, None, due, results)
            try:
                if losses >= LOSSES_BEFORE_LOCK:
                    batch = await self._locked(batch, slices, due, results)
                await self._committer.commit(batch)
            except (LostPositionsError, LostRunsError, RefusedByStoreError) as again:
                self._committer.forget(batch)
                error = again
            else:
                return batch

    async def _locked(
        self, batch: Batch, slices: Sequence[Slice], due: Sequence[Due], results: Sequence[StepResult]
    ) -> Batch:
        # Whoever else works on these runs waits now until this commit is through.
        runs = [route.cache[key].id for route, key in batch.met() if route.cache[key].sequence > 1]
        self._committer.forget(batch)
        await self._store.lock([one.claim.id for one in slices], runs)
        try:
            return await self._committer.prepare(slices, None, due, results)
        except BaseException:
            await self._store.unlock()
            raise

    async def _halve(self, slices: Sequence[Slice], error: RefusedByStoreError) -> None:
        if sum(len(one.records) for one in slices) <= 1:
            await self._refuse(slices, error)
            return
        for part in halves(slices):
            await self._alone(part)

    async def _alone(self, slices: Sequence[Slice]) -> None:
        if slices:
            batch = await self._committer.prepare(slices, None)
            try:
                await self._committer.commit(batch)
            except (LostPositionsError, LostRunsError, RefusedByStoreError) as again:
                self._committer.forget(batch)
                await self.recover(slices, again)

    async def _one_by_one(self, due: Sequence[Due]) -> None:
        """Find among what has fallen due what the store does not take; the rest would be found again anyway."""
        for one in due:
            draft = await self._committer.draft(None)
            await self._committer.extend_due(draft, [replace(one, run=None)])
            try:
                await self._committer.commit(self._committer.finish(draft))
            except (RefusedByStoreError, TakenTwiceError) as error:
                self._committer.forget(draft.batch)
                await self._refuse_due(one.route, one.key, error)
            except LostRunsError:
                self._committer.forget(draft.batch)

    async def _refuse_due(self, route: Route, key: str, error: StoreError) -> None:
        """Make what has fallen due first for a run a dead letter; where that is refused, too, leave it alone."""
        await load_into_cache(route, [key], self._store, self._topics)
        run = route.cache.get(key)
        batch = await self._committer.new_batch(0)
        batch.refuse_due(route, key, str(error))
        batch.finish()
        try:
            await self._committer.commit(batch)
        except LostRunsError:
            # It is found again, as it is by now.
            self._committer.forget(batch)
        except RefusedByStoreError as again:
            self._committer.forget(batch)
            if run is None or len(self.left_alone) >= LEFT_ALONE_MAX:
                raise
            self._leave_alone(Due(route, key, run.generation, run.sequence, batch.commit.at), again)

    def _leave_alone(self, due: Due, error: RefusedByStoreError) -> None:
        self.left_alone[due.route, due.key] = due
        log.error(
            "what has fallen due for the run %r of %s does not happen: Postgres refuses it, and the dead letter that "
            "it then becomes (%s). It is tried again once an event has moved the run, or when the engine connects "
            "anew; mend what refuses it, a trigger on the tables of Pointsman for instance",
            due.key,
            due.route.name,
            kind_of(error),
        )

    async def _refuse(self, slices: Sequence[Slice], error: RefusedByStoreError) -> None:
        batch = await self._committer.new_batch(0)
        batch.commit.positions.extend(moves_of(slices))
        for claim, records, _, _ in slices:
            if not claim.lost:
                for record in records:
                    batch.refuse_by_store(record, claim.id, self._topics[claim.partition.topic], str(error))
        try:
            await self._committer.commit(batch)
        except (LostPositionsError, LostRunsError) as again:
            await self.recover(slices, again)
        except RefusedByStoreError as again:
            await self._stop(slices, again)

    async def _stop(self, slices: Sequence[Slice], error: RefusedByStoreError) -> None:
        """Give up the partition of a record that cannot even be a dead letter; the others move on."""
        kind = kind_of(error)
        for one in [one for one in slices if one.records] or slices:
            if not one.claim.lost:
                one.claim.lost = True
                one.claim.stopped = _cannot_pass(one, kind)
        rest = [one for one in slices if not one.claim.lost]
        if rest:
            await self._refuse(rest, error)

    def _drop(self, slices: Sequence[Slice], lost: frozenset[int]) -> None:
        claims: set[Claim] = {one.claim for one in slices if one.claim.id in lost}
        assert claims, "the store names lost positions that are not in the batch"
        for claim in claims:
            claim.lost = True
            self._observer.lost_partition(str(claim.partition))


def _unless_lost(error: LostRunsError) -> RefusedByStoreError:
    """What the store refuses where nobody else moves the runs; what is lost to another engine is passed on."""
    if isinstance(error, TakenTwiceError):
        return RefusedByStoreError(str(error))
    raise error


def _cannot_pass(one: Slice, kind: str) -> str:
    partition, offset = one.claim.partition, one.records[0].offset if one.records else one.start
    return (
        f"{partition} cannot be read on at offset {offset}: Postgres refuses what the record there does, and the dead "
        f"letter that it then becomes ({kind}). Decide where to go on, there once that is mended, or behind it"
    )
