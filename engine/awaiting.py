"""Who waits for runs and commands: all of them share one look at Postgres.

A look asks one question for all commands, and one or two for all runs, however many wait. The pauses between looks grow
while nothing happens, and are never shorter than several times as long as a look takes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from engine.errors import ServiceUnreachableError
from engine.reading.catalog import SQL
from engine.store.connecting import Connection, hang_up, translate
from engine.store.contract import StoreUnavailableError
from engine.store.queries import columns_of
from statemachines.run import Status, active_in

log = logging.getLogger("pointsman.client")

LOOK_SECONDS = 0.02
LOOK_SECONDS_MAX = 0.5
GROWS_BY = 1.3
"""By so much is each pause longer than the one before, as long as nothing happens."""
SHARE = 5.0
"""A pause is at least so many times as long as the look before it."""
Open = Callable[[], Awaitable[Connection]]


class Seen(NamedTuple):
    """A run at a look."""

    run: int
    sequence: int
    generation: int


NOWHERE = Seen(0, 0, 0)
"""Of a key that had no run."""
LAST_ROW = 2**31 - 1


class Came(NamedTuple):
    """How waiting for a run has ended."""

    generation: int
    configuration: str
    """Where the run is, or has ended."""
    there: bool
    """Whether it came to where it was waited for; else it has ended elsewhere."""


@dataclass(eq=False, slots=True)
class RunWait:
    """Somebody who waits for a run to come to a state, or to its end."""

    pipeline: int
    key: str
    states: frozenset[str] | None
    """None: to its end."""
    came: asyncio.Future[Came]
    seen: Seen | None = None

    def between(self, row: Mapping[str, Any]) -> tuple[int, int, int] | None:
        """Of which run rows are to be looked at, since which and before which, where a look has found this."""
        seen = self.seen
        if seen is None:
            return None
        if seen.run not in (0, row["id"]):
            return seen.run, seen.sequence, LAST_ROW
        return row["id"], seen.sequence, row["sequence"]

    def look(self, row: Mapping[str, Any], between: Sequence[str]) -> None:
        """Go on by what a look has found: the latest run of the key, and where it was since the look before.

        Where another run of the key was found then, ``between`` is where that one was, which has ended by now.
        """
        before, self.seen = self.seen, Seen(row["id"], row["sequence"], row["generation"])
        has_ended, generation, now = (
            row["status"] >= Status.COMPLETED,
            row["generation"],
            row["configuration"],
        )
        if before is not None and before.run not in (0, row["id"]):
            has_ended, generation, now = True, before.generation, between[-1] if between else ""
        if self.came.done():
            return
        if self.states is None:
            there = has_ended
        else:
            there = any(self.states.intersection(active_in(one)) for one in (*between, now))
        if there or has_ended:
            self.came.set_result(Came(generation, now, there))


@dataclass(eq=False, slots=True)
class Watch:
    """The one that looks, as long as somebody waits."""

    open: Open
    looks: int = 0
    _connection: Connection | None = None
    _commands: dict[int, asyncio.Future[bool]] = field(default_factory=dict)
    _runs: set[RunWait] = field(default_factory=set)
    _looking: asyncio.Task[None] | None = None
    _come: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody has come to wait."""

    async def command(self, number: int, seconds: float) -> bool:
        """Whether an engine has taken up this row of the inbox within so many seconds."""
        taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._commands[number] = taken
        self._begin()
        try:
            async with asyncio.timeout(seconds):
                return await taken
        except TimeoutError:
            return False
        finally:
            del self._commands[number]

    async def run(
        self, pipeline: int, key: str, states: frozenset[str] | None, seconds: float | None
    ) -> Came:
        """How a run comes to one of these states, or to its end, or ends elsewhere.

        Raises:
            TimeoutError: neither, within so many seconds.
        """
        one = RunWait(pipeline, key, states, asyncio.get_running_loop().create_future())
        self._runs.add(one)
        self._begin()
        try:
            async with asyncio.timeout(seconds):
                return await one.came
        finally:
            self._runs.discard(one)

    async def close(self) -> None:
        """Look no more; who still waits is told that it was cancelled."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        for one in self._waiting():
            one.cancel()
        if self._connection is not None:
            await hang_up(self._connection)
            self._connection = None

    def _waiting(self) -> list[asyncio.Future[Any]]:
        return [*self._commands.values(), *(run.came for run in self._runs)]

    def _begin(self) -> None:
        self._come.set()
        if self._looking is None or self._looking.done():
            # In a context of its own: who asks first may be an attempt at a step, and others wait by it, too.
            self._looking = asyncio.create_task(self._look_on(), name="watch", context=Context())

    async def _look_on(self) -> None:
        pause = LOOK_SECONDS
        while self._commands or self._runs:
            if self._come.is_set():
                self._come.clear()
                pause = LOOK_SECONDS
            began = time.monotonic()
            happened = await self._look_or_say()
            pause = LOOK_SECONDS if happened else min(pause * GROWS_BY, LOOK_SECONDS_MAX)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause, SHARE * (time.monotonic() - began))):
                    await self._come.wait()

    async def _look_or_say(self) -> bool:
        """Whether anything happened; where Postgres is away, those who wait go on waiting."""
        try:
            return await self._look()
        except ServiceUnreachableError as error:
            log.warning("%s Who waits goes on waiting.", error)
        except Exception as error:  # noqa: BLE001 - whoever waits is told of what it is
            if not isinstance(translate(error), StoreUnavailableError):
                self._fail(error)
                return False
            log.warning("Postgres broke away (%s); who waits goes on waiting", type(error).__name__)
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        return False

    def _fail(self, error: Exception) -> None:
        for one in self._waiting():
            if not one.done():
                one.set_exception(error)

    async def _look(self) -> bool:
        if self._connection is None:
            self._connection = await self.open()
        self.looks += 1
        connection = self._connection
        commands, runs = list(self._commands), list(self._runs)
        happened = False
        if commands:
            left = {row["id"] for row in await connection.fetch(SQL["commands_left"], commands)}
            for number in commands:
                taken = self._commands.get(number)
                if number not in left and taken is not None and not taken.done():
                    taken.set_result(True)
                    happened = True
        if runs:
            happened = await self._look_at(connection, runs) or happened
        return happened

    async def _look_at(self, connection: Connection, runs: list[RunWait]) -> bool:
        places = [one.pipeline for one in runs], [one.key for one in runs]
        rows = await connection.fetch(SQL["runs_now"], list(range(len(runs))), *places)
        there = {row["asked"] for row in rows}
        for number, one in enumerate(runs):
            if number not in there:
                one.seen = NOWHERE
        moved = [row for row in rows if _has_moved(runs[row["asked"]], row)]
        asked = [(row["asked"], runs[row["asked"]].between(row)) for row in moved]
        wanted = [(number, *place) for number, place in asked if place is not None]
        between: dict[int, list[str]] = {}
        if wanted:
            columns = columns_of(wanted)
            for number, configuration in await connection.fetch(SQL["rows_between"], *columns):
                between.setdefault(number, []).append(configuration)
        for row in moved:
            runs[row["asked"]].look(row, between.get(row["asked"], ()))
        return bool(moved)


def _has_moved(one: RunWait, row: Mapping[str, Any]) -> bool:
    return one.seen is None or one.seen[:2] != (row["id"], row["sequence"])
