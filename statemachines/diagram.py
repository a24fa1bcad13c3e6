"""A pipeline as a Mermaid state diagram: states in states, regions, histories, and what leads from one to another."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from types import MappingProxyType
from typing import Any

import orjson

from statemachines.chart.spots import place_name
from statemachines.chart.tree import COMPENSATING
from statemachines.checks.names import is_storable
from statemachines.definition import Initial, Move, Pipeline, Start, State, name_of
from statemachines.durations import told_duration
from statemachines.events import is_event_class, is_outcome
from statemachines.policies import Defer
from statemachines.stated import is_stated
from statemachines.step import Step

_PLAIN_ID = re.compile(r"(?!(state|begin|fork)_\d)(?!.*_(start|end)$)[A-Za-z][A-Za-z0-9_]*", re.IGNORECASE)
"""Not what is made up here, nor what Mermaid makes up itself for where a state begins and ends."""
_RESERVED = frozenset(
    {
        "accdescr",
        "acctitle",
        "as",
        "class",
        "classdef",
        "click",
        "default",
        "direction",
        "end",
        "href",
        "note",
        "root",
    }
    | {"scale", "state", "statediagram", "style"}
)
_CODES = {
    "#": "#35;",
    ";": "#59;",
    ":": "#58;",
    '"': "#quot;",
    "<": "#lt;",
    ">": "#gt;",
    "%": "#37;",
    "\n": " ",
}
_BRACKETS = {"[": "#91;", "]": "#93;"}
_INDENT = "  "
_COMPENSATING = "compensating"
"""What the state is called where runs are while they are undone."""


_CLASSES = (
    ("here", "fill:#ffe082,stroke:#e65100,stroke-width:3px,color:#000"),
    ("passed", "fill:#e3f2fd,stroke:#1565c0,color:#000"),
)


@dataclass(frozen=True, slots=True)
class Marks:
    """What is said of a pipeline's states and transitions beside what they are."""

    here: Collection[str] = ()
    """The states that are active."""
    passed: Collection[str] = ()
    """The states that were active once."""
    states: Mapping[str, str] = field(default_factory=dict)
    """What is said behind the names of states, such as how many runs are there."""
    starts: Mapping[Start, str] = field(default_factory=dict)
    moves: Mapping[tuple[str, Move], str] = field(default_factory=dict)
    """What is said behind transitions, by the state that they lead out of, such as the rows that took them."""


NO_MARKS = Marks()


def to_mermaid(pipeline: Pipeline[Any], marks: Marks = NO_MARKS) -> str:
    """The text of a ``stateDiagram-v2``: states, where runs begin and end, and events with ``[guard]``.

    A transition that waits for no event says ``always``; one that stays in its state ``[internal]``; and one that
    leaves its state where others would stay in it ``[reenter]``. A timer says ``after 5 min``, or the name of the
    function that is asked. A description is said behind the title, and in its state; so is what a state defers or
    ignores, and the step that it runs; how that ended is said in words: ``charge failed with CardRefused``. Where steps
    can be undone, their states say what does it, and runs that are undone are in ``compensating``; states that are
    undone have one inside. Several targets are behind a fork. Where a state begins in one with states inside, an arrow
    from a diamond says that it ``begins``. A history says ``H``, or ``H*`` where it is deep. Of a
    pipeline with mistakes, what is right is drawn.

    What ``marks`` has of states and transitions is said behind them; the states where a run is are of the class
    ``here``, and those where it was of the class ``passed``.
    """
    title = orjson.dumps(
        ": ".join([f"{pipeline.name} version {pipeline.version}", *_described(pipeline)])
    ).decode()
    lines = ["direction LR", *_Drawing(pipeline, marks).lines()]
    return (
        "\n".join(["---", f"title: {title}", "---", "stateDiagram-v2", *(_INDENT + one for one in lines)])
        + "\n"
    )


