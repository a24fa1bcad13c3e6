"""A definition compiled once into the table that the hot path looks moves up in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from statemachines.canonical import canonical_bytes
from statemachines.chart.microsteps import Microsteps, Plan
from statemachines.chart.spots import Spots
from statemachines.chart.tree import Block, plant
from statemachines.codehash import code_hash
from statemachines.definition import Move, Pipeline, Start, name_of
from statemachines.events import After, Cancelled, is_internal
from statemachines.kept import KeptContexts
from statemachines.keys import How, how_keyed
from statemachines.outcome import STARTS, Moved, Tried
from statemachines.parsed import reader_of
from statemachines.patterns import by_type, is_pattern, takes, takes_failures, widened
from statemachines.plain import Plain, plain_of
from statemachines.policies import Policies, policies_of
from statemachines.run import Status
from statemachines.search import Kind, kinds_of
from statemachines.step import Compensation
from statemachines.validation import check

if TYPE_CHECKING:
    from statemachines.context import Context
    from statemachines.effects import Out, Outlet
    from statemachines.events import Event
    from statemachines.ordering import OrderBy
    from statemachines.policies import Once

T = TypeVar("T")


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
    guard: Callable[[Any, Any], bool] | None
    tried: Tried
    """What is told of it where its guard does not hold."""


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
    microsteps: Microsteps
    spots: Spots
    beginnings: Mapping[str, tuple[Beginning, ...]]
    """By event type: those that the event may start a run by, in the order they are tried."""
    events: Mapping[str, type[Event]]
    """The class that events of a type from outside come as: its own, else that of the most specific pattern."""
    keys: Mapping[str, How]
    """How the run's key is read, by event type; of others the record has it."""
    compensations: Mapping[str, Compensation[Any, Any]]
    """By the name of the step that each of them undoes."""
    validators: Mapping[str, Callable[[Any], Event]]
    """By event type, those of timers and of the outcomes of steps among them: the event from its data; raises what a
    user's validator may raise."""
    final: frozenset[str]
    policies: Policies
    orders: Mapping[str, OrderBy]
    """How events of these types are in order, each with the name of its stream."""
    onces: Mapping[str, Once]
    """What events of these types are known by beside their ids."""
    asks_more: bool
    """Whether more is asked of an event than whether its id was seen, and whether its run takes it."""
    default_plan: Plan
    """How a run begins that no event starts."""
    structure: bytes
    hash: bytes
    """SHA-256 of the structure: the definition's identity."""
    code: bytes
    """SHA-256 over the syntax trees of its functions."""
    read_context: Callable[[bytes], Context]
    """The context from its JSON; raises ValueError."""
    write_context: Callable[..., bytes]
    """The context as JSON."""
    plain: Plain | None
    """The same where it takes no reading back."""
    searchable: Mapping[str, Kind]
    """What runs are found by."""
    kept: KeptContexts = field(default_factory=KeptContexts)
    """Contexts as they were read back. No part of the definition."""
    outlet: Outlet | None = None
    """What is too large for its topic is refused by it. No part of the definition: the engine puts it in."""

    notes_undoing: bool = True
    """Whether an event that would undo what is being undone already is ignored, and meets no policy; not where the log
    of an earlier version of the engine says otherwise. No part of the definition."""

    def has_transition(self, configuration: str, event_type: str) -> bool:
        """Whether any transition out of the states of a configuration is on events of this type."""
        if self.flat:
            return event_type in self.table.get(configuration, {})
        try:
            active = self.spots.spot_of(configuration).active
        except KeyError:
            return True
        return self.microsteps.is_awaited(active, event_type)


