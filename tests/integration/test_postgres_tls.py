"""Postgres over TLS, with client certificates: all who connect obey the address, and errors are sentences."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pwd
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from asyncpg.exceptions import InvalidAuthorizationSpecificationError

from engine.batch.by_itself import OF_STEP
from engine.client import Client
from engine.errors import ServiceUnreachableError, UnusableAddressError
from engine.store.connecting import Connection, connect, is_encrypted
from engine.store.encryption import Encryption, cure_of
from engine.store.queries import load
from engine.watchdog import write_strike
from tests.authority import Authority, Certificate
from tests.cli import pointsman
from tests.integration.test_cli_run import engine_on, pipeline, publish, reader_on, rows
from tests.scratch import scratch_folder
from tests.services import Database, Kafka, TopicFactory
from tests.tls_proxy import TlsProxy, tls_proxy


@dataclasses.dataclass(frozen=True)
class Certificates:
    authority: Authority
    server: Certificate
    elsewhere: Certificate
    """Of the same authority, for another host."""
    client: Certificate
    other: Authority
    stranger: Certificate
    """Of the other one."""


@pytest.fixture(scope="module")
def made() -> Iterator[Certificates]:
    with scratch_folder("tls") as folder:
        authority, other = Authority(folder), Authority(folder, "other")
        yield Certificates(
            authority,
            authority.issue("server"),
            authority.issue("elsewhere", of="DNS:db.example.org"),
            authority.issue("client"),
            other,
            other.issue("stranger"),
        )


def port_of(dsn: str) -> int:
    return urlsplit(dsn).port or 5432


def through(proxy: TlsProxy, dsn: str, asked: str) -> str:
    """The address with the proxy's place, and what is asked for."""
    host = re.sub(r"@[^/]+/", f"@127.0.0.1:{proxy.port}/", dsn, count=1)
    return f"{host}{'&' if '?' in host else '?'}{asked}".rstrip("?&")


def verifying(made: Certificates, client: Certificate | None = None) -> str:
    asked = f"sslmode=verify-full&sslrootcert={made.authority.file}"
    return asked if client is None else f"{asked}&sslcert={client.file}&sslkey={client.key}"


@contextlib.contextmanager
def secured(database: Database, made: Certificates) -> Iterator[tuple[TlsProxy, Database]]:
    """A way to the database for those alone who speak TLS, show a certificate, and look for one."""
    with tls_proxy(port_of(database.engine_dsn), made.server, made.authority.file) as proxy:
        asked = verifying(made, made.client)
        yield (
            proxy,
            Database(
                database.name,
                through(proxy, database.owner_dsn, asked),
                through(proxy, database.engine_dsn, asked),
                through(proxy, database.reader_dsn, asked),
            ),
        )


async def test_who_is_known_on_both_sides_is_let_in_and_hears_of_silence(
    database: Database, made: Certificates
) -> None:
    with secured(database, made) as (proxy, ours):
        connection = await connect(ours.engine_dsn)
        assert is_encrypted(connection)
        assert await connection.fetchval("select length(repeat('x', 3000000))") == 3_000_000
        assert len(await connection.fetchval("select repeat('x', 3000000)")) == 3_000_000
        await connection.close()
    assert (proxy.encrypted, proxy.plain) == (["client"], 0)


