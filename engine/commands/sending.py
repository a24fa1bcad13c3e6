"""Events from runs to others: out of the inbox, many in one commit."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence

from engine.batch.arrival import Arrival
from engine.batch.batch import Batch
from engine.batch.inside import sent_arrival
from engine.commands.telling import kind_of
from engine.outlet import Outlet
from engine.routing import Route
from engine.session.committer import Committer
from engine.store.contract import LostRunsError, RefusedByStoreError, Store, StoreError, TakenTwiceError
from engine.store.values import Command
from statemachines.outcome import Reason, Refused

log = logging.getLogger("pointsman.engine")

LOSSES_MAX = 5
"""After as many lost comparisons the events are left for the next round; but for one that its run has taken by the log,
which is lost to nobody, and dealt with as refused by the store."""


class SentEvents:
    """Takes them to the runs that they are for."""

    def __init__(
        self,
        store: Store,
        routes: Mapping[int, Route],
        committer: Committer,
        outlet: Outlet,
    ) -> None:
        self._store = store
        self._routes = routes
        self._committer = committer
        self._outlet = outlet

    async def take(self, commands: Sequence[Command]) -> None:
        """Take these up in one commit; each is consumed in it, so it happens once."""
        losses, lost = 0, None
        while commands and losses < LOSSES_MAX:
            lost = None
            try:
                if await self._commit(commands):
                    return
            except LostRunsError as error:
                lost = error
                left = await self._store.commands_left([one.id for one in commands])
                commands = [one for one in commands if one.id in left]
            except RefusedByStoreError as error:
                await self._halve(commands, error)
                return
            losses += 1
        if commands and isinstance(lost, TakenTwiceError):
            await self._halve(commands, lost)

    async def _halve(self, commands: Sequence[Command], error: StoreError) -> None:
        """Find the one event that the store does not take, while the others are."""
        if len(commands) == 1:
            await self._refuse(commands[0], str(error))
            return
        middle = len(commands) // 2
        await self.take(commands[:middle])
        await self.take(commands[middle:])

    async def _commit(self, commands: Sequence[Command]) -> bool:
        """False where it has to be computed again, since a topic takes less than was thought."""
        batch = await self._committer.new_batch(len(commands))
        batch.commit.commands.extend(one.id for one in commands)
        try:
            arrivals = [one for one in self._arrivals(commands) if not _is_unknown(one, batch)]
            await self._committer.load(batch, arrivals, len(arrivals))
            batch.meet(arrivals)
            batch.rest()
            if await self._outlet.learn(batch.commit):
                self._committer.forget(batch)
                return False
            batch.finish()
            await self._committer.commit(batch)
        except (LostRunsError, RefusedByStoreError):
            self._committer.forget(batch)
            raise
        return True

    def _arrivals(self, commands: Sequence[Command]) -> list[Arrival]:
        return [sent_arrival(self._routes[one.pipeline or 0], one.body, one.at) for one in commands]

    async def _refuse(self, command: Command, error: str) -> None:
        """Make an event that the store does not take as a move a dead letter; where that is refused, too, drop it."""
        batch = await self._committer.new_batch(0)
        batch.commit.commands.append(command.id)
        [arrival] = self._arrivals([command])
        refused = Refused(Reason.REFUSED_BY_STORE, error, holds=False)
        batch.refuse(arrival, None, refused, batch.commit.at, None)
        batch.finish()
        try:
            await self._committer.commit(batch)
        except LostRunsError:
            # Another engine, which was refused the same, has dealt with it first.
            return
        except RefusedByStoreError as again:
            await self._drop(command, arrival, again)

    async def _drop(self, command: Command, arrival: Arrival, error: RefusedByStoreError) -> None:
        # It would come back for ever, and the commands behind it with it; its sender's log has it with its data.
        envelope = arrival.decoded.envelope
        log.error(
            "the event %r (%s), which the run %r of %s has sent to the run %r of %s, is dropped: Postgres refuses it, "
            "and the dead letter that it then becomes (%s). The history of its sender has its data still (pointsman "
            "history --json). Mend what refuses it, a trigger on the tables of Pointsman for instance, and publish the "
            "event if it is still wanted",
            envelope.id,
            envelope.type,
            envelope.subject,
            envelope.source,
            arrival.key,
            arrival.route.name,
            kind_of(error),
        )
        batch = await self._committer.new_batch(0)
        batch.commit.commands.append(command.id)
        with contextlib.suppress(LostRunsError):
            await self._committer.commit(batch)


def _is_unknown(arrival: Arrival, batch: Batch) -> bool:
    """Whether the pipeline does not know the event's type; then the event is a dead letter."""
    envelope, route = arrival.decoded.envelope, arrival.route
    if envelope.type in route.events:
        return False
    error = f"{route.name} knows no type {envelope.type!r}; a run of {envelope.source} has sent the event"
    batch.refuse(arrival, None, Refused(Reason.UNKNOWN_TYPE, error, holds=False), batch.commit.at, None)
    return True
