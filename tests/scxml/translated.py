"""A neutral chart as a pipeline, and a run of it driven step by step, so that it can be held against the oracle.

Every action becomes a function that changes the context, which has the log and the variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from unittest import mock

from pydantic import Field

from statemachines import Context, Event, Pipeline, Raise, State, Topic
from statemachines import Failed as FailedEvent
from statemachines.definition import OnError
from statemachines.events import Envelope
from statemachines.interpreter import step
from statemachines.machine import Machine, compile_pipeline
from statemachines.occurrence import Occurrence
from statemachines.outcome import Moved, Outcome
from statemachines.run import DIGEST_BYTES, Run, Status
from statemachines.testkit import run_after
from tests.scxml import document as doc
from tests.scxml import execution
from tests.scxml.content import START_TYPE, TOPIC

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EMITTED = "error.execution"
START = Event.named(START_TYPE)


class Told(Context):
    """What a chart has told so far."""

    log: list[str] = Field(default_factory=list)
    variables: dict[str, int] = Field(default_factory=dict)


class FailedOnPurposeError(Exception):
    """What ``Fail`` raises."""


class UntranslatableError(Exception):
    """The chart says what a pipeline cannot say; the message says what."""


@dataclass(eq=False)
class Translation:
    """A pipeline made of a document."""

    document: doc.Document
    on_error: OnError = "refuse"
    flow: Pipeline[Told] = field(init=False)
    kinds: dict[str, doc.Kind] = field(default_factory=dict)
    states: dict[str, State[Told]] = field(default_factory=dict)
    classes: dict[str, type[Event]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        root = self.document.root
        self.flow = Pipeline(
            "chart",
            Told,
            topics=[Topic(TOPIC, unknown="ignore")],
            on_error=self.on_error,
            unexpected="ignore",
            closed="ignore",
        )
        first = root.initial
        assert first is not None
        for child in root.children:
            if child.kind is doc.Kind.HISTORY:
                raise UntranslatableError("a history of the pipeline itself")
            self._state(child, None, initial=first.targets == (child.id,))
        variables = dict(self.document.variables)

        def build(_event: Event) -> Told:
            return Told(variables=variables)

        self.flow.start(START, build, to=[*first.targets], do=self._block(first.actions))
        for node in root.walk():
            for transition in node.transitions:
                self._transition(node, transition)
        if not any(state.initial and state.parent is None for state in self.flow.states):
            # Where the chart begins is further inside; the start says so.
            self.states[root.children[0].id].initial = True

    def event(self, name: str) -> type[Event]:
        """The class of events of this name from outside, or that are raised."""
        return self.classes.setdefault(name, Event.named(name))

    def machine(self) -> Machine:
        """Compiled without validation: random charts have states that nothing reaches. Nobody asks for a hash of the
        code.
        """
        with mock.patch.multiple(
            "statemachines.machine", check=mock.DEFAULT, code_hash=lambda _flow, **_: bytes(32)
        ):
            return compile_pipeline(self.flow)

    def _state(self, node: doc.Node, parent: State[Told] | None, *, initial: bool) -> None:
        if node.kind is doc.Kind.HISTORY:
            self._history(node, parent)
            return
        output = None
        if node.donedata:
            names = node.donedata

            def output(told: Told, _event: Event) -> dict[str, int]:
                return {name: told.variables[name] for name in names}

        is_region = parent is not None and self.kinds[parent.name] is doc.Kind.PARALLEL
        if parent is None:
            state = self.flow.state(node.id, initial=initial, final=node.kind is doc.Kind.FINAL)
            state.output = output
        elif is_region:
            state = parent.region(node.id)
        else:
            state = parent.state(node.id, initial=initial, final=node.kind is doc.Kind.FINAL, output=output)
        self.states[node.id] = state
        self.kinds[node.id] = node.kind
        for block in node.onentry:
            state.entry(self._needed(block))
        for block in node.onexit:
            state.exit(self._needed(block))
        begins = node.initial
        plain = begins is not None and len(begins.targets) == 1 and not begins.actions
        states = {child.id for child in node.children if child.kind is not doc.Kind.HISTORY}
        direct = plain and begins is not None and begins.targets[0] in states
        for child in node.children:
            self._state(child, state, initial=bool(direct and begins and begins.targets == (child.id,)))
        if begins is not None and not direct:
            state.initially([*begins.targets], do=self._block(begins.actions))

    def _history(self, node: doc.Node, parent: State[Told] | None) -> None:
        assert parent is not None
        default = node.default
        assert default is not None
        self.states[node.id] = parent.history(
            node.id,
            deep=node.history_type is doc.HistoryType.DEEP,
            default=[*default.targets],
            do=self._block(default.actions),
        )

    def _transition(self, node: doc.Node, transition: doc.Transition) -> None:
        state = self.states[node.id]
        guard = None if transition.cond == doc.ALWAYS else _guard(transition.cond)
        to: list[State[Any] | str] | None = [*transition.targets] or None
        do, reenter = self._block(transition.actions), not transition.internal
        if not transition.events:
            state.always(to=to, when=guard, do=do, reenter=reenter)
        for name in dict.fromkeys(transition.events):
            state.on(self._class(name), to=to, when=guard, do=do, reenter=reenter)

    def _class(self, name: str) -> type[Event]:
        if name == EMITTED:
            return FailedEvent
        done = self.states.get(name.removeprefix("done.state."))
        return self.event(name) if done is None or name == done.name else done.done

    def _needed(self, block: doc.Block) -> Callable[[Told, Event], Any]:
        return self._block(block) or (lambda _told, _event: None)

    def _block(self, block: doc.Block) -> Callable[[Told, Event], Any] | None:
        if not block:
            return None

        def act(told: Told, event: Event) -> Iterable[Raise]:
            raised = []
            for action in block:
                match action:
                    case doc.Log(label):
                        told.log.append(label)
                    case doc.Ask(label, condition):
                        told.log.append(execution.asked(label, _holds(condition, told, event)))
                    case doc.LogData():
                        told.log.append(execution.told((getattr(event, "data", None) or {}).items()))
                    case doc.Add(name, n):
                        told.variables[name] += n
                    case doc.Raise(name):
                        raised.append(Raise(self.event(name)()))
                    case doc.Fail():
                        raise FailedOnPurposeError
            return raised

        return act


def _guard(cond: doc.Condition) -> Callable[[Told, Event], bool]:
    def holds(told: Told, event: Event) -> bool:
        return _holds(cond, told, event)

    return holds


def _holds(cond: doc.Condition, told: Told, event: Event) -> bool:
    match cond:
        case doc.Always():
            return True
        case doc.InState(id):
            return event.meta.is_in(id)
        case doc.Less(name, n):
            return told.variables[name] < n
        case doc.Not(inner):
            return not _holds(inner, told, event)
        case doc.Both(left, right):
            return _holds(left, told, event) and _holds(right, told, event)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a run shows after an event."""

    outcome: Outcome
    active: frozenset[str]
    history: dict[str, frozenset[str]]
    log: tuple[str, ...]
    """Of this event alone."""
    variables: dict[str, int]
    finished: bool

    @property
    def accepted(self) -> bool:
        return isinstance(self.outcome, Moved)


