"""What a transition leaves and enters, and in which order (3.5, 3.6, 3.13; D.exitStates, D.enterStates)."""

from __future__ import annotations

from tests.scxml.clause import Clause, chart, goto, on, parallel, start, state, step
from tests.scxml.document import Add, Ask, Document, InState, Log, Transition
from tests.scxml.semantics import W3C


def regions_with(*transitions: Transition) -> Document:
    """A parallel `p` with these transitions; `f` moves its second region from `b1` to `b2`."""
    return chart(
        parallel(
            "p",
            state("r1", state("a1"), state("a2")),
            state("r2", state("b1", on("f", "b2", "tf")), state("b2")),
            *transitions,
        )
    )


def outside_of_regions(targets: str) -> Document:
    """A state `x` from which `e` leads to the targets, in or of a parallel `p` of two regions."""
    return chart(
        state("x", on("e", targets, "t")),
        parallel("p", state("r1", state("a1"), state("a2")), state("r2", state("b1"), state("b2"))),
    )


def compound_with(transition: Transition) -> Document:
    """A compound `s` with this transition, an initial transition with content, and `f` from `a` to `b`."""
    return chart(
        state("s", state("a", on("f", "b", "tf")), state("b"), transition, initial=goto("a", "init")),
        state("x"),
    )


IN_REGIONS = start("a1 b1", "+p +r1 +a1 +r2 +b1")
MOVED = step("f", "a1 b2", "-b1 tf +b2")
IN_COMPOUND = start("a", "+s init +a")
TO_B = step("f", "b", "-a tf +b")
A, B, S, U = (Ask(name, InState(name)) for name in "absu")

ORDER = [
    Clause(
        "order_exits_content_entries",
        "States are left innermost first, then the content runs, then states are entered outermost first (3.13).",
        chart(state("s", state("m", state("a", on("e", "b", "t")))), state("u", state("v", state("b")))),
        (start("a", "+s +m +a"), step("e", "b", "-a -m -s t +u +v +b")),
    ),
    Clause(
        "order_exit_is_reverse_document_order",
        "Of a parallel the last region is left first (3.13; D: exitOrder).",
        chart(parallel("p", state("r1", state("a")), state("r2", state("b")), on("e", "x", "t")), state("x")),
        (start("a b", "+p +r1 +a +r2 +b"), step("e", "x", "-b -r2 -a -r1 -p t +x")),
    ),
    Clause(
        "order_common_ancestors_are_not_left",
        "Only what is inside the least common compound ancestor is left and entered (D.findLCCA).",
        chart(state("s", state("m", state("a", on("e", "d", "t"))), state("n", state("c"), state("d")))),
        (start("a", "+s +m +a"), step("e", "d", "-a -m t +n +d")),
    ),
    Clause(
        "order_of_what_in_state_says",
        "A state is active while its exit handlers run, and once it is entered: one after the other (D.exitStates, "
        "D.enterStates).",
        chart(
            state("s", state("a", on("e", "b", "t", do=(S, U)), exit=((S, A),)), exit=((S, A),)),
            state("u", state("b", entry=((U, B),)), entry=((U, B),)),
        ),
        (
            start("a", "+s +a"),
            step("e", "b", "-a s=1 a=1 -s s=1 a=0 t s=0 u=0 +u u=1 b=0 +b u=1 b=1"),
        ),
    ),
    Clause(
        "order_of_handlers_is_document_order",
        "Several handlers of one state run in document order, on entry and on exit (D.enterStates, D.exitStates).",
        chart(
            state(
                "a",
                on("e", "b", "t"),
                entry=((Log("one"),), (Log("two"),)),
                exit=((Log("three"),), (Log("four"),)),
            ),
            state("b"),
        ),
        (start("a", "+a one two"), step("e", "b", "-a three four t +b")),
    ),
    Clause(
        "order_of_actions_is_document_order",
        "The content of a transition runs in document order, each seeing what the one before did (4).",
        chart(state("a", on("e", "", "t", do=(Add("n", 2), Log("u"), Add("n", -1)))), n=0),
        (start("a", "+a"), step("e", "a", "t u", variables={"n": 1})),
    ),
]

