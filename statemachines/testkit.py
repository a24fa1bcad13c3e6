"""A small test kit for pipelines: given some events, when another comes, then this holds.

    def test_a_paid_order_is_refunded_when_it_is_cancelled() -> None:
        order = given(flow, OrderPlaced(...), OrderPaid(...))
        order.when(OrderCancelled(order_id="o-1", why="too late"))
        order.then(state="cancelled", publishes=[RefundDue(...)])

It uses the interpreter that the engine uses, and nothing else: no Kafka, no Postgres, no clock. Each event
is stepped twice, from equal runs, to find handlers that answer differently to equal input: their runs could
not be replayed. Whatever does not hold raises ``AssertionError`` with a sentence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar, cast

import orjson

from statemachines.cancelling import cancel
from statemachines.context import Context
from statemachines.definition import Pipeline, State
from statemachines.effects import COMPLETES, Asked, Publication, Publish
from statemachines.events import Cancelled, Envelope, Event, is_internal
from statemachines.following import Following, fall_due, follow, wakes_at
from statemachines.handlers import HandlerError, validated
from statemachines.interpreter import step
from statemachines.keys import how_keyed, key_of, why_no_key
from statemachines.limits import DEFERRED_MAX, DELAYED_MAX
from statemachines.machine import Machine, compile_pipeline
from statemachines.memory import Delayed, lasting, microseconds_of, read_memory, time_of, write_memory
from statemachines.misuse import (
    called,
    configuration_given,
    event_given,
    fields_given,
    published_given,
    reason_given,
    states_given,
    taken,
)
from statemachines.occurrence import Occurrence
from statemachines.outcome import (
    Deferred,
    Duplicate,
    Ignored,
    Moved,
    Outcome,
    Reason,
    Refused,
    Stale,
    Tried,
    Waits,
)
from statemachines.patterns import is_pattern
from statemachines.run import DIGEST_BYTES, DeferredEvent, Run, Status, active_in, remember
from statemachines.stepkit import StepCase
from statemachines.suggest import did_you_mean
from statemachines.turns import business_key

C = TypeVar("C", bound=Context)
T = TypeVar("T")

BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
"""The time of the first event, unless ``given`` says otherwise."""

BY_ITSELF_MAX = DEFERRED_MAX + DELAYED_MAX
"""How much a run may take by itself after one event, in a test."""

TICKS_MAX = 10_000
"""How much may fall due in one ``later``."""


class ImpureHandlerError(AssertionError):
    """A handler answered differently to equal input."""


def ask_twice(what: str, ask: Callable[[], T], told: Callable[[T], object] = lambda answer: answer) -> T:
    """What a pipeline's own code answers, or the HandlerError that it raises: the same both times, by what is told."""

    def answer() -> tuple[T | HandlerError, str]:
        try:
            found = ask()
        except HandlerError as error:
            return error, str(error)
        return found, repr(told(found))

    (first, said), (_, then) = answer(), answer()
    if said != then:
        raise ImpureHandlerError(f"{what} differs for equal input: {said}; then {then}")
    if isinstance(first, HandlerError):
        raise first
    return first


def given(pipeline: Pipeline[C], *events: Event, key: str = "test", now: datetime = BEGINNING) -> Case[C]:
    """A run after these events, each of which must be taken; without events there is no run yet.

    Args:
        pipeline: what is tested; DefinitionError if it has mistakes.
        events: what happened so far.
        key: the run's key, where the event class names no field for it.
        now: the time of the first event.
    """
    case = Case(pipeline, key, now)
    for event in events:
        case.when(event)
        moved = isinstance(case.outcome, Moved)
        assert moved, f"the given {event.event_type()} was not taken: {_told(case.outcome)}"
    return case


@dataclass(frozen=True, slots=True)
class EndedRun(Generic[C]):
    """What a run has come to that another one of its key has followed."""

    generation: int
    state: str
    context: C
    output: Any