class _Drawing:
    def __init__(self, pipeline: Pipeline[Any], marks: Marks) -> None:
        self._pipeline = pipeline
        self._marks = marks
        self._forks = count()
        self._states: dict[str, State[Any]] = {}
        for state in pipeline.states:
            if isinstance(state.name, str):
                self._states.setdefault(state.name, state)
        self._places = {place_name(scope): scope for scope in self._undone()}
        """Where states, or the run, are while they are undone, as far as the definition says, or marks do."""
        for name, scope in self._places.items():
            around = self._states.get(scope)
            self._states[name] = State(pipeline, name, False, False, "", pipeline.place, around)
        self._numbers = {name: at for at, name in enumerate(self._states)}
        self._ids = {name: _id(name, at) for name, at in self._numbers.items()}
        if COMPENSATING in self._states and _COMPENSATING not in self._states:
            self._ids[COMPENSATING] = _COMPENSATING
        self._inner: dict[int, list[State[Any]]] = {}
        for state in self._states.values():
            self._inner.setdefault(id(state.parent), []).append(state)

    def _undone(self) -> Iterator[str]:
        """The states that are undone; empty: the run is."""
        if not any(step.compensation for step in self._pipeline.steps):
            return
        said = dict.fromkeys(move.scope for move in self._pipeline.moves if move.scope is not None)
        seen = {*self._marks.here, *self._marks.passed, *(source for source, _ in self._marks.moves)}
        if not said or "" in said or place_name("") in seen:
            yield ""
        yield from (name for name in self._states if name in said or place_name(name) in seen)

    def lines(self) -> Iterator[str]:
        top = [state for state in self._states.values() if state.parent is None]
        for state in top:
            yield from self._node(state)
        yield from self._starts()
        # All that leads from one state to another stands outside of them: a state that is named inside of another
        # one is drawn there, and what leads to a state with states in a region cannot be drawn from within.
        yield from self._beginnings()
        yield from self._edges()
        yield from (f"{self._ids[state.name]} --> [*]" for state in top if state.final)
        yield from self._classes()

    def _classes(self) -> Iterator[str]:
        marked = {"here": set(self._marks.here), "passed": set(self._marks.passed) - set(self._marks.here)}
        for name, style in _CLASSES:
            ids = [self._ids[state] for state in self._states if state in marked[name]]
            if ids:
                yield f"classDef {name} {style}"
                yield f"class {','.join(ids)} {name}"

    def _node(self, state: State[Any]) -> Iterator[str]:
        mark = {True: "H* ", False: "H "}[bool(state.deep)] if state.kind == "history" else ""
        called = _COMPENSATING if state.name in self._places else state.name
        name = _escaped(_told(mark + called, self._marks.states.get(state.name)), _BRACKETS)
        of_state = self._ids[state.name]
        notes = _notes(state) if state.name not in self._places else self._order(self._places[state.name])
        does = [_escaped(text, _BRACKETS) for text in _described(state)]
        does += [f"{word} / {_escaped(text, _BRACKETS)}" for word, text in notes]
        inside = self._inner.get(id(state), [])
        if inside:
            # Only a state without states inside may have more lines than its name.
            yield f'state "{"<br>".join([name, *does])}" as {of_state} {{'
            yield from (_INDENT + line for line in self._inside(state, inside))
            yield "}"
        else:
            yield f'state "{name}" as {of_state}'
            yield from (f"{of_state}: {one}" for one in does)

    def _order(self, scope: str) -> Iterator[tuple[str, str]]:
        """How it is undone what belongs to a state, or the run, where that is not from the last on."""
        undo: Any = self._states[scope].undo if scope in self._states else self._pipeline.undo
        if undo == "parallel":
            yield "undo", "all at once"
        elif is_stated(undo):
            yield "undo", ", then ".join(map(str, undo))

    def _inside(self, state: State[Any], inside: list[State[Any]]) -> Iterator[str]:
        yield "direction LR"
        # Histories, and where all is while it is undone, are drawn with the first region, so that each part between two
        # lines is one region.
        regions = [one for one in inside if one.kind == "region"]
        beside = [one for one in inside if one.kind != "region"]
        for one in (*beside, *regions[:1]) if regions else ():
            yield from self._node(one)
        for one in regions[1:] if regions else inside:
            if regions:
                yield "--"
            yield from self._node(one)
        way = self._begin_of(state)
        if way is not None:
            shape = "fork" if len(way.targets) > 1 else "choice"
            yield f"state begin_{self._numbers[state.name]} <<{shape}>>"
        for one in inside if way is None else ():
            if one.initial or (state.beginning is not None and one.name in state.beginning.targets):
                label = _does("", None if state.beginning is None else state.beginning.action)
                yield f"[*] --> {self._ids[one.name]}" + (f": {label}" if label else "")
        yield from (f"{self._ids[one.name]} --> [*]" for one in inside if one.final)

    def _begin_of(self, state: State[Any]) -> Initial | None:
        """Where a state begins, if an arrow inside of it cannot lead there."""
        begin, inside = state.beginning, self._inner.get(id(state), [])
        if state.kind == "history":
            return None
        if begin is None:
            initial = [one for one in inside if one.initial]
            begin = Initial((initial[0].name,), None, state.place) if initial else None
        known = (
            [] if begin is None else [self._states[name] for name in begin.targets if name in self._states]
        )
        if (
            begin is None
            or not known
            or (len(known) == 1 and known[0].parent is state and id(known[0]) not in self._inner)
        ):
            return None
        return begin

    def _beginnings(self) -> Iterator[str]:
        for state in self._states.values():
            way, begin = self._begin_of(state), f"begin_{self._numbers[state.name]}"
            if state.kind == "history":
                way, begin = state.beginning, self._ids[state.name]
            for target in () if way is None else way.targets:
                if way is not None and target in self._ids:
                    when = "default" if state.kind == "history" else f"{_escaped(state.name)} begins"
                    yield f"{begin} --> {self._ids[target]}: {_does(when, way.action)}"

    def _starts(self) -> Iterator[str]:
        initial = next((one.name for one in self._states.values() if one.initial and one.parent is None), "")
        for start in self._pipeline.starts:
            targets = [self._ids[one] for one in start.targets or (initial,) if one in self._ids]
            words = [getattr(start.event, "__event_type__", "")]
            if start.guard is not None:
                words.append(f"[{name_of(start.guard)}]")
            text = _escaped(_told(" ".join(words), self._marks.starts.get(start)))
            if targets:
                yield from self._lead("[*]", targets, text)

    def _edges(self) -> Iterator[str]:
        """All on one event together; what any state takes is drawn from each of the outermost ones."""
        by_event: dict[str | None, list[tuple[State[Any], Move]]] = {}
        for state in self._states.values():
            if state.final or state.kind == "history" or state.name in self._places:
                continue
            for source in (state.name, None) if state.parent is None else (state.name,):
                for move in self._pipeline.moves:
                    if move.source == source and self._is_right(move) and self._may_come(move, state):
                        by_event.setdefault(move.event_type, []).append((state, move))
        for edges in by_event.values():
            for state, move in edges:
                label = self._label(move)
                into = None if move.scope is None else place_name(move.scope)
                targets = (into,) if into in self._places else move.targets
                yield from self._edge(state.name, move, targets, label)
        for place, scope in self._places.items():
            for move in self._pipeline.moves:
                is_taken = move.scope == scope or (place, move) in self._marks.moves
                if is_taken and self._is_right(move):
                    yield from self._edge(place, move, move.targets, f"undone after {_what(move)}")

    def _edge(self, source: str, move: Move, targets: tuple[str, ...], label: str) -> Iterator[str]:
        text = _escaped(_told(label, self._marks.moves.get((source, move))))
        yield from self._lead(self._ids[source], [self._ids[one] for one in targets or (source,)], text)

    def _lead(self, source: str, targets: list[str], text: str) -> Iterator[str]:
        """An arrow to the target; to several by way of a fork."""
        if len(targets) > 1:
            fork = f"fork_{next(self._forks)}"
            yield f"state {fork} <<fork>>"
            yield f"{source} --> {fork}: {text}"
            yield from (f"{fork} --> {target}" for target in targets)
        else:
            yield f"{source} --> {targets[0]}: {text}"

    def _is_right(self, move: Move) -> bool:
        known = all(target in self._ids for target in move.targets)
        return known and (move.event is None or is_event_class(move.event))

    def _may_come(self, move: Move, state: State[Any]) -> bool:
        """Whether the event comes while a state is active: how a step ended does where it runs, or inside of that."""
        if move.source is not None or move.event is None or not is_outcome(move.event):
            return True
        step = str(move.event_type).split(".")[2]
        running = (
            one for one in self._states.values() if one.run is not None and step in ("*", str(one.run))
        )
        return any(self._is_within(one.name, state.name) for one in running)

    def _label(self, move: Move) -> str:
        """As people write them: ``event [guard]``."""
        words = [_what(move)]
        if not move.targets:
            words.append("[internal]")
        elif move.reenter and all(self._is_within(target, move.source) for target in move.targets):
            words.append("[reenter]")
        if move.guard is not None:
            words.append(f"[{name_of(move.guard)}]")
        return " ".join(words)

    def _is_within(self, name: str, source: str | None) -> bool:
        chain: list[str] = []
        state: State[Any] | None = self._states[name]
        while isinstance(state, State) and state.name not in chain:
            chain.append(state.name)
            state = state.parent
        return source in chain


