"""Which commands are taken up in one commit: such of one kind, of a run each, as many as it has room for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import orjson

from engine.batch.batch import Batch
from engine.routing import Route
from engine.store.values import Command
from statemachines.effects import COMPLETES
from statemachines.run import Run


def in_portions(commands: Sequence[Command], of_runs: frozenset[str]) -> list[list[Command]]:
    """Those that may be taken up in one commit together, in their order.

    ``of_runs`` are such as name a run by its key. Those that complete steps, those that release runs, and any others of
    runs are taken apart; what is of no run is alone.
    """
    portions: list[list[Command]] = []
    runs: set[Hashable] = set()
    kind_before = ""
    for command in commands:
        kind = _kind(command, of_runs)
        run = _run(command, kind)
        if not kind or kind != kind_before or run in runs:
            portions.append([])
            runs = set()
        portions[-1].append(command)
        runs.add(run)
        kind_before = kind
    return portions


def _kind(command: Command, of_runs: frozenset[str]) -> str:
    if command.command in COMPLETES:
        return "completes"
    if command.command == "release":
        return "release"
    return "of a run" if command.command in of_runs else ""


def _run(command: Command, kind: str) -> Hashable:
    if not kind:
        return None
    body = orjson.loads(command.body)
    return body["run"] if kind == "release" else (command.pipeline, str(body["key"]))


@dataclass(slots=True)
class Room:
    """How much more of commands one commit has room for."""

    batch: Batch
    events_max: int
    """So many events that waited are taken with them."""
    bytes_max: int
    """Of what is written for them."""
    until: float
    """Behind this time, by the clock that never goes back, events have their turn."""
    events: int = 0
    _bytes: int = 0
    _rows: int = 0
    _out: int = 0

    def is_enough_for(self, run: Run | None) -> bool:
        """Whether the command of this run goes into the commit of those before it, with all that waits for the run.

        None does behind one of which something is to follow at once.
        """
        waits = 0 if run is None else min(run.behind, self.events_max)
        return (
            self.events + waits <= self.events_max
            and self.events < self.events_max
            and self._bytes < self.bytes_max
            and self.batch.commit.follow_up is None
            and time.monotonic() < self.until
        )

    async def take(self, command: Command, route: Route, key: str, events: int) -> None:
        """Count what a command has come to, with so many events, and let the event loop turn behind it."""
        self.events += events
        # What is a dead letter and no row counts as it came.
        out = self.batch.commit.out
        written = self.batch.bytes_since(self._rows, [(route, key)])
        written += sum(len(record.value or b"") for record in out[self._out :])
        self._bytes += max(len(command.body), written)
        self._rows, self._out = len(self.batch.commit.rows), len(out)
        self.batch.rest()
        await asyncio.sleep(0)
