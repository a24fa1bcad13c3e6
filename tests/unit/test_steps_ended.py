"""What becomes of a run by how its steps ended, through the core."""

from __future__ import annotations

from typing import Any

import pytest

from statemachines import Call, Done, Event, Raise, Send, StepFailed
from statemachines.limits import LAST_ERROR_CHARACTERS_MAX
from statemachines.memory import Execution, Memory, read_memory, write_memory
from statemachines.outcome import WAITS, Ignored, Moved, Outcome, Reason
from statemachines.outcome import Refused as DeadLetter
from statemachines.results import done_event, failed_event, tried_event
from statemachines.testkit import Case, given
from tests.unit.working import (
    Again,
    Cancelled,
    CardRefused,
    CardStolen,
    Charge,
    Noted,
    Order,
    PaymentError,
    Placed,
    Shop,
    ends,
    first_of,
    keep,
    note_type,
    say_why,
    shop,
)

OK = Charge(id="c-1")


def pack(_order: Order, _call: Call) -> int:
    return 1


def heavy(_order: Order, got: Done[int]) -> bool:
    return got.result > 2


def fails(case: Case[Any], made: Shop, error: BaseException | str, **more: Any) -> Outcome:
    return ends(case, *failed_event(made.charge, first_of(case), error, attempts=2, **more))


def test_what_a_step_returns_moves_the_run() -> None:
    made = shop()
    case = given(made.flow, Placed())
    outcome = ends(case, *done_event(made.charge, first_of(case), 1, OK))
    assert isinstance(outcome, Moved)
    assert (outcome.configuration, outcome.memory, outcome.asked) == ("paid", b"{}", ())
    assert case.step_done(made.charge, OK).then(state="paid", ended=True).context.charge == OK


def test_it_is_over_with_the_step_that_ended_and_with_no_other() -> None:
    made = Shop()
    wide = made.flow.state("wide")
    one, two = (wide.region(name).state(f"in-{name}", initial=True, run=made.charge) for name in ("a", "b"))
    one.on(made.charge.done, do=keep)
    two.on(made.charge.done, to=made.paid)
    made.charging.on(Noted, to=wide)
    case = given(made.flow, Placed(), Noted())
    case.step_done(made.charge, OK, state=one).then(state="wide a in-a b in-b", context={"charge": OK})
    assert [one.state for one in case.executions] == ["in-b"]
    assert case.sent == []


@pytest.mark.parametrize(
    ("error", "timed_out", "state", "said"),
    [
        (CardRefused("no"), False, "refused", "CardRefused: no after 2 as failed.step.charge.CardRefused"),
        (CardStolen("hm"), False, "refused", "CardStolen: hm after 2 as failed.step.charge.CardRefused"),
        (
            "30 s are over",
            True,
            "cancelled",
            "TimeoutError: 30 s are over after 2 as failed.step.charge.timed_out",
        ),
    ],
)
def test_failures_go_where_they_are_taken(error: Any, timed_out: bool, state: str, said: str) -> None:
    made = shop()
    case = given(made.flow, Placed())
    outcome = fails(case, made, error, timed_out=timed_out)
    assert isinstance(outcome, Moved)
    assert outcome.configuration == state
    assert outcome.context is not None
    assert case.machine.read_context(outcome.context).model_dump()["said"] == [said]


def test_a_failure_that_nothing_takes_holds_the_run_which_stays_as_it_was() -> None:
    made = shop()
    case = given(made.flow, Placed())
    outcome = fails(case, made, LookupError("who?"))
    assert outcome == DeadLetter(
        Reason.STEP_FAILED,
        "charge failed after 2 attempts, and no transition takes it: LookupError: who?",
        holds=True,
    )
    assert Reason.STEP_FAILED.value == "step failed"
    case.step_failed(made.charge, LookupError("who?"))
    case.then_refused(Reason.STEP_FAILED, saying="charge failed after 1 attempt, and", holds=True)
    assert case.executions == (Execution(1, 0, "charge", "charging"),)


def test_a_failure_that_was_refused_is_taken_once_the_run_goes_on() -> None:
    made = shop()
    case = given(made.flow, Placed()).step_failed(made.charge, LookupError("who?"))
    assert case.run is not None
    execution = first_of(case)
    assert ends(case, *done_event(made.charge, execution, 1, OK)) is WAITS
    case.run = case.run._replace(held=0)
    again = fails(case, made, CardRefused("no"))
    assert isinstance(again, Moved)


def test_failures_are_told_apart_before_they_are_taken_together() -> None:
    made = shop()
    made.charging.on(made.charge.failed, to=made.cancelled, do=note_type)
    for error, state in ((CardRefused(), "refused"), (LookupError(), "cancelled")):
        given(made.flow, Placed()).step_failed(made.charge, error).then(state=state)
    given(made.flow, Placed()).step_timed_out(made.charge).then(state="cancelled")
    case = given(made.flow, Placed()).step_failed(made.charge, LookupError())
    assert case.context.said == ["failed.step.charge"]


