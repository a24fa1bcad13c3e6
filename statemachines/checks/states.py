"""Mistakes with states: their names, the initial one, and where transitions lead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from statemachines.checks import charts
from statemachines.checks.names import wrong_with_name
from statemachines.definition import Move, Pipeline, Start, State
from statemachines.limits import STATE_NAME_BYTES_MAX, STATES_MAX
from statemachines.mistakes import Mistake
from statemachines.suggest import did_you_mean


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with states."""
    yield from _names(pipeline)
    yield from _tags(pipeline)
    yield from _initial(pipeline)
    yield from _targets(pipeline)
    yield from _out_of_final(pipeline)
    yield from charts.find(pipeline)


def _names(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    first: dict[str, State[Any]] = {}
    for state in pipeline.states:
        wrong = wrong_with_name(state.name, STATE_NAME_BYTES_MAX)
        if wrong is not None:
            message = f"the state name {state.name!r} {wrong}"
            cure = f"Use up to {STATE_NAME_BYTES_MAX} letters, digits, '-', '_' or '.'"
            yield Mistake(message, cure, state.place, state=str(state.name))
        elif state.name in first:
            message = f"the state {state.name!r} was already made at {first[state.name].place}"
            cure = "Give one of them another name, or use the object that the first call returned"
            yield Mistake(message, cure, state.place, state=state.name)
        else:
            first[state.name] = state
    if len(pipeline.states) > STATES_MAX:
        message = f"pipeline {pipeline.name!r} has {len(pipeline.states)} states, of {STATES_MAX} allowed"
        yield Mistake(message, "Split it, or keep what tells states apart in the context", pipeline.place)


def _tags(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    for state in pipeline.states:
        for at, tag in enumerate(state.tags):
            wrong = wrong_with_name(tag, STATE_NAME_BYTES_MAX)
            if wrong is None and tag in state.tags[:at]:
                wrong = "is named twice"
            if wrong is not None:
                message = f"the tag {tag!r} of the state {state.name!r} {wrong}"
                cure = 'Write tags=["open", ...], each a word without spaces, and each once'
                yield Mistake(message, cure, state.place, state=str(state.name))


def _initial(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    initial = [state for state in pipeline.states if state.initial and state.parent is None]
    if not pipeline.states:
        message = f"pipeline {pipeline.name!r} has no states"
        yield Mistake(message, "Add one with .state(name, initial=True)", pipeline.place)
    elif not initial:
        message = f"pipeline {pipeline.name!r} has no initial state"
        yield Mistake(message, "Mark the state that runs begin in with initial=True", pipeline.place)
    for state in initial[1:]:
        message = f"the state {state.name!r} is initial, and so is {initial[0].name!r}"
        cure = "Keep initial=True at one of them; a start event may name another state with to="
        yield Mistake(message, cure, state.place, state=state.name)


def _targets(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    states = dict.fromkeys(state.name for state in pipeline.states if isinstance(state.name, str))
    lines: list[Start | Move] = [*pipeline.starts, *pipeline.moves]
    for line in lines:
        state = line.source if isinstance(line, Move) else None
        event = getattr(line.event, "__event_type__", None)
        if line.stranger is not None:
            message = f"the target {line.target!r} is a state of pipeline {line.stranger!r}"
            cure = f"A transition stays within its pipeline; use a state of {pipeline.name!r}"
            yield Mistake(message, cure, line.place, state=state, event=event)
            continue
        for target in line.targets:
            if target not in states:
                message = f"there is no state {target!r} to go to"
                yield Mistake(message, did_you_mean(target, states), line.place, state=state, event=event)


def _out_of_final(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    final = {str(state.name) for state in pipeline.states if state.final}
    inside = {str(state.name) for state in pipeline.states if state.parent is not None}
    for move in pipeline.moves:
        if move.source in final:
            where = "where nothing goes on" if move.source in inside else "where runs have ended"
            message = f"a transition leads out of the final state {move.source!r}, {where}"
            cure = "Remove the transition, or do not mark the state as final"
            event = getattr(move.event, "__event_type__", None)
            yield Mistake(message, cure, move.place, state=move.source, event=event)
