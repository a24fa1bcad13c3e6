"""Steps as they are said: what ``flow.step`` makes of a function, and the events that say how it ended."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from tenacity import retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_exponential, wait_fixed

from statemachines import Call, Context, Done, Event, Pipeline, Retry, Step, StepFailed, exponential
from statemachines.done import Done as GenericDone
from statemachines.events import is_internal, is_outcome
from statemachines.machine import compile_pipeline
from statemachines.patterns import covers, is_from_inside
from tests.unit.working import CardRefused, Charge, Order, PaymentError, Shop, charge, shop

if TYPE_CHECKING:
    from decimal import Decimal

CALL = Call("k-1", 1, "order-1", "charge")


def flow() -> Pipeline[Any]:
    return Pipeline("any", Context)


def pack(_order: Order, call: Call) -> int:
    return call.attempt


def test_a_step_has_what_was_said_of_it() -> None:
    made = Shop().charge
    assert isinstance(made, Step)
    assert (made.name, made.function, made.timeout, made.at_once) == (
        "charge",
        charge,
        timedelta(seconds=30),
        10,
    )
    assert (made.retry.attempts, made.retry.unless) == (3, CardRefused)
    assert str(made) == "charge"
    assert made.place.file == __file__.replace("test_steps", "working")


def test_without_a_word_it_is_tried_five_times_for_as_long_as_it_takes() -> None:
    made = flow().step()(pack)
    assert (made.timeout, made.at_once, made.retry.attempts, made.retry.unless) == (None, None, 5, ())
    wait = made.retry.wait
    assert isinstance(wait, wait_exponential)
    assert (wait.multiplier, wait.max) == (1, 60)


def test_the_steps_of_a_pipeline_are_in_the_order_of_the_file() -> None:
    of = flow()
    first, second = of.step()(pack), of.step()(charge)
    assert of.steps == [first, second]


async def test_without_settings_neither_a_step_nor_a_compensation_needs_parentheses() -> None:
    of = flow()

    @of.step
    async def charging(order: Order, call: Call) -> Charge:
        return Charge(id=f"{call.idempotency_key} for {order.amount}")

    @charging.compensate
    def refund(order: Order, made: Charge | None, call: Call) -> None:
        order.said.append(f"{call.of.idempotency_key}: {made}")

    assert of.works == [charging, refund]
    assert (charging.compensation, charging.is_async, refund.is_async) == (refund, True, False)
    assert [one.place.file for one in of.works] == [__file__, __file__]
    assert charging.retry.attempts == refund.retry.attempts == 5
    made = await charging(Order(amount=7), CALL)
    assert made.id == "k-1 for 7"
    order = Order()
    refund(order, None, Call("k-2", 1, "order-1", "refund", undone=CALL))
    assert order.said == ["k-1: None"]


def test_settings_without_their_names_are_refused_with_a_word_on_how_to_give_them() -> None:
    of, second = flow(), timedelta(seconds=1)
    written: Any = of.step
    with pytest.raises(TypeError, match=r"@flow\.step stands above a function.*@flow\.step\(timeout="):
        written(second)
    undoing: Any = of.step(pack).compensate
    with pytest.raises(TypeError, match=r"@pack\.compensate stands above a function.*\(timeout="):
        undoing(second)
    assert len(of.works) == 1


async def test_it_is_called_like_its_function() -> None:
    of = flow()
    assert of.step()(pack)(Order(), CALL) == 1
    assert await of.step()(charge)(Order(amount=7), CALL) == Charge(id="k-1 for 7")


class Charging:
    async def __call__(self, order: Order, call: Call) -> Charge:
        return await charge(order, call)


@functools.wraps(charge)
def wrapped(*values: Any) -> Any:
    return charge(*values)


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (pack, False),
        (charge, True),
        (functools.partial(charge), True),
        (functools.partial(pack), False),
        (Charging(), True),
        (wrapped, True),
    ],
)
def test_it_knows_whether_its_function_is_to_be_awaited(function: Callable[..., Any], is_async: bool) -> None:
    made = flow().step()(function)
    assert made.is_async == is_async
    assert made.result_type == (Charge if is_async else int)


def test_an_exponential_wait_doubles_up_to_its_most() -> None:
    class State:
        attempt_number = 1

    state: Any = State()
    waits = []
    for state.attempt_number in (1, 2, 3, 4, 5):
        waits.append(exponential(2, 20)(state))
    assert waits == [2, 4, 8, 16, 20]


def hidden(_order: Order, _call: Call) -> Decimal:
    raise NotImplementedError


def silent(_order: Order, _call: Call) -> None: ...


del silent.__annotations__["return"]


def test_what_it_returns_is_looked_up_when_it_is_asked_for() -> None:
    hiding, saying_nothing = flow().step()(hidden), flow().step()(silent)
    assert hiding.done.event_type() == "done.step.hidden"
    with pytest.raises(NameError):
        _ = hiding.result_type
    with pytest.raises(TypeError, match="silent does not say what it returns"):
        _ = saying_nothing.result_type


def test_its_types_may_be_those_of_the_function_around_it() -> None:
    class Local(Charge):
        pass

    def make(_order: Order, _call: Call) -> Local:
        return Local(id="1")

    assert flow().step()(make).result_type is Local


def test_the_types_of_its_events() -> None:
    made = shop().charge
    assert made.done.event_type() == "done.step.charge"
    assert made.failed.event_type() == "failed.step.charge.*"
    assert made.timed_out.event_type() == "failed.step.charge.timed_out"
    assert made.failed_with(CardRefused).event_type() == "failed.step.charge.CardRefused"
    assert StepFailed.event_type() == "failed.step.*"
    assert made.done is made.done
    assert made.failed is made.failed
    assert made.failed_with(CardRefused) is made.failed_with(CardRefused)
    for event in (made.done, made.failed, made.timed_out, made.failed_with(CardRefused), StepFailed):
        assert is_internal(event)
        assert is_outcome(event)
        assert is_from_inside(event.event_type())
    assert issubclass(made.failed_with(CardRefused), made.failed)
    assert issubclass(made.done, GenericDone)


def test_it_has_the_exceptions_that_were_asked_for_in_their_order() -> None:
    made = Shop().charge
    assert made.declared == []
    for error in (PaymentError, CardRefused, PaymentError):
        made.failed_with(error)
    assert made.declared == [PaymentError, CardRefused]


@pytest.mark.parametrize(
    ("name", "event_type", "stands"),
    [
        ("failed.step.charge.*", "failed.step.charge", True),
        ("failed.step.charge.*", "failed.step.charge.timed_out", True),
        ("failed.step.charge.*", "failed.step.charge.CardRefused", True),
        ("failed.step.charge.*", "failed.step.charges", False),
        ("failed.step.*", "failed.step.charge", True),
        ("failed.step.*", "failed.step.charge.CardRefused", True),
        ("failed.step.*", "failed.step.charge.*", True),
        ("done.step.*", "done.step.charge", True),
        ("*", "done.step.charge", False),
        ("*", "failed.step.charge", False),
        ("*", "failed.step.*", False),
        ("*", "tried.step.charge", False),
        ("*", "done.state.box", True),
    ],
)
def test_what_the_patterns_stand_for(name: str, event_type: str, stands: bool) -> None:
    assert covers(name, event_type) == stands


def test_from_outside_they_are_of_unknown_types() -> None:
    made = shop()
    made.flow.on(Event.named("failed.*"))
    made.flow.on(Event.named("*"))
    machine = compile_pipeline(made.flow)
    for event_type in machine.validators:
        known = machine.events.get(event_type) is not None
        assert known != is_from_inside(event_type)
    assert "failed.step.charge.CardRefused" in list(machine.validators)
    assert machine.events.get("tried.step.charge") is None


def test_the_result_is_as_the_step_says() -> None:
    done = shop().charge.done
    got = done.model_validate({"data": {"id": "c-1"}, "execution": "1.0"})
    assert got.result == got.data == Charge(id="c-1")
    assert done(data=Charge(id="c-2")).result.id == "c-2"
    with pytest.raises(ValidationError, match="id: Field required"):
        done.model_validate({"data": {"ids": "c-1"}})
    with pytest.raises(ValidationError):
        done.model_validate({})


def test_done_of_a_state_carries_anything_and_nothing() -> None:
    state = flow().state("box")
    assert state.done(data=5).result == 5
    assert state.done().data is None
    assert issubclass(state.done, Done)
    assert Done[int] is Done


def test_a_step_that_returns_nothing_says_none() -> None:
    def send(_order: Order, _call: Call) -> None: ...

    done = flow().step()(send).done
    assert done.model_validate({"data": None}).result is None
    with pytest.raises(ValidationError):
        done.model_validate({"data": 5})


def test_a_failure_comes_as_the_class_of_its_type() -> None:
    machine = compile_pipeline(shop().flow)
    said = {"error": "CardRefused", "message": "no", "attempts": 2, "execution": "1.0", "attempt": 2}
    failed = machine.validators["failed.step.charge.CardRefused"](said)
    assert isinstance(failed, StepFailed)
    assert (failed.error, failed.message, failed.attempts) == ("CardRefused", "no", 2)
    assert failed.event_type() == "failed.step.charge.CardRefused"
    assert machine.validators["failed.step.charge"](said).event_type() == "failed.step.charge"
    assert "tried.step.charge" not in machine.validators


def test_a_timer_comes_as_a_timer_where_there_are_patterns() -> None:
    made = shop()
    made.charging.after(timedelta(1), to=made.cancelled)
    made.flow.on_failure(to=made.cancelled)
    machine = compile_pipeline(made.flow)
    assert type(machine.validators["after.charging.0"]({})).__name__ == "After"


def test_on_failure_is_behind_all_other_transitions() -> None:
    made = Shop()
    made.flow.on_failure(to=made.cancelled)
    made.flow.on_failure(to=made.refused)
    made.charging.on(made.charge.done, to=made.paid)
    lasts = [move.last for move in made.flow.moves]
    assert lasts == [False] * (len(lasts) - 2) + [True, True]
    assert [move.target for move in made.flow.moves[-2:]] == ["cancelled", "refused"]


def test_a_retry_is_a_value() -> None:
    wait = exponential(1, 2)
    assert Retry(attempts=2, wait=wait) == Retry(attempts=2, wait=wait)
    assert Call("k", 2, "o", "charge").last_error == ""


@pytest.mark.parametrize(
    ("settings", "instead"),
    [
        (
            {"stop": stop_after_delay(5)},
            "Retry has no stop=, .* write attempts= of Retry .* and within= of the step",
        ),
        (
            {"retry": retry_if_exception_type(OSError)},
            "Retry has no retry=, .* write unless= for the exceptions",
        ),
        ({"attemps": 3}, "unexpected keyword argument 'attemps'"),
    ],
)
def test_what_retry_takes_of_tenacity_is_how_long_to_wait_and_for_the_rest_it_says_what_to_write(
    settings: dict[str, Any], instead: str
) -> None:
    with pytest.raises(TypeError, match=instead):
        Retry(**settings)


def test_a_retry_is_what_it_was_when_it_is_copied() -> None:
    wait = wait_fixed(1)
    retry = Retry(2, wait, KeyError)
    for other in (copy.copy(retry), replace(retry, attempts=2)):
        assert other == retry
