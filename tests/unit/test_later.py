"""Steps that return ``Later``: what they say that they return, and what their runs make of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, assert_type, cast

import pytest
from pydantic import BaseModel

from connectors.executor import LostError
from engine.steps.executions import given_up
from statemachines import Call, Complete, Context, Done, Event, Later, Pipeline
from statemachines.later import without_later
from statemachines.machine import compile_pipeline
from statemachines.memory import Execution, Memory, Owed, microseconds_of, read_memory, write_memory
from statemachines.mistakes import DefinitionError
from statemachines.outcome import Ignored, Moved, Reason
from statemachines.results import done_event, failed_event, stopped_event, tried_event, waits_event
from statemachines.step import AsyncCompensation, AsyncStep, PlainStep
from statemachines.testkit import Case, given
from tests.unit.undoing import OK, Cancelled, Order, Placed, Trade, memory_of
from tests.unit.working import Charge, ends

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
WITHIN = timedelta(hours=1)
P = ParamSpec("P")
R = TypeVar("R")
UNTIL = microseconds_of(AT + WITHIN)


class Begun(Event, type="begun", key="of"):
    of: str


class Told(Event, type="told"): ...


class Nothing(Context): ...


class Refusal(BaseModel):
    why: str


def handed_over(made: Trade, *, within: timedelta | None = WITHIN) -> Case[Any]:
    """A run whose first step goes on outside."""
    case = given(made.flow, Placed())
    outcome = ends(case, *waits_event(made.charge, memory_of(case).executions[0], Later("t", within), AT))
    assert isinstance(outcome, Ignored)
    assert outcome.reason is Reason.LATER
    return with_memory(case, outcome.memory)


def with_memory(case: Case[Any], memory: bytes | None) -> Case[Any]:
    assert case.run is not None
    assert memory is not None
    case.run = case.run._replace(memory=memory)
    return case


def outside(case: Case[Any]) -> Execution:
    [found] = memory_of(case).executions
    return found


def test_a_step_that_may_end_later_is_typed_by_its_result() -> None:
    flow = Pipeline("shop", Nothing, topics=["orders"])

    @flow.step()
    async def charge(order: Nothing, call: Call) -> Charge | Later:
        return Later(call.idempotency_key)

    @charge.compensate()
    async def refund(order: Nothing, made: Charge | None, call: Call) -> Later | None:
        return Later(call.idempotency_key)

    @flow.step()
    def count(order: Nothing, call: Call) -> int | Later | None:
        return Later(call.idempotency_key)

    @flow.step()
    def plain(order: Nothing, call: Call) -> int:
        return 3

    assert_type(charge, AsyncStep[Nothing, Charge])
    assert_type(charge.done, type[Done[Charge]])
    assert_type(refund, AsyncCompensation[Nothing, Charge])
    assert_type(count, PlainStep[Nothing, int | None])
    assert_type(plain, PlainStep[Nothing, int])
    assert charge.result_type is Charge
    assert count.result_type == int | None
    assert plain.result_type is int
    assert refund.result_type is type(None)
    assert charge.done.model_validate({"data": {"id": "c"}}).result == Charge(id="c")


def under(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """A decorator of the user's, as they are often typed."""
    return function


async def test_a_step_under_a_decorator_is_typed_by_what_is_awaited() -> None:
    flow = Pipeline("shop", Nothing, topics=["orders"])

    @flow.step
    @under
    async def charge(order: Nothing, call: Call) -> Charge:
        return Charge(id="c")

    @charge.compensate
    @under
    async def refund(order: Nothing, made: Charge | None, call: Call) -> None: ...

    @flow.step()
    @under
    async def review(order: Nothing, call: Call) -> Charge | Later:
        return Later(call.idempotency_key)

    @review.compensate()
    @under
    async def close(order: Nothing, made: Charge | None, call: Call) -> Later | None:
        return Later(call.idempotency_key)

    assert_type(charge, AsyncStep[Nothing, Charge])
    assert_type(refund, AsyncCompensation[Nothing, Charge])
    assert_type(review, AsyncStep[Nothing, Charge])
    assert_type(close, AsyncCompensation[Nothing, Charge])
    assert [one.is_async for one in flow.works] == [True] * 4


async def test_a_step_that_returns_one_of_several_is_typed_by_all_of_them() -> None:
    flow = Pipeline("shop", Nothing, topics=["orders"])

    @flow.step
    async def charge(order: Nothing, call: Call) -> Charge | Refusal:
        return Refusal(why="stolen")

    @flow.step()
    async def price(order: Nothing, call: Call) -> int | str:
        return 3

    @flow.step
    def decide(order: Nothing, call: Call) -> Literal["yes", "no"]:
        return "yes"

    @flow.step()
    def look(order: Nothing, call: Call) -> list[int] | dict[str, int] | None:
        return None

    assert_type(charge, AsyncStep[Nothing, Charge | Refusal])
    assert_type(charge.done, type[Done[Charge | Refusal]])
    assert_type(price, AsyncStep[Nothing, int | str])
    assert_type(decide, PlainStep[Nothing, Literal["yes", "no"]])
    assert_type(look, PlainStep[Nothing, list[int] | dict[str, int] | None])
    assert charge.result_type == Charge | Refusal
    assert charge.done.model_validate({"data": {"why": "stolen"}}).result == Refusal(why="stolen")


