"""What runs take by themselves, in the middle of a batch: deferred events, what they sent to themselves, timers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, MutableSequence
from datetime import datetime
from functools import partial
from typing import Final

import orjson

from engine.batch.arrival import Arrival
from engine.batch.inside import own_arrival
from engine.batch.moves import Moves
from engine.log import MAKES_WAY, Kind, digest_number, microseconds, postgres_time
from engine.routing import Route
from engine.store.values import FollowUp
from statemachines.following import Following, Unseen, fall_due, follow, refuse_next
from statemachines.ids import number_of_id
from statemachines.limits import FOLLOWING_MAX
from statemachines.machine import Machine
from statemachines.memory import Delayed, Execution, read_memory
from statemachines.outcome import Deferred, Ignored, Moved, Outcome, Reason, Refused
from statemachines.run import DeferredEvent, Run, Status

OF_INSIDE, OF_ITSELF, OF_DEFERRED = 0, -1, -2
"""Instead of a position: of an event that a run has sent to another one; of a timer, or an event that a run has sent to
itself; of an event that was deferred."""
OF_STEP: Final = -3
"""The same of an attempt at a step, which is known by its execution (``connectors.looping``)."""

_RUNNING: Final = int(Status.RUNNING)
STRIKES_MAX: Final = 2
"""After as many ends of an engine within one record's handler, the record is a dead letter."""
GOES_ON: Final = "more follows by itself than goes into one commit"