def _described(what: Pipeline[Any] | State[Any]) -> list[str]:
    """Its description, if it has one that can be drawn."""
    return [what.description] if is_storable(what.description) and what.description else []


def _notes(state: State[Any]) -> Iterator[tuple[str, str]]:
    if state.tags:
        yield "tags", ", ".join(map(str, state.tags))
    if state.run is not None:
        yield "run", str(state.run)
    if isinstance(state.run, Step) and state.run.compensation is not None:
        yield "undo", str(state.run.compensation)
    yield from (("entry", name_of(do) or "") for do, _ in state.entries)
    yield from (("exit", name_of(do) or "") for do, _ in state.exits)
    if state.output is not None:
        yield "output", name_of(state.output) or ""
    for line in state.pipeline.policies:
        if line.state == state.name:
            what = line.event.event_type() if is_event_class(line.event) else "unexpected"
            yield from ((what, _decision(one)) for one in line.decisions.values())


def _decision(decision: Any) -> str:
    """What becomes of an event, as UML says it of those that a state defers: ``order.paid / defer 5 min``."""
    if not isinstance(decision, Defer):
        return str(decision)
    duration = told_duration(decision.ttl) if isinstance(decision.ttl, timedelta) else str(decision.ttl)
    return f"defer {duration}" + ("" if decision.then == "dead_letter" else f", then {decision.then}")


