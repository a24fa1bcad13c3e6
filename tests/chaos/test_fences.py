"""Two engines on one database, moved by hand into the moments in which one of them must lose."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from connectors.kafka.membership import REBALANCE_SECONDS
from connectors.source import Partition
from engine.limits import EngineLimits
from engine.session import run_ids
from engine.store import connecting, silence
from engine.store.contract import (
    LostPositionsError,
    LostRunsError,
    RefusedByStoreError,
    StoreUnavailableError,
)
from engine.store.postgres import ROLLBACK_SECONDS, PostgresStore
from engine.store.values import Commit, EndedDeadLetter, PositionMove
from tests.chaos.contender import CLUSTER, GROUP, Contender, contender, told, weighed
from tests.chaos.faults import is_engine_commit
from tests.chaos.parcels import PARCELS
from tests.chaos.slots import until
from tests.proxy import FaultProxy, When
from tests.services import Database


@pytest.fixture
async def rivals(database: Database) -> AsyncIterator[tuple[Contender, Contender]]:
    """Two engines; the first has partition 0, the second partition 1."""
    async with contender(database.engine_dsn) as first, contender(database.engine_dsn) as second:
        await first.take(0)
        await second.take(1)
        yield first, second


Rivals = tuple[Contender, Contender]
RUN_ID_BITS = 22
"""Of a run's number, below the milliseconds of its start."""


async def test_an_event_behind_a_hold_waits(rivals: Rivals) -> None:
    first, _ = rivals
    await first.feed(0, told("opened", "p"), weighed("p", "much"), weighed("p"))
    run = await first.run("p")
    assert (run.held, run.waiting) == (2, 1)


async def test_a_batch_is_refused_once_the_epoch_is_taken_even_where_the_position_is_the_same(
    rivals: Rivals,
) -> None:
    zombie, heir = rivals
    await heir.take(0)
    batch = await zombie.prepare(zombie.slice(0, told("opened", "p")))
    with pytest.raises(LostPositionsError):
        await zombie.store.commit(batch.commit)
    assert await heir.ask("select * from pointsman.events") == []
    assert await heir.feed(0, told("opened", "p"))


async def test_a_batch_is_refused_where_the_position_moved_even_under_the_same_epoch(rivals: Rivals) -> None:
    first, _ = rivals
    batch = await first.prepare(first.slice(0, told("opened", "p")))
    claim = first.claims[0]
    await first.store.commit(Commit(batch.commit.at, [PositionMove(claim.id, claim.epoch, 0, 7)]))
    with pytest.raises(LostPositionsError):
        await first.store.commit(batch.commit)


async def test_a_run_is_changed_only_from_the_sequence_number_that_it_has(rivals: Rivals) -> None:
    first, second = rivals
    await first.feed(0, told("opened", "p"))
    stale = await first.run("p")
    await second.feed(1, weighed("p"))
    # Without log rows, whose primary key would refuse it as well.
    with pytest.raises(LostRunsError):
        await first.store.commit(Commit(stale.updated, changed=[(stale.sequence, stale)]))
    assert (await first.run("p")).sequence == 2


async def test_a_cached_run_that_another_engine_moved_is_loaded_before_its_event_is_judged(
    rivals: Rivals,
) -> None:
    first, second = rivals
    await first.feed(0, told("opened", "p"))
    await second.feed(1, told("stopped", "p"))
    # The first still has the run in its cache as going, where it does not take this.
    assert not await first.feed(0, told("resumed", "p"))
    assert (await first.run("p")).configuration == "going"
    assert (await first.run("p")).sequence == 3
    assert await first.ask("select * from pointsman.dead_letters") == []


async def test_a_batch_that_is_computed_again_does_not_meet_what_was_stepped_ahead_of_it(
    rivals: Rivals,
) -> None:
    first, second = rivals
    await first.feed(0, told("opened", "x"), told("opened", "y"))
    await second.feed(1, weighed("y"))
    early = first.slice(0, told("resumed", "x", id="twice"), weighed("y"))
    late = first.slice(0, told("stopped", "x"), told("resumed", "x", id="twice"))
    pending = await first.begin(early)
    ahead = await first.prepare(late, pending)
    assert not await first.committer.settle(pending, ahead), "the second engine moved y"
    assert await first.committer.settle(await first.begin(late))
    [letter] = await first.ask('select reason, "offset" from pointsman.dead_letters')
    assert tuple(letter) == ("not accepted", 2)
    assert (await first.run("x")).sequence == 3
    assert await first.ask("select * from pointsman.dispositions") == []


