"""Completion, and what a failure does (3.4, 3.7, 3.13, 4; D.enterStates, D.isInFinalState, D.exitInterpreter)."""

from __future__ import annotations

from tests.scxml.clause import Clause, always, chart, final, goto, on, parallel, start, state, step
from tests.scxml.document import Add, Document, Fail, InState, Log, LogData, Node, Raise
from tests.scxml.semantics import Semantics


def completing(*more: Node, second_event: str = "e") -> Document:
    """A parallel `p` of two regions, completed by `e` and by the second event; `done.state.p` leads to `x`."""
    return chart(
        parallel(
            "p",
            state("r1", state("a1", on("e", "fa", "t1")), final("fa")),
            state("r2", state("b1", on(second_event, "fb", "t2")), final("fb")),
            *more,
            on("done.state.p", "x", "tp"),
        ),
        state("x"),
    )


def nested_region(*, parallel_first: bool, last: str = "e") -> Document:
    """A parallel whose regions are a compound `r1` and a parallel `q`; `e` and `last` complete everything."""
    r1 = state("r1", state("a1", on("e", "fa", "t1")), final("fa"))
    q = parallel(
        "q",
        state("q1", state("c1", on("e", "fc", "t2")), final("fc")),
        state("q2", state("d1", on(last, "fd", "t3")), final("fd")),
    )
    return chart(parallel("p", *((q, r1) if parallel_first else (r1, q))))


IN_REGIONS = start("a1 b1", "+p +r1 +a1 +r2 +b1")

