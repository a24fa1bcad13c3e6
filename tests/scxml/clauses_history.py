"""History: what is remembered, when, and how it is entered (3.10; D.exitStates, D.addDescendantStatesToEnter)."""

from __future__ import annotations

from tests.scxml.clause import Clause, chart, goto, history, on, parallel, start, state, step
from tests.scxml.document import Document, Node


def nested(*histories: Node) -> Document:
    """`s` holds `a` and `b` of `b1` and `b2`; `f` leads to `b2`, `out` from `s` to `x`, `back` from there to `h`."""
    return chart(
        state(
            "s",
            state("a", on("f", "b2", "tf")),
            state("b", state("b1"), state("b2")),
            *histories,
            on("out", "x", "to"),
        ),
        state("x", on("back", "h", "tb"), on("s", "s", "ts")),
    )


def regions(memory: Node, *more: Node) -> Document:
    """A parallel `p` of two regions; `f` leads to `a2`, `out` from `p` to `x`, `back` from there to `h`."""
    return chart(
        parallel(
            "p",
            state("r1", state("a1", on("f", "a2", "tf")), state("a2"), *more),
            state("r2", state("b1"), state("b2")),
            memory,
            on("out", "x", "to"),
        ),
        state("x", on("back", "h", "tb")),
        initial="p",
    )


IN_A = start("a", "+s +a")
TO_B2 = step("f", "b2", "-a tf +b +b2", history={})
IN_REGIONS = start("a1 b1", "+p +r1 +a1 +r2 +b1")
TO_A2 = step("f", "a2 b1", "-a1 tf +a2")
OUT_OF_A2 = "-b1 -r2 -a2 -r1 -p to +x"

