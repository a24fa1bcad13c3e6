"""Mistakes with what undoes steps, and with the transitions that ask for that."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from typing import Any

from statemachines.chart.tree import COMPENSATING
from statemachines.checks import undo
from statemachines.checks.bounds import TIME
from statemachines.checks.hints import may_be, named, parts_of
from statemachines.checks.moves import of as of_move
from statemachines.definition import Move, Pipeline, State
from statemachines.mistakes import Mistake
from statemachines.step import Compensation, Step
from statemachines.suggest import did_you_mean, listed

WHOLE = "write it of the pipeline, flow.on(..., compensate=True), which undoes the whole run"


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with compensations but those that a step may have as well."""
    compensations = [one for one in pipeline.works if isinstance(one, Compensation)]
    for one in compensations:
        yield from _of_one_step(one)
        yield from _thread(one)
        yield from _result(one)
        yield from _made(one)
    scopes = _Scopes(pipeline)
    for move in pipeline.moves:
        yield from _move(move, scopes, has_any=bool(compensations))
    yield from _reserved(pipeline)
    yield from undo.find(pipeline, scopes.owing)
    if compensations and not any(_may_compensate(move) for move in pipeline.moves):
        for one in compensations:
            message = f"nothing compensates, so that the step {one.of.name!r} is never undone"
            cure = "Add compensate=True to a transition with a target, or let its action return Compensate()"
            yield Mistake(message, cure, one.place, severity="warning")


def _of_one_step(one: Compensation[Any, Any]) -> Iterator[Mistake]:
    first = one.of.compensation
    on_error: object = one.on_error
    if first is not None and first is not one:
        message = f"the step {one.of.name!r} has a compensation already, {first.name!r} at {first.place}"
        yield _mistake(one, message, "Let one function do both, or make two steps of the step")
    for other in one.compensations:
        message = f"{one.name!r} is a compensation itself, and is never undone"
        yield _mistake(other, message, "Take it away, or let it be one of a step")
    if type(on_error) is not bool:
        message = f"on_error={on_error!r} of the compensation {one.name!r} is neither True nor False"
        yield _mistake(one, message, "Write one of them, or leave it out")


def _thread(one: Compensation[Any, Any]) -> Iterator[Mistake]:
    step = one.of
    if callable(step.function) and step.takes_thread and step.timeout is step.bounds.within is None:
        message = (
            f"the step {step.name!r} has no timeout, and nothing stops a plain function: where its state is left, "
            f"{one.name!r} may undo it while it still runs"
        )
        cure = f"Write @flow.step(timeout={TIME}): so long it is waited for; or make it an async function"
        yield Mistake(message, cure, step.place, severity="warning")


def _result(one: Compensation[Any, Any]) -> Iterator[Mistake]:
    if callable(one.function) and one.says_result:
        try:
            result = one.result_type
        except Exception:  # noqa: BLE001 - annotations are user code; the check of steps says so
            return
        if result is not types.NoneType:
            message = f"the compensation {one.name!r} returns {named(result)}, of which nothing is made"
            yield _mistake(one, message, "Let it return None, and write -> None behind its parameters")


def _made(one: Compensation[Any, Any]) -> Iterator[Mistake]:
    """What it says of what the step has made is to be what that returns, or None."""
    try:
        name = list(inspect.signature(one.function).parameters)[1]
        said, result = one.annotation_of(name), one.of.result_type
        fits = all(
            any(may_be(part, one) for one in parts_of(said)) for part in (*parts_of(result), types.NoneType)
        )
    except Exception:  # noqa: BLE001 - it says nothing, or what it says is a mistake of its own
        return
    wanted = named(result) if types.NoneType in parts_of(result) else f"{named(result)} | None"
    if not fits:
        message = (
            f"{name!r} of the compensation {one.name!r} is {named(said)}, "
            f"but is given what the step {one.of.name!r} returned, or None where that is not known"
        )
        yield _mistake(one, message, f"Write {name}: {wanted}")


def _move(move: Move, scopes: _Scopes, *, has_any: bool) -> Iterator[Mistake]:
    given: object = move.compensate
    if type(given) not in (bool, str):
        message = f"compensate={given!r} is neither True nor False, nor a state"
        yield of_move(move, message, "Write True, name a state, or leave it out")
    elif move.scope is not None and not move.targets:
        message = f"compensate={given!r} needs a target: where the run goes once all is undone"
        yield of_move(move, message, "Name it with to=...")
    elif move.scope is not None and not has_any:
        message = f"compensate={given!r} undoes nothing: no step of the pipeline has a compensation"
        yield of_move(move, message, "Write @step.compensate() above a function that undoes it")
    elif move.scope is not None:
        yield from _scope(move, scopes)