class Case(StepCase, Generic[C]):
    """One run, and what became of the last event."""

    def __init__(self, pipeline: Pipeline[C], key: str, now: datetime) -> None:
        self.machine = compile_pipeline(taken(pipeline, Pipeline, "what is tested"), namespace="test")
        self.key = key
        self.now = taken(now, datetime, "now=")
        self.run: Run | None = None
        self.outcome: Outcome | None = None
        self.published: list[Publication] = []
        """What was asked to be published since the last ``when`` or ``later``, or since a step's end was told."""
        self.sent: list[Asked] = []
        """What was asked for beside: events to this run and others, timers, and what was called off."""
        self.followed: list[tuple[str, Outcome]] = []
        """What the run took by itself since: types of deferred events, events to itself and timers, with their ends.

        Also what waited for it and began the next run of its key.
        """
        self.ended_runs: list[EndedRun[C]] = []
        """The runs of the key that ended and were followed by another one, the oldest first."""
        self._ended_before = 0
        """How many of them had ended before the last ``when``."""
        self._completing: list[Asked] = []
        """What actions have said of steps, and the run has not taken."""
        self._onward: list[Occurrence] = []
        """What waited for a run that has ended, and is for the next one of its key."""
        self._last: Event | None = None
        self._seen: set[bytes] = set()
        """Digests of what was taken, by whatever generation; the engine asks the log for older ones."""
        self._seen_ids: set[str] = set()
        """The ids of the same."""
        self._events = 0

    @property
    def state(self) -> str:
        """The active states, outermost first, separated by spaces; empty without a run."""
        return " ".join(self.run.states) if self.run else ""

    @property
    def context(self) -> C:
        """The context as the log holds it."""
        assert self.run is not None, "there is no run yet, so there is no context"
        return cast("C", self.machine.read_context(self.run.context))

    @property
    def output(self) -> Any:
        """What the final state that ended the run has said; None as long as it goes on."""
        return None if self.run is None else read_memory(self.run.memory).output

    def later(self, passed: timedelta) -> Case[C]:
        """Let time pass before the next event; timers and delayed events fall due meanwhile, each in its time.

        What is asked then is asked of the last of what fell due. While a run is held, nothing does.
        """
        until = self.now + taken(passed, timedelta, "what passes", "later(timedelta(days=1))")
        self._forget()
        for _ in range(TICKS_MAX):
            due = None if self.run is None or self.run.held else wakes_at(self.run)
            if due is None or time_of(due) > until:
                self.now = until
                return self
            self.now = max(self.now, time_of(due))
            before = len(self.followed)
            self._go_on(fall_due)
            if len(self.followed) > before:
                self.outcome = self.followed[before][1]
        raise AssertionError(f"timers fall due again and again before {until}")

    @property
    def deferred(self) -> list[str]:
        """The types of the events that wait for the run to take them, the oldest first."""
        return [] if self.run is None else [one.envelope.type for one in self.run.deferred]

    def when(self, *events: Event) -> Case[C]:
        """Events come, one after the other; after each the run takes what it takes by itself.

        Where an action says by ``Complete`` how a step ended, that follows; with an error, it is not tried again.
        """
        self._forget()
        for event in events:
            self._events += 1
            self._take(*self._sent(event))
        return self

    def when_read(self, envelope: Envelope, data: Any) -> Case[C]:
        """An event comes as it was read from a topic, with data that need not be valid."""
        taken(envelope, Envelope, "what comes beside the data")
        try:
            written = orjson.dumps(data)
        except TypeError as error:
            message = f"data is as JSON has it, such as a dict, and not {called(data)}: {error}"
            raise AssertionError(message) from None
        self._forget()
        self._take(envelope, written)
        return self

    def when_again(self, event: Event | None = None) -> Case[C]:
        """The last event is delivered once more, under the same id; or this one is, under its id."""
        assert self._last is not None, "no event has come yet"
        self._forget()
        self._take(*self._sent(self._last if event is None else event))
        return self

    def when_cancelled(self, *, who: str = "an operator", why: str = "a test") -> Case[C]:
        """An operator cancels the run, whatever holds it; it must be one that goes on."""
        taken(who, str, "who=")
        taken(why, str, "why=")
        assert self.run is not None, "there is no run yet that could be cancelled"
        assert self.run.status == Status.RUNNING, f"the run in {self.state!r} has ended, or was not begun yet"
        self._forget()
        self._events += 1
        event_type = Cancelled.event_type()
        envelope = Envelope(f"event-{self._events}", "testkit", event_type, self.key, self.now)
        event = Cancelled(who=who, why=why)
        occurrence = Occurrence(envelope, self.key, b"", self.now, event)
        first, second = (cancel(self.machine, self.run, occurrence) for _ in range(2))
        self._compare_outcomes(event_type, first, second)
        self.outcome = first
        if isinstance(first, Moved):
            self.run = self.run._replace(held=0)
        self._settle(first, occurrence)
        return self

    def then(
        self,
        *,
        state: str | None = None,
        is_in: str | State[Any] | Sequence[str | State[Any]] = (),
        context: Mapping[str, Any] | None = None,
        publishes: Sequence[Event | Publish] | None = None,
        ended: bool | None = None,
    ) -> Case[C]:
        """The last event was taken; and each of these that is given holds.

        Args:
            state: the configuration: all active states, outermost first, separated by spaces.
            is_in: a state that is active, or several, whatever else is.
            context: some fields of the context with their values.
            publishes: what was published since ``when`` or ``later``, in order; an event alone may go to any topic.
            ended: whether the run is completed, or was cancelled.
        """
        assert isinstance(self.outcome, Moved), f"the event was not taken: {_told(self.outcome)}"
        for event_type, outcome in self.followed:
            failed = isinstance(outcome, Refused) and outcome.holds
            assert not failed, f"the run is held by {event_type}, which it took by itself: {_told(outcome)}"
        configuration_given(state)
        assert state in (None, self.state), f"the run is in {self.state!r}, not in {state!r}{self._before()}"
        for name in states_given(is_in):
            self._check_in(name)
        fields = {} if context is None else fields_given(context, self.context)
        for name, value in fields.items():
            found = getattr(self.context, name)
            assert found == value, f"the context's {name} is {found!r}, not {value!r}{self._before()}"
        if publishes is not None:
            self._compare(published_given(publishes))
        if ended is not None:
            assert self.run is not None
            assert self.run.has_ended == ended, (
                f"the run in {self.state!r} has {'not ' if ended else ''}ended{self._before()}"
            )
        return self

    def then_refused(self, reason: Reason, *, saying: str = "", holds: bool | None = None) -> Case[C]:
        """The last event became a dead letter for this reason; its error has ``saying`` in it."""
        outcome, reason = self.outcome, reason_given(reason)
        taken(saying, str, "saying=")
        assert isinstance(outcome, Refused), f"the event was not refused: {_told(outcome)}"
        assert outcome.reason == reason, f"the event was refused as {_told(outcome)}, not as {reason.value!r}"
        assert saying in outcome.error, f"the error says {outcome.error!r}, and not {saying!r}"
        assert holds in (None, outcome.holds), f"the run is {'not ' if holds else ''}held by it"
        return self

    def then_ignored(self, reason: Reason) -> Case[C]:
        """The last event changed nothing, as the pipeline's policy says."""
        reason = reason_given(reason)
        assert isinstance(self.outcome, Ignored), f"the event was not ignored: {_told(self.outcome)}"
        assert self.outcome.reason == reason, (
            f"it was ignored as {_told(self.outcome)}, not as {reason.value!r}"
        )
        return self

    def then_deferred(self, reason: Reason = Reason.UNEXPECTED) -> Case[C]:
        """The last event waits until the run takes it."""
        reason = reason_given(reason)
        assert isinstance(self.outcome, Deferred), f"the event was not deferred: {_told(self.outcome)}"
        assert self.outcome.reason == reason, (
            f"it was deferred as {_told(self.outcome)}, not as {reason.value!r}"
        )
        return self

    def then_stale(self) -> Case[C]:
        """The last event is older than one of its stream that was applied."""
        assert isinstance(self.outcome, Stale), f"the event is not stale: {_told(self.outcome)}"
        return self

    def then_duplicate(self) -> Case[C]:
        """The last event had been taken before."""
        assert isinstance(self.outcome, Duplicate), f"the event is not a duplicate: {_told(self.outcome)}"
        return self

    def _forget(self) -> None:
        self.published = []
        self.sent = []
        self.followed = []
        self._ended_before = len(self.ended_runs)

    def _take(self, envelope: Envelope, data: bytes) -> None:
        digest = self._digest(envelope, orjson.loads(data))
        occurrence = self._occurrence(envelope, data, digest)
        first, second = (
            step(self.machine, self.run, self._occurrence(envelope, data, digest)) for _ in range(2)
        )
        self._compare_outcomes(envelope.type, first, second)
        self.outcome = first
        self._settle(first, occurrence)

    def _sent(self, event: Event) -> tuple[Envelope, bytes]:
        """What an event is once it is written."""
        event_given(event)
        assert not is_internal(type(event)), (
            f"{event.event_type()} comes from inside of a run only; have it raised by what raises it"
        )
        assert not is_pattern(event.event_type()), (
            f"{type(event).__name__} stands for all of {event.event_type()!r}; "
            f"an event has one type: make it of {type(event).__name__}.named('the.type')"
        )
        self._last = event
        written = event.model_dump_json(by_alias=True).encode()
        key = self._key(event, written)
        assert self.run is None or key == self.key, f"the event is for the run {key!r}, not for {self.key!r}"
        self.key = key
        return Envelope(f"event-{self._events}", "testkit", event.event_type(), key, self.now), written

    def _settle(self, outcome: Outcome, occurrence: Occurrence) -> None:
        if isinstance(outcome, Deferred):
            self._go_over_to(run_deferring(self.run, outcome, occurrence))
        elif self._apply(outcome, occurrence):
            self._go_on(follow)

    def _digest(self, envelope: Envelope, data: Any) -> bytes:
        once = self.machine.onces.get(envelope.type)
        for_ever = once if once is not None and once.within is None else None
        key = None if for_ever is None else business_key(for_ever, envelope.type, data)
        named = key or f"{envelope.source}\n{envelope.id}"
        return hashlib.blake2b(named.encode(), digest_size=DIGEST_BYTES).digest()

    def _apply(self, outcome: Outcome, occurrence: Occurrence) -> bool:
        """The run after an outcome; whether it moved."""
        match outcome:
            case Moved():
                self.published += outcome.publications
                self.sent += outcome.asked
                self._completing += [one for one in outcome.asked if one.what in COMPLETES]
                self._go_over_to(run_after(self.run, outcome, self.key, occurrence.digest, occurrence.now))
                if occurrence.digest:
                    self._seen.add(occurrence.digest)
                    self._seen_ids.add(occurrence.envelope.id)
                return True
            case Refused(holds=True) if self.run is not None:
                sequence = self.run.sequence + 1
                self.run = self.run._replace(sequence=sequence, held=sequence)
            case Ignored(memory=bytes() as memory) if self.run is not None:
                self.run = self.run._replace(sequence=self.run.sequence + 1, memory=memory)
                return True
            case _:
                pass
        return False

    def _go_on(self, ask: Callable[[Machine, Run, datetime], Following | None]) -> None:
        """Let the run take what it takes by itself, beginning with what is asked for."""
        for _ in range(BY_ITSELF_MAX):
            if self.run is None:
                return
            first, second = (ask(self.machine, self.run, self.now) for _ in range(2))
            if first is None or second is None:
                onward, self._onward = self._onward, []
                for occurrence in onward:
                    outcome = step(self.machine, self.run, occurrence)
                    self.followed.append((occurrence.envelope.type, outcome))
                    self._settle(outcome, occurrence)
                completing, self._completing = self._completing, []
                self._complete(completing)
                return
            self._compare_outcomes(first.occurrence.envelope.type, first.outcome, second.outcome)
            self._follow(first)
            ask = follow
        raise AssertionError(f"the run in {self.state!r} goes on by itself again and again")

    def _go_over_to(self, run: Run) -> None:
        """The run as it is now, which may be the next one of its key."""
        ended = self.run
        if ended is not None and run.generation > ended.generation:
            context, output = self.machine.read_context(ended.context), read_memory(ended.memory).output
            states = " ".join(ended.states)
            self.ended_runs.append(EndedRun(ended.generation, states, cast("C", context), output))
        self.run = run

    def _follow(self, found: Following) -> None:
        """The run after what it took by itself, or what is for the next one of its key."""
        assert self.run is not None
        goes_onward = bool(self._onward) or found.goes_onward(self.run)
        if isinstance(found.item, DeferredEvent):
            left = tuple(one for one in self.run.deferred if one is not found.item)
            self.run = self.run._replace(deferred=left)
        if goes_onward:
            self._onward.append(found.occurrence._replace(again=False))
            return
        self.followed.append((found.occurrence.envelope.type, found.outcome))
        if isinstance(found.outcome, Refused) and isinstance(found.item, Delayed):
            gone = write_memory(read_memory(self.run.memory).without(found.item))
            self.run = self.run._replace(memory=gone)
        self._apply(found.outcome, found.occurrence)

    def _compare_outcomes(self, event_type: str, first: Outcome, second: Outcome) -> None:
        if first != second:
            raise ImpureHandlerError(
                f"on {event_type} in {self.state!r} a handler answers differently to equal input: "
                f"{_told(first)}; then {_told(second)}"
            )

    def _occurrence(self, envelope: Envelope, data: bytes, digest: bytes) -> Occurrence:
        own = orjson.loads(data)
        event, error = validated(self.machine, envelope.type, own)
        seen = digest in self._seen or self._knows_id(envelope)
        return Occurrence(envelope, self.key, digest, self.now, event, error, seen, own)

    def _knows_id(self, envelope: Envelope) -> bool:
        """Whether an event that is known by a business key for ever is a duplicate by its id."""
        once = self.machine.onces.get(envelope.type)
        if once is None or once.within is not None:
            return False
        waiting = () if self.run is None else self.run.deferred
        return envelope.id in self._seen_ids or any(one.envelope.id == envelope.id for one in waiting)

    def _key(self, event: Event, written: bytes) -> str:
        how = self.machine.keys.get(event.event_type()) or how_keyed(type(event))
        try:
            key = ask_twice(
                f"the key of {event.event_type()}", lambda: key_of(how, orjson.loads(written), self.key)
            )
        except HandlerError as error:
            raise AssertionError(f"the event has no key: {error}") from None
        name = type(event).__name__
        assert key is not None, f"the event has no key: {'' if how is None else why_no_key(how, name)}"
        return key

    def _check_in(self, name: str) -> None:
        names = [state.name for state in self.machine.pipeline.states]
        assert name in names, f"the pipeline has no state {name!r}. {did_you_mean(name, names)}"
        assert self.run is not None
        said = f"the run is in {self.state!r}, and {name!r} is not active{self._before()}"
        assert name in self.run.states, said

    def _before(self) -> str:
        """That a run has ended since the last ``when``, and this is the next one of its key."""
        if len(self.ended_runs) == self._ended_before:
            return ""
        return f"; the run before it has ended in {self.ended_runs[-1].state!r}: see ended_runs"

    def _compare(self, expected: Sequence[Event | Publish]) -> None:
        found = [(one.topic, one.type, orjson.loads(one.data)) for one in self.published]
        wanted = []
        for at, one in enumerate(expected):
            event = one.event if isinstance(one, Publish) else one
            any_topic = found[at][0] if at < len(found) else "any topic"
            topic = one.topic if isinstance(one, Publish) else any_topic
            wanted.append((topic, event.event_type(), orjson.loads(event.model_dump_json(by_alias=True))))
        assert found == wanted, f"what was published is {found}, not {wanted}"


