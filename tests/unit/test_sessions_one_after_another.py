"""One session of an engine after the other, on fakes: what it waits for, what it keeps, and what is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from connectors.encode import encode_structured
from connectors.source import Chunk, Partition
from engine import channels
from engine.backoff import Backoff
from engine.engine import Engine
from engine.limits import EngineLimits
from engine.observing import Silent
from engine.parts import Parts
from engine.routing import Loaded, Routes, make_routes
from engine.session import session
from engine.steps import steps
from engine.store.contract import Store, StoreUnavailableError
from engine.store.values import Commit, SentEvent
from statemachines import Call, Context, Event, Pipeline
from statemachines.machine import compile_pipeline
from tests.fakes.source import FakeMembership, FakeReader, FakeSource
from tests.fakes.store import FakeStore
from tests.fakes.tables import Tables
from tests.feeding import event

TOPIC, HOMES = "parcels", "homes"
SECONDS = 60.0
"""Whatever has not happened by then never will."""
LOOKS_MAX = 1_000
"""So often nobody looks what there is who waits for something in between."""
DEPTH_MAX = 10
NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Brought(Event, type="parcel.brought", key="parcel"):
    parcel: str


class Parcel(Context): ...


class Reader(FakeReader):
    """Answers at once where nothing is waited for, as that of Kafka does."""

    def __init__(self, source: FakeSource) -> None:
        super().__init__(source)
        self.looks = 0
        self.waits = asyncio.Event()

    async def fetch(
        self, *, records_max: int, wait_seconds: float, until: asyncio.Future[Any] | None = None
    ) -> Chunk:
        if not wait_seconds:
            self.looks += 1
            assert self.looks < LOOKS_MAX, "the engine turns round, and nothing beside it has its turn"
            return self._take(records_max)
        self.looks = 0
        self.waits.set()
        return await super().fetch(records_max=records_max, wait_seconds=wait_seconds, until=until)


class OneStore(FakeStore):
    """A connection that breaks."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self.held = asyncio.Event()
        """Set whenever the engine has said that it is there."""

    forgets = 0
    """So often there is more to be forgotten."""
    breaks_on = ""
    """The channel that it does not get to listen on any more."""

    async def keep_up(self, now: datetime) -> bool:
        await super().keep_up(now)
        self.forgets -= bool(self.forgets)
        return bool(self.forgets)

    async def commit(self, commit: Commit) -> int | None:
        await self.may_commit.wait()
        return await super().commit(commit)

    async def hold(self, holder: int, instance: str | None, breakers: bytes = b"") -> datetime:
        self.held.set()
        return await super().hold(holder, instance, breakers)

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        if channel == self.breaks_on:
            raise StoreUnavailableError("the connection was closed")
        await super().listen(channel, heard)


