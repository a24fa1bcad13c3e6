"""Connections to a real Postgres: what they are set to, several hosts, and who is not let in."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from connectors.kafka.membership import REBALANCE_SECONDS
from engine.errors import ServiceUnreachableError
from engine.store.connecting import connect
from tests.cli import pointsman
from tests.services import Database

NOBODY_LISTENS = "127.0.0.1:1"


async def test_a_server_that_says_nothing_is_not_waited_for_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.store.connecting.CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"postgresql://pointsman@127.0.0.1:{silent.getsockname()[1]}/pointsman"
        with pytest.raises(
            ServiceUnreachableError, match=r"cannot be reached: it has said nothing for 0\.2 seconds"
        ):
            await asyncio.wait_for(connect(address), 10)


async def test_an_engine_that_hangs_loses_its_locks_before_its_partitions(database: Database) -> None:
    connection = await connect(database.engine_dsn)
    try:
        for setting in ("lock_timeout", "idle_in_transaction_session_timeout"):
            seconds = await connection.fetchval(
                "select extract(epoch from current_setting($1)::interval)", setting
            )
            assert 0 < seconds < REBALANCE_SECONDS, setting
        assert await connection.fetchval("show synchronous_commit") == "on"
        raw = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            silent = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert 0 < silent < REBALANCE_SECONDS * 1000
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("setting", "of_people", "of_engines"),
    [
        ("statement_timeout", "1s", "0"),
        ("idle_session_timeout", "1s", "0"),
        ("transaction_timeout", "1s", "0"),
        ("default_transaction_isolation", "serializable", "read committed"),
    ],
)
async def test_what_a_database_bounds_people_by_ends_nothing_of_an_engine(
    database: Database, setting: str, of_people: str, of_engines: str
) -> None:
    owner = await asyncpg.connect(database.owner_dsn)
    try:
        if not await owner.fetchval("select 1 from pg_settings where name = $1", setting):
            pytest.skip(f"this Postgres has no {setting}")
        await owner.execute(f"alter database {database.name} set {setting} = '{of_people}'")
    finally:
        await owner.close()
    for for_engine, told in ((True, of_engines), (False, of_people)):
        connection = await connect(database.engine_dsn, for_engine=for_engine)
        assert await connection.fetchval(f"show {setting}") == told
        await connection.close()


async def test_postgres_hears_soon_of_a_machine_that_is_gone(database: Database) -> None:
    connection = await connect(database.engine_dsn)
    try:
        idle, interval, count = [
            int(
                await connection.fetchval(
                    f"select setting from pg_settings where name = 'tcp_keepalives_{name}'"
                )
            )
            for name in ("idle", "interval", "count")
        ]
        assert 0 < idle + interval * count < REBALANCE_SECONDS
        assert await connection.fetchval(
            "select setting::int from pg_settings where name = 'tcp_user_timeout'"
        )
    finally:
        await connection.close()


async def test_of_several_hosts_the_one_is_taken_that_is_as_asked_for(database: Database) -> None:
    several = database.engine_dsn.replace("@", f"@{NOBODY_LISTENS},", 1)
    more = "&" if "?" in several else "?"
    connection = await connect(f"{several}{more}target_session_attrs=read-write")
    assert await connection.fetchval("select current_database()") == database.name
    await connection.close()
    with pytest.raises(ServiceUnreachableError, match="cannot be reached"):
        await connect(f"{several}{more}target_session_attrs=standby")


async def test_a_postgres_without_a_place_for_one_more_says_what_there_is_to_do(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise asyncpg.TooManyConnectionsError("sorry, too many clients already")

    monkeypatch.setattr(asyncpg, "connect", full)
    with pytest.raises(
        ServiceUnreachableError, match=r"too many clients already\. Raise max_connections there"
    ):
        await connect(database.engine_dsn)


async def test_a_postgres_that_breaks_away_while_it_lets_somebody_in_cannot_be_reached(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise asyncpg.InternalClientError("got result for unknown protocol state 3")

    monkeypatch.setattr(asyncpg, "connect", broken)
    with pytest.raises(ServiceUnreachableError, match="cannot be reached: got result for unknown"):
        await connect(database.engine_dsn)


async def test_who_asks_for_encryption_is_not_let_in_without(database: Database) -> None:
    more = "&" if "?" in database.engine_dsn else "?"
    plain = await connect(database.engine_dsn)
    try:
        if await plain.fetchval("show ssl") == "on":
            pytest.skip("this Postgres encrypts")
    finally:
        await plain.close()
    with pytest.raises(
        ServiceUnreachableError, match="It does not speak TLS, and sslmode=require asks for it"
    ):
        await connect(f"{database.engine_dsn}{more}sslmode=require")


@pytest.fixture
def wrong(database: Database, tmp_path: Path) -> str:
    """The engine's address with a passfile that has another password."""
    passfile = tmp_path / "passfile"
    passfile.touch(mode=0o600)
    passfile.write_text("*:*:*:*:hunter2\n")
    return re.sub(r"passfile=[^&]+", f"passfile={quote(str(passfile))}", database.engine_dsn)


async def test_who_has_a_wrong_password_or_names_no_database_is_told_what_to_look_at(
    database: Database, wrong: str
) -> None:
    with pytest.raises(
        ServiceUnreachableError, match=r"the password in your passfile or PGPASSWORD"
    ) as refused:
        await connect(wrong)
    assert "hunter2" not in str(refused.value)
    nowhere = database.engine_dsn.replace(f"/{database.name}", "/nowhere")
    with pytest.raises(ServiceUnreachableError, match=r"Create the database, or name another one"):
        await connect(nowhere)


def test_a_command_that_is_not_let_in_ends_with_3_and_names_the_service(wrong: str, tmp_path: Path) -> None:
    pipeline = tmp_path / "flow.py"
    pipeline.write_text(
        "from statemachines import Context, Event, Pipeline\n\n\n"
        "class Came(Event, type='came', key='who'):\n    who: str\n\n\n"
        "class Visit(Context):\n    pass\n\n\n"
        "def begin(event: Came) -> Visit:\n    return Visit()\n\n\n"
        "flow = Pipeline('visit', Visit, topics=['visits'])\n"
        "flow.state('there', initial=True)\nflow.start(Came, begin)\n"
    )
    for command in (("runs",), ("verify",), ("migrate",), ("prune", "--older-than", "5"), ("run", pipeline)):
        done = pointsman(*command, on={"POSTGRES": wrong, "KAFKA": NOBODY_LISTENS})
        told = done.err.splitlines()[-1]
        assert (done.code, told.startswith(("Postgres at ", "Kafka at "))) == (3, True), (command, done)
        assert "hunter2" not in done.err


async def test_who_only_asks_sets_nothing_that_a_pooler_may_not_know(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []

    async def note(*_address: Any, server_settings: dict[str, str], **_how: Any) -> None:
        given.append(server_settings)
        raise OSError

    monkeypatch.setattr(asyncpg, "connect", note)
    with pytest.raises(ServiceUnreachableError):
        await connect(database.engine_dsn, for_engine=False)
    assert [set(one) for one in given] == [{"application_name"}]
