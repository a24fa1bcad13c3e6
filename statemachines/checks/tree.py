"""The states of a pipeline as a tree, for the checks: it holds for definitions with mistakes, too.

Where a name is used twice the first state has it. States that are not in the tree, because what is around them is no
state of the pipeline, are strays; with them nothing can be said of the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast, get_args

from statemachines.definition import Kind, Move, Pipeline, State
from statemachines.events import Event, StepFailed, is_event_class
from statemachines.guards import has_tag, in_state
from statemachines.limits import STATE_DEPTH_MAX
from statemachines.step import Step, kin_of, steps_by_event

Some = State[Any]
KINDS: tuple[str, ...] = get_args(Kind)


class Tree:
    """What is around, inside and beside each state; made once for all checks that walk."""

    def __init__(self, pipeline: Pipeline[Any]) -> None:
        self.pipeline = pipeline
        self.named: dict[str, Some] = {}
        for state in pipeline.states:
            if isinstance(state.name, str):
                self.named.setdefault(state.name, state)
        self._inside: dict[Some | None, list[Some]] = {}
        for state in dict.fromkeys(pipeline.states):
            if state.kind in KINDS and (state.parent is None or isinstance(state.parent, State)):
                self._inside.setdefault(state.parent, []).append(state)
        self._parallel = {
            around for around, inside in self._inside.items() if any(one.kind == "region" for one in inside)
        }
        self.histories: dict[Some | None, list[Some]] = {}
        """By the state that they are directly inside of."""
        for around, inside in self._inside.items():
            self.histories[around] = [one for one in inside if one.kind == "history"]
        self.done: dict[type[Event], Some] = {
            state.done_class: state for state in pipeline.states if state.done_class is not None
        }
        """The states by the events that say that they are done."""
        self.steps = steps_by_event(pipeline.steps)
        """The steps by the events that say how they ended."""
        self.kin = kin_of(pipeline.steps)
        self.runners: dict[Some, Step[Any, Any]] = {
            state: state.run for state in self.named.values() if isinstance(state.run, Step)
        }
        """The states that run steps."""
        self.tagged: dict[str, list[Some]] = {}
        """The states that have each tag."""
        for state in self.named.values():
            for tag in state.tags:
                if isinstance(tag, str):
                    self.tagged.setdefault(tag, []).append(state)
        self.depth: dict[Some, int] = {}
        """In document order: each state before those inside it. From 1."""
        ahead = [(state, 1) for state in reversed(self.inside(None))]
        while ahead:
            state, depth = ahead.pop()
            self.depth[state] = depth
            ahead.extend((one, depth + 1) for one in reversed(self.inside(state)))
        self.strays = [state for state in pipeline.states if state not in self.depth]
        self.order = {state: at for at, state in enumerate(self.depth)}
        self.moves: dict[Some | None, list[Move]] = {}
        """Those that lead from and to known states, on known events, by source; None: from any state."""
        for move in pipeline.moves:
            if self.is_known(move):
                source = None if move.source is None else self.named[move.source]
                self.moves.setdefault(source, []).append(move)

    @property
    def is_sound(self) -> bool:
        """Whether all states are in it, and none too deep; else its other answers are not to be relied on."""
        return not self.strays and max(self.depth.values(), default=0) <= STATE_DEPTH_MAX

    def is_known(self, move: Move) -> bool:
        """Whether all that it names is there."""
        known = all(target in self.named for target in move.targets)
        there = move.source is None or move.source in self.named
        return known and there and (move.event is None or is_event_class(move.event))

    def targets(self, move: Move) -> list[Some]:
        """The targets of a move that is known."""
        return [self.named[name] for name in move.targets]

    def inside(self, state: Some | None) -> list[Some]:
        """The states directly inside; of None: the outermost ones."""
        return self._inside.get(state, [])

    def states_in(self, state: Some | None) -> list[Some]:
        """The same but for histories."""
        return [one for one in self.inside(state) if one.kind != "history"]

    def finals_in(self, state: Some) -> list[Some]:
        """The final states inside, one of which is entered when the state is done."""
        return [one for one in self.depth if one.final and self.is_within(one, state)]

    def asking_for(self, move: Move) -> list[Some]:
        """Of a move on how a step ended, the states whose steps it may be about: its source, or those inside it."""
        source = None if move.source is None else self.named[move.source]
        return [
            state
            for state, step in self.runners.items()
            if (move.event is StepFailed or self.steps.get(cast("type[Event]", move.event)) is step)
            and (source is None or source in self.chain(state))
        ]

    def is_leaf(self, state: Some) -> bool:
        """Whether it is active without a state inside it."""
        return state.kind != "history" and (state.final or not self.states_in(state))

    def is_parallel(self, state: Some | None) -> bool:
        """Whether it has regions."""
        return state in self._parallel

    def chain(self, state: Some | None) -> list[Some]:
        """The state and those around it, from the innermost on."""
        chain = []
        while state is not None:
            chain.append(state)
            state = state.parent
        return chain

    def is_within(self, state: Some, around: Some | None) -> bool:
        """Whether it is inside of another one, however deep; of None: always."""
        return around is None or around in self.chain(state)[1:]

    def parting(self, one: Some, other: Some) -> tuple[Some, Some] | None:
        """The different regions of one parallel state that they are in; None where they are not."""
        chain, others = self.chain(one), self.chain(other)
        while chain and others and chain[-1] is others[-1]:
            chain.pop()
            others.pop()
        if chain and others and chain[-1].kind == others[-1].kind == "region":
            return chain[-1], others[-1]
        return None

    def may_meet(self, one: Some, other: Some) -> bool:
        """Whether both may be active at once."""
        nested = one in self.chain(other) or other in self.chain(one)
        return nested or self.parting(one, other) is not None

    def clash(self, targets: Sequence[Some]) -> tuple[Some, Some] | None:
        """Two of these that do not lie in different regions of one parallel state."""
        for at, one in enumerate(targets):
            for other in targets[:at]:
                if self.parting(one, other) is None:
                    return other, one
        return None

    def is_certain(self, move: Move) -> bool:
        """Whether it is always enabled when its source is active: no guard, or one that cannot fail."""
        guard = move.guard
        if isinstance(guard, in_state) and move.source in self.named and guard.state in self.named:
            return self.named[guard.state] in self.chain(self.named[move.source])
        if isinstance(guard, has_tag) and move.source in self.named:
            return any(guard.tag in state.tags for state in self.chain(self.named[move.source]))
        return guard is None

    def begins(self, state: Some) -> list[Some]:
        """What is entered with a state when nothing more is said; of a history: where it leads by default.

        Of a state that does not say where it begins, which is a mistake of its own, all that is in it.
        """
        inside, around = self.states_in(state), state if state.kind != "history" else state.parent
        if self.is_parallel(state):
            return inside
        targets = () if state.beginning is None else state.beginning.targets
        named = [self.named[name] for name in targets if name in self.named]
        begins = [one for one in named if self.is_within(one, around)] + [
            one for one in inside if one.initial
        ]
        if state.kind == "history" and state.parent is not None:
            led = [one for one in self.begins(state.parent) if one is not state]
            return begins or led or self.states_in(state.parent)
        return begins or inside

    def domain(self, move: Move) -> Some | None:
        """The innermost state that stays active around all that a known move leaves and enters."""
        if move.source is None:
            return None
        source, targets = self.named[move.source], self.targets(move)
        if not move.reenter and all(source in self.chain(target) for target in targets):
            return source
        for around in self.chain(source)[1:]:
            if not self.is_parallel(around) and all(self.is_within(target, around) for target in targets):
                return around
        return None

    def leaves(self, move: Move) -> bool:
        """Whether a known move leaves any state; one that does not is in conflict with no other."""
        domain = self.domain(move)
        return bool(move.targets) and (domain is None or not self.is_leaf(domain))

    def entered(self, domain: Some | None, targets: Iterable[Some]) -> dict[Some, None]:
        """All that becomes active within a domain when these are its targets, and histories on the way.

        What a history leads to is not among it, since that may be anything.
        """
        found: dict[Some, None] = {}
        begun: set[Some] = set()
        ahead = [(domain, list(targets))]
        # The domain stays, but where it is parallel its other regions are entered anew.
        filled = [domain] if ahead[0][1] else []
        while ahead:
            limit, goals = ahead.pop()
            around: dict[Some | None, None] = {}
            for goal in goals:
                around.update(dict.fromkeys(self._between(goal, limit)))
            for one in (*around, *filled):
                if self.is_parallel(one):
                    left_out = [
                        region
                        for region in self.states_in(one)
                        if region not in around and region not in goals
                    ]
                    ahead.append((one, left_out))
            filled = []
            found.update((one, None) for one in around if one is not None)
            for goal in goals:
                found[goal] = None
                if goal.kind != "history" and not goal.final and goal not in begun:
                    begun.add(goal)
                    ahead.append((goal, self.begins(goal)))
        return found

    def _between(self, state: Some, limit: Some | None) -> list[Some]:
        """What is around a state, up to a limit that is not among it."""
        if state is limit:
            return []
        chain = self.chain(state)[1:]
        return chain[: chain.index(limit)] if limit in chain else chain