MEMORY = [
    Clause(
        "history_shallow_restores_the_child",
        "A shallow history enters the child that was active last, and inside that the default (3.10).",
        nested(history("h", "a", "never")),
        (
            IN_A,
            TO_B2,
            step("out", "x", "-b2 -b -s to +x", history={"h": "b"}),
            step("back", "b1", "-x tb +s +b +b1"),
        ),
    ),
    Clause(
        "history_deep_restores_the_descendants",
        "A deep history enters the atomic states that were active last (3.10).",
        nested(history("h", "a", "never", deep=True)),
        (
            IN_A,
            TO_B2,
            step("out", "x", "-b2 -b -s to +x", history={"h": "b2"}),
            step("back", "b2", "-x tb +s +b +b2"),
        ),
    ),
    Clause(
        "history_of_both_kinds_in_one_state",
        "Every history of a state that is left records its own value (D.exitStates).",
        nested(history("h", "a"), history("hd", "a", deep=True)),
        (IN_A, TO_B2, step("out", "x", "-b2 -b -s to +x", history={"h": "b", "hd": "b2"})),
    ),
    Clause(
        "history_is_recorded_at_every_exit",
        "The value is what was active at the latest exit (3.10).",
        nested(history("h", "b", deep=True)),
        (
            IN_A,
            step("out", "x", "-a -s to +x", history={"h": "a"}),
            step("back", "a", "-x tb +s +a"),
            step("f", "b2", "-a tf +b +b2", history={"h": "a"}),
            step("out", "x", "-b2 -b -s to +x", history={"h": "b2"}),
            step("back", "b2", "-x tb +s +b +b2"),
        ),
    ),
    Clause(
        "history_is_not_used_by_plain_entry",
        "Who targets the state and not its history enters the default (3.10).",
        nested(history("h", "a", deep=True)),
        (IN_A, TO_B2, step("out", "x", "-b2 -b -s to +x"), step("s", "a", "-x ts +s +a")),
    ),
    Clause(
        "history_of_an_inner_state",
        "The histories of all states that are left are recorded, not only of the outermost (D.exitStates).",
        chart(
            state(
                "s",
                state("b", state("b1", on("f", "b2", "tf")), state("b2"), history("h", "b1")),
                on("out", "x", "to"),
            ),
            state("x", on("back", "h", "tb")),
        ),
        (
            start("b1", "+s +b +b1"),
            step("f", "b2", "-b1 tf +b2", history={}),
            step("out", "x", "-b2 -b -s to +x", history={"h": "b2"}),
            step("back", "b2", "-x tb +s +b +b2"),
        ),
    ),
    Clause(
        "history_of_a_parallel_shallow",
        "A shallow history of a parallel remembers its children, which are entered by default (3.10).",
        regions(history("h", "r1")),
        (
            IN_REGIONS,
            TO_A2,
            step("out", "x", OUT_OF_A2, history={"h": "r1 r2"}),
            step("back", "a1 b1", "-x tb +p +r1 +a1 +r2 +b1"),
        ),
    ),
    Clause(
        "history_of_a_parallel_deep",
        "A deep history of a parallel remembers the atomic states of all its regions (3.10).",
        regions(history("h", "a1", deep=True)),
        (
            IN_REGIONS,
            TO_A2,
            step("out", "x", OUT_OF_A2, history={"h": "a2 b1"}),
            step("back", "a2 b1", "-x tb +p +r1 +a2 +r2 +b1"),
        ),
    ),
    Clause(
        "history_in_one_region",
        "A history inside a region is restored, and the other regions are entered by default (3.10, 3.4).",
        chart(
            parallel(
                "p",
                state("r1", state("a1", on("f", "a2", "tf")), state("a2"), history("h", "a1")),
                state("r2", state("b1", on("f", "b2", "tg")), state("b2")),
                on("out", "x", "to"),
            ),
            state("x", on("back", "h", "tb")),
        ),
        (
            IN_REGIONS,
            step("f", "a2 b2", "-b1 -a1 tf tg +a2 +b2"),
            step("out", "x", "-b2 -r2 -a2 -r1 -p to +x", history={"h": "a2"}),
            step("back", "a2 b1", "-x tb +p +r1 +a2 +r2 +b1"),
        ),
    ),
    Clause(
        "history_of_several_regions_as_targets",
        "Several targets may be histories of several regions (3.5, 3.10).",
        chart(
            parallel(
                "p",
                state("r1", state("a1", on("f", "a2", "tf")), state("a2"), history("h1", "a1")),
                state("r2", state("b1"), state("b2"), history("h2", "b2")),
                on("out", "x", "to"),
            ),
            state("x", on("back", "h1 h2", "tb")),
        ),
        (
            IN_REGIONS,
            TO_A2,
            step("out", "x", OUT_OF_A2, history={"h1": "a2", "h2": "b1"}),
            step("back", "a2 b1", "-x tb +p +r1 +a2 +r2 +b1"),
        ),
    ),
    Clause(
        "history_is_not_recorded_while_its_parent_stays",
        "A move inside the parent records nothing: only its exit does (D.exitStates).",
        chart(state("s", state("a"), state("b"), history("h", "a"), on("e", "b", "t", internal=True))),
        (start("a", "+s +a"), step("e", "b", "-a t +b", history={})),
    ),
    Clause(
        "history_is_recorded_before_it_is_restored",
        "A transition that leaves a state for its own history enters what that exit has just recorded.",
        chart(
            state(
                "s", state("a", on("f", "b", "tf")), state("b"), history("h", "a", "never"), on("e", "h", "t")
            )
        ),
        (
            start("a", "+s +a"),
            step("f", "b", "-a tf +b"),
            step("e", "b", "-b -s t +s +b", history={"h": "b"}),
        ),
    ),
]

