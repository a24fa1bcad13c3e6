"""What a transition changes of what comes later: timers and steps of states entered and left, and what it sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson

from statemachines.chart.tree import COMPENSATING
from statemachines.effects import COMPLETES, Asked
from statemachines.failing import describe
from statemachines.handlers import HandlerError, time_asked
from statemachines.limits import DELAY_DAYS_MAX, DELAYED_MAX, EXECUTIONS_MAX, MEMORY_BYTES_MAX
from statemachines.memory import (
    NOTHING_LEFT,
    OUTPUT,
    Delayed,
    Execution,
    Memory,
    Owed,
    microseconds_of,
    read_memory,
    to_come,
    too_much,
    write_memory,
)
from statemachines.outcome import Reason
from statemachines.undoing import By, next_in, places
from statemachines.wishes import Wish

if TYPE_CHECKING:
    from statemachines.chart.tree import Chart, Node
    from statemachines.context import Context

_DELAY_MAX: Final = timedelta(days=DELAY_DAYS_MAX)


class Agenda:
    """The memory of a run while one transition changes it."""

    def __init__(
        self,
        memory: Memory,
        now: datetime,
        sequence: int,
        compensations: By,
        stopped: Iterable[Execution] = (),
    ) -> None:
        """``stopped``: the steps whose states were left, of which the memory has what the run waits to hear of."""
        self._memory = memory
        self._delayed = list(memory.delayed)
        self._executions = list(memory.executions)
        self._owed = memory.owed
        self._compensations = compensations
        self._now = now
        self._sequence = sequence
        self._stopped = [*stopped]
        self._senders: dict[str, str] = {}
        """By the type of what is sent, which action sends it."""
        self._said_by = ""
        self.asked: list[Asked] = []

    def end(self, output: Any, by: str = "") -> None:
        """The run has ended: nothing of it comes later any more; ``by`` is which function has said the output."""
        self._delayed.clear()
        self._stop([*self._stopped, *(one for one in self._executions if not one.stopping)])
        self._executions, self._owed = [], ()
        self._memory = self._memory._replace(output=output, undoing=-1, scopes={})
        self._said_by = by

    def leave(self, states: Collection[str]) -> None:
        """Stop the timers and the steps of states that were left."""
        if self._delayed:
            self._delayed = [one for one in self._delayed if not one.state or one.state not in states]
        self._stop(self._stopped)

    def enter(self, node: Node, context: Callable[[], Context]) -> None:
        """Set the timers of a state that was entered, and ask for its step. Raises HandlerError."""
        for timer in node.timers:
            delay: Any = timer.delay
            when = delay if isinstance(delay, timedelta) else time_asked(delay, timer.name, context())
            if when is not None:
                due = self._due(when, timer.name or f"the timer of {node.name}")
                number = len(self.asked)
                # The pipeline's own have no state that they end with; the empty name would be none of a state.
                self._add(Delayed(due, self._sequence, number, timer.event_type, None, node.name))
                self.asked.append(Asked("timer", timer.event_type, due=due, number=number))
        if node.step:
            number = len(self.asked)
            self._run(Execution(self._sequence, number, node.step, node.name))

    def undo(self, chart: Chart) -> None:
        """Ask for what is to be undone next, wherever anything is by now. Raises HandlerError."""
        for place in places(self._memory):
            room = max(0, EXECUTIONS_MAX - len(self._executions))
            at_once, stated = place in chart.undone_at_once, chart.undone_as_stated.get(place, {})
            for owed in next_in(self._memory, place, room if at_once else 0, stated):
                self._undo(owed, place)

    def _undo(self, owed: Owed, place: str) -> None:
        compensation = self._compensations.get(owed.step)
        if compensation is None:
            message = f"the run is to undo the step {owed.step!r}, which has no compensation any more"
            raise HandlerError(Reason.DEFINITION_MISSING, message)
        number = len(self.asked)
        of, made = owed.id, owed.made
        name = compensation.name
        self._run(Execution(self._sequence, number, name, COMPENSATING, of=of, made=made, scope=place))

    def settle(self, settled: Iterable[Owed | Execution]) -> None:
        """Say that these are not to be undone any more."""
        for one in settled:
            self.asked.append(Asked("settle", one.step, id=one.id, number=len(self.asked)))

    def wish(self, wish: Wish, *, ended: bool) -> None:
        """Send what an action has asked for, now or later, call it off, or complete a step. Raises HandlerError."""
        asked, after, at, by = wish
        number = len(self.asked)
        if asked.what == "cancel":
            self._delayed = [one for one in self._delayed if one.name != asked.id or not asked.id]
            self.asked.append(asked._replace(number=number))
            return
        if asked.what in COMPLETES:
            if not ended:
                self.asked.append(asked._replace(number=number))
            return
        later = after is not None or at is not None
        own = asked.key is None and not asked.topic
        if ended and (later or own):
            return
        due = self._due(after if after is not None else at, asked.what) if later else 0
        self.asked.append(asked._replace(number=number, due=due))
        if later or own:
            self._senders[asked.type] = by
            self._add(
                Delayed(
                    due or microseconds_of(self._now),
                    self._sequence,
                    number,
                    asked.type,
                    orjson.loads(asked.data),
                    name=asked.id,
                    pipeline=asked.pipeline,
                    key=asked.key or "",
                    topic=asked.topic,
                    at_once=not later,
                )
            )

    def written(self, before: bytes) -> bytes | None:
        """The memory as it is stored; None where it is as before. Raises HandlerError."""
        rest = self._memory
        memory = Memory(
            tuple(self._delayed),
            rest.marks,
            rest.seen,
            rest.output,
            tuple(self._executions),
            self._owed,
            rest.undoing,
            rest.scopes,
        )
        written = write_memory(memory)
        if written is NOTHING_LEFT:
            return nothing_left(before)
        if len(written) > MEMORY_BYTES_MAX:
            by = {to_come(event_type): name for event_type, name in self._senders.items()} | {
                OUTPUT: self._said_by
            }
            error = too_much(read_memory(before), memory, len(written), by)
            raise HandlerError(Reason.ACTION_FAILED, error)
        return None if written == before else written

    def _run(self, execution: Execution) -> None:
        if len(self._executions) >= EXECUTIONS_MAX:
            message = f"the run has {EXECUTIONS_MAX} steps going on already, as many as it may have"
            raise HandlerError(Reason.ACTION_FAILED, message)
        self._executions.append(execution)
        self.asked.append(Asked("step", execution.step, id=execution.of, number=execution.number))

    def _stop(self, executions: Iterable[Execution]) -> None:
        for one in sorted(executions, key=_asked_at):
            self.asked.append(Asked("stop", one.step, id=one.id, number=len(self.asked)))

    def _due(self, when: timedelta | datetime | None, name: str) -> int:
        message = f"{name} is to fall due in more than {DELAY_DAYS_MAX} days"
        try:
            # What lies in the past is due at once, and still comes after this transition.
            at = self._now + when if isinstance(when, timedelta) else when
            assert at is not None
            too_far = at - self._now > _DELAY_MAX
            due = microseconds_of(max(at, self._now))
        except OverflowError:
            raise HandlerError(Reason.ACTION_FAILED, message) from None
        except BaseException as error:  # noqa: BLE001 - a time zone may be user code, and is asked here
            raise HandlerError(Reason.ACTION_FAILED, describe(error, name), raised=error) from None
        if too_far:
            raise HandlerError(Reason.ACTION_FAILED, message)
        return due

    def _add(self, one: Delayed) -> None:
        if len(self._delayed) >= DELAYED_MAX:
            message = f"the run has {DELAYED_MAX} timers and delayed events already, as many as it may have"
            raise HandlerError(Reason.ACTION_FAILED, message)
        self._delayed.append(one)


def nothing_left(before: bytes) -> bytes | None:
    """What says that a memory has nothing any more; None where it had nothing before."""
    return NOTHING_LEFT if before not in (b"", NOTHING_LEFT) else None


def _asked_at(one: Execution) -> tuple[int, int]:
    return one.sequence, one.number