class Driven:
    """A run of a translated chart."""

    def __init__(self, translation: Translation) -> None:
        self._translation = translation
        self._machine = translation.machine()
        self._events = 0
        self.run: Run | None = None

    def start(self) -> Shown:
        return self._take(START(), START.event_type())

    def send(self, name: str) -> Shown:
        # As the engine does it: the class of a pattern, where none of its own is named for the type.
        event_class = self._machine.events.get(name) or self._translation.event(name)
        return self._take(event_class(), name)

    def _take(self, event: Event, name: str) -> Shown:
        machine, before = self._machine, self._told()
        self._events += 1
        digest = self._events.to_bytes(DIGEST_BYTES, "big")
        envelope = Envelope(f"event-{self._events}", "test", name, "key", NOW)
        outcome = step(machine, self.run, Occurrence(envelope, "key", digest, NOW, event))
        if isinstance(outcome, Moved):
            self.run = run_after(self.run, outcome, "key", digest, NOW)
        after = self._told()
        if self.run is None:
            return Shown(outcome, frozenset(), {}, (), {}, finished=False)
        spot, chart = machine.spots.spot_of(self.run.configuration), machine.microsteps.chart
        history = {
            chart.nodes[number].name: frozenset(chart.names(states))
            for number, states in zip(chart.history, spot.history, strict=True)
            if states
        }
        return Shown(
            outcome,
            frozenset(self.run.states),
            history,
            tuple(after.log[len(before.log) :]),
            after.variables,
            self.run.status == Status.COMPLETED,
        )

    def _told(self) -> Told:
        return Told() if self.run is None else Told.model_validate_json(self.run.context)
