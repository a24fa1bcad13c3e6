"""Which transitions an event enables: names, guards, nesting, queues (sections 3.5, 3.12 and 3.13)."""

from __future__ import annotations

from tests.scxml.clause import Clause, always, chart, on, parallel, start, state, step, unaccepted
from tests.scxml.document import Add, InState, Less, Not, Raise
from tests.scxml.semantics import W3C

SELECTION = [
    Clause(
        "selection_innermost_wins",
        "A transition of a state goes before those of its ancestors (3.13; D.selectTransitions).",
        chart(state("s", state("a", on("e", "b", "inner")), state("b"), on("e", "x", "outer")), state("x")),
        (start("a", "+s +a"), step("e", "b", "-a inner +b"), step("e", "x", "-b -s outer +x")),
    ),
    Clause(
        "selection_falls_to_the_nearest_ancestor",
        "Without a match in a state its ancestors are searched, nearest first (D.selectTransitions).",
        chart(
            state("s", state("m", state("a", on("f", "a", "no")), on("e", "", "near")), on("e", "x", "far")),
            state("x"),
        ),
        (start("a", "+s +m +a"), step("e", "a", "near")),
    ),
    Clause(
        "selection_document_order_within_a_state",
        "Of several matching transitions of one state the first in document order is taken (3.13).",
        chart(state("a", on("e", "b", "t1"), on("e", "c", "t2")), state("b"), state("c")),
        (start("a", "+a"), step("e", "b", "-a t1 +b")),
    ),
    Clause(
        "selection_false_guard_falls_to_the_next",
        "A transition whose condition is false is not enabled; the next in document order may be (3.13).",
        chart(
            state("a", on("e", "b", "t1", cond=Less("n", 0)), on("e", "c", "t2")), state("b"), state("c"), n=0
        ),
        (start("a", "+a"), step("e", "c", "-a t2 +c")),
    ),
    Clause(
        "selection_false_guard_falls_to_the_ancestor",
        "A false condition in a state leaves the event to its ancestors (D.selectTransitions).",
        chart(
            state("s", state("a", on("e", "b", "t1", cond=Less("n", 0))), state("b"), on("e", "x", "t2")),
            state("x"),
            n=0,
        ),
        (start("a", "+s +a"), step("e", "x", "-a -s t2 +x")),
    ),
    Clause(
        "selection_nothing_enabled_changes_nothing",
        "An event that enables no transition is discarded (3.13).",
        chart(state("a", on("e", "b", "t")), state("b")),
        (start("a", "+a"), unaccepted("f", "a"), step("e", "b", "-a t +b"), unaccepted("e", "b")),
    ),
    Clause(
        "selection_each_atomic_state_selects",
        "Every active atomic state selects a transition, and all that do not conflict are taken (3.13).",
        chart(
            parallel(
                "p",
                state("r1", state("a1", on("e", "a2", "t1")), state("a2")),
                state("r2", state("b1", on("e", "b2", "t2")), state("b2")),
            )
        ),
        (start("a1 b1", "+p +r1 +a1 +r2 +b1"), step("e", "a2 b2", "-b1 -a1 t1 t2 +a2 +b2")),
    ),
    Clause(
        "selection_one_region_moves_alone",
        "A region without an enabled transition stays as it is (3.4).",
        chart(
            parallel("p", state("r1", state("a1")), state("r2", state("b1", on("e", "b2", "t")), state("b2")))
        ),
        (start("a1 b1", "+p +r1 +a1 +r2 +b1"), step("e", "a1 b2", "-b1 t +b2")),
    ),
    Clause(
        "selection_common_transition_is_taken_once",
        "A transition that several atomic states select is in the set once (D.selectTransitions: OrderedSet).",
        chart(parallel("p", state("r1", state("a1")), state("r2", state("b1")), on("e", "", "t"))),
        (start("a1 b1", "+p +r1 +a1 +r2 +b1"), step("e", "a1 b1", "t")),
    ),
    Clause(
        "selection_guards_see_the_configuration_before",
        "Conditions are asked before any state of the microstep is left: In() holds of where the machine was (3.13).",
        chart(
            parallel(
                "p",
                state("r1", state("a1", on("e", "a2", "t1")), state("a2")),
                state("r2", state("b1", on("e", "b2", "t2", cond=InState("a1"))), state("b2")),
                state("r3", state("c1", on("e", "c2", "t3", cond=InState("a2"))), state("c2")),
            )
        ),
        (
            start("a1 b1 c1", "+p +r1 +a1 +r2 +b1 +r3 +c1"),
            step("e", "a2 b2 c1", "-b1 -a1 t1 t2 +a2 +b2"),
            step("e", "a2 b2 c2", "-c1 t3 +c2"),
        ),
    ),
    Clause(
        "selection_guards_see_the_variables_before",
        "The content of one transition of a set changes no condition of another (D.microstep: lock step).",
        chart(
            parallel(
                "p",
                state("r1", state("a1", on("e", "a2", "t1", do=(Add("n", 1),))), state("a2")),
                state("r2", state("b1", on("e", "b2", "t2", cond=Less("n", 1))), state("b2")),
            ),
            n=0,
        ),
        (
            start("a1 b1", "+p +r1 +a1 +r2 +b1"),
            step("e", "a2 b2", "-b1 -a1 t1 t2 +a2 +b2", variables={"n": 1}),
        ),
    ),
]

