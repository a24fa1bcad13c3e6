"""What operators ask of runs, by pipeline and key, taken up out of the inbox as events along the one road.

``send``   an event, as if from a topic

What became of each is kept beside what it did, in the same transaction (``Operation``): whoever asked reads it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from engine.arrival import Arrival
from engine.batch import Batch
from engine.committer import Committer
from engine.operators import operators_arrival
from engine.routing import Route
from engine.store.contract import Command, Operation
from statemachines.outcome import Reason, Refused

WHATS = frozenset({"send"})


class Operating:
    """Does them."""

    def __init__(self, routes: Mapping[int, Route], committer: Committer) -> None:
        self._routes = routes
        self._committer = committer

    async def take(self, command: Command, batch: Batch) -> None:
        """Have a batch do what a command asks."""
        body: dict[str, Any] = orjson.loads(command.body)
        await self._send(command, body, batch)

    def refuse(self, command: Command, batch: Batch, error: str) -> None:
        """Say of what the store does not take that it is not done; of an event, by a dead letter."""
        body: dict[str, Any] = orjson.loads(command.body)
        arrival = self._arrival(command, body)
        refused = Refused(Reason.REFUSED_BY_STORE, error, holds=False)
        batch.refuse(arrival, None, refused, batch.commit.at, None)
        _note(command, body, batch, done=False)

    async def _send(self, command: Command, body: dict[str, Any], batch: Batch) -> None:
        arrival = self._arrival(command, body)
        route, event_type = arrival.route, arrival.decoded.envelope.type
        if event_type in route.events:
            await self._committer.learn_strikes([])
            await self._committer.load(batch, [arrival], 1)
            batch.meet([arrival])
            batch.rest()
        else:
            error = f"{route.name} knows no type {event_type!r}; {command.who} has sent the event"
            refused = Refused(Reason.UNKNOWN_TYPE, error, holds=False)
            batch.refuse(arrival, None, refused, batch.commit.at, None)
        _note(command, body, batch)

    def _arrival(self, command: Command, body: dict[str, Any]) -> Arrival:
        return operators_arrival(self._routes[command.pipeline or 0], body["key"], body["event"], command.at)


def _note(
    command: Command, body: dict[str, Any], batch: Batch, *, done: bool = True, answer: str = ""
) -> None:
    batch.commit.operations.append(
        Operation(
            command=command.id,
            pipeline=command.pipeline or 0,
            key=body["key"],
            what=command.command,
            event_id=body.get("event_id"),
            run=None,
            done=done,
            answer=answer,
            who=command.who,
            why=command.why,
            asked=command.at,
            at=batch.commit.at,
        )
    )
