"""Transitions without a guard that lead back to where they began, and wait for nothing from outside.

A run that enters a circle of eventless ones, or of such and what states raise that are done, never rests. What is said
is certain. Where a guard is asked before, where a history may lead elsewhere, or where a transition of another region,
or on an event that may have been raised before, may lead out, nothing is said: that circle may end.

One of timers that fall due at once goes round until an event ends it, with a row of the log for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, cast

from statemachines.checks.comparing import are_equal
from statemachines.checks.tree import Some, Tree
from statemachines.definition import Move
from statemachines.events import After, Cancelled, Event, is_outcome
from statemachines.mistakes import Mistake

Ways = Mapping[Move, list[Move]]


def find(tree: Tree) -> Iterator[Mistake]:
    """One mistake for each circle."""
    for circle in circles(tree):
        first, done = circle[0], ", or until a state is done," if any(move.event for move in circle) else ""
        message = (
            f"transitions that wait for no event{done} and have no guard lead in a circle: {_way(circle)}"
        )
        cure = "Give one of them a guard, or let it wait for an event"
        yield Mistake(message, cure, first.place, state=first.source)
    for circle in _distinct(_timed(tree)):
        first = circle[0]
        message = f"timers that are due at once and have no guard lead in a circle: {_way(circle)}"
        cure = "Give one of them a delay or a guard: until an event leads out, each is a row of the log"
        yield Mistake(message, cure, first.place, state=first.source, severity="warning")


def _way(circle: list[Move]) -> str:
    return " -> ".join(move.source or "any state" for move in (*circle, circle[0]))


def circles(tree: Tree) -> list[list[Move]]:
    """The circles, none of which has a transition of another one, each from its first transition on."""
    eventless = [move for move in tree.pipeline.moves if move.event is None and tree.is_known(move)]
    rivals = [move for move in eventless if tree.leaves(move) and _is_in_region(move, tree)]
    certain = [move for move in eventless if tree.is_certain(move) and not _may_end(move, rivals, tree)]
    certain += [move for move in tree.pipeline.moves if tree.is_known(move) and move.event in tree.done]
    ways: dict[Move, list[Move]] = {move: [] for move in certain}
    for move in certain:
        ways[move] = [one for one in _next(move, tree) if one in ways]
    return _distinct(ways)


def _timed(tree: Tree) -> Ways:
    """The timers that are due at once, and those that each of them sets."""
    timers = {
        move: tree.named[move.source]
        for move in tree.pipeline.moves
        if are_equal(move.delay, timedelta(0))
        and move.source is not None
        and tree.is_known(move)
        and tree.is_certain(move)
    }
    ways: dict[Move, list[Move]] = {}
    for move in timers:
        domain = tree.domain(move)
        entered = [one for one in tree.entered(domain, tree.targets(move)) if tree.is_within(one, domain)]
        stays = not any(first_eventless(one, tree) for one in entered if tree.is_leaf(one))
        ways[move] = [one for one, source in timers.items() if stays and source in entered]
    return ways


def _distinct(ways: Ways) -> list[list[Move]]:
    found: list[list[Move]] = []
    for move in ways:
        circle = _way_back(move, ways)
        taken = {one for other in found for one in other}
        if circle and taken.isdisjoint(circle):
            found.append(circle)
    return found


def _next(move: Move, tree: Tree) -> list[Move]:
    """What is certain to be taken after a transition, in one region or another."""
    if not move.targets:
        return [move] if move.event is None and _comes_first_anywhere(move, tree) else []
    leaves = [one for one in tree.entered(tree.domain(move), tree.targets(move)) if tree.is_leaf(one)]
    found = (first_eventless(leaf, tree) or _first_on_done(leaf, tree) for leaf in leaves)
    return [one for one in dict.fromkeys(found) if one is not None and tree.is_certain(one)]


def _comes_first_anywhere(move: Move, tree: Tree) -> bool:
    """Whether it is asked first in any state; where another one is, what this one does may let that one hold."""
    source = None if move.source is None else tree.named[move.source]
    leaves = (one for one in tree.named.values() if tree.is_leaf(one) and source in (*tree.chain(one), None))
    return any(first_eventless(leaf, tree) is move for leaf in leaves)


def first_eventless(leaf: Some, tree: Tree) -> Move | None:
    """The eventless transition that is asked first while a state is active."""
    if leaf.final and leaf.parent is None:
        return None
    for source in (*tree.chain(leaf), None):
        for move in tree.moves.get(source, ()):
            if move.event is None:
                return move
    return None


def _first_on_done(leaf: Some, tree: Tree) -> Move | None:
    """The transition on what a final state makes done, where no event that was raised before may be taken instead."""
    if not leaf.final or leaf.parent is None or any(one.kind == "region" for one in tree.chain(leaf)):
        return None
    taking = [
        move
        for source in (*tree.chain(leaf), None)
        for move in tree.moves.get(source, ())
        if move.event is not None and not _comes_later(move.event)
    ]
    alone = all(tree.done.get(cast("type[Event]", move.event)) is leaf.parent for move in taking)
    return taking[0] if taking and alone else None


def _comes_later(event: type[Event]) -> bool:
    """Whether such an event never comes within a transition of the run."""
    return issubclass(event, After | Cancelled) or is_outcome(event)


def _is_in_region(move: Move, tree: Tree) -> bool:
    return move.source is not None and any(
        one.kind == "region" for one in tree.chain(tree.named[move.source])
    )


def _may_end(move: Move, rivals: list[Move], tree: Tree) -> bool:
    """Whether another region may lead out of all this, or one inside may come first and do so."""
    source = None if move.source is None else tree.named[move.source]
    for other in rivals:
        rival = tree.named[str(other.source)]
        if rival is source:
            continue
        if tree.is_within(rival, source):
            leads_out = any(not tree.is_within(target, source) for target in tree.targets(other))
            if (leads_out or not tree.is_certain(other)) and _is_beside_others(rival, source, tree):
                return True
        elif source is not None and _comes_first(rival, other, source, move, tree):
            return True
    return False


def _is_beside_others(state: Some, around: Some | None, tree: Tree) -> bool:
    """Whether it lies in a region inside of this state, so that others there go on without it."""
    return any(one.kind == "region" and tree.is_within(one, around) for one in tree.chain(state))


def _comes_first(rival: Some, other: Move, source: Some, move: Move, tree: Tree) -> bool:
    """Whether a transition of another region that leaves this one is preferred."""
    parting = tree.parting(rival, source)
    if parting is None or tree.is_within(tree.named[other.targets[0]], parting[0]):
        return False
    return not tree.leaves(move) or tree.order[rival] < tree.order[source]


def _way_back(start: Move, ways: Ways) -> list[Move]:
    """The shortest circle through a transition; empty where there is none."""
    before: dict[Move, Any] = {}
    ahead = [start]
    for move in ahead:
        for one in ways[move]:
            if one is start:
                circle = [move]
                while circle[-1] is not start:
                    circle.append(before[circle[-1]])
                return circle[::-1]
            if one not in before:
                before[one] = move
                ahead.append(one)
    return []
