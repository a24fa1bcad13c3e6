"""Commands out of the inbox: what people ask of runs, taken up as events along the one road.

``redrive``   put a dead letter's event back: where it holds its run, in its place before those that wait behind it;
              where the broker refused what a run publishes, back into the outbox, behind all that is there by now
``drop``      give a dead letter up: where it holds its run, those that wait go on without it
``release``   a definition that a run's events waited for is loaded again

Each is consumed by deleting its row in the transaction of what it causes, so it happens once. A dead letter that is not
open any more is left alone: doing it twice changes nothing the second time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import orjson

from connectors.decode import Decoded, Unreadable, decode
from connectors.source import RawRecord, Record
from engine.arrival import Arrival
from engine.batch import Batch
from engine.committer import Committer
from engine.envelope import decode_envelope, decode_headers
from engine.ledger import WAITING_EVENTS_MAX
from engine.limits import EngineLimits
from engine.loading import ask_for_seen, load_for
from engine.log import digest_bytes, microseconds
from engine.outlet import Outlet
from engine.relay.refusals import record_of
from engine.routing import Route, TopicRoute
from engine.store.contract import (
    Command,
    EndedDeadLetter,
    LostRunsError,
    RefusedByStoreError,
    Store,
    StoredDeadLetter,
    WaitingEvent,
)
from statemachines.outcome import Reason
from statemachines.run import Run

log = logging.getLogger("pointsman.engine")

CHANNEL = "pointsman_inbox"
LOSSES_MAX = 5
"""After as many lost comparisons a command is left for the next round."""


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
    ) -> None:
        self._store = store
        self._topics = topics
        self._routes = {route.pipeline: route for route in routes}
        self._committer = committer
        self._limits = limits
        self._outlet = outlet
        self._looked_at = 0.0
        self._found: list[Command] = []
        self.wanted = asyncio.Event()

    async def listen(self) -> None:
        """Hear of new commands at once."""
        await self._store.listen(CHANNEL, self.wanted.set)
        self.wanted.set()

    async def look(self) -> bool:
        """Whether there are commands; asks if one was announced, and now and then in case a notification was lost."""
        now = time.monotonic()
        if self.wanted.is_set() or now - self._looked_at >= self._limits.inbox_poll_seconds:
            self.wanted.clear()
            self._looked_at = now
            self._found = await self._store.read_inbox(list(self._routes), self._limits.inbox_commands_max)
        return bool(self._found)

    async def work(self) -> None:
        """Take up what the last look has found; nothing else must be in flight."""
        commands, self._found = self._found, []
        for command in commands:
            await self._take(command)
        if len(commands) >= self._limits.inbox_commands_max:
            self.wanted.set()

    async def _take(self, command: Command) -> None:
        for _ in range(LOSSES_MAX):
            batch = await self._committer.new_batch(len(self._routes))
            batch.commit.commands.append(command.id)
            try:
                await self._apply(command, batch)
                if await self._outlet.learn(batch.commit):
                    self._committer.forget(batch)
                    continue
                batch.finish()
                await self._committer.commit(batch)
            except LostRunsError:
                self._committer.forget(batch)
                if not await self._store.has_command(command.id):
                    return
            except RefusedByStoreError as error:
                self._committer.forget(batch)
                # What Postgres says of data that it refuses may quote it.
                kind = type(error.__cause__ or error).__name__
                log.error("command %s (%s) is refused by the store: %s", command.id, command.command, kind)  # noqa: TRY400
                await self._discard(command)
                return
            else:
                return

    async def _discard(self, command: Command) -> None:
        batch = await self._committer.new_batch(0)
        batch.commit.commands.append(command.id)
        await self._committer.commit(batch)

    async def _apply(self, command: Command, batch: Batch) -> None:
        body: dict[str, Any] = orjson.loads(command.body)
        match command.command:
            case "redrive" | "drop":
                letter = await self._store.load_dead_letter(int(body["dead_letter"]))
                if letter is not None and letter.status == "open":
                    await self._end_dead_letter(command, letter, batch)
            case "release":
                await self._release(command, int(body["run"]), int(body["held"]), batch)
            case unknown:
                log.error(
                    "the inbox has a command %r that this version does not know; it is dropped", unknown
                )

    async def _end_dead_letter(self, command: Command, letter: StoredDeadLetter, batch: Batch) -> None:
        redriven = command.command == "redrive"
        if redriven and letter.reason == Reason.REFUSED_BY_BROKER:
            self._publish_again(command, letter, batch)
            return
        status = "redriven" if redriven else "dropped"
        run = await self._run_of(letter)
        holder = run is not None and letter.sequence is not None and run.held == letter.sequence
        if holder and run is not None and self._is_not_loaded(letter.pipeline, run):
            log.error(
                "dead letter %s holds the run %r, which follows a version of its pipeline that is not loaded here; "
                "it stays open",
                letter.id,
                run.key,
            )
            return
        record = await self._record_of(letter)
        topic = self._topics.get(record.topic)
        if redriven and topic is None:
            log.error(
                "dead letter %s is of the topic %r, which no pipeline loaded here reads; it stays open",
                letter.id,
                record.topic,
            )
            return
        batch.commit.ended.append(EndedDeadLetter(letter.id, status, command.who, command.why))
        if holder and run is not None and letter.pipeline is not None:
            self._lift(command, self._routes[letter.pipeline], run, batch)
        if redriven and topic is not None:
            await self._offer(record, letter, topic, batch)
        if holder and run is not None and letter.pipeline is not None:
            await self._drain(self._routes[letter.pipeline], run.key, batch)

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

    async def _release(self, command: Command, number: int, held: int, batch: Batch) -> None:
        found = await self._store.run_by_id(number)
        route = self._routes.get(command.pipeline or 0)
        if found is None or route is None or found.held != held:
            return
        route.cache[found.key] = found
        if found.definition in route.machines:
            self._lift(command, route, found, batch)
            await self._drain(route, found.key, batch)

    async def _run_of(self, letter: StoredDeadLetter) -> Run | None:
        route = None if letter.pipeline is None else self._routes.get(letter.pipeline)
        if route is None or letter.key is None or letter.run is None:
            return None
        for run in await self._store.load_runs(route.pipeline, [letter.key]):
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

    def _lift(self, command: Command, route: Route, run: Run, batch: Batch) -> None:
        payload = orjson.dumps({"command": command.command, "who": command.who, "why": command.why})
        milliseconds = microseconds(command.at) // 1000
        batch.command_row(
            route, run, f"pointsman.{command.command}", f"command/{command.id}", payload, milliseconds
        )

    async def _offer(self, record: Record, letter: StoredDeadLetter, topic: TopicRoute, batch: Batch) -> None:
        # Its id may be made of where it came from, which need not be the cluster that is read now.
        cluster = (await self._store.origin_of(letter.position)).cluster
        decoded = decode(record, topic.topic, cluster)
        if isinstance(decoded, Unreadable):
            batch.refuse_record(record, letter.position, topic, Reason.UNREADABLE, decoded.error, decoded)
            return
        pipelines = [letter.pipeline]
        if letter.pipeline is None and decoded.envelope.type in topic.readers:
            pipelines = [route.pipeline for route in topic.routes]
        for pipeline in pipelines:
            # A copy for each, so that no handler sees what one of another pipeline has done to the data.
            own = decode(record, topic.topic, cluster)
            assert isinstance(own, Decoded), "decoding is pure"
            batch.match(record, letter.position, topic, own, only=pipeline)
        batch.close_range(letter.position)
        await load_for(batch, self._store)
        # Neither the record's partition nor those of the events that wait need be ours.
        await self._committer.learn_strikes([letter.position])
        batch.meet(batch.arrivals)
        batch.rest()

    async def _drain(self, route: Route, key: str, batch: Batch) -> None:
        """Offer what waits, oldest first, until something holds the run again."""
        run = route.cache[key]
        if run.held or not run.waiting:
            return
        events = await self._store.waiting_events(run.id, WAITING_EVENTS_MAX)
        arrivals = [(event.sequence, await self._arrival(event, route, run)) for event in events]
        await ask_for_seen(batch, [arrival for _, arrival in arrivals], self._store)
        await self._committer.learn_strikes({event.position for event in events})
        for sequence, arrival in arrivals:
            if route.cache[key].held:
                break
            batch.meet((arrival,), after_wait=sequence)
        batch.rest()

    async def _arrival(self, event: WaitingEvent, route: Route, run: Run) -> Arrival:
        cluster, topic_name, partition = await self._store.origin_of(event.position)
        time_, key, headers = decode_envelope(event.envelope, run.key.encode())
        record = RawRecord(topic_name, partition, event.offset or 0, time_, key, event.payload, headers)
        topic = self._topics.get(topic_name) or next(iter(self._topics.values()))
        decoded = decode(record, topic.topic, cluster)
        assert not isinstance(decoded, Unreadable), "it could be read when it came"
        return Arrival(route, run.key, record, event.position, topic, decoded, digest_bytes(event.digest))