DEFAULTS = [
    Clause(
        "history_default_shallow",
        "Without a memory a history's default transition is taken; its content runs after its parent's entry (3.10).",
        chart(
            state("x", on("e", "h", "t")),
            state("s", state("a"), state("b"), history("h", "b", "dh"), initial=goto("a", "never")),
        ),
        (start("x", "+x"), step("e", "b", "-x t +s dh +b", history={})),
    ),
    Clause(
        "history_default_deep",
        "The default of a deep history may be any descendant; the states between are entered for it (3.10).",
        chart(
            state("x", on("e", "h", "t")),
            state("s", state("a"), state("m", state("c"), state("d")), history("h", "d", "dh", deep=True)),
        ),
        (start("x", "+x"), step("e", "d", "-x t +s dh +m +d")),
    ),
    Clause(
        "history_default_in_one_region",
        "A default inside one region of a parallel enters the others by default (D.addAncestorStatesToEnter).",
        chart(
            state("x", on("e", "h", "t")),
            parallel(
                "p",
                state("r1", state("a1"), state("a2")),
                state("r2", state("b1"), state("b2")),
                history("h", "b2", "dh", deep=True),
            ),
        ),
        (start("x", "+x"), step("e", "a1 b2", "-x t +p dh +r1 +a1 +r2 +b2")),
    ),
    Clause(
        "history_default_of_a_region_that_was_never_entered",
        "Each history has its own memory: one that has none takes its default beside one that has (3.10).",
        chart(
            state("s", state("a", on("f", "b", "tf")), state("b"), history("h", "a"), on("out", "x", "to")),
            state("x", on("back", "h", "tb"), on("other", "k", "tk")),
            state("u", state("c"), state("d"), history("k", "d", "dk")),
        ),
        (
            start("a", "+s +a"),
            step("f", "b", "-a tf +b"),
            step("out", "x", "-b -s to +x", history={"h": "b"}),
            step("other", "d", "-x tk +u dk +d", history={"h": "b"}),
        ),
    ),
    Clause(
        "history_as_an_initial_target",
        "An initial transition may lead to a history; its content runs before that of the history's default (3.6).",
        chart(
            state(
                "s",
                state("a"),
                state("b", on("f", "a", "tf")),
                history("h", "b", "dh"),
                on("out", "x", "to"),
                initial=goto("h", "is"),
            ),
            state("x", on("back", "s", "tb")),
        ),
        (
            start("b", "+s is dh +b"),
            step("f", "a", "-b tf +a"),
            step("out", "x", "-a -s to +x"),
            step("back", "a", "-x tb +s is +a"),
        ),
    ),
    Clause(
        "history_as_an_initial_target_deep",
        "The states between a history's parent and what it restores are entered for it (D.addDescendantStatesToEnter).",
        chart(
            state(
                "s",
                state("a"),
                state("m", state("c"), state("d", on("f", "k", "tf")), state("n", state("j"), state("k"))),
                history("h", "d", "dh", deep=True),
                on("out", "x", "to"),
                initial=goto("h", "is"),
            ),
            state("x", on("back", "s", "tb")),
        ),
        (
            start("d", "+s is dh +m +d"),
            step("f", "k", "-d tf +n +k"),
            step("out", "x", "-k -n -m -s to +x", history={"h": "k"}),
            step("back", "k", "-x tb +s is +m +n +k"),
        ),
    ),
    Clause(
        "history_default_content_needs_its_parent_entered",
        "Default content runs with the entry of the history's parent; where that stays, it does not (D.enterStates).",
        chart(
            state("s", state("a"), state("b"), history("h", "b", "never"), on("e", "h", "t", internal=True))
        ),
        (start("a", "+s +a"), step("e", "b", "-a t +b", history={})),
    ),
    Clause(
        "history_of_an_active_parent_without_memory",
        "A transition from inside to the parent's history stays in the parent: the default decides the domain.",
        chart(
            state("s", state("a", on("f", "b", "tf")), state("b", on("e", "h", "t")), history("h", "a", "no"))
        ),
        (start("a", "+s +a"), step("f", "b", "-a tf +b"), step("e", "a", "-b t +a", history={})),
    ),
]