async def test_what_a_batch_knows_of_those_before_it_does_not_grow(rivals: Rivals) -> None:
    first, _ = rivals
    await first.feed(0, told("opened", "p"), *(weighed("p") for _ in range(20)))
    pending = await first.begin(first.slice(0, *(weighed("p") for _ in range(10))))
    for _ in range(8):
        slices = first.slice(0, *(weighed("p") for _ in range(10)))
        batch = await first.prepare(slices, pending)
        assert len(batch.consumed) <= 20
        assert await first.committer.settle(pending, batch)
        pending = first.committer.begin(slices, batch)
    assert await first.committer.settle(pending)


async def test_an_event_seen_in_the_commit_in_flight_and_forgotten_by_its_run_is_still_a_duplicate(
    rivals: Rivals,
) -> None:
    first, _ = rivals
    await first.feed(0, told("opened", "p"))
    many = [weighed("p") for _ in range(20)]
    pending = await first.begin(first.slice(0, *many))
    slices = first.slice(0, many[0], many[-1])
    batch = await first.prepare(slices, pending)
    assert await first.committer.settle(pending, batch)
    assert await first.committer.settle(first.committer.begin(slices, batch))
    assert (await first.run("p")).sequence == 21
    assert len(await first.ask("select * from pointsman.dispositions")) == 2


