"""What happens to some runs, moment by moment, and two ways to live it.

One takes each event in a batch of its own, and loads all anew before it. The other has two engines, which read a
partition each and know nothing of one another: they cut batches at random, step one ahead of the commit in flight,
keep what they have in their caches although the other one moves the same runs, and have what falls due in a batch with
events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from random import Random
from typing import Any

from connectors.source import Partition, RawRecord
from engine.batch.batch import Batch
from engine.homes import HOMES
from engine.reading import ask_drop, ask_redrive, list_dead_letters
from engine.session.claims import Slice
from engine.session.committer import Draft, Pending
from engine.session.timers import Due
from engine.store.connecting import Connection
from engine.store.contract import StoreError
from statemachines.definition import Pipeline
from tests.feeding import Clock, Feeding, event, feed
from tests.property.waiting import KINDS, MINUTE, Log
from tests.services import Database

TOPIC = "things"
KEYS = ("one", "other")
"""What ``one`` sends goes to ``other``: to each run one other at most, since the order of two is nobody's promise."""
ROUNDS_MAX = 100
TURN_SECONDS_MAX = 60


@dataclass(frozen=True)
class Told:
    """An event as it is delivered; again under the same id, if it was before."""

    id: str
    type: str
    key: str
    number: int
    partition: int


@dataclass(frozen=True)
class Asked:
    """A person's decision about one of the dead letters that are open then."""

    drops: bool
    which: int


@dataclass(frozen=True)
class Moment:
    """What happens at one time."""

    passed: timedelta
    """Since the one before."""
    stuck: bool
    """Whether some actions fail."""
    due_first: bool
    told: tuple[Told, ...]
    asked: tuple[Asked, ...]


@dataclass
class Trouble:
    """Fails now and then, while it is stuck."""

    stuck: bool = False

    def __call__(self, log: Log) -> None:
        if self.stuck and len(log.lines) % 3 == 1:
            raise ValueError("it is stuck")


@dataclass
class Still(Clock):
    """Stands still until it is moved."""

    def __call__(self) -> datetime:
        return self.now


def story_from(draw: Random) -> list[Moment]:
    """Moments with events of two runs, some of them delivered more than once."""
    numbers = dict.fromkeys(KINDS, 0)
    so_far: list[Told] = []
    moments: list[Moment] = []
    calm = draw.randint(0, 2) == 0
    for at in range(draw.randint(3, 6)):
        told: list[Told] = []
        for _ in range(draw.randint(1, 7)):
            if so_far and draw.randint(0, 3) == 0:
                one = draw.choice(so_far)
            else:
                kind = KINDS[0] if not so_far else draw.choice(KINDS)
                numbers[kind] += draw.choice([0, 1, 1, 2, -1])
                number = max(numbers[kind], 0)
                partition = draw.randint(0, 1)
                one = Told(
                    f"event-{len(so_far)}", str(kind.event_type()), draw.choice(KEYS), number, partition
                )
            so_far.append(one)
            told.append(one)
        asked = [Asked(draw.randint(0, 2) == 0, draw.randint(0, 9)) for _ in range(draw.randint(0, 3))]
        passed = MINUTE * draw.randint(0, 20) if at else timedelta(0)
        stuck, due_first = not calm and draw.randint(0, 2) == 0, draw.choice([True, False])
        moments.append(Moment(passed, stuck, due_first, tuple(told), tuple(asked)))
    # In the end all can be mended, and all that was to come may have come.
    asked = [Asked(drops=False, which=number) for number in range(6)]
    moments.append(Moment(MINUTE, stuck=False, due_first=True, told=(), asked=tuple(asked)))
    return moments


