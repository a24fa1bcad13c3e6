"""Charts made at random, whose states run steps, and are undone.

Each state notes that it is entered and left, and each transition that it is taken: from that alone it can be told what
belongs to which state.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from statemachines import Call, Compensate, Context, Event, Pipeline, Settle, State
from statemachines.definition import Move
from statemachines.stated import Undo

STATES_MAX, DEPTH_MAX = 8, 2
UNDO: list[Undo] = ["in_order", "in_order", "parallel", ["toil"], ["undo_work", "toil"]]
EVENTS = [Event.named(f"e{number}") for number in range(5)]
BEGIN, TICK, SETTLE = (Event.named(name) for name in ("begin", "tick", "settle"))


class Told(Context):
    said: list[str] = Field(default_factory=list)


def work(_told: Told, _call: Call) -> int:
    return 1


def toil(_told: Told, _call: Call) -> int:
    return 2


def undo_work(_told: Told, _made: int | None, _call: Call) -> None: ...
def undo_toil(_told: Told, _made: int | None, _call: Call) -> None: ...


@dataclass
class Sketch:
    """A pipeline made at random."""

    flow: Pipeline[Told]
    parents: dict[str, str]
    """By state, the one around it; empty: none is."""
    moves: dict[str, Move] = field(default_factory=dict)
    """By the name that each is noted by."""
    asks: dict[str, str | None] = field(default_factory=dict)
    """What those ask to undo whose actions do; empty: the run; None: their source."""

    def is_within(self, state: str, scope: str) -> bool:
        while state and state != scope:
            state = self.parents[state]
        return state == scope

    def scope_of(self, name: str) -> str | None:
        """What a transition is to undo; None: nothing."""
        move = self.moves[name]
        if name in self.asks:
            asked = self.asks[name]
            return (move.source or "") if asked is None else asked
        return move.scope


def sketch(seed: int) -> Sketch:
    """The pipeline of a number. Not all of its states can be reached, and not all of its transitions are ever taken."""
    dice = random.Random(seed)
    flow = Pipeline("random", Told, topics=["t"], unexpected="ignore")
    made = Sketch(flow, {})
    for step, undo in ((work, undo_work), (toil, undo_toil)):
        flow.step()(step).compensate()(undo)
    _grow(made, dice, None, 0)
    flow.undo = dice.choice(UNDO)
    flow.start(BEGIN, lambda _event: Told())
    for number in range(dice.randint(6, 14)):
        _add_move(made, dice, f"m{number}")
    flow.on(TICK, do=note("tick"))
    owing = owing_of(made)
    if owing:
        ways = [*map(Settle, owing), Settle(flow)]
        flow.on(SETTLE, do=note("settle", dice.choice(ways)))
    return made


def _grow(made: Sketch, dice: random.Random, parent: State[Told] | None, depth: int) -> None:
    """Add states inside of one, which are regions or not."""
    regions = parent is not None and depth < DEPTH_MAX and dice.random() < 0.45
    for number in range(dice.choice([2, 2, 3])):
        name = f"s{len(made.parents)}"
        if parent is None:
            state = made.flow.state(name, initial=number == 0)
        elif regions:
            state = parent.region(name)
        else:
            state = parent.state(name, initial=number == 0)
        made.parents[name] = "" if parent is None else parent.name
        state.undo = dice.choice(UNDO)
        state.entry(note(f"+{name}"))
        state.exit(note(f"-{name}"))
        if not regions and dice.random() < 0.7:
            state.run = made.flow.steps[len(made.parents) % 2]
        if regions or (depth < DEPTH_MAX and len(made.parents) < STATES_MAX and dice.random() < 0.5):
            _grow(made, dice, state, depth + 1)


def _add_move(made: Sketch, dice: random.Random, name: str) -> None:
    flow, owing = made.flow, owing_of(made)
    source = dice.choice([None, *flow.states, *flow.states])
    target = dice.choice([state for state in flow.states if state.kind == "state"])
    own = "" if source is None else source.name
    scopes: list[Any] = [one for one in owing if source is None or related(made, own, one)]
    if scopes and (source is None or own in owing):
        scopes += [True] * len(scopes)
    scope: Any = dice.choice(scopes) if scopes and dice.random() < 0.8 else False
    effect, compensate = None, scope
    if scope is not False and dice.random() < 0.3:
        made.asks[name] = None if scope is True else scope
        effect, compensate = Compensate(made.asks[name]), False
        if dice.random() < 0.3:
            made.asks[name], effect = "", Compensate(flow)
    again = source is not None and dice.random() < 0.3
    before, event = len(flow.moves), dice.choice(EVENTS)
    flow.add_move(own or None, event, target, None, note(name, effect), reenter=again, compensate=compensate)
    made.moves[name] = flow.moves[before]


def note(word: str, effect: Any = None) -> Any:
    """An action that notes that it is done, and may ask for something."""

    def say(told: Told, _event: Event) -> Any:
        told.said.append(word)
        return effect

    return say


def owing_of(made: Sketch) -> list[str]:
    """The states that may owe anything."""
    running = [state.name for state in made.flow.states if state.run is not None]
    return [name for name in made.parents if any(made.is_within(one, name) for one in running)]


def related(made: Sketch, one: str, other: str) -> bool:
    return made.is_within(one, other) or made.is_within(other, one)
