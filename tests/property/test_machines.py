"""Random machines: the compiled table decides as ``transitions`` does; the same events give the same run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from statemachines import Context, Event, Pipeline, Publish
from statemachines.canonical import canonical_bytes
from statemachines.codehash import code_hash
from statemachines.diagram import to_mermaid
from statemachines.events import Envelope
from statemachines.interpreter import step
from statemachines.machine import Machine, compile_pipeline
from statemachines.occurrence import Occurrence
from statemachines.outcome import Deferred, Moved, Reason, Refused
from statemachines.run import Run, Status
from statemachines.testkit import run_after
from statemachines.validation import find_mistakes
from tests.reference import Reference

RELAXED = settings(deadline=None, max_examples=60)
"""The machine that runs this may be busy: slowness is no failure here."""

NOW = datetime(2024, 5, 17, 12, tzinfo=UTC)
EVENTS: list[type[Event]] = [Event.named(f"event.{number}") for number in range(5)]


class Began(Event, type="began"):
    pass


ALL_EVENTS: list[type[Event]] = [*EVENTS, Began]


class Trail(Context):
    """What a run has been through: each action adds a word."""

    steps: list[str] = []  # noqa: RUF012 - pydantic copies defaults


class Line(NamedTuple):
    """One random transition; ``source`` None is one of the whole pipeline, ``target`` None stays."""

    source: int | None
    event: int
    target: int | None
    guard: bool | None
    """The fixed answer of its guard; None: it has none."""
    publishes: int


LINES = st.builds(
    Line,
    source=st.none() | st.integers(0, 5),
    event=st.integers(0, len(EVENTS) - 1),
    target=st.none() | st.integers(0, 5),
    guard=st.none() | st.booleans(),
    publishes=st.integers(0, 2),
)


def answering(answer: bool) -> Callable[[Trail, Event], bool]:
    def guard(_trail: Trail, _event: Event) -> bool:
        return answer

    return guard


def adding(word: str, publishes: int) -> Callable[[Trail, Event], Any]:
    def action(trail: Trail, event: Event) -> list[Publish]:
        trail.steps.append(word)
        return [Publish("out", event, key=word)] * publishes

    return action


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline[Trail]:
    """Pipelines that may well have mistakes."""
    flow = Pipeline("random", Trail, topics=["random"])
    finals = draw(st.lists(st.booleans(), min_size=1, max_size=6))
    states = [
        flow.state(f"s{number}", initial=number == 0, final=final and number > 0)
        for number, final in enumerate(finals)
    ]
    for answer, at in draw(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=3)):
        flow.start(Began, lambda _event: Trail(), to=states[at % len(states)], when=answering(answer))
    flow.start(Began, lambda _event: Trail())
    for number, line in enumerate(draw(st.lists(LINES, max_size=14))):
        target = None if line.target is None else states[line.target % len(states)]
        guard = None if line.guard is None else answering(line.guard)
        owner: Any = flow if line.source is None else states[line.source % len(states)]
        owner.on(EVENTS[line.event], to=target, when=guard, do=adding(f"w{number}", line.publishes))
    return flow


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Machines without mistakes: lines that would be one are taken out."""
    flow = draw(pipelines())
    while places := {id(line) for line in flow.moves if _is_mistaken(flow, line)}:
        flow.moves[:] = [line for line in flow.moves if id(line) not in places]
    _cut_unreachable(flow)
    return compile_pipeline(flow)


def _is_mistaken(flow: Pipeline[Trail], line: Any) -> bool:
    """Whether ``transitions`` and the table would have nothing to do with this line: it never fires."""
    if line.source in {state.name for state in flow.states if state.final}:
        return True
    earlier = flow.moves[: flow.moves.index(line)]
    live = {state.name for state in flow.states if not state.final}

    def blocked_in(state: str) -> bool:
        own = [one for one in flow.moves if one.source == state] if line.source is None else []
        same = [one for one in earlier if one.source == line.source]
        return any(one.event is line.event and one.guard is None for one in own + same)

    return all(blocked_in(state) for state in ([line.source] if line.source else live))


def _cut_unreachable(flow: Pipeline[Trail]) -> None:
    """Make every state reachable, from a start event of its own."""
    for state in flow.states[1:]:
        flow.start(Event.named(f"began.{state.name}"), lambda _event: Trail(), to=state)


def occurrence(event: Event, number: int) -> Occurrence:
    envelope = Envelope(f"id-{number}", "test", event.event_type(), None, NOW)
    return Occurrence(envelope, "key", number.to_bytes(8, "big"), NOW + timedelta(seconds=number), event)


