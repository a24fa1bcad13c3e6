"""The algorithm for the interpretation of SCXML documents: appendix D of the W3C recommendation of 1 September 2015.

Written down procedure by procedure with the text's names and its control flow, as plain and as slow as it stands
there. What it leaves out: `<invoke>`, the data model's late binding, scripts. Where it differs, by an option of
`Semantics`, a comment says so. A machine is driven step by step: where the text waits for an external event, the
event loop returns, and `send` enters it again; nothing is enabled there that was not before, so this is the same.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tests.scxml.document import Block, Condition, Document
from tests.scxml.elements import (
    Arc,
    OrderedSet,
    State,
    build,
    entry_order,
    exit_order,
    get_child_states,
    get_proper_ancestors,
    histories,
    is_atomic_state,
    is_compound_state,
    is_deep,
    is_descendant,
    is_final_state,
    is_parallel_state,
    is_scxml_element,
)
from tests.scxml.execution import DataModel, condition_match, execute_block
from tests.scxml.observation import Event, Microstep, Observation
from tests.scxml.semantics import DEVIATING, Semantics, name_match
from tests.scxml.transition_sets import TransitionSets
from tests.scxml.validity import validate


class TooManyMicrostepsError(RuntimeError):
    """One macrostep took more microsteps than `Semantics.microsteps_max`; the oracle is of no further use."""


@dataclass(slots=True)
class Trace:
    """What is noted for the observation of one macrostep; the algorithm never reads it, but for the limit."""

    accepted: bool = False
    log_start: int = 0
    log_end: int = 0
    last: list[State] = field(default_factory=list)
    event: Event | None = None
    raised: list[Event] = field(default_factory=list)
    untaken: list[Event] = field(default_factory=list)
    microsteps: list[Microstep] = field(default_factory=list)


class Oracle(TransitionSets):
    """One session of a document. `start` once, then `send` any number of events."""

    def __init__(self, document: Document, semantics: Semantics = DEVIATING) -> None:
        """Raise `MalformedDocumentError` if the document is not well-formed."""
        validate(document)
        super().__init__(semantics)
        self.doc = build(document.root)
        self.datamodel = DataModel(dict(document.variables))
        self.internal_queue: deque[Event] = deque()
        self.external_queue: deque[Event] = deque()
        self.running = False
        self.output: tuple[tuple[str, int], ...] = ()
        self._trace = Trace()

    def start(self) -> Observation:
        """Enter the initial configuration, and go on until an event from outside is waited for."""
        self._trace = Trace(accepted=True)
        self.interpret()
        return self._observe()

    def send(self, event: str) -> Observation:
        """Take one event from outside, to the end of its macrostep. One that has finished takes none."""
        self._trace = Trace(
            log_start=len(self.datamodel.log), log_end=len(self.datamodel.log), last=self._trace.last
        )
        if self.running:
            self.external_queue.append(Event(event))
            self.main_event_loop()
        return self._observe()

    def _observe(self) -> Observation:
        trace = self._trace
        if self.running:
            trace.last, trace.log_end = self.configuration.to_list(), len(self.datamodel.log)
        return Observation(
            configuration=frozenset(s.id for s in trace.last),
            atomic=frozenset(s.id for s in trace.last if is_atomic_state(s)),
            log=tuple(self.datamodel.log[trace.log_start : trace.log_end]),
            farewell=tuple(self.datamodel.log[trace.log_end :]),
            variables=dict(self.datamodel.variables),
            raised=tuple(trace.raised),
            untaken=tuple(trace.untaken),
            history={h: frozenset(s.id for s in value) for h, value in self.history_value.items()},
            accepted=trace.accepted,
            finished=not self.running,
            output=self.output,
            microsteps=tuple(trace.microsteps),
        )

    def interpret(self) -> None:
        """Initialise the session, take the document's initial transition, and start the event loop."""
        self.running = True
        initial = self.doc.initial
        assert initial is not None
        self.enter_states([initial])
        self.main_event_loop()

    def main_event_loop(self) -> None:
        """Run until a top-level final state is entered.

        Each time round: complete the macrostep by taking eventless transitions and, where there are none, those of
        the next internal event; then take one event from outside.
        """
        while self.running:
            macrostep_done = False
            while self.running and not macrostep_done:
                enabled_transitions = self.select_eventless_transitions()
                self._trace.event = None
                if enabled_transitions.is_empty():
                    if not self.internal_queue:
                        macrostep_done = True
                    else:
                        internal_event = self.internal_queue.popleft()
                        self._trace.event = self.datamodel.event = internal_event
                        enabled_transitions = self.select_transitions(internal_event)
                        if enabled_transitions.is_empty():
                            self._trace.untaken.append(internal_event)
                if not enabled_transitions.is_empty():
                    self.microstep(enabled_transitions.to_list())
            if not self.running:
                break  # type: ignore[unreachable]  # a microstep may have ended it, which mypy does not see
            if not self.external_queue:
                return  # The text waits here for an external event.
            external_event = self.external_queue.popleft()
            self._trace.event = self.datamodel.event = external_event
            enabled_transitions = self.select_transitions(external_event)
            self._trace.accepted = not enabled_transitions.is_empty()
            if not enabled_transitions.is_empty():
                self.microstep(enabled_transitions.to_list())
        self.exit_interpreter()

    def exit_interpreter(self) -> None:
        """Leave all active states, and return the data of the top-level final one."""
        self._trace.last = self.configuration.to_list()
        self._trace.log_end = len(self.datamodel.log)
        states_to_exit = sorted(self.configuration.to_list(), key=exit_order)
        for s in states_to_exit:
            for content in s.node.onexit:
                self.execute_content(content)
            self.configuration.delete(s)
            if is_final_state(s) and is_scxml_element(s.parent):
                self.output = self.datamodel.values(s.node.donedata)
        self._trace.untaken += self.internal_queue

    def select_eventless_transitions(self) -> OrderedSet[Arc]:
        """The transitions enabled in the current configuration that need no event.

        For each atomic state, in document order: the first in document order, of the state or else of its nearest
        ancestor that has one, without events and whose condition holds. What is preempted is then filtered out.
        """
        enabled_transitions: OrderedSet[Arc] = OrderedSet()
        atomic_states = sorted(filter(is_atomic_state, self.configuration.to_list()), key=entry_order)
        for state in atomic_states:
            found = False
            for s in [state, *get_proper_ancestors(state, None)]:
                for t in s.transitions:
                    if not t.events and self.condition_match(t):
                        enabled_transitions.add(t)
                        found = True
                        break
                if found:
                    break
        return self.remove_conflicting_transitions(enabled_transitions)

    def select_transitions(self, event: Event) -> OrderedSet[Arc]:
        """The transitions enabled by this event in the current configuration, found as the eventless ones are."""
        enabled_transitions: OrderedSet[Arc] = OrderedSet()
        atomic_states = sorted(filter(is_atomic_state, self.configuration.to_list()), key=entry_order)
        for state in atomic_states:
            found = False
            for s in [state, *get_proper_ancestors(state, None)]:
                for t in s.transitions:
                    if t.events and self.name_match(t, event.name) and self.condition_match(t):
                        enabled_transitions.add(t)
                        found = True
                        break
                if found:
                    break
        return self.remove_conflicting_transitions(enabled_transitions)

    def remove_conflicting_transitions(self, enabled_transitions: OrderedSet[Arc]) -> OrderedSet[Arc]:
        """Of transitions whose exit sets intersect keep one.

        If the source of one is a descendant of the source of the other, that one; else that which was selected by
        the state that comes first in document order. A targetless one leaves nothing and conflicts with none.
        """
        filtered_transitions: OrderedSet[Arc] = OrderedSet()
        for t1 in enabled_transitions.to_list():
            t1_preempted = False
            transitions_to_remove: OrderedSet[Arc] = OrderedSet()
            for t2 in filtered_transitions.to_list():
                if self.compute_exit_set([t1]).has_intersection(self.compute_exit_set([t2])):
                    if is_descendant(t1.source, t2.source):
                        transitions_to_remove.add(t2)
                    else:
                        t1_preempted = True
                        break
            if not t1_preempted:
                for t3 in transitions_to_remove.to_list():
                    filtered_transitions.delete(t3)
                filtered_transitions.add(t1)
        return filtered_transitions

    def microstep(self, enabled_transitions: list[Arc]) -> None:
        """Take a set of transitions in lock step: leave all their states, run their content, enter their targets."""
        if len(self._trace.microsteps) >= self.semantics.microsteps_max:
            raise TooManyMicrostepsError(
                f"More than {self.semantics.microsteps_max} microsteps in one macrostep; the last was "
                f"{self._trace.microsteps[-1]}. Guard the eventless transitions or raise the limit."
            )
        exited = self.exit_states(enabled_transitions)
        self.execute_transition_content(enabled_transitions)
        entered = self.enter_states(enabled_transitions)
        name = self._trace.event.name if self._trace.event else None
        self._trace.microsteps.append(Microstep(name, tuple(exited), tuple(entered)))

    def exit_states(self, enabled_transitions: list[Arc]) -> list[str]:
        """Record the history of all states that are left; then, innermost first, run their exit handlers; returns
        their ids.

        A deep history remembers the active atomic descendants of its parent, a shallow one its active children.
        """
        states_to_exit = sorted(self.compute_exit_set(enabled_transitions), key=exit_order)
        for s in states_to_exit:
            for h in histories(s):
                if is_deep(h):
                    value = [s0 for s0 in self.configuration if is_atomic_state(s0) and is_descendant(s0, s)]
                else:
                    value = [s0 for s0 in self.configuration if s0.parent is s]
                self.history_value[h.id] = value
        for s in states_to_exit:
            for content in s.node.onexit:
                self.execute_content(content)
            self.configuration.delete(s)
        return [s.id for s in states_to_exit]

    def execute_transition_content(self, enabled_transitions: list[Arc]) -> None:
        """Run the content of the transitions, in the order of the atomic states that selected them."""
        for t in enabled_transitions:
            self.execute_content(t.content)

    def enter_states(self, enabled_transitions: list[Arc]) -> list[str]:
        """Enter all states that the transitions lead to, outermost first; returns their ids.

        Of each: add it to the configuration and run its entry handlers; then, if its initial states are entered by
        default, the content of its initial transition; then, if a history of it had no memory, the content of that
        one's default transition. A final state then raises its `done` events, or, at the top level, stops the run.
        """
        states_to_enter: OrderedSet[State] = OrderedSet()
        states_for_default_entry: OrderedSet[State] = OrderedSet()
        default_history_content: dict[str, Block] = {}
        self.compute_entry_set(
            enabled_transitions, states_to_enter, states_for_default_entry, default_history_content
        )
        for s in sorted(states_to_enter, key=entry_order):
            self.configuration.add(s)
            for content in s.node.onentry:
                self.execute_content(content)
            if states_for_default_entry.is_member(s):
                assert s.initial is not None
                self.execute_content(s.initial.content)
            if s.id in default_history_content:
                self.execute_content(default_history_content[s.id])
            if is_final_state(s):
                self._complete(s)
        return [s.id for s in sorted(states_to_enter, key=entry_order)]

    def _complete(self, s: State) -> None:
        """The last part of the text's `enter_states`: what the entry into a final state raises."""
        parent = s.parent
        assert parent is not None
        if is_scxml_element(parent):
            self.running = False
        else:
            grandparent = parent.parent
            assert grandparent is not None
            self.enqueue(Event(f"done.state.{parent.id}", self.datamodel.values(s.node.donedata)))
            while is_parallel_state(grandparent) and all(
                self.is_in_final_state(child) for child in get_child_states(grandparent)
            ):
                self.enqueue(Event(f"done.state.{grandparent.id}"))
                # Deviation `done_goes_upwards`: the text stops here.
                if not self.semantics.done_goes_upwards or grandparent.parent is None:
                    break
                grandparent = grandparent.parent

    def is_in_final_state(self, s: State) -> bool:
        """Whether a child of the compound state is final and active, or so for every child of the parallel one."""
        if is_compound_state(s):
            return any(is_final_state(c) and self.configuration.is_member(c) for c in get_child_states(s))
        if is_parallel_state(s):
            return all(self.is_in_final_state(c) for c in get_child_states(s))
        return False

    def name_match(self, t: Arc, event: str) -> bool:
        """Whether one of the transition's event descriptors matches."""
        return name_match(t.events, event, self.semantics)

    def condition_match(self, t: Arc) -> bool:
        """Whether the transition's condition holds now."""
        return self.holds(t.cond)

    def holds(self, cond: Condition) -> bool:
        """Whether a condition holds now."""
        return condition_match(cond, {s.id for s in self.configuration}, self.datamodel)

    def execute_content(self, content: Block) -> None:
        """Run one block; if it fails, its rest is skipped and `error.execution` is raised."""
        undo = self.semantics.failed_blocks_are_undone
        for event in execute_block(content, self.datamodel, self.holds, undo=undo):
            self.enqueue(event)

    def enqueue(self, event: Event) -> None:
        """Put an event at the end of the internal queue."""
        self.internal_queue.append(event)
        self._trace.raised.append(event)
