"""The interpreter against the oracle: clause by clause, and on random charts with random events."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings

from statemachines.definition import OnError
from statemachines.outcome import Reason, Refused
from tests.scxml.appendix_d import Oracle, TooManyMicrostepsError
from tests.scxml.charts import scenarios
from tests.scxml.clause import Clause
from tests.scxml.clauses import CLAUSES
from tests.scxml.document import Document
from tests.scxml.observation import Observation
from tests.scxml.semantics import DEVIATING
from tests.scxml.translated import Driven, Shown, Translation, UntranslatableError

OURS = replace(
    DEVIATING,
    any_matches_failures=False,
    failed_blocks_are_undone=True,
    done_goes_upwards=True,
    microsteps_max=60,
)
"""The differences that the description of the language lists."""
FAILURE = "error.execution"


def compare(shown: Shown, seen: Observation) -> None:
    assert shown.active == seen.configuration
    assert shown.log == seen.log + seen.farewell
    assert shown.variables == seen.variables
    assert shown.history == seen.history
    assert shown.finished == seen.finished


def is_legal(document: Document, active: frozenset[str]) -> bool:
    """Whether each active state's parent is active, too."""
    parents = {child.id: node.id for node in document.root.walk() for child in node.children}
    return all(parents[one] in active | {document.root.id} for one in active)


def follow(
    document: Document,
    events: list[str],
    *,
    reload: bool,
    on_error: OnError = "refuse",
) -> int:
    """Hold a run against the oracle for as long as the chart comes to rest; how many events agreed, with the start."""
    driven = Driven(Translation(document, on_error), reload=reload)
    oracle, kept = Oracle(document, OURS), list[str]()
    agreed = 0
    for event in (None, *events):
        try:
            seen = oracle.start() if event is None else oracle.send(event)
        except TooManyMicrostepsError:
            return agreed
        before = driven.run
        shown = driven.start() if event is None else driven.send(event)
        if on_error == "refuse" and FAILURE in {one.name for one in seen.untaken}:
            # The pipeline keeps nothing of a failure that no transition takes; the text drops it and goes on.
            assert isinstance(shown.outcome, Refused)
            assert shown.outcome.reason is Reason.ACTION_FAILED
            assert driven.run is before
            if before is None:
                return agreed + 1
            oracle = after(document, kept)
        elif not is_legal(document, seen.configuration):
            # The text's own anomaly: a history that remembers within the microstep that asks for it.
            return agreed
        else:
            compare(shown, seen)
            assert is_legal(document, shown.active)
            assert shown.accepted == seen.accepted
            kept += [] if event is None else [event]
        agreed += 1
    return agreed


def after(document: Document, events: list[str]) -> Oracle:
    """An oracle that was sent these."""
    oracle = Oracle(document, OURS)
    oracle.start()
    for event in events:
        oracle.send(event)
    return oracle


def events_of(clause: Clause) -> list[str]:
    return [step.event for step in clause.steps if step.event is not None]


@pytest.mark.parametrize("on_error", ["refuse", "ignore"])
@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.name)
def test_a_run_keeps_each_clause(clause: Clause, on_error: OnError) -> None:
    agreed = follow(clause.document, events_of(clause), reload=False, on_error=on_error)
    assert agreed == len(clause.steps)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios())
def test_a_run_does_what_the_oracle_does(scenario: tuple[Document, list[str]]) -> None:
    document, events = scenario
    try:
        follow(document, events, reload=False)
    except UntranslatableError:
        assume(False)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios())
def test_a_run_that_is_loaded_again_before_each_event_does_the_same(
    scenario: tuple[Document, list[str]],
) -> None:
    document, events = scenario
    try:
        follow(document, events, reload=True)
    except UntranslatableError:
        assume(False)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios())
def test_a_run_that_drops_failures_goes_on_like_the_oracle(scenario: tuple[Document, list[str]]) -> None:
    document, events = scenario
    try:
        follow(document, events, reload=False, on_error="ignore")
    except UntranslatableError:
        assume(False)
