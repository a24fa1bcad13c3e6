"""Random statecharts and random events for them: well-formed by construction, small, and small when they shrink.

Entry of a state logs `+id`, exit `-id`, a transition its number `t1`, an initial transition `i:id` of its state and a
history's default `d:id`, so that every order can be seen; some also log what is active then, or what the event
carries. Most charts come to rest after each event; some raise events or move without end, and whoever runs one needs
a limit on microsteps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import TypeVar

from hypothesis import strategies as st

from tests.scxml.document import (
    ALWAYS,
    Action,
    Add,
    Ask,
    Block,
    Both,
    Condition,
    Document,
    Fail,
    HistoryType,
    InState,
    Kind,
    Less,
    Log,
    LogData,
    Node,
    Not,
    Raise,
    Transition,
)

DEPTH_MAX = 4
STATES_MAX = 16
OUTSIDE = ("a", "b", "c", "a.x", "a.x.y")
"""Events from outside."""
DESCRIPTORS = ("a", "b", "c", "a.x", "a.*", "b.*", "*", "a.x.*")
RAISED = ("i", "j")
CONTENT: tuple[Action, ...] = (
    *(Add("n", 1), Add("m", 1), Add("n", -1), Add("m", -1)),
    *(Raise("i"), Raise("j"), Fail(), LogData()),
)
VARIABLES = (("n", 0), ("m", 2), ("turns", 0))


T = TypeVar("T")


@cache
def _below(n: int) -> st.SearchStrategy[int]:
    return st.integers(0, n - 1)


class Dice:
    """All choices of a chart, each a small integer: many times quicker than a strategy made for each choice.

    `below` gives one below a number.
    """

    def __init__(self, below: Callable[[int], int]) -> None:
        self.below = below

    def pick(self, choices: Sequence[T]) -> T:
        """One of them; shrinks to the first."""
        return choices[self.below(len(choices))] if len(choices) > 1 else choices[0]

    def one_in(self, n: int) -> bool:
        """True once in `n`; shrinks to False."""
        return self.below(n) == n - 1


@dataclass(eq=False)
class Sketch:
    """A node before it has transitions: those may lead to any other, so the tree has to stand first."""

    kind: Kind
    depth: int
    parent: Sketch | None
    id: str = ""
    children: list[Sketch] = field(default_factory=list)
    deep: bool = False

    def walk(self) -> Iterator[Sketch]:
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def states(self) -> list[Sketch]:
        return [child for child in self.children if child.kind is not Kind.HISTORY]


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Well-formed documents of up to about `STATES_MAX` states, `DEPTH_MAX` deep."""
    return _document(Dice(lambda n: draw(_below(n))))


def _document(dice: Dice) -> Document:
    root = Sketch(Kind.ROOT, 0, None, id="root")
    _grow(dice, root, [STATES_MAX])
    for number, sketch in enumerate(root.walk()):
        if sketch is not root:
            letter = {Kind.HISTORY: "h", Kind.FINAL: "f", Kind.PARALLEL: "p"}.get(sketch.kind, "s")
            sketch.id = f"{letter}{number}"
    return Document(_Maker(dice, root).node(root), VARIABLES)


def event_sequences() -> st.SearchStrategy[list[str]]:
    """Events from outside, in order."""
    return st.lists(st.sampled_from(OUTSIDE), max_size=8)


def scenarios() -> st.SearchStrategy[tuple[Document, list[str]]]:
    """A document, and the events that it is sent."""
    return st.tuples(documents(), event_sequences())


@contextmanager
def numbered(number: int) -> Iterator[tuple[Document, list[str]]]:
    """The same by a number: always the same one, and made many times as quickly. What goes wrong with it names it."""
    dice = Dice(Random(number).randrange)
    scenario = _document(dice), [dice.pick(OUTSIDE) for _ in range(16)]
    try:
        yield scenario
    except Exception as why:
        why.add_note(f"With the random chart number {number}, whose events are {' '.join(scenario[1])}.")
        raise


