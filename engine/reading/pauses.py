"""The pipelines that are paused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from engine.reading.catalog import SQL
from engine.reading.values import askable
from engine.store.connecting import Connection


@dataclass(frozen=True, slots=True)
class PausedPipeline:
    """A pipeline that is paused."""

    pipeline: str
    who: str
    why: str
    at: datetime


async def list_pauses(
    connection: Connection, namespace: str, *, pipeline: str | None = None
) -> list[PausedPipeline]:
    """The pipelines that are paused, as far as this one is asked for."""
    rows = await connection.fetch(SQL["pauses"], namespace, askable(pipeline))
    return [PausedPipeline(*row) for row in rows]


async def paused_names(connection: Connection, namespace: str) -> frozenset[str]:
    """The names of all of them."""
    return frozenset(one.pipeline for one in await list_pauses(connection, namespace))
