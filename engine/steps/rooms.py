"""How many attempts of which step may begin: what is free is for all alike, each time another one first.

Of places and of threads, one each is left to every other pipeline that has none: attempts of one pipeline that do not
end never keep those of the others from beginning.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from engine.limits import EngineLimits
from engine.steps.breakers import Breakers
from engine.store.limited import LimitedRoom
from statemachines.step import Step

NEVER_BEGAN = datetime(1970, 1, 1, tzinfo=UTC)
"""No attempt has begun by then."""
Place = tuple[int, str]
"""A pipeline, and the name of a step."""
NOTHING_KNOWN: Mapping[Place, int] = MappingProxyType({})
LEFT_ALONE = 8
"""One in so many of what is free is left to those that do not come first."""


class Taken(NamedTuple):
    """What takes room."""

    places: Mapping[Place, int]
    """How many attempts of each go on, or keep their places."""
    threads: int
    """How many of them are threads."""
    in_all: int
    """With those that have ended and are not durable yet: where commits do not get on, no more is begun."""


class Share:
    """What is free of places, or of threads, for each of the pipelines that need some."""

    def __init__(self, free: int, pipelines: Iterable[int], having: Iterable[int]) -> None:
        """Those ``having`` some have at least one each."""
        self.free = free
        self._without = set(pipelines) - set(having)

    def left(self, pipeline: int) -> int:
        """How many this one may take: one is left to each other one that has none, as far as there are so many."""
        left = self.free - len(self._without)
        return max(left + 1, min(self.free, 1)) if pipeline in self._without else left

    @contextlib.contextmanager
    def left_alone(self) -> Iterator[None]:
        """A part of what is free is not taken meanwhile."""
        part = -(-max(0, self.free) // LEFT_ALONE)
        self.free -= part
        yield
        self.free += part

    def take(self, pipeline: int, many: int) -> None:
        """They are this one's."""
        self.free -= many
        self._without.discard(pipeline)


class Rooms:
    """Those of one engine."""

    def __init__(self, limits: EngineLimits, breakers: Breakers) -> None:
        self._limits = limits
        self._breakers = breakers
        self._turn = -1
        """How often it was asked."""
        self._kinds: Mapping[Place, Step[Any, Any]] = {}

    def load(self, steps: Mapping[Place, Step[Any, Any]]) -> None:
        """There are these in all."""
        self._kinds = steps

    def full(self, taken: Taken) -> list[Place]:
        """Those that have some going on, and no room for one more."""
        places, threads = self._shares(self._kinds, taken)
        return [
            place
            for place, step in self._kinds.items()
            if taken.places.get(place, 0) > 0
            and self._most(place, step, taken.places[place], places, threads) <= 0
        ]

    def free(
        self,
        steps: Mapping[Place, Step[Any, Any]],
        taken: Taken,
        wanted: Mapping[Place, int] = NOTHING_KNOWN,
        first: Container[Place] = (),
    ) -> dict[Place, int]:
        """How many may begin, by step; those of which none may are left out.

        ``wanted`` says how many at most are of use to a step; those that it does not name have their share and no more.
        Those of ``first`` take before the others, but for a part of what is free, where others want any.
        """
        in_turn = self._in_turn({place: step for place, step in steps.items() if wanted.get(place, 1) > 0})
        places, threads = self._shares(self._kinds or steps, taken)
        rooms: dict[Place, int] = {}
        tried: set[str] = set()
        full: set[Place] = set()

        def give(them: Iterable[Place]) -> bool:
            """To these, as much as they want more, of what is free to all as much; whether there is any left."""
            wanting = [one for one in them if one not in full]
            plain = sum(in_turn[place].takes_thread for place in wanting)
            for number, place in enumerate(wanting):
                step, has = in_turn[place], rooms.get(place, 0)
                share = -(-places.free // (len(wanting) - number))
                if step.takes_thread:
                    share, plain = min(share, -(-threads.free // plain)), plain - 1
                most = self._most(place, step, taken.places.get(place, 0) + has, places, threads)
                most = min(most, wanted.get(place, most + has) - has)
                room = self._let_through(step, min(share, most), tried)
                if room < share or room <= 0:
                    full.add(place)
                if room > 0:
                    rooms[place] = has + room
                    places.take(place[0], room)
                    if step.takes_thread:
                        threads.take(place[0], room)
            return bool(wanting) and places.free > 0

        others = [place for place in in_turn if place not in first]
        if others and len(others) < len(in_turn):
            with places.left_alone(), threads.left_alone():
                give(place for place in in_turn if place in first)
            full.clear()
            give(others)
        else:
            # So that a step of which many wait leaves something for the others.
            give(in_turn)
        while give(place for place in in_turn if place in wanted):
            # What some have left of that.
            pass
        return rooms

    def _shares(self, kinds: Mapping[Place, Step[Any, Any]], taken: Taken) -> tuple[Share, Share]:
        """Of places, and of threads."""
        plain = {place for place, step in kinds.items() if step.takes_thread}
        having = [place for place, many in taken.places.items() if many > 0]
        return Share(
            self._limits.steps_at_once_max - taken.in_all,
            (pipeline for pipeline, _ in kinds),
            (pipeline for pipeline, _ in having),
        ), Share(
            self._limits.step_threads_max - taken.threads,
            (pipeline for pipeline, _ in plain),
            (place[0] for place in having if place in plain),
        )

    def _most(self, place: Place, step: Step[Any, Any], going: int, places: Share, threads: Share) -> int:
        """How many more of it than are ``going`` may go on, were there no others and no breaker."""
        most = places.left(place[0])
        if step.takes_thread:
            most = min(most, threads.left(place[0]))
        return most if step.at_once is None else min(most, step.at_once - going)

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
