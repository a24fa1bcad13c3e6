"""Postgres: reachable, of a version and schema that fit, entered in the right role, and set to keep what it says."""

from __future__ import annotations

import asyncpg

from engine.admission import CLOCK_SECONDS_MAX, check_role, check_temporary, clocks_apart
from engine.doctor.check import Report
from engine.errors import PointsmanError, SchemaError, ServiceUnreachableError
from engine.store.connecting import Connection, connect, is_encrypted, masked
from engine.store.encryption import asked_for
from engine.store.migrations import SCHEMA_VERSION, check_schema

VERSION_MIN = 14
"""The schema's indexes and functions need it."""
LOOPBACK = ("127.", "::1", "localhost")
MUST_BE_ON = {
    "fsync": "a crash of the machine can lose or damage what was committed",
    "full_page_writes": "a crash of the machine can damage what was written long ago",
}
PROBES = 5


async def examine_postgres(address: str) -> Report:
    """Look at a store as an engine would find it."""
    report = Report("postgres")
    try:
        connection = await connect(address, name="pointsman doctor")
    except ServiceUnreachableError as error:
        report.fail("address", str(error), unreachable=True)
        return report
    except PointsmanError as error:
        report.fail("address", str(error))
        return report
    try:
        report.ok("address", f"{masked(address)} answers.")
        _version(connection, report)
        await _schema_and_role(connection, report)
        await _durability(connection, report)
        await _encryption(connection, address, report)
        await _pooler(connection, report)
        await _clock(connection, report)
    except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError) as error:
        report.fail("connection", f"Postgres went away while it was looked at: {error}.", unreachable=True)
    finally:
        await connection.close()
    return report


def _version(connection: Connection, report: Report) -> None:
    version = connection.get_server_version()
    # Since Postgres 10 the second number counts the corrections; asyncpg has that in the third place.
    shown = f"{version.major}.{version.micro}"
    if version.major < VERSION_MIN:
        report.fail(
            "version",
            f"Postgres {shown} is older than {VERSION_MIN}.",
            "Use a newer one; 18 is what is tested.",
        )
    else:
        report.ok("version", f"Postgres {shown}.")


async def _schema_and_role(connection: Connection, report: Report) -> None:
    try:
        await check_schema(connection)
    except SchemaError as error:
        report.fail("schema", str(error))
        return
    report.ok("schema", f"Version {SCHEMA_VERSION}, which is this program's.")
    try:
        await check_role(connection)
        await check_temporary(connection)
    except PointsmanError as error:
        report.fail("role", str(error))
        return
    user = await connection.fetchval("select current_user::text")
    if await connection.fetchval("select pg_has_role(current_user, 'pointsman_engine', 'usage')"):
        report.ok("role", f"{user} may do what an engine needs, and may not change the log.")
    else:
        report.fail(
            "role",
            f"{user} is no member of pointsman_engine: it may look at most, and run no engine.",
            f'As the owner: GRANT pointsman_engine TO "{user}"',
        )


async def _durability(connection: Connection, report: Report) -> None:
    for name, consequence in MUST_BE_ON.items():
        if await connection.fetchval("select current_setting($1)", name) == "on":
            report.ok(name, "on.")
        else:
            report.fail(
                name, f"off: {consequence}.", f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()"
            )
    # The engine asks for it in each of its sessions; a pooler between may drop what a session asks for.
    level = await connection.fetchval("select current_setting('synchronous_commit')")
    if level in ("on", "remote_write", "remote_apply"):
        report.ok("synchronous_commit", f"{level}, in the engine's sessions.")
    else:
        report.fail(
            "synchronous_commit",
            f"{level}, though the engine asks for on: the last commits are lost in a crash.",
            "Connect without a pooler, or let it pass on the parameters of a session.",
        )
    replicas = await connection.fetchval("select count(*) from pg_stat_replication")
    if replicas and not await connection.fetchval("select current_setting('synchronous_standby_names')"):
        report.warn(
            "replication",
            "The standbys are asynchronous: a failover loses the last commits. Events are read again then, but the "
            "relay stops and asks a person what to do.",
            "Set synchronous_standby_names, so that a commit is on two machines.",
        )


async def _encryption(connection: Connection, address: str, report: Report) -> None:
    row = await connection.fetchrow(
        "select inet_server_addr()::text as address, "
        "(select ssl from pg_stat_ssl where pid = pg_backend_pid()) as encrypted"
    )
    assert row is not None, "a query without a from gives one row"
    near = row["address"] is None or str(row["address"]).startswith(LOOPBACK)
    verifies = asked_for(address).verifies
    if row["encrypted"] or is_encrypted(connection):
        if verifies or near:
            who = "and who answers has shown who it is" if verifies else "and who answers is on this machine"
            report.ok("encryption", f"The connection is encrypted, {who}.")
        else:
            report.warn(
                "encryption",
                "The connection is encrypted, and nobody looks whether it is your Postgres that answers.",
                "Add ?sslmode=verify-full&sslrootcert=FILE.",
            )
    elif not near:
        report.warn(
            "encryption", "The connection is not encrypted.", "Add ?sslmode=verify-full&sslrootcert=FILE."
        )


async def _pooler(connection: Connection, report: Report) -> None:
    """A pooler makes up the number of the server process that it tells its clients."""
    told = connection.get_server_pid()
    real = {await connection.fetchval("select pg_backend_pid()") for _ in range(PROBES)}
    if real == {told}:
        report.ok("pooler", "None is between.")
    elif len(real) > 1:
        report.fail(
            "pooler",
            "A pooler changes the server process between transactions: locks of a session and notifications are lost.",
            "Connect to Postgres itself, or let the pooler work by session (pool_mode = session).",
        )
    else:
        report.warn(
            "pooler",
            "There is a pooler between. By transaction (pool_mode = transaction) it breaks locks and notifications.",
            "Connect to Postgres itself, or see that the pooler works by session.",
        )


async def _clock(connection: Connection, report: Report) -> None:
    if apart := await clocks_apart(connection):
        report.warn("clock", apart, "Let both follow a time server (NTP).")
    else:
        report.ok("clock", f"The database's clock and this machine's are within {CLOCK_SECONDS_MAX:.0f} s.")