def test_an_exception_goes_to_who_names_a_class_above_it_though_others_name_it() -> None:
    made = Shop()
    made.charging.on(made.charge.failed_with(PaymentError), to=made.refused, do=say_why)
    made.cancelled.run = made.charge
    made.cancelled.on(made.charge.failed_with(CardRefused), to=made.paid)
    case = (
        given(made.flow, Placed()).step_failed(made.charge, CardStolen("x"), attempts=3).then(state="refused")
    )
    assert case.context.said == ["CardStolen: x after 3 as failed.step.charge.CardRefused"]
    given(made.flow, Placed(), Cancelled()).step_failed(made.charge, CardStolen()).then(state="paid")
    held = given(made.flow, Placed(), Cancelled()).step_failed(made.charge, PaymentError())
    held.then_refused(Reason.STEP_FAILED)


def test_on_failure_takes_what_nothing_else_does() -> None:
    made = shop()
    made.flow.on_failure(to=made.cancelled, do=note_type)
    made.flow.on(made.charge.failed_with(PaymentError), to=made.refused, do=note_type)
    given(made.flow, Placed()).step_failed(made.charge, CardRefused()).then(state="refused")
    case = given(made.flow, Placed()).step_failed(made.charge, PaymentError()).then(state="refused")
    assert case.context.said == ["failed.step.charge.PaymentError"]
    case = given(made.flow, Placed()).step_failed(made.charge, LookupError()).then(state="cancelled")
    assert case.context.said == ["failed.step.charge"]


def test_on_failure_may_ask_first() -> None:
    made = shop()
    made.flow.on_failure(to=made.cancelled, when=lambda _order, failed: failed.error == "KeyError")
    given(made.flow, Placed()).step_failed(made.charge, KeyError()).then(state="cancelled")
    case = given(made.flow, Placed()).step_failed(made.charge, LookupError())
    case.then_refused(Reason.STEP_FAILED)
    assert isinstance(case.outcome, DeadLetter)
    assert [one.target for one in case.outcome.tried] == ["cancelled"]


def test_a_step_failure_is_not_taken_by_who_takes_everything() -> None:
    made = shop()
    made.charging.on(Event.named("*"), do=note_type)
    given(made.flow, Placed()).step_failed(made.charge, KeyError()).then_refused(Reason.STEP_FAILED)
    given(made.flow, Placed()).step_done(made.charge, OK).then(state="paid", context={"said": []})


def test_an_outcome_is_for_the_state_that_asked_and_those_around_it() -> None:
    made = Shop()
    packing = made.flow.step()(pack)
    wide = made.flow.state("wide")
    left, right = wide.region("left"), wide.region("right")
    charging, charged = left.state("l-charging", initial=True, run=made.charge), left.state("l-charged")
    other, over = right.state("r-charging", initial=True, run=made.charge), right.state("r-charged")
    more = right.state("r-packing", run=packing)
    charging.on(made.charge.done, to=charged)
    other.on(made.charge.done, to=over)
    other.on(Again, to=more)
    wide.on(made.charge.failed, to=made.refused)
    made.charging.on(Noted, to=wide)
    case = given(made.flow, Placed(), Noted()).then_runs(made.charge, made.charge)
    case.step_done(made.charge, OK, state=charging).then(state="wide left l-charged right r-charging")
    case.then_runs(made.charge)
    case.step_failed(made.charge, KeyError()).then(state="refused", ended=True)


def test_a_step_of_a_state_with_states_inside_ends_for_itself() -> None:
    made = Shop()
    outer = made.flow.state("outer", run=made.charge)
    inner = outer.state("inner", initial=True, run=made.charge)
    inner.on(made.charge.done, do=note_type)
    outer.on(made.charge.done, to=made.paid, do=keep)
    made.charging.on(Noted, to=outer)
    case = given(made.flow, Placed(), Noted()).step_done(made.charge, OK, state=outer)
    case.then(state="paid", context={"said": []})
    case = given(made.flow, Placed(), Noted()).step_done(made.charge, OK, state=inner)
    case.then(state="outer inner", context={"said": ["done.step.charge"]}).then_runs(made.charge)


def test_what_was_done_and_nothing_takes_is_noted_and_gone() -> None:
    made = Shop()
    case = given(made.flow, Placed())
    outcome = ends(case, *done_event(made.charge, first_of(case), 1, OK))
    assert outcome == Ignored(Reason.UNEXPECTED, memory=b"{}")
    case.step_done(made.charge, OK).then_ignored(Reason.UNEXPECTED).then_runs_nothing()