def run_after(before: Run | None, moved: Moved, key: str, digest: bytes, now: datetime) -> Run:
    """The run after a move, but for what only a store knows."""
    if before is None:
        before = _new_run(key, 0, moved.status, now)
    elif moved.started and before.has_ended:
        before = _new_run(key, before.generation + 1, moved.status, now)
    return before._replace(
        sequence=before.sequence + 1,
        status=moved.status,
        configuration=moved.configuration,
        context=before.context if moved.context is None else moved.context,
        recent=remember(before.recent, digest) if digest else before.recent,
        updated=now,
        memory=before.memory if moved.memory is None else moved.memory,
    )


def run_deferring(before: Run | None, deferred: Deferred, occurrence: Occurrence) -> Run:
    """The run, which may be there for that only, with an event that waits for it."""
    run = before or _new_run(occurrence.key, 0, Status.EXPECTED, occurrence.now)
    if run.has_ended:
        generation = run.generation + 1
        run = _new_run(run.key, generation, Status.EXPECTED, occurrence.now)._replace(
            memory=lasting(run.memory)
        )
    one = DeferredEvent(
        run.sequence + 1,
        microseconds_of(deferred.until),
        deferred.then,
        deferred.reason.value,
        occurrence.digest,
        occurrence.envelope,
        occurrence.data,
    )
    return run._replace(sequence=run.sequence + 1, deferred=(*run.deferred, one))


