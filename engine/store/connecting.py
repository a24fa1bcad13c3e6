"""Connections to Postgres: how they are made, what they are set to, and what their errors mean."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import struct
import types
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Sequence,
)
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
from asyncpg import exceptions as postgres

from engine.errors import ServiceUnreachableError, UnusableAddressError, UsageError
from engine.store import encryption
from engine.store.contract import (
    LostRunsError,
    RefusedByStoreError,
    StoreError,
    StoreFaultError,
    StoreFullError,
    StoreUnavailableError,
    TakenTwiceError,
)

T = TypeVar("T")

LOCK_TIMEOUT_SECONDS = 15
IDLE_IN_TRANSACTION_SECONDS = 45
"""Longer than a handler may keep the loop busy while a commit is in flight (``handler_seconds_max``): who waits for
its locks meanwhile has them sooner (``engine.store.silence``)."""
COMMAND_TIMEOUT_SECONDS = 30
TOGETHER_SECONDS_MAX = 50
"""For several COPYs in one message, which may wait for locks one after the other."""
TCP_USER_TIMEOUT_SECONDS = 20
"""As long Postgres waits for us. All shorter than the 60 s of a rebalance, so that a hung engine loses its locks before
its partitions."""
TRANSACTION_TIMEOUT_SINCE = 17
"""The first Postgres that has this setting, and takes it."""

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]
else:  # at run time asyncpg's class takes no parameters
    Connection = asyncpg.Connection


SAID_BYTES_MAX = 32 * 1024
"""What a transport takes at any time without waiting for room: half of what it does."""
ROWS_TOGETHER_BYTES_MAX = 4 * 1024 * 1024
"""Rows for several COPYs come with one message up to so many: who rolls back waits until all have passed."""


Rows = memoryview | AsyncIterable[memoryview]
"""Packed, in the form that a COPY takes: at hand as a whole, or in pieces."""
_PIECE_BYTES = 64 * 1024
"""Postgres takes a piece of a COPY once it has all of it, and until then does not say that any of it has come."""
_COPY_DATA = struct.Struct(">ci").pack
_COPY_DONE = b"c\0\0\0\4"


@types.coroutine
def begun(waiting: Coroutine[Any, Any, T], then: Callable[[], None]) -> Generator[Any, Any, T]:
    """Wait for this, and do ``then`` once, in the same turn of the loop, as soon as it waits itself."""
    waited_for = waiting.send(None)
    then()
    while True:
        try:
            heard = yield waited_for
        except BaseException as error:  # noqa: BLE001 - it is for whoever waits
            go_on = partial(waiting.throw, error)
        else:
            go_on = partial(waiting.send, heard)
        try:
            waited_for = go_on()
        except StopIteration as ended:
            return cast(T, ended.value)


class CopyingConnection(Connection):
    """A connection that sends a COPY together with other statements, and hears in between that it is lost."""

    def fit_together(self, statements: str, rows: Sequence[Rows]) -> bool:
        """Whether these may be sent as one message, without waiting for room in between."""
        transport: asyncio.Transport = self._transport  # type: ignore[attr-defined]  # stubs know no such
        whole = [len(one) for one in rows if isinstance(one, memoryview)]
        if len(statements) > SAID_BYTES_MAX or len(whole) < len(rows):
            return False
        if len(whole) <= 1:
            return True
        return sum(whole) <= ROWS_TOGETHER_BYTES_MAX and not transport.get_write_buffer_size()

    async def copy_among(self, statements: str, *rows: Rows) -> str:
        """Do these statements in one message, among them a COPY for each of the ``rows``; returns what the last says.

        Not by ``copy_to_table``, which writes the statement itself: what it sends the statement with takes any.

        Rows for several have to ``fit_together``.
        """
        fit = self.fit_together(statements, rows)
        assert fit or len(rows) == 1, "those that do not fit together are said one after the other"
        seconds = COMMAND_TIMEOUT_SECONDS if len(rows) == 1 else TOGETHER_SECONDS_MAX
        # A statement that was cancelled a moment ago would be waited for behind the first step.
        await self._protocol._wait_for_cancellation(seconds)  # type: ignore[attr-defined]  # noqa: SLF001
        copying: Coroutine[Any, Any, str] = self._copy_in(statements, rows[0], seconds)  # type: ignore[attr-defined]
        if not fit:
            # What is sent in pieces waits for room, and asyncpg does not hear meanwhile that the connection is lost.
            return await self._unless_lost(copying)
        # The first step sends the statements and the first rows; asyncpg knows of no others. Where a statement fails,
        # Postgres passes over the rows that follow it.
        return await begun(copying, partial(self._send_rows, rows[1:]))

    def _send_rows(self, rows: Iterable[Rows]) -> None:
        transport: asyncio.Transport = self._transport  # type: ignore[attr-defined]  # stubs know no such
        for one in rows:
            assert isinstance(one, memoryview), "they fit together"
            for at in range(0, len(one), _PIECE_BYTES):
                piece = one[at : at + _PIECE_BYTES]
                transport.writelines((_COPY_DATA(b"d", len(piece) + 4), piece))
            transport.write(_COPY_DONE)

    async def copy_rows(self, table: str, rows: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> str:
        """Copy rows that asyncpg packs, and sends in pieces, into a table of ours; returns what Postgres says."""
        return await self._unless_lost(
            self.copy_records_to_table(table, schema_name="pointsman", records=rows, columns=list(columns))
        )

    async def _unless_lost(self, copying: Awaitable[str]) -> str:
        """Wait for this, as long as the connection lasts. Raises ConnectionDoesNotExistError, TimeoutError."""
        lost = asyncio.Event()
        heard: Callable[[Any], None] = lambda _: lost.set()  # noqa: E731 - it is taken back below
        self.add_termination_listener(heard)
        tasks = asyncio.ensure_future(copying), asyncio.ensure_future(lost.wait())
        try:
            done, _ = await asyncio.wait(
                tasks, timeout=COMMAND_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if tasks[0] in done:
                return tasks[0].result()
            self.terminate()
            if not done:
                raise TimeoutError(f"Postgres did not take a COPY within {COMMAND_TIMEOUT_SECONDS} s")
            raise postgres.ConnectionDoesNotExistError("connection was closed in the middle of a COPY")
        finally:
            self.remove_termination_listener(heard)
            for task in tasks:
                task.cancel()
            # Whatever it says of a connection that is lost, it is lost.
            await asyncio.gather(*tasks, return_exceptions=True)


CONNECT_SECONDS = 20.0
"""So long a server that takes connections may say nothing, before it counts as one that cannot be reached."""
CLOSE_SECONDS = 2.0
"""For taking leave of Postgres, which may not answer any more."""


async def hang_up(connection: Connection) -> None:
    """Give a connection up, politely where it still answers."""
    with contextlib.suppress(Exception):
        await connection.close(timeout=CLOSE_SECONDS)
    connection.terminate()


PORT_MAX = 65_535

# Of engines alone: who only asks may come by way of a pooler, which lets in nobody who sets what it does not know.
_SETTINGS = {
    # Of a machine that vanished Postgres would hear after two hours, and keep its locks as long.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": f"{TCP_USER_TIMEOUT_SECONDS}s",
    # Whatever a role or a database has been given for people: what is ended in the middle would be tried for ever.
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    "default_transaction_isolation": "read committed",
    "lock_timeout": f"{LOCK_TIMEOUT_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
    "synchronous_commit": "on",
    "jit": "off",
    # Every statement of the engine finds its rows by a key. These keep the planner from reading a whole table
    # when a batch is large and the statistics are old: a plan that was made while a table had no rows yet is kept.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

_AWAY = (
    postgres.PostgresConnectionError,
    postgres.OperatorInterventionError,
    postgres.InsufficientResourcesError,
    postgres.PostgresIOError,
    postgres.InvalidTransactionStateError,
    postgres.IdleInTransactionSessionTimeoutError,
    postgres.ReadOnlySQLTransactionError,
    # Whoever stands between us and Postgres has given us a session that does not know our statements.
    postgres.InvalidSQLStatementNameError,
    postgres.InterfaceError,
    postgres.InternalClientError,
    OSError,
    TimeoutError,
)
_LOST = (
    postgres.DeadlockDetectedError,
    postgres.SerializationError,
    postgres.UniqueViolationError,
    postgres.LockNotAvailableError,
)
_DIGESTS = "_run_digest_key"
"""At the end of the names of what keeps a run from taking an event twice, which each partition of the log has."""
_FAULT = (
    postgres.IntegrityConstraintViolationError,
    postgres.InternalServerError,
    postgres.BadCopyFileFormatError,
    postgres.InvalidBinaryRepresentationError,
)
_REFUSED = (postgres.DataError, postgres.ProgramLimitExceededError, UnicodeError, OverflowError)
"""What depends on the bytes of a record, and on nothing else: only these may make dead letters."""

_PLACE = re.compile(r"(?:\[[^\]]+\](?::(.*))?|/.*|[^:\[/]*(?::(.*))?)", re.DOTALL)
"""A host and its port; a folder of sockets; or neither."""
SESSIONS = ("any", "primary", "standby", "prefer-standby", "read-write", "read-only")

_PASSWORD_FIELD = re.compile(r"((?:^|[\s?&])(?:ssl)?password\s*=)[^&]+", re.IGNORECASE)
"""To the end, but for further fields of a URL: elsewhere a password may have blanks."""


def translate(error: BaseException) -> StoreError | None:
    """What an error of Postgres means for a commit, or None where it means a mistake of ours."""
    if isinstance(error, postgres.UniqueViolationError) and (error.constraint_name or "").endswith(_DIGESTS):
        return TakenTwiceError()
    if isinstance(error, _LOST):
        return LostRunsError(str(error))
    if isinstance(error, postgres.DiskFullError):
        return StoreFullError(str(error.args[0]))
    if isinstance(error, _FAULT):
        # Its details would be the row, with its data.
        return StoreFaultError(f"{type(error).__name__}: {error.args[0]}")
    if _is_of_wrong_type(error):
        return StoreFaultError("a value is not of its column's type")
    if isinstance(error, _REFUSED):
        return RefusedByStoreError(str(error))
    if isinstance(error, _AWAY) or _is_of_closed_transport(error):
        return StoreUnavailableError(f"{type(error).__name__}: {error}")
    return None


def _is_of_wrong_type(error: BaseException) -> bool:
    # asyncpg calls everything that it cannot encode a DataError, and what it is about the cause.
    cause = error.__cause__ if isinstance(error, postgres.DataError) else None
    while cause is not None and not isinstance(cause, TypeError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _is_of_closed_transport(error: BaseException) -> bool:
    # uvloop's way of saying it, before asyncpg has been told that its connection broke.
    return isinstance(error, RuntimeError) and "the handler is closed" in str(error)


async def connect(dsn: str, *, name: str = "pointsman", for_engine: bool = True) -> CopyingConnection:
    """A connection with the engine's settings; ``for_engine=False`` leaves the planner free, for reading.

    Raises:
        UsageError: it is no address, or has a password in it.
        UnusableAddressError: a file of its certificates cannot be used.
        ServiceUnreachableError: nobody answers there, or not as asked; the message has no password.
    """
    check_address(dsn)
    if why := encryption.why_impossible(encryption.asked_for(dsn)):
        raise UnusableAddressError(f"Postgres at {masked(dsn)} is not asked: {why}")
    settings = {"application_name": name} | (_SETTINGS if for_engine else {})
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_SECONDS,
            server_settings=settings,
            command_timeout=COMMAND_TIMEOUT_SECONDS if for_engine else None,
            connection_class=CopyingConnection,
        )
        if for_engine and connection.get_server_version().major >= TRANSACTION_TIMEOUT_SINCE:
            try:
                await connection.execute("set transaction_timeout = 0")
            except BaseException:
                connection.terminate()
                raise
    except asyncpg.ClientConfigurationError as error:
        raise UnusableAddressError(
            f"Postgres at {masked(dsn)} is not asked: {error.args[0]}. Correct the address, or the variables PG..."
        ) from error
    except (
        OSError,
        TimeoutError,
        postgres.PostgresError,
        postgres.InterfaceError,
        postgres.InternalClientError,
    ) as error:
        raise ServiceUnreachableError(_cannot_connect(dsn, error)) from error
    except (ValueError, OverflowError) as error:
        raise UnusableAddressError(
            f"Postgres at {masked(dsn)} is not asked: {error}. Correct the address, or the variables PG..."
        ) from error
    except RuntimeError as error:
        if not _is_of_closed_transport(error):
            raise
        raise ServiceUnreachableError(_cannot_connect(dsn, error)) from error
    # Where it broke in the meantime, its first use will say so.
    with contextlib.suppress(OSError):
        _limit_silence(connection)
    return connection


def refuse_password(dsn: str) -> None:
    """Refuse an address with a password in it: it would show in process lists and logs.

    Raises:
        UsageError: with where passwords go instead.
    """
    if _password_place(dsn) or _PASSWORD_FIELD.search(dsn):
        raise UsageError(
            "The Postgres address has a password in it, which others could read in process lists and logs. "
            "Put it into a passfile (~/.pgpass or ?passfile=...) or into PGPASSWORD. Where it is none: a colon "
            "in a name is written %3A, and an @ in what follows the host %40."
        )


def check_address(dsn: str) -> None:
    """Refuse what is no address of a Postgres, or has a password in it, and variables PG... that cannot be with it.

    Raises:
        UsageError: with what an address looks like.
    """
    refuse_password(dsn)
    looks = "One looks like postgresql://user@host:5432/database."
    if not dsn.startswith(("postgresql://", "postgres://")):
        raise UsageError(f"{dsn!r} is no address of a Postgres. {looks}")
    if flaw := _flaw_of(dsn):
        raise UsageError(f"{dsn!r} is no address of a Postgres: {flaw}. {looks}")
    for port in filter(None, os.environ.get("PGPORT", "").split(",")):
        if not _is_port(port):
            raise UsageError(f"PGPORT has {port!r}; a port is a number from 1 to {PORT_MAX}.")
    if (session := os.environ.get("PGTARGETSESSIONATTRS") or SESSIONS[0]) not in SESSIONS:
        raise UsageError(f"PGTARGETSESSIONATTRS is {session!r}; it can be {', '.join(SESSIONS)}.")


def _flaw_of(dsn: str) -> str | None:
    """What is wrong with the places that an address names, in words."""
    try:
        parts = urlsplit(dsn)
        fields = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError as error:
        return str(error)
    user, at, hosts = parts.netloc.partition("@")
    ports = [port for port in fields.get("port", [""])[-1].split(",") if port]
    for place in ",".join([hosts if at else user, *fields.get("host", [])[-1:]]).split(","):
        found = _PLACE.fullmatch(place)
        if found is None:
            return f"{place!r} is no host with a port"
        ports += [unquote(port) for port in found.groups() if port]
    for port in ports:
        if not _is_port(port):
            return f"the port is {port!r}, which is no number from 1 to {PORT_MAX}"
    for value in fields.get("target_session_attrs", [])[-1:]:
        if value not in SESSIONS:
            return f"target_session_attrs is {value!r}; it can be {', '.join(SESSIONS)}"
    return None


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text) <= PORT_MAX


def masked(dsn: str) -> str:
    """An address fit to be shown."""
    if place := _password_place(dsn):
        dsn = f"{dsn[: place.start]}***{dsn[place.stop :]}"
    return _PASSWORD_FIELD.sub(r"\1***", dsn)


def _password_place(dsn: str) -> slice | None:
    """From the colon behind the user to the last @, whatever letters a password may have; None where it is empty."""
    scheme = re.match(r"\w+://", dsn)
    colon = dsn.find(":", scheme.end() if scheme else 0)
    place = slice(colon + 1, dsn.rfind("@"))
    return place if 0 < place.start < place.stop else None


def _cannot_connect(dsn: str, error: BaseException) -> str:
    reason = str(error) or type(error).__name__
    if isinstance(error, TimeoutError) and not str(error):
        reason = f"it has said nothing for {CONNECT_SECONDS:g} seconds"
    cure = encryption.cure_of(encryption.asked_for(dsn), error)
    if cure is None:
        cure = "Is it running there, and does it let you in?"
        if isinstance(error, postgres.InvalidPasswordError | postgres.InvalidAuthorizationSpecificationError):
            cure = "Check the user's name and the password in your passfile or PGPASSWORD."
        elif isinstance(error, postgres.TooManyConnectionsError):
            cure = (
                "Raise max_connections there, or the limit of the role or the database: an engine keeps five."
            )
        elif isinstance(error, postgres.InvalidCatalogNameError):
            cure = "Create the database, or name another one."
    return f"Postgres at {masked(dsn)} cannot be reached: {reason}. {cure}"


def is_encrypted(connection: Connection) -> bool:
    """Whether this end speaks TLS: a proxy between may do it for a server that does not."""
    transport = getattr(connection, "_transport", None)
    return transport is not None and transport.get_extra_info("ssl_object") is not None


def _limit_silence(connection: Connection) -> None:
    # Without this, a connection whose other end vanished would wait for the kernel's fifteen minutes. Rows count as
    # unheard, too, while Postgres waits for locks and does not read them.
    transport = getattr(connection, "_transport", None)
    raw = transport.get_extra_info("socket") if transport is not None else None
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if raw is not None and option is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.IPPROTO_TCP, option, (TOGETHER_SECONDS_MAX + 5) * 1000)


@contextlib.asynccontextmanager
async def translated(*connections: Connection) -> AsyncIterator[None]:
    """Whatever these raise becomes what it means. Raises StoreError."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        meant = translate(error)
        if not isinstance(error, asyncpg.PostgresError) and any(one.is_closed() for one in connections):
            # Whatever it looks like: asyncpg and uvloop fail in many ways on a connection that broke under them.
            meant = StoreUnavailableError(f"{type(error).__name__}: {error}")
        if meant is None:
            raise
        raise meant from error
