"""Histories that never have anything to remember, and those without a default that may be asked before they have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
        if history.kind != "history" or around is None or not tree.states_in(around):
            continue
        begins_there = around.beginning is not None and history.name in around.beginning.targets
        if begins_there and history.beginning is None:
            continue  # which is a mistake of its own
        leading = [one for moves in tree.moves.values() for one in moves if history.name in one.targets]
        if leading and not _remembers(history, around, tree):
            yield _forgetful(history, around, leading, tree)
            continue
        if history.beginning is not None:
            continue
        place = _led_early(history, around, tree)
        if place is not None:
            message = (
                f"the history {history.name!r} has no default, and may be asked before {around.name!r} was ever left, "
                f"by what is said at {place}: it leads to where {around.name!r} begins then"
            )
            cure = "Say with default= where it is to lead then"
            yield Mistake(message, cure, history.place, state=history.name, severity="warning")


def _forgetful(history: Some, around: Some, leading: list[Move], tree: Tree) -> Mistake:
    """What is wrong with a history whose state is left on no way to it; these lead to it."""
    message = (
        f"the history {history.name!r} never has anything to remember: no way to it leaves {around.name!r}"
    )
    own = next((one for one in leading if one.source == around.name), None)
    sources = [tree.named[one.source] for one in leading if one.source is not None]
    inside = next((one for one in sources if tree.is_within(one, around)), None)
    if own is not None and around.kind != "region":
        message += ", which asks for it itself and stays active"
        cure = f"Say reenter=True at {own.place}, so that {around.name!r} is left on the way"
    elif inside is None:
        cure = (
            f"Have the history in a state that is left on the way to it, or lead to {around.name!r} instead"
        )
    else:
        message += f", as {inside.name!r}, from where it is asked, lies inside"
        cure = (
            f"Have a state in {around.name!r} around what is to be remembered, with the history in it and "
            f"{inside.name!r} beside it"
        )
    return Mistake(message, cure, history.place, state=history.name, severity="warning")


def _remembers(history: Some, around: Some, tree: Tree) -> bool:
    """Whether the state around a history may be left and the history be asked later; guards are taken to hold."""
    ahead = [
        move
        for source, moves in tree.moves.items()
        for move in moves
        if move.targets and tree.is_within(around, tree.domain(move))
        if source is None or tree.may_meet(source, around)
    ]
    seen, taken = set[Some](), set[Move]()
    while ahead:
        move = ahead.pop()
        if move in taken:
            continue
        taken.add(move)
        entered = tree.entered(tree.domain(move), tree.targets(move))
        if history in entered:
            return True
        # A region beside it leads there only by leaving its state, too: such a transition is among the first ones.
        for leaf in _leaves(entered, tree):
            if leaf not in seen:
                seen.add(leaf)
                ahead += _out_of(leaf, tree)
    return False


def _leaves(entered: Iterable[Some], tree: Tree) -> Iterator[Some]:
    """The leaves among these, and those that a history among them may lead to."""
    for one in entered:
        if one.kind == "history":
            yield from (
                leaf for leaf in tree.depth if tree.is_leaf(leaf) and tree.is_within(leaf, one.parent)
            )
        elif tree.is_leaf(one):
            yield one


def _out_of(leaf: Some, tree: Tree) -> Iterator[Move]:
    """The transitions with targets that a leaf takes, or a state around it."""
    if leaf.parent is None and leaf.final:
        return
    for source in (*tree.chain(leaf), None):
        yield from (move for move in tree.moves.get(source, ()) if move.targets)


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