def run_in(machine: Machine, state: str, trail: Trail) -> Run:
    status = int(Status.COMPLETED if state in machine.final else Status.RUNNING)
    context = trail.model_dump_json().encode()
    return Run(1, "key", 0, 1, status, state, context, b"", b"", 1, 0, 0, NOW, NOW)


@RELAXED
@given(machines())
def test_the_table_and_the_library_transitions_agree_on_every_state_and_event(machine: Machine) -> None:
    reference = Reference(machine.pipeline)
    for state in machine.table:
        for number, event_class in enumerate(ALL_EVENTS):
            theirs = Trail(steps=["before"])
            expected = reference.decide(state, event_class(), theirs)
            outcome = step(
                machine, run_in(machine, state, Trail(steps=["before"])), occurrence(event_class(), number)
            )
            if expected is None:
                ended = state in machine.final
                assert isinstance(outcome, Refused if ended else Deferred)
                assert getattr(outcome, "reason", None) == (Reason.CLOSED if ended else Reason.UNEXPECTED)
            else:
                assert isinstance(outcome, Moved)
                assert outcome.configuration == expected
                assert outcome.context == theirs.model_dump_json().encode()


def run_through(machine: Machine, numbers: list[int]) -> list[tuple[Any, ...]]:
    """The run after each event, as what is stored of it."""
    run: Run | None = None
    stored: list[tuple[Any, ...]] = []
    for at, number in enumerate([-1, *numbers]):
        event = Began() if number < 0 else EVENTS[number]()
        came = occurrence(event, at)
        outcome = step(machine, run, came)
        if isinstance(outcome, Moved):
            run = run_after(run, outcome, "key", came.digest, came.now)
        stored.append((run, tuple(outcome)))
    return stored


@RELAXED
@given(machines())
def test_a_run_begins_by_the_first_start_whose_condition_holds(machine: Machine) -> None:
    event = Began()
    starts = [one for one in machine.pipeline.starts if one.event is Began]
    first = next(one for one in starts if one.guard is None or one.guard(Trail(), event))
    begun = step(machine, None, occurrence(event, 0))
    assert isinstance(begun, Moved)
    assert begun.configuration == (first.target or "s0")


@RELAXED
@given(machines(), st.lists(st.integers(0, len(EVENTS) - 1), max_size=20))
def test_the_same_events_give_the_same_run(machine: Machine, numbers: list[int]) -> None:
    again = compile_pipeline(machine.pipeline)
    assert run_through(machine, numbers) == run_through(again, numbers)
    assert (again.hash, again.code) == (machine.hash, machine.code)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Anything(Context):
    value: Any = None
    when: datetime | None = None
    raw: bytes = b""
    part: dict[str, list[float]] = {}  # noqa: RUF012 - pydantic copies defaults


class Told(Event, type="told"):
    value: Any = None
    raw: bytes = b""


def tell(context: Anything, event: Told) -> None:
    context.value = event.value
    context.when = event.meta.now
    context.raw = event.raw


TELLING: Pipeline[Anything] = Pipeline("telling", Anything, topics=["telling"])
TELLING.state("only", initial=True).on(Told, do=tell)
TELLING.start(Began, lambda _event: Anything())
TELLER = compile_pipeline(TELLING)


@RELAXED
@given(JSON, st.binary())
def test_a_context_comes_back_from_its_bytes_as_it_was(value: Any, raw: bytes) -> None:
    began = step(TELLER, None, occurrence(Began(), 0))
    assert isinstance(began, Moved)
    came = occurrence(Began(), 0)
    run = run_after(None, began, "key", came.digest, came.now)
    moved = step(TELLER, run, occurrence(Told(value=value, raw=raw), 1))
    assert isinstance(moved, Moved), moved
    written = moved.context or run.context
    context = TELLER.read_context(written)
    assert isinstance(context, Anything)
    assert TELLER.write_context(context, warnings=False, by_alias=True) == written
    assert context.raw == raw
    assert orjson.loads(written)["when"]


@RELAXED
@given(pipelines())
def test_the_validator_and_the_diagram_take_any_pipeline(flow: Pipeline[Trail]) -> None:
    found = find_mistakes(flow)
    assert all(mistake.message and mistake.cure and mistake.place.line for mistake in found)
    assert to_mermaid(flow).count("[*] -->") == len(flow.starts)


@RELAXED
@given(pipelines())
def test_hashes_depend_on_nothing_but_the_definition(flow: Pipeline[Trail]) -> None:
    assert canonical_bytes(flow) == canonical_bytes(flow)
    assert code_hash(flow) == code_hash(flow)
    assert len(hashlib.sha256(canonical_bytes(flow)).digest()) == 32
