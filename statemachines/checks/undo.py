"""Mistakes with what a pipeline and its states say of how it is undone what they owe."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal

from statemachines.checks.settings import UNDO
from statemachines.definition import Pipeline, State
from statemachines.mistakes import Mistake
from statemachines.places import Place
from statemachines.stated import Stated, is_stated, undone_by
from statemachines.step import Step
from statemachines.suggest import did_you_mean


def find(pipeline: Pipeline[Any], owing: Collection[State[Any]]) -> Iterator[Mistake]:
    """All of them but for a word of the pipeline that nobody knows, which is one of its settings.

    ``owing``: the states that may owe anything.
    """
    if is_stated(pipeline.undo):
        yield from _order(pipeline.undo, pipeline, None, pipeline.place)
    for state in pipeline.states:
        given: object = state.undo
        if is_stated(given) and state in owing:
            yield from _order(given, pipeline, state, state.place)
        elif not is_stated(given) and (not isinstance(given, str) or given not in UNDO):
            message = f"undo={given!r} of the state {state.name!r} is no order"
            yield Mistake(message, did_you_mean(given, UNDO), state.place, state=state.name)
        elif given != "in_order" and state not in owing:
            told = f"undo={given!r}" if isinstance(given, str) else "the order of undo=[...]"
            message = f"{told} is never asked: {state.name!r} owes nothing, nor does a state inside it"
            yield Mistake(message, "Take it away", state.place, state=state.name, severity="warning")


def _order(
    order: Stated, pipeline: Pipeline[Any], state: State[Any] | None, place: Place
) -> Iterator[Mistake]:
    whose = f"the pipeline {pipeline.name!r}" if state is None else f"the state {state.name!r}"
    by_name = {one.name: one for one in pipeline.steps}
    by_name |= {one.name: step for step in pipeline.steps for one in step.compensations}
    in_state = None if state is None else state.name
    if not order:
        message = f"undo={order!r} of {whose} names nothing"
        yield Mistake(message, "Name compensations in it, or leave it out", place, state=in_state)
    seen: set[Step[Any, Any]] = set()
    named: Iterable[object] = order
    for one in named:
        step = undone_by(one, by_name)
        cure = "Take it away, or write @step.compensate() above a function that undoes it"
        severity: Literal["error", "warning"] = "error"
        if not isinstance(one, str | Step):
            message, cure = f"{one!r} is no compensation", "Name a compensation, or what it undoes"
        elif step is None:
            message, cure = f"there is no compensation {one!r}", did_you_mean(one, by_name)
        elif step not in pipeline.steps:
            message, cure = f"{one!s} is none of this pipeline", "Name one of this pipeline"
        elif step.compensation is None:
            message = f"the step {step.name!r} has no compensation"
        elif step in seen:
            message, cure = f"what undoes {step.name!r} is named twice", "Name it once, where it belongs"
        elif state is not None and not _is_owed_in(state, step):
            message, cure = f"nothing in it runs the step {step.name!r}", "Take it away"
            severity = "warning"
        else:
            seen.add(step)
            continue
        words = f"undo=[...] of {whose}: {message}"
        yield Mistake(words, cure, place, state=in_state, severity=severity)


def _is_owed_in(state: State[Any], step: Step[Any, Any]) -> bool:
    """Whether a state runs a step, or one inside it does."""
    for one in state.pipeline.states:
        around: State[Any] | None = one if one.run is step else None
        seen: list[State[Any]] = []
        while isinstance(around, State) and around not in seen:
            if around is state:
                return True
            seen.append(around)
            around = around.parent
    return False