NAMES = [
    Clause(
        "names_match_exactly",
        "Declared deviation from 3.12.1: a bare descriptor matches its own name alone.",
        chart(state("a", on("order.paid", "", "t"))),
        (
            start("a", "+a"),
            unaccepted("order.paid.late", "a"),
            unaccepted("order", "a"),
            step("order.paid", "a", "t"),
        ),
    ),
    Clause(
        "names_match_by_prefix_in_the_text",
        "A bare descriptor matches all names of which it is a token-wise prefix (3.12.1).",
        chart(state("a", on("order", "", "t"))),
        (
            start("a", "+a"),
            step("order", "a", "t"),
            step("order.paid", "a", "t"),
            unaccepted("orders", "a"),
        ),
        semantics=W3C,
    ),
    Clause(
        "names_match_by_dot_star",
        "`order.*` matches `order` and every name below it, token by token (3.12.1).",
        chart(state("a", on("order.*", "", "t"))),
        (
            start("a", "+a"),
            step("order.paid", "a", "t"),
            step("order.paid.late", "a", "t"),
            step("order", "a", "t"),
            unaccepted("orders", "a"),
            unaccepted("orders.paid", "a"),
        ),
    ),
    Clause(
        "names_star_matches_any",
        "`*` matches every name, with no precedence beyond document order (3.12.1).",
        chart(state("a", on("e", "", "exact"), on("*", "", "any"), on("f", "", "never"))),
        (start("a", "+a"), step("e", "a", "exact"), step("f", "a", "any")),
    ),
    Clause(
        "names_star_inside_beats_exact_outside",
        "How precise a descriptor is counts nothing against nesting (3.12.1, 3.13).",
        chart(state("s", state("a", on("*", "", "inner")), on("e", "", "outer"))),
        (start("a", "+s +a"), step("e", "a", "inner")),
    ),
    Clause(
        "names_several_descriptors",
        "A transition matches if one of its descriptors does (3.12.1).",
        chart(state("a", on("e f.*", "", "t"))),
        (start("a", "+a"), step("e", "a", "t"), step("f.g", "a", "t"), unaccepted("g", "a")),
    ),
    Clause(
        "names_star_matches_internal_events",
        "Internal events match as external ones do (3.12.1).",
        chart(state("a", on("e", "", "t1", do=(Raise("i"),)), on("*", "", "t2"))),
        (start("a", "+a"), step("e", "a", "t1 t2", raised="i")),
    ),
]

