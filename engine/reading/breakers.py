"""How the breakers of engines are, as each of them said last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from engine.limits import SILENT_SECONDS
from engine.reading.catalog import SQL
from engine.reading.values import shown_time
from engine.store.connecting import Connection

STATES = ("closed", "open", "half-open")


@dataclass(frozen=True, slots=True)
class BreakerView:
    """A breaker in one engine."""

    name: str
    engine: str
    """Its instance; what it calls itself where it has none."""
    state: str
    """closed, open or half-open."""
    failures: int
    """In a row, as far as they count."""
    failures_max: int
    """With so many it opens."""
    since: datetime
    """When it opened or closed last; of one that never opened, when the engine began."""
    until: datetime | None
    """From when on an attempt is tried; None: it is closed."""
    error: str | None
    """What opened it."""
    steps: list[str]
    """As in ``pipeline.step``."""
    waiting: int
    """How many of these wait for an attempt, in all engines."""
    seen: datetime
    """When the engine said all that."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "name": self.name,
            "engine": self.engine,
            "state": self.state,
            "failures": self.failures,
            "failures_max": self.failures_max,
            "since": shown_time(self.since),
            "until": shown_time(self.until),
            "error": self.error,
            "steps": self.steps,
            "waiting": self.waiting,
            "seen": shown_time(self.seen),
        }


async def list_breakers(
    connection: Connection,
    namespace: str,
    *,
    breaker: str | None = None,
    state: str | None = None,
    limit: int = 0,
) -> list[BreakerView]:
    """The breakers of all engines that are there, by name; of an engine that is silent nothing is known.

    Only those of this name and in this state; ``limit`` 0 gives all of them.
    """
    rows = await connection.fetch(SQL["holders_with_breakers"], namespace, SILENT_SECONDS)
    said = [
        (instance or f"engine-{id_:x}", seen, orjson.loads(breakers))
        for id_, instance, seen, breakers in rows
    ]
    steps = {
        (pipeline, step) for _, _, breakers in said for one in breakers for pipeline, step in one["steps"]
    }
    columns = [pipeline for pipeline, _ in steps], [step for _, step in steps]
    counted = await connection.fetch(SQL["attempts_that_wait"], namespace, *columns)
    waiting = {(pipeline, step): int(many) for pipeline, step, many in counted}
    found = [_view(engine, seen, one, waiting) for engine, seen, breakers in said for one in breakers]
    chosen = [one for one in found if breaker in (None, one.name) and state in (None, one.state)]
    chosen.sort(key=lambda one: (one.name, one.engine))
    return chosen[:limit] if limit else chosen


def _view(
    engine: str, seen: datetime, said: dict[str, Any], waiting: dict[tuple[str, str], int]
) -> BreakerView:
    until = said["until"]
    return BreakerView(
        said["name"],
        engine,
        said["state"],
        said["failures"],
        said["failures_max"],
        datetime.fromisoformat(said["since"]),
        None if until is None else datetime.fromisoformat(until),
        said["error"] or None,
        [f"{pipeline}.{step}" for pipeline, step in said["steps"]],
        sum(waiting.get((pipeline, step), 0) for pipeline, step in said["steps"]),
        seen,
    )
