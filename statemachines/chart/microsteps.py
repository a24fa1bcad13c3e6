"""Microsteps: which transitions are taken together, what is left and entered, and in which order.

The names are those of the W3C text (SCXML, appendix D, "Algorithm for SCXML Interpretation"), whose procedures these
are, over sets that are integers. Nothing here calls user code; what a microstep does is a plan, made once for
(configuration, history, transitions) and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple

from statemachines.chart.entering import Entering, History, effective
from statemachines.chart.tree import EVENTLESS, Arc, Block, Chart, Kind, Node, numbers_of
from statemachines.chart.undoings import Undoings
from statemachines.patterns import covers
from statemachines.undoing import Begun, Change

PLANS_MAX: Final = 20_000
"""Plans and selections that are kept, of one machine; beyond it all are forgotten, and made again as needed."""


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
    change: Change | None = None
    """Of what the run owes; None: nothing ever is."""


class Microsteps:
    """The algorithm on one chart."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.undoings = Undoings(chart)
        self._has_eventless = any(EVENTLESS in node.arcs for node in chart.nodes)
        self._lanes: dict[tuple[int, str], tuple[tuple[Arc, ...], ...]] = {}
        self._certain: dict[tuple[Spot, str], tuple[Arc, ...]] = {}
        """What is selected whatever guards may say, since none is asked."""
        self._plans: dict[tuple[Spot, tuple[Arc, ...]], Plan] = {}
        self._taken: dict[tuple[Spot, tuple[Arc, ...]], tuple[tuple[Arc, ...], Plan]] = {}
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
        return self.select(spot, EVENTLESS, holds) if self._has_eventless else ()

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
        nodes, chart = self.chart.nodes, self.chart
        lanes = []
        for number in numbers_of(active & (chart.atomic | chart.compensating)):
            chain = (number, *nodes[number].ancestors)
            if chart.compensating >> number & 1:
                # What is undone takes nothing; what is around it does.
                chain = chain[2:]
            elif active >> chart.places.get(number, 0) & 1 and number in chart.places:
                continue
            lane = tuple(arc for one in chain for arc in chart.arcs_on(one, event_type))
            if chart.compensating:
                lane = tuple(arc for arc in lane if not self.is_undoing(active, arc))
            if lane:
                lanes.append(lane)
        return tuple(lanes)

    def is_undoing(self, active: int, arc: Arc) -> bool:
        """Whether the very state is undone already that a transition is to undo."""
        return arc.scope >= 0 and bool(active >> self.chart.places[arc.scope] & 1)

    def parts(self, spot: Spot, arcs: tuple[Arc, ...]) -> tuple[Arc, ...]:
        """These transitions as they are taken: the first parts of those that undo, or leave what is being undone."""
        if not self.chart.compensating:
            return arcs
        return tuple(self._part(spot, arc) for arc in arcs)

    def _part(self, spot: Spot, arc: Arc) -> Arc:
        if arc.scope >= 0 and spot.active >> arc.scope & 1:
            return self.undoings.into(arc, arc.scope, arc.scope)
        cut = self._exit_set(arc, spot) & self.chart.compensating & ~(1 << arc.source)
        if not cut:
            return arc
        # Nothing cuts short what is being undone: it goes on around all that is left, before the targets are entered.
        return self.undoings.into(arc, self._domain(arc, spot.history), -1)

    def domain(self, spot: Spot, arc: Arc) -> int:
        """The innermost state that stays active around all that a transition leaves and enters."""
        return self._domain(arc, spot.history)

    def asked(self, spot: Spot, arc: Arc, scope: int, arcs: tuple[Arc, ...]) -> Arc:
        """The first part of a transition whose action asks to undo this state; the transition as it is taken by now.

        What the transition leaves has been left by then, so that this may be all around the state; and what those leave
        that are taken with it, which were to leave what it was to stay in.
        """
        if not spot.active >> scope & 1:
            return arc  # what it owed was handed on when it was left
        by, place = arc, self._domain(arc, spot.history)
        if arc.by is not None:
            by, place, scope = arc.by, arc.place, self._wider(arc.scope, scope)
        place = self._wider(place, scope)
        for other in arcs:
            if other.by is None and other is not arc and self._exit_set(other, spot) >> place & 1:
                place = self._wider(place, self._domain(other, spot.history))
        return self.undoings.into(by, place, scope)

    def _wider(self, one: int, other: int) -> int:
        return other if one < 0 or self.chart.is_within(one, other) else one

    def _remove_conflicting(self, enabled: Collection[Arc], spot: Spot) -> tuple[Arc, ...]:
        if len(enabled) <= 1:
            return tuple(enabled)
        filtered: list[Arc] = []
        for one in enabled:
            preempted = False
            removed: list[Arc] = []
            exits = self._reach(one, spot)
            for other in filtered:
                if exits & self._reach(other, spot):
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

    def take(self, spot: Spot, arcs: tuple[Arc, ...]) -> tuple[tuple[Arc, ...], Plan]:
        """These transitions as they are taken, and what that does."""
        key = (spot, arcs)
        found = self._taken.get(key)
        if found is None:
            if len(self._taken) >= PLANS_MAX:
                self._taken.clear()
            taken = self.parts(spot, arcs)
            found = self._taken[key] = taken, self.plan(spot, taken)
        return found

    def begin(self, targets: tuple[int, ...], block: Block | None) -> Plan:
        """What entering the chart does: the start event's transition, out of nothing."""
        spot = Spot(1, (0,) * len(self.chart.history))
        arc = Arc(-1, 0, targets or self.chart.nodes[0].begins, True, None, None, block)
        return self._make_plan(spot, (arc,))

    def _make_plan(self, spot: Spot, arcs: tuple[Arc, ...]) -> Plan:
        nodes = self.chart.nodes
        leaving = first = 0
        for arc in arcs:
            leaving |= self._exit_set(arc, spot)
            first |= self._exit_set(arc if arc.by is None or arc.block is None else arc.by, spot)
        history = self._remember(spot, leaving)
        acts: list[Do | SayDone] = []
        active = self._leave(acts, spot.active, first)
        acts.extend(Do(active, arc.block) for arc in arcs if arc.block is not None)
        # Where an action asks to undo more than its transition leaves.
        active = self._leave(acts, active, leaving & ~first)
        begins, entered = self._begins(arcs, spot)
        history = self._forget(history, begins)
        entering = Entering(self.chart, history)
        for arc in entered:
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
        change = self._change(leaving, begins) if self.chart.asking else None
        return Plan(tuple(acts), Spot(active, history), ends, leaving, entering.states, change)

    def _change(self, leaving: int, begins: tuple[Begun, ...]) -> Change:
        """What these states hand on that are left, and what begins to be undone."""
        chart, gone = self.chart, leaving & self.chart.compensating
        onward: dict[str, str] = {}
        for number in numbers_of(leaving & ~gone):
            node = chart.nodes[number]
            # What is around it comes before it.
            around = chart.nodes[node.parent].name
            onward[node.name] = onward.get(around, around)
        ended = [chart.nodes[chart.nodes[one].parent].name for one in numbers_of(gone)]
        return Change(chart.around, onward, begins, ended)

    def _leave(self, acts: list[Do | SayDone], active: int, leaving: int) -> int:
        """What is done where states are left is added to the acts; returns what is active then."""
        for number in reversed(list(numbers_of(leaving))):
            acts.extend(Do(active, block) for block in self.chart.nodes[number].exits)
            active &= ~(1 << number)
        return active

    def _begins(self, arcs: tuple[Arc, ...], spot: Spot) -> tuple[tuple[Begun, ...], tuple[Arc, ...]]:
        """What is undone from now on, and the transitions whose targets are entered.

        Where the action of one has asked to undo a state in which others have been taken as well, they lead nowhere.
        """
        into = [arc for arc in arcs if arc.by is not None and not self.undoings.is_second(arc)]
        if not into:
            return (), arcs
        begins: list[Begun] = []
        entered: list[Arc] = []
        for arc in arcs:
            exits = self._reach(arc, spot)
            over = [one for one in into if one is arc or exits & self._reach(one, spot)]
            widest = [
                one for one in over if all(self.chart.is_within(other.place, one.place) for other in over)
            ]
            leads = widest[0] if widest else arc
            if leads is arc:
                entered.append(arc)
            if arc in into:
                nodes = self.chart.nodes
                scope = None if arc.scope < 0 else nodes[arc.scope].name
                begins.append(Begun(scope, nodes[leads.place].name, leads.line))
        return tuple(begins), tuple(entered)

    def _forget(self, history: History, begins: tuple[Begun, ...]) -> History:
        """Histories of what is undone have nothing to remember."""
        numbers = self.chart.numbers
        scopes = [numbers[one.scope] if one.scope else 0 for one in begins if one.scope is not None]
        if not scopes:
            return history
        return tuple(
            0 if any(self.chart.is_within(self.chart.nodes[number].parent, one) for one in scopes) else states
            for number, states in zip(self.chart.history, history, strict=True)
        )

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
        if arc.by is None and arc.scope >= 0 and spot.active >> arc.scope & 1:
            return spot.active & self.chart.nodes[arc.scope].inside
        domain = self._domain(arc, spot.history)
        return spot.active & self.chart.nodes[domain].inside

    def _reach(self, arc: Arc, spot: Spot) -> int:
        """What no other transition may leave that is taken with it.

        A state without others inside that is undone stays active, but no other may leave it.
        """
        exits = self._exit_set(arc, spot)
        if exits or (arc.scope < 0 and arc.by is None):
            return exits
        return 1 << (arc.scope if arc.by is None else arc.place) & spot.active

    def _domain(self, arc: Arc, history: History) -> int:
        """The innermost state that stays active around all that is left and entered."""
        nodes = self.chart.nodes
        if arc.internal:
            return arc.source
        if arc.by is not None:
            if not self.undoings.is_second(arc):
                return arc.place
            return self._wider(self._domain(arc.by, history), arc.place)
        targets = effective(self.chart, arc.targets, history)
        for ancestor in nodes[arc.source].ancestors:
            if nodes[ancestor].kind is Kind.COMPOUND and targets & ~nodes[ancestor].inside == 0:
                return ancestor
        return 0
