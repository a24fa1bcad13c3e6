"""The executions of a store in memory: attempts that begin, and who makes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import orjson

from engine.limits import SILENT_SECONDS
from engine.store.limited import LimitedRoom
from engine.store.values import BegunExecution, Progress, Token
from tests.fakes.executions import Waiting, as_begun
from tests.fakes.tables import Tables

AT_ZERO = datetime(2026, 3, 1, 11, 43, 20, tzinfo=UTC)
"""What the database's clock says at its second 0."""


class FakeExecuting:
    """Of one engine."""

    tables: Tables
    _clock: Callable[[], float]

    async def begin_executions(
        self,
        rooms: Mapping[tuple[int, str], int],
        until: datetime,
        homes: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        holder: int,
    ) -> list[BegunExecution]:
        begun = self.tables.executions.begin(rooms, until, homes, but, holder, self._are_loaded(definitions))
        return [self._begun(one, self._input_of(one), self._made_of(one)) for one in begun]

    def _are_loaded(self, definitions: Sequence[int]) -> Callable[[int], bool]:
        def is_loaded(run: int) -> bool:
            found = self.tables.runs[run][1]
            return found.definition in definitions and not found.held

        return is_loaded

    async def begin_limited(
        self,
        rooms: Sequence[LimitedRoom],
        until: datetime,
        homes: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        holder: int,
    ) -> list[BegunExecution]:
        since = self._clock() - SILENT_SECONDS
        asked = rooms, until, homes, but, holder, since, self._are_loaded(definitions), self._counts
        begun = self.tables.executions.begin_limited(*asked)
        return [self._begun(one, self._input_of(one), self._made_of(one)) for one in begun]

    def _counts(self, one: Waiting) -> bool:
        held = self.tables.runs[one.asked.run][1].held
        return not held or self.tables.executions.is_there(one.holder, self._clock() - SILENT_SECONDS)

    async def limit_waiting(self, steps: Sequence[tuple[int, str]]) -> None:
        self.tables.executions.limit_waiting(steps)

    async def give_up_places(self, holder: int, going: Collection[int]) -> None:
        self.tables.executions.give_up_places(holder, going)

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
        completed = {
            (one.pipeline, orjson.loads(one.body).get("token"))
            for one in self.tables.inbox.values()
            if one.command in ("complete", "fail")
        }
        asked = overdue, until, homes, but, holder, limit, self._are_loaded(definitions), completed
        return [self._begun(one, b"") for one in self.tables.executions.begin_untried(*asked)]

    async def note_progress(self, holder: int, notes: Sequence[Progress]) -> Collection[int]:
        self.tables.executions.note_progress(holder, notes)
        return ()

    async def put_back(self, holder: int, but: Sequence[tuple[int, int]]) -> bool:
        for one in self.tables.executions.rows.values():
            if one.holder == holder and (one.id, one.asked.attempt) not in but:
                has_begun = one.asked.attempt > 1 or one.asked.token
                one.holder, one.began = None, one.began if has_begun else None
        return True

    async def put_held_back(self, holder: int, but: Sequence[tuple[int, int]]) -> None:
        for one in self.tables.executions.rows.values():
            is_held = bool(self.tables.runs[one.asked.run][1].held)
            if one.holder == holder and (one.id, one.asked.attempt) not in but and is_held:
                one.holder = None

    async def begun_by_others(
        self,
        homes: Sequence[int],
        pipelines: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        silent_seconds: float,
        limit: int,
    ) -> list[BegunExecution]:
        found = self.tables.executions.lost(homes, pipelines, but, self._clock() - silent_seconds)
        lost = [self._begun(one, b"") for one in found if not self.tables.runs[one.asked.run][1].held]
        return [one for one in lost if one.definition in definitions][:limit]

    async def take_executions(
        self, numbers: Sequence[int], holder: int, silent_seconds: float
    ) -> list[BegunExecution]:
        taken = self.tables.executions.take(numbers, holder, self._clock() - silent_seconds)
        return [self._begun(one, self._input_of(one), self._made_of(one)) for one in taken]

    def _begun(self, one: Waiting, input: bytes, made: bytes | None = None) -> BegunExecution:
        return as_begun(one, self.tables.runs[one.asked.run][1], input, made)

    def _made_of(self, one: Waiting) -> bytes | None:
        return self.tables.rows[one.asked.run, one.asked.made].payload if one.asked.made else None

    def _input_of(self, one: Waiting) -> bytes:
        asked, rows = one.asked, self.tables.rows
        contexts = (rows[asked.run, number].context for number in range(asked.sequence, 0, -1))
        return next(context for context in contexts if context)

    async def hold(self, holder: int, instance: str | None, breakers: bytes = b"") -> datetime:
        del breakers
        now = self._clock()
        self.tables.executions.hold(holder, instance, now)
        return AT_ZERO + timedelta(seconds=now)

    async def let_go(self, holder: int) -> None:
        self.tables.executions.let_go(holder)

    async def told_results(self, asked: Sequence[tuple[int, int, str]]) -> set[int]:
        told = {(run, row.event_id) for (run, _), row in self.tables.rows.items()}
        elsewhere = {one.event_id for one in self.tables.noted}
        elsewhere |= {letter.event_id for letter, _ in self.tables.letters.values() if letter.event_id}
        return {number for number, run, event_id in asked if (run, event_id) in told or event_id in elsewhere}

    async def executions_there(self, numbers: Sequence[int]) -> dict[int, bool]:
        rows = self.tables.executions.rows.values()
        return {one.id: one.asked.stopping for one in rows if one.id in numbers}

    async def struck_attempts(self) -> dict[int, int]:
        return {}

    async def said_last(self, asked: Sequence[tuple[int, str]]) -> list[str]:
        rows = sorted(self.tables.rows.items())
        return [
            next(
                (
                    row.type
                    for (number, _), row in reversed(rows)
                    if number == run and row.event_id.startswith(f"{key}/")
                ),
                "",
            )
            for run, key in asked
        ]

    async def has_executions(self, pipelines: Sequence[int], definitions: Sequence[int]) -> bool:
        waiting = [one.asked for one in self.tables.executions.rows.values() if not one.asked.token]
        runs = [self.tables.runs[one.run][1] for one in waiting if one.pipeline in pipelines]
        return any(not run.held and run.definition in definitions for run in runs)

    async def find_tokens(self, tokens: Sequence[str]) -> dict[str, Token]:
        known = self.tables.executions.tokens
        return {token: known[token] for token in tokens if token in known}