class _Scopes:
    """What is around which states, as far as it is said, and which of them may owe anything."""

    def __init__(self, pipeline: Pipeline[Any]) -> None:
        self.named = {state.name: state for state in pipeline.states if isinstance(state.name, str)}
        self.owing: set[State[Any]] = set()
        for state in pipeline.states:
            if isinstance(state.run, Step) and state.run.compensation is not None:
                self.owing |= set(self.chain(state))

        self._moves = [one for one in pipeline.moves if one.targets]
        self._reached: dict[State[Any], set[State[Any]]] = {}

    def leads(self, state: State[Any], to: State[Any]) -> bool:
        """Whether a run that was in one state may come to another, as far as transitions tell."""
        if state not in self._reached:
            found, new = {state}, [state]
            while new:
                around = {one.name for one in self.chain(new.pop())}
                for move in self._moves:
                    if move.source is None or move.source in around:
                        entered = [
                            one
                            for one in self.named.values()
                            if any(each.name in move.targets for each in self.chain(one))
                        ]
                        new += [one for one in entered if one not in found]
                        found.update(entered)
            self._reached[state] = found
        return any(to in self.chain(one) for one in self._reached[state])

    def chain(self, state: State[Any]) -> list[State[Any]]:
        """A state and those around it."""
        found: list[State[Any]] = []
        one: State[Any] | None = state
        while isinstance(one, State) and one not in found:
            found.append(one)
            one = one.parent
        return found


def _scope(move: Move, scopes: _Scopes) -> Iterator[Mistake]:
    """Mistakes with the state that a transition is to undo."""
    name = move.scope
    if move.scope_stranger is not None:
        message = f"compensate={name!r} is a state of pipeline {move.scope_stranger!r}"
        yield of_move(move, message, "Name a state of this pipeline")
        return
    if not name:
        return
    scope, source = scopes.named.get(name), scopes.named.get(move.source or "")
    if scope is None:
        message = f"there is no state {name!r} to undo"
        yield of_move(move, message, did_you_mean(name, scopes.named))
    elif source is not None and not (scope in scopes.chain(source) or source in scopes.chain(scope)):
        message = (
            f"the transition out of {source.name!r} is to undo {name!r}, which is neither around it nor in it"
        )
        yield of_move(move, message, f"Name {source.name!r}, a state around it, or one inside it")
    elif scope not in scopes.owing:
        message = (
            f"{name!r} has nothing to undo: it runs no step with a compensation, nor does a state inside it"
        )
        yield of_move(move, message, f"Name a state that does, take compensate away, or {WHOLE}")
    else:
        yield from _what_stays(move, scope, source, scopes)


def _what_stays(
    move: Move, scope: State[Any], source: State[Any] | None, scopes: _Scopes
) -> Iterator[Mistake]:
    """A run that ends once a part of it is undone, and what was done before stays as it is."""
    targets = [scopes.named.get(name) for name in move.targets]
    if source is None or not all(one is not None and one.final and one.parent is None for one in targets):
        return
    stay = [
        str(one.run)
        for one in scopes.named.values()
        if isinstance(one.run, Step)
        and one.run.compensation is not None
        and scope not in scopes.chain(one)
        and scopes.leads(one, source)
    ]
    if stay:
        message = (
            f"the transition out of {source.name!r} undoes {scope.name!r} alone, and then the run ends: "
            f"what the run has done before by {listed(stay)} is never undone"
        )
        cure = f"If that is not meant, {WHOLE}"
        yield of_move(move, message, cure, severity="warning")


def _reserved(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    for state in pipeline.states:
        if state.name == COMPENSATING:
            message = f"the state name {COMPENSATING!r} is that of the state of runs that are undone"
            yield Mistake(message, "Give it another name", state.place, state=COMPENSATING)


def _may_compensate(move: Move) -> bool:
    return bool(move.targets and (move.scope is not None or move.action is not None))


def _mistake(one: Step[Any, Any], message: str, cure: str) -> Mistake:
    return Mistake(message, cure, one.place)
