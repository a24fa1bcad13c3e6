"""Which of the enabled transitions are taken: conflicts and preemption (3.13; D.removeConflictingTransitions)."""

from __future__ import annotations

from tests.scxml.clause import Clause, always, chart, on, parallel, start, state, step
from tests.scxml.document import Node, Transition

INTO = "+p +r1 +a1 +r2 +b1"
OUT = "-b1 -r2 -a1 -r1 -p"


def two_regions(
    *parts: Node | Transition, a1: tuple[Transition, ...] = (), b1: tuple[Transition, ...] = ()
) -> Node:
    """A parallel `p` of the regions `r1`, with the states `a1` and `a2`, and `r2`, with `b1` and `b2`."""
    return parallel(
        "p", state("r1", state("a1", *a1), state("a2")), state("r2", state("b1", *b1), state("b2")), *parts
    )


CONFLICTS = [
    Clause(
        "conflict_descendant_preempts_ancestor",
        "If exit sets intersect, a transition goes before one of an ancestor of its source.",
        chart(two_regions(on("e", "x", "outer"), a1=(on("e", "a2", "inner"),)), state("x")),
        (start("a1 b1", INTO), step("e", "a2 b1", "-a1 inner +a2")),
    ),
    Clause(
        "conflict_descendant_preempts_ancestor_selected_before",
        "It does so too where an earlier region selected the ancestor's: that one is removed again.",
        chart(two_regions(on("e", "x", "outer"), b1=(on("e", "b2", "inner"),)), state("x")),
        (start("a1 b1", INTO), step("e", "a1 b2", "-b1 inner +b2")),
    ),
    Clause(
        "conflict_document_order_otherwise",
        "If neither source is inside the other, the one selected by the earlier state is taken.",
        chart(two_regions(a1=(on("e", "x", "t1"),), b1=(on("e", "y", "t2"),)), state("x"), state("y")),
        (start("a1 b1", INTO), step("e", "x", f"{OUT} t1 +x")),
    ),
    Clause(
        "conflict_leaving_before_staying",
        "A transition out of the parallel in an earlier region preempts one inside a later region.",
        chart(two_regions(a1=(on("e", "x", "t1"),), b1=(on("e", "b2", "t2"),)), state("x")),
        (start("a1 b1", INTO), step("e", "x", f"{OUT} t1 +x")),
    ),
    Clause(
        "conflict_staying_before_leaving",
        "And one inside an earlier region preempts one that leaves the parallel from a later region.",
        chart(two_regions(a1=(on("e", "a2", "t1"),), b1=(on("e", "x", "t2"),)), state("x")),
        (start("a1 b1", INTO), step("e", "a2 b1", "-a1 t1 +a2")),
    ),
    Clause(
        "conflict_preempted_is_not_replaced",
        "A state whose transition is preempted selects no other: its ancestors are not asked again.",
        chart(
            parallel(
                "p",
                state("r1", state("a1", on("e", "a2", "t1")), state("a2")),
                state("r2", state("b1", on("e", "x", "t2")), state("b2"), on("e", "", "never")),
            ),
            state("x"),
        ),
        (start("a1 b1", INTO), step("e", "a2 b1", "-a1 t1 +a2")),
    ),
    Clause(
        "conflict_only_the_conflicting_one_is_dropped",
        "Of three regions, that in the middle is preempted; the third, which conflicts with it alone, is taken.",
        chart(
            parallel(
                "p",
                state("r1", state("a1", on("e", "a2", "t1")), state("a2")),
                state("r2", state("b1", on("e", "x", "t2"))),
                state("r3", state("c1", on("e", "c2", "t3")), state("c2")),
            ),
            state("x"),
        ),
        (
            start("a1 b1 c1", "+p +r1 +a1 +r2 +b1 +r3 +c1"),
            step("e", "a2 b1 c2", "-c1 -a1 t1 t3 +a2 +c2"),
        ),
    ),
    Clause(
        "conflict_preempted_removes_nothing",
        "A transition that is itself preempted does not remove those that it would preempt.",
        chart(
            parallel(
                "p",
                state("r0", state("c1", on("e", "c2", "t0")), state("c2")),
                state(
                    "r1",
                    parallel(
                        "q",
                        state("q1", state("qa")),
                        state("q2", state("qb", on("e", "x", "away"))),
                        on("e", "z", "tq"),
                    ),
                    state("z"),
                ),
            ),
            state("x"),
        ),
        (
            start("c1 qa qb", "+p +r0 +c1 +r1 +q +q1 +qa +q2 +qb"),
            step("e", "c2 z", "-qb -q2 -qa -q1 -q -c1 t0 tq +c2 +z"),
        ),
    ),
    Clause(
        "conflict_targetless_conflicts_with_none",
        "A targetless transition has an empty exit set, and is taken beside one that leaves its source.",
        chart(two_regions(a1=(on("e", "", "t1"),), b1=(on("e", "x", "t2"),)), state("x")),
        (start("a1 b1", INTO), step("e", "x", f"{OUT} t1 t2 +x")),
    ),
    Clause(
        "conflict_targetless_ancestor_beside_a_region",
        "A region's transition and the parallel's targetless one, selected by another region, are both taken.",
        chart(two_regions(on("e", "", "tp"), a1=(on("e", "a2", "t1"),))),
        (start("a1 b1", INTO), step("e", "a2 b1", "-a1 t1 tp +a2")),
    ),
    Clause(
        "conflict_content_in_the_order_of_selection",
        "Contents run in document order of the atomic states that selected them, not of their sources (D.microstep).",
        chart(two_regions(on("e", "", "tp"), b1=(on("e", "b2", "t2"),))),
        (start("a1 b1", INTO), step("e", "a1 b2", "-b1 tp t2 +b2")),
    ),
    Clause(
        "conflict_between_regions_across",
        "A transition into another region leaves the parallel, whose exit set meets that of the other region's.",
        chart(two_regions(a1=(on("e", "b2", "across"),), b1=(on("e", "b2", "own"),))),
        (start("a1 b1", INTO), step("e", "a1 b2", f"{OUT} across +p +r1 +a1 +r2 +b2")),
    ),
    Clause(
        "conflict_among_eventless",
        "Eventless transitions conflict as others do; one that was preempted may be taken in the next microstep.",
        chart(two_regions(a1=(always("a2", "t1"),), b1=(always("x", "t2"),)), state("x")),
        (start("x", f"{INTO} -a1 t1 +a2 -b1 -r2 -a2 -r1 -p t2 +x"),),
    ),
    Clause(
        "conflict_internal_to_its_own_source_leaves_nothing",
        "Declared deviation: an internal transition of an atomic state to itself has an empty exit set.",
        chart(two_regions(a1=(on("e", "a1", "t1", internal=True),), b1=(on("e", "x", "t2"),)), state("x")),
        (start("a1 b1", INTO), step("e", "x", f"{OUT} t1 t2 +x")),
    ),
]
