"""Feeds records to pipelines in a database without a broker, by the engine's own committer and store.

    async with feed(database, orders) as feeding:
        await feeding.records(event("order.placed", {"order_id": "o1"}))
        await feeding.commands()

Each call of ``records`` is one committed batch. Offsets are given out one by one in each partition; time goes
on by a second with each batch, from the same moment in every test.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from connectors.encode import STRUCTURED_HEADERS, encode_structured
from connectors.source import Partition, RawRecord
from engine.admission import register
from engine.commands.commands import Commands
from engine.homes import HOMES
from engine.limits import EngineLimits
from engine.observing import Silent
from engine.outlet import Outlet
from engine.reading import Asked, ask_drop, ask_redrive
from engine.routing import Routes, make_routes
from engine.session.claims import Claim, Slice
from engine.session.committer import Committer, Pending
from engine.session.timers import Due
from engine.steady import Steady
from engine.steps.executors import ByClass, Executors
from engine.steps.steps import Steps
from engine.store.connecting import connect
from engine.store.postgres import PostgresStore
from statemachines.definition import Pipeline
from statemachines.machine import Machine, compile_pipeline
from tests.services import Database

TOPIC = "orders"
CLUSTER = "test-cluster"
COMMANDS_SECONDS_MAX = 3_600.0
BEGINS = datetime(2026, 3, 1, 12, tzinfo=UTC)

Headers = Sequence[tuple[str, bytes | None]]
COMMITS_MAX = 100
STEP_SECONDS_MAX = 60
_ids = itertools.count(1)


@dataclass(slots=True)
class Clock:
    """Goes on by a second each time it is looked at."""

    now: datetime = BEGINS

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


class OwnSteady(Steady):
    """What steps go by here: a clock of which a second passes where none has since the last look."""

    __slots__ = ("_clock", "_looked_at")

    def __init__(self, clock: Clock) -> None:
        self._clock, self._looked_at = clock, clock.now

    def __call__(self) -> datetime:
        if self._clock.now == self._looked_at:
            self._clock()
        self._looked_at = self._clock.now
        return self._looked_at

    def hear(self, said: datetime, asked: float) -> None:
        """Postgres's clock is that of another year."""


def event(
    type: str,
    data: object,
    *,
    id: str | None = None,
    source: str = "/shop",
    key: str | None = None,
    topic: str = TOPIC,
    partition: int = 0,
    data_json: bytes | None = None,
) -> RawRecord:
    """A record with a CloudEvent; its offset is given when it is fed. Without an id it gets one of its own."""
    value = encode_structured(
        id=id or f"event-{next(_ids)}",
        source=source,
        type=type,
        data=orjson.dumps(data) if data_json is None else data_json,
        time=BEGINS,
    )
    return raw(
        value,
        key=None if key is None else key.encode(),
        headers=STRUCTURED_HEADERS,
        topic=topic,
        partition=partition,
    )


def raw(
    value: bytes | None,
    *,
    key: bytes | None = None,
    headers: Headers = (),
    topic: str = TOPIC,
    partition: int = 0,
    time: int = 1_772_366_400_000,
) -> RawRecord:
    """A record of any bytes."""
    return RawRecord(topic, partition, -1, time, key, value, headers)


