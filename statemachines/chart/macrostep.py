"""A macrostep: one event from outside, and all that follows from it before the next one is looked at.

Eventless transitions come first, then events that were raised, in their order; until nothing is enabled any more. It is
kept whole, or not at all.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from statemachines.chart.agenda import Agenda, nothing_left
from statemachines.chart.microsteps import Do, Microsteps, Plan, SayDone, Spot
from statemachines.chart.scopes import scope_asked, scope_settled
from statemachines.chart.spots import Live
from statemachines.chart.tree import Arc, Block, numbers_of
from statemachines.contexts import read, write
from statemachines.definition import name_of
from statemachines.events import Address, Compensated, Envelope, Event, Failed, Meta, set_origin
from statemachines.handlers import HandlerError, answer, ask, perform
from statemachines.limits import EFFECTS_MAX, MICROSTEPS_MAX, RAISED_MAX
from statemachines.memory import EMPTY, Execution, Memory, Owed
from statemachines.outcome import Moved, Reason, Tried
from statemachines.run import Status
from statemachines.undoing import changed, is_undone, places, settled
from statemachines.wishes import Scope

if TYPE_CHECKING:
    from statemachines.context import Context
    from statemachines.effects import Asked, Publication
    from statemachines.handlers import Acted
    from statemachines.machine import Machine
    from statemachines.run import Run
    from statemachines.wishes import Wish


NOBODY: Final[list[int]] = []
_COMPLETED, _RUNNING = int(Status.COMPLETED), int(Status.RUNNING)
_new: Final = tuple.__new__


class Macrostep:
    """One of them; used once."""

    __slots__ = (
        "_begun", "_context", "_ended", "_entered", "_envelope", "_event", "_failures", "_kept", "_key",
        "_last_failure", "_left", "_live", "_machine", "_memory", "_moves", "_now", "_number", "_output",
        "_performed", "_publications", "_queue", "_refusals", "_run", "_settled", "_spot", "_steps",
        "_stopped", "_touched", "_wishes", "tried",
    )  # fmt: skip

    def __init__(
        self,
        machine: Machine,
        run: Run | None,
        envelope: Envelope,
        key: str,
        now: datetime,
        spot: Spot,
        memory: Memory = EMPTY,
        *,
        anew: bool = False,
        acted: Acted | None = None,
    ) -> None:
        """``anew``: the run has ended, and what begins is the next generation of its key.

        ``acted``: what handlers have done already, up to and with the first action; they are not called again.
        """
        self._machine = machine
        self._steps: Microsteps = machine.microsteps
        self._run = run
        self._number = number_of(run, anew=anew)
        """Generation and sequence number of the transition."""
        self._envelope = envelope
        self._key = key
        self._now = now
        self._spot = spot
        self._live = Live(self._steps.chart, spot.active)
        self._context: Context | None = None if acted is None else acted.context
        self._performed = None if acted is None else acted.performed
        """What the first action asked for, until it is taken up."""
        self._refusals = 0 if acted is None else acted.refusals
        self._touched: str | None = None
        """The last handler that was given the context to change."""
        self._event: Event
        self._queue: deque[tuple[Event, HandlerError | None]] = deque()
        """Events that were raised; of those that tell of a failure, what is raised where nothing takes them."""
        self._kept = b""
        """The context as the last handler that did not fail left it, where failures may be taken."""
        self._last_failure = ""
        self._failures = 0
        self._moves = False
        """Whether any transition was taken."""
        self._publications: list[Publication] = []
        self._wishes: list[Wish] = []
        self._memory = memory
        self._stopped: list[Execution] = []
        """The steps whose states were left."""
        self._settled: list[Owed | Execution] = []
        """What is not to be undone any more."""
        self._begun = False
        self._left = 0
        self._entered = 0
        self._ended = 0
        self._output: Any = None
        self.tried: tuple[Tried, ...] = ()
        """Transitions whose guards did not hold, on the event from outside."""

    def move(self, event: Event, state: int | None = None) -> Moved | None:
        """Take an event; None where no transition is enabled. Raises HandlerError.

        ``state``: the only one that it is for, and those around it.
        """
        self._set_event(event, self._envelope.type)
        if state is None:
            arcs = self._steps.select(self._spot, self._envelope.type, self._holds_and_notes)
        else:
            arcs = self._steps.select_of(state, self._envelope.type, self._holds_and_notes)
        if not arcs and not self._queue:
            return None
        if arcs:
            self._carry_out(arcs)
        self._settle()
        # Where a guard failed, and nothing takes the failure either, the event is not taken.
        return self._moved() if self._moves else None

    def would_undo_again(self, event: Event) -> bool:
        """Whether an event that nothing takes would take a transition that undoes what is being undone already.

        It is that of a state that is undone, or of one around it; the first whose guard holds.
        """
        self._set_event(event, self._envelope.type)
        chart, whole = self._steps.chart, self._memory.undoing >= 0
        for place, line in places(self._memory).items():
            number = chart.numbers[place] if place else 0
            undone = 0 if whole else self._steps.undoings.scope_of(line)
            for arc in self._steps.select_of(number, self._envelope.type, self._would_hold):
                if undone >= 0 and arc.scope >= 0 and chart.is_within(arc.scope, undone):
                    return True
        return False

    def start(self, event: Event, context: Context, name: str, plan: Plan) -> Moved:
        """Begin a run with the context that an event's function has built. Raises HandlerError."""
        self._begin(event, context, name, plan)
        return self._moved()

    def start_and_offer(self, event: Event, context: Context, name: str, plan: Plan) -> Moved | None:
        """Begin a run, and have it take the event; None where no transition is enabled then. Raises HandlerError."""
        self._begin(event, context, name, plan)
        if self._ended:
            return None
        self._moves = False
        return self.move(event)

    def go_on(self) -> Moved:
        """Go on with undoing the run, since the memory has changed. Raises HandlerError."""
        self._settle()
        return self._moved()

    def _begin(self, event: Event, context: Context, name: str, plan: Plan) -> None:
        self._context, self._touched = context, name
        self._begun, self._entered = True, 1
        if self._steps.chart.takes_failures:
            self._kept = self._write(context, name)
        self._set_event(event, self._envelope.type)
        self._follow(plan)
        self._settle()

    def _moved(self) -> Moved:
        started = self._begun
        before = None if started or self._run is None else self._run.context
        context: bytes | None = None
        if self._touched is not None and self._context is not None:
            kept = self._steps.chart.takes_failures
            written = self._kept if kept else self._write(self._context, self._touched)
            context = None if written == before else written
        status = _COMPLETED if self._ended else _RUNNING
        configuration = self._machine.spots.text_of(self._spot)
        publications = tuple(self._publications)
        remembered = not started and self._run is not None and self._run.memory
        if not (
            self._steps.chart.asking
            or self._wishes
            or remembered
            or self._memory is not EMPTY
            or self._output is not None
        ):
            return _new(Moved, (started, configuration, status, context, publications, None, ()))
        memory, asked = self._remember()
        return _new(Moved, (started, configuration, status, context, publications, memory, asked))

    def _remember(self) -> tuple[bytes | None, tuple[Asked, ...]]:
        """What falls due later, and which steps go on, as it is after all this."""
        run, anew, chart = self._run, self._number[1] == 1, self._steps.chart
        before = b"" if run is None or anew else run.memory
        entered = 0 if self._ended else self._entered & chart.asking & (self._spot.active | 1)
        undoes = 0 if self._ended else chart.compensating & self._spot.active
        changes = entered or self._stopped or self._settled or self._wishes
        if self._memory is EMPTY and self._output is None and not changes:
            return nothing_left(before), ()
        agenda = Agenda(self._memory, self._now, self._number[1], self._machine.compensations, self._stopped)
        if self._ended:
            agenda.end(self._output, self._said_in(self._ended))
        else:
            left = self._left & chart.asking & ~1
            if self._stopped or (left and self._memory.delayed):
                agenda.leave(chart.names(left))
            for number in numbers_of(entered):
                agenda.enter(chart.nodes[number], self._needed_context)
            if undoes:
                agenda.undo(chart)
        agenda.settle(self._settled)
        for wish in self._wishes:
            agenda.wish(self._addressed(wish), ended=bool(self._ended))
        return agenda.written(before), tuple(agenda.asked)

    def _addressed(self, wish: Wish) -> Wish:
        """What is sent to the run by its own name is sent to itself."""
        asked = wish.asked
        own = asked.what == "send" and asked.key == self._key and asked.pipeline in ("", self._machine.name)
        return wish._replace(asked=asked._replace(key=None, pipeline="")) if own else wish

    def _settle(self) -> None:
        """Go on until the configuration is stable: nothing is enabled, and nothing raised is left."""
        steps = 1
        as_before = False
        while not self._ended:
            arcs = () if as_before else self._steps.select_eventless(self._spot, self._holds)
            if not arcs and self._steps.chart.compensating & self._spot.active:
                arcs = self._way_on()
            if not arcs:
                if not self._queue:
                    break
                event, failure = self._queue.popleft()
                self._set_event(event, event.event_type())
                arcs = self._steps.select(self._spot, event.event_type(), self._holds)
                if not arcs:
                    if failure is not None:
                        raise failure
                    # A failure is undone, and nothing is otherwise than when eventless transitions were looked at last:
                    # a guard that failed then would fail again, and so for ever.
                    as_before = type(event) is Failed
                    continue
            as_before = False
            steps += 1
            if steps > MICROSTEPS_MAX:
                raise HandlerError(Reason.NEVER_SETTLES, self._circle())
            self._carry_out(arcs)
        for _, failure in self._queue:
            if failure is not None:
                raise failure

    def _way_on(self) -> tuple[Arc, ...]:
        """Where the run goes from what is undone by now; nowhere as long as nothing is."""
        for place, line in places(self._memory).items():
            if is_undone(self._memory, place):
                event = Compensated()
                self._set_event(event, event.event_type())
                number = self._steps.chart.numbers[place] if place else 0
                return (self._steps.undoings.out_of(number, line),)
        return ()

    def _circle(self) -> str:
        states = " ".join(self._steps.chart.names(self._spot.active & ~1))
        failed = f". A handler failed on the way: {self._last_failure}" if self._last_failure else ""
        return (
            f"it sets off more than {MICROSTEPS_MAX} transitions one after the other, the last in {states}: "
            f"transitions that wait for no event, or raised events, lead to one another again and again{failed}"
        )

    def _carry_out(self, arcs: tuple[Arc, ...]) -> None:
        taken, plan = self._steps.take(self._spot, arcs)
        self._follow(plan, taken)

    def _follow(self, plan: Plan, arcs: tuple[Arc, ...] = (), begin: int = 0) -> None:
        """Do what is planned for these transitions, but for so much that is done already."""
        self._moves = True
        live = self._live
        for at, act in enumerate(plan.acts[begin:], begin + 1):
            live.active = act.active
            if type(act) is Do:
                undone = self._do(act.block, arcs)
                if undone != arcs:
                    # What was done so far that plan would have done, too: it begins by leaving the same states.
                    self._follow(self._steps.plan(self._spot, undone), undone, at)
                    return
            else:
                assert isinstance(act, SayDone)
                self._say_done(act.final, act.done)
        memory, change = self._memory, plan.change
        if change is not None and (memory.executions or memory.owed or change.begins or change.ended):
            self._memory, stopped = changed(memory, change, self._machine.compensations)
            self._stopped += stopped
        self._spot = plan.after
        live.active = plan.after.active
        self._left |= plan.left
        self._entered = self._entered & ~plan.left | plan.entered
        if plan.ends:
            self._ended = plan.ends
            nodes = self._steps.chart.nodes
            self._output = self._said_by(plan.ends)
            for number in reversed(list(numbers_of(plan.after.active))):
                for block in nodes[number].exits:
                    self._do(block)

    def _say_done(self, final: int, done: tuple[int, ...]) -> None:
        nodes = self._steps.chart.nodes
        data = self._said_by(final)
        for number in done:
            around = nodes[number].state
            assert around is not None, "the pipeline itself says by its status that it is done"
            # What the final state says is for the state around it; a parallel state has no output of its own.
            self._enqueue(around.done.model_construct(data=data if number == done[0] else None))

    def _said_by(self, final: int) -> Any:
        state = self._steps.chart.nodes[final].state
        if state is None or state.output is None:
            return None
        try:
            return answer(state.output, self._needed_context(), self._event)
        except HandlerError as error:
            self._fail(error)
            return None

    def _said_in(self, final: int) -> str:
        """Which function has said the output, in words."""
        state = self._steps.chart.nodes[final].state
        return "" if self._output is None or state is None else f"{name_of(state.output)} of {state.name!r}"

    def _do(self, block: Block, arcs: tuple[Arc, ...] = ()) -> tuple[Arc, ...]:
        """Do it; returns the transitions that are taken, by what it asks to undo."""
        context = self._needed_context()
        self._touched = block.name
        try:
            performed = self._performed
            if performed is None:
                performed = perform(block.function, block.name, context, self._event, self._key)
            self._performed = None
            taken, scopes = arcs, NOBODY
            if performed.compensates or performed.settles:
                taken = self._asked_to_undo(block, arcs, performed.compensates)
                scopes = self._asked_to_settle(block, arcs, performed.settles)
            if self._steps.chart.takes_failures:
                # What it left behind is looked at now, while it can be undone.
                self._kept = self._write(context, block.name)
        except HandlerError as error:
            self._fail(error)
            return arcs
        if scopes:
            self._settle_owed(scopes)
        self._publications.extend(performed.publications)
        self._wishes.extend(performed.wishes)
        if len(self._publications) + len(self._wishes) > EFFECTS_MAX:
            message = f"{block.name} and what led to it asked for more than {EFFECTS_MAX} effects in one move"
            raise HandlerError(Reason.ACTION_FAILED, message)
        for event in performed.raised:
            self._enqueue(event)
        return taken

    def _asked_to_undo(
        self, block: Block, arcs: tuple[Arc, ...], scopes: tuple[Scope, ...]
    ) -> tuple[Arc, ...]:
        """The transitions that are taken where the action of one of them asks to undo states. Raises HandlerError."""
        for name in scopes:
            arc = next((arc for arc in arcs if arc.block is block), None)
            scope = scope_asked(self._steps.chart, block, arc, name)
            arcs = tuple(
                self._steps.asked(self._spot, one, scope, arcs) if one is arc else one for one in arcs
            )
        return arcs

    def _asked_to_settle(self, block: Block, arcs: tuple[Arc, ...], scopes: tuple[Scope, ...]) -> list[int]:
        arc = next((arc for arc in arcs if arc.block is block), None)
        return [scope_settled(self._steps.chart, block, arc, name) for name in scopes]

    def _settle_owed(self, scopes: list[int]) -> None:
        """Nothing that these states owe is undone any more."""
        chart = self._steps.chart

        def is_settled(state: str) -> bool:
            number = chart.numbers[state] if state else 0
            return any(chart.is_within(number, scope) for scope in scopes)

        self._memory, gone = settled(self._memory, is_settled)
        self._settled += gone

    def _fail(self, error: HandlerError) -> None:
        """Undo it and let the chart deal with it, where it has a transition for that."""
        if not self._steps.chart.takes_failures or error.reason is Reason.TOO_LARGE:
            raise error
        self._context = read(self._machine, self._kept)
        self._last_failure = str(error)
        self._failures += 1
        if self._failures > MICROSTEPS_MAX:
            message = f"more than {MICROSTEPS_MAX} functions fail one after the other, the last: {error}"
            raise HandlerError(Reason.NEVER_SETTLES, message)
        dropped = self._steps.chart.drops_failures
        self._enqueue(Failed(handler=error.handler, error=str(error)), None if dropped else error)

    def _enqueue(self, event: Event, failure: HandlerError | None = None) -> None:
        if len(self._queue) >= RAISED_MAX:
            message = f"more than {RAISED_MAX} events are raised and not taken up yet"
            raise HandlerError(Reason.NEVER_SETTLES, message)
        self._queue.append((event, failure))

    def _holds(self, arc: Arc) -> bool:
        assert arc.guard is not None
        try:
            return ask(arc.guard, arc.guard_name, self._needed_context(), self._event)
        except HandlerError as error:
            self._fail(error)
            return False

    def _would_hold(self, arc: Arc) -> bool:
        """The same of one that is not taken: a guard that fails holds up nothing."""
        assert arc.guard is not None
        try:
            return ask(arc.guard, arc.guard_name, self._needed_context(), self._event)
        except HandlerError:
            return False

    def _holds_and_notes(self, arc: Arc) -> bool:
        if self._performed is None:
            holds = self._holds(arc)
        else:
            holds = self._refusals == 0
            self._refusals -= 1
        if not holds:
            nodes = self._steps.chart.nodes
            targets = " ".join(nodes[target].name for target in arc.targets)
            self.tried += (Tried(nodes[arc.source].name, targets or None, arc.guard_name),)
        return holds

    def _needed_context(self) -> Context:
        if self._context is None:
            assert self._run is not None, "a start brings its context"
            self._kept = self._run.context
            self._context = read(self._machine, self._kept)
        return self._context

    def _write(self, context: Context, name: str) -> bytes:
        return write(self._machine, context, name, b"" if self._run is None else self._run.context)

    def _set_event(self, event: Event, event_type: str) -> None:
        self._event = event
        envelope = self._envelope
        if event_type != envelope.type:
            envelope = envelope._replace(type=event_type)
        # Nothing that holds the event: a cycle would live until the garbage collector finds it.
        set_origin(event, (_meta, self._machine, self._number, envelope, self._key, self._now, self._live))


def number_of(run: Run | None, *, anew: bool = False) -> tuple[int, int]:
    """Generation and sequence number of the next transition of a run."""
    if run is None:
        return 0, 1
    return (run.generation + 1, 1) if anew else (run.generation, run.sequence + 1)


def _meta(
    machine: Machine, number: tuple[int, int], envelope: Envelope, key: str, now: datetime, live: Live
) -> Meta:
    address = Address(machine.namespace, machine.name, key, *number)
    return Meta(envelope, now, address, live.is_active, live.has_tag)