DOMAINS = [
    Clause(
        "external_to_itself_leaves_and_enters",
        "An external transition of a state to itself leaves and enters it (3.5).",
        chart(state("a", on("e", "a", "t"))),
        (start("a", "+a"), step("e", "a", "-a t +a")),
    ),
    Clause(
        "external_to_a_descendant_leaves_the_source",
        "An external transition leaves its source even where the target is inside it (3.5).",
        compound_with(on("e", "b", "t")),
        (IN_COMPOUND, step("e", "b", "-a -s t +s +b")),
    ),
    Clause(
        "external_to_an_ancestor_leaves_it",
        "A transition to an ancestor leaves that one too: the LCCA is a proper ancestor of both (D.findLCCA).",
        chart(state("s", state("a"), state("b", on("e", "s", "t")), on("f", "b", "tf", internal=True))),
        (start("a", "+s +a"), step("f", "b", "-a tf +b"), step("e", "a", "-b -s t +s +a")),
    ),
    Clause(
        "external_of_a_region_leaves_the_parallel",
        "A parallel is no domain: an external transition of a region leaves all of it (D.findLCCA: compound).",
        chart(
            parallel("p", state("r1", state("a1"), state("a2"), on("e", "a2", "t")), state("r2", state("b1")))
        ),
        (
            start("a1 b1", "+p +r1 +a1 +r2 +b1"),
            step("e", "a2 b1", "-b1 -r2 -a1 -r1 -p t +p +r1 +a2 +r2 +b1"),
        ),
    ),
    Clause(
        "external_between_regions_leaves_the_parallel",
        "A transition from one region into another leaves the parallel and enters it again (D.findLCCA).",
        chart(
            parallel("p", state("r1", state("a1", on("e", "b2", "t"))), state("r2", state("b1"), state("b2")))
        ),
        (
            start("a1 b1", "+p +r1 +a1 +r2 +b1"),
            step("e", "a1 b2", "-b1 -r2 -a1 -r1 -p t +p +r1 +a1 +r2 +b2"),
        ),
    ),
    Clause(
        "internal_to_a_descendant_stays_in_the_source",
        "An internal transition of a compound state to what is inside it does not leave it (3.5).",
        compound_with(on("e", "b", "t", internal=True)),
        (IN_COMPOUND, step("e", "b", "-a t +b")),
    ),
    Clause(
        "internal_of_a_region_leaves_the_other_alone",
        "The domain of an internal transition of a region is the region (D.getTransitionDomain).",
        chart(
            parallel(
                "p",
                state("r1", state("a1"), state("a2"), on("e", "a2", "t", internal=True)),
                state("r2", state("b1")),
            )
        ),
        (start("a1 b1", "+p +r1 +a1 +r2 +b1"), step("e", "a2 b1", "-a1 t +a2")),
    ),
    Clause(
        "internal_to_the_outside_is_external",
        "An internal transition with a target outside its source is as an external one (3.5).",
        compound_with(on("e", "x", "t", internal=True)),
        (IN_COMPOUND, step("e", "x", "-a -s t +x")),
    ),
    Clause(
        "internal_to_the_inside_and_the_outside_is_external",
        "One target outside its source makes an internal transition external, wherever its other targets are (3.5).",
        chart(
            parallel(
                "p",
                state("r1", state("s", state("a1"), state("a2"), on("e", "a2 b2", "t", internal=True))),
                state("r2", state("b1"), state("b2")),
            )
        ),
        (
            start("a1 b1", "+p +r1 +s +a1 +r2 +b1"),
            step("e", "a2 b2", "-b1 -r2 -a1 -s -r1 -p t +p +r1 +s +a2 +r2 +b2"),
        ),
    ),
    Clause(
        "internal_atomic_to_itself_stays",
        "Declared deviation: the content runs, and nothing is left or entered.",
        chart(state("a", on("e", "a", "t", internal=True, do=(Add("n", 1),))), n=0),
        (start("a", "+a"), step("e", "a", "t", variables={"n": 1})),
    ),
    Clause(
        "internal_atomic_to_itself_in_the_text",
        "In the text the source of an internal transition is compound; else it is as an external one (3.5).",
        chart(state("a", on("e", "a", "t", internal=True))),
        (start("a", "+a"), step("e", "a", "-a t +a")),
        semantics=W3C,
    ),
    Clause(
        "internal_compound_to_itself_enters_its_default",
        "Declared deviation: the source stays, what is in it is left, and its default entered, without the "
        "content of its initial transition, which belongs to the entry of the source.",
        compound_with(on("e", "s", "t", internal=True)),
        (IN_COMPOUND, TO_B, step("e", "a", "-b t +a"), step("e", "a", "-a t +a")),
    ),
    Clause(
        "internal_compound_to_itself_in_the_text",
        "In the text a state is no descendant of itself: such a transition leaves its source (D.getTransitionDomain).",
        compound_with(on("e", "s", "t", internal=True)),
        (IN_COMPOUND, TO_B, step("e", "a", "-b -s t +s init +a")),
        semantics=W3C,
    ),
    Clause(
        "internal_parallel_to_a_descendant_stays",
        "Declared deviation: the parallel stays, all in it is left, and regions without a target enter their default.",
        regions_with(on("e", "a2", "t", internal=True)),
        (IN_REGIONS, MOVED, step("e", "a2 b1", "-b2 -r2 -a1 -r1 t +r1 +a2 +r2 +b1")),
    ),
    Clause(
        "internal_parallel_to_itself_enters_its_defaults",
        "Declared deviation: the parallel stays, and all its regions are left and entered by default.",
        regions_with(on("e", "p", "t", internal=True)),
        (IN_REGIONS, MOVED, step("e", "a1 b1", "-b2 -r2 -a1 -r1 t +r1 +a1 +r2 +b1")),
    ),
    Clause(
        "internal_parallel_in_the_text",
        "In the text a transition of a parallel is external, as its source is not compound (3.5).",
        regions_with(on("e", "a2", "t", internal=True)),
        (IN_REGIONS, MOVED, step("e", "a2 b1", "-b2 -r2 -a1 -r1 -p t +p +r1 +a2 +r2 +b1")),
        semantics=W3C,
    ),
    Clause(
        "targetless_leaves_nothing",
        "A transition without a target runs its content and changes no state (3.5).",
        chart(state("s", state("a"), on("e", "", "t", do=(Add("n", 1),))), n=0),
        (start("a", "+s +a"), step("e", "a", "t", variables={"n": 1})),
    ),
]

