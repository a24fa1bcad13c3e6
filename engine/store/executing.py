"""The executions of the store on Postgres: attempts that begin, and who makes them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from engine.store.connecting import Connection, translated
from engine.store.limited import LimitedRoom
from engine.store.limiting import Limiting
from engine.store.literals import numbers
from engine.store.queries import columns_of, load
from engine.store.values import BegunExecution, Progress

_SQL = load("store")
_LIMITS = load("limits")


class Executions:
    """On one connection, and another one to be heard on; the contract is that of ``engine.store.contract.Store``."""

    def __init__(
        self, looker: Connection, looking: asyncio.Lock, speaker: Connection, namespace: str
    ) -> None:
        self._looker = looker
        self._looking = looking
        self._speaker = speaker
        self._turn_to_speak = asyncio.Lock()
        self._namespace = namespace
        self._limiting = Limiting(looker)
        self._unfinished: set[asyncio.Task[Any]] = set()

    async def begin_executions(
        self,
        rooms: Mapping[tuple[int, str], int],
        until: datetime,
        homes: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        holder: int,
    ) -> list[BegunExecution]:
        wanted = [[pipeline for pipeline, _ in rooms], [step for _, step in rooms], list(rooms.values())]
        sql = _SQL["begin_executions"]
        return await self._executions(sql, *wanted, until, homes, numbers(but), definitions, holder)

    async def begin_limited(
        self,
        rooms: Sequence[LimitedRoom],
        until: datetime,
        homes: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        holder: int,
    ) -> list[BegunExecution]:
        asked = rooms, until, (homes, but, definitions), holder
        # To its end, also where nobody waits for the answer any more: half a transaction would stay on the connection.
        begins = asyncio.create_task(self._begin_limited(*asked))
        self._unfinished.add(begins)
        begins.add_done_callback(self._has_finished)
        return await asyncio.shield(begins)

    def _has_finished(self, begins: asyncio.Task[Any]) -> None:
        self._unfinished.discard(begins)
        # What it raised is for who waits; where nobody does any more, it is not to be told of as lost.
        if not begins.cancelled():
            begins.exception()

    async def _begin_limited(self, *asked: Any) -> list[BegunExecution]:
        async with self._looking, translated(self._looker):
            return await self._limiting.begin(*asked)

    async def limit_waiting(self, steps: Sequence[tuple[int, str]]) -> None:
        columns = columns_of(steps)
        async with self._looking, translated(self._looker):
            await self._looker.execute(_LIMITS["limit_waiting"], *columns)

    async def give_up_places(self, holder: int, going: Collection[int]) -> None:
        async with self._looking, translated(self._looker):
            await self._looker.execute(_LIMITS["give_up_places"], holder, going)

    async def begin_untried(
        self,
        overdue: Mapping[tuple[int, str], datetime],
        until: datetime,
        homes: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        holder: int,
        limit: int,
    ) -> list[BegunExecution]:
        wanted = [pipeline for pipeline, _ in overdue], [step for _, step in overdue], list(overdue.values())
        sql = _SQL["begin_untried"]
        return await self._executions(sql, *wanted, limit, homes, numbers(but), definitions, holder, until)

    async def note_progress(self, holder: int, notes: Sequence[Progress]) -> Collection[int]:
        columns = columns_of(notes)
        async with self._looking, translated(self._looker):
            return {row["id"] for row in await self._looker.fetch(_SQL["note_progress"], holder, *columns)}

    async def put_back(self, holder: int, but: Sequence[tuple[int, int]]) -> bool:
        columns = _pairs(but)
        async with self._looking, translated(self._looker):
            return bool(await self._looker.fetchval(_SQL["put_back"], holder, *columns))

    async def put_held_back(self, holder: int, but: Sequence[tuple[int, int]]) -> None:
        columns = _pairs(but)
        async with self._looking, translated(self._looker):
            await self._looker.execute(_SQL["put_held_back"], holder, *columns)

    async def begun_by_others(
        self,
        homes: Sequence[int],
        pipelines: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        silent_seconds: float,
        limit: int,
    ) -> list[BegunExecution]:
        asked = homes, pipelines, definitions, but, silent_seconds, limit
        return await self._executions(_SQL["begun_by_others"], *asked)

    async def take_executions(
        self, numbers: Sequence[int], holder: int, silent_seconds: float
    ) -> list[BegunExecution]:
        return await self._executions(_SQL["take_executions"], numbers, holder, silent_seconds)

    async def hold(self, holder: int, instance: str | None, breakers: bytes = b"") -> datetime:
        async with self._turn_to_speak, translated(self._speaker):
            seen: datetime = await self._speaker.fetchval(
                _SQL["hold"], holder, self._namespace, instance, breakers
            )
        return seen

    async def let_go(self, holder: int) -> None:
        async with self._turn_to_speak, translated(self._speaker):
            await self._speaker.execute(_SQL["let_go"], holder)

    async def _executions(self, sql: str, *values: Any) -> list[BegunExecution]:
        async with self._looking, translated(self._looker):
            return [BegunExecution(*row) for row in await self._looker.fetch(sql, *values)]

    async def told_results(self, asked: Sequence[tuple[int, int, str]]) -> set[int]:
        async with self._looking, translated(self._looker):
            return {
                number for (number,) in await self._looker.fetch(_SQL["told_results"], *columns_of(asked))
            }

    async def struck_attempts(self) -> dict[int, int]:
        async with self._looking, translated(self._looker):
            return dict(await self._looker.fetch(_SQL["struck_attempts"]))

    async def said_last(self, asked: Sequence[tuple[int, str]]) -> list[str]:
        runs, keys = [run for run, _ in asked], [key for _, key in asked]
        async with self._looking, translated(self._looker):
            return [one for (one,) in await self._looker.fetch(_SQL["said_last"], runs, keys)]

    async def executions_there(self, numbers: Sequence[int]) -> dict[int, bool]:
        async with self._looking, translated(self._looker):
            return dict(await self._looker.fetch(_SQL["executions_there"], numbers))


def _pairs(of: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [one for one, _ in of], [other for _, other in of]
