"""Which states are entered where transitions lead (the text's ``computeEntrySet``)."""

from __future__ import annotations

from statemachines.chart.tree import Arc, Block, Chart, Kind, Node, numbers_of

History = tuple[int, ...]
"""For each history of the chart the set of states that it leads to; 0 where there is nothing to remember."""


def effective(chart: Chart, targets: tuple[int, ...], history: History) -> int:
    """The set of states that these lead to, histories being replaced by what they remember."""
    found = 0
    for target in targets:
        node = chart.nodes[target]
        if node.kind is Kind.HISTORY:
            remembered = history[chart.history.index(target)]
            found |= remembered or effective(chart, node.begins, history)
        else:
            found |= 1 << target
    return found


class Entering:
    """Collects them, transition by transition."""

    def __init__(self, chart: Chart, history: History) -> None:
        self._chart = chart
        self._nodes = chart.nodes
        self._history = history
        self.states = 0
        self.by_default = 0
        self.by_history: dict[int, Block] = {}
        """What a history without memory does, by the number of the state around it."""

    def add(self, arc: Arc, domain: int) -> None:
        for target in arc.targets:
            if target == domain:
                self._add_inside(target)
            else:
                self._add_with_descendants(target)
        for state in numbers_of(effective(self._chart, arc.targets, self._history)):
            if state != domain:
                self._add_ancestors(state, domain)
        leads_in = arc.targets and self._nodes[arc.targets[0]].kind is not Kind.COMPENSATING
        if leads_in and self._nodes[domain].kind is Kind.PARALLEL:
            # It stays, and all in it was left.
            self._add_regions(self._nodes[domain])

    def _add_with_descendants(self, number: int) -> None:
        node = self._nodes[number]
        if node.kind is Kind.HISTORY:
            remembered = self._history[self._chart.history.index(number)]
            if not remembered and node.on_begin is not None:
                self.by_history[node.parent] = node.on_begin
            for state in numbers_of(remembered) if remembered else node.begins:
                self._add_with_descendants(state)
            for state in numbers_of(remembered or effective(self._chart, node.begins, self._history)):
                self._add_ancestors(state, node.parent)
        else:
            self.states |= 1 << number
            self._add_inside(number)

    def _add_inside(self, number: int) -> None:
        node = self._nodes[number]
        if node.kind is Kind.COMPOUND:
            self.by_default |= 1 << number
            for state in node.begins:
                self._add_with_descendants(state)
            for state in numbers_of(effective(self._chart, node.begins, self._history)):
                self._add_ancestors(state, number)
        elif node.kind is Kind.PARALLEL:
            self._add_regions(node)

    def _add_ancestors(self, number: int, domain: int) -> None:
        """All between a state and the domain, with the other regions of those that are parallel."""
        for ancestor in self._nodes[number].ancestors:
            if ancestor == domain:
                return
            self.states |= 1 << ancestor
            node = self._nodes[ancestor]
            if node.kind is Kind.PARALLEL:
                self._add_regions(node)

    def _add_regions(self, node: Node) -> None:
        for region in node.children:
            # One that is entered already, or something inside it, is not entered by default.
            if not self.states & (self._nodes[region].inside | 1 << region):
                self._add_with_descendants(region)
