"""Mistakes that show when the machine is walked: states nobody reaches, transitions that never fire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from statemachines.definition import Move, Pipeline, State, name_of
from statemachines.mistakes import Mistake
from statemachines.reference import moves_of, reference_machine, states_of


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with the ways through a pipeline."""
    ways = _ways(pipeline)
    reached = _reached(_beginnings(pipeline), ways)
    yield from _unreachable(pipeline, reached)
    yield from _endless(pipeline, reached, ways)
    yield from _never_fires(pipeline)


def _ways(pipeline: Pipeline[Any]) -> dict[str, set[str]]:
    """The states that each state leads to, as the library ``transitions`` sees them."""
    ways: dict[str, set[str]] = {name: set() for name in states_of(pipeline)}
    for transition in reference_machine(pipeline).get_transitions():
        if transition.dest is not None:
            ways[transition.source].add(transition.dest)
    return ways


def _beginnings(pipeline: Pipeline[Any]) -> set[str]:
    initial = {state.name for state in pipeline.states if state.initial}
    named = {start.target for start in pipeline.starts if start.target is not None}
    return initial | named


def _reached(begin: set[str], ways: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    ahead = [name for name in begin if name in ways]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead.extend(ways[name])
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
    final = {name for name, is_final in states_of(pipeline).items() if is_final}
    if not final:
        message = f"pipeline {pipeline.name!r} has no final state: its runs never end"
        cure = "Mark the states in which a run has ended with final=True, if there are any"
        yield Mistake(message, cure, pipeline.place, severity="warning")
        return
    for state in _first_of_each_name(pipeline):
        if state.name in reached and not _reached({state.name}, ways) & final:
            message = f"a run that is in {state.name!r} never ends: no way leads from it to a final state"
            cure = "Add the transitions that lead on, or mark it with final=True"
            yield Mistake(message, cure, state.place, state=state.name, severity="warning")


def _never_fires(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """A transition that is behind an unguarded one, or one with the same guard, wherever it applies."""
    before: dict[tuple[str, str], list[Move]] = {}
    blockers: dict[Move, list[Move | None]] = {}
    for source, move in moves_of(pipeline):
        earlier = before.setdefault((source, move.event.event_type()), [])
        blocker = next((one for one in earlier if one.guard in (None, move.guard)), None)
        blockers.setdefault(move, []).append(blocker)
        earlier.append(move)
    for move, found in blockers.items():
        first = found[0]
        if first is not None and None not in found:
            yield _shadowed(move, first)


def _shadowed(move: Move, blocker: Move) -> Mistake:
    event = move.event.event_type()
    where = "in any state" if move.source is None else f"in {move.source!r}"
    why = "has no guard" if blocker.guard is None else f"has the same guard {name_of(blocker.guard)}"
    message = (
        f"this transition on {event!r} {where} never fires: the one at {blocker.place} comes first and {why}"
    )
    cure = "Put it first, give the other one a guard, or remove it"
    return Mistake(message, cure, move.place, state=move.source, event=event)


def _first_of_each_name(pipeline: Pipeline[Any]) -> list[State[Any]]:
    first: dict[str, State[Any]] = {}
    for state in pipeline.states:
        if isinstance(state.name, str):
            first.setdefault(state.name, state)
    return list(first.values())
