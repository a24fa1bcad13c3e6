"""Transitions that never fire, because others come first wherever they apply."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from statemachines.checks.circles import circles
from statemachines.checks.tree import Some, Tree
from statemachines.definition import Move, name_of
from statemachines.events import is_outcome
from statemachines.mistakes import Mistake
from statemachines.patterns import covers, is_pattern, overlaps

_REMOVE = "Give the other one a guard, or remove this one"


class _Blocker(NamedTuple):
    move: Move
    why: str
    cure: str = "Put it first, give the other one a guard, or remove it"


def find(tree: Tree) -> Iterator[Mistake]:
    """One mistake for each of them."""
    shadows = _Shadows(tree)
    blockers: dict[Move, list[_Blocker | None]] = {}
    for leaf in tree.named.values():
        if tree.is_leaf(leaf) and not (leaf.final and leaf.parent is None):
            for move, blocker in shadows.of(leaf):
                if move.event is None or not is_outcome(move.event):
                    blockers.setdefault(move, []).append(blocker)
    # How a step ended is for the state that runs it, and for those around it, whatever is inside or beside it.
    for state in tree.runners:
        for move, blocker in shadows.of(state):
            if state in tree.asking_for(move):
                blockers.setdefault(move, []).append(blocker)
    for move, found in blockers.items():
        first = found[0]
        if first is not None and None not in found:
            event = move.event_type
            on = "" if event is None else f" on {event!r}"
            where = "in any state" if move.source is None else f"in {move.source!r}"
            place = first.move.place
            message = (
                f"this transition{on} {where} never fires: the one at {place} comes first and {first.why}"
            )
            yield Mistake(message, first.cure, move.place, state=move.source, event=event)


class _Shadows:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._circling = {move for circle in circles(tree) for move in circle}
        self._overruling: dict[tuple[Some, str | None], Move | None] = {}

    def of(self, leaf: Some) -> Iterator[tuple[Move, _Blocker | None]]:
        """Each transition that might be taken while a state is active, and what keeps it from that."""
        lane = [
            move for source in (*self._tree.chain(leaf), None) for move in self._tree.moves.get(source, ())
        ]
        # A state that is left at once takes no events.
        hurry = next((move for move in lane if move.event is None and self._is_blocker(move)), None)
        before: dict[str | None, list[Move]] = {}
        wide: list[str | None] = []
        for move in lane:
            # A type that is no text is a mistake of its own, and may be nothing to look up by.
            name = move.event_type if isinstance(move.event_type, str | None) else repr(move.event_type)
            if name not in before:
                before[name] = []
                wide += [name] if isinstance(name, str) and is_pattern(name) else []
            above = (one for one in self._tree.kin.get(name or "", ()) if one in before)
            names = (name, *(one for one in wide if one != name and _covers(one, name)), *above)
            earlier = [one for other in names for one in before[other]]
            if hurry is not None and move.event is not None:
                cure = "Give the other one a guard, or remove this one: the state is left as soon as it is entered"
                yield move, _Blocker(hurry, "waits for no event", cure)
            else:
                yield move, self._earlier(move, earlier) or self._beside(move, leaf)
            before[name].append(move)

    def _is_blocker(self, move: Move) -> bool:
        """A circle is a mistake of its own."""
        return self._tree.is_certain(move) and move not in self._circling

    def _earlier(self, move: Move, earlier: list[Move]) -> _Blocker | None:
        for one in earlier:
            taking = "" if one.event_type == move.event_type else f"takes {one.event_type!r}, and "
            if self._tree.is_certain(one):
                has = "no guard" if one.guard is None else "a guard that always holds"
                return _Blocker(one, f"{taking}has {has}")
            if one.guard == move.guard:
                return _Blocker(one, f"{taking}has the same guard {name_of(one.guard)}")
        return None

    def _beside(self, move: Move, leaf: Some) -> _Blocker | None:
        """A transition inside another region of its source, or of a state inside that, is preferred to it."""
        chain = self._tree.chain(leaf)
        if not move.targets or (move.event is not None and is_outcome(move.event)):
            return None  # nothing is left, so that nothing is in conflict; or no other region is asked
        for region in chain:
            if region.name == move.source:
                break
            for other in self._tree.states_in(region.parent) if region.kind == "region" else ():
                found = None if other is region else self._overrules(other, move.event_type)
                if found is not None:
                    return _Blocker(found, f"is further inside, in the region {other.name!r}", _REMOVE)
        return None

    def _overrules(self, region: Some, event_type: str | None) -> Move | None:
        """A transition of a region that takes this event in whatever state, and leads somewhere in each."""
        key = (region, event_type)
        if key not in self._overruling:
            self._overruling[key] = None
            firsts = [self._first(leaf, region, event_type) for leaf in self._leaves(region)]
            if None not in firsts:
                self._overruling[key] = firsts[0]
        return self._overruling[key]

    def _first(self, leaf: Some, region: Some, event_type: str | None) -> Move | None:
        """What a leaf of a region is certain to do on this event, if it leads anywhere."""
        for source in self._tree.chain(leaf):
            for move in self._tree.moves.get(source, ()):
                if not _overlaps(move.event_type, event_type):
                    continue
                if not self._tree.leaves(move):
                    return None
                if self._tree.is_certain(move) and _covers(move.event_type, event_type):
                    return move
            if source is region:
                break
        return None

    def _leaves(self, region: Some) -> list[Some]:
        found, ahead = [], [region]
        while ahead:
            state = ahead.pop()
            if self._tree.is_leaf(state):
                found.append(state)
            else:
                ahead.extend(self._tree.states_in(state))
        return found


def _covers(one: str | None, other: str | None) -> bool:
    """Whether all events that a transition on ``other`` takes are taken by one on ``one``, too."""
    # A class may name what is no text, which is a mistake of its own.
    return one == other or (isinstance(one, str) and isinstance(other, str) and covers(one, other))


def _overlaps(one: str | None, other: str | None) -> bool:
    return one == other or (isinstance(one, str) and isinstance(other, str) and overlaps(one, other))