def compile_pipeline(pipeline: Pipeline[Any], *, namespace: str = "default") -> Machine:
    """Validate and compile.

    Raises:
        DefinitionError: the pipeline has mistakes; the error lists all of them.
    """
    check(pipeline)
    structure = canonical_bytes(pipeline)
    chart = plant(pipeline)
    microsteps, flat = Microsteps(chart), _is_flat(pipeline)
    final = frozenset(state.name for state in pipeline.states if state.final and state.parent is None)
    initial = chart.nodes[chart.nodes[0].begins[0]].name
    lines: list[Start | Move] = [*pipeline.starts, *pipeline.moves]
    classes = [line.event for line in lines if line.event is not None]
    inside: dict[str, type[Event]] = {one.event_type(): one for one in classes if issubclass(one, After)}
    for one in pipeline.works:
        inside |= one.events
    events: dict[str, type[Event]] = {one.event_type(): one for one in classes if not is_internal(one)}
    of_types = [(line, line.event.event_type()) for line in pipeline.policies if line.event is not None]
    orders = {
        event_type: replace(line.order, stream=line.order.stream or event_type)
        for line, event_type in of_types
        if line.order is not None
    }
    onces = {event_type: line.once for line, event_type in of_types if line.once is not None}
    table = {
        state.name: {} if state.final else _moves_of(pipeline, state.name, events, final)
        for state in (pipeline.states if flat else ())
    }

    def found(values: Mapping[str, T], inside: Mapping[str, T] = MappingProxyType({})) -> Mapping[str, T]:
        return {**values, **inside} if chart.patterns is None else by_type(chart.patterns, values, inside)

    return Machine(
        pipeline=pipeline,
        namespace=namespace,
        name=pipeline.name,
        version=pipeline.version,
        context_class=pipeline.context,
        flat=flat,
        table={name: found(moves) for name, moves in table.items()},
        microsteps=microsteps,
        spots=Spots(chart),
        beginnings=_beginnings(pipeline, initial, microsteps),
        events=found(events),
        keys=found(_keys(pipeline, events)),
        compensations={one.name: one.compensation for one in pipeline.steps if one.compensation is not None},
        validators=found(_validators(events), _validators(inside)),
        final=final,
        policies=policies_of(pipeline),
        orders=widened(orders),
        onces=widened(onces),
        asks_more=bool(orders) or any(once.within is not None for once in onces.values()),
        default_plan=microsteps.begin(chart.nodes[0].begins, None),
        structure=structure,
        hash=hashlib.sha256(structure).digest(),
        code=code_hash(pipeline),
        read_context=pipeline.context.__pydantic_validator__.validate_json,
        write_context=pipeline.context.__pydantic_serializer__.to_json,
        plain=plain_of(pipeline.context),
        searchable=kinds_of(pipeline.context),
    )


def _validators(events: Mapping[str, type[Event]]) -> dict[str, Callable[[Any], Event]]:
    return {
        name: reader_of(event.__pydantic_core_schema__, cast("Any", event.__pydantic_validator__))
        for name, event in events.items()
    }


def _is_flat(pipeline: Pipeline[Any]) -> bool:
    """Whether it has states and transitions on events, and nothing else that a statechart may have.

    What becomes of failures is the business of a chart, too.
    """
    if pipeline.on_error != "refuse" or any(step.compensation for step in pipeline.steps):
        return False
    plain = all(
        state.parent is None
        and not (state.entries or state.exits or state.beginning or state.output or state.run)
        for state in pipeline.states
    )
    return plain and all(len(move.targets) <= 1 and _is_from_outside(move.event) for move in pipeline.moves)


def _is_from_outside(event: type[Event] | None) -> bool:
    """Whether a transition is on an event that comes by itself, and not on what others of its run lead to."""
    if event is None or event is Cancelled:
        return event is not None
    return not is_internal(event) and not takes_failures(event.event_type())


def _keys(pipeline: Pipeline[Any], events: Mapping[str, type[Event]]) -> dict[str, How]:
    own = {keyed.event: keyed.by for keyed in pipeline.keys}
    found = {event_type: how_keyed(event, own.get(event)) for event_type, event in events.items()}
    return {event_type: how for event_type, how in found.items() if how is not None}


def _beginnings(
    pipeline: Pipeline[Any], initial: str, microsteps: Microsteps
) -> dict[str, tuple[Beginning, ...]]:
    found: dict[str, tuple[Beginning, ...]] = {}
    for start in pipeline.starts:
        event_type = start.event.event_type()
        found[event_type] = (*found.get(event_type, ()), _beginning(start, initial, microsteps))
    return found


def _beginning(start: Start, initial: str, microsteps: Microsteps) -> Beginning:
    targets, action, action_name = start.targets or (initial,), start.action, name_of(start.action)
    block = None if action is None else Block(action, action_name or "")
    plan = microsteps.begin(tuple(microsteps.chart.numbers[target] for target in targets), block)
    tried = Tried(STARTS, " ".join(targets), name_of(start.guard))
    build_name = name_of(start.build) or ""
    return Beginning(targets[0], start.build, build_name, action, action_name, plan, start.guard, tried)


def _moves_of(
    pipeline: Pipeline[Any], state: str, names: Iterable[str], final: frozenset[str]
) -> dict[str, tuple[Candidate, ...]]:
    """By each type, and by each pattern that types may go by, what takes them, in the order it is tried."""
    own = [move for move in pipeline.moves if move.source == state]
    general = [move for move in pipeline.moves if move.source is None]
    found: dict[str, list[Candidate]] = {}
    for move in own + general:
        taken, target = move.event_type or "", move.target or state
        status = Status.COMPLETED if target in final else Status.RUNNING
        depends = move.guard is not None or move.action is not None
        candidate = Candidate(
            move.source or "",
            move.target,
            move.guard,
            move.action,
            name_of(move.guard),
            name_of(move.action),
            None if depends else Moved(False, target, int(status), None, ()),
        )
        for name in (one for one in names if takes(taken, one)) if is_pattern(taken) else (taken,):
            found.setdefault(name, []).append(candidate)
    return {name: tuple(candidates) for name, candidates in found.items()}
