"""The oracle does what the recommendation says, clause by clause, and keeps a machine well-formed whatever comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import HealthCheck, given, settings

from tests.scxml import document as document_module
from tests.scxml.appendix_d import Oracle, TooManyMicrostepsError
from tests.scxml.charts import documents, scenarios
from tests.scxml.clause import Clause, always, chart, final, goto, history, on, parallel, state
from tests.scxml.clauses import CLAUSES
from tests.scxml.document import Document, HistoryType, InState, Kind, Node
from tests.scxml.observation import Event, Observation
from tests.scxml.semantics import Semantics
from tests.scxml.validity import MalformedDocumentError, validate

BOUNDED = Semantics(microsteps_max=40)
Scenario = tuple[Document, list[str]]


def play(scenario: Scenario) -> Iterator[Observation]:
    """What the oracle shows after the start and after each event, for as long as the chart comes to rest."""
    document, events = scenario
    oracle = Oracle(document, BOUNDED)
    try:
        yield oracle.start()
        for event in events:
            yield oracle.send(event)
    except TooManyMicrostepsError:
        return


class Tree:
    """The parents and the document order of a document's nodes."""

    def __init__(self, document: Document) -> None:
        self.nodes = {node.id: node for node in document.root.walk()}
        self.order = {each: place for place, each in enumerate(self.nodes)}
        self.parents = {child.id: node.id for node in self.nodes.values() for child in node.children}
        self.root = document.root.id

    def states_in(self, node: Node) -> set[str]:
        return {child.id for child in node.children if child.kind is not Kind.HISTORY}

    def below(self, each: str) -> set[str]:
        return {node.id for node in self.nodes[each].walk()} - {each}


def written(event: Event) -> str:
    data = ",".join(f"{name}={value}" for name, value in event.data)
    return f"{event.name}({data})" if data else event.name


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.name)
def test_the_oracle_holds_each_clause(clause: Clause) -> None:
    oracle = Oracle(clause.document, clause.semantics)
    for step in clause.steps:
        seen = oracle.start() if step.event is None else oracle.send(step.event)
        assert (seen.atomic, seen.log, seen.farewell) == (step.atomic, step.log, step.farewell)
        assert (seen.accepted, seen.finished) == (step.accepted, step.output is not None)
        assert step.raised is None or tuple(map(written, seen.raised)) == step.raised
        assert step.history is None or seen.history == dict(step.history)
        assert step.variables is None or seen.variables == dict(step.variables)
        assert step.output is None or seen.output == step.output
        assert seen.configuration == upwards(clause.document, seen.atomic)


def upwards(document: Document, ids: frozenset[str]) -> frozenset[str]:
    """These states and all their ancestors, without the root."""
    nodes = list(document.root.walk())
    return frozenset(
        node.id
        for node in nodes
        if node.kind is not Kind.ROOT and any(below.id in ids for below in node.walk())
    )


def test_every_clause_has_a_name_of_its_own() -> None:
    assert len({clause.name for clause in CLAUSES}) == len(CLAUSES) >= 45


def test_an_eventless_loop_ends_at_the_limit() -> None:
    endless = chart(state("a", always("b", "t1")), state("b", always("a", "t2")))
    with pytest.raises(TooManyMicrostepsError, match="More than 7 microsteps"):
        Oracle(endless, Semantics(microsteps_max=7)).start()


def test_as_many_microsteps_as_the_limit_are_taken() -> None:
    chain = chart(state("a", always("b", "t1")), state("b", always("c", "t2")), state("c"))
    seen: Observation = Oracle(chain, Semantics(microsteps_max=2)).start()
    assert seen.atomic == {"c"}


@given(scenarios())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_configuration_is_legal_after_every_event(scenario: Scenario) -> None:
    tree = Tree(scenario[0])
    for seen in play(scenario):
        active = seen.configuration | {tree.root}
        for each in seen.configuration:
            assert tree.parents[each] in active
        for node in (tree.nodes[each] for each in active):
            children = tree.states_in(node)
            if node.kind is Kind.PARALLEL:
                assert children <= active
            elif children:
                assert len(children & active) == 1
        assert seen.atomic == {each for each in seen.configuration if not tree.nodes[each].children}


@given(scenarios())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_states_are_entered_after_their_parents_and_left_before_them(scenario: Scenario) -> None:
    tree = Tree(scenario[0])
    active = {tree.root}
    for seen in play(scenario):
        _replay(tree, active, seen.log)
        assert active == seen.configuration | {tree.root}
        _replay(tree, active, seen.farewell)
        if seen.finished:
            assert active == {tree.root}
            break


def _replay(tree: Tree, active: set[str], log: tuple[str, ...]) -> None:
    for label in log:
        each = label[1:]
        if each not in tree.nodes:
            continue
        if label.startswith("+"):
            assert each not in active
            assert tree.parents[each] in active
            active.add(each)
        elif label.startswith("-"):
            assert each in active
            assert not tree.below(each) & active
            active.remove(each)