@pytest.mark.parametrize(
    ("annotation", "left"),
    [
        (int, int),
        (int | None, int | None),
        (int | Later, int),
        (Union[Later, int, str], Union[int, str]),  # noqa: UP007 - the other way to write it
        (Annotated[int, "x"], Annotated[int, "x"]),
    ],
)
def test_what_a_step_returns_in_the_end_is_the_rest_of_its_annotation(annotation: Any, left: Any) -> None:
    assert without_later(annotation) == left


@pytest.mark.parametrize("what", ["step", "compensation"])
def test_who_says_nothing_but_later_does_not_say_its_result(what: str) -> None:
    flow = Pipeline("shop", Nothing, topics=["orders"])

    @flow.step()
    async def charge(order: Nothing, call: Call) -> Charge | Later:
        return Later(call.idempotency_key)

    async def only(*given: Any) -> Later:
        raise NotImplementedError

    if what == "compensation":
        charge.compensate()(only)
        flow.state("charging", run=charge, initial=True)
    else:
        flow.state("charging", run=flow.step()(only), initial=True)
    flow.start(Begun, lambda _event: Nothing())
    with pytest.raises(
        DefinitionError, match=f"the {what} 'only' says that it returns Later, and not what it is"
    ):
        compile_pipeline(flow)


def test_a_run_remembers_by_what_its_step_is_completed_and_until_when() -> None:
    case = handed_over(Trade())
    assert outside(case) == Execution(1, 0, "charge", "charging", again=UNTIL, token="t")
    assert outside(handed_over(Trade(), within=None)).again == 0
    case.then(state="charging")


def test_completed_it_is_done_as_any_step_and_owed() -> None:
    made = Trade()
    case = handed_over(made)
    outcome = ends(case, *done_event(made.charge, outside(case), 1, OK))
    assert isinstance(outcome, Moved)
    assert outcome.configuration == "packing"
    after = read_memory(outcome.memory or b"")
    assert after.owed == (Owed(1, 0, "charge", 2),)
    assert [one.step for one in after.executions] == ["pack"]


def test_after_an_error_it_is_tried_again_without_the_token() -> None:
    made = Trade()
    case = handed_over(made)
    outcome = ends(case, *tried_event(made.charge, outside(case), OSError("no"), again=UNTIL + 1))
    assert isinstance(outcome, Ignored)
    after = with_memory(case, outcome.memory)
    assert outside(after) == Execution(1, 0, "charge", "charging", 2, UNTIL + 1, "OSError: no")
    late = ends(after, *waits_event(made.charge, Execution(1, 0, "charge", ""), Later("u"), AT))
    assert late == Ignored(Reason.VOID), "that attempt is over"


def test_what_timed_out_outside_may_have_been_done() -> None:
    made = Trade()
    case = handed_over(made)
    error = TimeoutError("late")
    outcome = ends(case, *tried_event(made.charge, outside(case), error, timed_out=True, again=UNTIL))
    assert isinstance(outcome, Ignored)
    assert outside(with_memory(case, outcome.memory)).unknown == 1


@pytest.mark.parametrize("for_good", [False, True])
def test_what_goes_on_outside_is_not_lost_with_the_engine_that_began_it(for_good: bool) -> None:
    made = Trade()
    case = handed_over(made)
    error = LostError("the engine was stopped")
    lost = (
        failed_event(made.charge, outside(case), error, lost=True, attempts=1)
        if for_good
        else tried_event(made.charge, outside(case), error, lost=True, again=UNTIL)
    )
    assert ends(case, *lost) == Ignored(Reason.VOID)
    assert ends(given(made.flow, Placed()), *lost) != Ignored(Reason.VOID), "it had not been handed over"


def test_the_first_token_of_an_attempt_counts() -> None:
    made = Trade()
    case = handed_over(made)
    again = ends(case, *waits_event(made.charge, outside(case), Later("u"), AT))
    assert again == Ignored(Reason.VOID)


def test_the_token_of_a_held_run_is_known_at_once() -> None:
    made = Trade()
    case = given(made.flow, Placed())
    assert case.run is not None
    case.run = case.run._replace(held=1)
    one = outside(case)
    outcome = ends(case, *waits_event(made.charge, one, Later("t"), AT))
    assert isinstance(outcome, Ignored)
    assert outside(with_memory(case, outcome.memory)).token == "t"
    assert type(ends(case, *done_event(made.charge, one, 1, OK))).__name__ == "Waits"


