"""Attempts that go on in an engine, and what became of those that have ended, until it is durable."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, KeysView
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from engine.steps.attempts import Attempt
from engine.steps.pulse import Pulse
from engine.steps.result import StepResult
from engine.steps.rooms import Place
from engine.store.values import BegunExecution, Commit
from statemachines.step import Step

Address = tuple[int, int, int]
"""(run, sequence, number)"""


@dataclass(slots=True, eq=False)
class Going:
    """An attempt that goes on here."""

    begun: BegunExecution
    step: Step[Any, Any]
    attempt: Attempt
    pulse: Pulse
    takes_thread: bool
    """Whether it takes one, until nothing of it goes on."""
    told: bool = False
    """Whether what became of it has been told; it may still keep a thread."""
    was_done: bool = False
    """Whether what was told is that it was done, or goes on outside."""
    unwanted: bool = False
    """Whether nobody waits for it any more."""
    stopping: bool = False
    """Whether its state was left, and the run waits to hear what became of it."""
    is_kept: bool = False
    """Whether it goes on where this engine ends, and the next one finds it."""
    context: BaseModel | None = None
    """What it was given, where that is looked at once it has ended."""

    @property
    def has_had_its_time(self) -> bool:
        """Whether nobody waits for its end any more but who would make another one: it may never come."""
        return self.told or self.attempt.has_had_its_time

    @property
    def place(self) -> Place:
        """The step that it is an attempt at."""
        return self.begun.pipeline, self.begun.step


class AllGoing:
    """Those of one engine; there may be very many of them, so nothing here that is asked often looks at all."""

    def __init__(self) -> None:
        self._by_id: dict[int, Going] = {}
        self._by_address: dict[Address, Going] = {}
        self._untold: dict[int, Going] = {}
        self._lingering: dict[int, Going] = {}
        self._looked_at = 0
        self.places: Counter[Place] = Counter()
        """How many go on, or keep their places, by step."""
        self.threads = 0
        """How many of them take a thread."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Going]:
        return iter(self._by_id.values())

    def __contains__(self, number: object) -> bool:
        return number in self._by_id

    @property
    def ids(self) -> KeysView[int]:
        """The store's numbers of all."""
        return self._by_id.keys()

    @property
    def untold(self) -> Collection[Going]:
        """Those of which it is not known what becomes of them."""
        return self._untold.values()

    @property
    def lingering(self) -> Collection[int]:
        """The store's numbers of those that have been told of, and still go on."""
        return self._lingering.keys()

    def at(self, address: Address) -> Going | None:
        """The one at this execution."""
        return self._by_address.get(address)

    def drop_ended(self, commit: Commit, results: Iterable[StepResult]) -> None:
        """Have only what may go on keep the place in a limit that a commit takes from it: not what has ended here."""
        ended = {
            (*one.begun.address, one.begun.attempt)
            for one in results
            if not one.is_elsewhere and one.begun.address not in self._by_address
        }
        commit.limited_left[:] = [one for one in commit.limited_left if one not in ended]

    def in_turn(self, number: int) -> Iterator[Going]:
        """So many of those that are not told of, each time the next ones."""
        start = 0 if self._looked_at >= len(self._untold) else self._looked_at
        self._looked_at = start + number
        return iter([*itertools.islice(self._untold.values(), start, start + number)])

    def add(self, going: Going) -> None:
        """It begins."""
        begun = going.begun
        number, place = begun.id, (begun.pipeline, begun.step)
        self._by_id[number] = self._by_address[begun.address] = self._untold[number] = going
        self.places[place] += 1
        self.threads += going.takes_thread

    def tell(self, going: Going) -> None:
        """What became of it is told."""
        going.told = True
        number = going.begun.id
        if self._by_id.get(number) is going:
            self._untold.pop(number, None)
            self._lingering[number] = going

    def release(self, going: Going) -> None:
        """Nothing of it goes on any more."""
        begun = going.begun
        number, address, place = begun.id, begun.address, (begun.pipeline, begun.step)
        if self._by_id.get(number) is not going:
            return
        del self._by_id[number]
        if going.told:
            self._lingering.pop(number, None)
        else:
            self._untold.pop(number, None)
        if self._by_address.get(address) is going:
            del self._by_address[address]
        self.places[place] -= 1
        self.threads -= going.takes_thread


class Results:
    """What became of attempts, by the store's numbers of their executions."""

    def __init__(self) -> None:
        self._all: dict[int, StepResult] = {}
        self._ready: dict[int, None] = {}
        """Those that are in no draft, in the order in which they are to be taken."""
        self.late: set[Address] = set()
        """Executions that were done after all, though their runs were told otherwise, until that is durable, too."""

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[StepResult]:
        return iter(self._all.values())

    @property
    def ids(self) -> KeysView[int]:
        """Of all."""
        return self._all.keys()

    @property
    def ready(self) -> KeysView[int]:
        """Of those that are in no draft."""
        return self._ready.keys()

    def keep(self, result: StepResult) -> None:
        """Something became of an attempt; where something of it is in a draft, this comes behind that."""
        number = result.begun.id
        is_in_draft = number in self._all and number not in self._ready
        self._all[number] = result
        if not is_in_draft:
            self._ready[number] = None
        if result.is_late:
            self.late.add(result.begun.address)

    def take(self, number: int, but: Collection[int]) -> list[StepResult]:
        """The next ones, so many at most, for a draft."""
        found: list[int] = []
        # No generator: compiled, it would be a list of all.
        for one in self._ready:
            if len(found) >= number:
                break
            if one not in but:
                found.append(one)
        for one in found:
            del self._ready[one]
        return [self._all[one] for one in found]

    def settle(self, results: Iterable[StepResult]) -> None:
        """These are durable; what came behind one of them is not."""
        for one in results:
            number = one.begun.id
            kept = self._all.get(number)
            if kept is not None and kept.event_id == one.event_id:
                self.drop(number)
            elif kept is not None:
                self._ready[number] = None

    def give_back(self, results: Iterable[StepResult]) -> None:
        """These are to be taken again, first of all."""
        back = dict.fromkeys(one.begun.id for one in results if one.begun.id in self._all)
        self._ready = back | self._ready

    @property
    def in_drafts(self) -> list[StepResult]:
        """Those that were taken, and are not settled."""
        return [one for number, one in self._all.items() if number not in self._ready]

    def give_all_back(self) -> None:
        """No draft is left that has any."""
        self._ready = dict.fromkeys(self._all)

    def drop(self, number: int) -> None:
        """It is told, or cannot be."""
        gone = self._all.pop(number, None)
        self._ready.pop(number, None)
        if gone is not None and gone.is_late:
            self.late.discard(gone.begun.address)
