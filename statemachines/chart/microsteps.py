"""Microsteps: which transitions are taken together, what is left and entered, and in which order.

The names are those of the W3C text (SCXML, appendix D, "Algorithm for SCXML Interpretation"), whose procedures these
are, over sets that are integers. Nothing here calls user code; what a microstep does is a plan, made once for
(configuration, history, transitions) and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from statemachines.chart.tree import EVENTLESS, Arc, Block, Chart, Kind, Node, numbers_of
from statemachines.patterns import covers

PLANS_MAX = 20_000
"""Plans and selections that are kept, of one machine; beyond it all are forgotten, and made again as needed."""

History = tuple[int, ...]
"""For each history of the chart the set of states that it leads to; 0 where there is nothing to remember."""


class Spot(NamedTuple):
    """Where a run is, but for its context."""

    active: int
    history: History


class Do(NamedTuple):
    """What a microstep does, one after the other."""

    active: int
    """The states that are active while it is done."""
    block: Block


class SayDone(NamedTuple):
    """A final state was entered: states around it are done."""

    active: int
    final: int
    done: tuple[int, ...]
    """The state around the final one, then outwards each parallel one all of whose regions are done."""


class Plan(NamedTuple):
    """A microstep. States without anything to do when they are left or entered are not in it."""

    acts: tuple[Do | SayDone, ...]
    after: Spot
    ends: int
    """The final state of the pipeline itself that was entered, so that the run has ended; 0: none was."""
    left: int = 0
    entered: int = 0
    undoing: int = -1
    """Which line of the definition says where the run goes once it is undone, which now begins; -1: it does not."""


class Microsteps:
    """The algorithm on one chart."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self._lanes: dict[tuple[int, str], tuple[tuple[Arc, ...], ...]] = {}
        self._certain: dict[tuple[Spot, str], tuple[Arc, ...]] = {}
        """What is selected whatever guards may say, since none is asked."""
        self._plans: dict[tuple[Spot, tuple[Arc, ...]], Plan] = {}
        self._chains: dict[tuple[int, str], tuple[Arc, ...]] = {}
        """By state and type of event, what takes it of that state and of those around it."""

    def select(self, spot: Spot, event_type: str, holds: Callable[[Arc], bool]) -> tuple[Arc, ...]:
        """The optimally enabled set, without conflicts: of each atomic state's chain the first that holds."""
        if self.chart.patterns is not None and event_type != EVENTLESS:
            # What is kept below is kept by the names of the definition, of which there are not more than it has.
            name = self.chart.patterns.of(event_type)
            if name is None:
                return ()
            event_type = name
        certain = self._certain.get((spot, event_type))
        if certain is not None:
            return certain
        lanes = self._lanes_of(spot.active, event_type)
        if all(lane[0].guard is None for lane in lanes):
            if len(self._certain) >= PLANS_MAX:
                self._certain.clear()
            enabled = dict.fromkeys(lane[0] for lane in lanes)
            certain = self._certain[spot, event_type] = self._remove_conflicting(enabled, spot)
            return certain
        enabled = {}
        asked: dict[Arc, bool] = {}
        for lane in lanes:
            for arc in lane:
                answer = asked.get(arc)
                if answer is None:
                    answer = asked[arc] = arc.guard is None or holds(arc)
                if answer:
                    enabled[arc] = None
                    break
        return self._remove_conflicting(enabled, spot)

    def select_eventless(self, spot: Spot, holds: Callable[[Arc], bool]) -> tuple[Arc, ...]:
        """The same for transitions that wait for no event."""
        return self.select(spot, EVENTLESS, holds)

    def select_of(self, number: int, event_type: str, holds: Callable[[Arc], bool]) -> tuple[Arc, ...]:
        """For an event that is one state's own: the first that holds, of that state or else of those around it."""
        chain = self._chains.get((number, event_type))
        if chain is None:
            if len(self._chains) >= PLANS_MAX:
                self._chains.clear()
            chain = self._chains[number, event_type] = tuple(self._make_chain(number, event_type))
        for arc in chain:
            if arc.guard is None or holds(arc):
                return (arc,)
        return ()

    def _make_chain(self, number: int, event_type: str) -> Iterator[Arc]:
        nodes = self.chart.nodes
        for one in (number, *nodes[number].ancestors):
            taking = (arcs for name, arcs in nodes[one].arcs.items() if self._takes(name, event_type))
            yield from sorted((arc for arcs in taking for arc in arcs), key=lambda arc: arc.number)

    def _takes(self, name: str, event_type: str) -> bool:
        kinds = (event_type, *self.chart.kin.get(event_type, ()))
        return name != EVENTLESS and any(covers(name, one) for one in kinds)

    def is_awaited(self, active: int, event_type: str) -> bool:
        """Whether any transition out of these states is on events of this type, whatever its guard may say."""
        return bool(self._lanes_of(active, event_type))

    def _lanes_of(self, active: int, event_type: str) -> tuple[tuple[Arc, ...], ...]:
        lanes = self._lanes.get((active, event_type))
        if lanes is None:
            if len(self._lanes) >= PLANS_MAX:
                self._lanes.clear()
            lanes = self._lanes[active, event_type] = self._make_lanes(active, event_type)
        return lanes

    def _make_lanes(self, active: int, event_type: str) -> tuple[tuple[Arc, ...], ...]:
        nodes, arcs_on = self.chart.nodes, self.chart.arcs_on
        lanes = []
        for number in numbers_of(active & self.chart.atomic):
            chain = (number, *nodes[number].ancestors)
            lane = tuple(arc for one in chain for arc in arcs_on(one, event_type))
            if lane:
                lanes.append(lane)
        return tuple(lanes)

    def _remove_conflicting(self, enabled: Collection[Arc], spot: Spot) -> tuple[Arc, ...]:
        if len(enabled) <= 1:
            return tuple(enabled)
        filtered: list[Arc] = []
        for one in enabled:
            preempted = False
            removed: list[Arc] = []
            exits = self._exit_set(one, spot)
            for other in filtered:
                if exits & self._exit_set(other, spot):
                    if other.source in self.chart.nodes[one.source].ancestors:
                        removed.append(other)
                    else:
                        preempted = True
                        break
            if not preempted:
                filtered = [other for other in filtered if other not in removed]
                filtered.append(one)
        return tuple(filtered)

    def plan(self, spot: Spot, arcs: tuple[Arc, ...]) -> Plan:
        """What taking these transitions does."""
        key = (spot, arcs)
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            found = self._plans[key] = self._make_plan(spot, arcs)
        return found

    def begin(self, targets: tuple[int, ...], block: Block | None) -> Plan:
        """What entering the chart does: the start event's transition, out of nothing."""
        spot = Spot(1, (0,) * len(self.chart.history))
        arc = Arc(-1, 0, targets or self.chart.nodes[0].begins, True, None, None, block)
        return self._make_plan(spot, (arc,))

    def _make_plan(self, spot: Spot, arcs: tuple[Arc, ...]) -> Plan:
        nodes = self.chart.nodes
        leaving = 0
        for arc in arcs:
            leaving |= self._exit_set(arc, spot)
        history = self._remember(spot, leaving)
        acts: list[Do | SayDone] = []
        active = spot.active
        for number in reversed(list(numbers_of(leaving))):
            acts.extend(Do(active, block) for block in nodes[number].exits)
            active &= ~(1 << number)
        acts.extend(Do(active, arc.block) for arc in arcs if arc.block is not None)
        entering = _Entering(self.chart, history)
        for arc in arcs:
            # The text asks for the domain once more, with what was remembered meanwhile; then what was left might not
            # be entered again.
            entering.add(arc, self._domain(arc, spot.history))
        ends = 0
        for number in numbers_of(entering.states):
            node = nodes[number]
            active |= 1 << number
            blocks = [*node.entries]
            if entering.by_default >> number & 1 and node.on_begin is not None:
                blocks.append(node.on_begin)
            if number in entering.by_history:
                blocks.append(entering.by_history[number])
            acts.extend(Do(active, block) for block in blocks)
            if node.kind is Kind.FINAL:
                if node.parent == 0:
                    ends = number
                else:
                    acts.append(SayDone(active, number, tuple(self._done_by(node, active))))
        undoing = max((arc.undoing for arc in arcs), default=-1)
        return Plan(tuple(acts), Spot(active, history), ends, leaving, entering.states, undoing)

    def _done_by(self, node: Node, active: int) -> list[int]:
        nodes = self.chart.nodes
        done = [node.parent]
        beyond = nodes[nodes[node.parent].parent]
        while beyond.kind is Kind.PARALLEL and self._is_in_final(beyond, active):
            done.append(beyond.number)
            beyond = nodes[beyond.parent]
        return done

    def _is_in_final(self, node: Node, active: int) -> bool:
        nodes = self.chart.nodes
        if node.kind is Kind.COMPOUND:
            return any(nodes[one].kind is Kind.FINAL and active >> one & 1 for one in node.children)
        return node.kind is Kind.PARALLEL and all(
            self._is_in_final(nodes[one], active) for one in node.children
        )

    def _remember(self, spot: Spot, leaving: int) -> History:
        history = spot.history
        for at, number in enumerate(self.chart.history):
            node = self.chart.nodes[number]
            if leaving >> node.parent & 1:
                around = self.chart.nodes[node.parent]
                within = (
                    around.inside & self.chart.atomic
                    if node.deep
                    else sum(1 << one for one in around.children)
                )
                history = (*history[:at], spot.active & within, *history[at + 1 :])
        return history

    def _exit_set(self, arc: Arc, spot: Spot) -> int:
        if not arc.targets:
            return 0
        domain = self._domain(arc, spot.history)
        return spot.active & self.chart.nodes[domain].inside

    def _domain(self, arc: Arc, history: History) -> int:
        """The innermost state that stays active around all that is left and entered."""
        nodes = self.chart.nodes
        if arc.internal:
            return arc.source
        targets = _effective(self.chart, arc.targets, history)
        for ancestor in nodes[arc.source].ancestors:
            if nodes[ancestor].kind is Kind.COMPOUND and targets & ~nodes[ancestor].inside == 0:
                return ancestor
        return 0


def _effective(chart: Chart, targets: tuple[int, ...], history: History) -> int:
    """The set of states that these lead to, histories being replaced by what they remember."""
    found = 0
    for target in targets:
        node = chart.nodes[target]
        if node.kind is Kind.HISTORY:
            remembered = history[chart.history.index(target)]
            found |= remembered or _effective(chart, node.begins, history)
        else:
            found |= 1 << target
    return found


class _Entering:
    """Collects what is entered (the text's ``computeEntrySet``)."""

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
            if target == arc.source and arc.internal:
                self._add_inside(target)
            else:
                self._add_with_descendants(target)
        for state in numbers_of(_effective(self._chart, arc.targets, self._history)):
            if state != domain:
                self._add_ancestors(state, domain)
        if arc.targets and self._nodes[domain].kind is Kind.PARALLEL:
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
            for state in numbers_of(remembered or _effective(self._chart, node.begins, self._history)):
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
            for state in numbers_of(_effective(self._chart, node.begins, self._history)):
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
