"""A pipeline as a Mermaid state diagram, drawn by the library ``transitions``.

Its own drawing leaves out where runs begin and end, breaks on names with a dot or a dash, and on colons in
labels; so the parts that write nodes, edges and the frame are replaced here.
"""

from __future__ import annotations

import re
from typing import Any

import orjson
from transitions.extensions.diagrams import GraphMachine
from transitions.extensions.diagrams_mermaid import DigraphMock, Graph

from statemachines.definition import Move, Pipeline, name_of
from statemachines.reference import moves_of, states_of

_PLAIN_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED = frozenset({"as", "class", "classdef", "default", "direction", "end", "note", "state", "style"})
_CODES = {"#": "#35;", ";": "#59;", ":": "#58;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "\n": " "}


def to_mermaid(pipeline: Pipeline[Any]) -> str:
    """The text of a ``stateDiagram-v2``: states, where runs begin and end, and events with ``[guard]``.

    Of a pipeline with mistakes, the part that is right is drawn.
    """
    machine = GraphMachine(
        model=None,
        states=[{"name": name, "final": final} for name, final in states_of(pipeline).items()],
        transitions=[_edge(source, move) for source, move in moves_of(pipeline)],
        initial=None,
        auto_transitions=False,
        show_conditions=True,
        graph_engine="mermaid",
        title=f"{pipeline.name} version {pipeline.version}",
    )
    text: str = _Drawing(machine, pipeline).get_graph().source
    return text + "\n"


def _edge(source: str, move: Move) -> dict[str, Any]:
    conditions = [name_of(move.guard) or ""] if move.guard else []
    return {
        "trigger": move.event.event_type(),
        "source": source,
        "dest": move.target,
        "conditions": conditions,
    }


class _Drawing(Graph):
    """The frame, the nodes and the edges as Mermaid takes them."""

    def __init__(self, machine: Any, pipeline: Pipeline[Any]) -> None:
        self.pipeline = pipeline
        self.ids = {name: _id(name, at) for at, name in enumerate(states_of(pipeline))}
        super().__init__(machine)

    def get_graph(self, title: str | None = None, roi_state: str | None = None) -> DigraphMock:
        del roi_state  # the diagram shows a definition; no run is in any state
        states, transitions = self._get_elements()
        lines: list[str] = ["direction LR"]
        self._add_nodes(states, lines)
        self._add_starts(lines)
        self._add_edges(transitions, lines)
        lines += [f"{self.ids[state['name']]} --> [*]" for state in states if state.get("final")]
        quoted = orjson.dumps(title or self.machine.title).decode()
        head = ["---", f"title: {quoted}", "---", "stateDiagram-v2"]
        return DigraphMock("\n".join([*head, *(f"  {line}" for line in lines)]))

    def _add_nodes(self, states: Any, container: list[str]) -> None:
        container += [f'state "{_escaped(state["name"])}" as {self.ids[state["name"]]}' for state in states]

    def _add_starts(self, container: list[str]) -> None:
        initial = next((state.name for state in self.pipeline.states if state.initial), "")
        for start in self.pipeline.starts:
            target = self.ids.get(start.target or initial)
            if target is not None:
                container.append(f"[*] --> {target}: {_escaped(getattr(start.event, '__event_type__', ''))}")

    def _add_edges(self, transitions: Any, container: list[str]) -> None:
        for transition in transitions:
            target = transition.get("dest", transition["source"])
            label = _escaped(self._transition_label(transition))
            container.append(f"{self.ids[transition['source']]} --> {self.ids[target]}: {label}")


def _id(name: str, at: int) -> str:
    return name if _PLAIN_ID.fullmatch(name) and name.lower() not in _RESERVED else f"state_{at}"


def _escaped(text: str) -> str:
    return "".join(_CODES.get(letter, letter) for letter in text)
