"""Where ``python-statemachine`` 3.2 and a pipeline differ: the whole list, each with a chart that shows it.

The recommendation decides, as the transcription of its appendix D says it; but for the declared deviations of
pipelines, which are at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.scxml.clause import chart, final, goto, history, on, parallel, state
from tests.scxml.document import Add, Document, Fail, Node, Raise, Transition


@dataclass(frozen=True, slots=True)
class Difference:
    """A chart, events for it, and what the library shows after the last one."""

    name: str
    clause: str
    """Of the recommendation, which decides it."""
    document: Document
    events: str
    atomic: str
    """The innermost active states, there."""
    log: str
    """Of the last event alone (of the start, without events), there."""
    finished: bool = False
    deviates: bool = False
    """Whether it is the pipeline that deviates from the recommendation, as declared, and the library that does not."""
    unsaid: bool = False
    """A pipeline has no words for the chart: the oracle speaks alone."""


def regions(a: tuple[Node | Transition, ...], b: tuple[Node | Transition, ...], *parts: Transition) -> Node:
    return parallel("p", state("r1", *a), state("r2", *b), *parts)


THEIRS = (
    Difference(
        "states_are_entered_level_by_level",
        "D.enterStates, 3.13: states are entered in entry order, which is document order, ancestors first. "
        "The library numbers each level from its parent on, so that cousins share numbers.",
        chart(regions((state("a1", state("a2")),), (state("b1"),))),
        "",
        "a2 b1",
        "+p +r1 +a1 +r2 +a2 +b1",
    ),
    Difference(
        "so_events_are_raised_in_another_order",
        "The same: what is raised on entry stands in the queue in document order, and the first decides.",
        chart(
            regions(
                (state("a1", state("a2", state("a3", entry=((Raise("i"),),)))),),
                (state("b1", entry=((Raise("j"),),)),),
                on("i", "x", "i"),
                on("j", "y", "j"),
            ),
            state("x"),
            state("y"),
        ),
        "",
        "y",
        "+p +r1 +a1 +r2 +a2 +b1 +a3 -a3 -a2 -b1 -a1 -r2 -r1 -p j +y",
    ),
    Difference(
        "states_are_left_level_by_level",
        "D.exitStates, 3.13: states are left in exit order, which is document order turned round.",
        chart(regions((state("a1", state("a2")),), (state("b1"),), on("e", "x", "t")), state("x")),
        "e",
        "x",
        "-a2 -b1 -a1 -r2 -r1 -p t +x",
    ),
    Difference(
        "conflicts_go_to_the_state_that_was_entered_first",
        "D.selectTransitions sorts the atomic states in document order, and D.removeConflictingTransitions prefers "
        "what was selected by the earlier one. The library takes them as they were entered.",
        chart(
            regions(
                (state("a1", on("e", "a2", "t")), state("a2", on("f", "x", "left"))),
                (state("b1", on("f", "y", "right")),),
            ),
            state("x"),
            state("y"),
        ),
        "e f",
        "y",
        "-b1 -a2 -r2 -r1 -p right +y",
    ),
    Difference(
        "children_are_sorted_by_what_they_are",
        "3.13, document order: SCXML is read with plain states first, then final ones, parallel ones and histories.",
        chart(parallel("p", parallel("q", state("q1"), state("q2")), state("r"))),
        "",
        "q1 q2 r",
        "+p +r +q +q1 +q2",
    ),
    Difference(
        "a_transition_to_a_history_is_done_twice",
        "D.addDescendantStatesToEnter notes the content of the history's own default transition, and that only where "
        "nothing is remembered. The library does the content of the transition that led there once more on entry.",
        chart(
            state("s", state("a"), state("b"), history("h", "a", "d"), on("e", "x", "out")),
            state("x", on("e", "h", "back")),
        ),
        "e e",
        "a",
        "-x back +s back +a",
    ),
    Difference(
        "a_default_history_enters_one_of_its_targets",
        "D.addDescendantStatesToEnter adds each target of the history's default transition.",
        chart(
            state("x", on("e", "h", "in")),
            parallel(
                "p",
                state("r1", state("a1"), state("a2")),
                state("r2", state("b1"), state("b2")),
                history("h", "a2 b2", "d", deep=True),
            ),
        ),
        "e",
        "a2 b1",
        "-x in +p in d +r1 +r2 +a2 +b1",
    ),
    Difference(
        "an_initial_transition_further_inside_does_nothing_else",
        "D.enterStates executes the content of the initial transition of each state that is entered by default. The "
        "library adds one to the first child, and then does neither's.",
        chart(state("s", state("a", state("b"), state("c")), initial=goto("c", "i"))),
        "",
        "c",
        "+s +a +c",
    ),
    Difference(
        "nor_does_one_past_which_another_leads",
        "The same: to the library a state is an initial one of its parent because a transition further out names it.",
        chart(
            state(
                "s",
                state("a", state("b"), state("c", on("e", "a", "t")), initial=goto("b", "i")),
                initial=goto("c"),
            )
        ),
        "e",
        "b",
        "-c -a t +a +b",
    ),
    Difference(
        "a_chart_that_begins_in_two_regions_has_two_states_in_one",
        "D.interpret, 3.2: the targets of the initial transition are entered together; 3.11: a legal configuration has "
        "one child of each compound state.",
        chart(
            parallel("p", state("r1", state("a1"), state("a2")), state("r2", state("b1"), state("b2"))),
            initial="a2 b2",
        ),
        "",
        "a2 b1 b2",
        "+p +r1 +r2 +a2 +b1 +b2",
        unsaid=True,
    ),
    Difference(
        "a_done_parallel_at_the_top_ends_the_chart",
        "D.enterStates: only a final child of <scxml> ends it; a parallel state that is done raises its done event.",
        chart(
            parallel(
                "p",
                state("r1", state("a", on("e", "f1", "t1")), final("f1")),
                state("r2", state("b", on("e", "f2", "t2")), final("f2")),
                on("g", "x", "t3"),
            ),
            state("x"),
        ),
        "e g",
        "f1 f2",
        "",
        finished=True,
    ),
    Difference(
        "states_are_not_left_at_the_end",
        "D.exitInterpreter: a chart that ends does the exit handlers of all its active states.",
        chart(state("a", on("e", "f", "t")), final("f")),
        "e",
        "f",
        "-a t +f",
        finished=True,
    ),
    Difference(
        "an_internal_transition_to_itself_enters_what_it_does_not_leave",
        "3.5, D.getTransitionDomain: what is left and what is entered have one domain. (The text leaves and enters the "
        "state; a pipeline, as declared, does neither.)",
        chart(state("a", on("e", "a", "t", internal=True))),
        "e",
        "a",
        "t +a",
    ),
    Difference(
        "a_failure_on_an_error_event_is_forgotten",
        "3.12.2, 4.9: an error in executable content raises error.execution, whatever the event is. The library goes "
        "back to the states before, and says nothing.",
        chart(
            state("a", on("e", "b", "t", do=(Raise("error.execution"),))),
            state("b", on("error.execution", "c", "caught", do=(Fail(),))),
            state("c", on("error.execution", "d", "again")),
            state("d"),
        ),
        "e",
        "b",
        "-a t +b -b caught",
    ),
)
OURS = (
    Difference(
        "a_name_is_no_prefix",
        "3.12.1: a descriptor matches all names that begin with its tokens; a pipeline asks for `x.*`.",
        chart(state("a", on("x", "b", "t")), state("b")),
        "x.y",
        "b",
        "-a t +b",
        deviates=True,
    ),
    Difference(
        "an_internal_transition_stays_in_a_parallel_state",
        "3.5, D.getTransitionDomain: internal only where the source is compound; a pipeline stays in any source.",
        chart(parallel("p", state("r1"), state("r2"), on("e", "r1", "t", internal=True))),
        "e",
        "r1 r2",
        "-r2 -r1 -p t +p +r1 +r2",
        deviates=True,
    ),
    Difference(
        "a_block_that_fails_is_undone",
        "4.9: the rest of the block is skipped, and what came before it stays; a pipeline undoes it.",
        chart(
            state("a", on("e", "b", "t", do=(Add("n", 1), Fail()))),
            state("b", on("error.execution", "c", "caught")),
            state("c"),
            n=0,
        ),
        "e",
        "c",
        "-a t +b -b caught +c",
        deviates=True,
    ),
)
DIFFERENCES = (*THEIRS, *OURS)