def _what(move: Move) -> str:
    """What the transition waits for."""
    if move.delay is not None:
        delay = move.delay
        return f"after {told_duration(delay) if isinstance(delay, timedelta) else name_of(delay)}"
    if move.event is not None and is_outcome(move.event):
        return _ending(str(move.event_type))
    return "always" if move.event_type is None else move.event_type


def _ending(event_type: str) -> str:
    """How a step ended, in words: ``charge done``, ``charge failed with CardRefused``."""
    ended, _, step, *more = event_type.split(".")
    match [step, *more]:
        case ["*"]:
            return "any step failed"
        case [_, "timed_out"]:
            return f"{step} timed out"
        case [_, error] if error != "*":
            return f"{step} {ended} with {error}"
        case _:
            return f"{step} {ended}"


def _told(text: str, said: str | None) -> str:
    return text if said is None else f"{text} ({said})"


def _does(when: str, action: Any) -> str:
    return f"{when} / {_escaped(name_of(action) or '')}".strip() if action is not None else when


def _id(name: str, at: int) -> str:
    return name if _PLAIN_ID.fullmatch(name) and name.lower() not in _RESERVED else f"state_{at}"


def _escaped(text: str, more: Mapping[str, str] = MappingProxyType({})) -> str:
    codes = _CODES | dict(more)
    return "".join(codes.get(letter, letter) for letter in text)
