"""The oracle does what the recommendation says, clause by clause, and keeps a machine well-formed whatever comes."""

from __future__ import annotations

import pytest

from tests.scxml.appendix_d import Oracle, TooManyMicrostepsError
from tests.scxml.clause import Clause, always, chart, state
from tests.scxml.clauses import CLAUSES
from tests.scxml.document import Document, Kind
from tests.scxml.observation import Event, Observation
from tests.scxml.semantics import Semantics


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