async def test_variables_of_libpq_count_where_the_address_says_nothing(
    database: Database, made: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", str(made.authority.file))
    monkeypatch.setenv("PGSSLCERT", str(made.client.file))
    monkeypatch.setenv("PGSSLKEY", str(made.client.key))
    with tls_proxy(port_of(database.engine_dsn), made.server, made.authority.file) as proxy:
        await (await connect(through(proxy, database.engine_dsn, ""))).close()
        assert (proxy.encrypted, proxy.plain) == (["client"], 0)
        with pytest.raises(
            ServiceUnreachableError, match=r"no good certificate of the authority in .*other\.pem"
        ):
            await connect(through(proxy, database.engine_dsn, f"sslrootcert={made.other.file}"))
        made_up = made.authority.file.with_name("nowhere.pem")
        monkeypatch.setenv("PGSSLROOTCERT", str(made_up))
        with pytest.raises(
            UnusableAddressError, match=r"There is no file .*nowhere\.pem, which sslrootcert or PGSSLROOTCERT"
        ):
            await connect(through(proxy, database.engine_dsn, ""))


async def test_whoever_shows_another_certificate_than_is_asked_for_is_not_spoken_to(
    database: Database, made: Certificates
) -> None:
    with tls_proxy(port_of(database.engine_dsn), made.elsewhere) as proxy:
        with pytest.raises(
            ServiceUnreachableError, match=r"for another host\. Use a name that is in it"
        ) as refused:
            await connect(through(proxy, database.engine_dsn, verifying(made)))
        assert refused.value.exit_code == 3
        assert f"127.0.0.1:{proxy.port}" in str(refused.value)
        of_whom = f"sslmode=verify-ca&sslrootcert={made.authority.file}"
        await (await connect(through(proxy, database.engine_dsn, of_whom))).close()
        for mode in ("require", "verify-ca", "verify-full"):
            with pytest.raises(ServiceUnreachableError, match="no good certificate of the authority"):
                await connect(
                    through(proxy, database.engine_dsn, f"sslmode={mode}&sslrootcert={made.other.file}")
                )
        assert proxy.plain == 0


async def test_who_shows_no_certificate_or_another_authoritys_is_told_what_may_be_missing(
    database: Database, made: Certificates
) -> None:
    with tls_proxy(port_of(database.engine_dsn), made.server, made.authority.file) as proxy:
        with pytest.raises(
            ServiceUnreachableError, match="If it asks for a certificate of ours: sslcert and sslkey"
        ):
            await connect(through(proxy, database.engine_dsn, verifying(made)))
        with pytest.raises(ServiceUnreachableError, match=r"may not take our certificate .*stranger\.pem"):
            await connect(through(proxy, database.engine_dsn, verifying(made, made.stranger)))
    assert (proxy.encrypted, proxy.plain) == ([], 0)


async def test_files_that_cannot_be_used_are_named_before_anybody_is_asked(
    database: Database, made: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    open_key, junk = tmp_path / "open.key", tmp_path / "junk.pem"
    open_key.write_bytes(made.client.key.read_bytes())
    open_key.chmod(0o640)
    junk.write_text("no certificate\n")
    client, nowhere = made.client, tmp_path / "nowhere"
    sentences = {
        "sslmode=verify-full": "needs the certificate of the authority that is trusted",
        f"sslmode=verify-ca&sslrootcert={nowhere}": f"There is no file {nowhere}, which sslrootcert",
        f"sslmode=require&sslrootcert={tmp_path}": "cannot be read: Is a directory. Let this user read it",
        f"sslmode=require&sslrootcert={junk}": f"There is no certificate in {junk} .*It has to be PEM",
        f"{verifying(made)}&sslcert={nowhere}&sslkey={client.key}": f"There is no file {nowhere}, which sslcert",
        f"{verifying(made)}&sslcert={client.file}&sslkey={nowhere}": f"There is no file {nowhere}, which sslkey",
        f"{verifying(made)}&sslcert={client.file}&sslkey={open_key}": f"Others may read the key .*chmod 600 {open_key}",
        f"{verifying(made)}&sslcert={client.file}&sslkey={made.stranger.key}": "key values mismatch",
        "sslmode=perhaps": "must be one of: disable, allow, prefer, require, verify-ca, verify-full",
    }
    with tls_proxy(port_of(database.engine_dsn), made.server) as proxy:
        for asked, said in sentences.items():
            with pytest.raises(UnusableAddressError, match=said) as refused:
                await connect(through(proxy, database.engine_dsn, asked))
            assert refused.value.exit_code == 2
        assert (proxy.encrypted, proxy.plain) == ([], 0)


def test_commands_end_with_the_sentence_and_its_exit_code(
    database: Database, made: Certificates, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    commands = [("runs",), ("verify",), ("migrate",), ("doctor",)]
    with tls_proxy(port_of(database.engine_dsn), made.elsewhere) as proxy:
        refused = through(proxy, database.engine_dsn, verifying(made))
        for command in commands:
            done = pointsman(*command, on={"POSTGRES": refused, "KAFKA": kafka.bootstrap})
            assert (done.code, "for another host" in done.out + done.err) == (3, True), (command, done)
            assert "Traceback" not in done.err
        lost = through(proxy, database.engine_dsn, "sslmode=verify-full&sslrootcert=/nowhere/ca.pem")
        for command in commands[:-1]:
            done = pointsman(*command, on={"POSTGRES": lost, "KAFKA": kafka.bootstrap})
            assert (done.code, "There is no file /nowhere/ca.pem" in done.err) == (2, True), (command, done)
        assert (proxy.encrypted, proxy.plain) == ([], 0)


async def test_an_engine_that_is_refused_at_its_start_ends_and_says_why(
    database: Database, made: Certificates, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    file = pipeline(tmp_path, await topic("orders"))
    with tls_proxy(port_of(database.engine_dsn), made.server) as proxy:
        address = through(proxy, database.engine_dsn, f"sslmode=verify-full&sslrootcert={made.other.file}")
        done = pointsman("run", file, on={**engine_on(database, kafka), "POSTGRES": address})
    assert (done.code, "no good certificate of the authority" in done.err) == (3, True), done
    assert "Traceback" not in done.err


async def test_the_whole_road_goes_over_tls_and_nobody_takes_another(
    database: Database,
    empty_database: str,
    kafka: Kafka,
    topic: TopicFactory,
    made: Certificates,
    tmp_path: Path,
) -> None:
    name = await topic("orders", partitions=2)
    file = pipeline(tmp_path, name)
    publish(kafka, name, rows("o-1", "o-2") + '{"type": "order.paid", "order_id": "o-9", "amount": 1}\n')
    with secured(database, made) as (proxy, ours):
        migrated = pointsman(
            "migrate", on={"POSTGRES": through(proxy, empty_database, verifying(made, made.client))}
        )
        assert migrated.code == 0, migrated.err
        done = pointsman("run", file, "--until-idle", on=engine_on(ours, kafka))
        assert done.code == 0, done.err
        found = pointsman("runs", "--json", on=reader_on(ours)).json
        assert {(one["key"], *one["configuration"]) for one in found} == {("o-1", "paid"), ("o-2", "paid")}
        for command in (
            ("verify",),
            ("history", "order", "o-1"),
            ("dead-letters", "list"),
            ("relay", "status"),
            ("doctor", file),
        ):
            asked = pointsman(*command, on=engine_on(ours, kafka))
            assert asked.code == 0, (command, asked)
        sent = pointsman(
            *("publish", name, "-", "--key", "order_id"), input=rows("o-3"), on=engine_on(ours, kafka)
        )
        assert sent.code == 0, sent.err
        async with Client(ours.reader_dsn, who="a test", namespace=database.name) as client:
            assert (await client.show("order", "o-1")).key == "o-1"
    assert proxy.plain == 0
    assert set(proxy.encrypted) == {"client"}
    assert len(proxy.encrypted) > 10


async def test_the_watchdog_writes_its_strike_over_tls(
    database: Database, engine: Connection, made: Certificates
) -> None:
    number = await engine.fetchval(
        "insert into pointsman.positions (namespace, consumer_group, cluster, topic, partition, position) "
        "values ('n', 'g', 'c', 't', 0, 0) returning id"
    )
    with secured(database, made) as (proxy, ours):
        spec = {"path": [*sys.path], "postgres": ours.engine_dsn, "of_step": OF_STEP}
        spec["sql"] = load("store")["add_strike"]
        strike = await asyncio.to_thread(write_strike, spec, (number, 99, 1, 0), "a handler")
    assert (strike.number, strike.lost) == (1, "")
    assert (proxy.encrypted, proxy.plain) == (["client"], 0)


async def test_words_of_postgres_about_certificates_lead_to_the_setting() -> None:
    asked = Encryption("verify-full", Path("ca.pem"), Path("me.pem"), Path("me.key"))
    for said, cure in {
        "connection requires a valid client certificate": "Show one: sslcert and sslkey, or PGSSLCERT",
        'certificate authentication failed for user "me"': "The common name in me.pem must be the user's name",
        'no pg_hba.conf entry for host "10.0.0.7", user "me", no encryption': "It may let you in over TLS",
    }.items():
        assert str(cure_of(asked, InvalidAuthorizationSpecificationError(said))).startswith(cure)
    assert cure_of(asked, InvalidAuthorizationSpecificationError("who?")) is None


async def test_nobody_needs_a_home_to_connect(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    await (await connect(database.engine_dsn)).close()
    with pytest.raises(UnusableAddressError, match="needs the certificate of the authority"):
        await connect(f"{database.engine_dsn}{'&' if '?' in database.engine_dsn else '?'}sslmode=verify-full")
