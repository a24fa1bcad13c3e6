"""Mistakes that only charts can have: with what is inside of states, and where they begin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from statemachines.checks import circles, dones, moves
from statemachines.checks.tree import KINDS, Some, Tree
from statemachines.definition import Initial, Pipeline, State
from statemachines.limits import STATE_DEPTH_MAX
from statemachines.mistakes import Mistake
from statemachines.suggest import did_you_mean


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes of this kind."""
    tree = Tree(pipeline)
    for stray in tree.strays:
        yield _stray(stray, pipeline)
    yield from _too_deep(tree)
    if not tree.is_sound:
        return  # nothing can be said of what is around what
    for state in tree.named.values():
        yield from _switches(state)
        yield from _inside(state, tree)
        yield from _initial(state, tree)
        if state.beginning is not None:
            yield from _beginning(state, state.beginning, tree)
        yield from _pseudo(state, tree)
        yield from _output(state)
    for start in pipeline.starts:
        yield from moves.begins(start, tree)
    for move in pipeline.moves:
        yield from moves.find(move, tree)
        yield from dones.find(move, tree)
    yield from circles.find(tree)


def _stray(state: Some, pipeline: Pipeline[Any]) -> Mistake:
    around: Any = state.parent
    name, message = str(state.name), f"the state {state.name!r} is inside of no state of this pipeline"
    cure = "Add it with .state, .region or .history of a state of this pipeline"
    if state.kind not in KINDS:
        message, cure = (
            f"the state {state.name!r} is of the kind {state.kind!r}",
            did_you_mean(state.kind, KINDS),
        )
    elif isinstance(around, State) and around.pipeline is not pipeline:
        whose = f"of pipeline {around.pipeline.name!r}"
        message = f"the state {state.name!r} is inside {around.name!r}, which is a state {whose}"
    elif isinstance(around, State):
        message = (
            f"the state {state.name!r} is inside {around.name!r}, which is not in the tree of states itself"
        )
    return Mistake(message, cure, state.place, state=name)


def _too_deep(tree: Tree) -> Iterator[Mistake]:
    for state, depth in tree.depth.items():
        if depth == STATE_DEPTH_MAX + 1:
            message = f"the state {state.name!r} is {depth} states deep, of {STATE_DEPTH_MAX} allowed"
            cure = "Put fewer states into each other, or keep what tells them apart in the context"
            yield Mistake(message, cure, state.place, state=str(state.name))


def _switches(state: Some) -> Iterator[Mistake]:
    for word in ("initial", "final", "deep"):
        given = getattr(state, word)
        if type(given) is not bool:
            message = f"{word}={given!r} of {state.name!r} is neither True nor False"
            yield Mistake(message, "Write one of them, or leave it out", state.place, state=state.name)


def _inside(state: Some, tree: Tree) -> Iterator[Mistake]:
    inside = tree.inside(state)
    if state.final and inside:
        message = f"the final state {state.name!r} has states inside, where nothing goes on"
        yield Mistake(message, "Remove them, or do not mark it as final", state.place, state=state.name)
    if state.kind == "history" and inside:
        message = f"the history {state.name!r} has states inside, but is none itself"
        yield Mistake(message, "Add them to the state around it", inside[0].place, state=state.name)
    if state.kind != "state" and state.parent is None:
        message = f"the {state.kind} {state.name!r} is in no state"
        yield Mistake(
            message, f"Add it with .{state.kind} of the state that it is for", state.place, state=state.name
        )
    kinds = {one.kind for one in inside} - {"history"}
    if len(kinds) > 1:
        message = f"{state.name!r} has both states and regions"
        cure = "Put the states into a region of their own, or make the regions states"
        yield Mistake(message, cure, state.place, state=state.name)
    if state.kind == "region" and not kinds:
        message = f"the region {state.name!r} has no states, so that nothing ever changes in it"
        cure = "Add some with .state(name), one of them initial=True"
        yield Mistake(message, cure, state.place, state=state.name, severity="warning")
    if inside and not kinds and state.kind != "history" and not state.final:
        message = f"{state.name!r} has a history, but no states to remember"
        yield Mistake(message, "Add states, or remove the history", inside[0].place, state=state.name)


