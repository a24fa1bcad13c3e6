"""Whose turn it is to relay a lane, so that engines do not fence one another all the time.

This is a courtesy, not a promise: what is right is decided by the sink, which fences. The lock belongs to a
session of Postgres and ends with it. A relay that was stopped in its tracks keeps its session; when it has
asked nothing for long, another one ends that session and takes the turn.
"""

from __future__ import annotations

import logging
from typing import Any

import asyncpg

from engine.relay.limits import RelayLimits
from engine.store import queries

log = logging.getLogger("pointsman.relay")

_SQL = queries.load("relay")
_CLASS = 0x72656C61


async def try_turn(connection: asyncpg.Connection[Any], lane: int, limits: RelayLimits) -> bool:
    """Whether the turn is ours now; it lasts as long as the connection."""
    if await connection.fetchval(_SQL["try_turn"], _CLASS, lane):
        return True
    holder = await connection.fetchrow(_SQL["who_has_the_turn"], _CLASS, lane)
    if holder is None or (holder["silent_seconds"] or 0) < limits.silence_seconds:
        return False
    log.warning(
        "the relay of lane %s was silent for %.0f s: its session %s is ended, and this engine relays instead",
        lane,
        holder["silent_seconds"],
        holder["pid"],
    )
    await connection.fetchval(_SQL["end_turn"], holder["pid"])
    return bool(await connection.fetchval(_SQL["try_turn"], _CLASS, lane))
