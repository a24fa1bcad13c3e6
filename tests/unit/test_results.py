"""The events that say how steps ended, as the engine makes them, and what it gives to a step."""

from __future__ import annotations

import enum
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self

import pytest
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from statemachines import Call, Context, Pipeline, Step
from statemachines.events import Address, is_result
from statemachines.handlers import validated
from statemachines.limits import ERROR_CHARACTERS_MAX
from statemachines.machine import compile_pipeline
from statemachines.memory import Execution
from statemachines.results import (
    ResultError,
    done_event,
    event_id,
    failed_event,
    idempotency_key,
    read_frozen,
    tried_event,
)
from statemachines.testkit import given
from tests.unit.working import CardRefused, CardStolen, Charge, PaymentError, Placed, Shop, shop

EXECUTION = Execution(3, 1, "charge", "charging", 2)


class Colour(enum.Enum):
    RED = "red"


class Parcel(BaseModel):
    weight: Decimal
    at: datetime
    colour: Colour
    place: str = Field(alias="where")


PARCEL = Parcel(weight=Decimal("1.50"), at=datetime(2026, 1, 1, tzinfo=UTC), colour=Colour.RED, where="here")


def returning(annotation: Any) -> Step[Any, Any]:
    def make(_context: Context, _call: Call) -> object: ...

    make.__annotations__["return"] = annotation
    return Pipeline("any", Context).step()(make)


@pytest.mark.parametrize(
    ("annotation", "result", "data"),
    [
        (Charge, Charge(id="c"), {"id": "c"}),
        (int, 5, 5),
        (None, None, None),
        (list[Charge] | None, [Charge(id="c")], [{"id": "c"}]),
        (tuple[int, str], (1, "a"), [1, "a"]),
        (Colour, Colour.RED, "red"),
        (Parcel, PARCEL, {"weight": "1.50", "at": "2026-01-01T00:00:00Z", "colour": "red", "where": "here"}),
        (dict[int, float], {1: 2.5}, {"1": 2.5}),
        (str, "\N{SNOWMAN}", "\N{SNOWMAN}"),
        (Any, {"a": [1]}, {"a": [1]}),
    ],
)
def test_a_result_comes_back_as_it_was(annotation: Any, result: Any, data: Any) -> None:
    made = returning(annotation)
    event_type, said = done_event(made, EXECUTION, 2, result)
    assert event_type == "done.step.make"
    assert said == {"execution": "3.1", "attempt": 2, "data": data}
    assert made.done.model_validate(said).result == result


@pytest.mark.parametrize(
    ("annotation", "result", "says"),
    [
        (int, "five", "make returned str, which does not survive being stored: "),
        (Charge, {"id": "c"}, "make returned dict, which"),
        (None, 5, "make returned int, which"),
        (float, math.nan, "make returned float, which"),
        (int, 2**70, "a whole number of more than 64 bits"),
        (Any, object(), "make returned object, which"),
        (str, "\ud800", "make returned str, which"),
    ],
)
def test_a_result_that_is_another_or_does_not_survive_is_refused(
    annotation: Any, result: Any, says: str
) -> None:
    with pytest.raises(ResultError, match=says) as caught:
        done_event(returning(annotation), EXECUTION, 1, result)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("order", [1, -1])
def test_a_failure_is_of_the_most_specific_exception_that_was_asked_for(order: int) -> None:
    made = Shop().charge
    for declared in (PaymentError, CardRefused)[::order]:
        made.failed_with(declared)
    for error, end in (
        (PaymentError("p"), ".PaymentError"),
        (CardRefused("p"), ".CardRefused"),
        (CardStolen("p"), ".CardRefused"),
        (ValueError("p"), ""),
    ):
        event_type, said = failed_event(made, EXECUTION, error, attempts=4)
        assert event_type == f"failed.step.charge{end}"
        assert said == {
            "execution": "3.1",
            "attempt": 2,
            "error": type(error).__name__,
            "message": "p",
            "attempts": 4,
        }


def test_what_took_too_long_is_of_its_own_type_whatever_it_raised() -> None:
    made = Shop().charge
    made.failed_with(TimeoutError)
    event_type, said = failed_event(made, EXECUTION, TimeoutError(), timed_out=True, attempts=1)
    assert (event_type, said["error"]) == ("failed.step.charge.timed_out", "TimeoutError")
    assert failed_event(made, EXECUTION, TimeoutError(), attempts=1)[0] == "failed.step.charge.TimeoutError"


def test_what_is_no_exception_is_told_in_words() -> None:
    made = shop().charge
    event_type, said = failed_event(made, EXECUTION, "the engine\r\n\n  was stopped\0\n", attempts=1)
    assert event_type == "failed.step.charge"
    assert (said["error"], said["message"]) == ("Error", "the engine / was stopped\\x00")
    assert tried_event(made, EXECUTION, "late", timed_out=True, again=5)[1]["error"] == "TimeoutError"