@given(scenarios())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_microstep_leaves_in_reverse_document_order_and_enters_in_document_order(
    scenario: Scenario,
) -> None:
    order = Tree(scenario[0]).order
    for count, seen in enumerate(play(scenario)):
        moves: list[str] = []
        for microstep in seen.microsteps:
            left, entered = (
                [order[each] for each in microstep.exited],
                [order[each] for each in microstep.entered],
            )
            assert left == sorted(set(left), reverse=True)
            assert entered == sorted(set(entered))
            moves += [f"-{each}" for each in microstep.exited] + [f"+{each}" for each in microstep.entered]
        logged = [label for label in seen.log if label[0] in "+-" and label[1:] in order]
        started_with = len(logged) - len(moves)
        assert logged[started_with:] == moves
        assert started_with == 0 or count == 0


@given(scenarios())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_history_remembers_only_what_its_parent_holds(scenario: Scenario) -> None:
    tree = Tree(scenario[0])
    for seen in play(scenario):
        for each, value in seen.history.items():
            parent = tree.nodes[tree.parents[each]]
            assert value
            if tree.nodes[each].history_type is HistoryType.SHALLOW:
                assert value <= tree.states_in(parent)
                assert len(value) == 1 or parent.kind is Kind.PARALLEL
            else:
                assert value <= tree.below(parent.id)
                assert all(not tree.nodes[below].children for below in value)


@given(scenarios())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_machine_has_finished_when_a_final_child_of_the_root_is_active(scenario: Scenario) -> None:
    root = scenario[0].root
    ends = {child.id for child in root.children if child.kind is Kind.FINAL}
    for seen in play(scenario):
        assert seen.finished == bool(ends & seen.configuration)


@given(scenarios())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_event_that_enables_nothing_changes_nothing(scenario: Scenario) -> None:
    before: Observation | None = None
    for seen in play(scenario):
        if before is not None and not seen.accepted:
            assert (seen.log, seen.farewell, seen.raised, seen.untaken, seen.microsteps) == ((),) * 5
            unchanged = replace(
                before, log=(), farewell=(), raised=(), untaken=(), microsteps=(), accepted=False
            )
            assert seen == unchanged
        before = seen


@given(scenarios())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_equal_events_lead_to_equal_observations(scenario: Scenario) -> None:
    assert list(play(scenario)) == list(play(scenario))


@given(documents())
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_printed_document_is_python_for_it(document: Document) -> None:
    assert eval(repr(document), vars(document_module)) == document


def test_random_charts_reach_what_is_to_be_tested() -> None:
    reached: set[str] = set()

    @given(scenarios())
    @settings(
        max_examples=300,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def explore(scenario: Scenario) -> None:
        reached.update(chain.from_iterable(_features(scenario)))

    explore()
    assert reached >= {
        "accepted",
        "at rest",
        "done of a compound",
        "done of a parallel",
        "error",
        "eventless",
        "finished",
        "moved in several regions",
        "remembered shallow",
        "remembered deep",
        "several events in a macrostep",
        "without end",
    }


def _features(scenario: Scenario) -> Iterator[set[str]]:
    tree = Tree(scenario[0])
    observations = list(play(scenario))
    yield {"at rest" if len(observations) == len(scenario[1]) + 1 else "without end"}
    for seen in observations:
        yield {"accepted"} if seen.accepted else set()
        yield {"finished"} if seen.finished else set()
        yield {"remembered " + str(tree.nodes[each].history_type) for each in seen.history}
        yield {"error" for event in seen.raised if event.name == "error.execution"}
        done = [e.name.removeprefix("done.state.") for e in seen.raised if e.name.startswith("done.state.")]
        yield {f"done of a {tree.nodes[each].kind}" for each in done}
        names = [microstep.event for microstep in seen.microsteps]
        yield {"eventless" for name in names if name is None}
        yield {"several events in a macrostep"} if len(set(names) - {None}) > 1 else set()
        several = [step for step in seen.microsteps if len({tree.parents[each] for each in step.entered}) > 1]
        yield {"moved in several regions"} if several else set()


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        (chart(state("a"), state("a")), "two nodes with one id"),
        (chart(state("a", on("e", "b", "t"))), "which is no state"),
        (chart(parallel("p")), "has no states in it"),
        (
            chart(state("s", history("h", "a"), state("a")), state("b", on("e", "s a", "t"))),
            "inside the other",
        ),
        (chart(state("s", state("a"), state("b"), on("e", "a b", "t"))), "in one region"),
        (chart(parallel("p", final("f"))), "cannot have 'f' as a child"),
        (chart(state("s", state("a"), initial=goto("x")), state("x")), "as a default outside of it"),
        (chart(state("s", state("m", state("a")), history("h", "a"))), "is no sibling"),
        (chart(state("a", on("e", "", "t", cond=InState("b")))), "asks for 'b'"),
        (
            chart(parallel("p", state("r", state("a")), state("q"), history("h", "r"), on("e", "h a", "t"))),
            "inside the other",
        ),
    ],
)
def test_a_malformed_document_is_refused(document: Document, complaint: str) -> None:
    with pytest.raises(MalformedDocumentError, match=complaint):
        validate(document)
