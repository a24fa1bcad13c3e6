"""Whether a document is well-formed, as section 3 of the SCXML recommendation has it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, combinations

from tests.scxml.document import (
    Action,
    Add,
    Always,
    Ask,
    Both,
    Condition,
    Document,
    HistoryType,
    InState,
    Kind,
    Less,
    Node,
    Not,
    Transition,
)

CHILDREN = {
    Kind.ROOT: {Kind.COMPOUND, Kind.ATOMIC, Kind.PARALLEL, Kind.FINAL},
    Kind.COMPOUND: {Kind.COMPOUND, Kind.ATOMIC, Kind.PARALLEL, Kind.FINAL, Kind.HISTORY},
    Kind.PARALLEL: {Kind.COMPOUND, Kind.ATOMIC, Kind.PARALLEL, Kind.HISTORY},
    Kind.ATOMIC: set[Kind](),
    Kind.FINAL: set[Kind](),
    Kind.HISTORY: set[Kind](),
}


class MalformedDocumentError(ValueError):
    """The document breaks a rule of well-formedness; the message names the node and the rule."""


def validate(document: Document) -> None:
    """Raise `MalformedDocumentError` at the first rule that the document breaks."""
    _Validation(document).run()


class _Validation:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = {node.id: node for node in document.root.walk()}
        self.parents = {child.id: node for node in self.nodes.values() for child in node.children}
        self.variables = dict(document.variables)

    def run(self) -> None:
        root = self.document.root
        _demand(root.kind is Kind.ROOT, root, "is not a root")
        _demand(
            not (root.transitions or root.onentry or root.onexit or (root.initial and root.initial.actions)),
            root,
            "is the root, which has no transitions and runs nothing",
        )
        _demand(len(list(root.walk())) == len(self.nodes), root, "has two nodes with one id")
        for node in self.nodes.values():
            self._check_node(node)

    def _check_node(self, node: Node) -> None:
        for child in node.children:
            _demand(child.kind in CHILDREN[node.kind], node, f"cannot have {child.id!r} as a child")
        has_states = any(child.kind is not Kind.HISTORY for child in node.children)
        _demand(has_states or not CHILDREN[node.kind], node, "has no states in it")
        _demand((node.initial is not None) == (node.kind in (Kind.ROOT, Kind.COMPOUND)), node, "initial")
        _demand((node.history_type is not None) == (node.kind is Kind.HISTORY), node, "history_type")
        _demand((node.default is not None) == (node.kind is Kind.HISTORY), node, "default")
        _demand(not node.donedata or node.kind is Kind.FINAL, node, "has donedata and is not final")
        if node.kind in (Kind.FINAL, Kind.HISTORY):
            _demand(not node.transitions, node, "has transitions")
        if node.kind is Kind.HISTORY:
            _demand(not (node.onentry or node.onexit), node, "is never entered and has handlers")
        for block in chain(node.onentry, node.onexit):
            self._check_actions(node, block)
        for name in node.donedata:
            _demand(name in self.variables, node, f"has donedata of {name!r}, which is no variable")
        for transition in node.transitions:
            self._check_transition(node, transition)
        if node.initial:
            self._check_default(node, node.initial, within=node)
        if node.default:
            self._check_default(node, node.default, within=self.parents[node.id])

    def _check_transition(self, node: Node, transition: Transition) -> None:
        self._check_targets(node, transition.targets)
        self._check_condition(node, transition.cond)
        self._check_actions(node, transition.actions)

    def _check_default(self, node: Node, transition: Transition, within: Node) -> None:
        plain = not transition.events and transition.cond == Always() and bool(transition.targets)
        _demand(plain, node, "has an initial or default transition with event, condition or no target")
        self._check_transition(node, transition)
        for target in transition.targets:
            _demand(within.id in self._ancestors(target), node, f"has {target!r} as a default outside of it")
            if node.kind is Kind.HISTORY:
                _demand(self.nodes[target].kind is not Kind.HISTORY, node, "defaults to a history")
        if node.history_type is HistoryType.SHALLOW:
            inside = all(self.parents[target] is within for target in transition.targets)
            _demand(inside, node, "is shallow and defaults to a state that is no sibling")

    def _check_targets(self, node: Node, targets: Iterable[str]) -> None:
        """Targets are legal if states of one configuration can have them all: no two share a region."""
        covered = []
        for target in targets:
            _demand(target in self.parents, node, f"has the target {target!r}, which is no state")
            covered.append(self._covered_by(target))
        for one, other in combinations(covered, 2):
            ancestors = [*self._ancestors(one)]
            related = one == other or one in self._ancestors(other) or other in ancestors
            _demand(not related, node, f"targets {one!r} and {other!r}, one inside the other")
            common = next(a for a in ancestors if a in self._ancestors(other))
            _demand(
                self.nodes[common].kind is Kind.PARALLEL, node, f"targets {one!r} and {other!r} in one region"
            )

    def _covered_by(self, target: str) -> str:
        """What a target decides on: a history decides on all that is in its parent."""
        return self.parents[target].id if self.nodes[target].kind is Kind.HISTORY else target

    def _ancestors(self, id: str) -> list[str]:
        found = []
        node = self.parents.get(id)
        while node is not None:
            found.append(node.id)
            node = self.parents.get(node.id)
        return found

    def _check_actions(self, node: Node, actions: Iterable[Action]) -> None:
        for action in actions:
            known = not isinstance(action, Add) or action.name in self.variables
            _demand(known, node, f"has {action}, of no variable")
            if isinstance(action, Ask):
                self._check_condition(node, action.condition)

    def _check_condition(self, node: Node, cond: Condition) -> None:
        match cond:
            case InState(id):
                _demand(id in self.nodes, node, f"asks for {id!r}, which is no state")
            case Less(name, _):
                _demand(name in self.variables, node, f"asks for {name!r}, which is no variable")
            case Not(condition):
                self._check_condition(node, condition)
            case Both(left, right):
                self._check_condition(node, left)
                self._check_condition(node, right)
            case Always():
                pass


def _demand(holds: bool, node: Node, otherwise: str) -> None:
    if not holds:
        raise MalformedDocumentError(f"{node.kind} {node.id!r} {otherwise}.")
