"""Runs that are mapped: they follow a definition that is loaded, instead of one that is not, or by which they are held.

Where a state or a step is called otherwise there, the command says so. A run that does not fit stays as it is, and is
told of with all that does not fit. One that waited for its definition goes on at once.

From a version that is loaded only runs that are held or paused are mapped: nothing of theirs goes on, but an attempt
that has begun before. What that tells comes under the names that it began with, so nothing may be called otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from engine.commands.answering import Answer, Asked, not_running
from engine.commands.draining import Draining, write_row
from engine.commands.operators import command_id
from engine.commands.words import goes_on_by
from engine.log import Kind, microseconds
from engine.store.contract import Store
from engine.store.values import Hold
from statemachines.machine import Machine
from statemachines.mapping import misfits
from statemachines.renames import Renames
from statemachines.run import Status

MAPPED = "pointsman.map"
"""The type of the rows that say it."""
WAITING_BYTES_MAX = 100_000_000
"""Of what waits for one run, so much is looked at."""
_PROBLEMS_TOLD_MAX = 5


class MappingRuns:
    """Maps them."""

    def __init__(self, store: Store, draining: Draining) -> None:
        self._store = store
        self._draining = draining

    async def do(self, asked: Asked, hold: Hold | None) -> Answer:
        """Map the run of a command; ``hold`` is what holds it."""
        name, run, route, body = asked.name, asked.run, asked.route, orjson.loads(asked.command.body)
        version, renames = int(body["to"]), renames_in(body)
        if run.status != Status.RUNNING:
            return Answer(done=False, sentence=not_running(asked))
        found = [(number, one) for number, one in route.machines.items() if one.version == version]
        if not found:
            loaded = ", ".join(str(one.version) for one in route.machines.values())
            said = f"{name} is not mapped: version {version} is not loaded here, but {loaded}. Load it, and ask again."
            return Answer(done=False, sentence=said)
        [(definition, machine)] = found
        if run.definition == definition:
            return Answer(
                done=True, sentence=f"{name} follows version {version} already: nothing was to be done."
            )
        if run.definition in route.machines and (hold is None or renames.states or renames.steps):
            follows = route.machines[run.definition].version
            return Answer(done=False, sentence=f"{name} is not mapped: {goes_on_by(follows)}.")
        problems = [
            *misfits(machine, run, renames, body.get("other_timers", ())),
            *await self._heard(asked, renames),
        ]
        if problems:
            told = "; ".join(one.rstrip(".") for one in problems[:_PROBLEMS_TOLD_MAX])
            more = len(problems) - _PROBLEMS_TOLD_MAX
            rest = f"; and {more} more" if more > 0 else ""
            return Answer(done=False, sentence=f"{name} stays as it is: {told}{rest}.")
        _write(asked, definition, machine, renames)
        went_on = hold is not None and hold.kind == Kind.WAITED
        if went_on:
            write_row(asked.command, MAPPED, route, route.cache[run.key], asked.batch)
        offered = await self._draining.go_on(asked.command, route, run.key, asked.batch, asked.events_max)
        waited = f" {run.behind} events had waited." if went_on and run.behind else ""
        return Answer(True, f"{name} follows version {version} (row {run.sequence + 1}).{waited}", offered)

    async def _heard(self, asked: Asked, renames: Renames) -> list[str]:
        """What waits for the run and tells of a step by a name that it has no more."""
        run = asked.run
        if not (run.behind and renames.steps):
            return []
        events = await self._store.waiting_events(run.id, run.behind, WAITING_BYTES_MAX)
        if len(events) < run.behind:
            return [
                "more waits for it than can be looked at: load the version that it follows until that was taken"
            ]
        told = {_step_of(one.type): None for one in events if not one.position}
        return [
            f"how {step!r} ended waits for it, under that name: load the version that it follows until that was taken"
            for step in told
            if renames.step(step) != step
        ]


def renames_in(said: Mapping[str, Any]) -> Renames:
    """What a command, or the row that it led to, says is called otherwise."""
    said = said.get("mapping", said)
    return Renames(said.get("states") or {}, said.get("steps") or {})


def _write(asked: Asked, definition: int, machine: Machine, renames: Renames) -> None:
    command, body = asked.command, orjson.loads(asked.command.body)
    names = {"states": dict(renames.states), "steps": dict(renames.steps)}
    mapping = {"from": body.get("from"), "to": machine.version, **names}
    said = {"command": command.command, "who": command.who, "why": command.why, "mapping": mapping}
    milliseconds = microseconds(command.at) // 1000
    known_as = command_id(command)
    asked.batch.map_run(
        asked.route, asked.run, definition, MAPPED, known_as, orjson.dumps(said), milliseconds, renames
    )


def _step_of(event_type: str) -> str:
    """The step that an event tells of: ``done.step.NAME``, ``failed.step.NAME.ERROR``."""
    _, _, rest = event_type.partition(".step.")
    return rest.partition(".")[0]
