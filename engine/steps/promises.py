"""Attempts that begin with the commit that asks for them: their rows have a holder from the first.

So an attempt costs no statement of its own, and nobody looks for it. Only who has room promises it, beside the room of
all that may wait: what waits is begun in order, by looks. A look asks for one more than may wait, where that is known,
so that it leaves room for what commits ask for while it goes on; and it is told by that whether others have asked for
some, too. A commit leaves as much room for the look behind it: so what goes on is gone on with as soon as room is
given back, and yet keeps nobody waiting for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, MutableMapping

from engine.homes import home_of
from engine.steps.rooms import Place
from engine.store.values import Commit, Promised


class Promises:
    """Those of one engine: at most one commit has some, which is the one in flight."""

    def __init__(self) -> None:
        self.made: list[Promised] = []
        """Of the commit in flight."""
        self._are_withheld = False
        self._is_clear = asyncio.Event()
        self._is_clear.set()
        self.looked_for: Mapping[Place, int] = {}
        """What a look that goes on may find."""
        self._looks = False
        self._waits: dict[Place, int] = {}
        """Of steps of which a look found all that waited: how many may wait by now."""
        self._unlooked: set[Place] = set()
        """Of which others may have asked for some since the last look."""
        self._looked_anew: set[Place] = set()
        """Those of them that a look asks for that goes on."""
        self._asked_meanwhile: Counter[Place] = Counter()
        """How many commits have asked for since the look began."""

    def forget(self) -> None:
        """Know nothing: of other homes others wait, and another connection has no commit in flight."""
        self._waits.clear()
        self._unlooked.clear()
        self._looked_anew.clear()
        self._let_go()
        self.looked_for, self._looks = {}, False

    def is_settled(self, place: Place) -> bool:
        """Whether nobody waits for this step, as far as it is known, and nobody else may have asked for it."""
        return self._waits.get(place) == 0 and place not in self._unlooked

    def is_known(self, place: Place) -> bool:
        """Whether it is known how many may wait for this step."""
        return place in self._waits

    def look_anew(self, places: Iterable[Place]) -> None:
        """Others may have asked for these, whatever is known of them here."""
        self._unlooked.update(places)

    def wanted(self) -> dict[Place, int]:
        """For how many a look is to ask, where that is known: whoever finds fewer has found all."""
        return {place: many + 1 for place, many in self._waits.items()}

    def wanted_with(self, asked: Mapping[Place, int]) -> dict[Place, int]:
        """How much room is of use to a commit that asks for so many, and to the look behind it, where that is known."""
        return {
            place: many + asked.get(place, 0) + (place in self._unlooked)
            for place, many in self._waits.items()
        }

    def look(self, rooms: Mapping[Place, int]) -> None:
        """It is looked who waits, for so many at most."""
        self.looked_for, self._looks = rooms, True
        self._asked_meanwhile.clear()
        self._looked_anew = self._unlooked & rooms.keys()
        self._unlooked -= self._looked_anew

    def found(self, many: Mapping[Place, int], places: Iterable[Place]) -> None:
        """So many were found of these ``places``; there may be more where there was no more room, or none."""
        rooms, self.looked_for, self._looks = self.looked_for, {}, False
        for place in places:
            room, found, meanwhile = rooms.get(place, 0), many.get(place, 0), self._asked_meanwhile[place]
            if found < room:
                self._waits[place] = meanwhile
            elif place in self._waits and found <= self._waits[place] - meanwhile:
                # It was known that they wait, and so it is of those that are left; of others it is not.
                self._waits[place] -= found
                self._unlooked.update(self._looked_anew & {place})
            else:
                self._waits.pop(place, None)

    def promise(
        self,
        commit: Commit,
        rooms: MutableMapping[Place, int],
        homes: Collection[int],
        definitions: Collection[int],
    ) -> None:
        """Have begin what there is room for, of what a commit asks for.

        ``kept`` or ``broken`` tells how that came out.
        """
        if self._are_withheld:
            return
        left = []
        for asked in commit.executions_asked:
            place, run = (asked.pipeline, asked.step), commit.asking.get(asked.run)
            if (
                place in self._waits
                and rooms.get(place, 0) > self._waits[place] + (place in self._unlooked)
                and run is not None
                and asked.is_first
                and asked.sequence == run.sequence
                and not run.held
                and run.definition in definitions
                and home_of(asked.key) in homes
            ):
                rooms[place] -= 1
                commit.promised.append(Promised(asked, run))
            else:
                left.append(asked)
        commit.executions_asked[:] = left
        if commit.promised:
            self.made = commit.promised
            self._is_clear.clear()

    def kept(self, commit: Commit) -> None:
        """A commit is durable."""
        self._let_go()
        for asked in commit.executions_asked:
            place = asked.pipeline, asked.step
            if place in self._waits:
                self._waits[place] += 1
            if self._looks:
                self._asked_meanwhile[place] += 1

    def broken(self) -> None:
        """The commit in flight came to nothing."""
        self._let_go()

    @contextlib.asynccontextmanager
    async def withheld(self, seconds: float) -> AsyncIterator[bool]:
        """None are made meanwhile; whether none are in flight, which is waited for, but no longer than this."""
        self._are_withheld = True
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._is_clear.wait()
            yield self._is_clear.is_set()
        finally:
            self._are_withheld = False

    def _let_go(self) -> None:
        self.made = []
        self._is_clear.set()

    @property
    def places(self) -> Counter[Place]:
        """What takes room by them, and by a look that goes on."""
        taken = Counter((one.asked.pipeline, one.asked.step) for one in self.made)
        taken.update(self.looked_for)
        return taken