QUEUES = [
    Clause(
        "queues_eventless_needs_no_event",
        "An eventless transition is taken as soon as its condition holds, and by no event (3.13).",
        chart(
            state("a", always("b", "t2", cond=Not(Less("n", 1))), on("e", "", "t1", do=(Add("n", 1),))),
            state("b"),
            n=0,
        ),
        (start("a", "+a"), unaccepted("f", "a"), step("e", "b", "t1 -a t2 +b")),
    ),
    Clause(
        "queues_eventless_innermost_wins",
        "Eventless transitions are selected as others are: innermost first (D.selectEventlessTransitions).",
        chart(
            state(
                "s",
                state("a", always("b", "inner")),
                state("b"),
                always("x", "outer", cond=InState("a")),
            ),
            state("x"),
        ),
        (start("b", "+s +a -a inner +b"),),
    ),
    Clause(
        "queues_eventless_chains",
        "Eventless transitions are taken one microstep after the other until none is enabled (3.13).",
        chart(state("a", always("b", "t1")), state("b", always("c", "t2")), state("c")),
        (start("c", "+a -a t1 +b -b t2 +c"),),
    ),
    Clause(
        "queues_eventless_of_all_regions_in_one_microstep",
        "Every atomic state selects its eventless transition (D.selectEventlessTransitions).",
        chart(
            parallel(
                "p",
                state("r1", state("a1", always("a2", "t1")), state("a2")),
                state("r2", state("b1", always("b2", "t2")), state("b2")),
            )
        ),
        (start("a2 b2", "+p +r1 +a1 +r2 +b1 -b1 -a1 t1 t2 +a2 +b2"),),
    ),
    Clause(
        "queues_eventless_before_internal",
        "An internal event waits until no eventless transition is enabled (3.13; D.mainEventLoop).",
        chart(
            state("a", on("e", "b", "t", do=(Raise("i"),))),
            state("b", always("c", "first"), on("i", "y", "wrong")),
            state("c", on("i", "x", "then")),
            state("x"),
            state("y"),
        ),
        (start("a", "+a"), step("e", "x", "-a t +b -b first +c -c then +x", raised="i")),
    ),
    Clause(
        "queues_internal_before_external",
        "An external event is taken only when the internal queue is empty: run to completion (3.13).",
        chart(
            state("a", on("e", "b", "t1", do=(Raise("i"),))),
            state("b", on("i", "c", "t2"), on("f", "y", "wrong")),
            state("c", on("f", "x", "t3")),
            state("x"),
            state("y"),
        ),
        (start("a", "+a"), step("e", "c", "-a t1 +b -b t2 +c"), step("f", "x", "-c t3 +x")),
    ),
    Clause(
        "queues_internal_first_in_first_out",
        "Internal events are taken in the order in which they were raised, later ones behind them (3.13).",
        chart(
            state(
                "a",
                on("e", "", "t", do=(Raise("i"), Raise("j"))),
                on("i", "", "ti", do=(Raise("k"),)),
                on("j", "", "tj"),
                on("k", "", "tk"),
            )
        ),
        (start("a", "+a"), step("e", "a", "t ti tj tk", raised="i j k")),
    ),
    Clause(
        "queues_unmatched_internal_is_dropped",
        "An internal event that enables nothing is discarded, not kept for later (3.13).",
        chart(
            state("a", on("e", "b", "t1", do=(Raise("i"),))),
            state("b", on("f", "c", "t2")),
            state("c", on("i", "x", "wrong")),
            state("x"),
        ),
        (start("a", "+a"), step("e", "b", "-a t1 +b", raised="i"), step("f", "c", "-b t2 +c", raised="")),
    ),
    Clause(
        "queues_raised_in_the_order_of_the_microstep",
        "What exits raise comes before what the transition raises, and that before what entries do (D.microstep).",
        chart(
            state("a", on("e", "b", "t", do=(Raise("two"),)), exit=((Raise("one"),),)),
            state("b", on("*", "", "got"), entry=((Raise("three"),),)),
        ),
        (start("a", "+a"), step("e", "b", "-a t +b got got got", raised="one two three")),
    ),
    Clause(
        "queues_internal_events_of_the_start",
        "What the first entry raises is handled before the first event from outside (D.interpret).",
        chart(state("a", on("i", "b", "t"), entry=((Raise("i"),),)), state("b")),
        (start("b", "+a -a t +b", raised="i"),),
    ),
]
