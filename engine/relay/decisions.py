"""How the relay is, and the decision that it asks a person for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from connectors.kafka.settings import KafkaSettings
from connectors.sink import Progress, Sink, SinkError
from engine import outbox
from engine.errors import RefusedError, ServiceUnreachableError, UsageError
from engine.outbox import digest
from engine.relay.doubts import Books, Doubt, find_doubt
from engine.relay.limits import RelayLimits
from engine.relay.relay import Connect, OpenSink, open_postgres, open_sink
from engine.relay.rows import Connection, read_books
from engine.relay.turn import try_turn
from engine.store import queries

_SQL = queries.load("relay")
_LOOKS = 5
_TURN_TRIES = 100
_TURN_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """How one shard's relay stands."""

    namespace: str
    shard: int
    ticket: int
    """How many rows the outbox ever had."""
    deleted: int
    """Up to which row they were deleted as published."""
    progress: int | None
    """The last row that Kafka says was published."""
    depth: int
    """How many rows wait."""
    store: str
    progress_store: str | None
    healthy: bool
    reason: str
    """Why a person must decide, as a sentence; empty where healthy."""


@dataclass(frozen=True, slots=True)
class RelayAccepted:
    """What was decided."""

    namespace: str
    shard: int
    resumes_after: int
    """The row of the outbox behind which the relay goes on."""
    consequence: str


async def relay_status(
    postgres: str | Connect, kafka: KafkaSettings | OpenSink, namespace: str, shard: int = 0
) -> RelayStatus:
    """How the relay stands; changes nothing and disturbs nobody.

    Raises:
        ServiceUnreachableError, RefusedError: there is no such lane yet, or its books cannot be read.
    """
    async with _opened(postgres) as connection:
        number = await _existing_lane(connection, namespace, shard)
        store = (await read_books(connection, number, 0)).store
        sink = open_sink(kafka, namespace, shard)(store)
        books, progress, doubt = await _examine(connection, number, sink)
    return RelayStatus(
        namespace=namespace,
        shard=shard,
        ticket=books.ticket,
        deleted=books.deleted,
        progress=progress.sequence if progress else None,
        depth=max(0, books.ticket - (progress.sequence if progress else 0)),
        store=books.store,
        progress_store=progress.store if progress else None,
        healthy=doubt is None,
        reason=doubt.sentence(namespace, shard) if doubt else "",
    )


async def relay_accept(
    postgres: str | Connect,
    kafka: KafkaSettings | OpenSink,
    namespace: str,
    shard: int = 0,
    *,
    reason: str,
    who: str,
    after: int | None = None,
) -> RelayAccepted:
    """Let a relay that stopped go on, and keep who decided so and why.

    It goes on behind the last row that this database knows to be published (see ``engine.relay.doubts`` for
    what that means in each case), or behind row ``after``, where the person knows better.

    Raises:
        UsageError: there is nothing to decide, or ``after`` is no row that the outbox could go on behind.
        RefusedError: a relay is at work, and nothing was decided.
        ServiceUnreachableError: Kafka or Postgres; the decision may be noted already, so decide again.
    """
    if not reason.strip():
        raise UsageError("Say why: --reason 'restored from the backup of Monday', for instance.")
    async with _opened(postgres) as connection:
        number = await _existing_lane(connection, namespace, shard)
        store = (await read_books(connection, number, 0)).store
        sink = open_sink(kafka, namespace, shard)(store)
        _, _, doubt = await _examine(connection, number, sink)
        if doubt is None and after is None:
            raise UsageError(
                f"The relay of namespace {namespace}, shard {shard}, has not stopped. "
                "There is nothing to decide."
            )
        await _take_turn(connection, number)
        try:
            await sink.start()
            progress = await sink.progress()
            books = await read_books(connection, number, progress.sequence if progress else 0)
            doubt = find_doubt(books, progress) or doubt
            resume = _resume(books, doubt, after)
            row = (await read_books(connection, number, resume)).row
            await connection.execute(_SQL["add_decision"], number, resume, books.ticket, who, reason)
            await sink.publish([], Progress(books.store, resume, digest(row) if row else b""))
        except SinkError as error:
            raise ServiceUnreachableError(
                f"Kafka did not take the decision: {str(error).rstrip('.')}. Decide again."
            ) from error
        finally:
            await sink.close()
    consequence = doubt.consequence if doubt and after is None else ""
    return RelayAccepted(namespace, shard, resume, consequence)


async def _take_turn(connection: Connection, number: int) -> None:
    """Keep relays from starting while the decision is carried out; those that wait for it hold no turn."""
    limits = RelayLimits()
    for _ in range(_TURN_TRIES):
        if await try_turn(connection, number, limits):
            return
        await asyncio.sleep(_TURN_PAUSE_SECONDS)
    raise RefusedError(
        "An engine's relay is at work all the time, and this decision would only disturb it. "
        "Stop the engines of this namespace first, or look again with: pointsman relay status"
    )


def _resume(books: Books, doubt: Doubt | None, after: int | None) -> int:
    if after is None:
        assert doubt is not None
        return doubt.resume
    if not books.deleted <= after <= books.ticket:
        raise UsageError(
            f"The relay cannot go on after row {after}: the outbox was deleted up to {books.deleted} and "
            f"written up to {books.ticket}."
        )
    return after


async def _examine(
    connection: Connection, number: int, sink: Sink
) -> tuple[Books, Progress | None, Doubt | None]:
    """The two books; looked at again where they do not fit but Kafka's has moved meanwhile."""
    try:
        progress = await sink.look()
        for _ in range(_LOOKS):
            books = await read_books(connection, number, progress.sequence if progress else 0)
            doubt = find_doubt(books, progress)
            if doubt is None:
                break
            newer = await sink.look()
            if newer == progress:
                break
            progress = newer
    except SinkError as error:
        raise ServiceUnreachableError(_with_cure(error)) from error
    return books, progress, doubt


def _with_cure(error: SinkError) -> str:
    said = str(error)
    # Whole sentences say what to do themselves.
    if said.endswith("."):
        return said
    return f"{said}. Is it running there, and are the address and the security settings right?"


async def _existing_lane(connection: Connection, namespace: str, shard: int) -> int:
    number = await outbox.find_lane(connection, namespace, shard)
    if number is None:
        raise RefusedError(
            f"There is no outbox of namespace {namespace}, shard {shard}, in this database: no engine ran "
            "with it. Check --namespace and --postgres."
        )
    return number


@contextlib.asynccontextmanager
async def _opened(postgres: str | Connect) -> AsyncIterator[Connection]:
    connection = await open_postgres(postgres)()
    try:
        yield connection
    finally:
        await connection.close()