def _new_run(key: str, generation: int, status: int, now: datetime) -> Run:
    return Run(1, key, generation, 0, status, "", b"", b"", b"", 1, 0, 0, now, now)


def _told(outcome: Outcome | None) -> str:
    match outcome:
        case None:
            return "no event has come yet"
        case Moved():
            states = " ".join(active_in(outcome.configuration))
            return f"the run moved to {states!r} with {outcome.context!r}"
        case Refused():
            held = "; the run is held by it" if outcome.holds else ""
            return f"{outcome.reason.value!r}: {outcome.error}{_because(outcome.policy, outcome.tried)}{held}"
        case Ignored():
            return f"ignored: {outcome.reason.value!r}{_because(outcome.policy, outcome.tried)}"
        case Deferred():
            why = _because(outcome.policy, outcome.tried)
            return f"deferred: {outcome.reason.value!r}: {outcome.why}{why}"
        case Stale():
            return f"stale: {outcome.why}"
        case Duplicate():
            return "a duplicate: an event with its id, or its business key, was taken before"
        case Waits():
            return "it waits: the run is held by what failed before"


def _because(policy: str, tried: Sequence[Tried]) -> str:
    """What decided, and the transitions that were considered."""
    considered = (
        f"{one.source or 'any state'} -> {one.target or 'stay'}" + (f" [{one.guard}]" if one.guard else "")
        for one in tried
    )
    said = {"by the policy": policy, "tried, and not enabled": ", ".join(considered)}
    return "".join(f"; {word}: {text}" for word, text in said.items() if text)
