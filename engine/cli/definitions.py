"""``validate``, which needs no service; and how commands come by the pipelines that they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from engine.cli.failures import FAILED
from engine.cli.options import Json, Modules
from engine.cli.output import console, counted, note, print_json, say

if TYPE_CHECKING:
    from engine.steps.executors import ByClass
    from statemachines.definition import Pipeline
    from statemachines.machine import Machine
    from statemachines.mistakes import Mistake

PANEL = "Definitions"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=PANEL)(validate)


def find(targets: Sequence[str]) -> list[Pipeline[Any]]:
    """The pipelines of all targets, each once.

    Raises:
        LoadError: one of them cannot be imported, or has no pipeline.
    """
    from statemachines.loading import find_pipelines  # noqa: PLC0415 - pydantic is loaded only when needed

    return list(dict.fromkeys(pipeline for target in targets for pipeline in find_pipelines(target)))


def compile_all(targets: Sequence[str], namespace: str) -> list[Machine]:
    """The pipelines of all targets, compiled, as an engine takes them; warnings go to standard error.

    Raises:
        LoadError, DefinitionError: they cannot be run.
    """
    from statemachines.machine import compile_pipeline  # noqa: PLC0415 - as above
    from statemachines.mistakes import DefinitionError  # noqa: PLC0415 - as above
    from statemachines.validation import find_mistakes_across  # noqa: PLC0415 - as above

    pipelines = find(targets)
    mistakes = find_mistakes_across(pipelines)
    if errors := [one for one in mistakes if one.severity == "error"]:
        raise DefinitionError(", ".join(dict.fromkeys(str(one.name) for one in pipelines)), errors)
    for warning in mistakes:
        note(str(warning))
    return [compile_pipeline(pipeline, namespace=namespace) for pipeline in pipelines]


def load_executors(target: str | None) -> ByClass | None:
    """The executors that a setting names; None: it names none.

    Raises:
        LoadError, UsageError: there are none.
    """
    if target is None:
        return None
    from engine.steps.executors import check_mapping  # noqa: PLC0415 - as above
    from statemachines.loading import find_value  # noqa: PLC0415 - as above

    return check_mapping(target, find_value(target))


def validate(modules: Modules, json: Json = False) -> int:
    """Find all mistakes of pipelines, each with its place and its cure.

    Ends with 1 where there is an error; warnings alone are no reason.
    """
    from statemachines.validation import find_mistakes_across  # noqa: PLC0415 - as above

    pipelines = find(modules)
    mistakes = find_mistakes_across(pipelines)
    errors = sum(one.severity == "error" for one in mistakes)
    if json:
        print_json(
            {
                "valid": not errors,
                "pipelines": [_pipeline_json(one) for one in pipelines],
                "mistakes": [_mistake_json(one) for one in mistakes],
            }
        )
    else:
        _print_mistakes(mistakes)
        for pipeline in pipelines:
            say(f"{pipeline.name} version {pipeline.version}: {_size(pipeline)}")
        warnings = len(mistakes) - errors
        say(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}")
    return FAILED if errors else 0


def _print_mistakes(mistakes: list[Mistake]) -> None:
    screen = console()
    for one in mistakes:
        colour = "red" if one.severity == "error" else "yellow"
        screen.print(str(one), style=colour, markup=False, soft_wrap=True)


def _size(pipeline: Pipeline[Any]) -> str:
    moves = len(pipeline.moves) + len(pipeline.starts)
    topics = ", ".join(str(getattr(topic, "name", topic)) for topic in pipeline.topics) or "no topics"
    return f"{counted(len(pipeline.states), 'state')}, {counted(moves, 'move')}, reads {topics}"


def _pipeline_json(pipeline: Pipeline[Any]) -> dict[str, Any]:
    return {
        "pipeline": pipeline.name,
        "version": pipeline.version,
        "states": [str(state.name) for state in pipeline.states],
        "topics": [str(getattr(topic, "name", topic)) for topic in pipeline.topics],
    }


def _mistake_json(mistake: Mistake) -> dict[str, Any]:
    return {
        "severity": mistake.severity,
        "message": mistake.message,
        "cure": mistake.cure,
        "file": mistake.place.file,
        "line": mistake.place.line,
        "state": mistake.state,
        "event": mistake.event,
    }