class SilentError(Exception):
    def __str__(self) -> str:
        raise LookupError


def test_a_message_is_short_and_can_be_shown() -> None:
    made = shop().charge
    assert len(failed_event(made, EXECUTION, ValueError("x" * 99_999), attempts=1)[1]["message"]) == (
        ERROR_CHARACTERS_MAX
    )
    said = tried_event(made, EXECUTION, SilentError(), again=1)[1]
    assert said["message"] == "(its message cannot be shown)"


def test_an_attempt_that_is_made_again_says_when() -> None:
    event_type, said = tried_event(shop().charge, EXECUTION, KeyError("k"), again=99)
    assert event_type == "tried.step.charge"
    assert said == {"execution": "3.1", "attempt": 2, "error": "KeyError", "message": "'k'", "again": 99}


def test_results_are_told_by_their_types() -> None:
    made = shop().charge
    events = [
        done_event(made, EXECUTION, 1, Charge(id="c")),
        failed_event(made, EXECUTION, "x", attempts=1),
        tried_event(made, EXECUTION, "x", again=1),
    ]
    assert all(is_result(event_type) for event_type, _ in events)
    assert not any(map(is_result, ["done.state.box", "after.box.0", "order.done.step.x", "failed"]))


def test_what_the_engine_says_of_a_failure_is_what_its_class_has() -> None:
    made = shop()
    machine = compile_pipeline(made.flow)
    for error in (CardRefused("no"), KeyError("k")):
        event, wrong = validated(machine, *failed_event(made.charge, EXECUTION, error, attempts=4))
        assert (wrong, type(event).__mro__[1:3].count(made.charge.failed)) == ("", 1)


def test_all_attempts_at_one_execution_have_one_key_and_no_others_have_it() -> None:
    machine = compile_pipeline(shop().flow, namespace="n")
    key = idempotency_key(machine, "o-1", 2, EXECUTION)
    assert key == Address("n", "shop", "o-1", 2, 3).id_of_asked(1)
    assert idempotency_key(machine, "o-1", 2, EXECUTION._replace(attempt=9, error="x", again=5)) == key
    others = {
        idempotency_key(machine, "o-2", 2, EXECUTION),
        idempotency_key(machine, "o-1", 3, EXECUTION),
        idempotency_key(machine, "o-1", 2, EXECUTION._replace(sequence=4)),
        idempotency_key(machine, "o-1", 2, EXECUTION._replace(number=2)),
        idempotency_key(compile_pipeline(shop().flow, namespace="m"), "o-1", 2, EXECUTION),
    }
    assert len(others | {key}) == 6


def test_an_event_is_known_by_its_attempt_whoever_says_so() -> None:
    case = given(shop().flow, Placed())
    machine, run = case.machine, case.run
    assert run is not None
    key = idempotency_key(machine, run.key, run.generation, EXECUTION)
    assert event_id(machine, run, EXECUTION, 2, "failed") == f"{key}/2"
    assert event_id(machine, run._replace(sequence=99), EXECUTION, 2, "tried") == f"{key}/2"
    assert event_id(machine, run, EXECUTION, 2, "done") == f"{key}/2/done"


class Deep(Context):
    number: int = 1
    words: list[str] = Field(default_factory=list)
    charge: Charge | None = None


def test_a_step_cannot_change_the_context() -> None:
    written = b'{"number":2,"words":["a"],"charge":{"id":"c"}}'
    context = read_frozen(Deep, written)
    made = type(context)
    assert isinstance(context, Deep)
    assert (context.number, context.words, context.charge) == (2, ["a"], Charge(id="c"))
    with pytest.raises(AttributeError, match="a step cannot change the context, such as its 'number'"):
        context.number = 3
    with pytest.raises(AttributeError, match="such as its 'number'"):
        del context.number
    assert made is type(read_frozen(Deep, written))
    assert (made.__name__, made.__module__, made.__qualname__) == ("Deep", __name__, "Deep")
    assert context.model_dump_json() == '{"number":2,"words":["a"],"charge":{"id":"c"}}'
    Deep().number = 3


class Careful(Context):
    number: int = Field(1, alias="n")
    twice: int = 0
    raw: bytes = b""
    _hidden: int = PrivateAttr(default=3)

    @model_validator(mode="after")
    def count(self) -> Self:
        self.twice = 2 * self.number
        return self


def test_a_context_may_change_itself_while_it_is_read() -> None:
    written = Careful(n=2, raw=b"\xff").model_dump_json(by_alias=True).encode()
    made = read_frozen(Careful, written)
    assert (made.number, made.twice, made._hidden, made.raw) == (2, 4, 3, b"\xff")
    with pytest.raises(AttributeError, match="cannot change the context"):
        made.twice = 5
    with pytest.raises(ValidationError):
        read_frozen(Careful, b'{"number":2}')
