"""The store on Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from connectors.source import Partition
from engine import channels, outbox
from engine.log import Kind
from engine.store.connecting import Connection, CopyingConnection, connect, hang_up, translated
from engine.store.contract import TOKENS_FORGOTTEN_MAX, TOKENS_KEPT
from engine.store.executing import Executions
from engine.store.literals import numbers
from engine.store.queries import columns_of, load
from engine.store.script import FREEZE, prepare
from engine.store.silence import Speaking, ending_silent_blockers
from engine.store.values import (
    Applied,
    Command,
    Commit,
    DeferredRow,
    DueRun,
    Hold,
    Operation,
    Origin,
    Pause,
    Position,
    StoredDeadLetter,
    Token,
    WaitingEvent,
)
from engine.store.writing import Writing
from statemachines.run import Run

log = logging.getLogger("pointsman.engine")

_SQL = load("store")
_LIMITS = load("limits")
RUN_IDS_IN_BLOCK = 4096
ROLLBACK_SECONDS = 5.0
_DUE_RUN = 2
"""Where the run begins in a row of ``due_runs``, which says before whose it is, and when it is to wake."""
_DUE_KNOWN = _DUE_RUN + Run._fields.index("sequence") + 1
"""So many columns of it are there of a large run, too."""
_DUE_CONTEXT = _DUE_RUN + Run._fields.index("context")
_new = tuple.__new__


class PostgresStore(Executions):
    """Four connections for one engine; the contract is ``engine.store.contract.Store``.

    One writes, one reads what batches need, one looks beside both for what has fallen due, and one only says that the
    engine is there, however long the others take.

    Any failure of a connection is final for the object: drop it, open another, and take the positions again, which
    finds out what became of a commit in flight.
    """

    def __init__(
        self,
        connections: tuple[CopyingConnection, Connection, Connection, Connection],
        namespace: str,
        group: str,
        cluster: str,
        lane: int,
    ) -> None:
        self._writer, self._reader, self._looker, self._speaker = connections
        # One at a time looks for what has fallen due, or begins steps.
        self._looking = asyncio.Lock()
        Executions.__init__(self, self._looker, self._looking, self._speaker, namespace)
        self._namespace = namespace
        self._scope = (namespace, group, cluster)
        self._lane = lane
        self._writing = Writing(self._writer, namespace, lane)
        self._speaking = Speaking(self._writer)
        self._dsn = ""
        self._in_transaction = False
        self._origins: dict[int, Origin] = {}
        self._definitions: Sequence[int] = ()
        """Those for which ``ask_to_release`` was called."""
        self._has_more_to_forget = False
        """Whether ``keep_up`` is called again at once."""

    @classmethod
    async def open(cls, dsn: str, *, namespace: str, group: str, cluster: str) -> PostgresStore:
        """Connect. The schema must have been checked."""
        opened: list[CopyingConnection] = []
        try:
            for what in ("writing", "reading", "looking", "speaking"):
                # One by one, so that those before are closed where one fails.
                opened.append(await connect(dsn, name=f"pointsman engine, {what}"))  # noqa: PERF401
            writer, reader, looker, speaker = opened
            async with translated(writer):
                lane = await outbox.lane_for(writer, namespace, 0)
                await _ensure_partitions(writer)
                await prepare(writer)
        except BaseException:
            for connection in opened:
                connection.terminate()
            raise
        store = cls((writer, reader, looker, speaker), namespace, group, cluster, lane)
        store._dsn = dsn
        return store

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """The writing connection, for what holds as long as it lasts."""
        async with self._translated():
            yield self._writer

    def _translated(self) -> contextlib.AbstractAsyncContextManager[None]:
        return translated(self._writer, self._reader)

    @property
    def lane(self) -> int:
        """The lane of the outbox that this engine writes to."""
        return self._lane

    async def close(self) -> None:
        """Close the connections, politely if they still answer."""
        for connection in (self._writer, self._reader, self._looker, self._speaker):
            await hang_up(connection)
        await self._speaking.end()

    async def register_pipeline(self, name: str) -> int:
        async with self._translated():
            return int(await self._register(_SQL["register_pipeline"], self._namespace, name))

    async def register_definition(
        self, pipeline: int, version: int, hash: bytes, code: bytes, structure: bytes
    ) -> int:
        async with self._translated():
            return int(
                await self._register(_SQL["register_definition"], pipeline, version, hash, code, structure)
            )

    async def _register(self, sql: str, *values: Any) -> Any:
        # An engine that registers the same at this moment makes ours find nothing: it did not make the row, and its
        # snapshot is older than the other's. The next statement sees it.
        number = await self._writer.fetchval(sql, *values)
        return number if number is not None else await self._writer.fetchval(sql, *values)

    async def definitions_of(self, pipeline: int) -> list[tuple[int, int, bytes, bytes]]:
        """(id, version, hash, code) of all definitions of a pipeline, oldest first."""
        async with self._translated():
            return [tuple(row) for row in await self._reader.fetch(_SQL["definitions_of"], pipeline)]

    async def keyed_structures_of(self, pipeline: int) -> list[bytes]:
        """The structures of all definitions of a pipeline that name business keys."""
        async with self._translated():
            return [
                row["structure"] for row in await self._reader.fetch(_SQL["keyed_structures_of"], pipeline)
            ]

    async def tell_version(self, pipeline: int, version: int) -> None:
        """Have other engines hear that this version is registered by now."""
        async with self._translated():
            await self._writer.execute("select pg_notify($1, $2)", channels.VERSIONS, f"{pipeline} {version}")

    async def hear_of_versions(self, heard: Callable[[int, int], None]) -> None:
        """Call ``heard`` with the number of a pipeline and a version whenever one is registered that was not known."""
        async with self._translated():
            await self._reader.add_listener(
                channels.VERSIONS, lambda *told: heard(*map(int, str(told[-1]).split()))
            )

    async def known_positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        wanted = set(partitions)
        topics = sorted({partition.topic for partition in wanted})
        async with self._translated():
            rows = await self._reader.fetch(_SQL["known_positions"], *self._scope, topics)
        found = {Partition(topic, number): position for topic, number, position in rows}
        return {partition: position for partition, position in found.items() if partition in wanted}

    async def add_positions(self, positions: Mapping[Partition, int]) -> None:
        columns = ([p.topic for p in positions], [p.number for p in positions], list(positions.values()))
        async with self._translated():
            await self._writer.execute(_SQL["add_positions"], *self._scope, *columns)

    async def take_positions(self, partitions: Iterable[Partition]) -> list[Position]:
        wanted = sorted(partitions)
        columns = ([p.topic for p in wanted], [p.number for p in wanted])
        async with self._translated(), ending_silent_blockers(self._writer, self._dsn):
            rows = await self._writer.fetch(_SQL["take_positions"], *self._scope, *columns)
        return [
            Position(number, Partition(topic, partition), position, epoch, topic_id)
            for number, topic, partition, position, epoch, topic_id in rows
        ]

    async def note_topic_ids(self, noted: Iterable[tuple[int, int, str]]) -> set[int]:
        async with self._translated():
            rows = await self._reader.fetch(_SQL["note_topic_ids"], *columns_of(noted))
        return {number for (number,) in rows}

    async def run_ids(self) -> range:
        async with self._translated():
            first = int(await self._reader.fetchval("select pointsman.allocate_run_ids()"))
        return range(first, first + RUN_IDS_IN_BLOCK)

    async def load_runs(self, pipeline: int, keys: Sequence[str]) -> list[Run]:
        async with self._translated():
            rows = await self._reader.fetch(_SQL["load_runs"], pipeline, keys)
        return [Run(*row) for row in rows]

    async def seen(
        self, asked: Sequence[tuple[int, int]], ids: Sequence[tuple[int, int]] = ()
    ) -> set[tuple[int, int]]:
        columns = [*(columns_of(asked) or ([], [])), *(columns_of(ids) or ([], []))]
        async with self._translated():
            return {(run, digest) for run, digest in await self._reader.fetch(_SQL["seen_digests"], *columns)}

    async def seen_by_generations(
        self, asked: Sequence[tuple[int, str, int]], ids: Sequence[tuple[int, str, int]] = ()
    ) -> set[tuple[int, str, int]]:
        columns = [*(columns_of(asked) or ([], [], [])), *(columns_of(ids) or ([], [], []))]
        async with self._translated():
            rows = await self._reader.fetch(_SQL["seen_by_generations"], *columns)
        return {(pipeline, key, digest) for pipeline, key, digest in rows}

    async def deferred_events(self, runs: Sequence[int]) -> list[DeferredRow]:
        async with self._translated():
            rows = await self._reader.fetch(_SQL["deferred_events"], runs)
        return [DeferredRow(run, WaitingEvent(*event), effects) for run, *event, effects in rows]

    async def due_runs(
        self,
        homes: Sequence[int],
        until: Mapping[int, datetime],
        definitions: Sequence[int],
        limit: int,
        but: Collection[int] = (),
        each: int | None = None,
    ) -> list[DueRun]:
        asked = (homes, list(until), list(until.values()), definitions, limit, numbers(but), each or limit)
        async with self._looking, translated(self._looker):
            rows = await self._looker.fetch(_SQL["due_runs"], *asked)
        return [_due_run(row) for row in rows]

    async def applied(self, topics: Iterable[str]) -> dict[Partition, Applied]:
        async with self._looking, translated(self._looker):
            rows = await self._looker.fetch(_SQL["applied_positions"], *self._scope, list(topics))
        return {Partition(topic, number): Applied(*how_far) for topic, number, *how_far in rows}

    async def has_executions(self, pipelines: Sequence[int], definitions: Sequence[int]) -> bool:
        async with self._translated():
            return bool(await self._reader.fetchval(_SQL["has_executions"], pipelines, definitions))

    async def find_tokens(self, tokens: Sequence[str]) -> dict[str, Token]:
        async with self._translated():
            rows = await self._reader.fetch(_SQL["find_tokens"], self._namespace, tokens)
        return {row["token"]: Token(*row) for row in rows}

    async def waiting_digests(self, runs: Sequence[int]) -> set[tuple[int, int]]:
        async with self._translated():
            rows = await self._reader.fetch(_SQL["waiting_digests"], runs)
        return {(run, digest) for run, digest in rows}

    async def waiting_events(self, run: int, limit: int, bytes_max: int) -> list[WaitingEvent]:
        async with self._translated():
            rows = await self._reader.fetch(_SQL["waiting_events"], run, limit, bytes_max)
        return [WaitingEvent(*row) for row in rows]

    async def strikes(self, positions: Sequence[int]) -> dict[tuple[int, int], tuple[int, str]]:
        async with self._translated():
            rows = await self._reader.fetch(_SQL["strikes_of"], positions)
        return {(position, offset): (strikes, handler) for position, offset, strikes, handler in rows}

    async def read_inbox(
        self, pipelines: Sequence[int], limit: int, homes: Sequence[int] = (), unheard_of: Sequence[int] = ()
    ) -> list[Command]:
        _, group, _ = self._scope
        async with self._translated():
            rows = await self._reader.fetch(
                _SQL["read_inbox"], self._namespace, pipelines, limit, group, homes, unheard_of
            )
        return [Command(*row) for row in rows]

    async def pauses(self, pipelines: Sequence[int]) -> list[Pause]:
        async with self._translated():
            rows = await self._reader.fetch(_SQL["pauses"], pipelines)
        return [Pause(*row) for row in rows]

    async def holds_of(self, held: Sequence[tuple[int, int]]) -> dict[int, Hold]:
        async with self._translated():
            rows = await self._reader.fetch(_SQL["holds_of"], *(columns_of(held) or ([], [])))
        return {run: Hold(*columns) for run, *columns in rows}

    async def cancellation_of(self, run: int) -> Hold | None:
        async with self._translated():
            row = await self._reader.fetchrow(_SQL["cancellation_of"], run, int(Kind.CANCELLED))
        return None if row is None else Hold(*row)

    async def completion_of(self, run: int, begins: str) -> Operation | None:
        async with self._translated():
            row = await self._reader.fetchrow(_SQL["completion_of"], run, begins)
        return None if row is None else Operation(*row)

    async def load_dead_letter(self, number: int) -> StoredDeadLetter | None:
        async with self._translated():
            row = await self._reader.fetchrow(_SQL["load_dead_letter"], number)
        return None if row is None else StoredDeadLetter(*row)

    async def commands_left(self, numbers: Sequence[int]) -> set[int]:
        """Which of these commands are still in the inbox."""
        async with self._translated():
            return {number for (number,) in await self._reader.fetch(_SQL["commands_left"], numbers)}

    async def runs_by_id(self, numbers: Sequence[int]) -> list[Run]:
        """Runs by their numbers."""
        async with self._translated():
            rows = await self._reader.fetch(_SQL["runs_by_id"], numbers)
        return [Run(*row) for row in rows]

    async def run_by_id(self, number: int) -> Run | None:
        """A run by its number."""
        return next(iter(await self.runs_by_id([number])), None)

    async def origin_of(self, position: int | None) -> Origin:
        if not position:
            return Origin("", "", 0)
        if position not in self._origins:
            async with self._translated():
                row = await self._reader.fetchrow(_SQL["origin_of"], position)
            assert row is not None, f"there is no position {position}"
            self._origins[position] = Origin(*row)
        return self._origins[position]

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call ``heard`` whenever Postgres notifies on a channel."""
        async with self._translated():
            await self._reader.add_listener(channel, lambda *_: heard())

    async def keep_up(self, now: datetime) -> bool:
        """Make the log's partitions of the coming months, and forget what is worth nothing any more.

        What waits for a definition that is loaded here is asked to go on: an engine without it, beside this one, may
        have had it wait since, or have taken up for nothing what asked it to go on.
        """
        if self._definitions and not self._has_more_to_forget:
            await self.ask_to_release(self._definitions)
        async with self._translated():
            await _ensure_partitions(self._reader)
            # Nobody else can: else the oldest transaction that Postgres must tell apart were that of our first commit.
            await self._writer.execute(FREEZE)
            await self._reader.execute(_LIMITS["forget_rates"])
            over = self._namespace, now - TOKENS_KEPT, TOKENS_FORGOTTEN_MAX
            forgotten = await self._reader.execute(_SQL["forget_tokens"], *over)
        self._has_more_to_forget = forgotten == f"DELETE {TOKENS_FORGOTTEN_MAX}"
        return self._has_more_to_forget

    async def ask_to_release(self, definitions: Sequence[int]) -> None:
        """Put a command into the inbox for each run that is held for want of one of these definitions, but where it is.

        One that was being drained when it lost its definition is held for it, too; where it did not, the command finds
        that it has gone on, or goes on with it.
        """
        self._definitions = definitions
        async with self._translated():
            await self._writer.execute(
                _SQL["release_missing_definitions"],
                self._namespace,
                definitions,
                [int(Kind.WAITED), int(Kind.DRAINING)],
            )

    async def lock(self, positions: Sequence[int], runs: Sequence[int]) -> None:
        """Begin a transaction that holds these rows, for the next ``commit`` to go on in."""
        async with self._translated(), ending_silent_blockers(self._writer, self._dsn):
            await self._writer.execute("begin")
            self._in_transaction = True
            try:
                await self._writer.execute(
                    "select id from pointsman.positions where id = any ($1::int[]) order by id for update",
                    positions,
                )
                await self._writer.execute(_SQL["lock_runs"], runs)
            except BaseException:
                with contextlib.suppress(Exception):
                    await self.unlock()
                raise
            # What is committed then has yet to be computed.
            self._speaking.begin()

    async def unlock(self) -> None:
        """Give up what ``lock`` began."""
        if self._in_transaction:
            self._in_transaction = False
            await self._speaking.end()
            async with self._translated():
                await self._writer.execute("rollback")

    async def commit(self, commit: Commit) -> int | None:
        """Make it durable; returns the ticket of what it publishes, if it publishes.

        Raises:
            LostPositionsError, LostRunsError, RefusedByStoreError: nothing was committed.
            StoreUnavailableError: it is not known.
        """
        writer = self._writer
        async with self._translated(), ending_silent_blockers(writer, self._dsn):
            try:
                begun, self._in_transaction = self._in_transaction, False
                await self._speaking.end()
                return await self._writing.commit(commit, begun=begun)
            except BaseException:
                # A connection that broke or was cancelled in the middle cannot roll back; the server does it then.
                try:
                    await writer.execute("rollback", timeout=ROLLBACK_SECONDS)
                except Exception:  # noqa: BLE001 - whoever uses it next hears that it is lost
                    writer.terminate()
                raise


async def _ensure_partitions(connection: Connection) -> None:
    """Make the log's partitions of the coming months, unless somebody locks the log; that of this month is there."""
    try:
        await connection.execute("select pointsman.ensure_partitions()")
    except asyncpg.LockNotAvailableError as error:
        log.warning(
            "a partition of the log for a coming month cannot be made yet (%s); that is tried again", error
        )


def _due_run(row: Sequence[Any]) -> DueRun:
    # Its context is there where it is small. Nothing of what is deferred for it is.
    run = None if row[_DUE_CONTEXT] is None else _new(Run, (*row[_DUE_RUN:], ()))
    return _new(DueRun, (*row[:_DUE_KNOWN], run))