def test_a_guard_may_look_at_the_result() -> None:
    made = Shop()
    packing = made.flow.step()(pack)
    made.cancelled.run = packing
    made.cancelled.on(packing.done, to=made.paid, when=heavy)
    case = given(made.flow, Placed(), Cancelled())
    given(made.flow, Placed(), Cancelled()).step_done(packing, 3).then(state="paid")
    case.step_done(packing, 2).then_ignored(Reason.UNEXPECTED)
    assert isinstance(case.outcome, Ignored)
    assert [one.guard for one in case.outcome.tried] == ["heavy"]


def test_what_does_not_fit_what_the_step_returns_by_now_holds_the_run() -> None:
    made = shop()
    case = given(made.flow, Placed())
    outcome = ends(case, "done.step.charge", {"execution": "1.0", "attempt": 1, "data": {"name": "c"}})
    assert isinstance(outcome, DeadLetter)
    assert (outcome.reason, outcome.holds) == (Reason.INVALID, True)
    assert outcome.error == "data: Value error, id: Field required"


# What is void.


def outcomes(made: Shop, execution: Execution) -> list[tuple[str, Any]]:
    return [
        done_event(made.charge, execution, 1, OK),
        failed_event(made.charge, execution, KeyError(), attempts=1),
        tried_event(made.charge, execution, KeyError(), again=7),
    ]


@pytest.mark.parametrize("number", range(3))
def test_how_a_step_ended_is_void_once_its_state_was_left(number: int) -> None:
    made = shop()
    case = given(made.flow, Placed())
    event_type, data = outcomes(made, first_of(case))[number]
    assert ends(case.when(Again()), event_type, data) == Ignored(Reason.VOID)
    assert ends(case.when(Cancelled()), event_type, data) == Ignored(Reason.VOID)
    case.when(Again()).step_done(made.charge, OK).then(ended=True)
    assert ends(case, event_type, data) == Ignored(Reason.VOID)
    assert Reason.VOID.value == "void"


@pytest.mark.parametrize("number", range(3))
def test_it_is_void_in_a_run_that_is_over_whatever_that_remembers(number: int) -> None:
    made = shop()
    case = given(made.flow, Placed())
    event_type, data = outcomes(made, first_of(case))[number]
    case.step_done(made.charge, OK)
    assert case.run is not None
    case.run = case.run._replace(
        memory=write_memory(Memory(executions=(Execution(1, 0, "charge", "charging"),)))
    )
    assert ends(case, event_type, data) == Ignored(Reason.VOID)


@pytest.mark.parametrize("data", [None, "text", {}, {"execution": None}, {"execution": ["1.0"]}])
def test_it_is_void_where_it_does_not_say_what_it_is_of(data: Any) -> None:
    case = given(shop().flow, Placed())
    assert ends(case, "failed.step.charge", data) == Ignored(Reason.VOID)


@pytest.mark.parametrize("number", range(3))
def test_in_a_run_that_is_held_it_waits(number: int) -> None:
    made = shop()
    case = given(made.flow, Placed())
    assert case.run is not None
    case.run = case.run._replace(held=1)
    assert ends(case, *outcomes(made, first_of(case))[number]) is WAITS


def test_failures_of_other_attempts_are_void_and_successes_are_not() -> None:
    made = shop()
    case = given(made.flow, Placed())
    first = first_of(case)
    assert case.run is not None
    second = first._replace(attempt=2)
    case.run = case.run._replace(memory=write_memory(Memory(executions=(second,))))
    done, failed, tried = outcomes(made, first)
    assert ends(case, *failed) == Ignored(Reason.VOID)
    assert ends(case, *tried) == Ignored(Reason.VOID)
    assert isinstance(ends(case, *done), Moved)
    refused = ends(case, *failed_event(made.charge, second, KeyError(), attempts=2))
    assert isinstance(refused, DeadLetter)


# Trying again.


def test_an_attempt_that_is_to_be_made_again_is_remembered() -> None:
    made = shop()
    case = given(made.flow, Placed())
    outcome = ends(case, *tried_event(made.charge, first_of(case), KeyError("k"), again=7))
    assert isinstance(outcome, Ignored)
    assert (outcome.reason, outcome.reason.value) == (Reason.RETRYING, "to be tried again")
    assert outcome.memory is not None
    again = Execution(1, 0, "charge", "charging", 2, 7, "KeyError: 'k'")
    assert read_memory(outcome.memory).executions == (again,)