class ByItself(Moves):
    """Moves of runs that no event from outside asks for.

    ``beat`` is where the watchdog sees what keeps the engine busy: position, offset, and the batch's time, which is 0
    while no handler is called (``engine.watching``). An event without a position is known by its digest, or where its
    run has asked for it by the number of its id, and by a number that says what it is (``OF_INSIDE`` and so on); what a
    run takes by itself also by that of the run, which comes last, and is another one after a crash where the run was
    not durable yet. Strikes go by the first two.
    """

    def __init__(self, at: datetime, run_ids: Iterator[int], beat: MutableSequence[int]) -> None:
        super().__init__(at, run_ids)
        self.strikes: dict[tuple[int, int], tuple[int, str]] = {}
        self._beat = beat
        self._struck_out: set[tuple[int, int]] = set()
        self.never_returned: Mapping[int, str] = {}
        """For replay: by the number of a log row, the id of the event that no handler may see then."""
        self.following_max = FOLLOWING_MAX
        """After how many that a run takes by itself, others have their turn."""
        self.rested: Collection[int] | None = None
        """For replay: the numbers of the log rows by which the run made way for others, however many that were."""
        self._at = (at, postgres_time(at))
        self._onward: dict[tuple[int, str], list[Arrival]] = {}

    def goes_on(self, at: datetime) -> None:
        """What comes now comes at this time."""
        self.commit.at = at
        self._at = (at, postgres_time(at))

    def follow(self, route: Route, key: str, machine: Machine | None = None) -> None:
        """Let a run take what it takes by itself, before any newer event: what was deferred, what it sent to itself."""
        for number in itertools.count(1):
            if self._next(follow, route, key, machine) is None:
                self._meet_next_generation(route, key)
                return
            machine = None
            run = route.cache[key]
            if self._rests(run, number):
                if not run.held:
                    self._hold_for_rest(route, run)
                return

    def _rests(self, run: Run, number: int) -> bool:
        """Whether a run makes way for others that has taken so many by itself."""
        if self.rested is not None:
            return run.sequence + 1 in self.rested
        # What waits for a run that has ended leaves it in one commit: what goes on is nowhere else meanwhile.
        return number >= self.following_max and run.status == _RUNNING and _has_more(run)

    def fall_due(self, route: Route, key: str, until: datetime) -> None:
        """Let what has fallen due for a run until then happen now, each with what follows from it."""
        ask = partial(fall_due, until=until)
        for _ in range(FOLLOWING_MAX):
            if self._next(ask, route, key, None) is None or not _has_more(route.cache[key]):
                return
            self.follow(route, key)

    def fall_due_again(self, route: Route, key: str, event_id: str) -> None:
        """For replay: let the one with this id happen, of what has fallen due, with what follows from it."""
        if self.fall_due_alone(route, key, event_id):
            self.follow(route, key)

    def fall_due_alone(self, route: Route, key: str, event_id: str) -> bool:
        """The same without what follows from it; whether it has fallen due."""
        return self._next(partial(fall_due, event_id=event_id), route, key, None) is not None

    def refuse_due(self, route: Route, key: str, error: str) -> None:
        """Make what has fallen due first for a run, and the store does not take, a dead letter that holds the run."""
        run = route.cache.get(key)
        machine = None if run is None else route.machines.get(run.definition, route.newest)
        if run is None or machine is None or run.held:
            return
        at = max(self._at[0], run.updated)
        found = refuse_next(machine, run, at, error)
        if found is not None and isinstance(found.outcome, Refused):
            refused = found.outcome._replace(reason=Reason.REFUSED_BY_STORE)
            self._take(route, run, machine, found._replace(outcome=refused), at)

    def rest(self) -> None:
        """Tell the watchdog that no handler is being called now."""
        self._beat[2] = 0

    def _meet_next_generation(self, route: Route, key: str) -> None:
        """What waited for a run that has ended is taken as if there were none, once the run is done with all of it."""
        for arrival in self._onward.pop((route.pipeline, key), ()):
            self._meet_wave([arrival], None)

    def _next(
        self,
        ask: Callable[[Machine, Run, datetime, Unseen], Following | None],
        route: Route,
        key: str,
        machine: Machine | None,
    ) -> Following | None:
        """Have a run take the next thing by itself; None where there is none."""
        run = route.cache.get(key)
        if run is not None and run.has_ended and run.behind:
            # What waited behind a hold is for this run still, and comes first.
            return None
        if run is None or run.held or not _has_more(run):
            return None
        if machine is None or run.status != _RUNNING:
            machine = route.machines.get(run.definition) if run.status == _RUNNING else route.newest
        if machine is None:
            return None
        at = max(self._at[0], run.updated)
        own_run = run

        def unseen(item: DeferredEvent | Delayed, own_id: str) -> str:
            return self._notice(own_run, item, own_id)

        found = ask(machine, run, at, unseen)
        if found is not None:
            self._take(route, run, machine, found, at)
        return found

    def _notice(self, run: Run, item: DeferredEvent | Delayed, own_id: str) -> str:
        """Tell the watchdog what the run takes by itself; why no handler may see it, if so."""
        beat = self._beat
        if isinstance(item, DeferredEvent):
            place = OF_DEFERRED, digest_number(item.digest)
        else:
            place = OF_ITSELF, number_of_id(own_id)
        beat[0], beat[1], beat[2], beat[3] = *place, self._at[1], run.id
        if self.never_returned and self.never_returned.get(run.sequence + 1) == own_id:
            return "a handler did not return"
        return (self._struck(*place) or "") if self.strikes else ""

    def _take(self, route: Route, run: Run, machine: Machine, found: Following, at: datetime) -> None:
        item, outcome = found.item, found.outcome
        if isinstance(item, DeferredEvent):
            arrival = item.origin
            assert isinstance(arrival, Arrival), "the engine defers what has arrived"
            onward = self._onward.get((route.pipeline, run.key))
            if found.goes_onward(run) or onward is not None:
                # What comes behind one that begins the next generation is for that one, too.
                self.leave_for_next(arrival, run, item, at)
                self._onward.setdefault((route.pipeline, run.key), []).append(arrival)
            elif isinstance(outcome, Deferred) or (isinstance(outcome, Moved) and outcome.started):
                # What waited for the run's beginning is its beginning, and the row that says so is counted, too; what
                # waited for a paused pipeline may wait anew, for its own reason and time.
                self.leave_for_next(arrival, run, item, at)
                self._meet_wave([arrival], None)
            elif isinstance(outcome, Moved):
                self.take_deferred(arrival, machine, run, item, outcome, at)
            else:
                self.leave_deferral(arrival, run, item, outcome, at)
            return
        arrival = own_arrival(route, run, found.occurrence, item, refused=isinstance(outcome, Refused))
        self._take_own(arrival, machine, run, item, outcome, at)

    def _take_own(
        self,
        arrival: Arrival,
        machine: Machine,
        run: Run,
        item: Delayed | Execution,
        outcome: Outcome,
        at: datetime,
    ) -> None:
        match outcome:
            case Moved():
                self.fire(arrival, machine, run, outcome, at)
            case Refused():
                self.refuse_own(arrival, run, item, outcome, at)
            case Ignored(memory=None):
                self.settle(arrival, run, outcome, at, None)
            case Ignored():
                self.row(arrival, run, Kind.PASSED, at, memory=outcome.memory or b"")
            case _:
                raise AssertionError(f"what comes from inside does not end as {outcome}")

    def _hold_for_rest(self, route: Route, run: Run) -> None:
        """Hold a run that goes on by itself for longer than one commit, so that nothing overtakes."""
        body = orjson.dumps({"command": "go on", "why": GOES_ON})
        at = microseconds(self._at[0]) // 1000
        self.command_row(route, run, "pointsman.drain", MAKES_WAY, body, at, Kind.DRAINING)
        held = route.cache[run.key].held
        release = orjson.dumps({"run": run.id, "held": held})
        self.commit.going_on.append(FollowUp(route.pipeline, "release", release, "engine", GOES_ON))

    def _struck(self, position: int | None, offset: int) -> str | None:
        """Why no handler may see this record again; without an event, ``step`` calls none."""
        struck = self.strikes.get((position or 0, offset))
        if struck is None or struck[0] < STRIKES_MAX:
            return None
        self.commit.strikes_forgotten.append((position or 0, offset))
        self._struck_out.add((position or 0, offset))
        return f"{struck[1]} did not return, {struck[0]} times; each time the engine was ended"

    def _meet_wave(self, wave: list[Arrival], after_wait: int | None) -> None:
        """Step the runs of these events, of a run each."""
        raise NotImplementedError


def _has_more(run: Run) -> bool:
    """Whether there is anything that a run may take by itself, now or later."""
    return bool(run.deferred or (run.memory and read_memory(run.memory).delayed))
