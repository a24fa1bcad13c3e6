"""All mistakes of a definition at once."""

from __future__ import annotations

from typing import Any

from statemachines.definition import Pipeline
from statemachines.mistakes import DefinitionError, Mistake


def find_mistakes(pipeline: Pipeline[Any]) -> list[Mistake]:
    """Errors and warnings, in the order of the places they point at."""
    del pipeline
    return []


def check(pipeline: Pipeline[Any]) -> None:
    """Raise DefinitionError with every mistake that is an error."""
    errors = [mistake for mistake in find_mistakes(pipeline) if mistake.severity == "error"]
    if errors:
        raise DefinitionError(pipeline.name, errors)
