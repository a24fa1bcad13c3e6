"""Open runs that follow versions of their pipelines that are not loaded: they wait, and somebody should know.

An event for such a run holds it until the version is loaded. Until one comes nothing else says so: none of its timers
fires, and none of its steps begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from engine.commands.words import map_command
from engine.errors import PointsmanError
from engine.store.connecting import Connection, connect
from engine.store.queries import columns_of, load
from statemachines.machine import Machine
from statemachines.run import Status

log = logging.getLogger("pointsman.engine")

_SQL = load("observing")
COUNTED_MAX = 10_000
"""So many runs of a version are counted: whoever has more has enough to know."""
PATIENCE_SECONDS = 60.0
CURE = "Load that version, too: name both modules."
CURE_WITHOUT_IT = "Or have these runs follow one that is loaded: {}."
CURE_OF_CHANGED = (
    "Give the changed definition a new version, and load the one that they began with, too, as it was then."
)


class LeftBehind(NamedTuple):
    """Open runs of one definition."""

    pipeline: str
    version: int
    changed: bool
    """Whether this version is loaded, but with another structure or other code."""
    runs: int

    def __str__(self) -> str:
        """What of them, and what it means."""
        many = f"more than {COUNTED_MAX:,}" if self.runs > COUNTED_MAX else f"{self.runs:,}"
        before = " as it was before it changed" if self.changed else ""
        return (
            f"Open runs of {self.pipeline} that follow version {self.version}{before}, which is not loaded: {many}. "
            "Their events wait, and until it is loaded no timer of theirs fires and no step of theirs begins."
        )

    @property
    def cure(self) -> str:
        """What to do."""
        load = CURE_OF_CHANGED if self.changed else CURE
        command = map_command(self.pipeline, self.version, self.version if self.changed else None)
        return f"{load} {CURE_WITHOUT_IT.format(command)}"


class _Counted(NamedTuple):
    """A definition that is not loaded, and the open runs that follow it."""

    definition: int
    loads: int
    """How often engines had loaded it, before they were counted."""
    is_loaded: bool
    """Whether another engine has loaded it."""
    of: LeftBehind


async def find_left_behind(
    connection: Connection, namespace: str, machines: Sequence[Machine]
) -> list[LeftBehind]:
    """Those of the pipelines of these machines, by pipeline and version."""
    return [one.of for one in await _count(connection, namespace, machines) if one.of.runs]


async def _count(connection: Connection, namespace: str, machines: Sequence[Machine]) -> list[_Counted]:
    """All that may have some."""
    others = await connection.fetch(
        _SQL["other_definitions"],
        namespace,
        sorted({one.name for one in machines}),
        [one.name for one in machines],
        [one.version for one in machines],
        [one.hash for one in machines],
        [one.code for one in machines],
    )
    if not others:
        return []
    # In this order: who loads one behind the first question is told by `loads`, and who has loaded it before by the
    # second, unless it is gone by then, with all that it has committed.
    loaded = {number for number, _ in await connection.fetch(load("reading")["loaded_now"], namespace)}
    numbers = [row["id"] for row in others]
    counted = dict(await connection.fetch(_SQL["count_open"], numbers, int(Status.RUNNING), COUNTED_MAX + 1))
    return [
        _Counted(number, loads, number in loaded, LeftBehind(name, version, changed, int(counted[number])))
        for number, loads, name, version, changed in others
    ]


async def _note_over(connection: Connection, counted: Sequence[_Counted]) -> None:
    """Note which of them nobody need look for again, until an engine loads them."""
    over = [(one.definition, one.loads) for one in counted if not one.of.runs and not one.is_loaded]
    if over:
        await connection.execute(_SQL["note_over"], *columns_of(over))


async def tell_left_behind(postgres: str, namespace: str, machines: Sequence[Machine]) -> None:
    """Warn of them in the log."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            connection = await connect(postgres, name="pointsman engine, versions", for_engine=False)
            try:
                counted = await _count(connection, namespace, machines)
                await _note_over(connection, counted)
            finally:
                await connection.close()
    except (PointsmanError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        # The engine itself says that a service is away.
        log.debug("it cannot be told which runs follow other versions: %s", error)
        return
    found = [one.of for one in counted if one.of.runs]
    for one in found:
        log.warning("%s %s", one, one.cure)
