"""Tells Kafka how far partitions are applied, so that tools which show the lag of consumer groups can show it.

What they are told are offsets of a group of its own, without members, that the engine never reads: what counts is in
Postgres. Nothing depends on it, so what fails is said once and tried again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from connectors.kafka.group_offsets import GroupOffsets
from connectors.kafka.settings import KafkaSettings
from connectors.source import Partition, SourceError, SourceUnreachableError
from engine.engine import Engine
from engine.store.contract import StoreError

log = logging.getLogger("pointsman.engine")

SUFFIX = ".lag"

AGAIN_SECONDS = 60.0
"""So often all of it is told, news or not: whoever resets or deletes the group takes it from tools until then, and
Kafka itself forgets one to which nothing was told for days."""

Positions = Mapping[Partition, int]


class Offsets(Protocol):
    """What keeps the offsets of a group (``GroupOffsets``)."""

    async def start(self) -> None:
        """Raises SourceUnreachableError."""

    async def commit(self, offsets: Positions) -> None:
        """Raises SourceError."""


def lag_group(group: str) -> str:
    """The group whose lag is that of a group of engines."""
    return f"{group}{SUFFIX}"


async def tell_lag(engine: Engine, kafka: KafkaSettings, group: str, seconds: float) -> None:
    """Tell it every so many seconds, as long as this is not cancelled; 0: never."""
    if not seconds:
        return
    offsets = GroupOffsets(kafka, lag_group(group))
    telling = Telling(offsets, lambda: applied_here(engine))
    try:
        while True:
            await telling.tell()
            await asyncio.sleep(seconds)
    finally:
        await offsets.stop()


async def applied_here(engine: Engine) -> Positions:
    """How far the partitions are applied that are served here, as it is durable."""
    session = engine.session
    if session is None or not engine.ready:
        return {}
    served = set(session.claims)
    try:
        applied = await session.store.applied({one.topic for one in served})
    except StoreError:
        # The engine itself says that Postgres is away.
        return {}
    return {one: how_far.position for one, how_far in applied.items() if one in served}


class Telling:
    """What was told last."""

    def __init__(self, offsets: Offsets, positions: Callable[[], Awaitable[Positions]]) -> None:
        self._offsets = offsets
        self._positions = positions
        self._is_started = False
        self._told: Positions = {}
        self._told_at = -math.inf
        self._complained = False

    async def tell(self) -> None:
        """Tell how far the partitions have come, where that is news, or Kafka might forget it."""
        positions, now = await self._positions(), time.monotonic()
        if not positions or (positions == self._told and now - self._told_at < AGAIN_SECONDS):
            return
        try:
            if not self._is_started:
                await self._offsets.start()
                self._is_started = True
            await self._offsets.commit(positions)
        except SourceUnreachableError as error:
            # The engine itself says that Kafka is away.
            log.debug("it cannot be told how far partitions are applied: %s", error)
        except SourceError as error:
            if not self._complained:
                log.warning(
                    "tools will not see the lag of this engine's partitions; nothing else depends on it: %s",
                    error,
                )
            self._complained = True
        else:
            self._told, self._told_at = positions, now
            self._complained = False
