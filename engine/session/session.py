"""One connection's life: drafts grow and are committed one after the other, and commands are taken up in between."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from connectors.source import Chunk, Partition, SourceError
from engine import channels
from engine.backoff import Backoff
from engine.batch.batch import Batch
from engine.commands.commands import Commands
from engine.commands.words import position_command
from engine.homes import HOMES, homes_in
from engine.parts import Parts, kafka_troubles
from engine.routing import Route, Routes
from engine.session.backlog import Backlog
from engine.session.caches import evict
from engine.session.claims import Claim, Slice, by_bytes
from engine.session.committer import Committer, Draft, Pending, in_portions
from engine.session.timers import Timers
from engine.starting import first_positions
from engine.steps.steps import Steps
from engine.store.contract import Store
from engine.topic_ids import other_topic

if TYPE_CHECKING:
    from engine.engine import Engine

log = logging.getLogger("pointsman.engine")

UPKEEP_SECONDS = 3_600
"""How often the store is asked to make room ahead: the log's partitions of the coming months."""
UPKEEP_AGAIN_SECONDS = 10.0
"""The same where it had more to look after than it does at a time."""
ASK_SECONDS = 1.0
"""How often ``until`` is asked where there is always more to read."""
LOOK_SECONDS = 0.002
"""So often what has become of steps is taken while a commit is in flight."""

TAKEN_AT_ONCE = 50
"""So many runs take what has fallen due, or became of their steps, before it is seen what that comes to: nothing tells
it beforehand, and contexts may be large."""
RECORDS_BESIDE_DUE = 1_000
"""A draft with so many records, and something that has fallen due, goes on its way as soon as the store is free, though
it could take more; so that it is not late."""
TURNS_OF_STEPS = 5
"""So many turns of the loop pass until it is heard how an attempt ended that waits for nothing."""
RECORDS_BETWEEN_LOOKS = 500
"""So many records are stepped before it is looked what has fallen due, while something is; so that it is not late."""


