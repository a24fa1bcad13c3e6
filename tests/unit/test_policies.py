"""Each policy in each situation, through the core: what becomes of an event that does not fit, and who decided it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from statemachines import Defer, Event, Pipeline
from statemachines.durations import told_duration
from statemachines.limits import DEFERRED_MAX
from statemachines.outcome import DUPLICATE, Deferred, Ignored, Moved, Reason, Refused
from statemachines.policies import DEFER_TTL
from statemachines.run import Status
from statemachines.testkit import BEGINNING, Case, given
from tests.unit.early import Door, Made, Opened, Painted, Rung, Shut, door_pipeline, gallery, state_of

HOUR = timedelta(hours=1)
FOR_A_DAY = "defer for 1 d, then dead_letter"
FOR_AN_HOUR = "defer for 1 h, then ignore"


def policy_of(case: Case[Any]) -> str:
    assert isinstance(case.outcome, Refused | Ignored | Deferred), case.outcome
    return case.outcome.policy


def check(case: Case[Any], decision: Any, reason: Reason, whose: str) -> None:
    """What a decision other than to begin a run makes of an event, and what is told of it."""
    match decision:
        case "dead_letter":
            case.then_refused(reason, holds=False)
            assert policy_of(case) == f"dead_letter ({whose})"
        case "ignore":
            case.then_ignored(reason)
            assert policy_of(case) == f"ignore ({whose})"
        case _:
            defer = decision if isinstance(decision, Defer) else Defer()
            case.then_deferred(reason)
            assert isinstance(case.outcome, Deferred)
            assert (case.outcome.until, case.outcome.then) == (case.now + defer.ttl, defer.then)
            assert policy_of(case) == f"defer for {told_duration(defer.ttl)}, then {defer.then} ({whose})"


NOT_TAKEN = ["dead_letter", "ignore", "defer", Defer(HOUR, then="ignore")]


@pytest.mark.parametrize("decision", NOT_TAKEN)
def test_an_event_without_a_run_meets_no_run(decision: Any) -> None:
    case = given(door_pipeline(no_run=decision)).when(Opened())
    check(case, decision, Reason.NO_RUN, "no_run of the pipeline")
    assert (case.run is None) == (decision in ("dead_letter", "ignore"))
    typed = door_pipeline(no_run="dead_letter" if decision == "ignore" else "ignore")
    typed.policy(Opened, no_run=decision)
    check(given(typed).when(Opened()), decision, Reason.NO_RUN, "no_run of the pipeline for door.opened")


def test_what_waits_for_a_run_is_taken_once_there_is_one_the_oldest_first() -> None:
    case = given(door_pipeline(no_run="defer")).when(Painted(coat=1), Opened(), Painted(coat=2))
    assert case.run is not None
    assert (case.run.status, case.state, case.deferred) == (
        Status.EXPECTED,
        "",
        ["door.painted", "door.opened", "door.painted"],
    )
    case.when(Made()).then(state="opened", context={"coats": [1, 2]})
    assert [one for one, _ in case.followed] == ["door.opened", "door.painted", "door.painted"]
    assert case.deferred == []


def test_a_run_that_starts_by_itself_is_offered_the_event() -> None:
    case = given(door_pipeline(no_run="start")).when(Opened()).then(state="opened")
    assert case.run is not None
    assert case.run.sequence == 1
    other = given(door_pipeline(no_run="start", unexpected="ignore")).when(Painted())
    other.then_ignored(Reason.UNEXPECTED)
    assert other.run is None
    waiting = given(door_pipeline(no_run="start")).when(Painted()).then_deferred(Reason.UNEXPECTED)
    waiting.when(Made()).then(state="closed").when(Opened()).then(context={"coats": [1]})


@pytest.mark.parametrize("decision", ["dead_letter", "ignore"])
@pytest.mark.parametrize("event", [Made(), Opened(), Painted()])
def test_an_event_whose_run_has_ended_meets_closed(decision: Any, event: Event) -> None:
    case = given(door_pipeline(closed=decision), Made(), Shut()).when(event)
    check(case, decision, Reason.CLOSED, "closed of the pipeline")
    typed = door_pipeline(closed="ignore" if decision == "dead_letter" else "dead_letter")
    typed.policy(type(event), closed=decision)
    told = f"closed of the pipeline for {event.event_type()}"
    check(given(typed, Made(), Shut()).when(event), decision, Reason.CLOSED, told)


def test_a_run_s_key_starts_again() -> None:
    case = given(
        door_pipeline(closed="restart", no_run="defer"), Made(), Opened(), Painted(), Painted(), Shut()
    )
    case.when(Painted(coat=5)).then_deferred(Reason.NO_RUN)
    assert case.run is not None
    assert (case.run.generation, case.run.status, case.run.sequence) == (1, Status.EXPECTED, 1)
    case.when(Made()).then(state="closed").when(Opened()).then(state="opened", context={"coats": [5]})
    assert (case.run.generation, case.run.sequence) == (1, 4)


def test_a_start_event_that_waited_for_the_next_run_is_told_beside_the_end_of_the_one_before() -> None:
    flow = door_pipeline(closed="restart")
    state_of(flow, "over").output = lambda door, _event: len(door.coats)
    case = given(flow, Made(), Opened(), Painted(coat=4), Painted(coat=5))
    assert case.when(Made()).then_deferred().ended_runs == []
    case.when(Shut()).then(state="closed")
    assert [(one, type(outcome)) for one, outcome in case.followed] == [("door.made", Moved)]
    [ended] = case.ended_runs
    assert (ended.generation, ended.state, ended.context.coats, ended.output) == (0, "over", [4, 5], 2)
    case.when(Shut(), Made())
    assert [one.generation for one in case.ended_runs] == [0, 1]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ended": True}, "the run in 'closed' has not ended"),
        ({"state": "over"}, "the run is in 'closed', not in 'over'"),
        ({"is_in": "over"}, "the run is in 'closed', and 'over' is not active"),
        ({"context": {"coats": [4]}}, "the context's coats is [], not [4]"),
    ],
)
def test_what_is_said_of_the_next_run_names_the_one_that_has_just_ended(
    wrong: dict[str, Any], said: str
) -> None:
    early = (Made(), Opened(), Painted(coat=4), Painted(coat=5))
    case = given(door_pipeline(closed="restart"), *early).when(Made(), Shut())
    with pytest.raises(AssertionError) as raised:
        case.then(**wrong)
    assert str(raised.value) == f"{said}; the run before it has ended in 'over': see ended_runs"
    with pytest.raises(AssertionError) as raised:
        case.when(Opened()).then(ended=True)
    assert str(raised.value) == "the run in 'opened' has not ended", "it had ended long before"


def test_all_that_waited_for_the_next_run_is_told_once() -> None:
    case = given(door_pipeline(closed="restart"), Made()).when(Made(), Painted(), Shut())
    assert [(one, type(outcome)) for one, outcome in case.followed] == [
        ("door.made", Moved),
        ("door.painted", Deferred),
    ]
    assert case.deferred == ["door.painted"]


@pytest.mark.parametrize(
    ("no_run", "reason"),
    [("dead_letter", Reason.NO_RUN), ("ignore", Reason.NO_RUN), ("defer", Reason.NO_RUN)],
)
def test_where_a_key_starts_again_other_events_meet_no_run(no_run: Any, reason: Reason) -> None:
    case = given(door_pipeline(closed="restart", no_run=no_run), Made(), Shut()).when(Opened())
    check(case, no_run, reason, "no_run of the pipeline")


def test_a_key_starts_again_by_any_event_where_runs_start_by_themselves() -> None:
    flow = door_pipeline(closed="restart", no_run="start")
    case = given(flow, Made(), Shut()).when(Opened()).then(state="opened")
    assert case.run is not None
    assert (case.run.generation, case.run.sequence) == (1, 1)


@pytest.mark.parametrize("decision", NOT_TAKEN)
def test_an_event_that_nothing_takes_meets_unexpected(decision: Any) -> None:
    case = given(door_pipeline(unexpected=decision), Made()).when(Painted())
    check(case, decision, Reason.UNEXPECTED, "unexpected of the pipeline")
    typed = door_pipeline(unexpected="ignore" if decision == "dead_letter" else "dead_letter")
    typed.policy(Painted, unexpected=decision)
    check(
        given(typed, Made()).when(Painted()),
        decision,
        Reason.UNEXPECTED,
        "unexpected of the pipeline for door.painted",
    )
    of_state = door_pipeline(unexpected="ignore" if decision == "dead_letter" else "dead_letter")
    state_of(of_state, "closed").policy(unexpected=decision)
    check(
        given(of_state, Made()).when(Painted()), decision, Reason.UNEXPECTED, "unexpected of the state closed"
    )
    for_type = door_pipeline(unexpected="ignore" if decision == "dead_letter" else "dead_letter")
    state_of(for_type, "closed").policy(Painted, unexpected=decision)
    told = "unexpected of the state closed for door.painted"
    check(given(for_type, Made()).when(Painted()), decision, Reason.UNEXPECTED, told)


def test_a_guard_that_does_not_hold_leaves_an_event_unexpected_and_it_is_taken_when_it_does() -> None:
    case = given(door_pipeline(), Made(), Opened(), Painted()).when(Shut()).then_deferred(Reason.UNEXPECTED)
    assert policy_of(case) == f"{FOR_A_DAY} (unexpected of the pipeline)"
    assert isinstance(case.outcome, Deferred)
    assert case.outcome.tried[0].guard == "is_dry"
    case.when(Painted(coat=2)).then(state="over", ended=True)
    assert case.followed[0][0] == "door.shut"


def test_the_defaults_lose_nothing() -> None:
    flow = door_pipeline()
    given(flow).when(Opened()).then_refused(Reason.NO_RUN, holds=False)
    given(flow, Made(), Shut()).when(Opened()).then_refused(Reason.CLOSED, holds=False)
    case = given(flow, Made()).when(Painted()).then_deferred(Reason.UNEXPECTED)
    assert isinstance(case.outcome, Deferred)
    assert case.outcome.until == BEGINNING + DEFER_TTL
    case.later(DEFER_TTL - timedelta(microseconds=1))
    assert case.deferred == ["door.painted"]
    case.later(timedelta(microseconds=1)).then_refused(Reason.EXPIRED, saying="(not accepted)", holds=False)
    assert policy_of(case) == "its time to live ended at 2024-01-02T00:00:00Z, then dead_letter"
    assert case.deferred == []


@pytest.mark.parametrize("situation", ["no_run", "unexpected"])
def test_what_waited_too_long_may_be_ignored(situation: str) -> None:
    flow = door_pipeline(**{situation: Defer(HOUR, then="ignore")})
    case = given(flow, *([Made()] if situation == "unexpected" else [])).when(Painted())
    case.later(HOUR).then_ignored(Reason.EXPIRED)
    assert policy_of(case).endswith("then ignore")
    assert case.deferred == []


def nested() -> Pipeline[Any]:
    """``closed`` within ``inner`` within ``outer``."""
    flow = Pipeline("nested", door_pipeline().context, topics=["doors"], unexpected="dead_letter")
    outer = flow.state("outer", initial=True)
    inner = outer.state("inner", initial=True)
    inner.state("closed", initial=True).on(Opened, to=inner.state("opened"))
    state_of(flow, "opened").on(Painted, to=flow.state("over", final=True))
    state_of(flow, "opened").on(Rung, to="over")
    flow.start(Made, lambda _event: flow.context())
    return flow


@pytest.mark.parametrize(
    ("said", "whose"),
    [
        ([], "the pipeline"),
        ([("outer", None)], "the state outer"),
        ([("outer", Painted)], "the state outer for door.painted"),
        ([("outer", Rung)], "the pipeline"),
        ([("outer", None), ("outer", Painted)], "the state outer for door.painted"),
        ([("outer", Painted), ("inner", None)], "the state inner"),
        ([("outer", Painted), ("inner", Rung)], "the state outer for door.painted"),
        ([("outer", Painted), ("closed", None), ("inner", Painted)], "the state closed"),
        ([("opened", None), ("outer", None)], "the state outer"),
    ],
)
def test_the_innermost_state_decides(said: list[tuple[str, Any]], whose: str) -> None:
    flow = nested()
    for state, event in said:
        state_of(flow, state).policy(event, unexpected="ignore")
    case = given(flow, Made()).when(Painted())
    assert policy_of(case).endswith(f"(unexpected of {whose})")
    assert isinstance(case.outcome, Ignored) == bool(whose != "the pipeline")


def test_of_states_side_by_side_the_inner_one_decides_then_the_first_in_the_file() -> None:
    flow = gallery(unexpected="dead_letter")
    for name in ("both", "door", "bell"):
        state_of(flow, name).policy(unexpected="ignore")
    assert policy_of(given(flow, Made()).when(Painted())) == "ignore (unexpected of the state door)"
    state_of(flow, "quiet").policy(Painted, unexpected="defer")
    # A region is around what is in it, and beside what is in another one.
    assert policy_of(given(flow, Made()).when(Painted())) == "ignore (unexpected of the state door)"
    flow = gallery(unexpected="dead_letter")
    state_of(flow, "both").policy(unexpected="ignore")
    state_of(flow, "quiet").policy(unexpected="defer")
    assert policy_of(given(flow, Made()).when(Painted())) == f"{FOR_A_DAY} (unexpected of the state quiet)"


def test_an_event_that_one_region_takes_is_taken_once_for_all() -> None:
    flow = gallery()
    state_of(flow, "closed").policy(Painted, unexpected="defer")
    case = given(flow, Made(), Rung()).when(Painted()).then(state="both door closed bell quiet")
    assert case.deferred == []
    case.when(Opened()).then(state="both door opened bell quiet", context={"coats": []})
    assert case.followed == []


def test_what_is_said_of_a_pattern_is_said_of_all_its_types() -> None:
    class AnyDoor(Event, type="door.*", key="door"):
        door: str = "d1"

    flow = door_pipeline(no_run="defer", unexpected="dead_letter")
    state_of(flow, "opened").on(AnyDoor)
    flow.policy(AnyDoor, unexpected="ignore", no_run="ignore")
    flow.policy(Painted, unexpected=Defer(HOUR, then="ignore"))
    assert policy_of(given(flow).when(Opened())) == "ignore (no_run of the pipeline for door.*)"
    assert (
        policy_of(given(flow, Made()).when(AnyDoor.named("door.sold")()))
        == "ignore (unexpected of the pipeline for door.*)"
    )
    assert (
        policy_of(given(flow, Made()).when(Painted()))
        == f"{FOR_AN_HOUR} (unexpected of the pipeline for door.painted)"
    )
    state_of(flow, "closed").policy(AnyDoor, unexpected="dead_letter")
    told = "dead_letter (unexpected of the state closed for door.*)"
    assert policy_of(given(flow, Made()).when(Painted())) == told


def test_of_deferred_events_the_oldest_that_is_enabled_is_taken_again_and_again_before_newer_ones() -> None:
    case = given(door_pipeline(), Made()).when(Shut())
    case.then(state="over", ended=True)
    case = given(door_pipeline(), Made()).when(Painted(coat=1), Painted(coat=2), Painted(coat=3))
    assert case.deferred == ["door.painted"] * 3
    case.when(Opened(), Painted(coat=4)).then(context={"coats": [1, 2, 3, 4]})
    assert case.run is not None
    assert case.run.sequence == 9  # each is a row of its own


def test_a_context_that_changes_may_enable_a_deferred_event_too() -> None:
    case = given(door_pipeline(), Made(), Opened(), Painted()).when(Shut(), Made())
    assert case.deferred == ["door.shut", "door.made"]
    case.when(Painted(coat=2))
    assert [(one, type(outcome)) for one, outcome in case.followed] == [
        ("door.shut", Moved),
        ("door.made", Refused),
    ]


@pytest.mark.parametrize(("closed", "left"), [("dead_letter", Refused), ("ignore", Ignored)])
def test_what_waits_for_a_run_that_closes_meets_closed(closed: Any, left: type) -> None:
    flow = door_pipeline(closed=closed)
    flow.policy(Rung, closed="ignore")
    case = given(flow, Made(), Opened()).when(Rung(), Opened()).when(Shut()).then(state="over", ended=True)
    assert [(one, type(outcome)) for one, outcome in case.followed] == [
        ("bell.rung", Ignored),
        ("door.opened", left),
    ]
    assert {getattr(outcome, "reason", None) for _, outcome in case.followed} == {Reason.CLOSED}
    assert case.deferred == []


def test_what_waits_for_a_run_that_closes_begins_the_next_one_where_its_key_starts_again() -> None:
    flow = door_pipeline(closed="restart", no_run=Defer(HOUR))
    case = given(flow, Made()).when(Painted(), Made()).when(Shut()).then()
    assert case.run is not None
    # What waited is taken as if there were no run: the one event waits for one, and the other starts it.
    assert (case.run.generation, case.state, case.deferred) == (1, "closed", ["door.painted"])
    case.when(Opened()).then(context={"coats": [1]})


def test_what_is_deferred_twice_waits_once() -> None:
    case = given(door_pipeline(), Made()).when(Painted())
    assert case.when_again().outcome == DUPLICATE
    assert case.deferred == ["door.painted"]
    assert case.when(Opened()).then(context={"coats": [1]}).when_again().outcome == DUPLICATE


def test_what_waits_keeps_waiting_whatever_becomes_of_newer_ones() -> None:
    case = given(door_pipeline(no_run="defer", unexpected="dead_letter")).when(Painted(), Made())
    assert (case.state, case.deferred) == ("closed", ["door.painted"])
    case.when(Painted()).then_refused(Reason.UNEXPECTED)
    case.when(Opened()).then(context={"coats": [1]})


def test_so_many_events_are_deferred_for_a_run_and_more_of_them_are_dead_letters() -> None:
    case = (
        given(door_pipeline(), Made())
        .when(*[Painted(coat=2)] * DEFERRED_MAX)
        .then_deferred(Reason.UNEXPECTED)
    )
    case.when(Painted()).then_refused(
        Reason.DEFERRED_FULL, saying=f"{DEFERRED_MAX} deferred events", holds=False
    )
    assert policy_of(case) == f"{FOR_A_DAY} (unexpected of the pipeline)"
    case.when(Opened()).then(state="opened")
    assert case.context.coats == [2] * DEFERRED_MAX


def test_what_is_offered_again_in_vain_keeps_waiting_too() -> None:
    flow = door_pipeline(no_run="defer", unexpected="dead_letter")
    state_of(flow, "closed").on(Painted, when=lambda _door, _event: False)
    case = given(flow).when(Painted(), Made())
    assert (case.state, case.deferred) == ("closed", ["door.painted"])


def test_what_a_guard_does_to_one_that_waits_is_gone_when_it_is_offered_again() -> None:
    class Parcel(Event, type="parcel"):
        notes: Any

    def is_wanted(door: Door, event: Parcel) -> bool:
        event.notes.append("looked at")
        return len(door.coats) > 1

    seen = []
    flow = door_pipeline()
    state_of(flow, "opened").on(Parcel, when=is_wanted, do=lambda _door, event: seen.append(event.notes))
    case = given(flow, Made(), Opened()).when(Parcel(notes=[])).then_deferred(Reason.UNEXPECTED)
    case.when(Painted()).then(context={"coats": [1]})
    assert (case.deferred, seen) == (["parcel"], [])
    case.when(Painted(coat=2)).then(context={"coats": [1, 2]})
    assert case.deferred == []
    assert {tuple(notes) for notes in seen} == {("looked at",)}


def test_one_that_waits_is_known_again_whatever_is_said_of_its_like_by_now() -> None:
    flow = door_pipeline(no_run="defer", unexpected="ignore")
    flow.policy(Painted, duplicate_by="coat", duplicate_for=HOUR)
    case = given(flow).when(Painted(), Made())
    case._events = 1  # the number of the first of them, and so its id
    case._take(*case._sent(Painted()))
    assert case.outcome == DUPLICATE, "ignored, it would make the one that waits a duplicate of it"
    case._events = 2
    case.when(Opened()).then(context={"coats": [1]})
