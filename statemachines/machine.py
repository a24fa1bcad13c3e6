"""A definition compiled once into the table that the hot path looks moves up in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from statemachines.canonical import canonical_bytes
from statemachines.chart.spots import Spots
from statemachines.chart.steps import Plan, Steps
from statemachines.chart.tree import Block, plant
from statemachines.codehash import code_hash
from statemachines.definition import Move, Pipeline, Policy, Start, is_flat, name_of
from statemachines.events import is_internal
from statemachines.outcome import Moved
from statemachines.run import Status
from statemachines.validation import check

if TYPE_CHECKING:
    from statemachines.context import Context
    from statemachines.effects import Out, Outlet
    from statemachines.events import Event


class Candidate(NamedTuple):
    """One transition as the interpreter tries it."""

    source: str
    """Empty: a transition of the pipeline."""
    target: str | None
    guard: Callable[[Any, Any], bool] | None
    action: Callable[[Any, Any], Out] | None
    guard_name: str | None
    action_name: str | None
    moved: Moved | None
    """The outcome, where it depends on nothing: no guard is asked, and no action done."""


class Beginning(NamedTuple):
    """A start event as the interpreter takes it."""

    target: str
    build: Callable[[Any], Context]
    build_name: str
    action: Callable[[Any, Any], Out] | None
    action_name: str | None
    plan: Plan
    """The same for a chart: what is entered, and what is done on the way."""


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """A valid pipeline, compiled; what ``step`` takes."""

    pipeline: Pipeline[Any]
    namespace: str
    name: str
    version: int
    context_class: type[Context]
    flat: bool
    """Whether ``table`` says all, so that no chart is needed but for events that actions raise."""
    table: Mapping[str, Mapping[str, tuple[Candidate, ...]]]
    """Of a flat machine by configuration, then by event type: the candidates in the order they are tried."""
    steps: Steps
    spots: Spots
    beginnings: Mapping[str, Beginning]
    events: Mapping[str, type[Event]]
    validators: Mapping[str, Callable[[Any], Event]]
    """By event type: the event from its data; raises what a user's validator may raise."""
    final: frozenset[str]
    no_run: Policy
    unexpected: Policy
    closed: Policy
    structure: bytes
    hash: bytes
    """SHA-256 of the structure: the definition's identity."""
    code: bytes
    """SHA-256 over the syntax trees of its functions."""
    read_context: Callable[[bytes], Context]
    """The context from its JSON; raises ValueError."""
    write_context: Callable[..., bytes]
    """The context as JSON."""
    kept: dict[bytes, Context] = field(default_factory=dict)
    """Contexts by their JSON, as they were read back; see ``handlers.write``. No part of the definition."""
    outlet: Outlet | None = None
    """What is too large for its topic is refused by it. No part of the definition: the engine puts it in."""


def compile_pipeline(pipeline: Pipeline[Any], *, namespace: str = "default") -> Machine:
    """Validate and compile.

    Raises:
        DefinitionError: the pipeline has mistakes; the error lists all of them.
    """
    check(pipeline)
    structure = canonical_bytes(pipeline)
    chart = plant(pipeline)
    steps, flat = Steps(chart), is_flat(pipeline)
    final = frozenset(state.name for state in pipeline.states if state.final and state.parent is None)
    initial = chart.nodes[chart.nodes[0].begins[0]].name
    lines: list[Start | Move] = [*pipeline.starts, *pipeline.moves]
    classes = [line.event for line in lines if line.event is not None]
    events: dict[str, type[Event]] = {one.event_type(): one for one in classes if not is_internal(one)}
    return Machine(
        pipeline=pipeline,
        namespace=namespace,
        name=pipeline.name,
        version=pipeline.version,
        context_class=pipeline.context,
        flat=flat,
        table={
            state.name: {} if state.final else _moves_of(pipeline, state.name, final)
            for state in (pipeline.states if flat else ())
        },
        steps=steps,
        spots=Spots(chart),
        beginnings={start.event.event_type(): _beginning(start, initial, steps) for start in pipeline.starts},
        events=events,
        validators={
            event_type: event_class.__pydantic_validator__.validate_python
            for event_type, event_class in events.items()
        },
        final=final,
        no_run=pipeline.no_run,
        unexpected=pipeline.unexpected,
        closed=pipeline.closed,
        structure=structure,
        hash=hashlib.sha256(structure).digest(),
        code=code_hash(pipeline),
        read_context=pipeline.context.__pydantic_validator__.validate_json,
        write_context=pipeline.context.__pydantic_serializer__.to_json,
    )


def _beginning(start: Start, initial: str, steps: Steps) -> Beginning:
    target, action, action_name = start.target or initial, start.action, name_of(start.action)
    block = None if action is None else Block(action, action_name or "")
    plan = steps.begin((steps.chart.numbers[target],), block)
    return Beginning(target, start.build, name_of(start.build) or "", action, action_name, plan)


def _moves_of(pipeline: Pipeline[Any], state: str, final: frozenset[str]) -> dict[str, tuple[Candidate, ...]]:
    own = [move for move in pipeline.moves if move.source == state]
    general = [move for move in pipeline.moves if move.source is None]
    found: dict[str, list[Candidate]] = {}
    for move in own + general:
        target = move.target or state
        status = Status.COMPLETED if target in final else Status.RUNNING
        depends = move.guard is not None or move.action is not None
        found.setdefault(move.event_type or "", []).append(
            Candidate(
                move.source or "",
                move.target,
                move.guard,
                move.action,
                name_of(move.guard),
                name_of(move.action),
                None if depends else Moved(False, target, int(status), None, ()),
            )
        )
    return {event_type: tuple(candidates) for event_type, candidates in found.items()}
