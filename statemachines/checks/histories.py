"""Histories without a default that may be asked before there is anything to remember."""

from __future__ import annotations

from collections.abc import Iterator

from statemachines.checks.tree import Some, Tree
from statemachines.definition import Move
from statemachines.mistakes import Mistake
from statemachines.places import Place

Lead = tuple[Place, Some | None, list[Some]]
"""Something that enters states: where it is written, its domain and its targets."""


def find(tree: Tree) -> Iterator[Mistake]:
    """One mistake for each of them."""
    for history in tree.named.values():
        around = history.parent
        if history.kind != "history" or history.beginning is not None or around is None:
            continue
        if around.beginning is not None and history.name in around.beginning.targets:
            continue  # which is a mistake of its own
        place = _led_early(history, around, tree)
        if place is not None:
            message = (
                f"the history {history.name!r} has no default, and may be asked before {around.name!r} was ever left, "
                f"by what is said at {place}: it leads to where {around.name!r} begins then"
            )
            cure = "Say with default= where it is to lead then"
            yield Mistake(message, cure, history.place, state=history.name, severity="warning")


def _led_early(history: Some, around: Some, tree: Tree) -> Place | None:
    """What may lead to a history before the state around it was left; guards are taken to hold."""
    ahead, seen, taken = _beginnings(tree), set[Some](), set[Move]()
    while ahead:
        place, domain, targets = ahead.pop()
        entered = tree.entered(domain, targets)
        if history in entered:
            return place
        for state in entered:
            if state in seen:
                continue
            seen.add(state)
            if state.kind == "history":
                ahead.append((place, state.parent, tree.begins(state)))
            elif tree.is_leaf(state):
                ahead += _onwards(state, around, taken, tree)
    return None


def _beginnings(tree: Tree) -> list[Lead]:
    initial: list[Lead] = [(state.place, None, [state]) for state in tree.inside(None) if state.initial]
    for start in tree.pipeline.starts:
        targets = [tree.named[one] for one in start.targets if one in tree.named]
        if targets:
            initial.append((start.place, None, targets))
    return initial


def _onwards(leaf: Some, around: Some, taken: set[Move], tree: Tree) -> Iterator[Lead]:
    """Where transitions out of a leaf lead that do not leave this state, each once."""
    is_active = _is_active(around, leaf, tree)
    for source in (*tree.chain(leaf), None) if leaf.parent is not None or not leaf.final else ():
        for move in tree.moves.get(source, ()):
            domain, targets = tree.domain(move), tree.targets(move)
            to_history = any(target.kind == "history" and target.parent is around for target in targets)
            # What it remembers is what it remembered before the transition that leads there.
            leaves = is_active and tree.is_within(around, domain) and not to_history
            if targets and not leaves and move not in taken:
                taken.add(move)
                yield move.place, domain, targets


def _is_active(state: Some, leaf: Some, tree: Tree) -> bool:
    """Whether a state is active while a leaf is, or was before: around it, or where a region beside it begins."""
    if state in tree.chain(leaf):
        return True
    parting = tree.parting(leaf, state)
    return parting is not None and state in (parting[1], *tree.entered(parting[1], tree.begins(parting[1])))
