"""The canonical form of a definition: its structure as bytes, whose hash is the definition's identity.

It is JSON with sorted keys, and says which format it has. In it: name, version, the context's class by name,
the states and the transitions in order (what is tried first matters), start events, functions by name, event
types and patterns with their keys, policies, tags, topics with their settings, sorted by name, search attributes with
what they are, the names of steps and of what undoes them, and which state runs which.

Not in it: what functions and classes do, which the code hash stands for; the JSON schema of the context,
which changes with pydantic's version; how often steps are tried, how long they may take and how many at once, which is
asked when they are done and never again; descriptions and places, which change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import orjson

from statemachines.definition import Move, Pipeline, Start, State, name_of
from statemachines.events import Event, KeyBy
from statemachines.policies import SITUATIONS, Decision, Defer, PolicyLine
from statemachines.search import kinds_of
from statemachines.stated import Undo, is_stated, stated_steps
from statemachines.topic import Topic, TypeBy

FORMAT = "pointsman.definition/1"

_UNUSED: dict[str, Any] = {"each": None, "each_missing": "dead_letter", "tombstones": "dead_letter"}
_ALWAYS = object()


def canonical_bytes(pipeline: Pipeline[Any]) -> bytes:
    """The structure of a pipeline without mistakes; equal wherever the structure is, on any Python."""
    policies = _policies(pipeline)
    if pipeline.on_error != "refuse":
        policies["on_error"] = pipeline.on_error
    if pipeline.timers != "after_backlog":
        policies["timers"] = pipeline.timers
    if pipeline.undo != "in_order":
        policies["undo"] = _undo(pipeline.undo, pipeline)
    form = {
        "format": FORMAT,
        "name": pipeline.name,
        "version": pipeline.version,
        "context": pipeline.context.__qualname__,
        "policies": policies,
        "topics": sorted(map(_topic, pipeline.read_topics), key=lambda topic: topic["name"]),
        "events": {event.event_type(): _named(event.event_key()) for event in _events(pipeline)},
        "states": [_state(state) for state in pipeline.states],
        "starts": [_start(start) for start in pipeline.starts],
        "moves": [_move(move) for move in pipeline.moves],
    }
    if pipeline.keys:
        form["keys"] = {keyed.event.event_type(): _named(keyed.by) for keyed in pipeline.keys}
    if pipeline.steps:
        form["steps"] = [step.name for step in pipeline.steps]
    compensations = {step.name: step.compensation for step in pipeline.steps}
    if any(compensations.values()):
        form["compensations"] = {
            step: [one.name, one.on_error] for step, one in compensations.items() if one is not None
        }
    if searchable := kinds_of(pipeline.context):
        form["searchable"] = searchable
    return orjson.dumps(form, option=orjson.OPT_SORT_KEYS)


def _policies(pipeline: Pipeline[Any]) -> dict[str, Any]:
    form: dict[str, Any] = {name: _decision(getattr(pipeline, name)) for name in SITUATIONS}
    if pipeline.policies:
        form["lines"] = [_policy(line) for line in pipeline.policies]
    return form


def _policy(line: PolicyLine) -> dict[str, Any]:
    form: dict[str, Any] = {name: _decision(one) for name, one in line.decisions.items()}
    form["state"] = line.state
    form["event"] = None if line.event is None else line.event.event_type()
    if line.once is not None:
        form["duplicate_by"] = [*line.once.fields]
        form["duplicate_for"] = _microseconds(line.once.within)
    if line.order is not None:
        order = line.order
        form["order_by"] = [order.by, order.kind, [*order.scope], order.stream]
        if order.contiguous:
            form["contiguous"] = [order.first, _decision(order.gap)]
    return form


def keyed_for_ever(structure: bytes) -> frozenset[str]:
    """The types, and patterns, for which a structure names a business key that counts for ever.

    Empty where it was tampered with, which ``verify`` finds.
    """
    try:
        lines: list[dict[str, Any]] = orjson.loads(structure)["policies"]["lines"]
        return frozenset(line["event"] for line in lines if line.get("duplicate_for", 0) is None)
    except (ValueError, LookupError, TypeError, AttributeError):
        return frozenset()


def _decision(decision: Decision) -> Any:
    if isinstance(decision, Defer):
        return ["defer", _microseconds(decision.ttl), decision.then]
    return decision


def _microseconds(delay: timedelta | None) -> int | None:
    return None if delay is None else delay // timedelta(microseconds=1)


def _topic(topic: Topic) -> dict[str, Any]:
    """What was not always there is left out where it is not used, so that older forms stay as they were."""
    form = asdict(topic) | {"type": _named(topic.type)}
    return {name: value for name, value in form.items() if value != _UNUSED.get(name, _ALWAYS)}


def _named(by: KeyBy | TypeBy | None) -> Any:
    """A field by its name, several as a list, a function as an object with its name."""
    if callable(by):
        return {"function": name_of(by)}
    return by if by is None or isinstance(by, str) else list(by)


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
        "run": None if state.run is None else state.run.name,
        "tags": sorted(state.tags) or None,
        "undo": None if state.undo == "in_order" else _undo(state.undo, state.pipeline),
        "initially": None if beginning is None else [[*beginning.targets], name_of(beginning.action)],
    }
    form = {"name": state.name, "initial": state.initial, "final": state.final}
    return form | {name: value for name, value in chart.items() if value is not None}


def _start(start: Start) -> dict[str, Any]:
    form: dict[str, Any] = {
        "event": start.event.event_type(),
        "build": name_of(start.build),
        "target": [*start.targets] if len(start.targets) > 1 else start.target,
        "action": name_of(start.action),
    }
    if start.guard is not None:
        form["guard"] = name_of(start.guard)
    return form


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
    if move.compensate:
        form["compensate"] = move.compensate
    if move.delay is not None:
        form["delay"] = (
            _microseconds(move.delay) if isinstance(move.delay, timedelta) else name_of(move.delay)
        )
    return form


def _undo(undo: Undo, pipeline: Pipeline[Any]) -> Any:
    """One word, or the names of the steps in the order in which they are undone."""
    return stated_steps(undo, pipeline.steps) if is_stated(undo) else undo


def _events(pipeline: Pipeline[Any]) -> Iterator[type[Event]]:
    yield from (start.event for start in pipeline.starts)
    yield from (move.event for move in pipeline.moves if move.event is not None)
