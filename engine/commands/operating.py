"""What operators ask of runs, by pipeline and key, taken up out of the inbox as events along the one road.

``send``     an event, as if from a topic
``pause``    hold the run: what comes for it waits, and nothing of it falls due
``resume``   lift that hold; what waited goes on
``cancel``   end the run, or have it go where its pipeline says, whatever holds it
``pause_pipeline``, ``resume_pipeline``   the same for all its runs, and those to come (``engine.batch.pausing``)
``retry``, ``skip``, ``resolve``   what is to become of a run that a failed step holds (``engine.commands.unsticking``)
``map``      have a run follow another definition, in place of one that is not loaded (``engine.commands.mapping``)
``complete`` and ``fail``  say how a step ended that goes on outside (``engine.steps.completing``)

What became of each is kept beside what it did, in the same transaction (``Operation``): whoever asked reads it there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from engine.batch.arrival import Arrival
from engine.batch.batch import Batch
from engine.batch.settling import WAITING_EVENTS_MAX
from engine.batch.waiting import with_deferred
from engine.commands.answering import NOT_LOADED, Answer, Asked, held_by, not_running, told
from engine.commands.draining import Draining, write_row
from engine.commands.mapping import MappingRuns
from engine.commands.operators import cancellation, command_id, operators_arrival
from engine.commands.together import Room
from engine.commands.unsticking import STUCK_WHATS, Unsticking
from engine.commands.words import resume_command, run_command
from engine.log import PIPELINE_PAUSED, Kind
from engine.routing import Route, TopicRoute
from engine.session.committer import Committer
from engine.steps.completing import Completed, Completing, Completion
from engine.store.contract import Store
from engine.store.values import Command, Hold, Operation, Pause, Release
from statemachines.durations import told_time
from statemachines.effects import COMPLETES
from statemachines.memory import read_memory
from statemachines.outcome import Reason, Refused
from statemachines.run import Run, Status
from statemachines.undoing import places

PIPELINE_WHATS = frozenset({"pause_pipeline", "resume_pipeline"})
RUN_WHATS = frozenset({"send", "pause", "resume", "cancel", "map"}) | STUCK_WHATS
"""What is asked of a run by its key, beside what completes its steps."""
WHATS = RUN_WHATS | PIPELINE_WHATS | COMPLETES


class _Found(NamedTuple):
    """A command of a run, with what the store has of that now."""

    command: Command
    body: dict[str, Any]
    route: Route
    run: Run | None
    hold: Hold | None
    """What holds it."""

    @property
    def key(self) -> str:
        """The run's."""
        return str(self.body["key"])


