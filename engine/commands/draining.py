"""What waited behind a hold goes on, oldest first, in portions that fit into one commit each.

Until the last portion the run stays held, by a row of kind DRAINING, so that whatever comes meanwhile waits behind the
rest. The command that goes on with it is put into the inbox in the transaction of the portion before: whoever takes it
up, and after whatever crash, goes on from there, and of two who do one finds that it is done.
"""

from __future__ import annotations

import orjson

from engine.batch.batch import Batch
from engine.batch.loading import ask_for_seen
from engine.batch.waiting import arrival_of
from engine.commands.operators import command_id
from engine.limits import EngineLimits
from engine.log import Kind, microseconds
from engine.routing import Route, TopicRoute
from engine.session.committer import Committer
from engine.store.contract import Store
from engine.store.values import Command, Commit, FollowUp
from statemachines.outcome import Reason, Refused
from statemachines.run import Run


class Draining:
    """Offers what waits to the runs that are held no more."""

    def __init__(
        self, store: Store, topics: dict[str, TopicRoute], committer: Committer, limits: EngineLimits
    ) -> None:
        self._store = store
        self._topics = topics
        self._committer = committer
        self._limits = limits

    async def go_on(self, command: Command, route: Route, key: str, batch: Batch, events_max: int) -> int:
        """Offer so many events at most, and have the rest wait for the next command; returns how many were offered."""
        # What is deferred for the run may begin one of its own, each event one, once the run has ended.
        await self._committer.have_ids(len(route.cache[key].deferred) + events_max)
        before = len(batch.commit.rows), len(batch.commit.out)
        # What goes on by itself is older than what waits behind the hold.
        batch.follow(route, key)
        run = route.cache[key]
        if run.held or not run.behind:
            return 0
        offered = await self._offer(route, run, batch, events_max, before) if events_max else 0
        run = route.cache[key]
        if not run.behind:
            # What was deferred for a run that has ended meanwhile is for the next generation of its key.
            batch.follow(route, key)
        elif not run.held:
            _hold_for_rest(command, route, run, batch)
        return offered

    async def refuse_oldest(self, route: Route, key: str, batch: Batch, error: str) -> None:
        """Make the oldest event, which the store does not take as a move, a dead letter that holds the run."""
        run = route.cache[key]
        for event in await self._store.waiting_events(run.id, 1, 0):
            arrival = await arrival_of(event, route, run.key, self._store, self._topics)
            at = max(batch.commit.at, run.updated)
            batch.refuse(
                arrival, run, Refused(Reason.REFUSED_BY_STORE, error, holds=True), at, event.sequence
            )

    async def _offer(
        self, route: Route, run: Run, batch: Batch, events_max: int, before: tuple[int, int]
    ) -> int:
        bytes_max = self._limits.batch_bytes_max
        events = await self._store.waiting_events(run.id, events_max, bytes_max)
        arrivals = [await arrival_of(event, route, run.key, self._store, self._topics) for event in events]
        await ask_for_seen(batch, arrivals, self._store)
        await self._committer.learn_strikes({event.position for event in events})
        offered = 0
        for event, arrival in zip(events, arrivals, strict=True):
            # What they make of the run and publish counts, too: large contexts stand in every row.
            if route.cache[run.key].held or _bytes_since(batch.commit, *before) >= bytes_max:
                break
            batch.meet((arrival,), after_wait=event.sequence)
            offered += 1
        batch.rest()
        return offered


def _hold_for_rest(command: Command, route: Route, run: Run, batch: Batch) -> None:
    write_row(command, "pointsman.drain", route, run, batch, Kind.DRAINING)
    held = route.cache[run.key].held
    body = orjson.dumps({"run": run.id, "held": held})
    batch.commit.follow_up = FollowUp(route.pipeline, "release", body, command.who, command.why)


def write_row(
    command: Command, event_type: str, route: Route, run: Run, batch: Batch, kind: Kind = Kind.RELEASED
) -> None:
    """Log what a command does to the hold of a run."""
    payload = orjson.dumps({"command": command.command, "who": command.who, "why": command.why})
    milliseconds = microseconds(command.at) // 1000
    batch.command_row(route, run, event_type, command_id(command), payload, milliseconds, kind)


def _bytes_since(commit: Commit, rows: int, out: int) -> int:
    """What was added since there were so many rows, and so many records to be published."""
    return sum(map(len, commit.rows[rows:])) + sum(len(record.value or b"") for record in commit.out[out:])