DONE = [
    Clause(
        "done_of_a_compound",
        "The entry into a final child raises `done.state.` and the id of its parent (3.7).",
        chart(
            state("s", state("a", on("e", "f", "t")), final("f"), on("done.state.s", "x", "td")), state("x")
        ),
        (start("a", "+s +a"), step("e", "x", "-a t +f -f -s td +x", raised="done.state.s")),
    ),
    Clause(
        "done_of_a_compound_that_starts_final",
        "So does a final state that is entered by default (3.7).",
        chart(state("s", final("f"), on("done.state.s", "x", "td")), state("x")),
        (start("x", "+s +f -f -s td +x", raised="done.state.s"),),
    ),
    Clause(
        "done_carries_data",
        "A done event carries the data of the final state, as they are once its entry handlers have run (3.7, 5.5).",
        chart(
            state("s", state("a", on("e", "f", "t")), final("f", "n m", entry=((Add("n", 1),),))), n=1, m=5
        ),
        (start("a", "+s +a"), step("e", "f", "-a t +f", raised="done.state.s(n=2,m=5)")),
    ),
    Clause(
        "done_comes_behind_what_was_raised",
        "A done event is raised after the entry handlers of the final state, at the end of the queue (D.enterStates).",
        chart(
            state(
                "s",
                state("a", on("e", "f", "t", do=(Raise("i"),))),
                final("f", entry=((Raise("j"),),)),
                on("done.state.s", "x", "td"),
                on("*", "", "any"),
            ),
            state("x"),
        ),
        (start("a", "+s +a"), step("e", "x", "-a t +f any any -f -s td +x", raised="i j done.state.s")),
    ),
    Clause(
        "done_waits_for_eventless",
        "A done event is an internal event: eventless transitions go before it (D.mainEventLoop).",
        chart(
            state(
                "s",
                state("a", on("e", "f", "t")),
                final("f"),
                always("y", "first", cond=InState("f")),
                on("done.*", "x", "td"),
            ),
            state("x"),
            state("y"),
        ),
        (start("a", "+s +a"), step("e", "y", "-a t +f -f -s first +y", raised="done.state.s")),
    ),
    Clause(
        "done_of_the_parent_only",
        "The completion of a child compound does not complete the compound around it (3.7).",
        chart(state("s", state("m", state("a", on("e", "f", "t")), final("f")))),
        (start("a", "+s +m +a"), step("e", "f", "-a t +f", raised="done.state.m")),
    ),
    Clause(
        "done_of_a_parallel",
        "When all children of a parallel are in final states, its own done event follows that of the last (3.4).",
        completing(),
        (
            IN_REGIONS,
            step(
                "e",
                "x",
                "-b1 -a1 t1 t2 +fa +fb -fb -r2 -fa -r1 -p tp +x",
                raised="done.state.r1 done.state.r2 done.state.p",
            ),
        ),
    ),
    Clause(
        "done_of_a_parallel_carries_nothing",
        "The data of a final state are those of its parent's done event alone: that of the parallel state around has "
        "none (3.4; D.enterStates).",
        chart(
            parallel(
                "p",
                state("r1", state("a1", on("e", "fa", "t1")), final("fa", "n")),
                state("r2", state("b1", on("e", "fb", "t2")), final("fb", "m")),
                on("done.state.*", "", "td", do=(LogData(),)),
            ),
            n=1,
            m=2,
        ),
        (
            IN_REGIONS,
            step(
                "e",
                "fa fb",
                "-b1 -a1 t1 t2 +fa +fb td [n=1] td [m=2] td []",
                raised="done.state.r1(n=1) done.state.r2(m=2) done.state.p",
            ),
        ),
    ),
    Clause(
        "done_of_a_parallel_waits_for_all_regions",
        "While one child is not in a final state, only the done events of the others are raised (3.4).",
        completing(second_event="g"),
        (
            IN_REGIONS,
            step("e", "fa b1", "-a1 t1 +fa", raised="done.state.r1"),
            step("g", "x", "-b1 t2 +fb -fb -r2 -fa -r1 -p tp +x", raised="done.state.r2 done.state.p"),
        ),
    ),
    Clause(
        "done_of_a_parallel_needs_every_child",
        "An atomic child of a parallel is never in a final state (D.isInFinalState).",
        completing(state("r3")),
        (
            start("a1 b1 r3", "+p +r1 +a1 +r2 +b1 +r3"),
            step("e", "fa fb r3", "-b1 -a1 t1 t2 +fa +fb", raised="done.state.r1 done.state.r2"),
        ),
    ),
    Clause(
        "done_of_a_parallel_with_a_parallel_that_completes_first",
        "A child that is a parallel is in a final state when all its children are (D.isInFinalState).",
        nested_region(parallel_first=True),
        (
            start("c1 d1 a1", "+p +q +q1 +c1 +q2 +d1 +r1 +a1"),
            step(
                "e",
                "fc fd fa",
                "-a1 -d1 -c1 t2 t3 t1 +fc +fd +fa",
                raised="done.state.q1 done.state.q2 done.state.q done.state.r1 done.state.p",
            ),
        ),
    ),
    Clause(
        "done_of_a_parallel_with_a_parallel_half_complete",
        "A child that is a parallel is in a final state only when all its children are (D.isInFinalState).",
        nested_region(parallel_first=True, last="g"),
        (
            start("c1 d1 a1", "+p +q +q1 +c1 +q2 +d1 +r1 +a1"),
            step("e", "fc d1 fa", "-a1 -c1 t2 t1 +fc +fa", raised="done.state.q1 done.state.r1"),
        ),
    ),
    Clause(
        "done_of_a_parallel_with_a_parallel_that_completes_last",
        "Only the parent and the grandparent of the final state are looked at: the algorithm raises no done event "
        "of a parallel whose last child to complete is itself a parallel (D.enterStates).",
        nested_region(parallel_first=False),
        (
            start("a1 c1 d1", "+p +r1 +a1 +q +q1 +c1 +q2 +d1"),
            step(
                "e",
                "fa fc fd",
                "-d1 -c1 -a1 t1 t2 t3 +fa +fc +fd",
                raised="done.state.r1 done.state.q1 done.state.q2 done.state.q",
            ),
        ),
    ),
    Clause(
        "done_of_the_root",
        "The entry into a final child of the root ends the machine, which leaves all states (3.7; D.exitInterpreter).",
        chart(state("a", on("e", "f", "t")), final("f")),
        (
            start("a", "+a"),
            step("e", "f", "-a t +f", raised="", output={}, farewell="-f"),
            step("e", "f", "", accepted=False, output={}),
        ),
    ),
    Clause(
        "done_of_the_root_carries_data",
        "What the machine returns are the data of its top-level final state (5.5; D.exitInterpreter).",
        chart(state("a", on("e", "f", "t", do=(Add("n", 4),))), final("f", "n"), n=1),
        (start("a", "+a"), step("e", "f", "-a t +f", output={"n": 5}, farewell="-f")),
    ),
    Clause(
        "done_of_the_root_comes_before_a_failure_is_taken",
        "Nor is `error.execution`: what the transition that ends the machine does wrong is taken by nothing.",
        chart(state("a", on("e", "f", "t", do=(Fail(),)), on("error.execution", "", "te")), final("f")),
        (start("a", "+a"), step("e", "f", "-a t +f", raised="error.execution", output={}, farewell="-f")),
    ),
    Clause(
        "done_of_the_root_ends_the_macrostep",
        "Internal events that wait when the machine ends are never taken (D.mainEventLoop).",
        chart(state("a", on("e", "f", "t", do=(Raise("i"), Raise("j")))), final("f")),
        (start("a", "+a"), step("e", "f", "-a t +f", raised="i j", output={}, farewell="-f")),
    ),
    Clause(
        "done_of_the_root_at_the_start",
        "A machine may end in the macrostep of its start (D.interpret).",
        chart(state("a", always("f", "t")), final("f")),
        (step(None, "f", "+a -a t +f", output={}, farewell="-f"),),
    ),
]

