"""What the test kit has for steps: outcomes are said, and what goes on is asked."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from statemachines import Call, DefinitionError, Pipeline
from statemachines.outcome import WAITS, Reason
from statemachines.results import idempotency_key
from statemachines.testkit import Case, ImpureHandlerError, given
from tests.unit import undoing
from tests.unit.undoing import Trade
from tests.unit.working import (
    Cancelled,
    CardRefused,
    Charge,
    Noted,
    Order,
    PaymentError,
    Placed,
    Shop,
    note_type,
    say_why,
    shop,
)

OK = Charge(id="c-1")


def pack(_order: Order, _call: Call) -> int:
    return 1


def test_a_step_may_go_on_outside_and_end_as_any() -> None:
    made = shop()
    case = given(made.flow, Placed()).step_later(made.charge, "t")
    assert [one.token for one in case.executions] == ["t"]
    case.then_runs(made.charge).step_done(made.charge, OK).then(state="paid")
    given(made.flow, Placed()).step_later(made.charge).step_failed(made.charge, CardRefused("no")).then(
        state="refused"
    )
    with pytest.raises(AssertionError, match="all of them printable, and not empty"):
        given(made.flow, Placed()).step_later(made.charge, "")


def test_the_time_of_what_goes_on_outside_is_over_where_a_test_says_so() -> None:
    made = Shop()
    made.charging.on(made.charge.timed_out, to=made.refused)
    case = given(made.flow, Placed()).step_later(made.charge, "t", within=timedelta(days=2))
    case.later(timedelta(days=3)).then_runs(made.charge)
    assert (case.state, case.followed) == ("charging", [])
    case.step_timed_out(made.charge).then(state="refused")


def test_a_run_is_told_how_its_step_ended() -> None:
    made = shop()
    case = given(made.flow, Placed()).then_runs(made.charge)
    case.step_done(made.charge, OK).then(state="paid", context={"charge": OK}, ended=True).then_runs_nothing()
    case = given(made.flow, Placed()).step_failed(made.charge, CardRefused("no"), attempts=3)
    assert case.context.said == ["CardRefused: no after 3 as failed.step.charge.CardRefused"]
    case = given(made.flow, Placed()).step_timed_out(made.charge).then(state="cancelled")
    assert case.context.said == [
        "TimeoutError: it took longer than 0:00:30 after 1 as failed.step.charge.timed_out"
    ]


def being_undone() -> tuple[Case[undoing.Order], Trade]:
    """A run that does ``unpack``, and then ``refund``."""
    trade = Trade()
    case = given(trade.flow, undoing.Placed()).step_done(trade.charge, undoing.OK).step_done(trade.pack, 2)
    return case.when(undoing.Cancelled()).then_runs(trade.unpack), trade


class Unmade(CardRefused):
    def __init__(self, code: int) -> None:
        super().__init__(f"refused by {code}")


class Strange(CardRefused):
    def __new__(cls) -> Any:
        return "no exception"


def test_of_a_class_of_exceptions_one_is_made_as_raise_does() -> None:
    made = shop()
    case = given(made.flow, Placed()).step_failed(made.charge, CardRefused).then(state="refused")
    assert case.context.said == ["CardRefused:  after 1 as failed.step.charge.CardRefused"]
    case_of_trade, trade = being_undone()
    case_of_trade.undoing_failed(trade.unpack, CardRefused)
    case_of_trade.then_refused(Reason.STEP_FAILED, saying="CardRefused", holds=True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            Unmade,
            "Unmade cannot be made without arguments, as raise does it .TypeError: .*: give one that is made",
        ),
        (Strange, r"Strange\(\) is str, which cannot be raised"),
        (5, "a step fails with an exception, or with text that says why, and not with int"),
        (None, "and not with NoneType"),
        (int, "and not with the class int itself"),
    ],
)
def test_what_a_step_cannot_fail_with_is_said(error: Any, said: str) -> None:
    made = shop()
    with pytest.raises(AssertionError, match=said):
        given(made.flow, Placed()).step_failed(made.charge, error)
    case, trade = being_undone()
    with pytest.raises(AssertionError, match=said):
        case.undoing_failed(trade.unpack, error)


def test_a_step_fails_with_text_where_no_exception_is_known() -> None:
    made = shop()
    made.charging.on(made.charge.failed, to=made.refused, do=say_why)
    case = given(made.flow, Placed()).step_failed(made.charge, "no card").then(state="refused")
    assert case.context.said == ["Error: no card after 1 as failed.step.charge"]


def test_a_step_without_a_limit_may_take_too_long_all_the_same() -> None:
    made = Shop()
    packing = made.flow.step()(pack)
    made.cancelled.run = packing
    made.cancelled.on(packing.timed_out, to=made.refused, do=say_why)
    case = given(made.flow, Placed(), Cancelled()).step_timed_out(packing)
    assert case.context.said == ["TimeoutError: it took too long after 1 as failed.step.pack.timed_out"]


def test_what_is_published_and_raised_is_seen_as_of_other_events() -> None:
    made = Shop()
    made.charging.on(made.charge.done, do=note_type)
    case = given(made.flow, Placed()).step_done(made.charge, OK).when(Noted())
    case.then(context={"said": ["done.step.charge", "order.noted"]}).then_runs_nothing()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda case, made: case.then_runs_nothing(), "the run does 'charge', not no step"),
        (lambda case, made: case.then_runs(made.charge, made.charge), "not 'charge' and 'charge'"),
        (
            lambda case, made: case.when(Cancelled()).then_runs(made.charge),
            "the run does no step, not 'charge'",
        ),
        (
            lambda case, made: case.when(Cancelled()).step_done(made.charge, OK),
            "does not do 'charge', but no step",
        ),
        (lambda case, made: case.step_done(made.charge, {"id": "c"}), "charge returned dict, which does not"),
        (
            lambda case, made: case.step_done(made.charge, OK, state="paid"),
            "not done for 'paid', but for 'charging'",
        ),
    ],
)
def test_what_does_not_hold_is_said(wrong: Any, said: str) -> None:
    made = shop()
    with pytest.raises(AssertionError, match=said):
        wrong(given(made.flow, Placed()), made)


def test_of_several_states_one_is_named() -> None:
    made = Shop()
    wide = made.flow.state("wide")
    left, right = (
        wide.region(name).state(f"in-{name}", initial=True, run=made.charge) for name in ("a", "b")
    )
    left.on(made.charge.done, to=made.paid)
    right.on(made.charge.failed_with(PaymentError), to=made.refused)
    made.charging.on(Noted, to=wide)
    case = given(made.flow, Placed(), Noted()).then_runs(made.charge, made.charge)
    with pytest.raises(AssertionError, match="'charge' is done for 'in-a' and 'in-b': name one of them"):
        case.step_done(made.charge, OK)
    case.step_done(made.charge, OK, state=right).then_ignored(Reason.UNEXPECTED).then_runs(made.charge)
    case.step_done(made.charge, OK).then(state="paid")


def test_without_a_run_nothing_goes_on() -> None:
    made = shop()
    given(made.flow).then_runs_nothing()


def test_the_outcome_of_a_step_waits_for_a_run_that_is_held() -> None:
    made = shop()
    case = given(made.flow, Placed()).step_failed(made.charge, KeyError())
    case.then_refused(Reason.STEP_FAILED, holds=True)
    assert case.step_done(made.charge, OK).outcome is WAITS


def test_an_action_that_answers_differently_is_found() -> None:
    made = Shop()
    numbers = count()
    made.charging.on(made.charge.done, do=lambda order, _got: order.said.append(str(next(numbers))))
    with pytest.raises(ImpureHandlerError, match=r"on done\.step\.charge"):
        given(made.flow, Placed()).step_done(made.charge, OK)


def test_a_pipeline_with_mistakes_in_its_steps_is_not_tested() -> None:
    flow: Pipeline[Any] = Shop().flow
    idle: Any = lambda: 5  # noqa: E731 - the mistake
    flow.step()(idle)
    with pytest.raises(DefinitionError, match="cannot be called with"):
        given(flow)


def test_the_call_of_what_goes_on_is_as_the_engine_makes_it() -> None:
    made = shop()
    case = given(made.flow, Placed(), key="o-1")
    call = case.call_of(made.charge, attempt=2, last_error="OSError: no", progress=3)
    assert (call.attempt, call.key, call.step, call.last_error, call.progress) == (
        2,
        "o-1",
        "charge",
        "OSError: no",
        3,
    )
    machine = case.machine
    assert call.idempotency_key == idempotency_key(machine, "o-1", 0, case.executions[0])
    assert case.call_of(made.charge) == Call(call.idempotency_key, 1, "o-1", "charge")
    with pytest.raises(LookupError):
        _ = call.of
    case.step_done(made.charge, OK)
    with pytest.raises(AssertionError, match="the run does not do 'charge', but no step"):
        case.call_of(made.charge)


def test_the_call_of_a_compensation_has_the_key_of_what_it_undoes() -> None:
    made = Trade()
    case = given(made.flow, undoing.Placed())
    charged = case.call_of(made.charge)
    case.step_done(made.charge, undoing.OK)
    packed = case.call_of(made.pack)
    case.step_done(made.pack, 2).when(undoing.Cancelled())
    case.then_runs(made.unpack)
    unpacks = case.call_of(made.unpack)
    assert (unpacks.step, unpacks.of.step, unpacks.of.attempt) == ("unpack", "pack", 0)
    assert unpacks.of.idempotency_key == packed.idempotency_key
    assert unpacks.idempotency_key != packed.idempotency_key
    case.undone(made.unpack)
    assert case.call_of(made.refund).of.idempotency_key == charged.idempotency_key
