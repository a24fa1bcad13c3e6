"""Mistakes with the class of the context: it must come back from the log as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from statemachines.checks import search
from statemachines.checks.schemas import fields_with_sets, unfinished
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.mistakes import Mistake


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with the context."""
    given: Any = pipeline.context
    if not (isinstance(given, type) and issubclass(given, Context)):
        name = getattr(given, "__name__", None) or repr(given)
        message = f"the context {name} of pipeline {pipeline.name!r} is no subclass of Context"
        yield Mistake(message, f"Write class {_class_name(name)}(Context)", pipeline.place)
        return
    why = unfinished(given)
    if why is not None:
        message = f"the context {given.__name__} cannot be validated: {why}"
        yield Mistake(message, "Define what its fields refer to, above the pipeline", pipeline.place)
        return
    for path in fields_with_sets(given):
        message = f"the field {path!r} of the context {given.__name__} holds a set"
        cure = (
            "Use a list or a dict: the order of a set differs from process to process, and so would the log"
        )
        yield Mistake(message, cure, pipeline.place)
    yield from search.find(pipeline)


def _class_name(name: str) -> str:
    return name if name.isidentifier() else "MyContext"