def test_an_attempt_that_was_cut_as_its_engine_was_stopped_does_not_count() -> None:
    made = shop()
    case = given(made.flow, Placed())
    for number in (1, 2):
        event_type, data = tried_event(
            made.charge, first_of(case), "cut", lost=True, stopped=True, again=number
        )
        assert (event_type, data["lost"], data["stopped"]) == ("tried.step.charge", True, True)
        outcome = ends(case, event_type, data)
        assert isinstance(outcome, Ignored)
        assert case.run is not None
        case.run = case.run._replace(memory=outcome.memory or b"")
        assert first_of(case) == Execution(
            1, 0, "charge", "charging", number + 1, number, "Error: cut", since=number
        )
    outcome = ends(case, *tried_event(made.charge, first_of(case), KeyError("k"), again=7))
    assert isinstance(outcome, Ignored)
    [again] = read_memory(outcome.memory or b"").executions
    assert (again.attempt, again.since) == (4, 2), "one that raised does"


def test_only_what_was_cut_says_so() -> None:
    made = shop()
    case = given(made.flow, Placed())
    event_type, data = tried_event(made.charge, first_of(case), "gone", lost=True, again=7)
    assert "stopped" not in data
    outcome = ends(case, event_type, {**data, "stopped": "yes"})
    assert isinstance(outcome, Ignored)
    assert read_memory(outcome.memory or b"").executions[0].since == 0


def test_trying_again_keeps_the_order_and_all_else() -> None:
    made = Shop()
    wide = made.flow.state("wide")
    for name in ("a", "b"):
        wide.region(name).state(f"in-{name}", initial=True, run=made.charge)
    made.charging.on(made.charge.done, to=wide)
    case = given(made.flow, Placed()).step_done(made.charge, OK)
    outcome = ends(case, *tried_event(made.charge, first_of(case), "x" * 9_999, timed_out=True, again=7))
    assert isinstance(outcome, Ignored)
    assert outcome.memory is not None
    first, second = read_memory(outcome.memory).executions
    assert (first.state, first.attempt, second.state, second.attempt) == ("in-a", 2, "in-b", 1)
    assert first.error.startswith("TimeoutError: xxx")
    assert len(first.error) == LAST_ERROR_CHARACTERS_MAX


def test_no_transition_is_asked_about_an_attempt_that_is_made_again() -> None:
    made = shop()
    made.flow.on_failure(to=made.cancelled)
    made.charging.on(Event.named("tried.*"), to=made.cancelled)
    case = given(made.flow, Placed())
    outcome = ends(case, *tried_event(made.charge, first_of(case), KeyError("k"), again=7))
    assert isinstance(outcome, Ignored)
    assert outcome.reason is Reason.RETRYING


# What follows.


def test_a_step_may_lead_to_the_next_in_one_transition() -> None:
    made = Shop()
    packing = made.flow.step()(pack)
    between = made.flow.state("between")
    packed = made.flow.state("packing", run=packing)
    made.charging.on(made.charge.done, to=between, do=keep)
    between.always(to=packed)
    packed.on(packing.done, to=made.paid)
    case = given(made.flow, Placed()).step_done(made.charge, OK).then(state="packing").then_runs(packing)
    assert case.executions == (Execution(2, 0, "pack", "packing"),)
    case.step_done(packing, 3).then(ended=True)


def test_what_its_action_raises_and_publishes_is_of_the_same_transition() -> None:
    made = Shop()
    made.charging.on(made.charge.done, do=lambda _order, _got: Raise(Again()))
    case = given(made.flow, Placed()).step_done(made.charge, OK)
    case.then(state="charging").then_runs(made.charge)
    assert [one.what for one in case.sent] == ["step"]
    assert first_of(case).id == "2.0"


def test_what_a_run_sends_to_itself_is_no_outcome_of_a_step_though_it_is_called_so() -> None:
    made, tell = Shop(), Event.named("tell")
    made.charging.on(made.charge.done, to=made.cancelled, do=keep)
    for state in (made.charging, made.cancelled):
        state.on(tell, do=lambda _order, _event: Send(made.charge.done(data=OK)))
    case = given(made.flow, Placed()).when(tell()).then(state="cancelled", context={"charge": OK})
    assert case.run is not None
    assert (case.run.memory, case.executions) == (b"{}", ())
    case.when(tell())
    assert [(one, type(outcome)) for one, outcome in case.followed] == [("done.step.charge", Ignored)]
    assert case.run.memory == b"{}"


def test_an_action_on_a_result_that_raises_holds_the_run_with_the_step_still_asked_for() -> None:
    made = Shop()

    def fail(_order: Order, _got: Done[Charge]) -> None:
        raise LookupError

    made.charging.on(made.charge.done, to=made.paid, do=fail)
    case = given(made.flow, Placed()).step_done(made.charge, OK)
    case.then_refused(Reason.ACTION_FAILED, holds=True)
    assert len(case.executions) == 1


def test_the_failure_of_any_step_may_be_taken_by_a_state() -> None:
    made = shop()
    made.charging.on(StepFailed, to=made.cancelled, do=note_type)
    case = given(made.flow, Placed()).step_failed(made.charge, KeyError()).then(state="cancelled")
    assert case.context.said == ["failed.step.charge"]
