"""What comes while a commit is in flight, on a source and a store in memory."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from connectors.source import Partition, RawRecord
from engine.batch.batch import Batch
from engine.engine import Engine
from engine.limits import EngineLimits
from engine.observing import Silent
from engine.parts import Parts
from engine.routing import Loaded, Routes, make_routes
from engine.session import session
from engine.session.claims import Claim, Slice
from engine.session.committer import RECORD_BYTES_AT_FIRST, Committer, Weighed
from engine.session.recovering import LOSSES_MAX
from engine.store.contract import LostRunsError, RefusedByStoreError, Store
from engine.store.values import Commit
from statemachines.machine import compile_pipeline
from tests.chaos.contender import told, weighed
from tests.chaos.parcels import PARCELS, parcel
from tests.chaos.script import EVENT_HEADERS
from tests.chaos.slots import until
from tests.fakes.source import FakeMembership, FakeReader, FakeSource
from tests.fakes.store import FakeStore
from tests.fakes.tables import Tables

PLACE = Partition(PARCELS, 0)
SECONDS = 60.0


class GatedStore(FakeStore):
    """Commits when it is let; ``sizes`` are the log rows of each commit that was asked for."""

    def __init__(self) -> None:
        super().__init__(Tables())
        self.sizes: list[int] = []
        self.asked = asyncio.Semaphore(0)
        self.let = asyncio.Semaphore(0)
        self.losses = 0
        """So many commits are lost to another engine."""

    async def commit(self, commit: Commit) -> int | None:
        self.sizes.append(len(commit.rows))
        self.asked.release()
        await self.let.acquire()
        if self.losses:
            self.losses -= 1
            raise LostRunsError("another engine moved a run first")
        return await super().commit(commit)


async def routes_on(store: Store) -> Routes:
    machine = compile_pipeline(parcel)
    pipeline = await store.register_pipeline(machine.name)
    definition = await store.register_definition(pipeline, 1, b"h", b"c", b"{}")
    return make_routes([Loaded(machine, pipeline, definition)], {})


@dataclass
class Serving:
    """An engine that serves one partition."""

    limits: EngineLimits = field(default_factory=EngineLimits)
    source: FakeSource = field(default_factory=FakeSource)
    store: GatedStore = field(default_factory=GatedStore)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        self.source.create_topic(PARCELS)

        async def opened() -> Store:
            return self.store

        engine = Engine(
            Parts(
                membership=FakeMembership(self.source, "group"),
                reader=FakeReader(self.source),
                open_store=opened,
                prepare_store=routes_on,
                topics=frozenset({PARCELS}),
                cluster="c",
                first="earliest",
                observer=Silent(),
                beat=[0, 0, 0, 0],
                outbox_depth=lambda: 0,
                limits=self.limits,
            )
        )
        task = asyncio.create_task(engine.run())
        try:
            async with asyncio.timeout(SECONDS):
                yield engine
                engine.stop()
                for _ in range(100):
                    self.store.let.release()
                await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def publish(self, *values: bytes) -> int:
        """Returns the offset after the last."""
        offset = -1
        for value in values:
            offset = self.source.append(PLACE, value, headers=EVENT_HEADERS)
        return offset + 1

    async def read_to(self, engine: Engine, offset: int) -> None:
        """Wait until the engine has read so far."""

        async def has_read() -> bool:
            return engine.session is not None and engine.session.claims[PLACE].read_to >= offset

        await until(has_read, SECONDS, f"read to {offset}", poll_seconds=0)

    def moves(self) -> dict[str, int]:
        """The sequence number of each run."""
        return {run.key: run.sequence for _, run in self.store.tables.runs.values()}


async def test_what_comes_one_by_one_during_a_commit_is_stepped_as_it_comes_and_committed_together_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Nothing but records and commits wakes the engine.
    monkeypatch.setattr(session, "LOOK_SECONDS", 10 * SECONDS)
    serving = Serving()
    async with serving.running() as engine:
        await serving.publish(told("opened", "p"))
        await serving.store.asked.acquire()
        for _ in range(3):
            await serving.read_to(engine, await serving.publish(weighed("p")))
        assert serving.store.sizes == [1]
        serving.store.let.release()
        await serving.store.asked.acquire()
        assert serving.store.sizes == [1, 3]
    assert serving.moves() == {"p": 4}
    assert serving.store.tables.places[PLACE].position == 4


async def test_a_draft_takes_no_more_records_than_a_commit_may_have() -> None:
    serving = Serving(EngineLimits(batch_records_max=2, cache_runs_max=4))
    async with serving.running() as engine:
        await serving.publish(told("opened", "p"))
        await serving.store.asked.acquire()
        read = await serving.publish(*(weighed("p") for _ in range(5)))
        await serving.read_to(engine, read - 3)
        for _ in range(3):
            serving.store.let.release()
        await serving.read_to(engine, read)
    assert serving.store.sizes == [1, 2, 2, 1]
    assert serving.moves() == {"p": 6}


async def test_a_draft_takes_no_more_bytes_than_a_commit_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batch, "bytes_since", lambda *_: 0)
    monkeypatch.setattr(Weighed, "learn", lambda *_: None)
    monkeypatch.setattr("engine.engine.Weighed", lambda: Weighed(0))
    value = weighed("p")
    serving = Serving(EngineLimits(batch_bytes_max=len(value) * 5 // 2))
    async with serving.running() as engine:
        await serving.publish(told("opened", "p"))
        await serving.store.asked.acquire()
        for _ in range(2):
            await serving.read_to(engine, await serving.publish(weighed("p")))
        await serving.publish(weighed("p"))
        serving.store.let.release()
        await serving.store.asked.acquire()
    assert serving.store.sizes[:2] == [1, 2]
    assert serving.moves() == {"p": 4}


async def test_what_is_written_counts_for_the_bytes_of_a_commit_from_one_connection_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Batch, "bytes_since", lambda batch, rows, _: 1_000 * (len(batch.commit.rows) - rows))
    serving = Serving(EngineLimits(batch_bytes_max=2_500))
    async with serving.running() as engine:
        engine.weighed.bytes_each = 0
        await serving.publish(told("opened", "p"))
        await serving.store.asked.acquire()
        # What records come to is known by now.
        read = await serving.publish(*(weighed("p") for _ in range(5)))
        for _ in range(4):
            serving.store.let.release()
        await serving.read_to(engine, read)
        assert engine.weighed.bytes_each == 1_000
    assert sum(serving.store.sizes) == 6
    assert max(serving.store.sizes) == 2
    assert serving.moves() == {"p": 6}


async def test_where_nothing_is_known_of_contexts_few_records_are_stepped_before_something_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bytes_max = 2 * RECORD_BYTES_AT_FIRST
    monkeypatch.setattr(
        Batch, "bytes_since", lambda batch, rows, _: bytes_max * (len(batch.commit.rows) - rows)
    )
    serving = Serving(EngineLimits(batch_bytes_max=bytes_max))
    async with serving.running() as engine:
        read = await serving.publish(told("opened", "p"), *(weighed("p") for _ in range(5)))
        await serving.store.asked.acquire()
        assert serving.store.sizes[0] <= 2
        for _ in range(6):
            serving.store.let.release()
        await serving.read_to(engine, read)
    assert serving.store.sizes[1:] == [1] * (6 - serving.store.sizes[0])
    assert serving.moves() == {"p": 6}


async def test_a_draft_is_computed_again_where_the_commit_before_it_was_lost() -> None:
    serving = Serving()
    serving.store.losses = 1
    async with serving.running() as engine:
        await serving.publish(told("opened", "p"))
        await serving.store.asked.acquire()
        for _ in range(2):
            await serving.read_to(engine, await serving.publish(weighed("p")))
    assert serving.store.sizes == [1, 1, 2]
    assert serving.moves() == {"p": 3}
    assert serving.store.tables.places[PLACE].position == 3


async def test_a_stop_commits_what_was_read() -> None:
    serving = Serving()
    async with serving.running() as engine:
        await serving.publish(told("opened", "p"))
        await serving.store.asked.acquire()
        await serving.read_to(engine, await serving.publish(weighed("p")))
    assert serving.moves() == {"p": 2}


async def chunk_of(keys: str) -> list[RawRecord]:
    """A record for each letter, that starts a run."""
    source = FakeSource()
    source.create_topic(PARCELS)
    for key in keys:
        source.append(PLACE, told("opened", key), headers=EVENT_HEADERS)
    reader = FakeReader(source)
    reader.assign({PLACE: 0})
    chunk = await reader.fetch(records_max=len(keys), wait_seconds=1.0)
    return [
        RawRecord(*PLACE, one.offset, one.timestamp, one.key, one.value, one.headers)
        for one in chunk.records[PLACE]
    ]


async def taken_by(store: Store) -> tuple[Committer, Claim]:
    """A committer that has the partition."""
    await store.add_positions({PLACE: 0})
    [(number, _, position, epoch, _)] = await store.take_positions([PLACE])
    now = functools.partial(datetime.now, UTC)
    committer = Committer(store, await routes_on(store), "c", now, now, Silent(), [0, 0, 0, 0])
    return committer, Claim(number, PLACE, epoch, position)


class FastidiousStore(FakeStore):
    """Refuses the run of the key x."""

    async def commit(self, commit: Commit) -> int | None:
        if any(run.key == "x" for _, run in commit.created):
            raise RefusedByStoreError("it has something in it that cannot be stored")
        return await super().commit(commit)


CUTS = (
    [(0, 4), (4, 4)],
    [(0, 1), (1, 1), (1, 2), (2, 2), (2, 4)],
    [(0, 0), (0, 4), (4, 4), (4, 4)],
    [(0, 3), (3, 4)],
)
"""Where slices of a draft begin and end, of four records; those without records are of transactions' markers."""


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("keys", ["xabc", "axbc", "abcx", "abxc", "x"])
async def test_a_record_that_is_refused_is_found_among_slices_of_one_partition(
    keys: str, cuts: list[tuple[int, int]]
) -> None:
    records = await chunk_of(keys)
    store = FastidiousStore(Tables())
    committer, claim = await taken_by(store)
    draft = await committer.draft(None)
    end = 0
    for first, last in cuts:
        some = records[first:last]
        # What has no records has the offset of a marker.
        start, end = end, end + max(1, len(some))
        placed = [one._replace(offset=start + at) for at, one in enumerate(some)]
        await committer.extend(draft, [Slice(claim, placed, start, end)])
    await committer.settle(committer.begin(draft.slices, committer.finish(draft)))
    assert not claim.lost
    assert store.tables.places[PLACE].position == end
    assert {run.key for _, run in store.tables.runs.values()} == set(keys) - {"x"}
    [(letter, _)] = store.tables.letters.values()
    assert letter.reason == "refused by store"
    assert letter.record_value == records[keys.index("x")].value


async def test_a_comparison_that_is_always_lost_is_passed_on() -> None:
    store = GatedStore()
    store.losses = 1_000
    for _ in range(store.losses):
        store.let.release()
    committer, claim = await taken_by(store)
    slices = [Slice(claim, await chunk_of("p"), 0, 1)]
    with pytest.raises(LostRunsError):
        await committer.settle(committer.begin(slices, await committer.prepare(slices, None)))
    assert len(store.sizes) == LOSSES_MAX