ENTRIES = [
    Clause(
        "entry_of_a_parallel_enters_all_regions",
        "Who enters a parallel enters every child of it by default (3.4).",
        outside_of_regions("p"),
        (start("x", "+x"), step("e", "a1 b1", "-x t +p +r1 +a1 +r2 +b1")),
    ),
    Clause(
        "entry_of_one_region_enters_the_others",
        "A target inside one region enters the others by default (D.addAncestorStatesToEnter).",
        outside_of_regions("b2"),
        (start("x", "+x"), step("e", "a1 b2", "-x t +p +r1 +a1 +r2 +b2")),
    ),
    Clause(
        "entry_of_several_targets",
        "Targets in several regions are all entered, none by default (3.5).",
        outside_of_regions("b2 a2"),
        (start("x", "+x"), step("e", "a2 b2", "-x t +p +r1 +a2 +r2 +b2")),
    ),
    Clause(
        "entry_of_a_nested_parallel",
        "A deep target enters, for each parallel above it, the other children (D.addAncestorStatesToEnter).",
        chart(
            state("x", on("e", "c2", "t")),
            parallel(
                "p",
                state("r1", parallel("q", state("q1", state("c1"), state("c2")), state("q2"))),
                state("r2", state("b1")),
            ),
        ),
        (start("x", "+x"), step("e", "c2 q2 b1", "-x t +p +r1 +q +q1 +c2 +q2 +r2 +b1")),
    ),
    Clause(
        "entry_by_default_runs_the_initial_content",
        "Initial content runs after the entry handlers of its state, before the child is entered (3.6).",
        chart(
            state("x", on("e", "s", "t")),
            state(
                "s",
                state("m", state("a"), initial=goto("a", "im")),
                initial=goto("m", "is"),
                entry=((Log("more"),),),
            ),
        ),
        (start("x", "+x"), step("e", "a", "-x t +s more is +m im +a")),
    ),
    Clause(
        "entry_of_a_child_runs_no_initial_content",
        "A state entered for a target inside it does not take its initial transition (D.enterStates).",
        chart(state("x", on("e", "b", "t")), state("s", state("a"), state("b"), initial=goto("a", "never"))),
        (start("x", "+x"), step("e", "b", "-x t +s +b")),
    ),
    Clause(
        "entry_by_default_to_a_deep_descendant",
        "An initial transition may lead deeper than to a child; the states between are entered for it (3.6).",
        chart(
            state(
                "s",
                state("m", state("a"), state("b"), initial=goto("a", "never")),
                initial=goto("b", "is"),
            )
        ),
        (start("b", "+s is +m +b"),),
    ),
    Clause(
        "entry_by_default_to_several_states",
        "An initial transition may have several targets, in the regions of one parallel (3.6).",
        chart(
            state(
                "s",
                parallel("p", state("r1", state("a1"), state("a2")), state("r2", state("b1"), state("b2"))),
                initial=goto("b2 a2", "is"),
            )
        ),
        (start("a2 b2", "+s is +p +r1 +a2 +r2 +b2"),),
    ),
    Clause(
        "entry_of_the_document_by_its_initial",
        "A document starts in the states that its root names, not in its first (3.2).",
        chart(state("a"), state("s", state("b"), state("c")), initial="c"),
        (start("c", "+s +c"),),
    ),
    Clause(
        "entry_of_an_atomic_region",
        "A child of a parallel may be atomic, and is entered once (3.4).",
        chart(state("x", on("e", "b", "t")), parallel("p", state("a"), state("b"))),
        (start("x", "+x"), step("e", "a b", "-x t +p +a +b")),
    ),
]
