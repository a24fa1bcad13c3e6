"""How a commit talks to Postgres: in few messages, and without data of users in its statements."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import asyncpg
import orjson
import pytest

from connectors.kafka.membership import REBALANCE_SECONDS
from connectors.source import Partition
from engine.limits import EngineLimits
from engine.store import connecting, copying, postgres
from engine.store.connecting import Connection, CopyingConnection, connect
from engine.store.contract import LostRunsError, StoreUnavailableError
from engine.store.postgres import PostgresStore
from statemachines import Context, Event, Pipeline
from tests.charging import TOPIC, charging_pipeline, clear
from tests.contract.test_store import World, postgres_world, started
from tests.contract.test_store_promises import promise
from tests.feeding import Feeding, event, feed
from tests.services import Database

__all__ = ["postgres_world"]

SECRET = 'it\'s {a} "secret"'


class Case(Context):
    note: str


class Opened(Event, type="case.opened"):
    note: str


class Told(Event, type="case.told"):
    note: str


class Closed(Event, type="case.closed"):
    pass


def _note(case: Case, told: Told) -> None:
    case.note = told.note


def _pipeline() -> Pipeline[Case]:
    flow = Pipeline("cases", Case, version=1, topics=["cases"])
    opened, closed = flow.state("opened", initial=True), flow.state("closed", final=True)
    flow.start(Opened, lambda opened: Case(note=opened.note))
    opened.on(Told, do=_note)
    opened.on(Closed, to=closed)
    return flow


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said to Postgres on connections that write, message by message."""
    said: list[str] = []
    for name in ("copy_among", "execute", "fetch", "fetchval", "fetchrow"):
        plain = getattr(CopyingConnection, name)

        async def telling(
            self: CopyingConnection, statements: str, *rest: Any, _plain: Any = plain, **more: Any
        ) -> Any:
            said.append(statements)
            return await _plain(self, statements, *rest, **more)

        monkeypatch.setattr(CopyingConnection, name, telling)
    return said


def _told(type: str, note: str) -> Any:
    return event(type, {"note": note}, key=SECRET, topic="cases")


async def test_a_commit_that_moves_runs_waits_for_one_answer_and_one_that_starts_them_too(
    messages: list[str], database: Database
) -> None:
    async with feed(database, _pipeline()) as feeding:
        for record in (_told("case.opened", "a"), _told("case.told", "b")):
            messages.clear()
            await feeding.records(record)
            # What loads the run is heard before.
            begun = next(number for number, said in enumerate(messages) if said.startswith("begin; "))
            [said] = messages[begun:]
            assert "execute move_positions(" in said
            assert said.endswith("; commit")


async def test_a_commit_that_begins_steps_waits_for_no_more_answers(
    messages: list[str], database: Database
) -> None:
    clear()
    async with feed(database, charging_pipeline(), limits=EngineLimits(step_poll_seconds=60.0)) as feeding:
        await feeding.begin_steps()
        feeding.steps.turned.clear()
        await asyncio.wait_for(feeding.steps.turned.wait(), 60)
        place = Partition(TOPIC, 0)
        for order in ("o1", "o2"):
            # The numbers of both are heard before the first.
            messages.clear()
            pending = await feeding.promise(place, event("order.placed", {"order": order}, topic=TOPIC))
            feeding.steps.settle([], pending.batch.commit)
        assert [one.key for one in pending.batch.commit.begun] == ["o2"]
        assert not [said for said in messages if "nextval" in said]
        # Other connections have statements of their own meanwhile, which begin and commit nothing.
        [said] = [said for said in messages if said.startswith("begin; ") or said.endswith("commit")]
        assert "execute move_positions(" in said
        assert "execute add_first(" in said
        assert "copy pointsman.events" in said
        await feeding.steps.close()
    clear()


async def test_a_commit_that_begins_to_undo_says_no_more_once_it_is_there(
    messages: list[str], postgres_world: World
) -> None:
    store = await postgres_world.open()
    run, _ = await promise(store, await started(store), of="1.0", made=1)
    messages.clear()
    _, commit = await promise(store, run, of="1.1", made=1)
    assert [one.made for one in commit.begun] == [b"{}"]
    # What the step has returned was read before.
    assert "copy pointsman.events" in messages[-1]
    assert messages[-1].endswith("commit")


