"""Mistakes with what the transitions of a chart name: several targets, targets in other regions, states to ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from statemachines.checks.tree import Some, Tree
from statemachines.definition import Move, Start
from statemachines.events import is_event_class
from statemachines.guards import has_tag, in_state
from statemachines.mistakes import Mistake
from statemachines.suggest import did_you_mean

ONE_EACH = "Name one target, or one in each of several regions of a parallel state"


def find(move: Move, tree: Tree) -> Iterator[Mistake]:
    """All mistakes of this kind with a transition."""
    if tree.is_known(move):
        yield from _targets(move, tree)
    if move.source is None or move.source in tree.named:
        yield from _guard(move, tree)


def begins(start: Start, tree: Tree) -> Iterator[Mistake]:
    """Several targets of a start event that cannot all be active, and a condition on what is active before it."""
    event = start.event.event_type() if is_event_class(start.event) else None
    clash = _clash([tree.named[one] for one in start.targets if one in tree.named], tree)
    if clash:
        yield Mistake(clash, ONE_EACH, start.place, event=event)
    asked = ""
    if isinstance(start.guard, in_state):
        asked = f"the state {start.guard.state!r}"
    elif isinstance(start.guard, has_tag):
        asked = f"the tag {start.guard.tag!r}"
    if asked:
        message = f"the condition asks for {asked}, and no state is active before a run has begun"
        yield Mistake(message, "Ask for what the event and its context say", start.place, event=event)


def _clash(targets: list[Some], tree: Tree) -> str:
    """What is wrong with them together; empty: nothing."""
    clash = tree.clash(targets)
    if clash is None:
        return ""
    if clash[0] is clash[1]:
        return f"the target {clash[0].name!r} is named twice"
    return f"the targets {clash[0].name!r} and {clash[1].name!r} cannot both be active"


def _targets(move: Move, tree: Tree) -> Iterator[Mistake]:
    targets = tree.targets(move)
    again: object = move.reenter
    if type(again) is not bool:
        yield of(move, f"reenter={again!r} is neither True nor False", "Write one of them, or leave it out")
    elif again and not targets:
        message = "reenter=True does nothing without a target"
        yield of(move, message, "Name the state itself as target, or leave reenter out", severity="warning")
    clash = _clash(targets, tree)
    if clash:
        yield of(move, clash, ONE_EACH)
    elif move.source is not None and targets:
        yield from _sibling_region(move, tree.named[move.source], targets, tree)
        yield from _own_region(move, tree.named[move.source], targets, tree)


def _sibling_region(move: Move, source: Some, targets: list[Some], tree: Tree) -> Iterator[Mistake]:
    """By the text it leaves and enters all regions, its own too; who names none in its own does not mean that."""
    for target in targets:
        parting = tree.parting(source, target)
        if parting is not None and not any(parting[0] in tree.chain(one) for one in targets):
            message = (
                f"the transition leads from {source.name!r} to {target.name!r}, which is in another region"
            )
            cure = "Put it on the state with the regions, or raise an event that the other region takes"
            yield of(move, message, cure)
            return


def _own_region(move: Move, source: Some, targets: list[Some], tree: Tree) -> Iterator[Mistake]:
    """By the text it leaves and enters all regions, which who names only one of them may not expect."""
    domain = tree.domain(move)
    for region in tree.chain(source):
        around = region.parent
        only = region.kind == "region" and all(region in tree.chain(target) for target in targets)
        if only and around is not None and region is not domain and tree.is_within(region, domain):
            message = f"the transition leaves and enters all regions of {around.name!r}, and not {region.name!r} alone"
            cure = (
                f"Have {region.name!r} take it, without reenter, to begin anew what is inside; "
                f"or {around.name!r}, if all are meant"
            )
            yield of(move, message, cure, severity="warning")
            return


def _guard(move: Move, tree: Tree) -> Iterator[Mistake]:
    if isinstance(move.guard, has_tag):
        yield from _tag(move, move.guard.tag, tree)
    if not isinstance(move.guard, in_state):
        return
    name = move.guard.state
    asked = tree.named.get(name)
    if move.guard.pipeline not in (None, tree.pipeline):
        assert move.guard.pipeline is not None
        message = f"the guard asks for {name!r}, a state of pipeline {move.guard.pipeline.name!r}"
        yield of(move, message, f"Ask for a state of {tree.pipeline.name!r}")
    elif asked is None:
        yield of(
            move, f"the guard asks for the state {name!r}, which there is not", did_you_mean(name, tree.named)
        )
    elif asked.kind == "history":
        message = f"the guard asks for {name!r}, which is a history and never active itself"
        yield of(move, message, "Ask for a state")
    elif move.source is not None and not tree.may_meet(tree.named[move.source], asked):
        message = f"the guard asks for {name!r}, which is never active while {move.source!r} is"
        yield of(move, message, "Ask for a state inside it, or in another region")


def _tag(move: Move, tag: str, tree: Tree) -> Iterator[Mistake]:
    tagged = tree.tagged.get(tag)
    if tagged is None:
        message = f"the guard asks for the tag {tag!r}, which no state has"
        yield of(move, message, did_you_mean(tag, tree.tagged))
    elif move.source is not None and not any(
        tree.may_meet(tree.named[move.source], state) for state in tagged
    ):
        message = (
            f"the guard asks for the tag {tag!r}, which no state has that is active while {move.source!r} is"
        )
        yield of(move, message, "Ask for a tag of it, of a state around or inside it, or in another region")


def of(move: Move, message: str, cure: str, severity: Literal["error", "warning"] = "error") -> Mistake:
    """A mistake with a transition."""
    event = move.event_type if is_event_class(move.event) else None
    return Mistake(message, cure, move.place, state=move.source, event=event, severity=severity)
