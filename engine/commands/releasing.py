"""Runs that are held no more by want of their definition, or by what is over: what waited goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import orjson

from engine.batch.waiting import with_deferred
from engine.commands.draining import Draining, write_row
from engine.commands.together import Room
from engine.commands.words import run_command
from engine.log import PIPELINE_PAUSED
from engine.routing import Route, TopicRoute
from engine.store.contract import Store
from engine.store.values import Command
from statemachines.run import Run, Status

log = logging.getLogger("pointsman.engine")


class Releasing:
    """Has them go on."""

    def __init__(
        self,
        store: Store,
        topics: Mapping[str, TopicRoute],
        routes: Mapping[int, Route],
        draining: Draining,
    ) -> None:
        self._store = store
        self._topics = topics
        self._routes = routes
        self._draining = draining

    async def take(self, commands: Sequence[Command], room: Room, refusal: str = "") -> int:
        """Have a batch release the runs of these commands, of a run each, as far as there is room; returns of how many.

        ``refusal`` is what the store has said of what is offered to the one run of the one command.
        """
        runs = await self._load(commands)
        for number, command in enumerate(commands):
            body = orjson.loads(command.body)
            route, run = self._routes.get(command.pipeline or 0), runs.get(int(body["run"]))
            if route is None or run is None or run.held != int(body["held"]):
                continue
            # Of an earlier generation of its key, the later one of which has just moved, and is in the cache.
            is_earlier = room.batch.rests_on(route, run.key)
            if is_earlier or (number and not room.is_enough_for(run)):
                return number
            events = await self._release(command, route, run, room, refusal)
            await room.take(command, route, run.key, events)
        return len(commands)

    async def _load(self, commands: Sequence[Command]) -> dict[int, Run]:
        """By their numbers, with what is deferred for them."""
        numbers = {int(orjson.loads(one.body)["run"]): one.pipeline or 0 for one in commands}
        found = await self._store.runs_by_id(list(numbers))
        loaded: dict[int, Run] = {}
        for pipeline in {numbers[run.id] for run in found} & self._routes.keys():
            own = [run for run in found if numbers[run.id] == pipeline]
            runs = await with_deferred(self._routes[pipeline], own, self._store, self._topics)
            loaded |= {run.id: run for run in runs}
        return loaded

    async def _release(self, command: Command, route: Route, run: Run, room: Room, refusal: str) -> int:
        batch = room.batch
        route.cache[run.key] = run
        if run.status == Status.RUNNING and run.definition not in route.machines:
            await self._tell_unloaded(route, run)
            return 0
        write_row(command, f"pointsman.{command.command}", route, run, batch)
        if not batch.following_max:
            batch.refuse_due(route, run.key, refusal)
        if room.events_max:
            return await self._draining.go_on(command, route, run.key, batch, room.events_max)
        await self._draining.refuse_oldest(route, run.key, batch, refusal)
        return 0

    async def _tell_unloaded(self, route: Route, run: Run) -> None:
        hold = (await self._store.holds_of([(run.id, run.held)])).get(run.id)
        if hold is not None and hold.type == PIPELINE_PAUSED:
            log.error(
                "the run %r of %s stays held, though its pipeline goes on: it follows a version of it that is not "
                "loaded here. Load that, too, and let it go on: %s",
                *(run.key, route.name, run_command("resume", route.name, run.key)),
            )
