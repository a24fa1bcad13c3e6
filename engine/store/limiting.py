"""Attempts of steps with a limit that is for all engines: how they are begun in Postgres.

One engine at a time begins them, or none would see what the others begin; who comes second looks again soon. What waits
behind its limit is not looked at, however much it is: the values that steps are limited by are found one after the
other by an index, and of each only what its limit leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from engine.limits import SILENT_SECONDS
from engine.store.connecting import Connection
from engine.store.limited import LimitedRoom
from engine.store.queries import columns_of, load
from engine.store.values import BegunExecution

_SQL = load("limits")
VALUES_AT_A_LOOK = 1_000
"""So many values of a step are looked at; where there are more, they have their turns."""


class _Value(NamedTuple):
    """Of a step, one of those that it is limited by."""

    limit: LimitedRoom
    value: str
    due: datetime
    many: int
    """So many may begin."""


class Limiting:
    """Begins them on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._after: dict[tuple[int, str], str] = {}
        """By pipeline and step, the last value that was looked at, where there were more."""

    async def begin(
        self, limits: Sequence[LimitedRoom], now: datetime, asked: tuple[Any, ...], holder: int
    ) -> list[BegunExecution]:
        """Begin the next ones. ``asked`` is for which homes, but which, and for which definitions."""
        connection = self._connection
        waiting = [(limit, values) for limit in limits if (values := await self._values(limit))]
        if not waiting:
            return []
        async with connection.transaction():
            # A statement of its own: the next ones must see what others have begun before the lock was given.
            if not await connection.fetchval(
                _SQL["take_limits"], sorted({one.pipeline for one, _ in waiting})
            ):
                return []
            free = [value for limit, values in waiting for value in await self._free(limit, values, now)]
            self._go_on(waiting)
            if not free:
                return []
            rows = await connection.fetch(_SQL["begin_limited"], *_columns(free), now, *asked, holder)
            begun = [BegunExecution(*row[:-1]) for row in rows]
            await self._note_rates(free, begun, [row[-1] for row in rows])
        return begun

    async def _values(self, limit: LimitedRoom) -> list[str]:
        """Those of which something waits; from the first on again where there are not so many behind the last."""
        place = limit.pipeline, limit.step
        after = self._after.get(place)
        values = await self._behind(place, after, VALUES_AT_A_LOOK)
        if after is not None and len(values) < VALUES_AT_A_LOOK:
            first = await self._behind(place, None, VALUES_AT_A_LOOK - len(values))
            known = set(values)
            values += [value for value in first if value not in known]
        return values

    def _go_on(self, looked_at: Iterable[tuple[LimitedRoom, Sequence[str]]]) -> None:
        """Have those behind them be the next ones, where there are more than are looked at."""
        for limit, values in looked_at:
            if len(values) >= VALUES_AT_A_LOOK:
                self._after[limit.pipeline, limit.step] = values[-1]
            else:
                self._after.pop((limit.pipeline, limit.step), None)

    async def _behind(self, place: tuple[int, str], after: str | None, many: int) -> list[str]:
        rows = await self._connection.fetch(_SQL["waiting_values"], *place, after, many)
        return [str(value) for (value,) in rows]

    async def _free(self, limit: LimitedRoom, values: Sequence[str], now: datetime) -> list[_Value]:
        """What limits leave, without those that leave nothing."""
        place, going, known = (limit.pipeline, limit.step), dict[str, int](), dict[str, datetime]()
        if limit.at_once is not None:
            going = dict(await self._connection.fetch(_SQL["values_going"], *place, SILENT_SECONDS))
        if limit.interval is not None:
            known = dict(await self._connection.fetch(_SQL["rates_of"], *place, values))
        found = []
        for value in values:
            due = limit.due(known.get(value), now)
            many = limit.leaves(going.get(value, 0), due, now)
            if many:
                found.append(_Value(limit, value, due, many))
        return found

    async def _note_rates(
        self, free: Sequence[_Value], begun: Iterable[BegunExecution], values: Iterable[str]
    ) -> None:
        many = Counter((one.pipeline, one.step, value) for one, value in zip(begun, values, strict=True))
        noted = [
            (
                limit.pipeline,
                limit.step,
                value,
                due + limit.interval * many[limit.pipeline, limit.step, value],
            )
            for limit, value, due, _ in free
            if limit.interval is not None and (limit.pipeline, limit.step, value) in many
        ]
        if noted:
            await self._connection.execute(_SQL["note_rates"], *columns_of(noted))


def _columns(free: Sequence[_Value]) -> list[list[Any]]:
    rows = [(one.limit.pipeline, one.limit.step, one.limit.room, one.value, one.many) for one in free]
    return columns_of(rows)