def _initial(state: Some, tree: Tree) -> Iterator[Mistake]:
    initial = [one for one in tree.inside(state) if one.initial]
    for one in initial[1:]:
        message = f"the state {one.name!r} is initial, and so is {initial[0].name!r}"
        yield Mistake(
            message, f"Keep initial=True at one state of {state.name!r}", one.place, state=str(one.name)
        )
    if initial and tree.is_parallel(state):
        message = f"the state {initial[0].name!r} is initial, but {state.name!r} begins in all its regions"
        yield Mistake(message, "Leave initial=True out", initial[0].place, state=str(initial[0].name))
    elif initial and state.beginning is not None and state.kind != "history":
        message = (
            f"{state.name!r} says twice where it begins: here, and by initial=True of {initial[0].name!r}"
        )
        yield Mistake(message, "Keep one of them", state.beginning.place, state=state.name)
    needed = any(one.kind == "state" for one in tree.inside(state)) and not tree.is_parallel(state)
    if needed and not initial and state.beginning is None and not state.final and state.kind != "history":
        message = f"{state.name!r} has no initial state"
        cure = "Mark the state inside it that it begins in with initial=True"
        yield Mistake(message, cure, state.place, state=state.name)


def _beginning(state: Some, beginning: Initial, tree: Tree) -> Iterator[Mistake]:
    """Where a state is said to begin, or a history to lead."""
    is_history = state.kind == "history"
    does = f"the history {state.name!r} leads to" if is_history else f"{state.name!r} begins in"
    known: list[Some] = []
    if tree.is_parallel(state):
        message, cure = (
            f"{state.name!r} is parallel: it begins in all its regions",
            "Say of each region where it begins",
        )
        yield Mistake(message, cure, beginning.place, state=state.name)
    if beginning.stranger is not None:
        message = f"{state.name!r} names a state of pipeline {beginning.stranger!r}"
        cure = f"Name a state inside {state.name!r}"
        yield Mistake(message, cure, beginning.place, state=state.name)
        return
    if not beginning.targets:
        yield Mistake(f"{does} nothing", "Name a state inside it", beginning.place, state=state.name)
    for name in beginning.targets:
        target, cure = tree.named.get(name), "Name a state inside it"
        if target is None:
            message, cure = f"{does} {name!r}, which there is not", did_you_mean(name, tree.named)
        elif state.parent is None and is_history:
            continue  # it is around nothing, which is a mistake of its own
        elif not tree.is_within(target, state.parent if is_history else state):
            message = f"{does} {name!r}, which is not inside {'the state around it' if is_history else 'it'}"
        elif target.kind == "history" and is_history:
            message, cure = f"{does} {name!r}, which is a history itself", "Name a state as default"
        elif target.kind == "history" and target.parent is state and target.beginning is None:
            message = f"{does} the history {name!r}, which has no default, and so leads to where {state.name!r} begins"
            cure = "Give the history a default"
        else:
            known.append(target)
            continue
        yield Mistake(message, cure, beginning.place, state=state.name)
    clash = tree.clash(known)
    if clash is not None:
        message = f"{does} {clash[0].name!r} and {clash[1].name!r}, which cannot both be active"
        yield Mistake(message, moves.ONE_EACH, beginning.place, state=state.name)


def _pseudo(state: Some, tree: Tree) -> Iterator[Mistake]:
    """A history is never active itself."""
    if state.kind != "history":
        return
    for handlers, word in ((state.entries, "entered"), (state.exits, "left")):
        for _, place in handlers[:1]:
            message = f"the history {state.name!r} is never {word} itself, so that this is never done"
            yield Mistake(message, "Put it on the state around it", place, state=state.name)
    for move in tree.moves.get(state, ()):
        message = f"a transition leads out of the history {state.name!r}, which is never active itself"
        yield moves.of(
            move, message, "Say with default= where it leads, or put the transition on the state around it"
        )


def _output(state: Some) -> Iterator[Mistake]:
    if state.output is not None and not state.final:
        message = f"{state.name!r} has an output, but is not final"
        yield Mistake(message, "Mark it with final=True, or remove the output", state.place, state=state.name)
