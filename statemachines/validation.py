"""All mistakes of a definition at once, each with its place and its cure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from statemachines.checks import (
    annotated,
    compensations,
    contexts,
    events,
    handlers,
    keys,
    paths,
    policies,
    restarts,
    settings,
    states,
    steps,
    timers,
)
from statemachines.checks.comparing import are_equal
from statemachines.definition import Pipeline, Topic, name_of
from statemachines.mistakes import DefinitionError, Mistake

_CHECKS = (
    settings.find,
    policies.find,
    restarts.find,
    contexts.find,
    states.find,
    events.find,
    keys.find,
    timers.find,
    steps.find,
    compensations.find,
    handlers.find,
    annotated.find,
    paths.find,
)


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
    """Of the versions of one pipeline the newest has the say; different pipelines must agree."""
    read: dict[tuple[str, str], list[tuple[Topic, Pipeline[Any]]]] = {}
    for pipeline in pipelines:
        if settings.are_topics(pipeline.topics):  # else that is a mistake of its own
            for topic in pipeline.read_topics:
                read.setdefault((repr(pipeline.name), repr(topic.name)), []).append((topic, pipeline))
    first: dict[str, tuple[Topic, Pipeline[Any]]] = {}
    for (_, name), versions in read.items():
        topic, newest = max(versions, key=_version)
        yield from _overruled_topics(topic, newest, versions)
        other, owner = first.setdefault(name, (topic, newest))
        if not are_equal(other, topic) and owner is not newest:
            here, there = _differences(topic, other)
            message = f"the topic {topic.name!r} is read with {here}, but with {there} by {owner.name!r}"
            cure = f"Use one Topic object for both; the other is at {owner.place}"
            yield Mistake(message, cure, newest.place)


def _overruled_topics(
    topic: Topic, newest: Pipeline[Any], versions: Sequence[tuple[Topic, Pipeline[Any]]]
) -> Iterator[Mistake]:
    for other, pipeline in versions:
        if not are_equal(other, topic) and not are_equal(pipeline.version, newest.version):
            here, there = _differences(topic, other)
            message = (
                f"the topic {topic.name!r} is read with {here}, and no more with {there}, as version "
                f"{pipeline.version} of {newest.name!r} says"
            )
            cure = f"Nothing is to be done if version {newest.version} means that for the runs of both"
            yield Mistake(message, cure, newest.place, severity="warning")


def _version(read: tuple[Topic, Pipeline[Any]]) -> int:
    version: object = read[1].version
    return version if isinstance(version, int) else 0  # any other is a mistake of its own


def _differences(topic: Topic, other: Topic) -> tuple[str, str]:
    """Where the settings differ, as they are here and there."""
    names = [
        one.name for one in fields(Topic) if not are_equal(getattr(other, one.name), getattr(topic, one.name))
    ]
    here, there = (
        ", ".join(f"{name}={_shown(getattr(one, name))}" for name in names) for one in (topic, other)
    )
    return here, there


def _shown(setting: object) -> str:
    return str(name_of(setting)) if callable(setting) else repr(setting)