@pytest.mark.parametrize(
    ("place", "name", "most"),
    [
        (connecting, "SAID_BYTES_MAX", 100),
        (connecting, "ROWS_TOGETHER_BYTES_MAX", 1_000),
        (copying, "MESSAGE_BYTES_MAX", 100),
        (copying, "MESSAGE_BYTES_MAX", 700),
    ],
    ids=["long statements", "many rows", "all rows in pieces", "some rows in pieces"],
)
async def test_a_commit_that_is_too_much_for_one_message_is_as_many_as_it_copies_rows(
    messages: list[str], database: Database, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, most: int
) -> None:
    monkeypatch.setattr(place, name, most)
    async with feed(database, _pipeline()) as feeding:
        await feeding.records(_told("case.opened", "a"), _told("case.told", "b" * 800))
        messages.clear()
        await _told_beside_another(feeding, "d" * 800)
        copies = [said.rpartition("; ")[2].split()[:2] for said in messages if not said.startswith("select")]
        tables = [["copy", one] for one in ("pg_temp.run_changes", "pointsman.runs", "pointsman.events")]
        assert copies[-4:] == [*tables, ["commit"]]


async def test_a_commit_of_any_length_about_the_most_of_one_message_is_written_as_a_whole(
    messages: list[str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, _pipeline()) as feeding:
        await feeding.records(_told("case.opened", "a"))
        messages.clear()
        await _told_beside_another(feeding, "b", "another")
        [length] = [len(said) for said in messages if said.startswith("begin; ")]
        numbers_of_messages = set()
        for more in range(-16, 17):
            monkeypatch.setattr(connecting, "SAID_BYTES_MAX", length + more)
            messages.clear()
            await _told_beside_another(feeding, f"{more}", f"other {more}")
            numbers_of_messages.add(len([said for said in messages if not said.startswith("select ")]))
        assert numbers_of_messages == {1, 4}


async def _told_beside_another(feeding: Feeding, note: str, key: str = "other") -> None:
    """One run is told something in the commit in which another one begins; both are written."""
    await feeding.records(
        _told("case.told", note), event("case.opened", {"note": "c"}, key=key, topic="cases")
    )
    [route] = feeding.topics["cases"].routes
    runs = await feeding.store.load_runs(route.pipeline, [SECRET, key])
    contexts = {run.key: orjson.loads(run.context) for run in runs}
    assert contexts == {SECRET: {"note": note}, key: {"note": "c"}}


TABLES = ("one", "two", "three")
MANY_ROWS = [memoryview(b"%d\n" % number * 200_000) for number in (1, 2, 3)]
"""More than a connection takes at once."""
ALL = [[(1, 200_000)], [(2, 200_000)], [(3, 200_000)]]
MADE = [f"create temporary table {table} (n int)" for table in TABLES]
COPIES = [f"copy {table} from stdin" for table in TABLES]


async def _copied(connection: CopyingConnection) -> list[list[tuple[int, int]]]:
    """Which numbers are in each table, and how often."""
    asked = [f"select n, count(*) from {table} group by n" for table in TABLES]
    return [[(n, count) for n, count in await connection.fetch(one)] for one in asked]


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[CopyingConnection]:
    made = await connect(database.engine_dsn)
    try:
        yield made
    finally:
        made.terminate()


@pytest.mark.parametrize("fails", range(7), ids=lambda at: f"before statement {at}")
async def test_where_a_statement_fails_the_rows_that_follow_it_are_passed_over(
    connection: CopyingConnection, fails: int
) -> None:
    said = [*MADE, *COPIES]
    wrong = "; ".join(["begin", *said[:fails], "select 1 / 0", *said[fails:], "commit"])
    for _ in range(2):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.copy_among(wrong, *MANY_ROWS)
        await connection.execute("rollback")
    await connection.copy_among("; ".join(said), *MANY_ROWS)
    assert await _copied(connection) == ALL


class Seen:
    """What is written to a connection past asyncpg, and on to it; ``unsent`` is what it says that it has left."""

    def __init__(self, connection: CopyingConnection, unsent: int = 0) -> None:
        self._transport: asyncio.Transport = connection._transport  # type: ignore[attr-defined]
        self._unsent = unsent
        self.pieces: list[int] = []

    def writelines(self, parts: Sequence[bytes]) -> None:
        self.pieces.append(sum(map(len, parts)))
        self._transport.writelines(parts)

    def write(self, part: bytes) -> None:
        self._transport.write(part)

    def get_write_buffer_size(self) -> int:
        return self._unsent or self._transport.get_write_buffer_size()


async def test_rows_come_in_pieces_since_postgres_says_of_each_that_it_has_come_once_it_has_all_of_it(
    connection: CopyingConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(connection)
    monkeypatch.setattr(connection, "_transport", seen)
    await connection.copy_among("; ".join([*MADE, *COPIES]), *MANY_ROWS)
    monkeypatch.undo()
    assert max(seen.pieces) < 66_000
    assert sum(seen.pieces) - 5 * len(seen.pieces) == sum(map(len, MANY_ROWS[1:]))
    assert await _copied(connection) == ALL


async def test_what_is_not_sent_yet_keeps_rows_from_being_sent_together(
    connection: CopyingConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # asyncpg would wait for room before the first rows, and those of the others would come before them.
    assert connection.fit_together("", MANY_ROWS)
    monkeypatch.setattr(connection, "_transport", Seen(connection, unsent=1))
    assert not connection.fit_together("", MANY_ROWS)
    assert connection.fit_together("", MANY_ROWS[:1])
    monkeypatch.undo()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has this option")
async def test_rows_that_postgres_does_not_read_while_it_waits_for_locks_do_not_break_the_connection(
    connection: CopyingConnection,
) -> None:
    raw = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    milliseconds = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert connecting.TOGETHER_SECONDS_MAX * 1_000 < milliseconds < REBALANCE_SECONDS * 1_000


async def test_rows_follow_their_statements_where_another_one_was_cancelled_a_moment_ago(
    connection: CopyingConnection, owner: Connection
) -> None:
    await connection.execute("; ".join(MADE))
    asking = asyncio.create_task(connection.execute("select pg_sleep(60)"))
    sleeps = "select wait_event = 'PgSleep' from pg_stat_activity where pid = $1"
    # What is cancelled before Postgres has begun with it is not.
    while not await owner.fetchval(sleeps, connection.get_server_pid()):
        pass
    asking.cancel()
    await asyncio.wait([asking])
    async with asyncio.timeout(20):
        await connection.copy_among("; ".join(COPIES), *MANY_ROWS)
    assert await _copied(connection) == ALL


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("ends", ["cancelled", "terminated"])
async def test_who_is_cut_short_in_the_middle_of_rows_leaves_all_or_nothing_and_does_not_hang(
    connection: CopyingConnection, database: Database, ends: str, turns: int
) -> None:
    await connection.execute("; ".join(MADE))
    copying = asyncio.create_task(connection.copy_among("; ".join(["begin", *COPIES, "commit"]), *MANY_ROWS))
    for _ in range(turns):
        await asyncio.sleep(0)
    if ends == "cancelled":
        copying.cancel()
    else:
        connection.terminate()
    async with asyncio.timeout(20):
        await asyncio.wait([copying])
        if ends == "terminated":
            assert copying.exception() is not None
            return
        assert copying.cancelled()
        await connection.execute("rollback")
        # Postgres may have been done before it heard.
        assert await _copied(connection) in ([[], [], []], ALL)


async def test_a_connection_that_cannot_roll_back_is_not_used_again(
    postgres_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await postgres_world.open()
    assert isinstance(store, PostgresStore)
    run = await started(store)
    monkeypatch.setattr(postgres, "ROLLBACK_SECONDS", 0.0)
    with pytest.raises(LostRunsError):
        await promise(store, run._replace(sequence=run.sequence + 1), of="1.0", made=1)
    async with store.connection() as writer:
        assert writer.is_closed()
    with pytest.raises(StoreUnavailableError):
        await promise(store, run, of="1.0", made=1)


async def test_what_is_done_as_soon_as_somebody_waits_is_done_once_and_all_else_is_for_who_waits() -> None:
    heard: list[str] = []

    async def waiting() -> str:
        heard.append("begun")
        await asyncio.sleep(0)
        heard.append("goes on")
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            heard.append("cancelled")
        await asyncio.sleep(0)
        return "ended"

    task = asyncio.create_task(_wait(connecting.begun(waiting(), lambda: heard.append("then"))))
    await asyncio.sleep(0)
    assert heard == ["begun", "then"]
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "ended"
    assert heard == ["begun", "then", "goes on", "cancelled"]


async def _wait(one: Awaitable[str]) -> str:
    return await one


async def test_no_statement_has_data_of_users_which_postgres_would_quote_in_its_log(
    messages: list[str], database: Database
) -> None:
    async with feed(database, _pipeline()) as feeding:
        await feeding.records(_told("case.opened", SECRET))
        await feeding.records(_told("case.told", SECRET * 2))
        [route] = feeding.topics["cases"].routes
        [run] = await feeding.store.load_runs(route.pipeline, [SECRET])
        assert orjson.loads(run.context) == {"note": SECRET * 2}
    assert [said for said in messages if "copy pointsman.events" in said]
    for said in messages:
        assert SECRET not in said
        assert SECRET.encode().hex() not in said
