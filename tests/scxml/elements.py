"""The elements of a document as the algorithm walks them: with a parent, an order, and an identity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tests.scxml.document import Block, Condition, HistoryType, Kind, Node, Transition

T = TypeVar("T")


class OrderedSet(Generic[T]):
    """The OrderedSet of the text: insertion order, each element once."""

    def __init__(self, elements: Iterable[T] = ()) -> None:
        self._elements = dict.fromkeys(elements)

    def add(self, element: T) -> None:
        self._elements[element] = None

    def delete(self, element: T) -> None:
        self._elements.pop(element, None)

    def union(self, others: OrderedSet[T]) -> None:
        for element in others:
            self.add(element)

    def is_member(self, element: T) -> bool:
        return element in self._elements

    def some(self, predicate: Callable[[T], bool]) -> bool:
        return any(predicate(element) for element in self._elements)

    def every(self, predicate: Callable[[T], bool]) -> bool:
        return all(predicate(element) for element in self._elements)

    def is_empty(self) -> bool:
        return not self._elements

    def has_intersection(self, other: OrderedSet[T]) -> bool:
        return self.some(other.is_member)

    def to_list(self) -> list[T]:
        return list(self._elements)

    def clear(self) -> None:
        self._elements.clear()

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._elements))


@dataclass(eq=False, slots=True)
class State:
    """A node in its place; compared by identity. `order` is its place in document order."""

    node: Node
    parent: State | None
    order: int
    children: list[State] = field(default_factory=list)
    transitions: list[Arc] = field(default_factory=list)
    initial: Arc | None = None
    default: Arc | None = None

    @property
    def id(self) -> str:
        return self.node.id


@dataclass(eq=False, slots=True)
class Arc:
    """A transition in its place; two that are written alike in two states are two."""

    source: State
    target: list[State]
    events: tuple[str, ...]
    cond: Condition
    internal: bool
    content: Block


def build(root: Node) -> State:
    """The tree of a validated document's elements; returns the root's."""
    states: dict[str, State] = {}

    def place(node: Node, parent: State | None) -> State:
        state = State(node, parent, order=len(states))
        states[node.id] = state
        state.children = [place(child, state) for child in node.children]
        return state

    def arc(source: State, transition: Transition) -> Arc:
        targets = [states[target] for target in transition.targets]
        return Arc(
            source, targets, transition.events, transition.cond, transition.internal, transition.actions
        )

    top = place(root, None)
    for state in states.values():
        state.transitions = [arc(state, transition) for transition in state.node.transitions]
        state.initial = arc(state, state.node.initial) if state.node.initial else None
        state.default = arc(state, state.node.default) if state.node.default else None
    return top


def is_scxml_element(state: State | None) -> bool:
    return state is not None and state.node.kind is Kind.ROOT


def is_compound_state(state: State) -> bool:
    return state.node.kind is Kind.COMPOUND


def is_parallel_state(state: State | None) -> bool:
    return state is not None and state.node.kind is Kind.PARALLEL


def is_final_state(state: State) -> bool:
    return state.node.kind is Kind.FINAL


def is_atomic_state(state: State) -> bool:
    """Has no states in it: an atomic or a final one."""
    return state.node.kind in (Kind.ATOMIC, Kind.FINAL)


def is_history_state(state: State) -> bool:
    return state.node.kind is Kind.HISTORY


def is_deep(history: State) -> bool:
    return history.node.history_type is HistoryType.DEEP


def histories(state: State) -> list[State]:
    return [child for child in state.children if is_history_state(child)]


def entry_order(state: State) -> int:
    """Ancestors before descendants, ties by document order: which together is document order."""
    return state.order


def exit_order(state: State) -> int:
    """Descendants before ancestors, ties by reverse document order: which is reverse document order."""
    return -state.order


def get_proper_ancestors(state1: State, state2: State | None) -> list[State]:
    """The ancestors of `state1`, innermost first, up to but without `state2`.

    Up to and with the `<scxml>` element if `state2` is None. Nothing if `state2` is the parent of `state1`,
    `state1` itself or below it.
    """
    if state2 is not None and (state2 is state1.parent or state2 is state1 or is_descendant(state2, state1)):
        return []
    ancestors: list[State] = []
    parent = state1.parent
    while parent is not None and parent is not state2:
        ancestors.append(parent)
        parent = parent.parent
    return ancestors


def is_descendant(state1: State, state2: State) -> bool:
    """Whether `state1` is a child of `state2`, or a child of a child, and so on."""
    parent = state1.parent
    while parent is not None:
        if parent is state2:
            return True
        parent = parent.parent
    return False


def get_child_states(state1: State) -> list[State]:
    """The children that are states of any kind; histories are none."""
    return [child for child in state1.children if not is_history_state(child)]
