"""How many attempts of which step may begin: what is free is for all alike, each time another one first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from engine.breakers import Breakers
from engine.limits import EngineLimits
from engine.store.limited import LimitedRoom
from statemachines.step import Step

NEVER_BEGAN = datetime(1970, 1, 1, tzinfo=UTC)
"""No attempt has begun by then."""
Place = tuple[int, str]
"""A pipeline, and the name of a step."""


class Taken(NamedTuple):
    """What takes room."""

    places: Mapping[Place, int]
    """How many attempts of each go on, or keep their places."""
    threads: int
    """How many of them are threads."""
    in_all: int
    """With those that have ended and are not durable yet: where commits do not get on, no more is begun."""


class Rooms:
    """Those of one engine."""

    def __init__(self, limits: EngineLimits, breakers: Breakers) -> None:
        self._limits = limits
        self._breakers = breakers
        self._turn = -1
        """How often it was asked."""

    def free(self, steps: Mapping[Place, Step[Any, Any]], taken: Taken) -> dict[Place, int]:
        """How many may begin, by step; those of which none may are left out."""
        running = taken.places
        in_turn = self._in_turn(steps)
        plain = sum(step.takes_thread for step in steps.values())
        free = self._limits.steps_at_once_max - taken.in_all
        free_threads = self._limits.step_threads_max - taken.threads
        rooms: dict[Place, int] = {}
        tried: set[str] = set()
        for number, (place, step) in enumerate(in_turn.items()):
            # What is free is for all alike, so that a step of which many wait leaves something for the others.
            share = -(-free // (len(in_turn) - number))
            if step.takes_thread:
                share, plain = min(share, -(-free_threads // plain)), plain - 1
            limit = self._limits.steps_at_once_max if step.at_once is None else step.at_once
            room = self._let_through(step, min(share, limit - running.get(place, 0)), tried)
            if room > 0:
                rooms[place] = room
                free -= room
                free_threads -= room if step.takes_thread else 0
        return rooms

    def _let_through(self, step: Step[Any, Any], room: int, tried: set[str]) -> int:
        """How many of them its breaker lets through; ``tried`` are those that have let one through to try."""
        circuit = self._breakers.of(step.bounds.breaker)
        if circuit is None or room <= 0:
            return room
        name = circuit.breaker.name
        if not circuit.is_closed:
            room = 0 if name in tried else circuit.room(room)
            tried.add(name)
        return room

    def _in_turn(self, steps: Mapping[Place, Step[Any, Any]]) -> dict[Place, Step[Any, Any]]:
        """All steps, each time another one first: where there are more of them than places, none waits for ever."""
        self._turn += 1
        kinds = [*steps.items()]
        first = self._turn % len(kinds) if kinds else 0
        return dict(kinds[first:] + kinds[:first])


def split(
    rooms: Mapping[Place, int], steps: Mapping[Place, Step[Any, Any]]
) -> tuple[dict[Place, int], list[LimitedRoom]]:
    """Those of steps without a limit for all engines, and those of steps with one."""
    plain: dict[Place, int] = {}
    limited: list[LimitedRoom] = []
    for place, room in rooms.items():
        limit = steps[place].bounds.limit
        if limit is None:
            plain[place] = room
        else:
            limited.append(LimitedRoom(*place, room, limit.at_once, limit.interval, limit.burst))
    return plain, limited


def overdue_at(now: datetime, steps: Mapping[Place, Step[Any, Any]]) -> dict[Place, datetime]:
    """By step: whose first attempts began by then have no time, and that is to be told."""
    return {
        place: NEVER_BEGAN if step.bounds.within is None else now - step.bounds.within
        for place, step in steps.items()
    }