@dataclass(slots=True)
class Feeding:
    """A store with pipelines loaded, as an engine has it."""

    database: Database
    namespace: str
    store: PostgresStore
    topics: Routes
    committer: Committer
    inbox: Commands
    machines: Sequence[Machine]
    clock: Clock
    steps: Steps
    claims: dict[Partition, Claim] = field(default_factory=dict)

    async def records(self, *records: RawRecord) -> list[RawRecord]:
        """Feed these as one batch; returns them with the offsets that they were given."""
        fed: list[RawRecord] = []
        by_claim: dict[Partition, list[RawRecord]] = {}
        for record in records:
            partition = Partition(record.topic, record.partition)
            claim = await self.claim(partition)
            placed = record._replace(offset=claim.read_to)
            claim.read_to += 1
            by_claim.setdefault(partition, []).append(placed)
            fed.append(placed)
        slices = [
            Slice(self.claims[partition], many, many[0].offset, many[-1].offset + 1)
            for partition, many in by_claim.items()
        ]
        slices.sort(key=lambda one: one.claim.id)
        batch = await self.committer.prepare(slices, None)
        assert await self.committer.settle(self.committer.begin(slices, batch)), "the first commit succeeds"
        return fed

    async def promise(self, partition: Partition, *records: RawRecord) -> Pending:
        """Commit records of a partition, with the attempts that begin with that; ``steps.settle`` begins them."""
        claim = await self.claim(partition)
        start = claim.read_to
        claim.read_to += len(records)
        placed = [one._replace(offset=start + number) for number, one in enumerate(records)]
        slices = [Slice(claim, placed, start, claim.read_to)]
        batch = await self.committer.prepare(slices, None)
        self.steps.promise(batch.commit)
        pending = self.committer.begin(slices, batch)
        assert await self.committer.settle(pending)
        return pending

    async def claim(self, partition: Partition) -> Claim:
        """Take a partition, from its stored position (0 at first)."""
        if partition not in self.claims:
            await self.store.add_positions({partition: 0})
            [(number, _, position, epoch, _)] = await self.store.take_positions([partition])
            self.claims[partition] = Claim(number, partition, epoch, position)
        return self.claims[partition]

    async def pass_over(self, partition: Partition, offsets: int) -> None:
        """Move the position over offsets without a record, as over a transaction's markers."""
        claim = await self.claim(partition)
        start, claim.read_to = claim.read_to, claim.read_to + offsets
        slices = [Slice(claim, [], start, claim.read_to)]
        batch = await self.committer.prepare(slices, None)
        assert await self.committer.settle(self.committer.begin(slices, batch)), "the first commit succeeds"

    def let_go(self) -> None:
        """Forget the partitions, so that they are taken again from their stored positions."""
        self.claims.clear()

    async def commands(self) -> None:
        """Take up what is in the inbox."""
        self.inbox.wanted.set()
        await self.inbox.look()
        await self.inbox.work()

    async def due(self, at: datetime) -> int:
        """Let time come so far, and have all that has fallen due by then happen; returns in how many commits."""
        self.clock.now = max(self.clock.now, at)
        routes = {route.pipeline: route for route in self.topics.pipelines}
        commits = 0
        definitions = [number for route in routes.values() for number in route.machines]
        until = {one: self.clock.now for one in routes if one not in self.committer.paused}
        while found := await self.store.due_runs(range(HOMES), until, definitions, 100):
            draft = await self.committer.draft(None)
            await self.committer.extend_due(
                draft,
                [
                    Due(routes[one.pipeline], one.key, one.generation, one.sequence, self.clock.now, one.run)
                    for one in found
                ],
            )
            batch = self.committer.finish(draft)
            assert await self.committer.settle(self.committer.begin([], batch, draft.due))
            commits += 1
            assert commits < COMMITS_MAX, f"what is due does not happen: {found}"
        return commits

    async def work(self) -> int:
        """Have the steps that runs wait for be done, one attempt after the other; returns in how many commits.

        A time that a next attempt waits for comes at once.
        """
        routes = self.topics.pipelines
        asked = (
            [route.pipeline for route in routes if route.pipeline not in self.committer.paused],
            [number for route in routes for number in route.machines],
        )
        commits = 0
        await self.begin_steps()
        try:
            while self.steps.are_going or await self.store.has_executions(*asked):
                await asyncio.wait_for(self.steps.arrived.wait(), STEP_SECONDS_MAX)
                commits += await self.take_results()
        finally:
            await self.steps.close()
        return commits

    async def begin_steps(self) -> None:
        """Begin attempts from now on, as an engine does beside all else."""
        await self.steps.open(self.store, self.topics.pipelines)
        self.steps.serve_homes(range(HOMES))

    async def take_results(self) -> bool:
        """Have runs take what became of attempts so far, in one commit; whether there was anything."""
        self.steps.check()
        results = self.steps.take()
        if not results:
            return False
        draft = await self.committer.draft(None)
        await self.committer.extend_results(draft, results)
        batch = self.committer.finish(draft)
        self.steps.promise(batch.commit, draft.results)
        pending = self.committer.begin([], batch, (), draft.results)
        await self.committer.settle(pending)
        if pending.came_to_nothing:
            self.steps.give_back(pending.results, alone=True)
        else:
            self.steps.settle(pending.results, pending.batch.commit)
        return True

    async def redrive(self, *letters: int, why: str = "mended", who: str = "ana") -> Asked:
        """Ask for dead letters to be put back, and take that up."""
        return await self._ask(ask_redrive, letters, why, who)

    async def drop(self, *letters: int, why: str = "not wanted", who: str = "ana") -> Asked:
        """Ask for dead letters to be given up, and take that up."""
        return await self._ask(ask_drop, letters, why, who)

    async def _ask(self, ask: Callable[..., Any], letters: Sequence[int], why: str, who: str) -> Asked:
        connection = await connect(self.database.engine_dsn, for_engine=False)
        try:
            asked: Asked = await ask(connection, self.namespace, letters, who=who, why=why)
        finally:
            await connection.close()
        await self.commands()
        return asked


def _without_haste(limits: EngineLimits) -> EngineLimits:
    """These, but that commands are taken up all at once, however long that takes; unless that is what is limited."""
    if limits.inbox_seconds_max != EngineLimits().inbox_seconds_max:
        return limits
    return replace(limits, inbox_seconds_max=COMMANDS_SECONDS_MAX)


@contextlib.asynccontextmanager
async def feed(
    database: Database,
    *pipelines: Pipeline[Any],
    namespace: str = "default",
    group: str | None = None,
    cluster: str = CLUSTER,
    clock: Callable[[], datetime] | None = None,
    strikes: Mapping[tuple[int, int], tuple[int, str]] | None = None,
    limits: EngineLimits | None = None,
    executors: ByClass | None = None,
    instance: str = "feeding",
) -> AsyncIterator[Feeding]:
    """A store that is ready to be fed; several versions of a pipeline may be given.

    Whoever had the name ``instance`` before is not there any more.
    """
    machines = [compile_pipeline(pipeline, namespace=namespace) for pipeline in pipelines]
    store = await PostgresStore.open(
        database.engine_dsn, namespace=namespace, group=group or f"pointsman.{namespace}", cluster=cluster
    )
    try:
        loaded = await register(store, machines, strict=False)
        await store.ask_to_release([one.definition for one in loaded])
        topics = make_routes(loaded, {})
        own_clock = clock if isinstance(clock, Clock) else Clock()
        steady = OwnSteady(own_clock)
        committer = Committer(store, topics, cluster, clock or own_clock, steady, Silent(), [0, 0, 0, 0])
        committer.strikes = dict(strikes or {})
        own_limits = limits or EngineLimits(step_poll_seconds=0.01)
        steps = Steps(own_limits, steady, instance, Executors(executors))
        unhurried = _without_haste(limits or EngineLimits())
        inbox = Commands(store, topics, topics.pipelines, committer, unhurried, Outlet(), steps.hear)
        inbox.homes = list(range(HOMES))
        await committer.learn_pauses()
        steps.paused = committer.paused
        yield Feeding(database, namespace, store, topics, committer, inbox, machines, own_clock, steps)
        await steps.close()
    finally:
        await store.close()