@dataclass
class Engine:
    """One engine: a draft, and a commit in flight, as a session has them."""

    feeding: Feeding
    draft: Draft | None = None
    pending: Pending | None = None
    homes: Sequence[int] = ()
    """Steps of the runs of these begin here."""

    async def extend(self, records: Sequence[RawRecord]) -> None:
        """Step these records, of one partition."""
        partition = Partition(records[0].topic, records[0].partition)
        claim = await self.feeding.claim(partition)
        first = claim.read_to
        placed = [record._replace(offset=first + at) for at, record in enumerate(records)]
        claim.read_to += len(records)
        await self.take(Slice(claim, placed, first, claim.read_to))

    async def take(self, records: Slice) -> None:
        """Step these."""
        await self.feeding.committer.extend(await self._growing(), [records])

    async def extend_due(self) -> bool:
        """Step what has fallen due; whether there is any."""
        feeding = self.feeding
        routes = {route.pipeline: route for route in feeding.topics.pipelines}
        definitions = [number for route in routes.values() for number in route.machines]
        now = feeding.clock.now
        until = {one: now for one in routes if one not in feeding.committer.paused}
        found = await feeding.store.due_runs(range(HOMES), until, definitions, 100)
        due = [
            Due(routes[one.pipeline], one.key, one.generation, one.sequence, now, one.run) for one in found
        ]
        if due:
            await feeding.committer.extend_due(await self._growing(), due)
        return bool(due)

    async def extend_results(self) -> bool:
        """Step what became of attempts; whether there is any."""
        results = self.feeding.steps.take()
        if results:
            await self.feeding.committer.extend_results(await self._growing(), results)
        return bool(results)

    async def advance(self) -> None:
        """Wait for the commit in flight, and send the draft on its way."""
        committer = self.feeding.committer
        (draft, self.draft), (pending, self.pending) = (self.draft, None), (self.pending, None)
        if draft is None:
            if pending is not None:
                await self._settle(pending)
            return
        batch = committer.finish(draft)
        if pending is not None and not await self._settle(pending, batch):
            batch = await committer.prepare(draft.slices, None, draft.due, draft.results)
        self.feeding.steps.promise(batch.commit, draft.results)
        self.pending = committer.begin(draft.slices, batch, draft.due, draft.results)

    async def _settle(self, pending: Pending, ahead: Batch | None = None) -> bool:
        steps = self.feeding.steps
        succeeded = await self.feeding.committer.settle(pending, ahead)
        if pending.came_to_nothing:
            steps.give_back(pending.results, alone=not (pending.slices or pending.due))
        else:
            steps.settle(pending.results, pending.batch.commit)
        return succeeded

    async def read(self, log: Sequence[RawRecord], partition: Partition, many: int) -> None:
        """Step the next records of a partition, which the engine takes if it has it no more."""
        claims = self.feeding.claims
        if partition not in claims or claims[partition].lost:
            await self.flush()
            self.forget()
            claims.pop(partition, None)
        claim = await self.feeding.claim(partition)
        start, some = claim.read_to, log[claim.read_to :][:many]
        if some:
            claim.read_to += len(some)
            await self.take(Slice(claim, some, start, claim.read_to))

    async def take_commands(self) -> None:
        """Take up what is in the inbox, with nothing in flight."""
        await self.flush()
        await self.feeding.commands()

    async def begin(self, homes: Sequence[int]) -> None:
        """Begin attempts from now on, for the runs of these homes."""
        self.homes = homes
        await self.feeding.steps.open(self.feeding.store, self.feeding.topics.pipelines)
        self.feeding.steps.serve_homes(homes)

    async def work(self) -> None:
        """Have attempts begin that may, and end that do at once; step what became of any."""
        steps = self.feeding.steps
        for _ in range(2):
            steps.check()
            steps.turned.clear()
            steps.serve_homes(self.homes)
            await asyncio.wait_for(steps.turned.wait(), TURN_SECONDS_MAX)
        await self.extend_results()

    async def end(self, *, in_order: bool) -> None:
        """Go on with nothing; what is not on its way to be durable is lost, unless it is in order."""
        steps = self.feeding.steps
        if in_order:
            await self.flush()
            await steps.stop()
            while await self.extend_results():
                await self.flush()
            await steps.let_go()
        elif self.pending is not None:
            with suppress(StoreError):
                await self.pending.task
        await steps.close()

    async def flush(self) -> None:
        """Have all be durable."""
        await self.advance()
        await self.advance()

    def forget(self) -> None:
        """As if it had done nothing yet; nothing must be in flight."""
        assert self.draft is None
        assert self.pending is None
        for route in self.feeding.topics.pipelines:
            route.cache.clear()

    async def _growing(self) -> Draft:
        if self.draft is None:
            self.draft = await self.feeding.committer.draft(self.pending)
        return self.draft


