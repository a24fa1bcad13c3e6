"""Commands out of the inbox: what people ask of runs, taken up as events along the one road.

``redrive``   put a dead letter's event back: where it holds its run, in its place before those that wait behind it;
              where the broker refused what a run publishes, back into the outbox, behind all that is there by now
``drop``      give a dead letter up: where it holds its run, those that wait go on without it; and where it is the
              failure of a step, the run goes on without that, too
``edit``      the same as redrive, with other data in the event
``event``     an event that a run has sent to another one (``engine.commands.sending``)
``send`` ...  what operators ask of runs, and what completes steps (``engine.commands.operating``)
``release``   a definition that a run's events waited for is loaded again; or more events waited than one of the others
              could take with it (``engine.commands.draining``)
``release_pipeline``  more runs are to go on whose pipeline was resumed than one transaction could ask for

What is for a pipeline that is paused stays in the inbox until it is resumed.

Each is consumed by deleting its row in the transaction of what it causes, so it happens once; those that are of a run
each share one (``engine.commands.together``). A dead letter that is not open any more is left alone: doing it twice
changes nothing the second time.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from connectors.source import RawRecord, Record
from engine import channels
from engine.batch.arrival import Arrival
from engine.batch.batch import Batch
from engine.batch.inside import inner_arrival
from engine.batch.waiting import with_deferred
from engine.commands.cancelling import CANCEL
from engine.commands.draining import Draining, write_row
from engine.commands.operating import PIPELINE_WHATS, RUN_WHATS, WHATS, Operating
from engine.commands.releasing import Releasing
from engine.commands.sending import SentEvents
from engine.commands.stuck import Failure, failure_in, staying_words, would_stay
from engine.commands.telling import kind_of
from engine.commands.together import Room, in_portions
from engine.commands.unheard import UnheardOf
from engine.commands.unsticking import skip_failed
from engine.envelope import decode_headers
from engine.homes import HOMES
from engine.limits import EngineLimits
from engine.outlet import Outlet
from engine.relay.refusals import record_of
from engine.routing import Route, TopicRoute
from engine.session.committer import Committer
from engine.steps.breakers import Told
from engine.store.contract import LostRunsError, RefusedByStoreError, Store, StoreError, TakenTwiceError
from engine.store.values import Command, EndedDeadLetter, Release, StoredDeadLetter
from statemachines.limits import FOLLOWING_MAX
from statemachines.memory import Execution, read_memory
from statemachines.outcome import Ignored, Reason
from statemachines.run import Run
from statemachines.undoing import is_stuck

log = logging.getLogger("pointsman.engine")

TOGETHER_AT_FIRST = 16
"""So many commands of runs are taken up in one commit; then twice as many as there was room for in the one before."""
LOSSES_MAX = 5
"""After as many lost comparisons a command is left for the next round."""


@dataclass(slots=True)
class Attempt:
    """A command as it is tried."""

    command: Command
    events_max: int
    """How many events that waited it may take with it. 0: the store has refused fewer and fewer, down to one."""
    offered: int = 0
    """How many it took with it the last time."""
    refusal: str = ""
    """What the store said of them."""
    following_max: int = FOLLOWING_MAX
    """After how many that the run takes by itself it rests. 0: the store has refused the next one alone."""

    def halve(self, error: StoreError) -> bool:
        """Take fewer the next time; False where it is not for them that the store refused it."""
        if not self.offered:
            return False
        self.events_max, self.offered, self.refusal = self.offered // 2, 0, str(error)
        return True

    def halve_following(self, error: StoreError) -> bool:
        """Have the run take fewer by itself the next time; False where that, too, is not what it is about."""
        if self.command.command != "release" or not self.following_max:
            return False
        self.following_max, self.refusal = self.following_max // 2, str(error)
        return True


class Commands:
    """Takes up the commands for the pipelines that are loaded here."""

    def __init__(
        self,
        store: Store,
        topics: dict[str, TopicRoute],
        routes: Sequence[Route],
        committer: Committer,
        limits: EngineLimits,
        outlet: Outlet,
        hear: Callable[[Told], None],
    ) -> None:
        """``hear`` is called with what breakers are to know of attempts that went on outside."""
        self._store = store
        self._hear = hear
        self._topics = topics
        self._routes = {route.pipeline: route for route in routes}
        self._committer = committer
        self._limits = limits
        self._outlet = outlet
        self._draining = Draining(store, topics, committer, limits)
        self._sent = SentEvents(store, self._routes, committer, outlet)
        self._operating = Operating(store, topics, self._routes, committer, self._draining)
        self._releasing = Releasing(store, topics, self._routes, self._draining)
        self._unheard_of = UnheardOf(limits.inbox_token_seconds)
        self.homes: list[int] = []
        """The homes whose runs' events are taken here."""
        self.takes_events = True
        """Whether events between runs are taken up now, which may publish."""
        self._looked_at = 0.0
        self._found: list[Command] = []
        self.wanted = asyncio.Event()

    async def listen(self) -> None:
        """Hear of new commands at once."""
        await self._store.listen(channels.INBOX, self.wanted.set)
        self.wanted.set()

    async def look(self) -> bool:
        """Whether there are commands; asks if one was announced, and now and then in case a notification was lost."""
        now = time.monotonic()
        if self.wanted.is_set() or now - self._looked_at >= self._limits.inbox_poll_seconds:
            self.wanted.clear()
            self._looked_at = now
            await self._committer.learn_pauses()
            self._found = await self._read(now)
        return bool(self._found)

    async def _read(self, now: float) -> list[Command]:
        """The oldest that wait for nothing; where there may be more, they are wanted next."""
        many, homes = self._limits.inbox_commands_max, self.homes if self.takes_events else ()
        waiting = self._unheard_of.waiting(now)
        found = await self._store.read_inbox(list(self._routes), many, homes, waiting)
        is_cut = len(found) >= many
        if is_cut:
            self.wanted.set()
        return self._unheard_of.but_waiting(found, is_cut=is_cut, now=now)

    async def are_there(self) -> bool:
        """Whether there are any, for whichever engine of the group."""
        return bool(await self._store.read_inbox(list(self._routes), 1, range(HOMES)))

    async def work(self) -> None:
        """Take up what the last look has found, for a while; nothing else must be in flight."""
        # Of pipelines that are paused by now the others wait where they are.
        commands = [one for one in self._found if self._may_be_taken(one)]
        self._found = []
        until = time.monotonic() + self._limits.inbox_seconds_max
        events = [command for command in commands if command.command == "event"]
        if events:
            await self._sent.take(events)
        may = [one for one in commands if one.command != "event" and self._may_be_taken(one)]
        if may:
            await self._committer.learn_strikes([])
        for found in in_portions(await self._but_unknown(may), RUN_WHATS):
            # One of those before them may have paused their pipeline.
            await self._take_all([one for one in found if self._may_be_taken(one)], until)
            if time.monotonic() >= until:
                self.wanted.set()
                return

    def _may_be_taken(self, command: Command) -> bool:
        return command.command in PIPELINE_WHATS or command.pipeline not in self._committer.paused

    async def _but_unknown(self, commands: Sequence[Command]) -> Sequence[Command]:
        """These, without those whose tokens nobody knows although they have waited: that is told in one commit."""
        waited = [one for one in commands if one.awaits_token]
        if not waited:
            return commands
        batch = await self._committer.new_batch(0)
        try:
            unknown = await self._operating.tell_unknown(waited, batch)
            if not unknown:
                return commands
            batch.commit.commands.extend(unknown)
            batch.finish()
            await self._committer.commit(batch)
        except (LostRunsError, RefusedByStoreError):
            # It turns out which it is about, as they are taken up.
            self._committer.forget(batch)
            return commands
        return [one for one in commands if one.id not in unknown]

    async def _take_all(self, commands: Sequence[Command], until: float) -> None:
        """Take these up, of a run each, in as few commits as there is room for, as long as there is time.

        Where such a commit is lost or refused, the one that it is about is found by halving. While an event is known to
        have ended an engine, each has a commit of its own: those before it are durable before another one ends.
        """
        many = TOGETHER_AT_FIRST
        while commands:
            # What runs they are of is at hand of all at once: not of many more than there was room for of late.
            some = commands[:many]
            if len(some) == 1 or self._committer.strikes:
                taken = 1
                await self._go_on_with(await self._take(some[0]), until)
            else:
                taken, is_done, following = await self._take_together(some, until)
                await self._go_on_with(following, until)
                if not is_done:
                    await self._take_halves(some[:taken], until)
            if time.monotonic() >= until:
                return
            many, commands = 2 * taken, [one for one in commands[taken:] if self._may_be_taken(one)]

    async def _take_halves(self, commands: Sequence[Command], until: float) -> None:
        """Of these, take up what nobody else has."""
        left = await self._store.commands_left([one.id for one in commands])
        middle = len(commands) // 2
        for half in (commands[:middle], commands[middle:]):
            await self._take_all([one for one in half if one.id in left and self._may_be_taken(one)], until)
            if time.monotonic() >= until:
                return

    async def _go_on_with(self, following: Command | None, until: float) -> None:
        # At once, or what comes for the run meanwhile would wait, too, and fill what may wait.
        while following is not None and time.monotonic() < until:
            following = await self._take(following)

    async def _take_together(
        self, commands: Sequence[Command], until: float
    ) -> tuple[int, bool, Command | None]:
        """Take up as many of these as there is room for in one commit.

        Returns how many that are; whether it is durable, which it is not where it was lost or refused; and what goes on
        with that.
        """
        batch = await self._committer.new_batch(len(commands))
        room = Room(batch, self._limits.drain_events_max, self._limits.batch_bytes_max, until)
        taken = len(commands)
        try:
            does = self._releasing.take if commands[0].command == "release" else self._operating.take
            taken = await does(commands, room)
            batch.commit.commands.extend(command.id for command in commands[:taken])
            if await self._outlet.learn(batch.commit):
                self._committer.forget(batch)
                return taken, False, None
            batch.finish()
            await self._committer.commit(batch)
        except (LostRunsError, RefusedByStoreError):
            self._committer.forget(batch)
            await self._committer.learn_pauses()
            return taken, False, None
        self._tell_of(batch)
        return taken, True, batch.commit.followed_by

    def _tell_of(self, batch: Batch) -> None:
        """What is durable by now is told to breakers."""
        for told in batch.told:
            self._hear(told)

    async def _take(self, command: Command) -> Command | None:
        """Take a command up; returns the one that goes on with what it has begun, if there is more to do."""
        losses = 0
        attempt = Attempt(command, self._limits.drain_events_max)
        while losses < LOSSES_MAX:
            batch = await self._committer.new_batch(len(self._routes))
            batch.commit.commands.append(command.id)
            try:
                await self._apply(attempt, batch)
                if await self._outlet.learn(batch.commit):
                    self._committer.forget(batch)
                    losses += 1
                    continue
                batch.finish()
                await self._committer.commit(batch)
            except (RefusedByStoreError, TakenTwiceError) as error:
                self._committer.forget(batch)
                if not attempt.halve(error) and not attempt.halve_following(error):
                    await self._discard(command, error)
                    return None
            except LostRunsError:
                self._committer.forget(batch)
                losses += 1
                await self._committer.learn_pauses()
                if not self._may_be_taken(command) or not await self._store.commands_left([command.id]):
                    return None
            else:
                self._tell_of(batch)
                if command.command in PIPELINE_WHATS:
                    await self._committer.learn_pauses()
                return batch.commit.followed_by
        return None

    async def _discard(self, command: Command, error: StoreError) -> None:
        """Say of what the store does not take that it is not done; where it does not take that either, drop it."""
        log.error("command %s (%s) is refused by the store: %s", command.id, command.command, kind_of(error))
        batch = await self._committer.new_batch(0)
        batch.commit.commands.append(command.id)
        if command.command in WHATS:
            self._operating.refuse(command, batch, str(error))
            batch.finish()
        # Where it is lost, another engine, which was refused the same, has dealt with it first.
        with contextlib.suppress(LostRunsError):
            try:
                await self._committer.commit(batch)
            except RefusedByStoreError as again:
                await self._drop(command, again)

    async def _drop(self, command: Command, error: RefusedByStoreError) -> None:
        # It would come back for ever, and the commands behind it with it.
        log.error(
            "command %s (%s), asked by %s, is dropped, and who asked is not answered: Postgres refuses it, and that it "
            "is told of as refused (%s). Mend what refuses it, a trigger on the tables of Pointsman for instance, and "
            "ask again",
            *(command.id, command.command, command.who, kind_of(error)),
        )
        batch = await self._committer.new_batch(0)
        batch.commit.commands.append(command.id)
        await self._committer.commit(batch)

    async def _apply(self, attempt: Attempt, batch: Batch) -> None:
        command = attempt.command
        body: dict[str, Any] = orjson.loads(command.body)
        match command.command:
            case "redrive" | "drop" | "edit":
                letter = await self._store.load_dead_letter(int(body["dead_letter"]))
                if letter is not None and letter.status == "open":
                    await self._end_dead_letter(attempt, letter, batch)
            case "release":
                batch.following_max = attempt.following_max
                room = self._room(attempt, batch)
                await self._releasing.take([command], room, attempt.refusal)
                attempt.offered = room.events
            case "release_pipeline":
                rest = Release(command.pipeline or 0, int(body["after"]), command.who, command.why)
                batch.commit.released.append(rest)
            case what if what in WHATS:
                room = self._room(attempt, batch)
                await self._operating.take([command], room)
                attempt.offered = room.events
            case unknown:
                log.error(
                    "the inbox has a command %r that this version does not know; it is dropped", unknown
                )

    def _room(self, attempt: Attempt, batch: Batch) -> Room:
        return Room(batch, attempt.events_max, self._limits.batch_bytes_max, until=math.inf)

    async def _end_dead_letter(self, attempt: Attempt, letter: StoredDeadLetter, batch: Batch) -> None:
        command = attempt.command
        redriven = command.command != "drop"
        if redriven and letter.reason == Reason.REFUSED_BY_BROKER:
            self._publish_again(command, letter, batch)
            return
        status = "redriven" if redriven else "dropped"
        run = await self._run_of(letter)
        holder = run is not None and letter.sequence is not None and run.held == letter.sequence
        cancels = redriven and letter.type == CANCEL and letter.position is None
        if (holder or cancels) and run is not None and self._is_not_loaded(letter.pipeline, run):
            log.error(
                "dead letter %s is of the run %r, which follows a version of its pipeline that is not loaded here; "
                "it stays open",
                letter.id,
                run.key,
            )
            return
        if holder and run is not None and not redriven:
            needed = self._why_needed(letter, run)
            if needed:
                log.error("dead letter %s holds the run %r, %s", letter.id, run.key, needed)
                return
        record = await self._record_of(letter)
        edited = edited_value(command)
        if edited is not None:
            record = record._replace(value=edited)
        topic = self._topics.get(record.topic)
        if not letter.position and letter.pipeline in self._routes:
            topic = self._routes[letter.pipeline].inner
        if redriven and topic is None:
            log.error(
                "dead letter %s is of the topic %r, which no pipeline loaded here reads; it stays open",
                letter.id,
                record.topic,
            )
            return
        batch.commit.ended.append(EndedDeadLetter(letter.id, status, command.who, command.why, edited=edited))
        if holder and run is not None and letter.pipeline is not None:
            write_row(command, f"pointsman.{command.command}", self._routes[letter.pipeline], run, batch)
            if not redriven:
                await self._skip(command, letter, self._routes[letter.pipeline], run, batch)
        if redriven and topic is not None:
            await self._offer(record, letter, topic, batch)
        if (holder or cancels) and run is not None and letter.pipeline is not None:
            await self._drain(attempt, self._routes[letter.pipeline], run.key, batch)

    def _why_needed(self, letter: StoredDeadLetter, run: Run) -> str:
        """Why a run cannot go on without what holds it, as the end of a sentence; empty: it can."""
        route = self._routes[letter.pipeline or 0]
        if is_stuck(read_memory(run.memory)):
            return (
                "which is being undone and could not go on without it; it stays open. "
                f"Redrive it, and it is tried again; or have the run skip it: pointsman skip {route.name} {run.key}"
            )
        failure = _failure_of(letter, run)
        if failure is None or not would_stay(route.machines[run.definition].structure, failure.execution):
            return ""
        return f"and {staying_words(failure.execution)}; it stays open. Resolve or retry the step, or cancel the run"

    async def _skip(
        self, command: Command, letter: StoredDeadLetter, route: Route, run: Run, batch: Batch
    ) -> None:
        """Of a step's failure: the run goes on without the step, as by ``skip``."""
        failure = _failure_of(letter, run)
        if failure is not None:
            await self._committer.learn_strikes([])
            skip_failed(route, run, route.machines[run.definition], failure, command.who, batch)

    def _publish_again(self, command: Command, letter: StoredDeadLetter, batch: Batch) -> None:
        # Its old place is gone: what the run published since may have been read. So it goes to the end.
        record = record_of(letter)
        if record is None:
            log.error("dead letter %s does not say what topic it was for; it stays open", letter.id)
            return
        batch.commit.out.append(record)
        batch.commit.ended.append(
            EndedDeadLetter(letter.id, "redriven", command.who, command.why, publishing="pending")
        )

    def _is_not_loaded(self, pipeline: int | None, run: Run) -> bool:
        # Its hold is not lifted then: what waits could not go on, and nothing would say why.
        return pipeline is not None and run.definition not in self._routes[pipeline].machines

    async def _drain(self, attempt: Attempt, route: Route, key: str, batch: Batch) -> None:
        attempt.offered = await self._draining.go_on(attempt.command, route, key, batch, attempt.events_max)

    async def _run_of(self, letter: StoredDeadLetter) -> Run | None:
        route = None if letter.pipeline is None else self._routes.get(letter.pipeline)
        if route is None or letter.key is None or letter.run is None:
            return None
        found = await self._store.load_runs(route.pipeline, [letter.key])
        for run in await with_deferred(route, found, self._store, self._topics):
            route.cache[run.key] = run
            return run if run.id == letter.run else None
        return None

    async def _record_of(self, letter: StoredDeadLetter) -> RawRecord:
        origin = await self._store.origin_of(letter.position)
        return RawRecord(
            origin.topic,
            origin.partition,
            letter.offset or 0,
            letter.record_time,
            letter.record_key,
            letter.record_value,
            decode_headers(letter.record_headers),
        )

    async def _offer(self, record: Record, letter: StoredDeadLetter, topic: TopicRoute, batch: Batch) -> None:
        if not letter.position and letter.pipeline is not None and letter.key is not None:
            await self._committer.learn_strikes([])
            arrivals = [inner_arrival(self._routes[letter.pipeline], letter.key, _raw(record))]
            await self._committer.load(batch, arrivals, len(arrivals))
            if _is_of_another_run(letter, arrivals[0]):
                batch.settle(arrivals[0], None, Ignored(Reason.VOID), batch.commit.at, None)
            elif batch.can_cancel(arrivals[0]):
                batch.cancel(arrivals[0])
            else:
                batch.meet(arrivals)
            batch.rest()
            return
        # Its id may be made of where it came from, which need not be the cluster that is read now.
        cluster = (await self._store.origin_of(letter.position)).cluster
        only: list[int | None] = [letter.pipeline]
        if letter.pipeline is None:
            only = [route.pipeline for route in topic.routes]
        # Neither the record's partition nor those of the events that wait need be ours.
        await self._committer.learn_strikes([letter.position])
        batch.read_each(record, letter.position, topic, cluster, only)
        await self._committer.have_ids(len(batch.arrivals))
        batch.close_range(letter.position)
        await self._committer.load(batch, batch.arrivals, len(batch.arrivals))
        batch.meet(batch.arrivals)
        batch.rest()


def _is_of_another_run(letter: StoredDeadLetter, arrival: Arrival) -> bool:
    """Whether a dead letter is of what its run asked for itself, or cancels it, and its key has another run by now."""
    run, delayed = arrival.route.cache.get(arrival.key), arrival.delayed
    is_own = isinstance(delayed, Execution) or (delayed is not None and delayed.is_own)
    is_own = is_own or letter.type == CANCEL
    return is_own and run is not None and letter.run is not None and run.id != letter.run


def edited_value(command: Command) -> bytes | None:
    """What a dead letter's record is to be offered with instead of its own value."""
    value = orjson.loads(command.body).get("value")
    return None if value is None else base64.b64decode(value)


def _raw(record: Record) -> RawRecord:
    assert isinstance(record, RawRecord), "it was read from the table"
    return record


def _failure_of(letter: StoredDeadLetter, run: Run) -> Failure | None:
    """The failure of a step that a dead letter from inside of its run tells of; None: it tells of none."""
    return None if letter.position else failure_in(run, letter.type or "", letter.record_value)
