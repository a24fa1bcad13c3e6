"""Mistakes that show when the chart is walked: states nobody reaches, and those that no way leads out of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from statemachines.checks import histories, shadows, staying
from statemachines.checks.tree import Some, Tree
from statemachines.definition import Pipeline
from statemachines.mistakes import Mistake

Node = tuple[str, Some | None]
"""A state that is entered, or active, or has anything inside active; or, of no state, the pipeline's transitions."""


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with the ways through a pipeline."""
    tree = Tree(pipeline)
    if not tree.is_sound:
        return  # which is a mistake of its own
    reached = _reached(tree)
    yield from _unreachable(tree, reached)
    yield from _endless(tree, reached)
    yield from shadows.find(tree)
    yield from histories.find(tree)


def _reached(tree: Tree) -> set[Some]:
    """All that a run may enter, histories among them; where nothing says in what it begins, from a presumption."""
    starts = [
        [tree.named[one] for one in start.targets if one in tree.named] for start in tree.pipeline.starts
    ]
    ahead: list[tuple[Some | None, list[Some]]] = [(None, targets) for targets in starts if targets]
    ahead.extend((None, [state]) for state in tree.inside(None) if state.initial)
    if not ahead:
        ahead.extend((None, [state]) for state in _presumed(tree))
    if ahead:
        ahead.extend((None, tree.targets(move)) for move in tree.moves.get(None, ()))
    reached: set[Some] = set()
    while ahead:
        for state in tree.entered(*ahead.pop()):
            if state not in reached:
                reached.add(state)
                ahead.extend(_onwards(state, reached, tree))
    return reached


def _presumed(tree: Tree) -> list[Some]:
    """The state in which runs seem to begin: the first that nothing leads to, or else the first."""
    led = set()
    for source, moves in tree.moves.items():
        for target in (target for move in moves for target in tree.targets(move)):
            outermost = tree.chain(target)[-1]
            if source is None or tree.chain(source)[-1] is not outermost:
                led.add(outermost)
    states = [state for state in tree.states_in(None) if not state.final]
    return [state for state in states if state not in led][:1] or states[:1]


def _onwards(state: Some, reached: set[Some], tree: Tree) -> Iterator[tuple[Some | None, list[Some]]]:
    """What may be entered because a state was: domains, and targets in them."""
    around = state.parent
    for move in tree.moves.get(state, ()):
        yield tree.domain(move), tree.targets(move)
    if state.kind == "history":
        yield around, tree.begins(state)
        if not state.deep:
            # Where it remembers a state by a way that led deeper, it now enters that one by default.
            yield from ((around, [one]) for one in tree.states_in(around) if one in reached)
    elif any(one in reached and not one.deep for one in tree.histories.get(around, ())):
        yield around, [state]


def _unreachable(tree: Tree, reached: set[Some]) -> Iterator[Mistake]:
    if not reached:
        return  # there is no state to begin in, which is a mistake of its own
    for state in tree.named.values():
        if state not in reached:
            what = "leads to the history" if state.kind == "history" else "ever reaches the state"
            message = f"no {'transition' if state.kind == 'history' else 'run'} {what} {state.name!r}"
            cure = "Add a transition that leads to it, or remove it"
            yield Mistake(message, cure, state.place, state=state.name)


def _endless(tree: Tree, reached: set[Some]) -> Iterator[Mistake]:
    final = [state for state in tree.inside(None) if state.final]
    if not final:
        message = f"pipeline {tree.pipeline.name!r} has no final state: its runs never end"
        cure = "Mark the states in which a run has ended with final=True, if there are any"
        if any(state.final for state in tree.named.values()):
            cure = "Add one beside the outermost states: those inside others only make these done"
        yield Mistake(message, cure, tree.pipeline.place, severity="warning")
        return
    ending = _leading_to(final, tree)
    leaves = [state for state in reached if tree.is_leaf(state)]
    active = {one for leaf in leaves for one in tree.chain(leaf)}
    hopeful = {one for leaf in leaves if ("active", leaf) in ending for one in tree.chain(leaf)}
    told = staying.staying(tree)
    untold = {one for leaf in leaves if leaf not in told for one in tree.chain(leaf)}
    for state in tree.named.values():
        # Of a state in which everything is like this, only the outermost is named.
        hopeless = state in active and state not in hopeful
        # Why a run stays where it has done its step is told by itself.
        if hopeless and state in untold and (state.parent is None or state.parent in hopeful):
            message = f"a run that is in {state.name!r} never ends: no way leads from it to a final state"
            cure = "Add the transitions that lead on, or mark it with final=True"
            if state.parent is not None:
                cure = "Add the transitions that lead on, from it or from a state around it"
            yield Mistake(message, cure, state.place, state=state.name, severity="warning")


def _leading_to(final: list[Some], tree: Tree) -> set[Node]:
    """All nodes from which a way leads to one of these states."""
    back: dict[Node, list[Node]] = {}
    for state in tree.depth:
        for here, there in _steps(state, tree):
            back.setdefault(there, []).append(here)
    for here, there in _leading_on(None, tree):
        back.setdefault(there, []).append(here)
    found: set[Node] = set()
    ahead: list[Node] = [("active", state) for state in final]
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead.extend(back.get(node, ()))
    return found


def _steps(state: Some, tree: Tree) -> Iterator[tuple[Node, Node]]:
    """Where one gets from a state in one step, be it through what is around it, inside it or beside it."""
    around = state.parent
    enter, active, inside = ("enter", state), ("active", state), ("inside", state)
    yield ("inside", around), inside
    yield inside, active
    if state.kind == "history":
        yield enter, ("inside", around)  # what is remembered
    else:
        yield enter, active
        if not (state.final and around is None):
            yield active, ("active", around)
    yield from ((enter, ("enter", one)) for one in tree.begins(state))
    if state.kind == "region":
        yield from ((active, ("inside", one)) for one in tree.states_in(around) if one is not state)
    yield from _leading_on(state, tree)


def _leading_on(source: Some | None, tree: Tree) -> Iterator[tuple[Node, Node]]:
    """Where transitions lead; those that wait until a state is done do so from the final states in it."""
    for move in tree.moves.get(source, ()):
        whose = None if move.event is None else tree.done.get(move.event)
        from_states = [source] if whose is None else tree.finals_in(whose)
        for target in tree.targets(move):
            yield from ((("active", one), ("enter", target)) for one in from_states)
