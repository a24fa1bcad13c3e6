"""Mistakes that only charts can have: with what is inside of states, with several targets, with eventless circles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from statemachines.definition import Move, Pipeline, State
from statemachines.events import Done, is_event_class
from statemachines.guards import in_state
from statemachines.mistakes import Mistake
from statemachines.suggest import did_you_mean

States = dict[str, State[Any]]


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes of this kind."""
    states: States = {}
    for state in pipeline.states:
        if isinstance(state.name, str):
            states.setdefault(state.name, state)
    for state in states.values():
        yield from _inside(state)
        yield from _beginning(state, states)
        yield from _history(state, states)
        yield from _output(state)
    for move in pipeline.moves:
        if all(target in states for target in move.targets) and (
            move.source is None or move.source in states
        ):
            yield from _several(move, states)
            yield from _sibling_region(move, states)
        yield from _guard(move, states)
        yield from _done(move, pipeline)
    yield from _circles(pipeline, states)


def chain_of(state: State[Any]) -> list[State[Any]]:
    """The state and those around it, from the innermost on."""
    chain, one = [state], state.parent
    while one is not None:
        chain.append(one)
        one = one.parent
    return chain


def is_parallel(state: State[Any]) -> bool:
    """Whether it has regions."""
    return any(one.kind == "region" for one in state.states)


def _inside(state: State[Any]) -> Iterator[Mistake]:
    inside = state.states
    if state.final and inside:
        message = f"the final state {state.name!r} has states inside, where nothing goes on"
        yield Mistake(message, "Remove them, or do not mark it as final", state.place, state=state.name)
    if state.kind == "history" and inside:
        message = f"the history {state.name!r} has states inside, but is none itself"
        yield Mistake(message, "Add them to the state around it", inside[0].place, state=state.name)
    kinds = {one.kind for one in inside} - {"history"}
    if len(kinds) > 1:
        message = f"{state.name!r} has both states and regions"
        cure = "Put the states into a region of their own, or make the regions states"
        yield Mistake(message, cure, state.place, state=state.name)
    if state.kind == "region" and not kinds:
        message = f"the region {state.name!r} has no states, so that nothing ever changes in it"
        cure = "Add some with .state(name), one of them initial=True"
        yield Mistake(message, cure, state.place, state=state.name, severity="warning")
    if inside and not kinds and state.kind == "state":
        message = f"{state.name!r} has a history, but no states to remember"
        yield Mistake(message, "Add states, or remove the history", inside[0].place, state=state.name)


def _beginning(state: State[Any], states: States) -> Iterator[Mistake]:
    initial = [one for one in state.states if one.initial]
    beginning = state.beginning
    for one in initial[1:]:
        message = f"the state {one.name!r} is initial, and so is {initial[0].name!r}"
        yield Mistake(message, f"Keep initial=True at one state of {state.name!r}", one.place, state=one.name)
    if state.kind == "history":
        return
    if beginning is not None:
        if is_parallel(state):
            message = f"{state.name!r} is parallel: it begins in all its regions"
            yield Mistake(message, "Say of each region where it begins", beginning.place, state=state.name)
        for name in beginning.targets:
            target = states.get(name)
            if target is None:
                message = f"there is no state {name!r} to begin in"
                yield Mistake(message, did_you_mean(name, states), beginning.place, state=state.name)
            elif state not in chain_of(target)[1:]:
                message = f"{state.name!r} cannot begin in {name!r}, which is not inside it"
                yield Mistake(message, "Name a state inside it", beginning.place, state=state.name)
        if initial:
            message = (
                f"{state.name!r} says twice where it begins: here, and by initial=True of {initial[0].name!r}"
            )
            yield Mistake(message, "Keep one of them", beginning.place, state=state.name)
    elif not initial and any(one.kind == "state" for one in state.states) and not state.final:
        message = f"{state.name!r} has no initial state"
        cure = "Mark the state inside it that it begins in with initial=True"
        yield Mistake(message, cure, state.place, state=state.name)


def _history(state: State[Any], states: States) -> Iterator[Mistake]:
    if state.kind != "history" or state.beginning is None:
        return
    for name in state.beginning.targets:
        default = states.get(name)
        if default is None:
            message = f"there is no state {name!r} for the history {state.name!r} to lead to"
            yield Mistake(message, did_you_mean(name, states), state.place, state=state.name)
        elif state.parent not in chain_of(default)[1:] or default.kind == "history":
            message = f"the history {state.name!r} leads to {name!r}, which is not inside the state around it"
            yield Mistake(message, "Name a state inside it as default", state.place, state=state.name)


