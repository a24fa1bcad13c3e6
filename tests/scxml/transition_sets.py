"""Which states a set of transitions leaves and enters: the pure half of appendix D.

The procedures of the text that read the configuration and the history values and change neither, with the text's
names; `appendix_d` has the others, and says what kind of transcription this is.
"""

from __future__ import annotations

from tests.scxml.document import Block
from tests.scxml.elements import (
    Arc,
    OrderedSet,
    State,
    get_child_states,
    get_proper_ancestors,
    is_compound_state,
    is_descendant,
    is_history_state,
    is_parallel_state,
    is_scxml_element,
)
from tests.scxml.semantics import Semantics


class TransitionSets:
    """Entry and exit sets in one configuration, which `Oracle` changes."""

    def __init__(self, semantics: Semantics) -> None:
        self.semantics = semantics
        self.configuration: OrderedSet[State] = OrderedSet()
        self.history_value: dict[str, list[State]] = {}

    def compute_exit_set(self, transitions: list[Arc]) -> OrderedSet[State]:
        """All active states that are descendants of the domain of one of the transitions that have targets."""
        states_to_exit: OrderedSet[State] = OrderedSet()
        for t in transitions:
            if t.target:
                domain = self.get_transition_domain(t)
                assert domain is not None
                for s in self.configuration:
                    if is_descendant(s, domain):
                        states_to_exit.add(s)
        return states_to_exit

    def get_transition_domain(self, t: Arc) -> State | None:
        """The innermost compound state that contains all that is left or entered by the transition.

        None for a targetless one. The source itself for an internal transition into what is inside it.
        """
        tstates = self.get_effective_target_states(t)
        if tstates.is_empty():
            return None
        if self.semantics.internal_at_any_source:
            # Deviation: see `Semantics.internal_at_any_source`.
            if t.internal and all(s is t.source or is_descendant(s, t.source) for s in t.target):
                return t.source
        elif (
            t.internal and is_compound_state(t.source) and tstates.every(lambda s: is_descendant(s, t.source))
        ):
            return t.source
        return self.find_lcca([t.source, *tstates])

    def find_lcca(self, state_list: list[State]) -> State:
        """The least common compound ancestor: innermost compound state or root, proper ancestor of all in the list."""
        # A document's own initial transition is that of an `<initial>` element in the root, whose parent it is.
        if is_scxml_element(state_list[0]):
            return state_list[0]
        for anc in get_proper_ancestors(state_list[0], None):
            if (is_compound_state(anc) or is_scxml_element(anc)) and all(
                is_descendant(s, anc) for s in state_list[1:]
            ):
                return anc
        raise AssertionError("The root is an ancestor of all states.")

    def get_effective_target_states(self, transition: Arc) -> OrderedSet[State]:
        """The targets, with what it remembers, or else its default, in place of each history."""
        targets: OrderedSet[State] = OrderedSet()
        for s in transition.target:
            if is_history_state(s):
                if self.history_value.get(s.id):
                    targets.union(OrderedSet(self.history_value[s.id]))
                else:
                    assert s.default is not None
                    targets.union(self.get_effective_target_states(s.default))
            else:
                targets.add(s)
        return targets

    def compute_entry_set(
        self,
        transitions: list[Arc],
        states_to_enter: OrderedSet[State],
        states_for_default_entry: OrderedSet[State],
        default_history_content: dict[str, Block],
    ) -> None:
        """All states entered by the transitions; the last three arguments are filled.

        First the targets, with the descendants that are entered with them by default; then the ancestors of the
        effective targets, up to the domain.
        """
        sets = (states_to_enter, states_for_default_entry, default_history_content)
        for t in transitions:
            ancestor = self.get_transition_domain(t)
            for s in t.target:
                # Deviation `internal_at_any_source`: a target that is the domain itself has not been left, so only
                # what is in it is entered. (In the text a domain is a proper ancestor of every target.)
                if s is ancestor:
                    self.add_default_descendants_to_enter(s, *sets)
                else:
                    self.add_descendant_states_to_enter(s, *sets)
            for s in self.get_effective_target_states(t):
                self.add_ancestor_states_to_enter(s, ancestor, *sets)
            # The same deviation: all regions of a parallel domain were left, so those without a target are entered by
            # default. (In the text no domain is parallel.)
            if ancestor is not None and is_parallel_state(ancestor):
                self.add_regions_to_enter(ancestor, *sets)

    def add_descendant_states_to_enter(
        self,
        state: State,
        states_to_enter: OrderedSet[State],
        states_for_default_entry: OrderedSet[State],
        default_history_content: dict[str, Block],
    ) -> None:
        """Add a state and the descendants that are entered with it.

        For a history, what it remembers instead, or else its default, with the ancestors between that and the
        history's parent. For a compound state its initial states, for a parallel one the children that have no
        descendant among the states to enter yet.
        """
        sets = (states_to_enter, states_for_default_entry, default_history_content)
        if is_history_state(state):
            parent = state.parent
            assert parent is not None
            if self.history_value.get(state.id):
                for s in self.history_value[state.id]:
                    self.add_descendant_states_to_enter(s, *sets)
                for s in self.history_value[state.id]:
                    self.add_ancestor_states_to_enter(s, parent, *sets)
            else:
                assert state.default is not None
                default_history_content[parent.id] = state.default.content
                for s in state.default.target:
                    self.add_descendant_states_to_enter(s, *sets)
                for s in state.default.target:
                    self.add_ancestor_states_to_enter(s, parent, *sets)
        else:
            states_to_enter.add(state)
            if is_compound_state(state):
                states_for_default_entry.add(state)
            self.add_default_descendants_to_enter(state, *sets)

    def add_default_descendants_to_enter(
        self,
        state: State,
        states_to_enter: OrderedSet[State],
        states_for_default_entry: OrderedSet[State],
        default_history_content: dict[str, Block],
    ) -> None:
        """The last part of the text's `add_descendant_states_to_enter`: what is entered inside a state by default."""
        sets = (states_to_enter, states_for_default_entry, default_history_content)
        if is_compound_state(state):
            assert state.initial is not None
            for s in state.initial.target:
                self.add_descendant_states_to_enter(s, *sets)
            for s in state.initial.target:
                self.add_ancestor_states_to_enter(s, state, *sets)
        elif is_parallel_state(state):
            self.add_regions_to_enter(state, *sets)

    def add_ancestor_states_to_enter(
        self,
        state: State,
        ancestor: State | None,
        states_to_enter: OrderedSet[State],
        states_for_default_entry: OrderedSet[State],
        default_history_content: dict[str, Block],
    ) -> None:
        """Add the ancestors of `state` up to, but without, `ancestor`, and the other children of parallel ones."""
        for anc in get_proper_ancestors(state, ancestor):
            states_to_enter.add(anc)
            if is_parallel_state(anc):
                self.add_regions_to_enter(
                    anc, states_to_enter, states_for_default_entry, default_history_content
                )

    def add_regions_to_enter(
        self,
        parallel: State,
        states_to_enter: OrderedSet[State],
        states_for_default_entry: OrderedSet[State],
        default_history_content: dict[str, Block],
    ) -> None:
        """The loop that the text has twice: enter those children that have no descendant to be entered yet."""
        for child in get_child_states(parallel):
            if not any(is_descendant(s, child) for s in states_to_enter):
                self.add_descendant_states_to_enter(
                    child, states_to_enter, states_for_default_entry, default_history_content
                )