class Operating:
    """Does them."""

    def __init__(
        self,
        store: Store,
        topics: Mapping[str, TopicRoute],
        routes: Mapping[int, Route],
        committer: Committer,
        draining: Draining,
    ) -> None:
        self._store = store
        self._topics = topics
        self._routes = routes
        self._committer = committer
        self._draining = draining
        self._unsticking = Unsticking(draining)
        self._mapping = MappingRuns(store, draining)
        self._completing = Completing(store, routes, committer)

    async def take(self, commands: Sequence[Command], room: Room) -> int:
        """Have a batch do what these commands ask, of a run each, as far as there is room; returns how many it took."""
        [first, *_] = commands
        if first.command in COMPLETES:
            return await self._complete(commands, room)
        if first.command in PIPELINE_WHATS:
            answer = await self._of_pipeline(first, self._routes[first.pipeline or 0], room.batch)
            _note(first, orjson.loads(first.body), None, room.batch, answer)
            return 1
        found = await self._find(commands)
        for number, one in enumerate(found):
            if number and not room.is_enough_for(one.run):
                return number
            answer = await self._do(one, room)
            _note(one.command, one.body, one.run, room.batch, answer)
            await room.take(one.command, one.route, one.key, answer.offered)
        return len(found)

    async def _do(self, found: _Found, room: Room) -> Answer:
        command, body, route, run, hold = found
        if _is_for_key(command, body):
            return await self._send(command, body, room.batch)
        if run is None:
            return Answer(done=False, sentence=f"{route.name} has no run with the key {found.key!r}.")
        asked = Asked(command, route, run, room.batch, room.events_max)
        if [run.generation, run.sequence][: len(as_of := body.get("as_of", ()))] != [*as_of]:
            # It was chosen by what it was then: by its generation, and where its rows matter by those.
            return Answer(done=False, sentence=f"{asked.name} has moved since it was chosen. Choose again.")
        match command.command:
            case "send":
                return await self._send(command, body, room.batch)
            case "map":
                return await self._mapping.do(asked, hold)
            case "pause":
                return self._pause(asked, hold)
            case "resume":
                return await self._resume(asked, hold)
            case "cancel":
                return await self._cancel(asked, hold)
        return await self._unsticking.do(asked, hold)

    async def _find(self, commands: Sequence[Command]) -> list[_Found]:
        """With their runs as the store has them now, in the cache: what is answered rests on that.

        An event that is sent to a key is for whichever run that has then.
        """
        bodies: list[dict[str, Any]] = [orjson.loads(command.body) for command in commands]
        many = list(zip(commands, bodies, strict=True))
        named = [(one.pipeline or 0, str(body["key"])) for one, body in many if not _is_for_key(one, body)]
        runs = await self._load(named)
        holds = await self._holds(runs.values())
        return [
            _Found(
                one,
                body,
                self._routes[one.pipeline or 0],
                run := None if _is_for_key(one, body) else runs.get((one.pipeline or 0, str(body["key"]))),
                None if run is None else holds.get(run.id),
            )
            for one, body in many
        ]

    async def _holds(self, runs: Iterable[Run]) -> Mapping[int, Hold]:
        """By run, what holds those that are held."""
        held = {run.id: run.held for run in runs if run.held}
        holds = await self._store.holds_of(list(held.items())) if held else {}
        assert holds.keys() == held.keys(), "a run is held by a row of its log"
        return holds

    async def _complete(self, commands: Sequence[Command], room: Room) -> int:
        """Have a batch complete steps that go on outside, of a run each, as far as there is room; returns how many."""
        completions = await self._completions(commands)
        runs = {id(one.run): one.run for one in completions if one.run is not None}
        await self._committer.have_ids(sum(1 + len(run.deferred) for run in runs.values()))
        for number, one in enumerate(completions):
            # What waits for a run does so behind what completes its step.
            if number and not room.is_enough_for(None):
                return number
            became = await self._completing.take(*one, room.batch)
            _note_completion(one, became, room.batch)
            await room.take(one.command, one.route, str(one.body["key"]), 0)
        return len(completions)

    async def tell_unknown(self, commands: Sequence[Command], batch: Batch) -> set[int]:
        """Have a batch say of those that complete nothing that nobody knows their tokens; returns which they are.

        They move nothing: so there may be any number of one run.
        """
        unknown = set[int]()
        for one in await self._completions(commands):
            became = self._completing.unknown(*one)
            if became is not None:
                _note_completion(one, became, batch)
                unknown.add(one.command.id)
        return unknown

    async def _completions(self, commands: Sequence[Command]) -> list[Completion]:
        """With what the store knows of their runs and tokens now."""
        bodies: list[dict[str, Any]] = [orjson.loads(command.body) for command in commands]
        places = [
            (command.pipeline or 0, str(body["key"])) for command, body in zip(commands, bodies, strict=True)
        ]
        runs = await self._load(places)
        tokens = await self._store.find_tokens([body["token"] for body in bodies])
        return [
            Completion(command, body, self._routes[place[0]], runs.get(place), tokens.get(body["token"]))
            for command, body, place in zip(commands, bodies, places, strict=True)
        ]

    def refuse(self, command: Command, batch: Batch, error: str) -> None:
        """Say of what the store does not take that it is not done; of an event, by a dead letter."""
        body: dict[str, Any] = orjson.loads(command.body)
        answer = Answer(
            done=False, sentence="The store does not take what it does, as the engine's log says."
        )
        if command.command == "send":
            arrival = self._arrival(command, body)
            refused = Refused(Reason.REFUSED_BY_STORE, error, holds=False)
            batch.refuse(arrival, None, refused, batch.commit.at, None)
            answer = answer._replace(event_id=body["event_id"])
        _note(command, body, None, batch, answer)

    async def _send(self, command: Command, body: dict[str, Any], batch: Batch) -> Answer:
        arrival = self._arrival(command, body)
        route, event_type = arrival.route, arrival.decoded.envelope.type
        refused: Refused | None = None
        if event_type in route.events:
            await self._committer.load(batch, [arrival], 1)
            await self._committer.have_ids(1)
            goes_on, refused = batch.look_ahead(arrival)
            if goes_on and body.get("begins"):
                return Answer(done=False, sentence=_goes_on(route.name, route.cache[arrival.key]))
        else:
            error = f"{route.name} knows no type {event_type!r}; {command.who} has sent the event"
            refused = Refused(Reason.UNKNOWN_TYPE, error, holds=False)
        if refused is None:
            batch.meet([arrival])
            batch.rest()
        else:
            batch.settle(arrival, route.cache.get(arrival.key), refused, batch.commit.at, None)
        return Answer(done=True, sentence="", event_id=body["event_id"])

    async def _of_pipeline(self, command: Command, route: Route, batch: Batch) -> Answer:
        await self._committer.learn_pauses()
        pause, name = self._committer.paused.get(route.pipeline), route.name
        if command.command == "pause_pipeline":
            if pause is not None:
                said = f"{name} is paused already: by {pause.who} at {told_time(pause.at)}, {pause.why}."
                return Answer(done=True, sentence=said)
            batch.commit.paused.append(
                Pause(route.pipeline, command.id, command.who, command.why, batch.commit.at)
            )
            said = (
                f"{name} is paused: what comes for its runs waits, of which at most {WAITING_EVENTS_MAX:,} events of "
                f"one run may, no timer fires and no step begins. To let it go on: {resume_command(name)}."
            )
            return Answer(done=True, sentence=said)
        if pause is None:
            return Answer(done=True, sentence=f"{name} is not paused: nothing was to be done.")
        batch.commit.resumed.append(pause)
        batch.commit.released.append(Release(route.pipeline, 0, command.who, command.why))
        return Answer(
            done=True, sentence=f"{name} goes on; runs for which something has waited, one after the other."
        )

    def _pause(self, asked: Asked, hold: Hold | None) -> Answer:
        name, run = asked.name, asked.run
        if run.status != Status.RUNNING:
            return Answer(done=False, sentence=not_running(asked))
        if hold is not None:
            if hold.kind != Kind.PAUSED:
                return Answer(done=False, sentence=f"{name} is not paused: {held_by(asked, hold)}")
            # What its pipeline was paused for is about to be over.
            if hold.type != PIPELINE_PAUSED:
                sentence = f"{name} is paused already: {told(hold)} (row {run.held})."
                return Answer(done=True, sentence=sentence)
        write_row(asked.command, "pointsman.pause", asked.route, run, asked.batch, Kind.PAUSED)
        sentence = (
            f"{name} is paused (row {run.sequence + 1}): what comes for it waits, and its timers do not fire. To let "
            f"it go on: {run_command('resume', asked.route.name, run.key)}."
        )
        return Answer(done=True, sentence=sentence)

    async def _resume(self, asked: Asked, hold: Hold | None) -> Answer:
        name, run, route = asked.name, asked.run, asked.route
        if hold is None:
            if run.status != Status.RUNNING:
                return Answer(done=False, sentence=not_running(asked))
            return Answer(done=True, sentence=f"{name} is not paused: nothing was to be done.")
        if hold.kind != Kind.PAUSED:
            return Answer(done=False, sentence=f"{name} is not paused: {held_by(asked, hold)}")
        if run.status == Status.RUNNING and run.definition not in route.machines:
            return Answer(done=False, sentence=f"{name} stays paused: {NOT_LOADED}")
        write_row(asked.command, "pointsman.resume", route, run, asked.batch)
        offered = await self._draining.go_on(asked.command, route, run.key, asked.batch, asked.events_max)
        waited = f"; {run.behind} events had waited" if run.behind else ""
        return Answer(True, f"{name} goes on (row {run.sequence + 1}){waited}.", offered)

    async def _cancel(self, asked: Asked, hold: Hold | None) -> Answer:
        name, run, route, batch = asked.name, asked.run, asked.route, asked.batch
        if run.has_ended:
            row = await self._store.cancellation_of(run.id)
            cancelled = "" if row is None else f" It was cancelled {told(row)}."
            was = row is not None or run.status == Status.CANCELLED
            return Answer(was, f"{not_running(asked)}{cancelled}")
        if run.status != Status.RUNNING:
            return Answer(done=False, sentence=not_running(asked))
        if run.definition not in route.machines:
            return Answer(done=False, sentence=f"{name} is not cancelled: {NOT_LOADED}")
        if "" in places(read_memory(run.memory)):
            stays = "" if hold is None else f" But {held_by(asked, hold)}"
            return Answer(
                done=True, sentence=f"{name} is being undone already, and nothing cuts that short.{stays}"
            )
        batch.cancel(operators_arrival(route, run.key, cancellation(asked.command, route), asked.command.at))
        batch.rest()
        offered = await self._draining.go_on(asked.command, route, run.key, batch, asked.events_max)
        return Answer(*_cancelled(asked), offered, command_id(asked.command))

    async def _load(self, places: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Run]:
        """Of these pipelines and keys the runs as the store has them now, in the caches."""
        loaded: dict[tuple[int, str], Run] = {}
        for number in dict.fromkeys(number for number, _ in places):
            route = self._routes[number]
            found = await self._store.load_runs(number, [key for one, key in places if one == number])
            for run in await with_deferred(route, found, self._store, self._topics):
                loaded[number, run.key] = route.cache[run.key] = run
        return loaded

    def _arrival(self, command: Command, body: dict[str, Any]) -> Arrival:
        return operators_arrival(self._routes[command.pipeline or 0], body["key"], body["event"], command.at)


