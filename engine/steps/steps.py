"""Steps: their attempts for the runs whose homes are served here, and what became of them until it is durable.

An attempt is begun once its row of ``executions`` says so (``Store.begin_executions``), which only one engine can have
it say. Its end is an event on the one road: it is handed to a draft, and forgotten here once the commit is durable. So
what is lost with an engine is an attempt, and never an execution: whoever has the home next finds the row, and has it
logged that the attempt was lost.

All of it outlives a session: where Postgres breaks away, attempts go on, and what became of them is kept until there is
another connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from engine import channels
from engine.limits import SILENT_SECONDS, EngineLimits
from engine.routing import Route
from engine.steady import Steady
from engine.steps.breakers import Told
from engine.steps.crowded import Crowded
from engine.steps.executors import Executors
from engine.steps.hearing import SPEAK_SECONDS, Hearing
from engine.steps.late import LateSuccesses
from engine.steps.making import Making
from engine.steps.promises import Promises
from engine.steps.result import StepResult
from engine.steps.rooms import Place, Rooms, Taken, overdue_at, split
from engine.store.contract import Store
from engine.store.values import BegunExecution, Commit
from statemachines.step import Step

log = logging.getLogger("pointsman.engine")

LOST_AT_ONCE_MAX = 1_000
"""So many attempts that were lost are logged at a time."""
WITHHELD_SECONDS = 1.0
"""So long at most it is waited for the commit in flight, before it is said once more that this engine is there."""
FOR_EVER_SECONDS = 1e9
UNTRIED_AT_ONCE_MAX = 1_000
"""So many of which there is nothing to be done, but something to be told, are taken at a time."""
LOOK_AFTER_SECONDS = 1.0
"""How often it is asked whether runs still wait for the attempts that go on here."""
LOOK_AFTER_MAX = 10_000
"""Of so many at a time, in turn."""
RESULTS_AT_ONCE_MAX = 1_000
"""So many results go into a draft at a time."""
PASSED_OVER_SECONDS = 0.1
"""After so long it is tried again to say of executions what was passed over, since a commit worked on them."""
PASSED_OVER_MAX = 20
"""So often in a row, where the engine is to end."""


class Steps:
    """The steps of one engine."""

    def __init__(
        self,
        limits: EngineLimits,
        clock: Steady,
        instance: str | None = None,
        executors: Executors | None = None,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._executors = executors or Executors()
        self._making = Making(limits, clock, self._executors)
        self._instance = instance
        self.holder = secrets.randbits(62)
        """What it is called in the store, from its start to its end."""
        self._going, self._results = self._making.going, self._making.results
        self._definitions: list[int] = []
        self._are_limited = False
        self._taking: set[tuple[int, int]] = set()
        """Attempts of engines that are gone, by their numbers, while it is asked whether they are ours now."""
        self._looking_for_lost = asyncio.Lock()
        self._alone = 0
        """So many are handed out one at a time: the store did not take them together."""
        self._homes: list[int] = []
        self._store: Store | None = None
        self._routes: dict[int, Route] = {}
        self._works = False
        self.paused: Mapping[int, object] = {}
        """Pipelines of which no step begins."""
        self._kinds: dict[Place, Step[Any, Any]] = {}
        """By pipeline and name; of versions, the newest counts."""
        self._serving: asyncio.Task[None] | None = None
        self._speaking: asyncio.Task[None] | None = None
        self.breakers = self._making.breakers
        self._rooms = Rooms(self._limits, self.breakers)
        self._crowded = Crowded()
        self._promises = Promises()
        self._late = LateSuccesses()
        self._looked_at = -self._limits.step_poll_seconds
        """When it was looked last for whatever may begin, and not only for those that are known to wait."""
        self._told = False
        """Whether somebody has said since that there may be something."""
        self._are_more_lost = False
        self._looked_after = -LOOK_AFTER_SECONDS
        self._spoke_at = -SPEAK_SECONDS
        self._hearing = Hearing()
        self._wanted, self.arrived = self._making.wanted, self._making.arrived
        self.turned = asyncio.Event()
        """Set whenever it was looked what may begin."""

    def serve_homes(self, homes: Iterable[int]) -> None:
        """Begin attempts for the runs of these homes; those that go on for others go on."""
        self._homes = sorted(homes)
        self._promises.forget()
        self._hear_of_more()

    async def find_kept(self) -> None:
        """Take over attempts that go on though their engines are gone, of the runs whose homes are served here.

        Before these runs are moved on here: who watches an attempt has it end once nobody waits for it any more.
        """
        executors = [self._executors.of(step) for step in self._kinds.values()]
        if (
            self._store is None
            or self._making.is_stopping
            or not any(one is not None and one.keeps for one in executors)
        ):
            return
        await self._take_over(self._store, self._definitions)

    @property
    def are_there(self) -> bool:
        """Whether any pipeline has some."""
        return self._works

    @property
    def are_going(self) -> bool:
        """Whether results are to be expected, or are there."""
        return bool(self._results or self._going.untold)

    @property
    def has_results(self) -> bool:
        """Whether results are in no draft yet."""
        return len(self._results.ready) > len(self._making.last_words.waited_for)

    async def open(self, store: Store, routes: Sequence[Route]) -> None:
        """Work with this store, and these pipelines, from now on."""
        self._store = store
        self._routes = {route.pipeline: route for route in routes}
        self._works = any(route.works for route in routes)
        self._making.outcomes.load(routes)
        self._kinds = {
            (route.pipeline, one.name): one
            for route in routes
            for machine in route.machines.values()
            for one in machine.pipeline.works
        }
        self._rooms.load(self._kinds)
        self.breakers.load(
            (self._routes[pipeline].name, name, step.bounds.breaker)
            for (pipeline, name), step in self._kinds.items()
            if step.bounds.breaker is not None
        )
        await self._find_told(store)
        self._promises.forget()
        self._spoke_at = -SPEAK_SECONDS
        self._hearing.begin()
        self._definitions = [number for route in routes for number in route.machines]
        self._are_limited = any(step.bounds.limit is not None for step in self._kinds.values())
        if self._works:
            # Before anything is asked for: what time it is, is its answer, and one of the same name is not waited for.
            await self._speak(store)
            await store.listen(channels.STEPS, self._hear_of_more)
            self._hear_of_more()
            self._serving = asyncio.create_task(self._serve(), name="steps")
            self._speaking = asyncio.create_task(self._speak_on(store), name="steps, speaking")

    async def _find_told(self, store: Store) -> None:
        """Have what became of attempts be taken again, but for what is durable by a commit that was not heard of."""
        handed = self._results.in_drafts
        if handed:
            told = await store.told_results([(one.begun.id, one.begun.run, one.event_id) for one in handed])
            self._settle_results([one for one in handed if one.begun.id in told])
        self._results.give_all_back()

    async def close(self) -> None:
        """Let go of the store; attempts go on. How many have failed like others is told until now."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait({self._serving})
            self._serving = None
        await self._speak_no_more()
        self._making.failed.tell_rest(at_once=True)

    async def let_go(self) -> None:
        """Say that nothing goes on here any more."""
        if self._works and self._store is not None:
            await self._late.tell(self._store)
            # What it was given and has not begun is not lost with it.
            for _ in range(PASSED_OVER_MAX):
                if await self._put_back(self._store):
                    break
                await asyncio.sleep(PASSED_OVER_SECONDS)
            await self._speak_no_more()
            await self._store.let_go(self.holder)

    async def stop(self) -> None:
        """Begin no more; wait a while for what goes on, and then cancel it. What became of all of it is to be taken.

        What is kept goes on, for the next engine to find.
        """
        self._making.is_stopping = True
        if self._serving is not None:
            # What it finds meanwhile does not begin.
            self._wanted.set()
            await asyncio.wait({self._serving})
        await self._making.end()
        if self._store is not None:
            await self._save_last(self._store)

    def hear(self, told: Told) -> None:
        """Have the breaker of a step hear of an attempt that went on outside, and was completed."""
        self._making.hear(told)

    def check(self) -> None:
        """See to it that attempts are begun. Raises StoreError: the store broke away."""
        for task in (self._serving, self._speaking):
            if task is not None and task.done() and not task.cancelled():
                task.result()

    def take(self) -> list[StepResult]:
        """What became of attempts, and is in no draft yet."""
        number = 1 if self._alone else RESULTS_AT_ONCE_MAX
        self.arrived.clear()
        if not self.has_results:
            return []
        found = self._results.take(number, self._making.last_words.waited_for)
        taken = [self._as_routed(one) for one in found]
        self._alone -= bool(self._alone and taken)
        if self.has_results:
            self.arrived.set()
        return taken

    def _as_routed(self, result: StepResult) -> StepResult:
        """With the route of the session that takes it."""
        route = self._routes[result.begun.pipeline]
        return result if result.route is route else result._replace(route=route)

    def promise(self, commit: Commit, results: Sequence[StepResult] = ()) -> None:
        """Have attempts that this asks for begin with it, which is on its way next, with these ``results``."""
        if commit.limited_left:
            self._going.drop_ended(commit, results)
        if not self._making.is_stopping and commit.executions_asked:
            rooms = self._rooms_of(commit, {one.begun.run for one in results})
            if rooms:
                self._promises.promise(commit, rooms, self._homes, self._definitions)
                commit.promised_to, commit.promised_at = self.holder, self._clock()
        # Else nothing waits for what is over.
        commit.tells_others = self._are_limited or bool(commit.executions_asked)

    def _rooms_of(self, commit: Commit, ended: AbstractSet[int]) -> dict[Place, int]:
        """The room of what a commit asks for, and of what waits for the same, by step.

        What runs ask for next that have ``ended`` a step by this commit comes first: so they are gone on with, rather
        than others begun.
        """
        steps = self._allowed()
        asked = Counter((one.pipeline, one.step) for one in commit.executions_asked)
        free = {
            place
            for place in asked.keys() & steps.keys()
            if self._promises.is_known(place) and self._is_free(steps[place])
        }
        if not free:
            return {}
        following = {(one.pipeline, one.step) for one in commit.executions_asked if one.run in ended}
        wanted = self._promises.wanted_with(asked)
        # What became of those that were handed out is durable once this is.
        rooms = self._free(steps, self._results.ready, wanted, free & following)
        return {place: room for place, room in rooms.items() if place in free}

    def settle(self, results: Sequence[StepResult], commit: Commit) -> None:
        """These are durable, and so is all else of this commit."""
        self._settle_results(results)
        for address in commit.executions_over:
            going = self._going.at(address)
            if going is not None and not going.told:
                self._making.drop(going)
        for asked in commit.executions_asked:
            going = self._going.at(asked.address) if asked.stopping else None
            if going is not None:
                self._making.stop(going)
        self._promises.kept(commit)
        if self._are_limited and self._keep_a_place(results, commit):
            self._making.has_news = True
        self._making.begin_all(commit.begun)
        if results or commit.executions_asked or commit.executions_over:
            self._wanted.set()

    def _keep_a_place(self, results: Iterable[StepResult], commit: Commit) -> bool:
        """Whether any of what has ended here may keep a place in a limit: by this commit, or by one before it.

        It was computed again behind ``promise``, or another event has moved the run before it was known of the end.
        """
        given_up = {*commit.executions_over, *(one.address for one in commit.executions_asked)}
        given_up.difference_update(one[:3] for one in commit.limited_left)
        return any(
            self._going.at(one.begun.address) is None and one.begun.address not in given_up
            for one in results
            if self._kinds[one.begun.pipeline, one.begun.step].bounds.limit is not None
        )

    def _settle_results(self, results: Iterable[StepResult]) -> None:
        self._results.settle(results)
        self._late.settle(results)

    @property
    def are_alone(self) -> bool:
        """Whether each result is to have a commit of its own: the store did not take one that had several."""
        return bool(self._alone)

    def give_back(self, results: Sequence[StepResult], *, alone: bool = False) -> None:
        """The commit in flight came to nothing: these that it had are to be taken again, one at a time.

        ``alone``: nothing else was in the commit, so that what the store refused is this.
        """
        self._promises.broken()
        if not results:
            # Whatever was to be found out of others still is.
            return
        self._results.give_back(results)
        self.arrived.set()
        if alone and len(results) == 1:
            self._making.refuse(results[0])
        else:
            self._alone = len(results)

    async def _serve(self) -> None:
        assert self._store is not None, "it was opened"
        while not self._making.is_stopping:
            # Not by wait_for, which forgets before Python 3.12 that it was cancelled where both come at once.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.step_poll_seconds):
                    await self._wanted.wait()
            self._wanted.clear()
            if not self._making.is_stopping:
                await self._look()

    async def _speak(self, store: Store) -> None:
        """Say that this engine is there, and hear what time it is."""
        asked = time.monotonic()
        said = await store.hold(self.holder, self._instance, self.breakers.as_json())
        self._clock.hear(said, asked)
        self._hearing.note(said)

    async def _speak_on(self, store: Store) -> None:
        """Say that this engine is there also where a look takes long, or none goes on any more."""
        while True:
            await asyncio.sleep(SPEAK_SECONDS)
            if self._hearing.unheard_seconds >= SPEAK_SECONDS:
                await self._speak(store)

    async def _speak_no_more(self) -> None:
        if self._speaking is not None:
            self._speaking.cancel()
            await asyncio.wait({self._speaking})
            self._speaking = None

    def _hear_of_more(self) -> None:
        self._told = True
        self._wanted.set()

    async def _look(self) -> None:
        assert self._store is not None, "it was opened"
        store, homes, definitions = self._store, self._homes, self._definitions
        for_all = self._told or time.monotonic() - self._looked_at >= self._limits.step_poll_seconds
        if for_all:
            self._told, self._looked_at = False, time.monotonic()
        speaks = self._making.has_news or time.monotonic() - self._spoke_at >= SPEAK_SECONDS
        if speaks:
            self._spoke_at, self._making.has_news = time.monotonic(), False
            await self._speak(store)
            await self._put_back(store)
            self._look_for_crowds()
            limited = [place for place, step in self._kinds.items() if step.bounds.limit is not None]
            if limited:
                await store.limit_waiting(limited)
                await store.give_up_places(self.holder, [*self._going.ids])
        if (speaks or self._are_more_lost) and len(self._results) <= LOST_AT_ONCE_MAX:
            await self._take_over(store, definitions)
        await self._save(store)
        await self._late.tell(store)
        await self._look_after(store)
        if for_all:
            await self._begin_untried(store, definitions)
            self._promises.look_anew(self._kinds)
        if homes:
            await self._begin_next(store, homes, definitions)
        self._making.failed.tell_rest()
        self.turned.set()

    async def _begin_next(self, store: Store, homes: Sequence[int], definitions: Sequence[int]) -> None:
        """Begin those that there is room for, of all steps of which some may wait."""
        steps = {
            place: step for place, step in self._allowed().items() if not self._promises.is_settled(place)
        }
        wanted = self._promises.wanted()
        rooms, limited = split(self._free(steps, self._results.ids, wanted), steps)
        if not self._hearing.knows_all:
            limited = []
        asked = self._clock(), homes, definitions, self._not_anew(), self.holder
        self._promises.look(rooms | {(one.pipeline, one.step): one.room for one in limited})
        begun = await store.begin_executions(rooms, *asked) if rooms else []
        begun += await store.begin_limited(limited, *asked) if limited else []
        found = Counter((one.pipeline, one.step) for one in begun)
        self._promises.found(found, [place for place, step in steps.items() if step.bounds.limit is None])
        more_wait = any(found[place] == room == wanted.get(place) for place, room in rooms.items())
        room_left = any(found[place] < room for place, room in rooms.items())
        if more_wait or (
            room_left and any(self._is_free(steps[place]) for place in steps.keys() - rooms.keys())
        ):
            # More may wait than was known of, or for steps for which there was no room.
            self._wanted.set()
        if not self._making.begin_all(begun):
            await self._put_back(store)

    def _not_anew(self) -> list[int]:
        """What is not worth asking for: it still goes on here, waits for what does, or is told of on its way."""
        return [*self._going.lingering, *self._results.ids, *self._making.kept_waiting()]

    async def _put_back(self, store: Store) -> bool:
        """Have rows be begun by whoever may that are given to this engine, and that it does not know of.

        A connection may have broken while it was asked what may begin, or in the commit of promises; then what became
        of that is found out here, also where Postgres comes to it late. Returns whether all are.
        """
        # Nor is anything taken over meanwhile.
        async with self._promises.withheld(WITHHELD_SECONDS) as are_known, self._looking_for_lost:
            if not are_known:
                return False
            known = (one.begun.numbers for one in (*self._going, *self._results))
            ours = [*known, *self._taking, *self._making.untellable]
            # What became of attempts may wait behind holds for long: they keep no place of a limit.
            await store.put_held_back(self.holder, ours)
            return await store.put_back(self.holder, ours)

    async def _save(self, store: Store) -> None:
        """Have the store know how far attempts have come."""
        going = ((one.begun.id, one.begun.attempt, one.pulse) for one in self._going.untold)
        if await self._making.last_words.store(store, self.holder, going):
            self.arrived.set()

    async def _save_last(self, store: Store) -> None:
        """The same where the engine is to end: that an attempt failed counts for more than how far it has come."""
        for _ in range(PASSED_OVER_MAX):
            await self._save(store)
            if not self._making.last_words.waited_for:
                return
            await asyncio.sleep(PASSED_OVER_SECONDS)
        self._making.last_words.give_up()

    async def _begin_untried(self, store: Store, definitions: Sequence[int]) -> None:
        """Begin those of which there is nothing to be done, but something to be told, also where there is no room."""
        now = self._clock()
        overdue = overdue_at(now, self._allowed())
        if overdue and self._homes:
            # Also where an attempt goes on that was told of, and may never end.
            but = [*self._results.ids]
            asked = overdue, now, self._homes, definitions, but, self.holder, UNTRIED_AT_ONCE_MAX
            if not self._making.begin_all(await store.begin_untried(*asked)):
                await self._put_back(store)

    async def _take_over(self, store: Store, definitions: Sequence[int]) -> None:
        """Take for lost what engines have begun of which nothing is heard any more.

        Those whose mark is gone at once; silent ones only once they could have been heard of again: where Postgres was
        away, or stood still, all were silent.
        """
        async with self._looking_for_lost:
            await self._take_over_lost(store, definitions)

    async def _take_over_lost(self, store: Store, definitions: Sequence[int]) -> None:
        silent = SILENT_SECONDS if self._hearing.would_hear else FOR_EVER_SECONDS
        working = [route.pipeline for route in self._routes.values() if route.works]
        pipelines = [one for one in working if one not in self.paused]
        found = await store.begun_by_others(
            self._homes, pipelines, definitions, [*self._results.ids], silent, LOST_AT_ONCE_MAX
        )
        # What goes on here is not lost, also where another engine of the same name has taken this one for gone.
        lost = [one for one in found if one.id not in self._results.ids and not self._is_here(one)]
        kept = {one.id for one in lost if self._making.is_kept(one)}
        # What no engine gets beyond is lost, though it may go on elsewhere.
        struck = await store.struck_attempts() if kept else {}
        for one in lost:
            if one.id in kept and struck.get(one.id) != one.attempt:
                self._taking.add(one.numbers)
            else:
                self._making.lose(one)
        if self._taking:
            # Only one engine goes on with each: who has the row.
            taking = [number for number, _ in self._taking]
            for one in await store.take_executions(taking, self.holder, silent):
                self._making.go_on(one)
            self._taking.clear()
        self._are_more_lost = len(lost) >= LOST_AT_ONCE_MAX
        if self._are_more_lost:
            # The others while these are on their way.
            self._wanted.set()

    def _is_here(self, begun: BegunExecution) -> bool:
        """Whether an attempt goes on here; of those that are kept, whether any at the same execution does."""
        going = self._going.at(begun.address)
        return going is not None and (going.begun.attempt == begun.attempt or self._making.is_kept(begun))

    async def _look_after(self, store: Store) -> None:
        """Stop what runs wait for no more, or whose states they have left, by moves of other engines."""
        if time.monotonic() - self._looked_after < LOOK_AFTER_SECONDS:
            return
        self._looked_after = time.monotonic()
        going = [*self._going.in_turn(LOOK_AFTER_MAX)]
        if going:
            there = await store.executions_there([one.begun.id for one in going])
            for one in going:
                if one.told:
                    continue
                if one.begun.id not in there:
                    self._making.drop(one)
                elif there[one.begun.id]:
                    self._making.stop(one)

    def _look_for_crowds(self) -> None:
        going = self._going
        full = self._rooms.full(Taken(going.places, going.threads, len(going)))
        names = {number: route.name for number, route in self._routes.items()}
        self._crowded.look(full, ((one.place, one.begun.id) for one in going), self._kinds, names)

    def _allowed(self) -> dict[Place, Step[Any, Any]]:
        """Those of pipelines that are not paused."""
        return {place: step for place, step in self._kinds.items() if place[0] not in self.paused}

    def _is_free(self, step: Step[Any, Any]) -> bool:
        """Whether nothing but the room here limits it."""
        circuit = self.breakers.of(step.bounds.breaker)
        return step.bounds.limit is None and (circuit is None or circuit.is_closed)

    def _free(
        self,
        steps: Mapping[Place, Step[Any, Any]],
        ended: AbstractSet[int],
        wanted: Mapping[Place, int],
        first: Container[Place] = (),
    ) -> dict[Place, int]:
        """How many attempts may begin of these; those that have ``ended`` take room until it is durable."""
        places, threads = Counter(self._going.places), self._going.threads
        in_all = len(self._going) + len(ended - self._going.ids)
        for place, many in self._promises.places.items():
            places[place] += many
            threads += many if self._kinds[place].takes_thread else 0
            in_all += many
        return self._rooms.free(steps, Taken(places, threads, in_all), wanted, first)
