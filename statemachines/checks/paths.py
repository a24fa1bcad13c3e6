"""Mistakes that show when the machine is walked: states nobody reaches, transitions that never fire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from statemachines.checks.charts import chain_of
from statemachines.definition import Move, Pipeline, State, name_of
from statemachines.mistakes import Mistake
from statemachines.reference import moves_of


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with the ways through a pipeline."""
    ways = _ways(pipeline)
    reached = _reached(_beginnings(pipeline), ways)
    yield from _unreachable(pipeline, reached)
    yield from _endless(pipeline, reached, ways)
    yield from _never_fires(pipeline)


def _ways(pipeline: Pipeline[Any]) -> dict[str, set[str]]:
    """The states that may be active after each state was: where its transitions lead, and all that goes with it."""
    states = {state.name: state for state in _first_of_each_name(pipeline)}
    ways = {name: _with(state) for name, state in states.items()}
    for move in pipeline.moves:
        known = [target for target in move.targets if target in states]
        if move.source is None:
            for name, state in states.items():
                if not state.final:
                    ways[name].update(known)
        elif move.source in states:
            ways[move.source].update(known)
    return ways


def _with(state: State[Any]) -> set[str]:
    """What is active with a state, or may be once its histories remember: around it, beside it, inside it."""
    found = {one.name for one in chain_of(state)[1:]}
    if state.kind == "history":
        return found.union(state.beginning.targets if state.beginning is not None else ())
    inside = [one for one in state.states if one.kind != "history"]
    begins = [one.name for one in inside if one.initial or one.kind == "region"]
    if state.beginning is not None:
        begins.extend(state.beginning.targets)
    return found.union(begins)


def _beginnings(pipeline: Pipeline[Any]) -> set[str]:
    initial = {state.name for state in pipeline.states if state.initial and state.parent is None}
    named = {start.target for start in pipeline.starts if start.target is not None}
    return initial | named


def _reached(begin: set[str], ways: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    ahead = [name for name in begin if name in ways]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead.extend(one for one in ways[name] if one in ways)
    return reached


def _unreachable(pipeline: Pipeline[Any], reached: set[str]) -> Iterator[Mistake]:
    if not reached:
        return  # without an initial state, which is a mistake of its own, nothing is reached
    for state in _first_of_each_name(pipeline):
        if state.name not in reached:
            message = f"no run ever reaches the state {state.name!r}"
            cure = "Add a transition that leads to it, or remove it"
            yield Mistake(message, cure, state.place, state=state.name)


def _endless(pipeline: Pipeline[Any], reached: set[str], ways: Mapping[str, set[str]]) -> Iterator[Mistake]:
    final = {state.name for state in pipeline.states if state.final and state.parent is None}
    if not final:
        message = f"pipeline {pipeline.name!r} has no final state: its runs never end"
        cure = "Mark the states in which a run has ended with final=True, if there are any"
        yield Mistake(message, cure, pipeline.place, severity="warning")
        return
    for state in _first_of_each_name(pipeline):
        if state.name in reached and state.parent is None and not _reached({state.name}, ways) & final:
            message = f"a run that is in {state.name!r} never ends: no way leads from it to a final state"
            cure = "Add the transitions that lead on, or mark it with final=True"
            yield Mistake(message, cure, state.place, state=state.name, severity="warning")


def _never_fires(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """A transition that is behind an unguarded one, or one with the same guard, wherever it applies."""
    before: dict[tuple[str, str | None], list[Move]] = {}
    blockers: dict[Move, list[Move | None]] = {}
    for source, move in moves_of(pipeline):
        earlier = before.setdefault((source, move.event_type), [])
        blocker = next((one for one in earlier if one.guard in (None, move.guard)), None)
        blockers.setdefault(move, []).append(blocker)
        earlier.append(move)
    for move, found in blockers.items():
        first = found[0]
        if first is not None and None not in found:
            yield _shadowed(move, first)


def _shadowed(move: Move, blocker: Move) -> Mistake:
    event = move.event_type
    on = "" if event is None else f" on {event!r}"
    where = "in any state" if move.source is None else f"in {move.source!r}"
    why = "has no guard" if blocker.guard is None else f"has the same guard {name_of(blocker.guard)}"
    message = f"this transition{on} {where} never fires: the one at {blocker.place} comes first and {why}"
    cure = "Put it first, give the other one a guard, or remove it"
    return Mistake(message, cure, move.place, state=move.source, event=event)


def _first_of_each_name(pipeline: Pipeline[Any]) -> list[State[Any]]:
    first: dict[str, State[Any]] = {}
    for state in pipeline.states:
        if isinstance(state.name, str):
            first.setdefault(state.name, state)
    return list(first.values())
