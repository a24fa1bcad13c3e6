"""The test kit finds what does not hold, says it in a sentence, and finds handlers that are not pure."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from statemachines import DefinitionError, Pipeline, Publish
from statemachines.outcome import DUPLICATE, WAITS, Reason
from statemachines.testkit import BEGINNING, Case, ImpureHandlerError, given
from tests.unit.machines import Account, Added, Closed, Dropped, Noted, Opened, account_pipeline

OPENED = Opened(name="acme")
ADDED = Added(name="acme", amount=4)


def with_action(do: Callable[..., Any]) -> Pipeline[Account]:
    flow = account_pipeline()
    flow.states[0].on(Dropped, do=do)
    return flow


def test_a_case_tells_state_context_publications_and_outcome() -> None:
    case = given(account_pipeline(), OPENED, ADDED)
    assert (case.state, case.context.total) == ("active", 4)
    case.when(ADDED, ADDED)
    assert case.state == "full"
    assert [publication.topic for publication in case.published] == ["totals", "totals"]
    case.then(state="full", context={"total": 12, "limit": 10}, publishes=[ADDED, Publish("totals", ADDED)])
    case.when(Closed(name="acme")).then(state="closed", ended=True, publishes=[])


def test_an_event_that_comes_twice_is_a_duplicate_and_a_new_one_is_not() -> None:
    case = given(account_pipeline(), OPENED, ADDED).when_again().then_duplicate()
    with pytest.raises(AssertionError, match="the event is not a duplicate: the run moved"):
        case.when(ADDED).then_duplicate()


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"state": "full"}, "the run is in 'active', not in 'full'"),
        ({"is_in": "full"}, "the run is in 'active', and 'full' is not active"),
        ({"is_in": ["active", "full"]}, "the run is in 'active', and 'full' is not active"),
        ({"is_in": "fall"}, "the pipeline has no state 'fall'. Did you mean 'full'?"),
        ({"context": {"total": 5}}, "the context's total is 4, not 5"),
        ({"ended": True}, "the run in 'active' has not ended"),
        ({"publishes": []}, "what was published is"),
        ({"publishes": [Publish("elsewhere", ADDED)]}, "'elsewhere'"),
        ({"publishes": [ADDED, ADDED]}, "'any topic'"),
    ],
)
def test_what_does_not_hold_is_said(expected: dict[str, Any], said: str) -> None:
    case = given(account_pipeline(), OPENED).when(ADDED)
    with pytest.raises(AssertionError, match=said):
        case.then(**expected)


def test_what_was_given_must_have_happened() -> None:
    with pytest.raises(
        AssertionError, match="the given dropped was not taken: deferred: 'not accepted': active has no"
    ):
        given(account_pipeline(), OPENED, Dropped())


def test_a_pipeline_with_mistakes_is_not_tested() -> None:
    flow = account_pipeline()
    flow.state("island")
    with pytest.raises(DefinitionError, match="island"):
        given(flow)


def test_refusals_and_ignored_events_are_expected_by_reason() -> None:
    case = (
        given(account_pipeline()).when(ADDED).then_refused(Reason.NO_RUN, saying="no run has the key 'acme'")
    )
    with pytest.raises(AssertionError, match=r"refused as 'no run': .*, not as 'run closed'"):
        case.then_refused(Reason.CLOSED)
    with pytest.raises(AssertionError, match="the event was not taken: 'no run'"):
        case.then()
    with pytest.raises(AssertionError, match="the event was not ignored"):
        case.then_ignored(Reason.NO_RUN)
    ignoring = given(account_pipeline(unexpected="ignore"), OPENED).when(Dropped())
    ignoring.then_ignored(Reason.UNEXPECTED)
    with pytest.raises(AssertionError, match="not refused: ignored: 'not accepted'"):
        ignoring.then_refused(Reason.UNEXPECTED)


def test_an_event_delivered_again_is_a_duplicate() -> None:
    case = given(account_pipeline(), OPENED, ADDED).when_again()
    assert case.outcome == DUPLICATE
    assert case.context.total == 4


def test_a_handler_that_raises_holds_the_run_and_later_events_wait() -> None:
    def fails(_account: Account, _event: Dropped) -> None:
        raise LookupError("nowhere")

    case = given(with_action(fails), OPENED).when(Dropped())
    case.then_refused(Reason.ACTION_FAILED, saying="LookupError: nowhere", holds=True)
    assert case.when(ADDED).outcome == WAITS


def test_time_is_what_the_test_says() -> None:
    seen = []

    def look(_account: Account, event: Dropped) -> None:
        seen.append(event.meta.now)

    given(with_action(look), OPENED).later(timedelta(weeks=1)).when(Dropped()).then()
    assert set(seen) == {BEGINNING + timedelta(weeks=1)}


def test_an_event_of_another_run_is_a_slip_of_the_test() -> None:
    with pytest.raises(AssertionError, match="the event is for the run 'other', not for 'acme'"):
        given(account_pipeline(), OPENED).when(Added(name="other", amount=1))


def impure_actions() -> list[Callable[..., Any]]:
    count = 0
    kept: list[int] = []

    def counts(account: Account, _event: Dropped) -> None:
        nonlocal count
        count += 1
        account.total = count

    def rolls(account: Account, _event: Dropped) -> None:
        account.note = random.random()

    def keeps(_account: Account, event: Dropped) -> list[Publish]:
        kept.append(1)
        return [Publish("out", event)] * len(kept)

    def fails_once(_account: Account, _event: Dropped) -> None:
        kept.append(1)
        if len(kept) % 2:
            raise ValueError("sometimes")

    return [counts, rolls, keeps, fails_once]


@pytest.mark.parametrize("action", impure_actions(), ids=lambda action: action.__name__)
def test_a_handler_that_answers_differently_to_equal_input_is_found(action: Callable[..., Any]) -> None:
    with pytest.raises(ImpureHandlerError, match="on dropped in 'active' a handler answers differently"):
        given(with_action(action), OPENED).when(Dropped())


def test_a_key_that_differs_for_equal_input_is_found() -> None:
    numbers = itertools.count()
    flow = account_pipeline()
    flow.key(Opened, by=lambda _data: next(numbers))
    with pytest.raises(ImpureHandlerError, match="the key of opened differs for equal input: '0'; then '1'"):
        given(flow, OPENED)


def test_a_handler_that_changes_the_event_s_data_is_not_seen_by_the_next_one() -> None:
    def changes(account: Account, event: Noted) -> None:
        event.text.append("more")
        account.note = event.text

    flow = account_pipeline()
    flow.states[1].on(Noted, do=changes)
    case: Case[Account] = given(flow, OPENED, Added(name="acme", amount=99))
    event = Noted(text=["one"])
    case.when(event).then(context={"note": ["one", "more"]})
    assert event.text == ["one"]


def test_a_state_that_is_active_among_others_is_asked_for_by_name_or_as_itself() -> None:
    flow = account_pipeline()
    active, full = flow.states[0], flow.states[1]
    case = (
        given(flow, OPENED).when(ADDED).then(is_in="active").then(is_in=active).then(is_in=["active", active])
    )
    case.when(ADDED, ADDED).then(is_in=full, state="full")


def test_what_became_of_an_event_that_was_not_taken_is_said_with_its_reason() -> None:
    ignored = given(account_pipeline(unexpected="ignore"), OPENED).when(Dropped())
    with pytest.raises(AssertionError) as said:
        ignored.then(state="active")
    assert str(said.value) == (
        "the event was not taken: ignored: 'not accepted'; by the policy: ignore (unexpected of the pipeline)"
    )
    with pytest.raises(
        AssertionError, match="taken: a duplicate: an event with its id, or its business key, was"
    ):
        given(account_pipeline(), OPENED, ADDED).when_again().then()

    def never(_account: Account, _event: Dropped) -> bool:
        return False

    flow = account_pipeline()
    flow.states[0].on(Dropped, to="full", when=never)
    with pytest.raises(AssertionError, match=r"tried, and not enabled: active -> full \[.*never\]"):
        given(flow, OPENED).when(Dropped()).then()

    def fails(_account: Account, _event: Dropped) -> None:
        raise LookupError("nowhere")

    held = given(with_action(fails), OPENED).when(Dropped())
    with pytest.raises(AssertionError, match=r"LookupError: nowhere.*; the run is held by it"):
        held.then()
    with pytest.raises(AssertionError, match="it waits: the run is held by what failed before"):
        held.when(ADDED).then()