FAILURES = [
    Clause(
        "failure_skips_the_rest_of_its_block",
        "What comes after a failure in its block is skipped, and what came before stays; the transition goes on (4).",
        chart(
            state("a", on("e", "b", "t", do=(Add("n", 1), Fail(), Log("never"), Add("n", 1)))),
            state("b"),
            n=0,
        ),
        (start("a", "+a"), step("e", "b", "-a t +b", raised="error.execution", variables={"n": 1})),
    ),
    Clause(
        "failure_raises_an_internal_event",
        "A failure raises `error.execution` in the internal queue, where transitions may take it (3.12.2).",
        chart(
            state("a", on("e", "b", "t", do=(Fail(),))),
            state("b", on("error.execution", "c", "te")),
            state("c"),
        ),
        (start("a", "+a"), step("e", "c", "-a t +b -b te +c", raised="error.execution")),
    ),
    Clause(
        "failure_matches_by_prefix",
        "`error.*` takes it too (3.12.1).",
        chart(state("a", on("e", "", "t", do=(Fail(),)), on("error.*", "", "te"))),
        (start("a", "+a"), step("e", "a", "t te")),
    ),
    Clause(
        "failure_that_nobody_takes_is_dropped",
        "If no transition takes `error.execution`, it is discarded as any event (3.12.2).",
        chart(state("a", on("e", "", "t", do=(Fail(),)), on("f", "", "u"))),
        (start("a", "+a"), step("e", "a", "t", raised="error.execution"), step("f", "a", "u", raised="")),
    ),
    Clause(
        "failure_queues_behind_what_was_raised",
        "`error.execution` goes to the end of the queue, as events raised before the failure stand there (3.13).",
        chart(
            state("a", on("e", "b", "t", do=(Raise("i"),))),
            state("b", on("i", "", "ti"), on("error.execution", "", "te"), entry=((Fail(), Raise("never")),)),
        ),
        (start("a", "+a"), step("e", "b", "-a t +b ti te", raised="i error.execution")),
    ),
    Clause(
        "failure_of_one_handler_spares_the_next",
        "Each handler is a block of its own: a failure in one does not skip the next (3.8, 3.9).",
        chart(
            state("a", on("e", "b", "t"), exit=((Fail(), Log("never")), (Log("still"),))),
            state("b", entry=((Log("one"), Fail(), Log("never")), (Log("two"),))),
        ),
        (start("a", "+a"), step("e", "b", "-a still t +b one two", raised="error.execution error.execution")),
    ),
    Clause(
        "failure_of_one_transition_spares_the_others",
        "A failure in the content of one transition does not skip that of another (D.executeTransitionContent).",
        chart(
            parallel(
                "p",
                state("r1", state("a1", on("e", "a2", "t1", do=(Fail(),))), state("a2")),
                state("r2", state("b1", on("e", "b2", "t2", do=(Log("still"),))), state("b2")),
            )
        ),
        (IN_REGIONS, step("e", "a2 b2", "-b1 -a1 t1 t2 still +a2 +b2", raised="error.execution")),
    ),
    Clause(
        "failure_of_initial_content",
        "The content of an initial transition is a block too: its failure does not keep the child from being entered.",
        chart(state("s", state("a"), initial=goto("a", "init", do=(Fail(), Log("never"))))),
        (step(None, "a", "+s init +a", raised="error.execution"),),
    ),
    Clause(
        "failure_that_is_undone",
        "With `failed_blocks_are_undone`, nothing of the failed block remains but `error.execution`.",
        chart(
            state("a", on("e", "b", "undone", do=(Add("n", 1), Raise("i"), Fail()))),
            state("b", entry=((Log("kept"),),)),
            n=0,
        ),
        (start("a", "+a"), step("e", "b", "-a +b kept", raised="error.execution", variables={"n": 0})),
        semantics=Semantics(failed_blocks_are_undone=True),
    ),
]
