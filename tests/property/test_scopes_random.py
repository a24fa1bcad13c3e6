"""Whatever states are undone in whatever chart: all that belongs to them is, once, in order, before the run goes on.

A failure names the seed, with which it can be lived again: ``lived_by(17)``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any
from unittest.mock import patch

import pytest

from statemachines.chart.spots import Spots
from statemachines.interpreter import step as take
from statemachines.machine import Machine, compile_pipeline
from statemachines.memory import Execution, Owed, read_memory
from statemachines.outcome import Moved, Outcome
from statemachines.results import done_event, stopped_event
from statemachines.run import Run
from statemachines.stated import Undo
from tests.property.faults import told_as
from tests.property.scopes import EVENTS, SETTLE, TICK, Sketch, sketch
from tests.property.test_undoing import after, occurrence

COMPENSATING = "$compensating"
SEEDS, SEEDS_LONG = 75, 5_000
OF_SETTLE, OF_TICK, OF_STEPS = 5, 6, 7
WHATS = [*range(len(EVENTS)), *range(len(EVENTS)), OF_SETTLE, OF_TICK, *[OF_STEPS] * 8]
"""What happens: an event, or how a step ended."""


def is_legal(made: Sketch, run: Run) -> bool:
    """Whether the active states are those that a chart may be in, beside ``$compensating``."""
    states, active = run.states, [one for one in run.states if one != COMPENSATING]
    undone = {states[at - 1] if at else "" for at, one in enumerate(states) if one == COMPENSATING}
    if len(undone) != states.count(COMPENSATING) or len(set(active)) != len(active):
        return False
    for name in ("", *active):
        if name and made.parents[name] and made.parents[name] not in active:
            return False
        inside = [state for state in made.flow.states if made.parents[state.name] == name]
        there = sum(state.name in active for state in inside)
        wanted = len(inside) if any(state.kind == "region" for state in inside) else min(1, len(inside))
        if there != (0 if name in undone else wanted):
            return False
    return True


def compiled(made: Sketch) -> Machine:
    """Its machine, whatever validation says of states that nothing leads to."""
    with patch("statemachines.machine.check"):
        return compile_pipeline(made.flow, namespace="n")


class Known:
    """What belongs to which state, and what of it is to be undone, from what was noted alone."""

    def __init__(self, made: Sketch) -> None:
        self.made = made
        self.owner: dict[str, str] = {}
        """By execution, of those that were asked for and may have to be undone."""
        self.undoing: set[str] = set()
        self.undone: set[str] = set()
        self.settled: set[str] = set()
        self.compensates: dict[str, str] = {}

    def follow(self, said: list[str], active: set[str]) -> None:
        """Take what one event has led to."""
        before = dict(self.owner)
        for word in said:
            if word[0] == "-":
                self.owner = {
                    id_: self.made.parents[owner] if owner == word[1:] else owner
                    for id_, owner in self.owner.items()
                }
            elif word in self.made.moves:
                scope = self.made.scope_of(word)
                if scope is not None and (not scope or scope in active):
                    self.undoing |= {
                        id_ for id_, owner in before.items() if self.made.is_within(owner, scope)
                    }

    @property
    def left(self) -> set[str]:
        return self.undoing - self.undone


def told(machine: Machine, run: Run) -> list[str]:
    context: Any = machine.read_context(run.context)
    return list(context.said)


def in_order(owed: list[Owed], undo: Undo) -> list[str]:
    """As it is undone: those that are named in their order, what is not behind them."""
    steps = [] if isinstance(undo, str) else [str(one).removeprefix("undo_") for one in undo]
    groups = [[one for one in owed if one.step == step] for step in steps]
    groups.append([one for one in owed if one.step not in steps])
    unknown = [[one.id for one in reversed(group) if not one.made] for group in groups]
    known = [[one.id for one in reversed(group) if one.made] for group in groups]
    return [id_ for pair in zip(unknown, known, strict=True) for ids in pair for id_ in ids]


class World:
    """A run, and what is known of it."""

    def __init__(self, made: Sketch, machine: Machine) -> None:
        self.made, self.machine, self.known = made, machine, Known(made)
        begun = take(machine, None, occurrence(machine, None, "begin", {}))
        run = after(None, begun)
        assert run is not None
        self.run = run
        self.asked(begun)
        assert is_legal(made, run)

    def offer(self, event_type: str, data: Any, execution: Execution | None = None) -> Outcome:
        """Have the run take it, and see that all is as it should be."""
        known, before = self.known, self.run
        outcome = take(self.machine, before, occurrence(self.machine, before, event_type, data, execution))
        found = after(before, outcome)
        assert found is not None
        self.run = found
        assert is_legal(self.made, found), found.configuration
        spots = Spots(self.machine.microsteps.chart)
        assert spots.text_of(spots.spot_of(found.configuration)) == found.configuration
        said = told(self.machine, found)[len(told(self.machine, before)) :]
        known.follow(said, set(before.states))
        if isinstance(outcome, Moved):
            for one in outcome.asked:
                if one.what == "settle":
                    assert one.id not in known.undoing
                    known.settled.add(one.id)
        self.compare()
        self.asked(outcome)
        return outcome

    def asked(self, outcome: Outcome) -> None:
        known, memory = self.known, read_memory(self.run.memory)
        for one in outcome.asked if isinstance(outcome, Moved) else ():
            if one.what != "step":
                continue
            id_ = f"{self.run.sequence}.{one.number}"
            if not one.id:
                [execution] = [other for other in memory.executions if other.id == id_]
                known.owner[id_] = execution.state
                continue
            assert one.id in known.undoing, "what does not belong to it is undone"
            assert one.id not in known.compensates.values(), "it is undone twice"
            known.compensates[id_] = one.id
            [owed] = [other for other in memory.owed if other.id == one.id]
            beside = [
                other
                for other in memory.owed
                if memory.undoing >= 0 or (other.undoing and other.scope == owed.scope)
            ]
            place = "" if memory.undoing >= 0 else owed.scope
            undo = next((state.undo for state in self.made.flow.states if state.name == place), None)
            if undo != "parallel" and (place or self.made.flow.undo != "parallel"):
                order = in_order(beside, self.made.flow.undo if undo is None else undo)
                assert order[0] == one.id, "it is not its turn"

    def compare(self) -> None:
        """What the run remembers of what it owes is what follows from what was noted."""
        known, memory = self.known, read_memory(self.run.memory)
        waits = {one.id: one for one in memory.executions if not one.of}
        owed = {one.id: one for one in memory.owed}
        for id_, one in owed.items():
            assert id_ not in known.settled
            assert (id_ in known.undoing) == bool(one.undoing or memory.undoing >= 0), (id_, one)
            if id_ not in known.undoing:
                assert one.scope == known.owner[id_]
        for id_, waiting in waits.items():
            is_undone = waiting.stopping == 2 or (memory.undoing >= 0 and bool(waiting.stopping))
            assert (id_ in known.undoing) == is_undone, (id_, waiting)
        places = COMPENSATING in self.run.states
        if not places:
            assert not {id_ for id_ in known.left if id_ in owed or id_ in waits}, "the run went on too early"
        assert places == (memory.undoing >= 0 or bool(memory.scopes))

    def ends(self, execution: Execution, how: int) -> None:
        """An execution ends in one of the ways that there are."""
        [step] = [one for one in self.made.flow.works if one.name == execution.step]
        known = self.known
        if execution.of:
            known.undone.add(known.compensates[execution.id])
            self.offer(*done_event(step, execution, execution.attempt, None), execution)
            return
        if execution.stopping:
            kind = ("never", "ended", "failed", "unknown")[how % 4]
            is_owed = kind in ("ended", "unknown")
            event = stopped_event(step, execution, kind, 1)
        else:
            is_owed = True
            event = done_event(step, execution, execution.attempt, 1)
        if not is_owed:
            known.undoing.discard(execution.id)
            known.owner.pop(execution.id, None)
        self.offer(*event, execution)


def lived_by(seed: int) -> None:
    """A run of the chart of this number, to which things happen, and whose undoing comes to its end then."""
    dice, made = random.Random(seed), sketch(seed)
    world = World(made, compiled(made))
    for _ in range(dice.randint(5, 25)):
        what, number = dice.choice(WHATS), dice.randint(0, 30)
        executions = read_memory(world.run.memory).executions
        if what < len(EVENTS):
            world.offer(EVENTS[what].event_type(), {})
        elif what == OF_SETTLE:
            world.offer(SETTLE.event_type(), {})
        elif what == OF_TICK:
            outcome = world.offer(TICK.event_type(), {})
            # Of all places only that of the run takes nothing.
            assert isinstance(outcome, Moved) == (world.run.states != (COMPENSATING,))
        elif executions:
            world.ends(executions[number % len(executions)], number)
    while COMPENSATING in world.run.states:
        waits = [one for one in read_memory(world.run.memory).executions if one.of or one.stopping]
        assert waits, "it waits for something"
        world.ends(waits[0], 1)


def try_seeds(seeds: Iterable[int]) -> None:
    for seed in seeds:
        with told_as(f"lived_by({seed})"):
            lived_by(seed)


def test_what_belongs_to_states_is_undone_with_them() -> None:
    try_seeds(range(SEEDS))


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_what_belongs_to_states_is_undone_with_them_in_many_charts(part: int) -> None:
    try_seeds(range(SEEDS + part, SEEDS_LONG, 10))