class Session:
    """One connection's life."""

    def __init__(self, engine: Engine, parts: Parts, store: Store) -> None:
        self._engine = engine
        self._parts = parts
        self.store = store
        self.claims: dict[Partition, Claim] = {}
        self.homes: list[int] = []
        """Those whose runs' timers, and events from other runs, are served here."""
        self._committer: Committer
        self._topics: Routes
        self._routes: Sequence[Route] = ()
        self._commands: Commands
        self._timers: Timers
        self._steps: Steps = engine.steps
        self._pending: Pending | None = None
        self._draft: Draft | None = None
        self._dry = True
        """Whether there was less to read than could be taken."""
        self._paused = False
        self._unnoted: list[Claim] = []
        """Of which it is not noted yet which topics their positions are of."""
        self._said: dict[Partition, str] = {}
        """Why partitions stopped, as was said last."""
        self._kafka = Backoff(parts.limits.reconnect_seconds_max, parts.limits.complain_seconds)
        self._upkeep_at = time.monotonic() + UPKEEP_SECONDS

    @property
    def last_ticket(self) -> int:
        """The number of the last commit of this session that publishes."""
        return self._committer.last_ticket

    async def works(self) -> bool:
        """Whether the inbox has something, a run waits for a step, or what became of one is not durable yet."""
        if await self._commands.are_there():
            return True
        working = [one for one in self._routes if one.works and one.pipeline not in self._committer.paused]
        definitions = [number for route in working for number in route.machines]
        return bool(working) and (
            self._steps.has_results
            or await self.store.has_executions([route.pipeline for route in working], definitions)
        )

    async def serve(
        self, until: Callable[[Session], Awaitable[bool]] | None, began: Callable[[], None]
    ) -> bool:
        """Work; True once there is nothing left to do, False never: the store broke away, or ``stop`` was called."""
        parts, engine = self._parts, self._engine
        self._topics = await parts.prepare_store(self.store)
        self._routes = self._topics.pipelines
        self._committer = Committer(
            self.store,
            self._topics,
            parts.cluster,
            parts.clock,
            engine.steady,
            parts.observer,
            parts.beat,
            engine.weighed,
        )
        self._commands = Commands(
            self.store,
            self._topics,
            self._routes,
            self._committer,
            parts.limits,
            parts.outlet,
            self._steps.hear,
        )
        backlog = Backlog(parts.reader, self.store, self._topics, parts.limits, parts.clock)
        self._timers = Timers(self.store, self._routes, backlog, parts.limits, parts.clock)
        self._timers.left_alone = self._committer.left_alone
        await self._committer.learn_pauses()
        self._timers.paused = self._steps.paused = self._committer.paused
        try:
            await self._steps.open(self.store, self._routes)
            await self._commands.listen()
            await self.store.listen(channels.POSITIONS, engine.assignment.take_all_again)
            engine.assignment.serving = True
            engine.assignment.take_all_again()
            asked_at = time.monotonic()
            began()
            while True:
                engine.turned_at = time.monotonic()
                while engine.assignment.changed.is_set():
                    await self._flush()
                    await self._take_assignment()
                if engine.stopping.is_set():
                    await self._wind_up()
                    return True
                await self._go_on()
                idle = self._draft is None and not self._is_in_flight()
                asks = until is not None and (idle or time.monotonic() - asked_at >= ASK_SECONDS)
                self._commands.takes_events = not self._paused
                if await self._commands.look() or idle:
                    await self._flush()
                    await self._note_topics()
                    await self._keep_up()
                    self._speak_of_kafka()
                    await self._commands.work()
                    evict(self._routes, parts.limits)
                if asks and until is not None and not self._commands.wanted.is_set():
                    # A commit may be in flight: what is asked is what the store has.
                    asked_at = time.monotonic()
                    if await until(self):
                        await self._flush()
                        return True
        finally:
            await self._timers.close()
            await self._steps.close()
            if self._pending is not None:
                self._pending.task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await self._pending.task

    async def _go_on(self) -> None:
        """Step what there is to read, and commit it as soon as the store is free, or when the draft is full.

        While there is more at hand than a draft takes, commits are as large as they may be, which costs least; else
        what has come while one commit was in flight makes up the next, so that nothing waits longer than it must.
        """
        limits = self._parts.limits
        room = limits.batch_records_max - (0 if self._draft is None else self._draft.records)
        if self._timers.are_due:
            room = min(room, RECORDS_BETWEEN_LOOKS)
        slices = await self._fetch(room)
        weigh = self._committer.weight_of
        while slices:
            # Each time anew: how much the next come to is known from the last.
            portion, *others = by_bytes(slices, limits.batch_bytes_max, weigh)
            slices = [one for several in others for one in several]
            await self._committer.extend(await self._draft_for(weigh(portion)), portion)
        # What fires may publish, too.
        idle = self._draft is None and not self._is_in_flight()
        due = [] if self._paused else await self._timers.due(wait=idle)
        for some in in_portions(due, TAKEN_AT_ONCE):
            await self._committer.extend_due(await self._draft_for(), some)
        if due and self._draft is not None and self._draft.is_empty:
            # What is due is on its way already, in the commit in flight.
            self._timers.settle(self._draft.due)
            self._draft = None
        await self._take_results()
        if self._is_full(limits.batch_records_max) or not (self._grows() or self._is_in_flight()):
            await self._advance()

    def _is_full(self, records_max: int) -> bool:
        return self._draft is not None and self._draft.records >= records_max

    def _grows(self) -> bool:
        """Whether there is more at hand, of which only a part was taken, since something may fall due meanwhile."""
        if self._dry or not self._timers.are_due:
            return False
        return self._draft is None or not self._draft.due or self._draft.records < RECORDS_BESIDE_DUE

    async def _hears_of_steps(self) -> bool:
        """Whether something has become of steps; those that take no time have a few turns of the loop for it."""
        for _ in range(TURNS_OF_STEPS):
            if self._steps.has_results or not self._steps.are_going:
                break
            await asyncio.sleep(0)
        return self._steps.has_results

    async def _take_results(self) -> None:
        """Step what became of steps; what follows from it may publish, too."""
        self._steps.check()
        alone = self._steps.are_alone
        if alone:
            await self._flush()
        results = [] if self._paused else self._steps.take()
        for some in in_portions(results, TAKEN_AT_ONCE):
            await self._committer.extend_results(await self._draft_for(), some)
        if alone:
            await self._flush()

    async def _draft_for(self, weight: int = 0) -> Draft:
        """The draft that grows; another one, where that has no room for so many bytes more."""
        if self._draft is not None and self._draft.bytes + weight > self._parts.limits.batch_bytes_max:
            await self._advance()
        if self._draft is None:
            self._draft = await self._committer.draft(self._pending)
        return self._draft

    async def _wind_up(self) -> None:
        """Make all durable that was read, and what becomes of the steps that go on."""
        await self._flush()
        await self._note_topics()
        await self._steps.stop()
        while self._steps.has_results and not self._paused:
            await self._take_results()
            await self._flush()
        await self._steps.let_go()

    def _is_in_flight(self) -> bool:
        return self._pending is not None and not self._pending.task.done()

    async def _advance(self) -> None:
        """Wait for the commit in flight; then send the draft on its way."""
        draft, self._draft = self._draft, None
        if draft is None:
            await self._settle()
            return
        pending, self._pending = self._pending, None
        parts, committer = self._parts, self._committer
        batch = committer.finish(draft)
        if pending is not None and not await self._settled(pending, batch):
            # What was stepped ahead of a commit that came out otherwise is worth nothing.
            self._let_go_of_lost()
            batch = await committer.prepare(draft.slices, None, draft.due, draft.results)
        if await parts.outlet.learn(batch.commit):
            # Nothing is in flight now, so what the batch rests on can be loaded again.
            committer.forget(batch)
            batch = await committer.prepare(draft.slices, None, draft.due, draft.results)
        evict(self._routes, parts.limits, batch)
        await self._note_topics()
        await self._keep_up()
        self._steps.promise(batch.commit, draft.results)
        self._pending = committer.begin(draft.slices, batch, draft.due, draft.results)

    async def _keep_up(self) -> None:
        """Have the store look after itself now and then, where nothing is in flight."""
        if time.monotonic() >= self._upkeep_at:
            self._upkeep_at = time.monotonic() + UPKEEP_SECONDS
            if await self.store.keep_up(self._parts.clock()):
                self._upkeep_at = time.monotonic() + UPKEEP_AGAIN_SECONDS

    async def _flush(self) -> None:
        """Make all durable that was read."""
        await self._advance()
        await self._settle()

    async def _settle(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            await self._settled(pending)
        self._let_go_of_lost()

    async def _settled(self, pending: Pending, ahead: Batch | None = None) -> bool:
        """Wait for a commit; False where it had to be computed again."""
        succeeded = await self._committer.settle(pending, ahead)
        self._timers.settle(pending.due)
        if pending.came_to_nothing:
            self._steps.give_back(pending.results, alone=not (pending.slices or pending.due))
        else:
            self._steps.settle(pending.results, pending.batch.commit)
        return succeeded

    def _let_go_of_lost(self) -> None:
        lost = [claim for claim in self.claims.values() if claim.lost]
        if not lost:
            return
        for claim in lost:
            if claim.stopped is not None:
                self._stop(claim.partition, f"{claim.stopped}: {self._set_command(claim.partition)}")
        self._read_from_claims()
        # Whoever took it may have been a zombie, and the group need not tell us a second time that it is ours.
        later = asyncio.get_running_loop().call_later
        for claim in lost:
            if claim.stopped is None:
                later(
                    self._parts.limits.take_again_seconds, self._engine.assignment.take_again, claim.partition
                )

    async def _fetch(self, records_max: int) -> list[Slice]:
        self._pause_where_full()
        wait = self._parts.limits.fetch_wait_milliseconds / 1000
        # While the outbox is full neither is taken, and whoever is to empty it needs the loop.
        if not self._paused and self._timers.are_due:
            wait = min(wait, self._timers.seconds_until_look())
        if not self._paused and self._pending is None and await self._hears_of_steps():
            wait = 0.0
        if self._pending is not None:
            # So that the commit is on its way before the next records keep us busy.
            await asyncio.sleep(0)
            wait = LOOK_SECONDS if self._dry and self._is_in_flight() else 0.0
        chunk = await self._read(records_max, wait)
        for lost in self._parts.reader.out_of_range():
            self._stop(
                lost.partition,
                f"position {lost.position} of {lost.partition} is outside of what Kafka has "
                f"({lost.earliest} to {lost.end}): events were deleted before they were read, or the topic was made "
                f"anew. Decide where to go on: {self._set_command(lost.partition)}",
            )
        for partition, topic_id in self._parts.reader.topic_ids().items():
            self.claims[partition].topic_id = topic_id
            self._unnoted.append(self.claims[partition])
        for bad in self._parts.reader.unreadable():
            self._stop(bad.partition, bad.reason)
        self._dry = sum(map(len, chunk.records.values())) < records_max
        slices = []
        for partition, end in chunk.positions.items():
            claim = self.claims.get(partition)
            if claim is not None and not claim.lost and end > claim.read_to:
                slices.append(Slice(claim, chunk.records.get(partition, ()), claim.read_to, end))
                claim.read_to = end
        for partition, topic_id in self._parts.reader.made_anew().items():
            held = self.claims[partition]
            command = self._set_command(partition)
            self._stop(partition, other_topic(partition, held.read_to, held.topic_id, topic_id, command))
        slices.sort(key=lambda one: one.claim.id)
        return slices

    def _set_command(self, partition: Partition) -> str:
        parts = self._parts
        return position_command(partition.topic, partition.number, group=parts.group, cluster=parts.cluster)

    async def _note_topics(self) -> None:
        """Keep which topics positions are of, where nothing is in flight; so before any of them has moved."""
        ours = {claim.id: claim for claim in self._unnoted if self.claims.get(claim.partition) is claim}
        if ours:
            noted = await self.store.note_topic_ids((c.id, c.epoch, c.topic_id) for c in ours.values())
            ours = {number: claim for number, claim in ours.items() if number not in noted}
        self._unnoted = list(ours.values())

    async def _take_assignment(self) -> None:
        """Take the epochs of what was newly assigned, let go what was taken away, and read from there."""
        assignment, parts = self._engine.assignment, self._parts
        # All at once: the group goes on giving and taking while others are asked.
        ours, assigned = assignment.take()
        wanted = frozenset(one for one in ours if one.topic != parts.homes)
        fresh = assigned & wanted
        stopped = self._engine.stopped_partitions
        # Whoever has the others now finds out by itself.
        for partition in stopped.keys() - wanted:
            del stopped[partition]
        self.homes = self._timers.homes = self._commands.homes = await self._homes()
        self._steps.serve_homes(self.homes)
        await self._steps.find_kept()
        self._commands.wanted.set()
        held = self.claims
        self.claims = {p: c for p, c in held.items() if p in wanted and p not in fresh and not c.lost}
        if fresh:
            known = await self.store.known_positions(fresh)
            await self.store.add_positions(
                await first_positions(parts.reader, self.store, fresh - known.keys(), parts.first)
            )
            taken = await self.store.take_positions(fresh)
            for number, partition, position, epoch, topic_id in taken:
                claim = Claim(number, partition, epoch, position, topic_id)
                is_as_before = _is_as_before(held.get(partition), claim)
                if not is_as_before:
                    self._said.pop(partition, None)
                # Without an id that does not tell whether a person has set it to what it was.
                if not (is_as_before and topic_id):
                    stopped.pop(partition, None)
                self.claims[partition] = claim
            for route in self._routes:
                route.cache.clear()
        # What runs take by themselves may have ended the engine that had their homes before.
        self._committer.strikes = await self.store.strikes([c.id for c in self.claims.values()])
        self._read_from_claims()
        assignment.notice()
        self._engine.ready = True
        self._engine.away = None
        parts.observer.assigned({claim.id: claim.partition for claim in self.claims.values()})
        log.info("partitions: %s", ", ".join(str(partition) for partition in sorted(self.claims)) or "none")

    async def _homes(self) -> list[int]:
        """Those that are served here."""
        parts, engine = self._parts, self._engine
        if not parts.homes:
            return list(range(HOMES))
        try:
            engine.homes_partitions = len(await parts.reader.partitions_of(parts.homes))
        except SourceError:
            # What it was before it still is; who has never heard of it cannot serve any.
            if not engine.homes_partitions:
                raise
        return homes_in(engine.assignment.partitions, parts.homes, engine.homes_partitions)

    def _read_from_claims(self) -> None:
        self.claims = {partition: claim for partition, claim in self.claims.items() if not claim.lost}
        stopped = self._engine.stopped_partitions
        read = {p: c for p, c in self.claims.items() if p not in stopped}
        self._parts.reader.assign(
            {p: c.read_to for p, c in read.items()}, {p: c.topic_id for p, c in read.items() if c.topic_id}
        )
        if self._paused:
            self._parts.reader.pause(self.claims)

    def _speak_of_kafka(self) -> None:
        troubles = kafka_troubles(self._parts)
        if troubles:
            self._kafka.failed(
                f"Kafka is away in part; the engine goes on by itself when it is back ({'; '.join(troubles)})"
            )
        else:
            self._kafka.succeeded()

    def _stop(self, partition: Partition, reason: str) -> None:
        self._engine.stopped_partitions[partition] = reason
        if self._said.get(partition) != reason:
            self._said[partition] = reason
            log.error("stopped: %s", reason)

    async def _read(self, records_max: int, wait_seconds: float) -> Chunk:
        """The next records; none after the wait, once the commit in flight is through, or a step's end was heard of."""
        fetch = self._parts.reader.fetch
        if not wait_seconds:
            return await fetch(records_max=records_max, wait_seconds=0.0)
        if self._pending is not None:
            return await fetch(records_max=records_max, wait_seconds=wait_seconds, until=self._pending.task)
        if self._paused or not self._steps.are_there:
            # While what has become of steps is not taken, it would be heard of again and again.
            return await fetch(records_max=records_max, wait_seconds=wait_seconds)
        chunk = await fetch(records_max=records_max, wait_seconds=0.0)
        if chunk.positions:
            return chunk
        arrived = asyncio.ensure_future(self._steps.arrived.wait())
        try:
            return await fetch(records_max=records_max, wait_seconds=wait_seconds, until=arrived)
        finally:
            arrived.cancel()

    def _pause_where_full(self) -> None:
        depth, limit = self._parts.outbox_depth(), self._parts.limits.outbox_rows_max
        if not self._paused and depth > limit:
            self._parts.reader.pause(self.claims)
            self._paused = True
            log.warning(
                "paused: %s commits wait to be published; reading goes on below %s", depth, limit // 2
            )
        elif self._paused and depth <= limit // 2:
            self._parts.reader.resume(p for p in self.claims if p not in self._engine.stopped_partitions)
            self._paused = False
        self._parts.observer.paused(
            len(self.claims) if self._paused else len(self._engine.stopped_partitions)
        )


def _is_as_before(held: Claim | None, taken: Claim) -> bool:
    """Whether nobody has set the position since, so that what had stopped it still does."""
    return held is not None and (held.read_to, held.topic_id) == (taken.read_to, taken.topic_id)
