"""One engine with a source in memory and a real Postgres, and what its session must live through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Any

import asyncpg
import pytest

from connectors.source import Chunk, Partition, SourceUnreachableError
from engine.observing import Silent
from engine.session.session import UPKEEP_SECONDS, Session
from engine.store import connecting
from engine.store.postgres import PostgresStore
from tests.chaos.contender import GROUP, told, weighed
from tests.chaos.lived import PARTITION, Lived, lived
from tests.chaos.script import EVENT_HEADERS
from tests.chaos.slots import until
from tests.fakes.source import FakeReader, Fate, transaction
from tests.services import Database


class ShyReader(FakeReader):
    """Cannot be reached when it is first asked for the beginning of a partition."""

    shy = True

    async def earliest(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        if self.shy:
            self.shy = False
            raise SourceUnreachableError("the source at nowhere does not answer")
        return await super().earliest(partitions)


class PausesTold(Silent):
    """Keeps of how many partitions it was told that they are not read."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def paused(self, partitions: int) -> None:
        if self.told[-1:] != [partitions]:
            self.told.append(partitions)


class BusyReader(FakeReader):
    """Of a topic to which another record comes whenever it is read."""

    async def fetch(
        self, *, records_max: int, wait_seconds: float, until: asyncio.Future[Any] | None = None
    ) -> Chunk:
        chunk = await super().fetch(records_max=records_max, wait_seconds=wait_seconds, until=until)
        self._source.append(PARTITION, weighed("p"), headers=EVENT_HEADERS)
        return chunk


async def test_a_partition_lost_to_a_zombie_that_vanished_is_taken_again(database: Database) -> None:
    async with lived(database, take_again_seconds=0.2) as one:
        await one.append(told("opened", "p"))
        await one.moves(1)
        thief = await PostgresStore.open(
            database.engine_dsn, namespace="default", group=GROUP, cluster=one.source.cluster
        )
        try:
            await thief.take_positions([PARTITION])
        finally:
            await thief.close()
        await one.append(weighed("p"))
        await one.moves(2)


async def test_partitions_are_told_as_paused_while_postgres_is_away(database: Database) -> None:
    pauses = PausesTold()
    async with lived(database, observer=pauses, partitions=3) as one:
        await one.append(told("opened", "p"))
        await one.moves(1)
        assert isinstance(one.engine.session, Session)
        assert isinstance(one.engine.session.store, PostgresStore)
        one.engine.session.store._writer.terminate()
        await one.append(weighed("p"))
        await one.moves(2)
        assert pauses.told == [0, 3, 0]


async def test_a_partition_whose_position_a_person_moved_is_read_on_from_there(database: Database) -> None:
    async with lived(database, take_again_seconds=0.2) as one:
        await one.append(told("opened", "p"))
        await one.moves(1)
        await one.ask("update pointsman.positions set position = 3")
        for _ in range(3):
            await one.append(weighed("p"))
        await one.moves(2)
        rows = await one.ask('select "offset" from pointsman.events order by sequence')
        assert [row[0] for row in rows] == [0, 3]


async def test_an_engine_outlives_a_source_that_cannot_be_asked_where_to_begin(database: Database) -> None:
    async with lived(database, ShyReader) as one:
        await one.append(told("opened", "p"))
        await one.moves(1)


async def test_an_engine_outlives_a_lock_on_its_positions_that_lasts(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connecting._SETTINGS, "lock_timeout", "50ms")
    async with lived(database) as one:
        await one.append(told("opened", "p"))
        await one.moves(1)
        other = await asyncpg.connect(database.owner_dsn)
        try:
            async with other.transaction():
                await other.execute("update pointsman.positions set updated = now()")
                # The engine is told that the partition is new to it, and must wait for its row.
                one.engine.assignment.take_again(PARTITION)
                await _session_was_lost(one)
        finally:
            await other.close()
        await one.append(weighed("p"))
        await one.moves(2)


async def _session_was_lost(one: Lived) -> None:
    first = one.engine.session

    async def is_another() -> bool:
        if one.running.done():
            one.running.result()
        return one.engine.session is not first

    await until(is_another, 60, "another session")


