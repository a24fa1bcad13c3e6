"""The attempts that go on in one engine: begun, watched, ended, and told of.

Each is begun with whoever does such work, bounded (``engine.steps.attempts``), and ends once, as an event that tells
its run (``engine.steps.outcomes``). Those events are kept until a commit that has them is durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from connectors.executor import Ended, LostError, Running, Work
from engine.limits import EngineLimits
from engine.raised import FailedAttempts
from engine.steps.attempts import Attempt
from engine.steps.breakers import Breakers, Told
from engine.steps.executors import NOT_KNOWN, Executors
from engine.steps.going import Address, AllGoing, Going, Results
from engine.steps.outcomes import Outcomes
from engine.steps.progress import LastWords
from engine.steps.pulse import Pulse
from engine.steps.result import StepResult
from engine.steps.untouched import Untouched
from engine.store.values import BegunExecution
from statemachines.events import STEP_STOPPED, STEP_WAITS
from statemachines.later import Later
from statemachines.results import ResultError
from statemachines.step import Step
from statemachines.undoing import ENDED, FAILED, NEVER, UNKNOWN

log = logging.getLogger("pointsman.engine")


class Making:
    """Those of one engine."""

    def __init__(self, limits: EngineLimits, clock: Callable[[], datetime], executors: Executors) -> None:
        self._limits = limits
        self._executors = executors
        self.going = AllGoing()
        self.results = Results()
        self.failed = FailedAttempts()
        self._untouched = Untouched()
        self.outcomes = Outcomes(clock, self.failed)
        self.breakers = Breakers(clock)
        self.last_words = LastWords(limits.step_progress_seconds)
        self._kept_waiting: dict[int, BegunExecution] = {}
        self.untellable: set[tuple[int, int]] = set()
        """Attempts of which the store takes nothing; they are lost once this engine is."""
        self.is_stopping = False
        """Whether none begins any more."""
        self.arrived = asyncio.Event()
        """Set whenever something has become of an attempt."""
        self.wanted = asyncio.Event()
        """Set whenever it is to be looked what may begin, or is to be stored."""
        self.has_news = False
        """Whether the store is to be told at once how it is here: of a breaker, or of a place that is kept no more."""

    def begin_all(self, begun: Iterable[BegunExecution]) -> bool:
        """Begin these; whether all could: none does once the engine is to stop, or while one of before goes on here.

        That may have failed for good and begin anew, with another number, or was taken for lost elsewhere. Nor is
        anything undone that an attempt goes on to do here, though another one had done it. What has had its time may
        never end: it keeps nothing from being undone, and nothing from being told where nothing is to be done.
        """
        could = True
        for one in begun:
            if self.is_stopping:
                could = False
            elif self._must_wait(one):
                could = False
                self._kept_waiting[one.id] = one
            else:
                self.begin(one)
        return could

    def kept_waiting(self) -> list[int]:
        """The store's numbers of those that could not begin here, and cannot yet.

        Asked for again and again, they would take the places of those behind them. Of whose state was left, that is
        asked for all the same (``Store.begin_untried``).
        """
        self._kept_waiting = {
            number: one for number, one in self._kept_waiting.items() if self._must_wait(one)
        }
        return [*self._kept_waiting]

    def _must_wait(self, begun: BegunExecution) -> bool:
        return self._waits(begun) or self._is_being_done(begun.undone)

    def _waits(self, begun: BegunExecution) -> bool:
        """Whether an attempt goes on at it that it has to wait for, or has ended, and its run is to hear that."""
        if begun.id in self.results.ids or begun.address in self.results.late:
            return True
        going = self.going.at(begun.address)
        return going is not None and not (going.has_had_its_time and self.outcomes.is_untried(begun))

    def _is_being_done(self, address: Address | None) -> bool:
        going = None if address is None else self.going.at(address)
        return going is not None and not going.has_had_its_time

    def begin(self, begun: BegunExecution) -> None:
        """Make an attempt whose row says that it is ours; or tell at once what became of it, where none is made."""
        if begun.stopping:
            self._keep(self.outcomes.stopped(begun, NEVER))
            return
        if begun.token:
            self._keep(self.outcomes.too_late(begun))
            return
        _, step = self.outcomes.meant(begun)
        left, pulse = self.outcomes.seconds_left(begun), Pulse(begun.progress)
        if left is not None and left <= 0:
            self._keep(self.outcomes.out_of_time(begun))
            return
        self._executors.stretches.begin(begun.id)
        try:
            arguments = self.outcomes.arguments(begun, pulse.beat)
        except BaseException as error:  # noqa: BLE001 - the validators of contexts and results are user code
            self._keep(self.outcomes.failure(begun, Ended(error=error, final=True)))
            return
        finally:
            self._executors.stretches.end()
        key = arguments[-1].idempotency_key
        running = self._executors.start(Work(step, arguments, key, begun.attempt, pulse.beat, None, begun.id))
        going = self._watch(begun, step, running, pulse, left)
        going.context = self._untouched.watched(begun, arguments[0])

    def is_kept(self, begun: BegunExecution) -> bool:
        """Whether an attempt that another engine has begun may go on, though that is gone."""
        executor = self._executors.of(self.outcomes.meant(begun)[1])
        return executor is not None and executor.keeps and not begun.token

    def go_on(self, begun: BegunExecution) -> None:
        """Go on with an attempt that another engine has begun, if there is one."""
        _, step = self.outcomes.meant(begun)
        left, pulse = self.outcomes.seconds_left(begun), Pulse(begun.progress)
        self._executors.stretches.begin(begun.id)
        try:
            arguments = self.outcomes.arguments(begun, pulse.beat)
        except BaseException:  # noqa: BLE001 - the validators of contexts and results are user code
            self.lose(begun)
            return
        finally:
            self._executors.stretches.end()
        key = arguments[-1].idempotency_key
        running = self._executors.attach(
            Work(step, arguments, key, begun.attempt, pulse.beat, None, begun.id)
        )
        going = self._watch(begun, step, running, pulse, left)
        running.found.add_done_callback(lambda _: going.attempt.count_anew())
        if begun.stopping:
            self.stop(going)

    def _watch(
        self, begun: BegunExecution, step: Step[Any, Any], running: Running, pulse: Pulse, left: float | None
    ) -> Going:
        """Have it end in time, and tell how it has ended."""
        attempt = Attempt(
            step,
            running,
            self._limits,
            pulse,
            left,
            on_end=lambda ended: self._end(going, ended),
            on_release=lambda: self._release(going),
        )
        going = Going(begun, step, attempt, pulse, step.takes_thread, is_kept=self.is_kept(begun))
        self.going.add(going)
        self.breakers.begin(begun.address, step)
        return going

    def _end(self, going: Going, ended: Ended) -> None:
        if not going.told:
            # What a result is written down by is user code, too.
            self._executors.stretches.begin(going.begun.id)
            try:
                self._tell(going, ended)
                if going.context is not None:
                    self._untouched.look(going.begun, going.context)
            finally:
                self._executors.stretches.end()

    def _tell(self, going: Going, ended: Ended) -> None:
        going.pulse.is_over = True
        self.going.tell(going)
        begun = going.begun
        if going.unwanted:
            return
        going.was_done = ended.error is None
        self._hear(going, ended)
        if going.stopping:
            unseen = ended.lost or ended.timed_out or isinstance(ended.result, Later)
            how = UNKNOWN if unseen else ENDED if ended.error is None else FAILED
            if how == FAILED:
                self.outcomes.tell(begun, ended, "its state was left by then")
            self._keep(self.outcomes.stopped(begun, how, ended.result))
        elif ended.error is None:
            self._keep(self.outcomes.success(begun, ended.result))
        else:
            if self.last_words.take(begun.id, begun.attempt, going.pulse):
                self.wanted.set()
            # How far it has come its run remembers where it has failed for good.
            self._keep(self.outcomes.failure(begun._replace(progress=going.pulse.progress), ended))

    def _hear(self, going: Going, ended: Ended) -> None:
        """Have its breaker hear how an attempt ended."""
        if going.step.bounds.breaker is None:
            return
        is_known = not (ended.lost or going.stopping or going.unwanted)
        is_handed_over = isinstance(ended.result, Later)
        self.hear(Told(going.begun.address, going.step, ended.error, is_known, is_handed_over))

    def hear(self, told: Told) -> None:
        """Have the breaker of a step hear what is told of it."""
        if self.breakers.hear(told):
            # Who looks at the breakers is to see it at once.
            self.has_news = True
            self.wanted.set()

    def _keep(self, result: StepResult) -> None:
        self.results.keep(result)
        self.arrived.set()

    def _release(self, going: Going) -> None:
        self.going.release(going)
        if going.step.bounds.limit is not None and going.begun.id not in self.results.ids:
            # Others may wait for the place in its limit that it has kept.
            self.has_news = True
        is_late = going.unwanted or (going.told and not going.was_done)
        seen = going.attempt.seen if is_late else None
        if seen is not None and seen.error is None:
            self._tell_late(going.begun, seen.result)
        self.wanted.set()

    def _tell_late(self, begun: BegunExecution, result: Any) -> None:
        """Have its run be told after all that an attempt was done: the first success counts, whichever it is.

        Where it is told in vain, that is known of it; of a token, too, by who completes it.
        """
        try:
            found = self.outcomes.success(begun, result, raises=True)
        except ResultError as error:
            self.outcomes.tell(begun, Ended(error=error), "its run was told by then that it was not done")
        else:
            self._keep(found._replace(is_late=True))

    def drop(self, going: Going) -> None:
        """Have an attempt end that nobody waits for any more."""
        going.unwanted = True
        self._hear(going, Ended())
        going.attempt.cancel()

    def stop(self, going: Going) -> None:
        """Have an attempt end whose state was left; its run waits to hear what became of it."""
        going.stopping = True
        going.attempt.stop()

    async def end(self) -> None:
        """Wait a while for what goes on, and then have it end, and its runs be told that. What is kept goes on."""
        ending = [one for one in self.going.untold if not one.is_kept]
        if ending:
            tasks = {one.attempt.ended for one in ending}
            await asyncio.wait(tasks, timeout=self._limits.step_stop_seconds)
        for one in ending:
            if not one.told:
                one.attempt.cancel()
                self._tell(one, Ended(error=LostError("the engine was stopped"), lost=True, stopped=True))

    def lose(self, begun: BegunExecution) -> None:
        """Have its run be told that an attempt was lost with the engine that made it."""
        if begun.stopping:
            lost = self.outcomes.stopped(begun, UNKNOWN)
        elif begun.token:
            lost = self.outcomes.too_late(begun)
        else:
            lost = self.outcomes.failure(begun, Ended(error=LostError(NOT_KNOWN), lost=True))
        self._keep(lost._replace(is_elsewhere=True))

    def refuse(self, result: StepResult) -> None:
        """Have a step fail whose result the store does not take."""
        begun, said = result.begun, "Postgres refuses what the run makes of the result"
        if result.event_type.startswith(STEP_WAITS):
            said = f"another step waits to be completed by the token {result.data['token']!r} already"
        log.error("the result of the step %s of the run %r is refused by the store", begun.step, begun.key)
        if result.is_refused:
            # It cannot even fail. The attempt is lost once the engine is.
            log.error("nor is its failure taken; it is tried again when an engine takes over the run")
            self.results.drop(begun.id)
            self.untellable.add(begun.numbers)
            return
        _, step = self.outcomes.meant(begun)
        lost = step.compensation is not None
        if result.event_type.startswith(STEP_STOPPED):
            failed = self.outcomes.stopped(begun, UNKNOWN)
        else:
            failed = self.outcomes.failure(begun, Ended(error=ResultError(said), final=True, lost=lost))
        # One that was late is waited for until this is durable, in its place.
        self._keep(failed._replace(is_refused=True, is_late=result.is_late))
