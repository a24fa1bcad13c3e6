"""What was written of runs, without what is another thing in each life: times, attempts, and how those failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from engine.log import LogRow

FAILED_WITH = "failed with "
"""So notes begin that say with which error."""
OF_ATTEMPTS = {"attempt", "attempts", "error", "message", "progress", "lost", "raised"}
"""What an event says of how its step has ended that is another thing for each attempt."""
_NUMBERS = re.compile(r"/[0-9]+")


class Told(NamedTuple):
    """A row of a log; what is known by the row that has asked for it has the name of its step."""

    type: str
    configuration: str
    known_as: str
    said: Any
    """By the event: also what its step returned."""
    context: Any
    asked: list[Any]
    """The effects, but for what is to be stopped."""


def story_of(rows: Iterable[LogRow], is_left_out: Callable[[LogRow], bool]) -> list[Told]:
    """The rows of a run, in their order; what those that are left out have asked for, the one before them has."""
    story: list[Told] = []
    names: dict[str, str] = {}
    for row in rows:
        effects = orjson.loads(row.effects or b"[]")
        _name(row.sequence, effects, names)
        asked = _named([one for one in effects if "stop" not in one], names)
        if is_left_out(row):
            story[-1].asked.extend(asked)
            continue
        data = orjson.loads(row.payload or b"{}").get("data", {})
        said = _named({name: one for name, one in data.items() if name not in OF_ATTEMPTS}, names)
        context = _named(orjson.loads(row.context or b"{}"), names)
        known_as = _NUMBERS.sub("/", _named(row.event_id, names))
        story.append(Told(row.type, row.configuration, known_as, said, context, asked))
    return story


def _name(sequence: int, effects: list[dict[str, Any]], names: dict[str, str]) -> None:
    for number, effect in enumerate(effects):
        if "step" in effect:
            count = sum(one.partition(" ")[0] == effect["step"] for one in {*names.values()})
            names[effect["id"]] = names[f"{sequence}.{number}"] = f"{effect['step']} {count + 1}"


def _named(value: Any, names: Mapping[str, str]) -> Any:
    """With each name in place of what it is known by, wherever that stands."""
    match value:
        case str() if value.startswith(FAILED_WITH):
            return FAILED_WITH
        case str():
            known, slash, more = value.partition("/")
            return names.get(known, known) + slash + more
        case dict():
            return {name: _named(one, names) for name, one in value.items()}
        case list():
            return [_named(one, names) for one in value]
        case _:
            return value
