"""Mistakes with steps: their functions, how they are tried, what they return, and the states that run them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import TypeAdapter
from tenacity.wait import wait_base

from statemachines.checks import bounds, described, staying
from statemachines.checks.bounds import is_count, is_exception
from statemachines.checks.names import wrong_with_type
from statemachines.checks.tree import Some, Tree
from statemachines.definition import Pipeline, name_of
from statemachines.later import Later
from statemachines.mistakes import Mistake
from statemachines.patterns import covers
from statemachines.step import TIMED_OUT, Compensation, Retry, Step, bare_function, error_name

Severity = Literal["error", "warning"]


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with steps; how they ended is looked at with the other events from inside."""
    first: dict[str, Step[Any, Any]] = {}
    for step in pipeline.works:
        other = first.setdefault(step.name, step)
        if other is not step:
            message = f"{called(step)} was already made at {other.place}"
            if kind_of(step) != kind_of(other):
                message = f"{called(step)} has the name of the {kind_of(other)} at {other.place}"
            yield _of(step, message, "Give one of the two functions another name")
        yield from _name(step)
        yield from _function(step)
        yield from _result(step)
        yield from bounds.find(step, called(step), pipeline.context)
        yield from _retry(step)
        yield from _declared(step, pipeline)
    yield from bounds.find_among(pipeline)
    tree = Tree(pipeline)
    for state in pipeline.states:
        yield from _run(state, pipeline)
    yield from _unused(tree)
    if tree.is_sound:
        yield from staying.find(tree)
        yield from _failures_that_nothing_takes(tree)


def kind_of(step: Step[Any, Any]) -> str:
    """What it is, in a word."""
    return "compensation" if isinstance(step, Compensation) else "step"


def called(step: Step[Any, Any]) -> str:
    """The same with its name."""
    return f"the {kind_of(step)} {step.name!r}"


def _name(step: Step[Any, Any]) -> Iterator[Mistake]:
    longest = max(step.events, key=lambda event_type: len(event_type.encode("utf-8", "replace")))
    if not step.name.isidentifier():
        message = f"{called(step)} has no name that events could be called by"
        yield _of(step, message, "Write a function with def, and give it a name")
    elif (wrong := wrong_with_type(longest)) is not None:
        message = f"the type {longest!r} of events of {called(step)} {wrong}"
        yield _of(step, message, "Give the step or the exception a shorter name")


def _function(step: Step[Any, Any]) -> Iterator[Mistake]:
    function: Any = step.function
    if not callable(function):
        cure = (
            f"Write @{step.of.name}.compensate()" if isinstance(step, Compensation) else "Write @flow.step()"
        )
        yield _of(step, f"a {kind_of(step)} is a function, and not {function!r}", f"{cure} above a function")
        return
    bare = bare_function(function)
    if inspect.isgeneratorfunction(bare) or inspect.isasyncgenfunction(bare):
        message = f"{called(step)} is a generator, which does nothing by itself"
        yield _of(step, message, "Let it return its result, without yield")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # built-in functions that do not tell
    wanted = "(context, made, call)" if isinstance(step, Compensation) else "(context, call)"
    try:
        signature.bind(*[None] * len(wanted.split(",")))
    except TypeError:
        message = f"the {kind_of(step)} {name_of(function)}{signature} cannot be called with {wanted}"
        yield _of(step, message, f"Let it take {wanted}")


def _result(step: Step[Any, Any]) -> Iterator[Mistake]:
    function: Any = step.function
    if not callable(function):
        return  # which is a mistake of its own
    if not step.says_result:
        message = f"{called(step)} does not say what it returns"
        yield _of(step, message, "Write -> and the type of its result behind its parameters, as in -> None")
        return
    if mistakes := [*described.find(step, called(step))]:
        yield from mistakes
        return
    try:
        if step.annotation_of("return") is Later:
            message = f"{called(step)} says that it returns Later, and not what it is completed with"
            yield _of(
                step, message, "Write its result beside that, as in -> Charge | Later, or -> Later | None"
            )
            return
        TypeAdapter(step.result_type).rebuild()
    except Exception as error:  # noqa: BLE001 - annotations are user code
        why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        message = f"the result of {called(step)} could not be read back: {why}"
        cure = "Return what JSON has words for, or a model of that, and define it in the file outside of functions"
        yield _of(step, message, cure)


