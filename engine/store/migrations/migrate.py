"""Apply the migrations, or refuse a database of another version."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from engine.errors import SchemaError
from engine.store.connecting import connect
from engine.store.queries import load

_LOCK = 0x706F696E74736D61
_ROLES = ("pointsman_engine", "pointsman_reader")
_SQL = load("admission")
LOCK_SECONDS = 5.0
"""So long it is waited for who has the table of migrations to himself, or keeps others from that."""
GONE_SECONDS = 2.0
GONE_LOOKS = 10
"""How long the connection of an engine that was killed may outlive it, and how often that is looked at meanwhile."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema, from the version before it."""

    number: int
    name: str
    sql: str


def _read() -> tuple[Migration, ...]:
    files = sorted(Path(__file__).parent.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    return tuple(Migration(int(file.stem[:4]), file.stem[5:], file.read_text("utf-8")) for file in files)


MIGRATIONS = _read()
SCHEMA_VERSION = MIGRATIONS[-1].number


async def migrate(dsn: str) -> list[Migration]:
    """Bring the database to this version; returns what was applied, oldest first.

    The role of ``dsn`` becomes the owner of the schema ``pointsman``. It must be able to create roles, unless
    ``pointsman_engine`` and ``pointsman_reader`` exist.

    Raises:
        ServiceUnreachableError: nobody answers there, or not as asked.
        SchemaError: the database cannot keep every text, or is newer than this program; engines are at work that need
            it as it is; or a migration fails. Nothing of it is kept.
    """
    connection = await connect(dsn, name="pointsman migrate", for_engine=False)
    try:
        _check_encoding(connection)
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
            await _prepare(connection)
            found = await connection.fetchval("select coalesce(max(number), 0) from pointsman.migrations")
            if found > SCHEMA_VERSION:
                raise SchemaError(_newer(found))
            applied = [migration for migration in MIGRATIONS if migration.number > found]
            if found and applied:
                await _keep_others_out(connection)
                await _refuse_beside_engines(connection)
            await connection.execute("set local search_path = pointsman")
            for migration in applied:
                await _apply(connection, migration)
            return applied
    finally:
        await connection.close()


async def _prepare(connection: asyncpg.Connection[Any]) -> None:
    for role in _ROLES:
        try:
            async with connection.transaction():
                exists = await connection.fetchval("select 1 from pg_roles where rolname = $1", role)
                if not exists:
                    await connection.execute(f"create role {role} nologin")
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            pass  # another database of the same server was migrated at the same moment
        except asyncpg.InsufficientPrivilegeError as error:
            raise SchemaError(
                f"The role {role} does not exist, and this role may not create it: {error}. "
                f"Ask an administrator to run: CREATE ROLE {role} NOLOGIN"
            ) from None
    await connection.execute("create schema if not exists pointsman")
    await connection.execute(
        "create table if not exists pointsman.migrations "
        "(number int primary key, name text not null, at timestamptz not null default now())"
    )
    await connection.execute(f"grant usage on schema pointsman to {', '.join(_ROLES)}")
    await connection.execute(f"grant select on pointsman.migrations to {', '.join(_ROLES)}")


def _check_encoding(connection: asyncpg.Connection[Any]) -> None:
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        raise SchemaError(
            f"The database keeps text as {encoding}, in which most letters of keys and data cannot be written. "
            "Use one that keeps all of them: CREATE DATABASE pointsman ENCODING 'UTF8' TEMPLATE template0"
        )


async def _keep_others_out(connection: asyncpg.Connection[Any]) -> None:
    """Whoever begins from now on waits, and finds the new version, or is told that this goes on."""
    await connection.execute(f"set local lock_timeout = '{LOCK_SECONDS:g}s'")
    try:
        await connection.execute("lock table pointsman.migrations in access exclusive mode")
    except asyncpg.LockNotAvailableError:
        raise SchemaError(
            "Somebody has a lock on the table pointsman.migrations, as a dump has while it goes on. Nothing was "
            "changed. Migrate when that is done."
        ) from None
    await connection.execute("set local lock_timeout = 0")


async def _refuse_beside_engines(connection: asyncpg.Connection[Any]) -> None:
    for _ in range(GONE_LOOKS):
        found = await connection.fetch(_SQL["engines_at_work"])
        if not found:
            return
        await asyncio.sleep(GONE_SECONDS / GONE_LOOKS)
    engines = sum(number for _, number in found)
    raise SchemaError(
        f"{engines} engine{'s are' if engines > 1 else ' is'} at work on this database, of a release that needs its "
        f"schema as it is: {'; '.join(words for words, _ in found)}. Nothing was changed. Stop "
        f"{'them' if engines > 1 else 'it'}, migrate, and start engines of this release."
    )


async def _apply(connection: asyncpg.Connection[Any], migration: Migration) -> None:
    try:
        await connection.execute(migration.sql)
        await connection.execute(
            "insert into pointsman.migrations (number, name) values ($1, $2)",
            migration.number,
            migration.name,
        )
    except asyncpg.PostgresError as error:
        raise SchemaError(
            f"Migration {migration.number} ({migration.name}) failed and nothing of it was kept: {error}"
        ) from error


async def check_schema(connection: asyncpg.Connection[Any]) -> None:
    """Refuse a database whose schema is not exactly this program's, or that cannot keep every text.

    Raises:
        SchemaError: with what to run.
    """
    _check_encoding(connection)
    try:
        async with connection.transaction():
            await connection.execute(f"set local lock_timeout = '{LOCK_SECONDS:g}s'")
            found = await connection.fetchval("select max(number) from pointsman.migrations")
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        found = None
    except asyncpg.LockNotAvailableError:
        raise SchemaError(
            "The database is being migrated just now. Try again when `pointsman migrate` is done."
        ) from None
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaError(
            f"This role may not read the schema pointsman: {error}. "
            "Grant it: GRANT pointsman_engine TO <role> (or pointsman_reader to look only)."
        ) from None
    if found is None:
        raise SchemaError(
            "The database has no Pointsman schema yet. Run: pointsman migrate --postgres ADDRESS"
        )
    if found > SCHEMA_VERSION:
        raise SchemaError(_newer(found))
    if found < SCHEMA_VERSION:
        raise SchemaError(
            f"The database's schema is version {found}, this program needs {SCHEMA_VERSION}. "
            "Stop the engines and run: pointsman migrate --postgres ADDRESS"
        )


def _newer(found: int) -> str:
    return (
        f"The database's schema is version {found}, newer than this program's {SCHEMA_VERSION}. "
        "Install the version of pointsman that migrated it."
    )