def _output(state: State[Any]) -> Iterator[Mistake]:
    if state.output is not None and not state.final:
        message = f"{state.name!r} has an output, but is not final"
        yield Mistake(message, "Mark it with final=True, or remove the output", state.place, state=state.name)


def _several(move: Move, states: States) -> Iterator[Mistake]:
    targets = [states[name] for name in move.targets]
    for at, one in enumerate(targets):
        for other in targets[:at]:
            if not _are_side_by_side(one, other):
                message = f"the targets {other.name!r} and {one.name!r} cannot both be active"
                cure = "Name one target, or one in each of several regions of a parallel state"
                yield _of(move, message, cure)
                return


def _are_side_by_side(one: State[Any], other: State[Any]) -> bool:
    """Whether they lie in different regions of one parallel state."""
    chain, others = chain_of(one), chain_of(other)
    around = next((state for state in chain if state in others), None)
    return around is not None and around not in (one, other) and is_parallel(around)


def _sibling_region(move: Move, states: States) -> Iterator[Mistake]:
    """W3C takes it, and leaves and enters all regions; nobody means that."""
    if move.source is None:
        return
    source = states[move.source]
    for name in move.targets:
        if len(move.targets) == 1 and _are_side_by_side(source, states[name]):
            message = f"the transition leads from {source.name!r} to {name!r}, which is in another region"
            cure = "Put it on the state with the regions, or raise an event that the other region takes"
            yield _of(move, message, cure)


def _guard(move: Move, states: States) -> Iterator[Mistake]:
    if isinstance(move.guard, in_state) and move.guard.state not in states:
        message = f"the guard asks for the state {move.guard.state!r}, which there is not"
        yield _of(move, message, did_you_mean(move.guard.state, states))


def _done(move: Move, pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    event = move.event
    if event is None or not is_event_class(event) or not issubclass(event, Done):
        return
    whose = next((state for state in pipeline.states if state.done is event), None)
    if whose is None:
        message = f"the event {event.event_type()!r} is of no state of pipeline {pipeline.name!r}"
        yield _of(move, message, "Use the done of a state of this pipeline")
    elif not whose.states:
        message = f"{whose.name!r} is never done: it has no states inside"
        yield _of(move, message, "Use the done of a state with a final state inside, or take another event")
    elif move.source is not None and not any(state.name == move.source for state in chain_of(whose)):
        source = next((state for state in pipeline.states if state.name == move.source), None)
        if source is not None and not _may_be_active_with(source, whose):
            message = f"{move.source!r} is never active when {whose.name!r} is done"
            yield _of(move, message, f"Put the transition on {whose.name!r} or on a state around it")


def _may_be_active_with(state: State[Any], other: State[Any]) -> bool:
    return state in chain_of(other) or other in chain_of(state) or _are_side_by_side(state, other)


def _circles(pipeline: Pipeline[Any], states: States) -> Iterator[Mistake]:
    """Eventless transitions without a guard that lead back to where they began."""
    ways: dict[str, Move] = {}
    for move in pipeline.moves:
        if move.event is None and move.guard is None and move.source in states and move.source is not None:
            ways.setdefault(move.source, move)
    for name, move in ways.items():
        seen: list[str] = []
        following: str | None = name
        while following is not None and following not in seen:
            seen.append(following)
            following = _next_of(ways[following], ways, states)
        if following == name:
            way = " -> ".join([*seen, name])
            message = f"transitions that wait for no event and have no guard lead in a circle: {way}"
            yield _of(move, message, "Give one of them a guard, or let it wait for an event")


def _next_of(move: Move, ways: dict[str, Move], states: States) -> str | None:
    """The state whose eventless transition is taken after this one, as far as it is certain."""
    targets = move.targets or (move.source or "",)
    for name in targets:
        for one in _entered(states[name]) if name in states else ():
            if one.name in ways:
                return one.name
    return None


def _entered(state: State[Any]) -> list[State[Any]]:
    """Where a target leads: from the innermost state that it begins in outwards."""
    one = state
    while True:
        begin = next((inner for inner in one.states if inner.initial), None)
        if begin is None:
            return chain_of(one)
        one = begin


def _of(move: Move, message: str, cure: str) -> Mistake:
    event = move.event_type if is_event_class(move.event) else None
    return Mistake(message, cure, move.place, state=move.source, event=event)
