"""What Postgres refuses: the data of one record, which its neighbours must not feel, or what no record can help."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import asyncpg
import pytest

from engine.reading import set_position
from engine.session.claims import Slice
from engine.store.connecting import Connection, connect
from engine.store.contract import RefusedByStoreError, StoreFaultError
from engine.store.postgres import PostgresStore
from tests.chaos.contender import contender, told, weighed
from tests.chaos.lived import PARTITION, Lived, lived
from tests.chaos.parcels import PARCELS
from tests.chaos.slots import until
from tests.services import Database, execute

REFUSE = """
    create function public.refuse() returns trigger language plpgsql as $$
    begin
        raise exception using errcode = 'character_not_in_repertoire', message = 'that letter is not known';
    end
    $$
"""
IN_THE_LOG = """
    create trigger refuse before insert on pointsman.events for each row
    when (new.event_id like 'bad%') execute function public.refuse()
"""
AS_DEAD_LETTER = """
    create trigger refuse before insert on pointsman.dead_letters for each row
    when (new.event_id = 'bad beyond words') execute function public.refuse()
"""


async def test_a_refused_record_becomes_a_dead_letter_and_its_neighbours_are_applied(
    database: Database,
) -> None:
    await execute(database.owner_dsn, REFUSE, IN_THE_LOG)
    async with contender(database.engine_dsn) as one:
        await one.take(0, 1)
        left = [told("opened", "p"), *(weighed("p", 1, id=f"left-{number}") for number in range(5))]
        left.insert(3, weighed("p", 100, id="bad"))
        right = [told("opened", "q"), weighed("q", 7), weighed("q", 7)]
        slices = [*one.slice(0, *left), *one.slice(1, *right)]
        assert not await one.committer.settle(await one.begin(slices))
        [letter] = await one.ask(
            'select reason, event_id, "offset", record_value from pointsman.dead_letters'
        )
        assert tuple(letter) == ("refused by store", "bad", 3, left[3])
        ids = await one.ask(
            "select event_id from pointsman.events where event_id ~ 'left|bad' order by sequence"
        )
        assert [row[0] for row in ids] == [f"left-{number}" for number in range(5)]
        assert b'"grams":5' in (await one.run("p")).context
        assert b'"grams":14' in (await one.run("q")).context
        ends = await one.ask("select position from pointsman.positions order by partition")
        assert [row[0] for row in ends] == [7, 3]
        # And it goes on with both.
        assert await one.feed(0, weighed("p", 2))
        assert await one.feed(1, weighed("q", 2))


async def test_a_record_that_cannot_even_be_a_dead_letter_stops_its_partition_alone(
    database: Database,
) -> None:
    await execute(database.owner_dsn, REFUSE, IN_THE_LOG, AS_DEAD_LETTER)
    async with contender(database.engine_dsn) as one:
        await one.take(0, 1)
        bad = one.slice(0, weighed("p", id="bad beyond words"))
        other = one.claims[1]
        holes = Slice(other, [], 0, 5)
        assert not await one.committer.settle(await one.begin([*bad, holes]))
        assert one.claims[0].lost
        assert one.claims[0].stopped is not None
        assert "parcels/0 cannot be read on at offset 0" in one.claims[0].stopped
        assert "that letter" not in one.claims[0].stopped
        assert (other.lost, other.stopped) == (False, None)
        ends = await one.ask("select position from pointsman.positions order by partition")
        assert [row[0] for row in ends] == [0, 5]


async def test_a_partition_stopped_by_a_record_goes_on_where_a_person_says_and_the_others_meanwhile(
    database: Database,
) -> None:
    await execute(database.owner_dsn, REFUSE, IN_THE_LOG, AS_DEAD_LETTER)
    async with lived(database, partitions=2, take_again_seconds=0.01) as one:
        await one.append(told("opened", "p"))
        await one.append(weighed("p", id="bad beyond words"))
        await one.append(weighed("p"))
        await one.append(told("opened", "q"), partition=1)
        await until(partial(is_stopped, one), 60, "a partition that is stopped")
        for rows in (3, 4):
            await one.append(weighed("q"), partition=1)
            await one.moves(rows)
        [trouble] = one.engine.troubles()
        assert "pointsman positions set parcels 0 POSITION --" in trouble
        assert await one.ask("select 1 from pointsman.dead_letters") == []
        [row] = await one.ask("select position, epoch from pointsman.positions where partition = 0")
        assert tuple(row) == (1, 1), "it waits where the record is, and nobody takes it again"
        connection = await connect(database.engine_dsn, for_engine=False)
        try:
            await set_position(connection, "default", PARCELS, 0, 2, who="ana", why="it is of no use")
        finally:
            await connection.close()
        await one.moves(5)
        assert one.engine.troubles() == []


async def is_stopped(one: Lived) -> bool:
    if one.running.done():
        one.running.result()
    return PARTITION in one.engine.stopped_partitions


async def test_a_fault_that_is_no_records_makes_no_dead_letters_and_the_engine_goes_on_when_it_is_mended(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with lived(database) as one:
        await one.append(told("opened", "p"))
        await one.moves(1)
        await execute(database.owner_dsn, "alter table pointsman.events add check (type <> 'parcel.weighed')")
        caplog.set_level(logging.WARNING, "pointsman.engine")
        await one.append(weighed("p", id="a-secret"))
        for _ in range(3):
            await begins_anew(one)
        assert await one.ask("select 1 from pointsman.dead_letters") == []
        [said] = [
            entry.getMessage()
            for entry in caplog.records
            if entry.name.startswith("pointsman") and entry.levelno >= logging.WARNING
        ]
        assert "no record is to blame; nothing is lost" in said
        assert 'violates check constraint "events_type_check"' in said
        assert "secret" not in said
        await execute(database.owner_dsn, "alter table pointsman.events drop constraint events_type_check")
        await one.moves(2)


async def begins_anew(one: Lived) -> None:
    first = one.engine.session

    async def is_another() -> bool:
        if one.running.done():
            one.running.result()
        return one.engine.session is not first

    await until(is_another, 60, "another session")


async def test_an_engine_makes_room_in_the_log_itself_where_there_is_none(database: Database) -> None:
    async with lived(database) as one:
        await one.append(told("opened", "p"))
        await one.moves(1)
        [name] = await one.ask("select distinct tableoid::regclass::text from pointsman.events")
        await execute(database.owner_dsn, f"drop table {name[0]}")
        await one.append(told("opened", "q"))
        await one.moves(1)
        assert await one.ask("select 1 from pointsman.dead_letters") == []
        assert [tuple(row) for row in await one.ask("select key from pointsman.runs")] == [("p",), ("q",)]


def by(sql: str, *arguments: Any) -> Callable[[Connection], Awaitable[Any]]:
    return lambda connection: connection.execute(sql, *arguments)


def by_copy(value: object) -> Callable[[Connection], Awaitable[Any]]:
    return lambda connection: connection.copy_records_to_table("texts", records=[(value,)], columns=["text"])


async def copy_what_is_no_copy(connection: Connection) -> None:
    source: Any = memoryview(b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\0\2")  # its stubs know no buffers
    await connection.copy_to_table("texts", source=source, format="binary")


async def ask_in_vain(store: PostgresStore, ask: Callable[[Connection], Awaitable[Any]]) -> None:
    async with store.connection() as connection:
        await connection.execute("create temporary table if not exists texts (text text primary key)")
        await ask(connection)


INSERT = "insert into texts (text) values ($1)"
INSERT_MANY = "insert into texts (text) select unnest($1::text[])"
OF_THE_DATA = {
    "a NUL": by(INSERT, "\0"),
    "a surrogate": by(INSERT, "\ud800"),
    "a surrogate among many": by(INSERT_MANY, ["a", "\ud800"]),
    "a surrogate in a copy": by_copy("\ud800"),
    "a number that is too large": by("select $1::int", 2**40),
    "a number that is too large in a copy": by("select $1::bigint[]", [2**70]),
    "a key that is too long for its index": by(INSERT, "".join(chr(0x4E00 + n) for n in range(9_000))),
}
OF_THE_STORE = {
    "a foreign key": by(
        "insert into pointsman.definitions (pipeline, version, hash, code, structure) values (999, 1, '', '', '')"
    ),
    "a null": by("insert into pointsman.pipelines (namespace, name) values ('a', null)"),
    "a text that is a number": by(INSERT, 5),
    "texts that are numbers": by(INSERT_MANY, [5]),
    "a broken copy": copy_what_is_no_copy,
}


@pytest.mark.parametrize("what", OF_THE_DATA)
async def test_only_what_depends_on_the_data_is_refused(database: Database, what: str) -> None:
    async with contender(database.engine_dsn) as one:
        with pytest.raises(RefusedByStoreError):
            await ask_in_vain(one.store, OF_THE_DATA[what])


@pytest.mark.parametrize("what", OF_THE_STORE)
async def test_what_any_record_would_meet_is_a_fault(database: Database, what: str) -> None:
    async with contender(database.engine_dsn) as one:
        with pytest.raises(StoreFaultError):
            await ask_in_vain(one.store, OF_THE_STORE[what])


async def test_a_mistake_of_ours_stays_what_it_is(database: Database) -> None:
    async with contender(database.engine_dsn) as one:
        with pytest.raises(TypeError):
            await ask_in_vain(one.store, by_copy(5))
        with pytest.raises(asyncpg.UndefinedTableError):
            await ask_in_vain(one.store, by("select * from there_is_none"))
