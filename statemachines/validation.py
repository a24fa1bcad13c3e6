"""All mistakes of a definition at once, each with its place and its cure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from statemachines.checks import contexts, events, handlers, paths, settings, states
from statemachines.definition import Pipeline, Topic
from statemachines.mistakes import DefinitionError, Mistake

_CHECKS = (settings.find, contexts.find, states.find, events.find, handlers.find, paths.find)


def find_mistakes(pipeline: Pipeline[Any]) -> list[Mistake]:
    """Errors and warnings, in the order of the places they point at."""
    return _in_order(mistake for find in _CHECKS for mistake in find(pipeline))


def find_mistakes_across(pipelines: Sequence[Pipeline[Any]]) -> list[Mistake]:
    """The mistakes of each pipeline, and those that only show when they are loaded together."""
    distinct = list(dict.fromkeys(pipelines))
    alone = [mistake for pipeline in distinct for mistake in find_mistakes(pipeline)]
    return _in_order([*alone, *_names_used_twice(distinct), *_conflicting_topics(distinct)])


def check(pipeline: Pipeline[Any]) -> None:
    """Raise DefinitionError with every mistake that is an error."""
    errors = [mistake for mistake in find_mistakes(pipeline) if mistake.severity == "error"]
    if errors:
        raise DefinitionError(pipeline.name, errors)


def _in_order(mistakes: Iterator[Mistake] | list[Mistake]) -> list[Mistake]:
    return sorted(mistakes, key=lambda mistake: mistake.place)


def _names_used_twice(pipelines: Sequence[Pipeline[Any]]) -> Iterator[Mistake]:
    first: dict[tuple[str, str], Pipeline[Any]] = {}
    for pipeline in pipelines:
        other = first.setdefault((repr(pipeline.name), repr(pipeline.version)), pipeline)
        if other is not pipeline:
            message = f"pipeline {pipeline.name!r} version {pipeline.version} is also at {other.place}"
            yield Mistake(message, "Give one of them another name or version", pipeline.place)


def _conflicting_topics(pipelines: Sequence[Pipeline[Any]]) -> Iterator[Mistake]:
    first: dict[str, tuple[Topic, Pipeline[Any]]] = {}
    for pipeline in pipelines:
        if not settings.are_topics(pipeline.topics):
            continue  # a mistake of its own
        for topic in pipeline.read_topics:
            other, owner = first.setdefault(topic.name, (topic, pipeline))
            names = [
                one.name for one in fields(Topic) if getattr(other, one.name) != getattr(topic, one.name)
            ]
            if names and owner is not pipeline:
                here, there = (
                    ", ".join(f"{name}={getattr(one, name)!r}" for name in names) for one in (topic, other)
                )
                message = f"the topic {topic.name!r} is read with {here}, but with {there} by {owner.name!r}"
                cure = f"Use one Topic object for both; the other is at {owner.place}"
                yield Mistake(message, cure, pipeline.place)