def _is_for_key(command: Command, body: Mapping[str, Any]) -> bool:
    """Whether a command is for whichever run its key has, or begins."""
    return command.command == "send" and "as_of" not in body


def _goes_on(pipeline: str, run: Run) -> str:
    """Why an event that is to begin a run does nothing."""
    held = f", held since row {run.held}" if run.held else ""
    where = f"in {' '.join(run.states)} (row {run.sequence}{held})"
    return f"The run {run.key!r} of {pipeline} goes on already, {where}. Nothing was sent."


def _cancelled(asked: Asked) -> tuple[bool, str]:
    """Whether a run is cancelled by now, and what became of it, before what had waited."""
    event_id = command_id(asked.command)
    for letter in asked.batch.commit.dead_letters:
        if letter.event_id == event_id:
            return False, f"{asked.name} is not cancelled ({letter.reason}): {letter.error}"
    return True, f"{asked.name} is cancelled (row {asked.run.sequence + 1})."


def _note_completion(completion: Completion, became: Completed, batch: Batch) -> None:
    answer = Answer(became.done, became.sentence, event_id=became.event_id)
    _note(completion.command, completion.body, completion.run, batch, answer)


def _note(command: Command, body: dict[str, Any], run: Run | None, batch: Batch, answer: Answer) -> None:
    batch.commit.operations.append(
        Operation(
            command=command.id,
            pipeline=command.pipeline or 0,
            key=body["key"],
            what=command.command,
            event_id=answer.event_id,
            run=None if run is None else run.id,
            done=answer.done,
            answer=answer.sentence,
            who=command.who,
            why=command.why,
            asked=command.at,
            at=batch.commit.at,
        )
    )
