"""The canonical form of a definition: its structure as bytes, whose hash is the definition's identity.

It is JSON with sorted keys, and says which format it has. In it: name, version, the context's class by name,
the states and the transitions in order (what is tried first matters), start events, functions by name, event
types with their keys, policies, topics with their settings, sorted by name, and search attributes with what they are.

Not in it: what functions and classes do, which the code hash stands for; the JSON schema of the context,
which changes with pydantic's version; descriptions and places, which change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import orjson

from statemachines.definition import Move, Pipeline, State, name_of
from statemachines.events import Event
from statemachines.search import kinds_of

FORMAT = "pointsman.definition/1"


def canonical_bytes(pipeline: Pipeline[Any]) -> bytes:
    """The structure of a pipeline without mistakes; equal wherever the structure is, on any Python."""
    form = {
        "format": FORMAT,
        "name": pipeline.name,
        "version": pipeline.version,
        "context": pipeline.context.__qualname__,
        "policies": {
            "no_run": pipeline.no_run,
            "unexpected": pipeline.unexpected,
            "closed": pipeline.closed,
        },
        "topics": sorted((asdict(topic) for topic in pipeline.read_topics), key=lambda topic: topic["name"]),
        "events": {event.event_type(): event.event_key() for event in _events(pipeline)},
        "states": [_state(state) for state in pipeline.states],
        "starts": [
            {
                "event": start.event.event_type(),
                "build": name_of(start.build),
                "target": start.target,
                "action": name_of(start.action),
            }
            for start in pipeline.starts
        ],
        "moves": [_move(move) for move in pipeline.moves],
    }
    if searchable := kinds_of(pipeline.context):
        form["searchable"] = searchable
    return orjson.dumps(form, option=orjson.OPT_SORT_KEYS)


def _state(state: State[Any]) -> dict[str, Any]:
    """What a flat pipeline has no use for is left out where it is not there, so that its form stays as it was."""
    beginning = state.beginning
    chart = {
        "parent": None if state.parent is None else state.parent.name,
        "kind": None if state.kind == "state" else state.kind,
        "deep": state.deep or None,
        "entries": [name_of(function) for function, _ in state.entries] or None,
        "exits": [name_of(function) for function, _ in state.exits] or None,
        "output": name_of(state.output),
        "initially": None if beginning is None else [[*beginning.targets], name_of(beginning.action)],
    }
    form = {"name": state.name, "initial": state.initial, "final": state.final}
    return form | {name: value for name, value in chart.items() if value is not None}


def _move(move: Move) -> dict[str, Any]:
    form: dict[str, Any] = {
        "source": move.source,
        "event": move.event_type,
        "target": move.target,
        "guard": name_of(move.guard),
        "action": name_of(move.action),
    }
    if len(move.targets) > 1:
        form["targets"] = list(move.targets)
    if move.reenter:
        form["reenter"] = True
    return form


def _events(pipeline: Pipeline[Any]) -> Iterator[type[Event]]:
    yield from (start.event for start in pipeline.starts)
    yield from (move.event for move in pipeline.moves if move.event is not None)
