"""Starts under a condition: which of several begins a run, what becomes of an event that none of them takes."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from itertools import product
from typing import Any, cast

import orjson
import pytest

from statemachines import Defer, Event, OrderBy, Pipeline, Raise, has_tag, in_state
from statemachines.canonical import canonical_bytes
from statemachines.codehash import code_hash
from statemachines.diagram import to_mermaid
from statemachines.following import follow
from statemachines.machine import compile_pipeline
from statemachines.outcome import Deferred, Ignored, Moved, Reason, Refused, Tried
from statemachines.testkit import Case, ImpureHandlerError, given, run_deferring
from statemachines.validation import find_mistakes
from statemachines.way import Passage, Rows, find_way
from tests.unit.mistaken import Begun, Empty, awaited, build, line_of, no, right, state_of, the_mistake, yes
from tests.ward import Came, Patient, Treated, by_letter, hurts, is_referred, urgently, ward

CHARTS = pytest.mark.parametrize("chart", [False, True])
NOT_URGENT, NOT_REFERRED = Tried("[*]", "bed", "hurts"), Tried("[*]", "waiting", "is_referred")
NONE_HELD = (NOT_URGENT, NOT_REFERRED)


def tried_of(case: Case[Any]) -> tuple[Tried, ...]:
    assert isinstance(case.outcome, Refused | Ignored | Deferred), case.outcome
    return case.outcome.tried


@CHARTS
def test_the_first_start_whose_condition_holds_begins_the_run(*, chart: bool) -> None:
    case = given(ward(chart=chart), Came(pain=9, referred=True))
    case.then(state="bed", context={"came_by": "urgently"}, publishes=[Came(pain=9, referred=True)])
    case = given(ward(chart=chart), Came(pain=7, referred=True))
    case.then(state="waiting", context={"came_by": "by letter"}, publishes=[])


@CHARTS
@pytest.mark.parametrize("answers", list(product([True, False], repeat=3)))
def test_conditions_are_asked_in_order_until_one_holds(answers: tuple[bool, ...], *, chart: bool) -> None:
    asked: list[str] = []

    def start(number: int) -> None:
        def built(_event: Came) -> Patient:
            return Patient(visits=number)

        def holds(patient: Patient, _event: Came) -> bool:
            asked.append(f"{number} of {patient.visits}")
            return answers[number]

        flow.start(Came, built, when=holds)

    flow = ward(chart=chart)
    flow.starts.clear()
    for number in range(3):
        start(number)
    case = given(flow).when(Came())
    last = answers.index(True) if True in answers else 2
    assert asked == [f"{number} of {number}" for number in range(last + 1)] * 2, "twice, by the test kit"
    if True in answers:
        case.then(context={"visits": last})
    else:
        case.then_refused(Reason.NO_RUN)


@CHARTS
@pytest.mark.parametrize("decision", ["dead_letter", "ignore", "defer", Defer(timedelta(hours=1))])
def test_where_no_condition_holds_the_event_is_one_without_a_run(decision: Any, *, chart: bool) -> None:
    case = given(ward(chart=chart, no_run=decision)).when(Came(pain=7))
    match decision:
        case "dead_letter":
            saying = "no run has the key 'p1'; no condition of the starts on such events held"
            case.then_refused(Reason.NO_RUN, saying=saying, holds=False)
        case "ignore":
            case.then_ignored(Reason.NO_RUN)
        case _:
            case.then_deferred(Reason.NO_RUN)
    assert tried_of(case) == NONE_HELD
    assert (case.run is None) == (decision in ("dead_letter", "ignore"))


def test_a_policy_of_the_event_decides_first() -> None:
    flow = ward()
    flow.policy(Came, no_run="ignore")
    case = given(flow).when(Came()).then_ignored(Reason.NO_RUN)
    assert cast("Ignored", case.outcome).policy == "ignore (no_run of the pipeline for patient.came)"


def test_the_test_kit_says_which_conditions_did_not_hold() -> None:
    case = given(ward()).when(Came())
    with pytest.raises(
        AssertionError, match=r"tried, and not enabled: \[\*\] -> bed \[hurts\], \[\*\] -> waiting"
    ):
        case.then(state="bed")


@CHARTS
def test_a_run_that_no_event_starts_begins_where_no_condition_held(*, chart: bool) -> None:
    case = given(ward(chart=chart, no_run="start")).when(Came(pain=7))
    case.then(state="waiting", context={"came_by": "", "visits": 1})
    flow = ward(chart=chart, no_run="start", unexpected="dead_letter")
    flow.moves[:] = [move for move in flow.moves if move.guard is not None or move.event is not Came]
    case = given(flow).when(Came(pain=7)).then_refused(Reason.UNEXPECTED, holds=False)
    assert tried_of(case) == (*NONE_HELD, Tried("waiting", "bed", "hurts"))
    assert case.run is None


@CHARTS
def test_the_next_generation_begins_by_the_first_start_whose_condition_holds(*, chart: bool) -> None:
    case = given(ward(chart=chart, closed="restart"), Came(pain=9), Treated())
    said = "the run of the key 'p1' has ended, and no other one has begun; no condition of the starts"
    case.when(Came(pain=1)).then_refused(Reason.NO_RUN, saying=said)
    assert (case.run is not None, tried_of(case)) == (True, NONE_HELD)
    case.when(Came(referred=True)).then(state="waiting", context={"came_by": "by letter"})
    assert case.run is not None
    assert case.run.generation == 1


@CHARTS
def test_what_came_while_a_run_went_on_begins_the_next_one_where_a_condition_holds(*, chart: bool) -> None:
    case = given(ward(chart=chart, closed="restart"), Came(pain=9))
    case.when(Came(pain=1), Came(pain=8)).then_deferred()
    case.when(Treated()).then(state="bed", context={"pain": 8})
    mild, severe = (outcome for _, outcome in case.followed)
    assert isinstance(mild, Refused)
    assert (mild.reason, mild.tried, mild.holds) == (Reason.NO_RUN, NONE_HELD, False)
    assert isinstance(severe, Moved)
    assert [one.context.pain for one in case.ended_runs] == [9]


@CHARTS
def test_what_waits_for_a_run_is_asked_once_it_has_one(*, chart: bool) -> None:
    case = given(ward(chart=chart, no_run="defer")).when(Came(pain=7)).then_deferred(Reason.NO_RUN)
    case.when(Came(referred=True)).then(state="waiting", context={"visits": 1, "came_by": "by letter"})
    assert [(kind, type(outcome)) for kind, outcome in case.followed] == [("patient.came", Moved)]


def test_a_run_that_is_expected_begins_by_the_first_start_whose_condition_holds() -> None:
    flow = ward()
    flow.policy(Treated, no_run="defer")
    case = given(flow).when(Treated()).then_deferred(Reason.NO_RUN)
    case.when(Came(pain=7)).then_refused(Reason.NO_RUN)
    case.when(Came(pain=9)).then(state="home", context={"came_by": "urgently"})


def test_what_waited_for_its_pipeline_alone_meets_no_run_once_that_goes_on() -> None:
    machine = compile_pipeline(ward(no_run="ignore"))
    case = given(ward()).when(Came())
    occurrence = case._occurrence(case._sent(Came())[0], b'{"patient": "p1"}', b"12345678")
    paused = Deferred(Reason.PAUSED, "its pipeline is paused", case.now + timedelta(days=30), "dead_letter")
    found = follow(machine, run_deferring(None, paused, occurrence), case.now)
    assert found is not None, "it waits for nothing any more"
    assert isinstance(found.outcome, Ignored)
    assert (found.outcome.reason, found.outcome.tried) == (Reason.NO_RUN, NONE_HELD)
    missing = paused._replace(reason=Reason.NO_RUN)
    assert follow(machine, run_deferring(None, missing, occurrence), case.now) is None


@CHARTS
def test_a_condition_that_fails_refuses_the_event_and_holds_nothing(*, chart: bool) -> None:
    def fails(_patient: Patient, _event: Came) -> bool:
        raise LookupError("nobody knows")

    def forgets(_patient: Patient, _event: Came) -> Any:
        return None

    for guard, saying in (
        (fails, "fails raised LookupError: nobody knows"),
        (forgets, "a guard answers True or False"),
    ):
        flow = ward(chart=chart, on_error="ignore" if chart else "refuse")
        flow.starts.clear()
        flow.start(Came, urgently, to="bed", when=hurts)
        flow.start(Came, by_letter, when=guard)
        case = given(flow).when(Came()).then_refused(Reason.GUARD_FAILED, saying=saying, holds=False)
        assert (tried_of(case), case.run) == ((NOT_URGENT,), None)


def test_what_a_start_raises_follows_where_it_had_a_condition() -> None:
    class Woken(Event, type="woken"):
        pass

    asked: list[int] = []

    def asks(_patient: Patient, event: Came) -> bool:
        asked.append(event.pain)
        return True

    flow = ward()
    flow.starts.clear()
    flow.start(Came, by_letter, when=hurts)
    flow.start(Came, urgently, when=asks, do=lambda _patient, _event: Raise(Woken()))
    flow.states[0].on(Woken, to="bed")
    given(flow, Came(pain=3)).then(state="bed", context={"came_by": "urgently"})
    assert asked == [3, 3], "once of each of the two times that the test kit steps an event"


def test_a_condition_that_answers_otherwise_to_equal_input_is_found() -> None:
    answers = iter([True, False])
    flow = ward()
    flow.starts.clear()
    flow.start(Came, urgently, when=lambda _patient, _event: next(answers))
    with pytest.raises(ImpureHandlerError):
        given(flow).when(Came())


def test_data_that_is_not_valid_is_refused_before_any_condition_is_asked() -> None:
    case = given(ward())
    envelope = case._sent(Came())[0]
    case.when_read(envelope, {"patient": "p1", "pain": "much"}).then_refused(Reason.INVALID, holds=False)
    assert tried_of(case) == ()


def test_what_behind_a_start_without_condition_is_never_tried_is_a_mistake() -> None:
    flow = right()
    flow.start(Begun, build, when=yes)  # here
    mistake = the_mistake(flow)
    first = flow.starts[0].place
    assert mistake.message == f"this start on 'begun' is never tried: the one at {first} has no condition"
    assert mistake.cure == "Put it first, give the other one a condition, with when=, or remove it"
    here = line_of(test_what_behind_a_start_without_condition_is_never_tried_is_a_mistake, "# here")
    assert (mistake.place.line, mistake.event) == (here, "begun")
    flow.starts.reverse()
    assert find_mistakes(flow) == []


def test_the_same_condition_on_the_same_context_never_holds_later() -> None:
    flow = right()
    flow.starts.clear()
    flow.start(Begun, build, when=yes)
    flow.start(Begun, lambda _event: Empty(), when=yes)
    flow.start(Begun, build, when=no)
    assert find_mistakes(flow) == []
    flow.start(Begun, build, to="done", when=yes)
    first = flow.starts[0].place
    assert the_mistake(flow).message == (
        f"this start on 'begun' never begins a run: the one at {first} comes first and has the same condition yes, "
        "and the same build function"
    )


def conditioned(guard: Any) -> Pipeline[Any]:
    flow = right()
    flow.starts.clear()
    flow.start(Begun, build, when=guard)
    return flow


def test_a_condition_is_a_function_of_context_and_event() -> None:
    assert the_mistake(conditioned("yes")).message == "the guard is not a function but 'yes'"
    assert the_mistake(conditioned(awaited)).message == "the guard awaited is async, but nothing awaits it"
    mistake = the_mistake(conditioned(build))
    assert "cannot be called with (context, event)" in mistake.message
    assert mistake.event == "begun"


def test_a_condition_for_another_event_is_warned_of() -> None:
    def is_asked(_patient: Empty, _event: Came) -> bool:
        return True

    mistake = the_mistake(conditioned(is_asked), "warning")
    assert "is for Came, by its annotation, and is given Begun" in mistake.message


@pytest.mark.parametrize("guard", [in_state("open"), in_state("opne"), has_tag("urgent")])
def test_no_state_is_active_before_a_run_has_begun(guard: Any) -> None:
    mistake = the_mistake(conditioned(guard))
    asked = "the tag 'urgent'" if isinstance(guard, has_tag) else f"the state {guard.state!r}"
    assert mistake.message == f"the condition asks for {asked}, and no state is active before a run has begun"
    assert mistake.event == "begun"


def test_where_a_start_leads_is_checked_whatever_its_condition() -> None:
    flow = conditioned(yes)
    flow.start(Begun, build, to="opne")
    mistake = the_mistake(flow)
    assert (mistake.message, mistake.cure) == ("there is no state 'opne' to go to", "Did you mean 'open'?")


def test_no_run_is_asked_where_each_start_on_an_event_has_a_condition() -> None:
    flow = conditioned(yes)
    flow.policy(Begun, no_run="ignore")
    assert find_mistakes(flow) == []
    flow.start(Begun, build)
    mistake = the_mistake(flow)
    assert "no_run for 'begun' is never asked: the event starts a run" in mistake.message


def test_what_is_ignored_before_its_run_has_begun_has_not_had_its_turn() -> None:
    class Counted(Event, type="counted", key="name"):
        name: str
        number: int

    flow = right(no_run="ignore")
    state_of(flow, "open").on(Counted)
    flow.policy(Counted, order_by=OrderBy("number", contiguous=True))
    flow.start(Counted, build, when=yes)
    assert "contiguous=True for 'counted' counts from 1" in the_mistake(flow, "warning").message
    flow.start(Counted, build)
    assert find_mistakes(flow) == []


def test_a_condition_is_part_of_the_structure_and_of_the_code() -> None:
    plain, guarded, other = right(), conditioned(yes), conditioned(no)
    [start] = orjson.loads(canonical_bytes(guarded))["starts"]
    assert start == {"event": "begun", "build": "build", "target": None, "action": None, "guard": "yes"}
    assert "guard" not in orjson.loads(canonical_bytes(plain))["starts"][0]
    structures = [hashlib.sha256(canonical_bytes(one)).hexdigest() for one in (plain, guarded, other)]
    assert len({*structures}) == 3
    assert len({code_hash(one) for one in (plain, guarded, other)}) == 3


def test_what_a_condition_does_is_part_of_the_code() -> None:
    def over(limit: int) -> Any:
        return lambda patient, _event: patient.pain > limit

    assert code_hash(conditioned(over(1))) != code_hash(conditioned(over(2)))
    assert canonical_bytes(conditioned(over(1))) == canonical_bytes(conditioned(over(2)))


def test_a_diagram_says_the_condition_of_a_start() -> None:
    lines = [line.strip() for line in to_mermaid(ward()).splitlines()]
    starts = [line for line in lines if line.startswith("[*]")]
    assert starts == ["[*] --> bed: patient.came [hurts]", "[*] --> waiting: patient.came [is_referred]"]


def told_starts(flow: Pipeline[Any], after: str) -> dict[str, bool]:
    """By where they lead, the starts that a run may have begun by, and whether that is certain."""
    rows = Rows()
    rows.add_row(1)
    way = find_way(compile_pipeline(flow), [(Passage("patient.came", None, after), rows)])
    assert way.unexplained.times == 0
    return {start.target or "initial": not found.uncertain for start, found in way.starts.items()}


@CHARTS
def test_a_way_begins_by_the_start_that_leads_there(*, chart: bool) -> None:
    assert told_starts(ward(chart=chart), "bed") == {"bed": True}
    assert told_starts(ward(chart=chart), "waiting") == {"initial": True}
    may_begin_by_policy = ward(chart=chart, no_run="start")
    assert told_starts(may_begin_by_policy, "waiting") == {"initial": False}


def test_a_way_that_may_have_begun_by_either_of_two_starts_is_uncertain() -> None:
    flow = ward()
    flow.start(Came, urgently, to="bed", when=is_referred)
    rows = Rows()
    rows.add_row(1)
    way = find_way(compile_pipeline(flow), [(Passage("patient.came", None, "bed"), rows)])
    assert [(start, found.uncertain) for start, found in way.starts.items()] == [
        (flow.starts[0], {1}),
        (flow.starts[2], {1}),
    ]