def _grow(dice: Dice, parent: Sketch, budget: list[int], *, ends: bool = False) -> None:
    """Give a root, compound or parallel node its children, a final one if it `ends`.

    `budget` is how many states may still be made.
    """
    in_parallel = parent.kind is Kind.PARALLEL
    least = 2 if in_parallel else 1
    # Parallels whose regions all end are made on purpose: by chance they would be rare.
    regions_end = in_parallel and dice.one_in(2)
    kinds = [Kind.COMPOUND] if regions_end else [Kind.ATOMIC, Kind.COMPOUND, Kind.COMPOUND, Kind.PARALLEL]
    for index in range(dice.pick(range(least, 4))):
        if index >= least and budget[0] <= 0:
            break
        budget[0] -= 1
        room = parent.depth + 1 < DEPTH_MAX and budget[0] > 0
        child = Sketch(dice.pick(kinds) if room else Kind.ATOMIC, parent.depth + 1, parent)
        parent.children.append(child)
        if child.kind is not Kind.ATOMIC:
            _grow(dice, child, budget, ends=regions_end)
    if ends or (not in_parallel and dice.one_in(5)):
        final = Sketch(Kind.FINAL, parent.depth + 1, parent)
        parent.children.insert(dice.pick(range(len(parent.children), -1, -1)), final)
    if parent.kind is not Kind.ROOT:
        nothing: tuple[bool, ...] = ()
        for deep in dice.pick([nothing, nothing, (False,), (True,), (False, True)]):
            parent.children.append(Sketch(Kind.HISTORY, parent.depth + 1, parent, deep=deep))