@dataclass
class World:
    """An engine with one pipeline, and how many commits wait to be published."""

    flow: Pipeline[Any]
    depth: int = 0
    limits: EngineLimits = field(default_factory=lambda: EngineLimits(outbox_rows_max=DEPTH_MAX))
    source: FakeSource = field(default_factory=FakeSource)
    tables: Tables = field(default_factory=Tables)
    stores: list[OneStore] = field(default_factory=list)
    breaks_on: str = ""

    def __post_init__(self) -> None:
        self.reader = Reader(self.source)
        self.engine = Engine(
            Parts(
                membership=FakeMembership(self.source, "group"),
                reader=self.reader,
                open_store=self._open,
                prepare_store=self._routes,
                topics=frozenset({TOPIC}),
                cluster="c",
                first="earliest",
                observer=Silent(),
                beat=[0, 0, 0, 0],
                outbox_depth=lambda: self.depth,
                limits=self.limits,
                homes=HOMES,
            )
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        self.source.create_topic(TOPIC)
        self.source.create_topic(HOMES)
        self.task = asyncio.create_task(self.engine.run())
        try:
            async with asyncio.timeout(SECONDS):
                yield self.engine
                self.engine.stop()
                await self.task
        finally:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def _open(self) -> Store:
        store = OneStore(self.tables)
        store.breaks_on, self.breaks_on = self.breaks_on, ""
        self.stores.append(store)
        return store

    async def _routes(self, store: Store) -> Routes:
        machine = compile_pipeline(self.flow)
        pipeline = await store.register_pipeline(machine.name)
        definition = await store.register_definition(pipeline, 1, b"h", b"c", b"{}")
        return make_routes([Loaded(machine, pipeline, definition)], {})

    def bring(self, parcel: str) -> None:
        record = event("parcel.brought", {"parcel": parcel})
        self.source.append(Partition(TOPIC, 0), record.value, headers=record.headers)

    async def waits(self, times: int = 1) -> None:
        """Until the engine waits for what comes, so many times more."""
        for _ in range(times):
            self.reader.waits.clear()
            waits = asyncio.create_task(self.reader.waits.wait())
            await asyncio.wait({waits, self.task}, return_when=asyncio.FIRST_COMPLETED)
            waits.cancel()
            if self.task.done():
                self.task.result()

    async def is_in(self, *states: str) -> None:
        while [run.configuration for _, run in self.tables.runs.values()] != [*states]:
            await self.waits()


@dataclass
class Weighing:
    """A step that is begun, and ends once it may."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def flow(self) -> Pipeline[Parcel]:
        async def weigh(_parcel: Parcel, _call: Call) -> int:
            self.begun.set()
            await self.may_end.wait()
            self.ended.set()
            return 5

        flow = Pipeline("parcel", Parcel, topics=[TOPIC])
        step = flow.step(timeout=timedelta(hours=1))(weigh)
        weighing = flow.state("weighing", run=step, initial=True)
        weighing.on(step.done, to=flow.state("weighed", final=True))
        flow.start(Brought, lambda _: Parcel())
        return flow


def lapsing() -> Pipeline[Parcel]:
    """What is brought lapses at once, by a timer."""
    flow = Pipeline("parcel", Parcel, topics=[TOPIC], timers="on_time")
    waiting = flow.state("waiting", initial=True)
    waiting.after(timedelta(milliseconds=1), to=flow.state("lapsed", final=True))
    flow.start(Brought, lambda _: Parcel())
    return flow


def standing() -> Pipeline[Parcel]:
    """What is brought stays where it is."""
    flow = Pipeline("parcel", Parcel, topics=[TOPIC])
    flow.state("waiting", initial=True)
    flow.start(Brought, lambda _: Parcel())
    return flow


async def test_what_became_of_a_step_is_taken_once_the_outbox_has_room_and_is_waited_for_until_then() -> None:
    step = Weighing()
    world = World(step.flow())
    async with world.running():
        world.bring("p")
        await step.begun.wait()
        world.depth = DEPTH_MAX + 1
        await world.waits(2)
        step.may_end.set()
        await step.ended.wait()
        await world.waits(3)
        await world.is_in("weighing")
        world.depth = 0
        await world.is_in("weighed")


async def test_while_the_outbox_is_full_nothing_is_about_to_fall_due() -> None:
    world = World(lapsing())
    async with world.running():
        world.bring("p")
        await world.is_in("lapsed")
        world.depth = DEPTH_MAX + 1
        await world.waits(3)


async def test_where_no_homes_are_served_any_more_nothing_is_about_to_fall_due() -> None:
    world = World(lapsing())
    async with world.running() as engine:
        world.bring("p")
        await world.is_in("lapsed")
        await engine.assignment.remove(frozenset({Partition(HOMES, 0)}))
        await world.waits(3)


async def test_a_session_that_does_not_come_to_be_leaves_nobody_behind_who_begins_steps() -> None:
    world = World(Weighing().flow(), breaks_on=channels.POSITIONS)
    async with world.running():
        await world.waits(2)
        assert len(world.stores) == 2
        assert [one.get_name() for one in asyncio.all_tasks()].count("steps") == 1


async def test_a_store_that_lets_in_and_breaks_away_at_once_is_asked_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(standing())
    attempts: list[int] = []

    class Counted(Backoff):
        async def wait(self, unless: asyncio.Event) -> None:
            attempts.append(self._attempts)
            if len(attempts) == 5:
                world.engine.stop()

    async def break_away(*_: object) -> None:
        raise StoreUnavailableError("the connection was closed")

    monkeypatch.setattr("engine.engine.Backoff", Counted)
    monkeypatch.setattr(OneStore, "strikes", break_away)
    async with world.running():
        await world.task
    assert attempts == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("seconds", "may_be_ended"), [(9.0, True), (0.0, False)])
async def test_whose_session_breaks_away_after_it_was_busy_for_long_says_that_another_may_have_ended_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, seconds: float, may_be_ended: bool
) -> None:
    world = World(standing())
    async with world.running() as engine:
        await world.waits()
        [store] = world.stores

        async def break_away(_: Commit) -> int | None:
            assert engine.turned_at is not None
            engine.turned_at -= seconds
            raise StoreUnavailableError("connection is closed")

        monkeypatch.setattr(store, "commit", break_away)
        world.bring("p")
        await world.is_in("waiting")
    [said] = [one for one in caplog.messages if one.startswith("Postgres is away")]
    assert (
        "This engine was busy, or waited for an answer, for 9 s: where another one has waited" in said
    ) == may_be_ended


async def test_an_engine_says_that_it_is_there_while_a_commit_with_attempts_that_begin_with_it_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for limit in ("SPEAK_SECONDS", "WITHHELD_SECONDS"):
        monkeypatch.setattr(steps, limit, 0.0)
    step = Weighing()
    world = World(step.flow())
    async with world.running() as engine:
        world.bring("p")
        await step.begun.wait()
        while not engine.steps._promises.is_settled((1, "weigh")):
            await world.waits()
        [store] = world.stores
        store.may_commit.clear()
        world.bring("q")
        while not engine.steps._promises.made:
            await world.waits()
        for _ in range(3):
            store.held.clear()
            await store.held.wait()
        store.may_commit.set()
        step.may_end.set()
        await world.is_in("weighed", "weighed")


async def test_where_there_is_more_to_be_forgotten_that_is_not_put_off_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "UPKEEP_AGAIN_SECONDS", 0)
    world = World(standing())
    async with world.running() as engine:
        await world.waits()
        assert engine.session is not None
        world.stores[0].forgets = 2
        engine.session._upkeep_at = time.monotonic()
        while world.stores[0].forgets:
            await world.waits()
        assert engine.session._upkeep_at > time.monotonic() + 60


async def test_runs_to_which_only_others_send_are_kept_in_memory_up_to_the_limit() -> None:
    world = World(standing(), limits=EngineLimits(batch_records_max=2, cache_runs_max=4))
    many = 20

    async def are_taken() -> None:
        while world.tables.inbox or len(world.tables.runs) < many:
            await world.waits()

    async with world.running() as engine:
        await world.waits()
        await world.stores[0].commit(Commit(NOW, sent=[_sent(f"p{number}") for number in range(many)]))
        await are_taken()
        await world.waits(2)
        assert engine.session is not None
        [route] = engine.session._routes
        assert len(route.cache) <= 4


def _sent(parcel: str) -> SentEvent:
    data = orjson.dumps({"parcel": parcel})
    sent = encode_structured(id=f"of {parcel}", source="/desk", type="parcel.brought", data=data, time=NOW)
    return SentEvent("parcel", parcel, b"\0".join((parcel.encode(), sent)))