def test_where_its_state_is_left_nobody_knows_what_it_does_and_it_is_undone_at_once() -> None:
    case = handed_over(Trade()).when(Cancelled())
    after = memory_of(case)
    assert after.owed == (Owed(1, 0, "charge", 0),)
    assert [(one.step, one.of, one.stopping) for one in after.executions] == [("refund", "1.0", 0)]
    assert (after.executions[0].made, after.undoing >= 0) == (0, True)


def test_of_one_that_is_to_be_stopped_and_goes_on_outside_nobody_knows_what_it_does() -> None:
    made = Trade()
    case = given(made.flow, Placed())
    one = outside(case)
    case.when(Cancelled())
    assert outside(case).stopping == 1
    outcome = ends(case, *waits_event(made.charge, one, Later("t"), AT))
    assert isinstance(outcome, Moved)
    after = read_memory(outcome.memory or b"")
    assert after.owed == (Owed(1, 0, "charge", 0),)
    assert [one.step for one in after.executions] == ["refund"]
    late = with_memory(case, outcome.memory)
    assert ends(late, *stopped_event(made.charge, one, "unknown")) == Ignored(Reason.VOID)


def test_what_has_failed_for_good_is_found_by_no_token_any_more() -> None:
    made = Trade()
    case = handed_over(made)
    assert case.run is not None
    left = read_memory(given_up(case.run.memory, outside(case), unknown=True))
    assert [(one.token, one.again) for one in left.executions] == [("", -1)]
    failed = failed_event(made.charge, outside(case), OSError("no"), attempts=1)
    assert ends(case, *failed).__class__.__name__ == "Refused"


def test_what_goes_on_outside_is_remembered_as_it_was_written() -> None:
    memory = Memory(
        executions=(Execution(1, 0, "charge", "charging", token="t"), Execution(1, 1, "pack", "x"))
    )
    assert read_memory(write_memory(memory)) == memory
    assert b'[1,1,"pack","x"]' in write_memory(memory)


def told(made: Trade, effect: Callable[[], object], *, to: Any = None) -> Case[Any]:
    """A run whose step goes on outside, once an action has returned this on an event."""

    def tell(_order: Order, _event: Told) -> Any:
        return effect()

    made.flow.on(Told, to=to, do=tell)
    return given(made.flow, Placed()).step_later(made.charge, "t").when(Told())


def test_what_an_action_says_of_a_step_follows_as_a_transition_of_its_own() -> None:
    made = Trade()
    case = told(made, lambda: Complete(made.charge, "t", OK)).then(state="packing").then_owes(made.charge)
    assert [event_type for event_type, _ in case.followed] == ["done.step.charge"]
    [asked] = [one for one in case.sent if one.what == "complete"]
    assert (asked.type, asked.id, asked.key, asked.due) == ("charge", "t", None, 0)


def test_what_an_action_says_of_a_step_that_has_failed_is_a_failure_from_outside() -> None:
    made = Trade()
    case = told(made, lambda: Complete(made.charge, "t", error="no desk"))
    assert [event_type for event_type, _ in case.followed] == ["failed.step.charge"]
    [asked] = [one for one in case.sent if one.what == "fail"]
    assert asked.data == b'"no desk"'


def test_what_an_action_says_of_a_step_that_is_not_waited_for_is_void() -> None:
    made = Trade()
    case = told(made, lambda: Complete(made.charge, "another", OK)).then_runs(made.charge)
    assert case.followed == []


def test_a_run_that_ends_has_nothing_to_complete() -> None:
    made = Trade()
    case = told(made, lambda: Complete(made.charge, "t", OK), to=made.flow.state("told", final=True))
    assert [one.what for one in case.then(ended=True).sent] == ["stop"]


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        (
            lambda _made: Complete(cast("Any", "charge"), "t", OK),
            "takes a step first, as in Complete(review, token, result), not str",
        ),
        (lambda made: Complete(made.charge, "", OK), "Complete names the token '': that is a text"),
        (
            lambda made: Complete(made.charge, cast("Any", 7), OK),
            "Complete names the token 7: that is a text",
        ),
        (
            lambda made: Complete(made.charge, "t", 7),
            "charge returned int, which does not survive being stored",
        ),
        (
            lambda made: Complete(made.charge, "t"),
            "charge returned NoneType, which does not survive being stored",
        ),
        (lambda made: Complete(made.charge, "t", OK, error="no"), "takes a result, or an error as text"),
        (lambda made: Complete(made.charge, "t", error=""), "takes a result, or an error as text"),
        (lambda made: Complete(made.charge, "t", error=" \n "), "takes a result, or an error as text"),
        (
            lambda made: Complete(made.charge, "t", error=cast("Any", OSError())),
            "takes a result, or an error as text",
        ),
    ],
)
def test_what_completes_nothing_is_an_action_that_has_failed(effect: Any, said: str) -> None:
    made = Trade()
    told(made, lambda: effect(made)).then_refused(Reason.ACTION_FAILED, saying=said, holds=True)
