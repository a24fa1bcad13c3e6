"""Whatever comes in whatever order: once a run has been undone, all was undone that was done, or may have been, once.

And it is the same run whether it stayed in memory or was read again.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statemachines import Call, Compensate, Context, Event, Pipeline
from statemachines.events import Envelope
from statemachines.handlers import validated
from statemachines.interpreter import step as take
from statemachines.later import Later
from statemachines.machine import Machine, compile_pipeline
from statemachines.memory import Execution, read_memory, write_memory
from statemachines.occurrence import Occurrence
from statemachines.outcome import Ignored, Moved, Outcome, Reason, Refused
from statemachines.results import done_event, failed_event, stopped_event, tried_event, waits_event
from statemachines.run import Run, Status
from statemachines.stated import Undo
from statemachines.testkit import BEGINNING, run_after

BEGIN, GO, BACK, IN, CANCEL, UNDO, CLOSE, END = (
    Event.named(name) for name in ("begin", "go", "back", "in", "cancel", "undo", "close", "end")
)


class Empty(Context):
    pass


def one(_context: Empty, _call: Call) -> int:
    return 1


async def two(_context: Empty, _call: Call) -> int:
    return 2


def plain(_context: Empty, _call: Call) -> None: ...
def undo_one(_context: Empty, _made: int | None, _call: Call) -> None: ...
async def undo_two(_context: Empty, _made: int | None, _call: Call) -> None: ...


def make(undo: Undo = "in_order") -> Pipeline[Empty]:
    """Steps with and without compensations, alone, in a state with states inside, and in regions."""
    flow = Pipeline("undoing", Empty, topics=["t"], undo=undo)
    first, second, third = flow.step()(one), flow.step()(two), flow.step()(plain)
    first.compensate()(undo_one)
    second.compensate(on_error=True)(undo_two)
    alone = flow.state("alone", initial=True, run=first)
    around = flow.state("around", run=second)
    inside, deeper = around.state("inside", initial=True, run=third), around.state("deeper", run=first)
    wide = flow.state("wide")
    for name in ("left", "right"):
        region = wide.region(name)
        begins = region.state(f"{name}-begins", initial=True, run=first)
        begins.on(first.done, to=region.state(f"{name}-goes-on", run=second))
    idle, over = flow.state("idle"), flow.state("over", final=True)
    flow.start(BEGIN, lambda _event: Empty())
    alone.on(first.done, to=around)
    inside.on(IN, to=deeper)
    around.on(second.done, to=wide)
    flow.on(GO, to=wide)
    flow.on(BACK, to=alone)
    flow.on(CANCEL, to=idle, compensate=True)
    flow.on(UNDO, to=alone, do=lambda _context, _event: Compensate())
    flow.on(CLOSE, to=over, compensate=True)
    flow.on(END, to=over)
    flow.on_failure(to=wide, when=lambda _context, failed: failed.attempts > 5)
    flow.on_failure(to=idle, when=lambda _context, failed: failed.attempts > 1, compensate=True)
    return flow


ORDERS: list[Undo] = ["in_order", ["undo_two"], ["one", "two"]]
"""What is undone first; of those that are named nowhere, what was done last."""
FLOW = make()
BY_NAME = {step.name: step for step in FLOW.works}
ON_ERROR = {"one": False, "two": True}
"""Whether a step that has raised is undone; those that are never undone are not in it."""

outsiders = st.sampled_from(["go", "back", "in", "go", "back", "in", "cancel", "undo", "close", "end"])
WAYS = ["done", "done", "failed", "lost", "late", "tried", "tried lost", "tried late", "ended", "later"]
STOPS = ["never", "ended", "failed", "unknown"]
STOPPED = [*STOPS, "done", "lost", "late", "tried", "tried lost", "later"]
endings = st.tuples(st.integers(0, 7), st.integers(0, 9), st.integers(0, 9))
"""Of which execution; what becomes of it, of ``WAYS`` or of ``STOPPED``; and a number."""


def occurrence(
    machine: Machine, run: Run | None, event_type: str, data: Any, delayed: Any = None
) -> Occurrence:
    event, error = validated(machine, event_type, data)
    number = 0 if run is None else run.sequence
    digest = b"" if delayed else number.to_bytes(8, "big")
    envelope = Envelope(str(number), "s", event_type, "k", None)
    return Occurrence(envelope, "k", digest, BEGINNING, event, error, data=data, delayed=delayed)


def ending(execution: Execution, how: str, value: int) -> tuple[str, Any]:
    step, lost = BY_NAME[execution.step], how.endswith("lost")
    late = how.endswith("late")
    result = value if step.name in ON_ERROR else None
    if how == "later":
        return waits_event(step, execution, Later("token"), BEGINNING)
    if how == "done":
        return done_event(step, execution, execution.attempt, result)
    if how in STOPS and (execution.stopping or how == "ended"):
        return stopped_event(step, execution, how, result)
    if how.startswith("tried"):
        return tried_event(step, execution, KeyError("k"), timed_out=late, lost=lost, again=value)
    return failed_event(step, execution, KeyError("k"), timed_out=late, lost=lost, attempts=value)


def after(run: Run | None, outcome: Outcome) -> Run | None:
    match outcome:
        case Moved():
            return run_after(run, outcome, "k", b"", BEGINNING)
        case Ignored(memory=bytes() as memory) if run is not None:
            return run._replace(sequence=run.sequence + 1, memory=memory)
        case _:
            return run


class Known:
    """What is to be undone, from what happened alone."""

    def __init__(self, undo: Undo = "in_order") -> None:
        self.named = [] if isinstance(undo, str) else [str(one).removeprefix("undo_") for one in undo]
        """The steps that are undone in an order of its own."""
        self.ever: dict[str, Execution] = {}
        """All that was asked for."""
        self.undoes: dict[str, str] = {}
        """By compensations, what they undo."""
        self.waits: set[str] = set()
        """Of which it is to be heard: those that go on, and those with compensations that were stopped."""
        self.stopped: set[str] = set()
        self.outside: set[str] = set()
        """Of which an attempt goes on outside."""
        self.unseen: set[str] = set()
        """Of which an attempt was lost."""
        self.did: list[tuple[str, int]] = []
        """What was done, or may have been, and the row that says so; in order."""
        self.undone: list[str] = []

    def ends(self, execution: Execution, how: str, row: int) -> None:
        """What this says, which the run took."""
        if how == "later" and execution.id not in self.stopped:
            self.outside.add(execution.id)
            return
        self.outside.discard(execution.id)
        if how.startswith("tried") and execution.id not in self.stopped:
            self.unseen |= {execution.id} if how != "tried" else set()
            return
        self.waits.remove(execution.id)
        self.stopped.discard(execution.id)
        if execution.id in self.undoes:
            assert how == "done"
            self.undone.append(self.undoes[execution.id])
            return
        on_error = ON_ERROR.get(execution.step)
        is_done = how in ("done", "ended")
        unseen = how in ("lost", "late", "tried lost", "unknown", "later") or execution.id in self.unseen
        was_begun = execution.attempt > 1 or how != "never"
        if is_done and on_error is not None:
            self.did.append((execution.id, row))
        elif on_error is not None and was_begun and (unseen or on_error):
            self.did.append((execution.id, 0))

    def asks(self, sequence: int, outcome: Outcome) -> None:
        for asked in outcome.asked if isinstance(outcome, Moved) else ():
            if asked.what == "step":
                made = Execution(sequence, asked.number, asked.type, "")
                assert made.id not in self.ever
                self.ever[made.id] = made
                if asked.id:
                    assert not self.waits, "one at a time, once all was heard of"
                    self.undoes[made.id] = asked.id
                    assert asked.id == self.order()[len(self.undone)]
                self.waits.add(made.id)
            elif asked.what == "stop":
                if asked.type in ON_ERROR and asked.id in self.outside:
                    # Nobody is asked what becomes of it.
                    self.waits.remove(asked.id)
                    self.did.append((asked.id, 0))
                elif asked.type in ON_ERROR:
                    assert asked.id not in self.stopped
                    self.stopped.add(asked.id)
                else:
                    self.waits.remove(asked.id)

    def order(self) -> list[str]:
        """In which it is to be undone."""
        unknown = [id_ for id_, row in reversed(self.did) if not row]
        order = unknown + [id_ for id_, row in reversed(self.did) if row]
        rest = [id_ for id_ in order if self.ever[id_].step not in self.named]
        return [id_ for name in self.named for id_ in order if self.ever[id_].step == name] + rest

    def forgets(self) -> None:
        self.did.clear()
        self.undone.clear()


def changed(thing: Any, known: Known, run: Run) -> tuple[str, Any, Execution | None, str]:
    """The event: its type and data, of which execution it is, and how that ended."""
    if isinstance(thing, str):
        return thing, None, None, ""
    at, number, value = thing
    # Mostly of one that the run waits for.
    some = [one for one in known.ever.values() if one.id in known.waits or at == 0]
    if not some:
        return "in", None, None, ""
    chosen = some[-at % len(some)]
    how = (STOPPED if chosen.id in known.stopped else WAYS)[number]
    found = read_memory(run.memory).execution(chosen.id) or chosen
    return *ending(found, how, value), found, how


@pytest.mark.parametrize("undo", ORDERS, ids=str)
@settings(max_examples=75)
@given(st.lists(outsiders | endings | endings, max_size=40))
def test_a_run_undoes_what_it_did(undo: Undo, things: list[Any]) -> None:
    flow = make(undo)
    machine, anew = (compile_pipeline(flow, namespace="n") for _ in range(2))
    begun = take(machine, None, occurrence(machine, None, "begin", {}))
    run = after(None, begun)
    assert run is not None
    known = Known(undo)
    known.asks(1, begun)
    for thing in things:
        event_type, data, execution, how = changed(thing, known, run)
        there = execution is not None and read_memory(run.memory).execution(execution.id) is not None
        outcome = take(machine, run, occurrence(machine, run, event_type, data, execution))
        again = run._replace(memory=write_memory(read_memory(run.memory)) if run.memory else b"")
        assert take(anew, again, occurrence(anew, again, event_type, data, execution)) == outcome
        was_undone = "$compensating" in run.states
        before, run = run, after(run, outcome)
        assert run is not None
        if execution is not None and not there:
            assert outcome == Ignored(Reason.VOID)
            continue
        void = isinstance(outcome, Refused | Ignored) and outcome.reason in (Reason.VOID, Reason.STEP_FAILED)
        if execution is not None and not void:
            known.ends(execution, how, before.sequence + 1)
        if run.status == Status.COMPLETED and not was_undone and before.status == Status.RUNNING:
            # It ended as it does, or had nothing to undo.
            known.forgets()
            known.waits.clear()
            known.stopped.clear()
        else:
            known.asks(run.sequence, outcome)
        if was_undone and "$compensating" not in run.states:
            assert known.undone == known.order()
            known.forgets()
        memory = read_memory(run.memory)
        assert {one.id for one in memory.executions} == known.waits
        assert {one.id for one in memory.executions if one.stopping} == known.stopped
        assert [(one.id, one.made) for one in memory.owed] == [
            one for one in known.did if one[0] not in known.undone
        ]
        assert (memory.undoing >= 0) == ("$compensating" in run.states)
        if "$compensating" in run.states:
            assert isinstance(thing, tuple) or isinstance(outcome, Moved) or run is before
            assert known.waits, "it waits for something"