async def test_commands_are_taken_up_while_there_is_more_to_read_even_if_nobody_was_told_of_them(
    database: Database,
) -> None:
    async with lived(database, BusyReader, inbox_poll_seconds=0.05, batch_records_max=1) as one:
        await one.append(told("opened", "p"))
        await one.append(weighed("nobody"))
        letter = "select id from pointsman.dead_letters where key = 'nobody'"
        await until(partial(one.ask, letter), 60, "a dead letter")
        await one.ask(
            "insert into pointsman.inbox (namespace, command, body, who, why) "
            "select 'default', 'drop', convert_to(json_build_object('dead_letter', id)::text, 'UTF8'), '', '' "
            f"from ({letter}) one"
        )
        await until(partial(one.ask, f"{letter} and status = 'dropped'"), 60, "the dead letter dropped")


async def test_a_position_passes_what_has_no_records_up_to_the_end_of_the_partition(
    database: Database,
) -> None:
    async with lived(database) as one:
        await one.append(told("opened", "p"))
        with transaction(one.source, PARTITION, commit=False):
            one.source.append(PARTITION, weighed("p"), headers=EVENT_HEADERS, fate=Fate.OPEN)
        await one.append(weighed("p"))
        with transaction(one.source, PARTITION, commit=False):
            one.source.append(PARTITION, weighed("p"), headers=EVENT_HEADERS, fate=Fate.OPEN)
        await one.moves(2)
        log = one.source.log(PARTITION)
        assert log is not None
        at_the_end = f"select 1 from pointsman.positions where position = {log.end}"
        await until(partial(one.ask, at_the_end), 60, f"the position at {log.end}")


class Pauses(Silent):
    """How many partitions were not read, and how often that was said: before each look into the source."""

    partitions = 0
    times = 0

    def paused(self, partitions: int) -> None:
        self.partitions = partitions
        self.times += 1

    async def looks(self, times: int, partitions: int) -> None:
        """Wait until the source was looked into so many times more, with so many partitions not read at last."""
        wanted = self.times + times

        async def has_looked() -> bool:
            return self.times >= wanted and self.partitions == partitions

        await until(has_looked, 60, f"{partitions} partitions that are not read", 0.001)


async def test_partitions_are_paused_while_the_outbox_is_full_until_half_of_it_is_left(
    database: Database,
) -> None:
    depth, pauses = 10, Pauses()
    async with lived(
        database,
        partitions=2,
        outbox_depth=lambda: depth,
        observer=pauses,
        outbox_rows_max=10,
        fetch_wait_milliseconds=5,
    ) as one:
        await one.append(told("opened", "p"))
        await one.moves(1)
        depth = 11
        await pauses.looks(2, 2)
        await one.append(weighed("p"))
        await one.append(told("opened", "q"), partition=1)
        await pauses.looks(3, 2)
        depth = 6
        await pauses.looks(3, 2)
        # Nor is it forgotten where the partitions are taken anew.
        one.engine.assignment.take_all_again()
        await pauses.looks(3, 2)
        assert [tuple(row) for row in await one.ask("select epoch from pointsman.positions")] == [(2,), (2,)]
        await one.moves(1)
        depth = 5
        await one.moves(3)
        await pauses.looks(1, 0)


async def test_an_engine_that_was_idle_for_long_makes_room_ahead_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lived(database) as one:
        await one.append(told("opened", "p"))
        await one.moves(1)
        session = one.engine.session
        assert session is not None
        times = 0

        async def count(_now: datetime) -> bool:
            nonlocal times
            times += 1
            return False

        monkeypatch.setattr(session.store, "keep_up", count)
        session._upkeep_at = time.monotonic() - 10 * UPKEEP_SECONDS
        for number in range(2, 6):
            await one.append(weighed("p"))
            await one.moves(number)
        assert times == 1


async def test_an_engine_ends_when_it_has_read_what_it_was_to_read_though_there_is_always_more(
    database: Database,
) -> None:
    async def reached(session: Session) -> bool:
        return (await session.store.known_positions([PARTITION]))[PARTITION] >= 20

    async with lived(database, BusyReader, reached) as one:
        done, _ = await asyncio.wait([one.running], timeout=30)
        assert done, "it never was idle, and went on"
        [position] = await one.ask("select position from pointsman.positions")
        # All that it took up is committed: nothing was in flight when it ended.
        assert position[0] >= 20
        assert one.engine.session is not None
        assert position[0] == one.engine.session.claims[PARTITION].read_to
