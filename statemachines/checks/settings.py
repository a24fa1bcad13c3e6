"""Mistakes with what stands in the first lines of a pipeline: name, version, policies, topics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard, get_args

from statemachines.checks.comparing import are_equal
from statemachines.checks.names import is_storable, wrong_with_name, wrong_with_topic, wrong_with_type
from statemachines.definition import OnError, Pipeline, Policy, TimersFire, Topic
from statemachines.limits import PIPELINE_NAME_BYTES_MAX, VERSION_MAX
from statemachines.mistakes import Mistake
from statemachines.stated import UndoWord, is_stated
from statemachines.suggest import did_you_mean, listed

POLICIES: tuple[str, ...] = get_args(Policy)
TIMERS: tuple[str, ...] = get_args(TimersFire)
ON_ERROR: tuple[str, ...] = get_args(OnError)
UNDO: tuple[str, ...] = get_args(UndoWord)


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with settings."""
    yield from _name(pipeline)
    yield from _version(pipeline)
    yield from _policy(pipeline, "on_error", pipeline.on_error, "", ON_ERROR)
    yield from _policy(pipeline, "timers", pipeline.timers, "", TIMERS)
    if not is_stated(pipeline.undo):
        yield from _policy(pipeline, "undo", pipeline.undo, "", UNDO)
    yield from _topics(pipeline)


def _name(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    wrong = wrong_with_name(pipeline.name, PIPELINE_NAME_BYTES_MAX)
    if wrong is not None:
        cure = f"Use up to {PIPELINE_NAME_BYTES_MAX} letters, digits, '-', '_' or '.'"
        yield Mistake(f"the pipeline name {pipeline.name!r} {wrong}", cure, pipeline.place)


def _version(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    version: Any = pipeline.version
    if type(version) is not int or not 1 <= version <= VERSION_MAX:
        message = f"the version of pipeline {pipeline.name!r} is {version!r}"
        yield Mistake(
            message, "Use a whole number from 1 on, and a higher one with each change", pipeline.place
        )


def _policy(
    pipeline: Pipeline[Any], setting: str, given: object, whose: str, known: Sequence[str] = POLICIES
) -> Iterator[Mistake]:
    if not isinstance(given, str) or given not in known:
        message = f"{setting}={given!r}{whose} is no policy"
        yield Mistake(message, did_you_mean(given, known), pipeline.place)


def _topics(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    topics: Any = pipeline.topics
    if isinstance(topics, str | Topic):
        name = topics if isinstance(topics, str) else topics.name
        message = f"topics={name!r} is one topic where a list of them is wanted"
        yield Mistake(message, f"Write topics=[{name!r}]", pipeline.place)
        return
    if not are_topics(topics):
        message = f"topics={topics!r} is no list of topics"
        yield Mistake(message, 'Write topics=["name", Topic("other", ...)]', pipeline.place)
        return
    if not topics:
        message = f"pipeline {pipeline.name!r} reads no topic"
        cure = "Name what it reads with topics=[...], unless all its events come from elsewhere"
        yield Mistake(message, cure, pipeline.place, severity="warning")
        return
    read = pipeline.read_topics
    for at, topic in enumerate(read):
        yield from _topic(pipeline, topic)
        if any(are_equal(topic.name, other.name) for other in read[:at]):
            message = f"the topic {topic.name!r} is named twice"
            yield Mistake(message, "Name it once, with one set of settings", pipeline.place)
    yield from _read_back(pipeline, read)


def are_topics(given: object) -> TypeGuard[Sequence[Topic | str]]:
    """Whether this is a list of topics, be their names right or wrong."""
    return isinstance(given, list | tuple) and all(isinstance(one, str | Topic) for one in given)


def _topic(pipeline: Pipeline[Any], topic: Topic) -> Iterator[Mistake]:
    wrong = wrong_with_topic(topic.name)
    if wrong is not None:
        message = f"the topic name {topic.name!r} {wrong}"
        yield Mistake(
            message, "Use up to 249 of the letters a to z, digits, '.', '_' and '-'", pipeline.place
        )
        return
    given: Any = topic.dead_letters
    dead = topic.dead_letter_topic if given is None or are_equal(given, "") else given
    wrong = wrong_with_topic(dead)
    if wrong is not None:
        message = f"the dead-letter topic {dead!r} of {topic.name!r} {wrong}"
        yield Mistake(message, "Name another one with Topic(..., dead_letters=...)", pipeline.place)
    for policy in ("unknown", "tombstones", "each_missing"):
        yield from _policy(pipeline, policy, getattr(topic, policy), f" of topic {topic.name!r}")
    if topic.each is None and not are_equal(topic.each_missing, "dead_letter"):
        message = f"each_missing={topic.each_missing!r} of topic {topic.name!r} says nothing without each"
        yield Mistake(message, 'Name the list of events with each="...", or leave it out', pipeline.place)
    if topic.type_default is not None and wrong_with_type(topic.type_default) is not None:
        message = f"type_default={topic.type_default!r} of topic {topic.name!r} is no event type"
        yield Mistake(message, "Name the type of records that carry none", pipeline.place)
    for setting in ("id", "key", "time", "each"):
        given = getattr(topic, setting)
        if given is not None and not _names_one(given):
            no = "no field" if setting == "each" else "no header and no field"
            message = f"{setting}={given!r} of topic {topic.name!r} names {no}"
            yield Mistake(message, "Name one, or leave the setting out", pipeline.place)
    yield from _type(pipeline, topic)


def _type(pipeline: Pipeline[Any], topic: Topic) -> Iterator[Mistake]:
    by: Any = topic.type
    if callable(by):
        return  # as a function it is looked at with the others
    names = by if isinstance(by, tuple) else (by,)
    if not names or not all(map(_names_one, names)):
        message = f"type={by!r} of topic {topic.name!r} names no header and no field"
        cure = "Name one, several in a tuple, or a function of the data; or leave the setting out"
        yield Mistake(message, cure, pipeline.place)
        return
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            message = f"type={by!r} of topic {topic.name!r} names {name!r} twice"
            yield Mistake(message, "Name it once", pipeline.place)


def _names_one(given: object) -> bool:
    return is_storable(given) and bool(given)


def _read_back(pipeline: Pipeline[Any], read: Sequence[Topic]) -> Iterator[Mistake]:
    names = [topic.name for topic in read if isinstance(topic.name, str)]
    dead = [topic.dead_letter_topic for topic in read if isinstance(topic.dead_letter_topic, str)]
    again = sorted({name for name in dead if name in names})
    if again:
        message = f"pipeline {pipeline.name!r} reads {listed(again)}, to which its own dead letters go"
        yield Mistake(
            message, "Read the one or write to the other: dead letters would go round", pipeline.place
        )
