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

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar, cast

import orjson

from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.effects import Publication, Publish
from statemachines.events import Envelope, Event, is_internal
from statemachines.handlers import HandlerError
from statemachines.interpreter import Occurrence, step
from statemachines.keys import how_keyed, key_of, why_no_key
from statemachines.machine import compile_pipeline
from statemachines.outcome import Ignored, Moved, Outcome, Reason, Refused
from statemachines.run import DIGEST_BYTES, Run, Status, active_in, remember

C = TypeVar("C", bound=Context)

BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
"""The time of the first event, unless ``given`` says otherwise."""


class ImpureHandlerError(AssertionError):
    """A handler answered differently to equal input."""


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
        taken = isinstance(case.outcome, Moved)
        assert taken, f"the given {event.event_type()} was not taken: {_told(case.outcome)}"
    return case


class Case(Generic[C]):
    """One run, and what became of the last event."""

    def __init__(self, pipeline: Pipeline[C], key: str, now: datetime) -> None:
        self.machine = compile_pipeline(pipeline, namespace="test")
        self.key = key
        self.now = now
        self.run: Run | None = None
        self.outcome: Outcome | None = None
        self.published: list[Publication] = []
        """What the events of the last ``when`` asked to be published."""
        self._last: Event | None = None
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

    def later(self, passed: timedelta) -> Case[C]:
        """Let time pass before the next event."""
        self.now += passed
        return self

    def when(self, *events: Event) -> Case[C]:
        """Events come, one after the other."""
        self.published = []
        for event in events:
            self._events += 1
            self._take(event)
        return self

    def when_again(self) -> Case[C]:
        """The last event is delivered once more, under the same id."""
        assert self._last is not None, "no event has come yet"
        self.published = []
        self._take(self._last)
        return self

    def then(
        self,
        *,
        state: str | None = None,
        context: Mapping[str, Any] | None = None,
        publishes: Sequence[Event | Publish] | None = None,
        ended: bool | None = None,
    ) -> Case[C]:
        """The last event was taken; and each of these that is given holds.

        Args:
            state: the configuration.
            context: some fields of the context with their values.
            publishes: what was published since ``when``, in order; an event alone may go to any topic.
            ended: whether the run is completed.
        """
        assert isinstance(self.outcome, Moved), f"the event was not taken: {_told(self.outcome)}"
        assert state in (None, self.state), f"the run is in {self.state!r}, not in {state!r}"
        for name, value in (context or {}).items():
            found = getattr(self.context, name)
            assert found == value, f"the context's {name} is {found!r}, not {value!r}"
        if publishes is not None:
            self._compare(publishes)
        if ended is not None:
            assert self.run is not None
            assert (self.run.status == Status.COMPLETED) == ended, (
                f"the run in {self.state!r} has {'not ' if ended else ''}ended"
            )
        return self

    def then_refused(self, reason: Reason, *, saying: str = "", holds: bool | None = None) -> Case[C]:
        """The last event became a dead letter for this reason; its error has ``saying`` in it."""
        outcome = self.outcome
        assert isinstance(outcome, Refused), f"the event was not refused: {_told(outcome)}"
        assert outcome.reason == reason, f"the event was refused as {_told(outcome)}, not as {reason.value!r}"
        assert saying in outcome.error, f"the error says {outcome.error!r}, and not {saying!r}"
        assert holds in (None, outcome.holds), f"the run is {'not ' if holds else ''}held by it"
        return self

    def then_ignored(self, reason: Reason) -> Case[C]:
        """The last event changed nothing, as the pipeline's policy says."""
        assert isinstance(self.outcome, Ignored), f"the event was not ignored: {_told(self.outcome)}"
        assert self.outcome.reason == reason, (
            f"it was ignored as {_told(self.outcome)}, not as {reason.value!r}"
        )
        return self

    def _take(self, event: Event) -> None:
        assert not is_internal(type(event)), (
            f"{event.event_type()} comes from inside of a run only; have it raised by what raises it"
        )
        self._last = event
        digest = self._events.to_bytes(DIGEST_BYTES, "big")
        first, second = (step(self.machine, self.run, self._occurrence(event, digest)) for _ in range(2))
        if first != second:
            raise ImpureHandlerError(
                f"on {event.event_type()} in {self.state!r} a handler answers differently to equal input: "
                f"{_told(first)}; then {_told(second)}"
            )
        self.outcome = first
        if isinstance(first, Moved):
            self.published += first.publications
            self.run = run_after(self.run, first, self.key, digest, self.now)
        elif isinstance(first, Refused) and first.holds and self.run is not None:
            sequence = self.run.sequence + 1
            self.run = self.run._replace(sequence=sequence, held=sequence)

    def _occurrence(self, event: Event, digest: bytes) -> Occurrence:
        key = self._key(event)
        assert self.run is None or key == self.key, f"the event is for the run {key!r}, not for {self.key!r}"
        self.key = key
        envelope = Envelope(f"event-{self._events}", "testkit", event.event_type(), key, self.now)
        copy = type(event).model_validate_json(event.model_dump_json(by_alias=True))
        return Occurrence(envelope, key, digest, self.now, copy)

    def _key(self, event: Event) -> str:
        how = self.machine.keys.get(event.event_type()) or how_keyed(type(event))
        try:
            key = key_of(how, orjson.loads(event.model_dump_json(by_alias=True)), self.key)
        except HandlerError as error:
            raise AssertionError(f"the event has no key: {error}") from None
        name = type(event).__name__
        assert key is not None, f"the event has no key: {'' if how is None else why_no_key(how, name)}"
        return key

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
        before = Run(1, key, 0, 0, moved.status, "", b"", b"", b"", 1, 0, 0, now, now)
    return before._replace(
        sequence=before.sequence + 1,
        status=moved.status,
        configuration=moved.configuration,
        context=before.context if moved.context is None else moved.context,
        recent=remember(before.recent, digest),
        updated=now,
    )


def _told(outcome: Outcome | None) -> str:
    match outcome:
        case None:
            return "no event has come yet"
        case Moved():
            states = " ".join(active_in(outcome.configuration))
            return f"the run moved to {states!r} with {outcome.context!r}"
        case Refused():
            return f"{outcome.reason.value!r}: {outcome.error}"
        case Ignored():
            return f"ignored: {outcome.reason.value!r}"
        case _:
            return type(outcome).__name__
