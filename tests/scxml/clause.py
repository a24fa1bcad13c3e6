"""What a clause of the recommendation is held by, and a short way to write its chart.

Every state logs `+id` when it is entered and `-id` when it is left, every transition its label, so that a log is the
whole order of what happened.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.scxml.document import (
    ALWAYS,
    Block,
    Condition,
    Document,
    HistoryType,
    Kind,
    Log,
    Node,
    Transition,
)
from tests.scxml.semantics import DEVIATING, Semantics


@dataclass(frozen=True, slots=True)
class Step:
    """One event (None: the start), and what it must lead to."""

    event: str | None
    atomic: frozenset[str]
    """Active atomic and final states afterwards; the rest of the configuration is their ancestors."""
    log: tuple[str, ...]
    raised: tuple[str, ...] | None = None
    """Names of the internal events raised, in order; None: not stated."""
    history: tuple[tuple[str, frozenset[str]], ...] | None = None
    """All histories that have a memory, with what they remember; None: not stated."""
    variables: tuple[tuple[str, int], ...] | None = None
    output: tuple[tuple[str, int], ...] | None = None
    """Not None: the machine has finished with this output. None: it has not finished."""
    accepted: bool = True
    farewell: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Clause:
    """One rule of the recommendation, with a chart that shows it; the first step is the start.

    `semantics` other than the default: the clause shows the text itself where a declared deviation differs, and
    is for the oracle alone.
    """

    name: str
    text: str
    """The rule in a sentence, and where it stands: a section of the text, or D.name for a procedure of appendix D."""
    document: Document
    steps: tuple[Step, ...]
    semantics: Semantics = DEVIATING


def step(
    event: str | None,
    atomic: str,
    log: str,
    *,
    raised: str | None = None,
    history: dict[str, str] | None = None,
    variables: dict[str, int] | None = None,
    output: dict[str, int] | None = None,
    accepted: bool = True,
    farewell: str = "",
) -> Step:
    """A step with its lists written as words between blanks."""
    return Step(
        event,
        frozenset(atomic.split()),
        tuple(log.split()),
        raised=None if raised is None else tuple(raised.split()),
        history=None if history is None else tuple((h, frozenset(v.split())) for h, v in history.items()),
        variables=None if variables is None else tuple(variables.items()),
        output=None if output is None else tuple(output.items()),
        accepted=accepted,
        farewell=tuple(farewell.split()),
    )


def start(atomic: str, log: str, raised: str | None = None) -> Step:
    """The first step of a clause."""
    return step(None, atomic, log, raised=raised)


def unaccepted(event: str, atomic: str) -> Step:
    """An event that enables nothing and leaves all as it was."""
    return step(event, atomic, "", accepted=False)


def chart(*children: Node, initial: str | None = None, **variables: int) -> Document:
    """A document; `variables` are their first values."""
    first = Transition(targets=tuple((initial or children[0].id).split()))
    return Document(Node("root", Kind.ROOT, children, initial=first), tuple(variables.items()))


def state(
    id: str,
    *parts: Node | Transition,
    initial: str | Transition | None = None,
    entry: tuple[Block, ...] = (),
    exit: tuple[Block, ...] = (),
) -> Node:
    """An atomic state, or a compound one if states are among the parts; its first one is the initial one."""
    children = tuple(part for part in parts if isinstance(part, Node))
    if not children:
        assert initial is None
        return _node(id, Kind.ATOMIC, parts, entry, exit)
    if not isinstance(initial, Transition):
        first = next(child.id for child in children if child.kind is not Kind.HISTORY)
        initial = Transition(targets=tuple((initial or first).split()))
    return _node(id, Kind.COMPOUND, parts, entry, exit, initial)


def parallel(
    id: str, *parts: Node | Transition, entry: tuple[Block, ...] = (), exit: tuple[Block, ...] = ()
) -> Node:
    return _node(id, Kind.PARALLEL, parts, entry, exit)


def final(id: str, donedata: str = "", entry: tuple[Block, ...] = (), exit: tuple[Block, ...] = ()) -> Node:
    entries, exits = ((Log(f"+{id}"),), *entry), ((Log(f"-{id}"),), *exit)
    return Node(id, Kind.FINAL, onentry=entries, onexit=exits, donedata=tuple(donedata.split()))


def history(id: str, default: str, log: str | None = None, *, deep: bool = False) -> Node:
    """A history; `log` is the label that its default transition logs."""
    kind = HistoryType.DEEP if deep else HistoryType.SHALLOW
    return Node(id, Kind.HISTORY, history_type=kind, default=goto(default, log))


def goto(targets: str, log: str | None = None, do: Block = ()) -> Transition:
    """An initial or default transition."""
    return Transition(tuple(targets.split()), actions=(*((Log(log),) if log else ()), *do))


def on(
    events: str,
    targets: str,
    log: str,
    *,
    cond: Condition = ALWAYS,
    do: Block = (),
    internal: bool = False,
) -> Transition:
    """A transition; external, unless `internal`."""
    return Transition(tuple(targets.split()), tuple(events.split()), cond, internal, actions=(Log(log), *do))


def always(targets: str, log: str, *, cond: Condition = ALWAYS, do: Block = ()) -> Transition:
    """An eventless transition."""
    return on("", targets, log, cond=cond, do=do)


def _node(
    id: str,
    kind: Kind,
    parts: tuple[Node | Transition, ...],
    entry: tuple[Block, ...],
    exit: tuple[Block, ...],
    initial: Transition | None = None,
) -> Node:
    return Node(
        id,
        kind,
        children=tuple(part for part in parts if isinstance(part, Node)),
        transitions=tuple(part for part in parts if isinstance(part, Transition)),
        onentry=((Log(f"+{id}"),), *entry),
        onexit=((Log(f"-{id}"),), *exit),
        initial=initial,
    )