def _retry(step: Step[Any, Any]) -> Iterator[Mistake]:
    retry: Any = step.retry
    if not isinstance(retry, Retry):
        message = f"retry={retry!r} of {called(step)} does not say how it is tried again"
        yield _of(step, message, "Write retry=Retry(attempts=5), or leave it out")
        return
    attempts, wait, unless = [getattr(retry, name) for name in ("attempts", "wait", "unless")]
    if not is_count(attempts):
        message = f"attempts={attempts!r} of {called(step)} is not how often it is tried"
        yield _of(step, message, "Write a whole number from 1 on: the first attempt counts, too")
    if not isinstance(wait, wait_base):
        message = f"wait={wait!r} of {called(step)} does not say how long is waited"
        yield _of(
            step,
            message,
            "Write wait=exponential(1, 60), or make a wait strategy of tenacity",
        )
    for error in unless if isinstance(unless, tuple) else (unless,):
        if not is_exception(error):
            message = f"unless={error!r} of {called(step)} is no class of exceptions"
            yield _of(step, message, "Name a class, or several in a tuple")


def _declared(step: Step[Any, Any], pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    first: dict[str, Any] = {}
    for error in step.declared:
        name = error_name(error)
        event = step.failed_classes[name]
        place = next((move.place for move in pipeline.moves if move.event is event), step.place)
        other = first.setdefault(name, error)
        if not is_exception(error):
            message = f"the step {step.name!r} cannot fail with {error!r}, which is no class of exceptions"
            yield Mistake(message, "Name the class that it raises, without calling it", place)
        elif other is not error or name == TIMED_OUT:
            message = f"the step {step.name!r} may fail with two things that are called {name!r}"
            cure = "Give one of the two another name, or take a class above both of them"
            yield Mistake(message, cure, place)


def _run(state: Some, pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    given: Any = state.run
    if given is None:
        return
    name = str(state.name)
    if not isinstance(given, Step):
        message = f"the state {name!r} is to run {given!r}, which is no step"
        yield Mistake(message, "Write @flow.step() above its function", state.place, state=name)
    elif isinstance(given, Compensation):
        message = f"the state {name!r} is to run {given.name!r}, which undoes the step {given.of.name!r}"
        cure = "Let a transition of the pipeline undo the run, with compensate=True"
        yield Mistake(message, cure, state.place, state=name)
    elif given not in pipeline.steps:
        message = f"the state {name!r} is to run {given.name!r}, which is a step of another pipeline"
        cure = f"Make it with .step of {pipeline.name!r}"
        yield Mistake(message, cure, state.place, state=name)
    elif state.final:
        message = f"the final state {name!r} is to run {given.name!r}, where nothing goes on"
        yield Mistake(message, "Run it in a state before that", state.place, state=name)
    elif state.kind == "history":
        message = f"the history {name!r} is to run {given.name!r}, but is never active itself"
        yield Mistake(message, "Let the state around it run the step", state.place, state=name)


def _unused(tree: Tree) -> Iterator[Mistake]:
    for step in tree.pipeline.steps:
        if step not in tree.runners.values():
            message = f"no state runs the step {step.name!r}"
            yield _of(step, message, "Give it to a state with run=, or remove it", "warning")


def _failures_that_nothing_takes(tree: Tree) -> Iterator[Mistake]:
    for state, step in tree.runners.items():
        around = (*tree.chain(state), None)
        taken = [move.event_type for one in around for move in tree.moves.get(one, ())]
        if not any(isinstance(one, str) and covers(one, str(step.failed.event_type())) for one in taken):
            message = (
                f"no transition takes all failures of the step {step.name!r} in the state {state.name!r}: "
                "those that none takes hold the run until somebody decides"
            )
            cure = f"Add one on {step.name}.failed, or .on_failure(to=...) of the pipeline"
            yield Mistake(message, cure, state.place, state=state.name, severity="warning")


def _of(step: Step[Any, Any], message: str, cure: str, severity: Severity = "error") -> Mistake:
    return Mistake(message, cure, step.place, severity=severity)