@dataclass
class World:
    """A story is lived in it."""

    engines: Sequence[Engine]
    """By partition."""
    clock: Still
    trouble: Trouble
    owner: Connection
    namespace: str
    draw: Random | None
    """None: each event for itself."""
    asked: list[Any] = field(default_factory=list)

    async def live(self, moments: Sequence[Moment]) -> None:
        """All of it."""
        for moment in moments:
            self.clock.now += moment.passed
            self.trouble.stuck = moment.stuck
            if moment.due_first:
                await self._come_to_rest()
            await self._tell(moment.told)
            await self._come_to_rest()
            for asked in moment.asked:
                await self._ask(asked)
                await self._come_to_rest()

    async def _tell(self, told: Sequence[Told]) -> None:
        # What two engines do at once is in no order, so one has done with its partition before the other goes on.
        parts = [(partition, [*some]) for partition, some in groupby(told, lambda one: one.partition)]
        for at, (partition, some) in enumerate(parts, 1):
            engine = self.engines[partition]
            for records in self._cut([_record(one) for one in some]):
                await engine.extend(records)
                if self.draw is None or self.draw.choice([True, False]):
                    await engine.advance()
                if self.draw is None:
                    await self._rest(engine)
            if self.draw is not None and at == len(parts) and self.draw.choice([True, False]):
                # In the draft with the events, or in one that is stepped ahead of their commit.
                await engine.extend_due()
            await self._rest(engine)

    def _cut(self, records: list[RawRecord]) -> list[list[RawRecord]]:
        if self.draw is None:
            return [[one] for one in records]
        cut: list[list[RawRecord]] = []
        while records:
            length = self.draw.randint(1, 4)
            cut.append(records[:length])
            records = records[length:]
        return cut

    async def _rest(self, engine: Engine) -> None:
        await engine.flush()
        if self.draw is None or self.draw.randint(0, 2) == 0:
            engine.forget()

    async def _come_to_rest(self) -> None:
        """Have all happen that has fallen due, and all that was sent be taken."""
        for _ in range(ROUNDS_MAX):
            engine = self._some_engine()
            if await engine.extend_due():
                await self._rest(engine)
                continue
            engine = self._some_engine()
            await engine.feeding.commands()
            if self.draw is None:
                engine.forget()
            sql = "select count(*) from pointsman.inbox where namespace = $1"
            if not await self.owner.fetchval(sql, self.namespace) and not await self._is_due():
                return
        raise AssertionError("it does not come to rest")

    async def _is_due(self) -> bool:
        sql = "select count(*) from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline"
        sql += " where p.namespace = $1 and r.wake_at <= $2 and r.held = 0"
        return bool(await self.owner.fetchval(sql, self.namespace, self.clock.now))

    def _some_engine(self) -> Engine:
        return self.engines[0] if self.draw is None else self.draw.choice(self.engines)

    async def _ask(self, asked: Asked) -> None:
        letters = await list_dead_letters(self.owner, self.namespace, status="open", limit=0)
        if letters:
            # Their numbers are in the order in which a batch wrote them.
            letters.sort(key=lambda one: (one.at, one.event_id or "", one.offset or 0, one.reason, one.id))
            ask = ask_drop if asked.drops else ask_redrive
            letter = letters[asked.which % len(letters)]
            await ask(self.owner, self.namespace, [letter.id], who="ana", why="so")


def _record(told: Told) -> RawRecord:
    data = {"number": told.number}
    return event(
        told.type, data, id=told.id, source="/here", key=told.key, topic=TOPIC, partition=told.partition
    )


@asynccontextmanager
async def world(
    database: Database,
    owner: Connection,
    flow: Pipeline[Log],
    trouble: Trouble,
    namespace: str,
    draw: Random | None,
) -> AsyncIterator[World]:
    """One with an engine, or with ``draw`` two."""
    clock = Still()
    async with AsyncExitStack() as stack:
        fed = [
            await stack.enter_async_context(feed(database, flow, namespace=namespace, clock=clock))
            for _ in range(1 if draw is None else 2)
        ]
        engines = [Engine(one) for one in fed]
        yield World(engines if draw else engines * 2, clock, trouble, owner, namespace, draw)
