"""A pipeline as a Mermaid state diagram: states in states, regions, histories, and what leads from one to another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from statemachines.definition import Move, Pipeline, State, name_of
from statemachines.events import is_event_class

_PLAIN_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED = frozenset({"as", "class", "classdef", "default", "direction", "end", "note", "state", "style"})
_CODES = {"#": "#35;", ";": "#59;", ":": "#58;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "\n": " "}
_INDENT = "  "


def to_mermaid(pipeline: Pipeline[Any]) -> str:
    """The text of a ``stateDiagram-v2``: states, where runs begin and end, and events with ``[guard]``.

    A transition that waits for no event says ``always``, and one that stays in its state ``[internal]``. Of a pipeline
    with mistakes, the part that is right is drawn.
    """
    title = orjson.dumps(f"{pipeline.name} version {pipeline.version}").decode()
    lines = ["direction LR", *_Drawing(pipeline).lines()]
    return (
        "\n".join(["---", f"title: {title}", "---", "stateDiagram-v2", *(_INDENT + one for one in lines)])
        + "\n"
    )


class _Drawing:
    def __init__(self, pipeline: Pipeline[Any]) -> None:
        self._pipeline = pipeline
        self._states: dict[str, State[Any]] = {}
        for state in pipeline.states:
            if isinstance(state.name, str):
                self._states.setdefault(state.name, state)
        self._ids = {name: _id(name, at) for at, name in enumerate(self._states)}

    def lines(self) -> Iterator[str]:
        top = [state for state in self._states.values() if state.parent is None]
        for state in top:
            yield from self._node(state)
        yield from self._starts()
        yield from self._edges()
        yield from (f"{self._ids[state.name]} --> [*]" for state in top if state.final)

    def _node(self, state: State[Any]) -> Iterator[str]:
        mark = {True: "H* ", False: "H "}[state.deep] if state.kind == "history" else ""
        head = f'state "{_escaped(mark + state.name)}" as {self._ids[state.name]}'
        inside = [one for one in state.states if self._states.get(one.name) is one]
        if not inside:
            yield head
        else:
            yield head + " {"
            yield from (_INDENT + line for line in self._inside(state, inside))
            yield "}"
        for word, handlers in (("entry", state.entries), ("exit", state.exits)):
            yield from (
                f"{self._ids[state.name]}: {word} / {_escaped(name_of(do) or '')}" for do, _ in handlers
            )

    def _inside(self, state: State[Any], inside: list[State[Any]]) -> Iterator[str]:
        yield "direction LR"
        for at, one in enumerate(inside):
            if at and one.kind == "region" and inside[at - 1].kind == "region":
                yield "--"
            yield from self._node(one)
        begins = state.beginning.targets if state.beginning is not None else ()
        for one in inside:
            if one.initial or one.name in begins:
                yield f"[*] --> {self._ids[one.name]}"
        yield from (f"{self._ids[one.name]} --> [*]" for one in inside if one.final)
        for one in inside:
            for target in (
                one.beginning.targets if one.kind == "history" and one.beginning is not None else ()
            ):
                if target in self._ids:
                    yield f"{self._ids[one.name]} --> {self._ids[target]}"

    def _starts(self) -> Iterator[str]:
        initial = next((one.name for one in self._states.values() if one.initial and one.parent is None), "")
        for start in self._pipeline.starts:
            target = self._ids.get(start.target or initial)
            if target is not None:
                yield f"[*] --> {target}: {_escaped(getattr(start.event, '__event_type__', ''))}"

    def _edges(self) -> Iterator[str]:
        """All on one event together; what any state takes is drawn from each of the outermost ones."""
        by_event: dict[str | None, list[tuple[State[Any], Move]]] = {}
        for state in self._states.values():
            if state.final or state.kind == "history":
                continue
            for source in (state.name, None) if state.parent is None else (state.name,):
                for move in self._pipeline.moves:
                    if move.source == source and self._is_right(move):
                        by_event.setdefault(move.event_type, []).append((state, move))
        for edges in by_event.values():
            for state, move in edges:
                for target in move.targets or (state.name,):
                    yield f"{self._ids[state.name]} --> {self._ids[target]}: {_escaped(_label(move))}"

    def _is_right(self, move: Move) -> bool:
        known = all(target in self._ids for target in move.targets)
        return known and (move.event is None or is_event_class(move.event))


def _label(move: Move) -> str:
    """As people write them: ``event [guard]``."""
    words = ["always" if move.event_type is None else move.event_type]
    if not move.targets:
        words.append("[internal]")
    if move.guard is not None:
        words.append(f"[{name_of(move.guard)}]")
    return " ".join(words)


def _id(name: str, at: int) -> str:
    return name if _PLAIN_ID.fullmatch(name) and name.lower() not in _RESERVED else f"state_{at}"


def _escaped(text: str) -> str:
    return "".join(_CODES.get(letter, letter) for letter in text)