async def test_the_number_of_a_run_is_of_the_time_at_which_it_was_started(
    rivals: Rivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = rivals

    async def now() -> int:
        [row] = await first.ask("select (extract(epoch from clock_timestamp()) * 1000)::bigint")
        return int(row[0])

    await first.feed(0, told("opened", "p"), told("opened", "q"))
    before = (await first.run("q")).id
    # As long as they are fresh, they are used up one after the other.
    await first.feed(0, told("opened", "r"))
    assert (await first.run("r")).id == before + 1

    async def later() -> bool:
        return await now() > before >> RUN_ID_BITS

    await until(later, 60, "another millisecond")
    asked = await now()
    monkeypatch.setattr(run_ids, "RUN_IDS_SECONDS_MAX", 0.0)
    await first.feed(0, told("opened", "s"))
    assert asked <= (await first.run("s")).id >> RUN_ID_BITS <= await now()


class RefusingStore(PostgresStore):
    """Refuses every batch with log rows, and lets another engine take partition 0 meanwhile."""

    heir: Contender | None = None

    async def commit(self, commit: Commit) -> int | None:
        if commit.rows:
            if self.heir is not None:
                await self.heir.take(0)
            raise RefusedByStoreError("it has something in it that cannot be stored")
        return await super().commit(commit)


async def test_a_record_refused_by_the_store_is_let_go_where_its_partition_was_lost(
    database: Database,
) -> None:
    async with contender(database.engine_dsn, RefusingStore) as first, contender(database.engine_dsn) as heir:
        await first.take(0)
        assert isinstance(first.store, RefusingStore)
        first.store.heir = heir
        assert not await first.feed(0, told("opened", "p"))
        assert first.claims[0].lost
        assert await heir.ask("select * from pointsman.dead_letters") == []


async def test_two_engines_that_register_the_same_at_once_get_the_same_number(
    rivals: Rivals, database: Database
) -> None:
    first, _ = rivals
    other = await asyncpg.connect(database.engine_dsn)
    try:
        transaction = other.transaction()
        await transaction.start()
        number = await other.fetchval(
            "insert into pointsman.pipelines (namespace, name) values ('default', 'new') returning id"
        )
        asked = asyncio.create_task(first.store.register_pipeline("new"))
        await _waits_for_lock(other, "insert into pointsman.pipelines")
        await transaction.commit()
        assert await asked == number
    finally:
        await other.close()


async def test_locks_that_cannot_be_had_leave_no_transaction_open(rivals: Rivals, database: Database) -> None:
    first, _ = rivals
    await first.feed(0, told("opened", "p"))
    run = await first.run("p")
    async with first.store.connection() as connection:
        await connection.execute("set lock_timeout = '100ms'")
    other = await asyncpg.connect(database.engine_dsn)
    try:
        async with other.transaction():
            await other.execute("select 1 from pointsman.runs where id = $1 for update", run.id)
            with pytest.raises(LostRunsError):
                await first.store.lock([first.claims[0].id], [run.id])
        await first.store.lock([first.claims[0].id], [run.id])
        await first.store.unlock()
    finally:
        await other.close()


async def test_an_engine_that_steps_under_its_locks_is_heard_of_meanwhile(
    rivals: Rivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = rivals
    monkeypatch.setattr(silence, "SPEAK_SECONDS", 0.05)
    await first.feed(0, told("opened", "p"))
    run = await first.run("p")
    heard = set[object]()

    async def is_heard_of() -> bool:
        rows = await second.ask(
            "select query_start from pg_stat_activity where state = 'idle in transaction' "
            "and datname = current_database()"
        )
        heard.update(row[0] for row in rows)
        return len(heard) > 3

    await first.store.lock([first.claims[0].id], [run.id])
    await until(is_heard_of, 60, "word of an engine that holds locks")
    batch = await first.prepare(first.slice(0, weighed("p")))
    await first.store.commit(batch.commit)
    assert (await first.run("p")).sequence == run.sequence + 1


async def test_of_an_engine_that_was_ended_while_a_handler_kept_its_loop_nothing_is_lost_or_doubled(
    rivals: Rivals, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = rivals
    monkeypatch.setattr(silence, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(silence, "SILENT_SECONDS", 0.3)

    async def inherit() -> None:
        async with contender(database.engine_dsn) as heir:
            await heir.take(0)
            assert heir.claims[0].read_to == 0
            await heir.feed(0, told("opened", "p"))

    slices = first.slice(0, told("opened", "p"))
    await first.store.lock([first.claims[0].id], [])
    heirs = threading.Thread(target=lambda: asyncio.run(inherit()))
    heirs.start()
    # As a handler does, it keeps the loop.
    heirs.join(60)
    assert not heirs.is_alive()
    batch = await first.prepare([one._replace(records=()) for one in slices])
    with pytest.raises(StoreUnavailableError):
        await first.store.commit(batch.commit)
    async with contender(database.engine_dsn) as again:
        await again.take(0)
        assert again.claims[0].read_to == 1
        assert (await again.run("p")).sequence == 1
    [said] = [one for one in caplog.messages if "is not heard of" in one]
    assert said.endswith("held locks that this engine waits for; it was ended")


def test_a_handler_may_take_its_time_while_a_commit_is_in_flight() -> None:
    assert EngineLimits().handler_seconds_max < connecting.IDLE_IN_TRANSACTION_SECONDS < REBALANCE_SECONDS


def test_an_engine_that_hangs_has_given_up_its_commit_before_its_partitions_are_given_away() -> None:
    lasts = max(connecting.COMMAND_TIMEOUT_SECONDS, connecting.TOGETHER_SECONDS_MAX)
    assert lasts + ROLLBACK_SECONDS < REBALANCE_SECONDS
    assert lasts < silence.STATEMENT_SECONDS_MAX


async def test_a_dead_letter_is_ended_once(rivals: Rivals) -> None:
    first, second = rivals
    await first.feed(0, weighed("nobody"))
    [row] = await first.ask("select id, at from pointsman.dead_letters")
    ended = EndedDeadLetter(row["id"], "dropped", "ana", "")
    await first.store.commit(Commit(row["at"], ended=[ended]))
    with pytest.raises(LostRunsError):
        await second.store.commit(Commit(row["at"], ended=[ended]))


async def test_positions_locked_by_an_engine_that_fell_silent_within_a_copy_are_taken_all_the_same(
    rivals: Rivals, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, heir = rivals
    monkeypatch.setattr(silence, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(silence, "SILENT_SECONDS", 0.3)
    zombie = await connecting.connect(database.engine_dsn, name="pointsman engine, writing")
    frozen = asyncio.Event()

    async def half_a_row() -> AsyncIterator[bytes]:
        yield b"1\t"
        frozen.set()
        await asyncio.Event().wait()

    await zombie.execute("begin")
    await zombie.execute("update pointsman.positions set position = 5 where id = $1", first.claims[0].id)
    copying = asyncio.create_task(
        zombie.copy_to_table(
            "inbox", schema_name="pointsman", source=half_a_row(), columns=["namespace", "body"]
        )
    )
    try:
        await frozen.wait()
        async with asyncio.timeout(60):
            [taken] = await heir.store.take_positions([Partition(PARCELS, 0)])
        assert (taken.position, taken.epoch) == (0, first.claims[0].epoch + 1)
    finally:
        copying.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await copying
        zombie.terminate()


@contextlib.asynccontextmanager
async def by_proxy(dsn: str) -> AsyncIterator[tuple[FaultProxy, str]]:
    """A proxy before Postgres, and the address that leads through it."""
    user, _, rest = dsn.partition("@")
    place, _, name = rest.partition("/")
    host, _, port = place.rpartition(":")
    async with FaultProxy(int(port), host) as proxy:
        yield proxy, f"{user}@127.0.0.1:{proxy.port}/{name}"


@pytest.mark.parametrize("when", list(When))
async def test_all_of_a_batch_is_there_or_nothing_when_the_connection_breaks_at_its_commit(
    database: Database, when: When
) -> None:
    async with by_proxy(database.engine_dsn) as (proxy, dsn), contender(database.engine_dsn) as heir:
        async with contender(dsn) as first:
            await first.take(0)
            proxy.cut_when(is_engine_commit, when)
            with pytest.raises(StoreUnavailableError):
                await first.feed(0, told("opened", "p"))
        # Taking it waits for the commit that may still be on its way.
        await heir.take(0)
        found = {
            "position": heir.claims[0].read_to,
            "moves": len(await heir.ask("select * from pointsman.events")),
            "runs": len(await heir.ask("select * from pointsman.runs")),
            "outbox": len(await heir.ask("select * from pointsman.outbox")),
            "ticket": (await heir.ask("select ticket from pointsman.lanes"))[0][0],
        }
        assert len(set(found.values())) == 1, f"not one transaction: {found}"
        if when is not When.IN_FLIGHT:
            assert found["position"] == (0 if when is When.BEFORE else 1)


@pytest.mark.parametrize("what", ["rows that asyncpg packs", "long statements before rows that are packed"])
async def test_a_connection_that_breaks_while_a_copy_waits_for_room_is_heard_of(
    database: Database, what: str
) -> None:
    async with by_proxy(database.engine_dsn) as (proxy, dsn):
        connection = await connecting.connect(dsn)
        # More than a connection takes before anybody reads of it.
        long = "x" * 32_000_000
        proxy.cut_when(lambda request: b"xxx" in request)
        if what.startswith("rows"):
            copying = connection.copy_rows(
                "inbox", [("n", long[:400_000].encode())] * 80, ["namespace", "body"]
            )
        else:
            copying = connection.copy_among(
                f"select '{long}'; copy pointsman.inbox from stdin", memoryview(b"")
            )
        async with asyncio.timeout(connecting.COMMAND_TIMEOUT_SECONDS / 2):
            with pytest.raises(asyncpg.ConnectionDoesNotExistError):
                await copying
        assert connection.is_closed()


async def test_a_connection_that_breaks_while_the_store_is_opened_is_no_mistake_of_ours(
    database: Database,
) -> None:
    async with by_proxy(database.engine_dsn) as (proxy, dsn):
        proxy.cut_when(lambda request: b"ensure_partitions" in request)
        with pytest.raises(StoreUnavailableError):
            await PostgresStore.open(dsn, namespace="default", group=GROUP, cluster=CLUSTER)


async def test_positions_are_taken_in_vain_where_another_transaction_works_on_them_for_long(
    rivals: Rivals, database: Database
) -> None:
    first, heir = rivals
    async with heir.store.connection() as connection:
        await connection.execute("set lock_timeout = '100ms'")
    other = await asyncpg.connect(database.engine_dsn)
    try:
        async with other.transaction():
            await other.execute(
                "update pointsman.positions set updated = now() where id = $1", first.claims[0].id
            )
            with pytest.raises(LostRunsError):
                await heir.store.take_positions([Partition(PARCELS, 0)])
        assert await heir.store.take_positions([Partition(PARCELS, 0)])
    finally:
        await other.close()


async def _waits_for_lock(connection: asyncpg.Connection[Any], query: str) -> None:
    async def is_waiting() -> bool:
        # Within a transaction the first look would be what all later ones see.
        await connection.execute("select pg_stat_clear_snapshot()")
        return bool(
            await connection.fetchval(
                "select count(*) from pg_stat_activity "
                "where wait_event_type = 'Lock' and query like '%' || $1 || '%'",
                query,
            )
        )

    await until(is_waiting, 60, "a wait for a lock")


async def test_whatever_fails_on_a_connection_that_broke_means_that_the_store_is_away(rivals: Rivals) -> None:
    first, _ = rivals
    with pytest.raises(AttributeError):
        async with first.store.connection():
            raise AttributeError("a mistake of ours")
    first.store._writer.terminate()
    with pytest.raises(StoreUnavailableError):
        async with first.store.connection():
            raise AttributeError("'NoneType' object has no attribute 'write'")


def test_a_transport_that_uvloop_has_closed_is_a_connection_that_broke() -> None:
    said = (
        "unable to perform operation on <TCPTransport closed=True reading=False 0x1>; the handler is closed"
    )
    assert isinstance(connecting.translate(RuntimeError(said)), StoreUnavailableError)
    assert connecting.translate(RuntimeError("a mistake of ours")) is None
