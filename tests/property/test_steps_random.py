"""Whatever comes in whatever order: a run has the steps that it asked for, that it did not stop, and that did not end.

And it is the same run whether it stayed in memory or was read again.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from statemachines import Call, Context, Done, Event, Pipeline
from statemachines.events import Envelope
from statemachines.handlers import validated
from statemachines.interpreter import step as take
from statemachines.later import Later
from statemachines.machine import Machine, compile_pipeline
from statemachines.memory import Execution, read_memory, write_memory
from statemachines.occurrence import Occurrence
from statemachines.outcome import Ignored, Moved, Outcome, Reason, Refused
from statemachines.results import (
    done_event,
    event_id,
    failed_event,
    idempotency_key,
    tried_event,
    waits_event,
)
from statemachines.run import Run
from statemachines.testkit import BEGINNING, run_after


class Sum(Context):
    total: int = 0


class CardRefusedError(Exception):
    pass


GO, BACK, IN, OUT, END = (Event.named(name) for name in ("go", "back", "in", "out", "end"))


def add(total: Sum, got: Done[int]) -> None:
    total.total += got.result


def large(_total: Sum, got: Done[int]) -> bool:
    return got.result > 5


def make() -> tuple[Pipeline[Sum], list[Any]]:
    """Steps alone, in a state with states inside, and in regions; one of them twice."""
    flow = Pipeline("working", Sum, topics=["t"])

    def one(_total: Sum, _call: Call) -> int:
        return 1

    async def two(_total: Sum, _call: Call) -> int:
        return 2

    first, second = flow.step()(one), flow.step()(two)
    alone = flow.state("alone", initial=True, run=first)
    around = flow.state("around", run=second)
    inside, deeper = around.state("inside", initial=True), around.state("deeper", run=first)
    past = around.history("past")
    wide = flow.state("wide")
    left, right = wide.region("left"), wide.region("right")
    for region in (left, right):
        begins = region.state(f"{region.name}-begins", initial=True, run=first)
        begins.on(first.done, to=region.state(f"{region.name}-goes-on", run=second), when=large, do=add)
        begins.on(first.timed_out, do=lambda _total, _event: None)
    over = flow.state("over", final=True)
    flow.start(Event.named("begin"), lambda _event: Sum())
    alone.on(first.done, to=around, do=add)
    alone.on(GO, to=wide)
    inside.on(IN, to=deeper)
    deeper.on(first.failed_with(CardRefusedError), to=inside)
    around.on(second.done, to=wide, when=large)
    around.on(GO, to=around, reenter=True)
    wide.on(first.failed, to=alone)
    wide.on(OUT, to=past)
    flow.on(BACK, to=alone)
    flow.on(END, to=over)
    flow.on_failure(to=wide, when=lambda _total, failed: failed.attempts > 1)
    return flow, [first, second]


FLOW, STEPS = make()
MACHINE = compile_pipeline(FLOW, namespace="n")
BY_NAME = {step.name: step for step in STEPS}

outsiders = st.sampled_from(["go", "back", "in", "out", "go", "back", "in", "out", "end"])
endings = st.tuples(
    st.integers(0, 7),
    st.sampled_from(["done", "failed", "refused", "late", "tried", "later"]),
    st.integers(0, 9),
)


def occurrence(
    machine: Machine, run: Run | None, event_type: str, data: Any, delayed: Any = None
) -> Occurrence:
    event, error = validated(machine, event_type, data)
    number = 0 if run is None else run.sequence
    digest = b"" if delayed else number.to_bytes(8, "big")
    envelope = Envelope(str(number), "s", event_type, "k", None)
    return Occurrence(envelope, "k", digest, BEGINNING, event, error, data=data, delayed=delayed)


def ending(execution: Execution, how: str, value: int) -> tuple[str, Any]:
    step = BY_NAME[execution.step]
    match how:
        case "done":
            return done_event(step, execution, execution.attempt, value)
        case "failed":
            return failed_event(step, execution, KeyError("k"), attempts=value)
        case "refused":
            return failed_event(step, execution, CardRefusedError("no"), attempts=value)
        case "late":
            return failed_event(step, execution, "late", timed_out=True, attempts=value)
        case "later":
            return waits_event(step, execution, Later(f"token {value}"), BEGINNING)
        case _:
            return tried_event(step, execution, KeyError("k"), again=value)


class Known:
    """What there should be, from what was asked for alone."""

    def __init__(self) -> None:
        self.going_on: dict[str, Execution] = {}
        self.ever: dict[str, Execution] = {}

    def take(self, sequence: int, outcome: Outcome, ended: Execution | None) -> None:
        if ended is not None:
            self.going_on.pop(ended.id)
        for one in outcome.asked if isinstance(outcome, Moved) else ():
            if one.what == "step":
                made = Execution(sequence, one.number, one.type, "")
                assert made.id not in self.ever
                self.going_on[made.id] = self.ever[made.id] = made
            elif one.what == "stop":
                assert self.going_on.pop(one.id).step == one.type


def after(run: Run | None, outcome: Outcome) -> Run | None:
    match outcome:
        case Moved():
            return run_after(run, outcome, "k", b"", BEGINNING)
        case Ignored(memory=bytes() as memory) if run is not None:
            return run._replace(sequence=run.sequence + 1, memory=memory)
        case _:
            return run


@settings(max_examples=150)
@given(st.lists(outsiders | endings, max_size=25))
def test_a_run_has_the_steps_that_it_asked_for(things: list[Any]) -> None:
    anew = compile_pipeline(FLOW, namespace="n")
    run: Run | None = after(None, take(MACHINE, None, occurrence(MACHINE, None, "begin", {})))
    assert run is not None
    known = Known()
    known.take(1, take(MACHINE, None, occurrence(MACHINE, None, "begin", {})), None)
    for thing in things:
        memory = read_memory(run.memory)
        ended: Execution | None = None
        delayed: Execution | None = None
        event_type = str(thing)
        data: Any = {}
        if not isinstance(thing, str):
            at, how, value = thing
            ever = list(known.ever.values())
            chosen = ever[at % len(ever)]
            ended = memory.execution(chosen.id)
            delayed = ended or chosen
            event_type, data = ending(delayed, how, value)
        outcome = take(MACHINE, run, occurrence(MACHINE, run, event_type, data, delayed))
        again = run._replace(memory=write_memory(read_memory(run.memory)) if run.memory else b"")
        assert take(anew, again, occurrence(anew, again, event_type, data, delayed)) == outcome
        if delayed is not None and ended is None:
            assert outcome == Ignored(Reason.VOID)
        is_over = (
            ended is not None
            and not event_type.startswith(("tried.", "waits."))
            and not isinstance(outcome, Refused)
        )
        run = after(run, outcome)
        assert run is not None
        if ended is not None and event_type.startswith("waits."):
            waits = read_memory(run.memory).execution(ended.id)
            assert waits is not None
            assert waits.token == (ended.token or data["token"]), "the first that was said counts"
        if ended is not None and event_type.startswith("tried."):
            assert [one.token for one in read_memory(run.memory).executions if one.id == ended.id] == [""]
        known.take(run.sequence, outcome, ended if is_over else None)
        found = read_memory(run.memory).executions
        assert {one.id: one.step for one in found} == {one.id: one.step for one in known.going_on.values()}
        assert all(one.state in run.states for one in found)
        assert len({one.state for one in found}) == len(found)
        assert run.memory in (b"", write_memory(read_memory(run.memory)))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(1, 9)), min_size=2, max_size=9))
def test_keys_are_those_of_executions_and_ids_those_of_attempts(made: list[tuple[int, int, int]]) -> None:
    run = after(None, take(MACHINE, None, occurrence(MACHINE, None, "begin", {})))
    assert run is not None
    executions = [Execution(sequence, number, "one", "alone", attempt) for sequence, number, attempt in made]
    keys = {idempotency_key(MACHINE, "k", 0, one): one.id for one in executions}
    ids = {event_id(MACHINE, run, one, one.attempt, "failed") for one in executions}
    assert len(keys) == len({one.id for one in executions})
    assert len(ids) == len(set(made))
