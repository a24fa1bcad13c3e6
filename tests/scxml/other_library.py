"""A neutral chart in ``python-statemachine`` 3, by way of the SCXML text that the library loads itself.

``narrowed`` makes of a chart the nearest one that the library and a pipeline both say, and mean the same by: what is
left out or put in other words there is named beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from xml.etree import ElementTree as ET

from statemachine import StateChart
from statemachine.io import load

from tests.scxml import document as doc
from tests.scxml.document import Kind
from tests.scxml.semantics import DEVIATING, name_match

_TAGS = {
    Kind.COMPOUND: "state",
    Kind.ATOMIC: "state",
    Kind.FINAL: "final",
    Kind.PARALLEL: "parallel",
    Kind.HISTORY: "history",
}
_ORDER = ("state", "final", "parallel", "history")
"""The library takes the children of a state in this order, whatever theirs is."""
LOG = "said"
logging.getLogger("statemachine").setLevel(logging.ERROR)


class OtherChart:
    """A run of a chart in the other library."""

    def __init__(self, document: doc.Document) -> None:
        self._made: type[StateChart[object]] = load(scxml(document), format="scxml", trusted=True)
        self._chart: StateChart[object] | None = None
        self._told = 0
        self._variables = [name for name, _ in document.variables]

    def start(self) -> None:
        self._chart = self._made()

    def send(self, event: str) -> None:
        self.chart.send(event)

    @property
    def chart(self) -> StateChart[object]:
        assert self._chart is not None, "it is to be started first"
        return self._chart

    @property
    def active(self) -> frozenset[str]:
        return frozenset(map(str, self.chart.configuration_values))

    @property
    def finished(self) -> bool:
        return bool(self.chart.is_terminated)

    @property
    def variables(self) -> dict[str, int]:
        return {name: getattr(self.chart.model, name) for name in self._variables}

    def news(self) -> tuple[str, ...]:
        """What was logged since this was asked last."""
        told = getattr(self.chart.model, LOG)
        news, self._told = tuple(told[self._told :]), len(told)
        return news


def scxml(document: doc.Document) -> str:
    """The document as SCXML."""
    root = ET.Element("scxml", version="1.0", datamodel="python")
    assert document.root.initial is not None
    root.set("initial", " ".join(document.root.initial.targets))
    model = ET.SubElement(root, "datamodel")
    for name, value in (*document.variables, (LOG, [])):
        ET.SubElement(model, "data", id=name, expr=repr(value))
    for child in document.root.children:
        _node(root, child)
    return ET.tostring(root, encoding="unicode")


def _node(parent: ET.Element, node: doc.Node) -> None:
    element = ET.SubElement(parent, _TAGS[node.kind], id=node.id)
    if node.history_type is not None:
        element.set("type", str(node.history_type))
    for tag, blocks in (("onentry", node.onentry), ("onexit", node.onexit)):
        for block in blocks:
            _actions(ET.SubElement(element, tag), block)
    if node.initial is not None:
        _transition(ET.SubElement(element, "initial"), node.initial)
    if node.default is not None:
        _transition(element, node.default)
    for transition in node.transitions:
        _transition(element, transition)
    for child in node.children:
        _node(element, child)


def _transition(parent: ET.Element, transition: doc.Transition) -> None:
    element = ET.SubElement(parent, "transition")
    if transition.events:
        element.set("event", " ".join(transition.events))
    if transition.cond != doc.ALWAYS:
        element.set("cond", _condition(transition.cond))
    if transition.targets:
        element.set("target", " ".join(transition.targets))
    if transition.internal:
        element.set("type", "internal")
    _actions(element, transition.actions)


def _actions(parent: ET.Element, block: doc.Block) -> None:
    for action in block:
        match action:
            case doc.Log(label):
                ET.SubElement(parent, "assign", location=LOG, expr=f"{LOG} + [{label!r}]")
            case doc.Ask(label, condition):
                said = f"'{label}=1' if {_condition(condition)} else '{label}=0'"
                ET.SubElement(parent, "assign", location=LOG, expr=f"{LOG} + [{said}]")
            case doc.LogData():
                raise NotImplementedError("the data of events are not compared")
            case doc.Add(name, n):
                ET.SubElement(parent, "assign", location=name, expr=f"{name} + ({n})")
            case doc.Raise(event):
                ET.SubElement(parent, "raise", event=event)
            case doc.Fail():
                ET.SubElement(parent, "assign", location=LOG, expr="1 // 0")


def _condition(cond: doc.Condition) -> str:
    match cond:
        case doc.Always():
            return "True"
        case doc.InState(id):
            return f"In('{id}')"
        case doc.Less(name, n):
            return f"{name} < {n}"
        case doc.Not(inner):
            return f"not ({_condition(inner)})"
        case doc.Both(left, right):
            return f"({_condition(left)}) and ({_condition(right)})"


def narrowed(document: doc.Document, outside: Iterable[str]) -> doc.Document:
    """What both say of this document. ``outside`` are the events that may come from outside."""
    nodes = list(document.root.walk())
    raised = [
        action.event for node in nodes for action in _all_actions(node) if isinstance(action, doc.Raise)
    ]
    done = [f"done.state.{node.id}" for node in nodes if node.kind in (Kind.COMPOUND, Kind.PARALLEL)]
    histories = frozenset(node.id for node in nodes if node.kind is Kind.HISTORY)
    beginnings = frozenset(target for node in nodes if node.initial for target in node.initial.targets)
    narrowing = _Narrowing(tuple(dict.fromkeys([*outside, *raised, *done])), histories, beginnings)
    return replace(document, root=narrowing.root(document.root))


def plain(event: str) -> str:
    """The name of an event without the dots that one side matches by and the other does not; those of done events
    are the library's.
    """
    return event if event.startswith("done.state.") else event.replace(".", "_")


@dataclass(frozen=True, slots=True)
class _Narrowing:
    events: tuple[str, ...]
    """All that there may be."""
    histories: frozenset[str]
    beginnings: frozenset[str]
    """What all initial transitions lead to."""

    def root(self, root: doc.Node) -> doc.Node:
        """It begins in a state of its own, and not further inside: see the entry order of the library."""
        assert root.initial is not None
        first = root.initial.targets[0]
        top = next(child for child in root.children if any(node.id == first for node in child.walk()))
        children = tuple(map(self.node, root.children))
        return replace(root, children=children, initial=doc.Transition((top.id,)))

    def node(self, node: doc.Node) -> doc.Node:
        children = sorted(map(self.node, node.children), key=lambda child: _ORDER.index(_TAGS[child.kind]))
        return replace(
            node,
            children=tuple(children),
            transitions=tuple(self.transition(node, one) for one in node.transitions if self.kept(one)),
            onentry=tuple(map(_without_failures, node.onentry)),
            onexit=tuple(map(_without_failures, node.onexit)),
            initial=node.initial and self.initial(node, node.initial),
            # Of several targets, the library enters the first.
            default=node.default and self.content(replace(node.default, targets=node.default.targets[:1])),
        )

    def initial(self, source: doc.Node, transition: doc.Transition) -> doc.Transition:
        """Without content, unless it leads to a state directly inside, and no other leads to another: the library
        loses it.
        """
        begins = self.beginnings.intersection(child.id for child in source.children)
        direct = len(transition.targets) == 1 and begins == set(transition.targets)
        return self.content(transition) if direct else replace(transition, actions=())

    def kept(self, transition: doc.Transition) -> bool:
        """What leads to a history is done twice by the library, so it cannot count how often it was taken."""
        counts = any(isinstance(one, doc.Add) and one.name == "turns" for one in transition.actions)
        known = not transition.events or bool(self.taken(transition))
        return known and not (counts and self.histories.intersection(transition.targets))

    def taken(self, transition: doc.Transition) -> tuple[str, ...]:
        """By their full names: one side matches by prefix what the other does not."""
        return tuple(plain(event) for event in self.events if name_match(transition.events, event, DEVIATING))

    def transition(self, source: doc.Node, transition: doc.Transition) -> doc.Transition:
        below = {node.id for node in source.walk() if node is not source and node.kind is not Kind.HISTORY}
        targets = set(transition.targets)
        # Elsewhere a pipeline means more by it than the text.
        internal = source.kind is Kind.COMPOUND and bool(targets) and targets <= below
        narrowed = replace(
            self.content(transition),
            events=self.taken(transition) if transition.events else (),
            internal=transition.internal and internal,
        )
        # For the same reason.
        return replace(narrowed, actions=()) if targets & self.histories else narrowed

    def content(self, transition: doc.Transition) -> doc.Transition:
        return replace(transition, actions=_without_failures(transition.actions))


def _without_failures(block: doc.Block) -> doc.Block:
    """A pipeline undoes a block that fails; the library, as the text says, does not. What events carry is left out."""
    return tuple(
        doc.Raise(plain(action.event)) if isinstance(action, doc.Raise) else action
        for action in block
        if not isinstance(action, doc.Fail | doc.LogData)
    )


def _all_actions(node: doc.Node) -> Iterable[doc.Action]:
    transitions = [*node.transitions, *(one for one in (node.initial, node.default) if one is not None)]
    for block in (*node.onentry, *node.onexit, *(one.actions for one in transitions)):
        yield from block
