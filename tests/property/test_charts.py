"""The interpreter against the oracle: clause by clause, and on random charts with random events."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from statemachines.definition import OnError
from statemachines.outcome import Reason, Refused
from tests.scxml.appendix_d import Oracle, TooManyMicrostepsError
from tests.scxml.charts import numbered, scenarios
from tests.scxml.clause import Clause
from tests.scxml.clauses import CLAUSES
from tests.scxml.document import Document
from tests.scxml.lived import Lived
from tests.scxml.observation import Observation
from tests.scxml.semantics import DEVIATING
from tests.scxml.translated import Driven, Shown, Translation

OURS = replace(
    DEVIATING,
    any_matches_failures=False,
    failed_blocks_are_undone=True,
    done_goes_upwards=True,
    microsteps_max=60,
)
"""The differences that the description of the language lists."""
FAILURE = "error.execution"
ON_ERROR: tuple[OnError, ...] = ("refuse", "ignore")


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


def follow(document: Document, events: list[str], on_error: OnError) -> list[Observation]:
    """Hold a run against the oracle for as long as the chart comes to rest; what agreed, the start included."""
    driven = Driven(Translation(document, on_error))
    oracle, kept = Oracle(document, OURS), list[str]()
    agreed: list[Observation] = []
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
                return [*agreed, seen]
            oracle = after(document, kept)
        elif not is_legal(document, seen.configuration):
            # The text's own anomaly: a history that remembers within the microstep that asks for it.
            return agreed
        else:
            compare(shown, seen)
            assert is_legal(document, shown.active)
            assert shown.accepted == seen.accepted
            kept += [] if event is None else [event]
        agreed.append(seen)
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


@pytest.mark.parametrize("on_error", ON_ERROR)
@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.name)
def test_a_run_keeps_each_clause(clause: Clause, on_error: OnError) -> None:
    assert len(follow(clause.document, events_of(clause), on_error)) == len(clause.steps)


@pytest.mark.parametrize("on_error", ON_ERROR)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenario=scenarios())
def test_a_run_does_what_the_oracle_does(on_error: OnError, scenario: tuple[Document, list[str]]) -> None:
    follow(*scenario, on_error)


@pytest.mark.parametrize("on_error", ON_ERROR)
@pytest.mark.parametrize("numbers", [range(150), pytest.param(range(6_000), marks=pytest.mark.long)], ids=str)
def test_a_run_does_what_the_oracle_does_on_each_of_many_charts(numbers: range, on_error: OnError) -> None:
    seen: list[Observation] = []
    for number in numbers:
        with numbered(number) as (document, events):
            seen += follow(document, events, on_error)
    # What is compared is enough, and of every kind.
    assert len(seen) > 9 * len(numbers)
    assert sum(one.accepted for one in seen) > 2 * len(numbers)
    kinds = Counter(event.name.partition(".")[0] for one in seen for event in one.raised)
    kinds["history"] = sum(bool(one.history) for one in seen)
    kinds["macrostep"] = sum(len(one.microsteps) > 2 for one in seen)
    kinds["untaken"] = sum(FAILURE in {event.name for event in one.untaken} for one in seen)
    wanted = {"done", "error", "i", "history", "macrostep", "untaken"}
    assert {kind for kind in wanted if kinds[kind] > len(numbers) / 8} == wanted, kinds


@pytest.mark.parametrize("numbers", [range(20), pytest.param(range(1_500), marks=pytest.mark.long)], ids=str)
def test_a_run_is_the_same_plainly_and_loaded_after_each_event_and_folded_from_its_log(
    numbers: range,
) -> None:
    rows = 0
    for number in numbers:
        with numbered(number) as (document, events):
            rows += live(document, settled(document, events))
    assert rows > 2 * len(numbers), "so many rows are to be the same"


def settled(document: Document, events: list[str]) -> list[str | None]:
    """The start and these events, for as long as the chart comes to rest."""
    oracle, settled = Oracle(document, OURS), list[str | None]()
    try:
        for event in (None, *events):
            oracle.start() if event is None else oracle.send(event)
            settled.append(event)
    except TooManyMicrostepsError:
        pass
    return settled


def live(document: Document, events: list[str | None]) -> int:
    """Go through these events by the core alone, by an engine that lives on, and by one that dies after each; how many
    rows were written.
    """
    if not events:
        return 0
    driven = Driven(Translation(document, "ignore"))
    driven.start()
    plain, dying = (
        Lived(lambda: Translation(document, "ignore").machine(), dies=dies) for dies in (False, True)
    )
    for event in events[1:]:
        assert event is not None
        driven.send(event)
        plain.tell(event)
        dying.tell(event)
    assert plain.run is not None
    assert driven.run is not None
    for field in ("generation", "sequence", "status", "configuration", "context", "memory"):
        assert getattr(plain.run, field) == getattr(driven.run, field), field
    assert dying.rows == plain.rows
    plain.check_log()
    return len(plain.rows)