class _Maker:
    """Turns sketches into nodes, with transitions, content and handlers."""

    def __init__(self, dice: Dice, root: Sketch) -> None:
        self.pick, self.one_in = dice.pick, dice.one_in
        self.everything = [sketch for sketch in root.walk() if sketch is not root]
        self.states = [sketch for sketch in self.everything if sketch.kind is not Kind.HISTORY]
        self.parallels = [sketch for sketch in self.states if sketch.kind is Kind.PARALLEL]
        self.done = [
            f"done.state.{sketch.id}"
            for sketch in self.states
            if sketch.kind in (Kind.COMPOUND, Kind.PARALLEL)
        ]
        self.transitions_made = 0

    def node(self, sketch: Sketch) -> Node:
        children = tuple(self.node(child) for child in sketch.children)
        match sketch.kind:
            case Kind.ROOT:
                initial = Transition(self.inside(sketch))
                return Node(sketch.id, sketch.kind, children, initial=initial)
            case Kind.HISTORY:
                kind = HistoryType.DEEP if sketch.deep else HistoryType.SHALLOW
                return Node(sketch.id, sketch.kind, history_type=kind, default=self.default(sketch))
        final = sketch.kind is Kind.FINAL
        return Node(
            sketch.id,
            sketch.kind,
            children,
            transitions=() if final else self.transitions(sketch),
            onentry=self.handlers(sketch, "+"),
            # A final state only logs: its data are to be the same when it is entered and when the machine leaves it.
            onexit=((Log(f"-{sketch.id}"),),) if final else self.handlers(sketch, "-"),
            initial=self.initial(sketch) if sketch.kind is Kind.COMPOUND else None,
            donedata=("n", "m") if final and self.one_in(2) else (),
        )

    def initial(self, sketch: Sketch) -> Transition:
        histories = [child.id for child in sketch.children if child.kind is Kind.HISTORY]
        targets = (self.pick(histories),) if histories and self.one_in(6) else None
        return Transition(targets or self.inside(sketch), actions=(Log(f"i:{sketch.id}"), *self.content()))

    def default(self, sketch: Sketch) -> Transition:
        parent = sketch.parent
        assert parent is not None
        targets = self.inside(parent) if sketch.deep else (self.pick(parent.states).id,)
        return Transition(targets, actions=(Log(f"d:{sketch.id}"), *self.content()))

    def inside(self, sketch: Sketch) -> tuple[str, ...]:
        """Targets for who enters by default: mostly a child, sometimes deeper, sometimes several."""
        below = [each for each in sketch.walk() if each is not sketch and each.kind is not Kind.HISTORY]
        parallels = [each for each in below if each.kind is Kind.PARALLEL]
        if parallels and self.one_in(6):
            return self.several(parallels, histories=False)
        return (self.pick(below if self.one_in(4) else sketch.states).id,)

    def several(self, parallels: list[Sketch], *, histories: bool) -> tuple[str, ...]:
        """Targets in two regions of one parallel, in either order."""
        regions = self.pick(parallels).states
        first = self.pick(regions)
        second = self.pick([region for region in regions if region is not first])
        targets = []
        for region in (first, second):
            within = [each for each in region.walk() if histories or each.kind is not Kind.HISTORY]
            targets.append(self.pick(within).id)
        return tuple(targets)

    def transitions(self, source: Sketch) -> tuple[Transition, ...]:
        return tuple(self.transition(source) for _ in range(self.pick((0, 1, 2, 3))))

    def transition(self, source: Sketch) -> Transition:
        self.transitions_made += 1
        targets, cond, internal = self.targets(source), self.condition(), self.one_in(2)
        events = () if self.one_in(5) else self.events()
        label: Block = (Log(f"t{self.transitions_made}"),)
        if any(event.startswith("done.") for event in events):
            label = (*label, LogData())
        from_outside = bool(events) and all(event in OUTSIDE for event in events)
        if from_outside or self.one_in(8):
            return Transition(targets, events, cond, internal, actions=(*label, *self.content()))
        # What needs no event from outside may go on for ever, if nothing counts how often it is taken.
        turns = Less("turns", self.pick((3, 1, 2, 6)))
        content = (*label, Add("turns", 1), *self.content())
        cond = turns if cond == ALWAYS else Both(turns, cond)
        return Transition(targets, events, cond, internal, actions=content)

    def targets(self, source: Sketch) -> tuple[str, ...]:
        """Anywhere, but more often near: to a sibling, the source itself, or inside it."""
        assert source.parent is not None
        near = [*source.parent.children, *source.children]
        ends = [each for each in near if each.kind is Kind.FINAL and each.depth > 1]
        if ends and self.one_in(3):
            return (self.pick(ends).id,)
        match self.pick(("near", "near", "anywhere", "anywhere", "several", "none", "astride")):
            case "several" if self.parallels:
                return self.several(self.parallels, histories=True)
            case "astride":
                return self.astride(source)
            case "none":
                return ()
            case "near":
                return (self.pick(near).id,)
        return (self.pick(self.everything).id,)

    def astride(self, source: Sketch) -> tuple[str, ...]:
        """One target that is the source or inside it, and where it is in a region one in another, too."""
        within = self.pick([each for each in source.walk() if each.kind is not Kind.HISTORY]).id
        region, around = source, source.parent
        while around is not None and around.kind is not Kind.PARALLEL:
            region, around = around, around.parent
        if around is None:
            return (within,)
        other = self.pick([each for each in around.states if each is not region])
        beside = self.pick([each for each in other.walk() if each.kind is not Kind.HISTORY]).id
        return (within, beside) if self.one_in(2) else (beside, within)

    def events(self) -> tuple[str, ...]:
        names = (
            DESCRIPTORS,
            DESCRIPTORS,
            (*RAISED, "error.execution", "error.*", "i.*"),
            (*self.done, "done.*"),
        )
        events = [self.pick(self.pick(names)) for _ in range(self.pick((1, 1, 2)))]
        return tuple(dict.fromkeys(events))

    def condition(self) -> Condition:
        match self.pick(("none", "none", "none", "one", "both")):
            case "one":
                return self.simple_condition()
            case "both":
                return Both(self.simple_condition(), self.simple_condition())
        return ALWAYS

    def simple_condition(self) -> Condition:
        asked: Condition
        if self.one_in(2):
            asked = Less(self.pick(("n", "m")), self.pick((1, 0, 2, 3)))
        else:
            asked = InState(self.pick(self.states).id)
        return Not(asked) if self.one_in(2) else asked

    def around(self, sketch: Sketch) -> list[Sketch]:
        """The state around one, and those beside it."""
        assert sketch.parent is not None
        return [each for each in (sketch.parent, *sketch.parent.states) if each.kind is not Kind.ROOT]

    def content(self) -> Block:
        """Actions, mostly none."""
        if not self.one_in(3):
            return ()
        return tuple(self.pick(CONTENT) for _ in range(self.pick((1, 2, 3))))

    def handlers(self, sketch: Sketch, sign: str) -> tuple[Block, ...]:
        """One that logs and cannot fail, and seldom a second one, which may."""
        label = f"{sign}{sketch.id}"
        logs: Block = (Log(label),)
        if self.one_in(4):
            near = self.pick([sketch, *self.around(sketch), *sketch.states])
            logs = (*logs, Ask(f"{label}:{near.id}", InState(near.id)))
        return (logs, (*self.content(), Log(f"{label}'"))) if self.one_in(6) else (logs,)
